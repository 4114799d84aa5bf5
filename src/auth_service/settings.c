// The field tables of auth.yaml, and the rules between its parts.
#include "auth_service/settings.h"

#include "auth_service/form.h"
#include "base/map.h"
#include "exchange/listener_config.h"
#include "http/header.h"
#include "http/uri.h"
#include "policy/policy_config.h"

#define SECOND 1e6
#define DAY    (86400 * SECOND)
#define IN(section, field) \
    (offsetof(struct auth_service_settings, section.field) - offsetof(struct auth_service_settings, section))

const struct auth_algorithm_row auth_algorithm_rows[AUTH_ALGORITHMS] = {
    {AUTH_ES256, ALGORITHM_ES256},
    {AUTH_RS256, ALGORITHM_RS256},
    {AUTH_EDDSA, ALGORITHM_EDDSA},
};

enum token_algorithm auth_algorithm_of(enum auth_algorithm bit)
{
    for (size_t i = 0; i < AUTH_ALGORITHMS; i++)
        if (auth_algorithm_rows[i].bit == bit)
            return auth_algorithm_rows[i].algorithm;
    return ALGORITHM_COUNT;
}

static const struct config_option algorithm_options[] = {
    {"RS256", AUTH_RS256}, {"ES256", AUTH_ES256}, {"EdDSA", AUTH_EDDSA}, {0}};

// ---- words, names, URLs ----

static bool accept_word(struct config_decoder *decoder, const struct config_node *node, struct str *value)
{
    if (form_is_word(*value))
        return true;
    config_fail(decoder, node, "printable ASCII without spaces, commas, quotes and backslashes",
                "not a scope, role or audience");
    return false;
}

static bool accept_name(struct config_decoder *decoder, const struct config_node *node, struct str *value)
{
    if (form_is_word(*value) && str_find(*value, ':') == value->n)
        return true;
    config_fail_key(decoder, node, "printable ASCII without spaces, colons, commas, quotes and backslashes",
                    "not a name");
    return false;
}

static bool accept_url(struct config_decoder *decoder, const struct config_node *node, struct str *value)
{
    struct str rest = *value, host, port;
    size_t scheme = str_starts(rest, STR("https://")) ? 8 : str_starts(rest, STR("http://")) ? 7 : 0;
    rest = str_skip(rest, scheme);
    struct str authority = {rest.p, str_find(rest, '/')}, path = str_skip(rest, authority.n);
    bool is_good = scheme && authority.n && uri_authority_split(authority, &host, &port) && host.n;
    for (size_t i = 0; i < path.n; i++)
        is_good = is_good && path.p[i] > ' ' && path.p[i] <= '~' && !strchr("?#\"<>\\^`{|}", path.p[i]);
    if (!is_good || str_ends(*value, STR("/")))
        config_fail(decoder, node, "such as https://auth.example.com",
                    "expected an http or https URL without query, fragment and a slash at its end");
    return is_good && !str_ends(*value, STR("/"));
}

static bool accept_path(struct config_decoder *decoder, const struct config_node *node, struct str *value)
{
    struct str normal;
    const char *why = "it must begin with /";
    if (value->n && value->p[0] == '/' &&
        uri_normalise_path(*value, false, config_arena(decoder), &normal, &why) == URI_OK &&
        str_eq(normal, *value))
        return true;
    config_fail(decoder, node, why, "not a path in its normal form");
    return false;
}

static bool accept_method(struct config_decoder *decoder, const struct config_node *node, struct str *value)
{
    if (header_name_valid(*value))
        return true;
    config_fail(decoder, node, "such as GET", "not a method");
    return false;
}

static bool accept_hash(struct config_decoder *decoder, const struct config_node *node, struct str *value)
{
    struct scrypt_hash hash;
    const char *why;
    if (scrypt_parse(*value, &hash, &why))
        return true;
    config_fail(decoder, node, "`sallyport-auth hash` makes one from a secret on its stdin", "%s", why);
    return false;
}

static bool accept_not_empty(struct config_decoder *decoder, const struct config_node *node,
                             struct str *value)
{
    if (value->n)
        return true;
    config_fail(decoder, node, "", "must not be empty");
    return false;
}

// What the service says itself: RFC 7519 4.1, RFC 9068 2.2, RFC 7662 2.2.
static bool accept_claim(struct config_decoder *decoder, const struct config_node *node, struct str *value)
{
    static const struct str ours[] = {
        STR("iss"), STR("sub"),   STR("aud"),       STR("exp"),    STR("nbf"),        STR("iat"),
        STR("jti"), STR("scope"), STR("client_id"), STR("roles"),  STR("token_type"), STR("active"),
        STR("typ"), STR("cnf"),   STR("auth_time"), STR("scopes"), STR("username"),   STR("events"),
    };
    (void)value;
    for (size_t i = 0; i < countof(ours); i++)
        if (str_eq(node->key, ours[i])) {
            config_fail_key(decoder, node, "choose another name", "this claim is the service's own");
            return false;
        }
    return true;
}

#define WORDS        .type = CONFIG_STRINGS, .accept = accept_word, .pattern = "^[!-~]+$"
#define HASH_PATTERN "^scrypt:[0-9]+:[0-9]+:[0-9]+:[A-Za-z0-9_-]+:[A-Za-z0-9_-]+$"

// ---- keys, tokens, limits ----

static const struct config_field keys_fields[] = {
    {.name = "algorithms",
     .type = CONFIG_FLAGS,
     .offset = IN(keys, algorithms),
     .fallback = "[RS256, ES256, EdDSA]",
     .options = algorithm_options,
     .min_count = 1,
     .doc = "One signing key is kept for each."},
    {.name = "rotate",
     .type = CONFIG_DURATION,
     .offset = IN(keys, rotate_us),
     .fallback = "24h",
     .min = SECOND,
     .max = 3650 * DAY,
     .doc = "How long a key signs. The next one is published as long before it does."},
    {.name = "overlap",
     .type = CONFIG_DURATION,
     .offset = IN(keys, overlap_us),
     .fallback = "24h",
     .min = SECOND,
     .max = 3650 * DAY,
     .doc = "How long a key that signs no more stays published; at least the longest life of an access "
            "token."},
    {0},
};

static const struct config_object keys_object = {
    .name = "signing_keys",
    .doc = "The signing keys, made on the first start and changed on schedule.",
    .example = "{ algorithms: [ES256], rotate: 24h, overlap: 24h }",
    .size = sizeof(((struct auth_service_settings *)0)->keys),
    .fields = keys_fields,
};

static const struct config_field tokens_fields[] = {
    {.name = "access",
     .type = CONFIG_DURATION,
     .offset = IN(tokens, access_us),
     .fallback = "10m",
     .min = SECOND,
     .max = 365 * DAY,
     .doc = "How long an access token is valid."},
    {.name = "refresh",
     .type = CONFIG_DURATION,
     .offset = IN(tokens, refresh_us),
     .fallback = "24h",
     .min = SECOND,
     .max = 3650 * DAY,
     .doc = "How long a refresh token is, from its issue; each use gives a new one."},
    {.name = "audience",
     WORDS,
     .offset = IN(tokens, audiences),
     .fallback = "[]",
     .doc = "The audience of tokens for clients that name none.",
     .example = "[orders-api]"},
    {.name = "algorithm",
     .type = CONFIG_ENUM,
     .offset = IN(tokens, algorithm),
     .fallback = "ES256",
     .options = algorithm_options,
     .doc = "What signs, for clients that name nothing else."},
    {0},
};

static const struct config_object tokens_object = {
    .name = "tokens",
    .doc = "What tokens are like, where a client says nothing else.",
    .example = "{ access: 10m, refresh: 24h, algorithm: ES256 }",
    .size = sizeof(((struct auth_service_settings *)0)->tokens),
    .fields = tokens_fields,
};

static const struct config_field limit_fields[] = {
    {.name = "failures",
     .type = CONFIG_INT,
     .offset = IN(login_limit, failures),
     .fallback = "5",
     .min = 1,
     .max = 1000000,
     .doc = "Failed logins to one name from one address."},
    {.name = "from_address",
     .type = CONFIG_INT,
     .offset = IN(login_limit, from_address),
     .fallback = "50",
     .min = 1,
     .max = 1000000,
     .doc = "Failed logins from one address (IPv6: one /64), whatever the names."},
    {.name = "for_name",
     .type = CONFIG_INT,
     .offset = IN(login_limit, for_name),
     .fallback = "200",
     .min = 1,
     .max = 1000000,
     .doc = "Failed logins to one name, wherever from."},
    {.name = "per",
     .type = CONFIG_DURATION,
     .offset = IN(login_limit, per_us),
     .fallback = "1m",
     .min = SECOND,
     .max = DAY,
     .doc = "In this time; then one more each time that a share of it has passed."},
    {0},
};

static const struct config_object limit_object = {
    .name = "login_limit",
    .doc = "How many logins may fail, of clients and of users; more are answered 429.",
    .example = "{ failures: 5, per: 1m }",
    .size = sizeof(((struct auth_service_settings *)0)->login_limit),
    .fields = limit_fields,
};

// ---- clients ----

static const struct config_option grant_options[] = {{"client_credentials", GRANT_CLIENT_CREDENTIALS},
                                                     {"refresh_token", GRANT_REFRESH_TOKEN},
                                                     {"password", GRANT_PASSWORD},
                                                     {0}};
static const struct config_option format_options[] = {
    {"jwt", TOKEN_FORMAT_JWT}, {"opaque", TOKEN_FORMAT_OPAQUE}, {0}};

static const struct config_field client_fields[] = {
    {.name = "secret_hash",
     .type = CONFIG_STRING,
     .offset = offsetof(struct client_settings, secret_hash),
     .nullable = true,
     .accept = accept_hash,
     .pattern = HASH_PATTERN,
     .type_name = "a hash",
     .doc = "Of its secret, made by `sallyport-auth hash`."},
    {.name = "secret",
     .type = CONFIG_SECRET,
     .offset = offsetof(struct client_settings, secret),
     .nullable = true,
     .doc = "Instead of secret_hash: the secret itself, at least 16 bytes.",
     .example = "{ env: ORDERS_SECRET }"},
    {.name = "grants",
     .type = CONFIG_FLAGS,
     .offset = offsetof(struct client_settings, grants),
     .fallback = "[client_credentials]",
     .options = grant_options,
     .min_count = 1,
     .doc = "What it may ask tokens by; with refresh_token, it gets refresh tokens with the others."},
    {.name = "scopes",
     WORDS,
     .offset = offsetof(struct client_settings, scopes),
     .fallback = "[]",
     .doc = "Scopes that it may ask for; without asking, it gets all of them.",
     .example = "[orders:read]"},
    {.name = "roles",
     WORDS,
     .offset = offsetof(struct client_settings, roles),
     .fallback = "[]",
     .doc = "Its roles, in tokens of its own (client_credentials)."},
    {.name = "audiences",
     WORDS,
     .offset = offsetof(struct client_settings, audiences),
     .fallback = "[]",
     .doc = "Whom its tokens are for; it may ask for one of them by audience or resource. None: as tokens "
            "says."},
    {.name = "access",
     .type = CONFIG_DURATION,
     .offset = offsetof(struct client_settings, access_us),
     .nullable = true,
     .min = SECOND,
     .max = 365 * DAY,
     .doc = "How long its access tokens are valid; null: as tokens says."},
    {.name = "refresh",
     .type = CONFIG_DURATION,
     .offset = offsetof(struct client_settings, refresh_us),
     .nullable = true,
     .min = SECOND,
     .max = 3650 * DAY,
     .doc = "How long its refresh tokens are valid; null: as tokens says."},
    {.name = "algorithm",
     .type = CONFIG_ENUM,
     .offset = offsetof(struct client_settings, algorithm),
     .nullable = true,
     .options = algorithm_options,
     .doc = "What signs its tokens; null: as tokens says."},
    {.name = "token_format",
     .type = CONFIG_ENUM,
     .offset = offsetof(struct client_settings, token_format),
     .fallback = "jwt",
     .options = format_options,
     .doc = "opaque: access tokens that mean something to /introspect alone."},
    {.name = "claims",
     .type = CONFIG_STRING_MAP,
     .offset = offsetof(struct client_settings, claims),
     .fallback = "{}",
     .accept = accept_claim,
     .doc = "Further claims of its tokens.",
     .example = "{ tenant: acme }"},
    {0},
};

static const char *const client_one_of[] = {"secret_hash", "secret", NULL};

static void check_client(struct config_decoder *decoder, const struct config_node *node, void *target)
{
    struct client_settings *client = target;
    const char *why;
    if (client->secret_hash.n && !scrypt_parse(client->secret_hash, &client->hash, &why))
        config_fail_at(decoder, node, STR("secret_hash"), "", "%s", why);
    if (client->secret.n && (client->secret.n < 16 || client->secret.n > SCRYPT_SECRET_BYTES))
        config_fail_at(decoder, node, STR("secret"), "openssl rand -base64 32 | tr -d '=' makes a good one",
                       "a secret has 16 to 1024 bytes");
    if (client->grants == GRANT_REFRESH_TOKEN)
        config_fail_at(decoder, node, STR("grants"), "add client_credentials or password",
                       "refresh_token alone leads to no token");
}

static const struct config_object client_object = {
    .name = "client",
    .doc = "A program that asks for tokens.",
    .example = "secret_hash: \"scrypt:32768:8:1:AAAAAAAAAAAAAAAAAAAAAA:"
               "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA\"\n"
               "scopes: [orders:read]\n",
    .size = sizeof(struct client_settings),
    .fields = client_fields,
    .has_position = true,
    .name_offset = offsetof(struct client_settings, id),
    .one_of = client_one_of,
    .check_rules = check_client,
};

// ---- users ----

static const struct config_field user_fields[] = {
    {.name = "password_hash",
     .type = CONFIG_STRING,
     .offset = offsetof(struct user_settings, password_hash),
     .required = true,
     .accept = accept_hash,
     .pattern = HASH_PATTERN,
     .type_name = "a hash",
     .doc = "Made by `sallyport-auth hash`."},
    {.name = "scopes",
     WORDS,
     .offset = offsetof(struct user_settings, scopes),
     .fallback = "[]",
     .doc = "Scopes that clients may ask for in the user's name."},
    {.name = "roles",
     WORDS,
     .offset = offsetof(struct user_settings, roles),
     .fallback = "[]",
     .doc = "The user's roles."},
    {.name = "claims",
     .type = CONFIG_STRING_MAP,
     .offset = offsetof(struct user_settings, claims),
     .fallback = "{}",
     .accept = accept_claim,
     .doc = "Further claims of the user's tokens; they go before the client's."},
    {0},
};

static void check_user(struct config_decoder *decoder, const struct config_node *node, void *target)
{
    struct user_settings *user = target;
    const char *why;
    if (user->password_hash.n && !scrypt_parse(user->password_hash, &user->hash, &why))
        config_fail_at(decoder, node, STR("password_hash"), "", "%s", why);
}

static const struct config_object user_object = {
    .name = "user",
    .doc = "A person, for the password grant.",
    .example = "password_hash: \"scrypt:32768:8:1:AAAAAAAAAAAAAAAAAAAAAA:"
               "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA\"\n"
               "roles: [gold]\n",
    .size = sizeof(struct user_settings),
    .fields = user_fields,
    .has_position = true,
    .name_offset = offsetof(struct user_settings, name),
    .check_rules = check_user,
};

// ---- rules of /authorize ----

static const struct config_field rule_fields[] = {
    {.name = "path",
     .type = CONFIG_STRING,
     .offset = offsetof(struct rule_settings, path),
     .fallback = "/",
     .accept = accept_path,
     .pattern = "^/",
     .type_name = "a path",
     .doc = "Requests whose path begins with it, by whole segments."},
    {.name = "methods",
     .type = CONFIG_STRINGS,
     .offset = offsetof(struct rule_settings, methods),
     .fallback = "[]",
     .accept = accept_method,
     .pattern = CONFIG_TOKEN_PATTERN,
     .doc = "Of these methods; none: any."},
    {.name = "roles",
     WORDS,
     .offset = offsetof(struct rule_settings, roles),
     .fallback = "[]",
     .doc = "One of these is needed; none: any caller."},
    {.name = "scopes",
     WORDS,
     .offset = offsetof(struct rule_settings, scopes),
     .fallback = "[]",
     .doc = "All of these are needed."},
    {0},
};

static const struct config_object rule_object = {
    .name = "rule",
    .doc = "Who may do what, for /authorize. The first rule that fits decides.",
    .example = "{ path: /admin, roles: [admin] }",
    .size = sizeof(struct rule_settings),
    .fields = rule_fields,
};

// ---- the whole ----

static void check_lifetimes(struct config_decoder *decoder, const struct config_node *node,
                            const struct auth_service_settings *settings)
{
    uint64_t longest = settings->tokens.access_us;
    for (uint32_t i = 0; i < settings->clients.count; i++)
        if (auth_clients(settings)[i].access_us > longest)
            longest = auth_clients(settings)[i].access_us;
    const struct config_node *keys = config_get(node, STR("keys"));
    if (settings->keys.overlap_us >= longest)
        return;
    if (keys) {
        config_enter(decoder, STR("keys"));
        config_fail_at(decoder, keys, STR("overlap"), "raise it, or shorten tokens.access",
                       "shorter than the longest life of an access token");
        config_leave(decoder);
    } else {
        config_fail_at(decoder, node, STR("keys"), "set keys.overlap, or shorten tokens.access",
                       "keys.overlap is shorter than the longest life of an access token");
    }
}

static void check_client_algorithms(struct config_decoder *decoder, const struct config_node *node,
                                    const struct auth_service_settings *settings)
{
    unsigned known = settings->keys.algorithms;
    if (!(known & (unsigned)settings->tokens.algorithm))
        config_fail_at(decoder, node, STR("tokens"), "add it there, or choose another algorithm",
                       "tokens.algorithm is not among keys.algorithms");
    for (uint32_t i = 0; i < settings->clients.count; i++) {
        const struct client_settings *client = &auth_clients(settings)[i];
        if (client->algorithm && !(known & (unsigned)client->algorithm))
            config_fail_at(decoder, node, STR("clients"), "add it there, or choose another algorithm",
                           "the algorithm of %.*s is not among keys.algorithms", STR_ARG(client->id));
    }
}

// A subject is one or the other (RFC 9068 5).
static void check_subjects(struct config_decoder *decoder, const struct config_node *node,
                           struct auth_service_settings *settings)
{
    struct map names = {0};
    for (uint32_t i = 0; i < settings->clients.count; i++) {
        const struct client_settings *client = &auth_clients(settings)[i];
        map_put(&names, client->id, settings);
        if (client->grants & GRANT_PASSWORD && !settings->password_grant)
            config_fail_at(decoder, node, STR("clients"), "set password_grant: true, or leave it out there",
                           "%.*s has the password grant, which is off", STR_ARG(client->id));
    }
    for (uint32_t i = 0; i < settings->users.count; i++)
        if (map_get(&names, auth_users(settings)[i].name))
            config_fail_at(decoder, node, STR("users"), "rename one of them",
                           "%.*s is a client, too: their tokens would have one subject",
                           STR_ARG(auth_users(settings)[i].name));
    map_fini(&names);
}

static void check_settings(struct config_decoder *decoder, const struct config_node *node, void *target)
{
    struct auth_service_settings *settings = target;
    check_lifetimes(decoder, node, settings);
    check_client_algorithms(decoder, node, settings);
    check_subjects(decoder, node, settings);
    if (!settings->url.n)
        settings->url = settings->issuer;
}

#define AT(field) .offset = offsetof(struct auth_service_settings, field)

static const struct config_field auth_fields[] = {
    {.name = "version",
     .type = CONFIG_INT,
     AT(version),
     .required = true,
     .min = 1,
     .max = 1,
     .doc = "The version of this format."},
    {.name = "address",
     .type = CONFIG_STRING,
     AT(address),
     .fallback = "\"127.0.0.1:9400\"",
     .accept = config_accept_address,
     .pattern = CONFIG_ADDRESS_PATTERN,
     .type_name = "an address",
     .doc = "Where it listens. It speaks plain HTTP: let others reach it through the gateway."},
    {.name = "issuer",
     .type = CONFIG_STRING,
     AT(issuer),
     .required = true,
     .accept = accept_url,
     .pattern = "^https?://.*[^/]$",
     .type_name = "a URL",
     .doc = "Who it is in its tokens (iss).",
     .example = "\"https://auth.example.com\""},
    {.name = "url",
     .type = CONFIG_STRING,
     AT(url),
     .nullable = true,
     .accept = accept_url,
     .pattern = "^https?://.*[^/]$",
     .type_name = "a URL",
     .doc = "Where its endpoints are for clients, in its metadata; null: at the issuer."},
    {.name = "state",
     .type = CONFIG_STRING,
     AT(state),
     .fallback = "sallyport-auth.state",
     .accept = accept_not_empty,
     .pattern = ".",
     .type_name = "a path",
     .doc = "A directory of its own for signing keys, refresh tokens (as hashes) and revocations."},
    {.name = "keys", .type = CONFIG_OBJECT, AT(keys), .object = &keys_object, .doc = "The signing keys."},
    {.name = "tokens",
     .type = CONFIG_OBJECT,
     AT(tokens),
     .object = &tokens_object,
     .doc = "What tokens are like."},
    {.name = "clients",
     .type = CONFIG_OBJECT_MAP,
     AT(clients),
     .object = &client_object,
     .accept = accept_name,
     .doc = "Programs that ask for tokens, by client_id."},
    {.name = "users",
     .type = CONFIG_OBJECT_MAP,
     AT(users),
     .object = &user_object,
     .accept = accept_name,
     .doc = "People, by user name; for the password grant."},
    {.name = "password_grant",
     .type = CONFIG_BOOL,
     AT(password_grant),
     .fallback = "false",
     .doc = "true: clients that have the password grant may use it. OAuth 2.1 leaves it out, since the "
            "client sees the password."},
    {.name = "rules",
     .type = CONFIG_OBJECTS,
     AT(rules),
     .object = &rule_object,
     .doc = "Who may do what, for /authorize; without a rule that fits, any valid token will do."},
    {.name = "login_limit",
     .type = CONFIG_OBJECT,
     AT(login_limit),
     .object = &limit_object,
     .doc = "How many logins may fail."},
    {.name = "threads",
     .type = CONFIG_INT,
     AT(threads),
     .fallback = "2",
     .min = 1,
     .max = 64,
     .doc = "For passwords and new keys; each takes 32 MiB while it hashes."},
    {.name = "redis",
     .type = CONFIG_OBJECT,
     AT(redis),
     .nullable = true,
     .is_set_offset = offsetof(struct auth_service_settings, has_redis),
     .object = &redis_object,
     .doc = "Where revoked tokens are told to the gateways (revocation: true there). null: nobody is told; "
            "/introspect and /authorize know them all the same."},
    {.name = "trusted_proxies",
     CONFIG_CIDRS,
     AT(trusted_proxies),
     .fallback = "[]",
     .doc = "Networks whose X-Forwarded-For is believed, for login_limit and the access log.",
     .example = "[10.0.0.0/8]"},
    {.name = "access_log",
     .type = CONFIG_OBJECT,
     AT(access_log),
     .object = &access_log_object,
     .doc = "One line for each request."},
    {.name = "drain",
     .type = CONFIG_DURATION,
     AT(drain_us),
     .fallback = "5s",
     .min = 0,
     .max = 3600 * SECOND,
     .doc = "How long requests under way get at the end."},
    {0},
};

const struct config_object auth_service_object = {
    .name = "auth_service",
    .doc = "The Auth Service.",
    .example = "version: 1\nissuer: \"https://auth.example.com\"\n",
    .size = sizeof(struct auth_service_settings),
    .fields = auth_fields,
    .check_rules = check_settings,
};

bool auth_settings_load(struct str file, struct str text, struct arena *arena,
                        struct auth_service_settings *settings, struct config_report *report)
{
    struct arena tree; // only the settings stay
    arena_init(&tree, NULL);
    const struct config_node *root = config_parse(file, text, &tree, report);
    if (root)
        config_decode(&auth_service_object, root, settings, file, arena, report);
    arena_reset(&tree);
    config_report_sort(report);
    return root && report->count == 0;
}
