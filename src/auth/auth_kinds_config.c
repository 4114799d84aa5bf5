// What each kind of provider has: the tables of jwt, introspection, forward, api_key and mtls.
#include "auth/auth_kinds_config.h"

#include "http/header.h"
#include "http/uri.h"
#include "token/token.h"

#define MILLISECOND 1e3
#define SECOND      1e6
#define HOUR        3600e6

static bool has_key(const struct config_node *map, struct str key)
{
    const struct config_node *value = config_get(map, key);
    return value && value->kind != CONFIG_NULL;
}

// null takes a default away. The decoder leaves it.
static void clear_null(const struct config_node *map, struct str key, struct str *value)
{
    const struct config_node *node = config_get(map, key);
    if (node && node->kind == CONFIG_NULL)
        *value = STR_NULL;
}

// ---- addresses of Auth Services ----

static bool parse_authority(struct str text, struct arena *arena, struct auth_uri *uri, const char **why)
{
    struct str host, port_text;
    struct ip ip;
    uint64_t port = uri->tls ? 443 : 80;
    *why = "user and password do not belong in the address";
    if (str_find(text, '@') < text.n)
        return false;
    *why = "expected host or host:port behind the scheme";
    if (!uri_authority_split(text, &host, &port_text))
        return false;
    bool is_v6 = host.p[0] == '[';
    struct str bare = is_v6 ? (struct str){host.p + 1, host.n - 2} : host;
    if (is_v6 ? !ip_parse(bare, &ip) : !ip_parse(host, &ip) && !config_is_host_name(host))
        return false;
    *why = "the port is a number between 1 and 65535";
    if (port_text.n && (!str_to_u64(port_text, 65535, &port) || !port))
        return false;
    uri->authority = arena_copy(arena, port_text.n ? text : host);
    uri->address = arena_printf(arena, "%.*s:%u", STR_ARG(host), (unsigned)port);
    return true;
}

static bool parse_target(struct str text, struct arena *arena, struct auth_uri *uri, const char **why)
{
    size_t question = str_find(text, '?');
    struct str path = {text.p, question}, normal;
    *why = "a fragment is not sent to servers";
    if (str_find(text, '#') < text.n)
        return false;
    if (path.n && uri_normalise_path(path, false, arena, &normal, why) != URI_OK)
        return false;
    *why = "the query holds characters that have to be percent-encoded";
    if (question < text.n && !uri_query_valid(str_skip(text, question + 1)))
        return false;
    uri->target = arena_printf(arena, "%s%.*s", path.n ? "" : "/", STR_ARG(text));
    return true;
}

bool auth_uri_parse(struct str text, struct arena *arena, struct auth_uri *uri, const char **why)
{
    static const struct str plain = STR("http://"), tls = STR("https://");
    *uri = (struct auth_uri){.tls = str_starts(text, tls)};
    *why = "expected http:// or https://";
    if (!uri->tls && !str_starts(text, plain))
        return false;
    struct str rest = str_skip(text, uri->tls ? tls.n : plain.n);
    size_t end = 0;
    while (end < rest.n && rest.p[end] != '/' && rest.p[end] != '?' && rest.p[end] != '#')
        end++;
    uri->text = arena_copy(arena, text);
    return parse_authority((struct str){rest.p, end}, arena, uri, why) &&
           parse_target(str_skip(rest, end), arena, uri, why);
}

void config_decode_auth_uri(struct config_decoder *decoder, const struct config_node *node, void *target)
{
    struct str text;
    struct auth_uri uri;
    const char *why;
    if (!config_decode_string(decoder, node, &text))
        return;
    if (auth_uri_parse(text, config_arena(decoder), &uri, &why))
        memcpy(target, &uri, sizeof uri);
    else
        config_fail(decoder, node, "such as https://auth.example.com/path", "%s", why);
}

struct config_node *config_encode_auth_uri(struct arena *arena, const void *target)
{
    const struct auth_uri *uri = target;
    return uri->text.n ? config_new_string(arena, uri->text) : NULL;
}

static void check_ca(struct config_decoder *decoder, const struct config_node *node,
                     const struct auth_uri *uri, struct str ca)
{
    if (uri->text.n && !uri->tls && !str_eq(ca, STR("system")))
        config_fail_at(decoder, node, STR("ca"), "write https://",
                       "without TLS nothing is checked against it");
}

#define CA_DOC                                                                                           \
    "https: PEM, the certificates against which the Auth Service's is verified. system: those that the " \
    "operating system trusts."

// ---- jwt ----

static const char *const jwks_sources[] = {"uri", "file", NULL};

static void check_jwks(struct config_decoder *decoder, const struct config_node *node, void *target)
{
    const struct jwks_settings *jwks = target;
    check_ca(decoder, node, &jwks->uri, jwks->ca);
}

static const struct config_field jwks_fields[] = {
    {.name = "uri",
     CONFIG_AUTH_URI,
     .offset = offsetof(struct jwks_settings, uri),
     .doc = "Where the Auth Service publishes its keys.",
     .example = "\"https://auth.example.com/jwks.json\""},
    {.name = "file",
     .type = CONFIG_STRING,
     .offset = offsetof(struct jwks_settings, file),
     .accept = config_accept_path,
     CONFIG_PATH,
     .doc = "A file with the keys; it is read again when it changes."},
    {.name = "refresh",
     .type = CONFIG_DURATION,
     .offset = offsetof(struct jwks_settings, refresh_us),
     .fallback = "10m",
     .min = 100 * MILLISECOND,
     .max = 30 * 24 * HOUR,
     .doc = "How often the keys are fetched."},
    {.name = "cooldown",
     .type = CONFIG_DURATION,
     .offset = offsetof(struct jwks_settings, cooldown_us),
     .fallback = "10s",
     .min = 100 * MILLISECOND,
     .max = HOUR,
     .doc = "An unknown key makes all workers together fetch at most once in this time."},
    {.name = "keep_last_good",
     .type = CONFIG_DURATION,
     .offset = offsetof(struct jwks_settings, keep_last_good_us),
     .fallback = "24h",
     .min = 0,
     .max = 365 * 24 * HOUR,
     .doc = "How long the keys stay in force while no fetch succeeds."},
    {.name = "timeout",
     .type = CONFIG_DURATION,
     .offset = offsetof(struct jwks_settings, timeout_us),
     .fallback = "2s",
     .min = MILLISECOND,
     .max = 60 * SECOND,
     .doc = "How long a fetch may take."},
    {.name = "ca",
     .type = CONFIG_STRING,
     .offset = offsetof(struct jwks_settings, ca),
     .fallback = "system",
     .accept = config_accept_path,
     CONFIG_PATH,
     .doc = CA_DOC},
    {0},
};

static const struct config_object jwks_object = {
    .name = "jwks",
    .doc = "The keys that sign an Auth Service's tokens (RFC 7517).",
    .example = "{ uri: \"https://auth.example.com/jwks.json\", refresh: 10m, cooldown: 10s }",
    .size = sizeof(struct jwks_settings),
    .fields = jwks_fields,
    .one_of = jwks_sources,
    .check_rules = check_jwks,
};

static const struct config_option algorithm_options[] = {
#define X(id, name) {name, 1 << id},
    TOKEN_ALGORITHMS(X)
#undef X
        {0}};

// The first of a set.
static struct str name_of(unsigned algorithms)
{
    return token_algorithm_name((enum token_algorithm)__builtin_ctz(algorithms));
}

static void check_algorithms(struct config_decoder *decoder, const struct config_node *node,
                             const struct jwt_settings *jwt, bool has_secret)
{
    static const struct str key = STR("algorithms");
    unsigned with_secret = jwt->algorithms & ALGORITHMS_HS, with_keys = jwt->algorithms & ~ALGORITHMS_HS;
    if (has_secret && with_keys)
        config_fail_at(decoder, node, key, "HS256, HS384 or HS512", "%.*s is not done with a secret",
                       STR_ARG(name_of(with_keys)));
    else if (!has_secret && with_secret)
        config_fail_at(decoder, node, key, "remove it, or write secret instead of jwks",
                       "%.*s is done with a secret, never with published keys",
                       STR_ARG(name_of(with_secret)));
}

// RFC 7518 3.2: as long as the hash.
static void check_secret(struct config_decoder *decoder, const struct config_node *node,
                         const struct jwt_settings *jwt)
{
    static const struct {
        enum token_algorithm algorithm;
        size_t bytes;
    } needs[] = {{ALGORITHM_HS512, 64}, {ALGORITHM_HS384, 48}, {ALGORITHM_HS256, 32}};
    for (size_t i = 0; i < countof(needs) && jwt->secret.n; i++) {
        if (!(jwt->algorithms >> needs[i].algorithm & 1) || jwt->secret.n >= needs[i].bytes)
            continue;
        config_fail_at(decoder, node, STR("secret"), "openssl rand -base64 64",
                       "%.*s needs a secret of %zu bytes or more, not %zu",
                       STR_ARG(token_algorithm_name(needs[i].algorithm)), needs[i].bytes, jwt->secret.n);
        return;
    }
}

static void check_jwt(struct config_decoder *decoder, const struct config_node *node, void *target)
{
    struct jwt_settings *jwt = target;
    bool has_secret = has_key(node, STR("secret"));
    if (has_secret && jwt->has_jwks)
        config_fail_at(decoder, node, STR("secret"), "remove one of the two",
                       "jwks and secret exclude each other");
    else if (!has_secret && !jwt->has_jwks)
        config_fail(decoder, node, "add jwks: { uri: \"https://auth.example.com/jwks.json\" }",
                    "needs jwks or secret");
    if (has_secret && !jwt->has_jwks && !has_key(node, STR("algorithms")))
        jwt->algorithms = 1U << ALGORITHM_HS256;
    if (has_secret != jwt->has_jwks)
        check_algorithms(decoder, node, jwt, has_secret);
    if (has_secret)
        check_secret(decoder, node, jwt);
}

static const struct config_field jwt_fields[] = {
    {.name = "issuer",
     .type = CONFIG_STRING,
     .offset = offsetof(struct jwt_settings, issuer),
     .required = true,
     .accept = config_accept_text,
     .pattern = ".",
     .doc = "The `iss` that tokens must have, to the letter.",
     .example = "\"https://auth.example.com\""},
    {.name = "audiences",
     .type = CONFIG_STRINGS,
     .offset = offsetof(struct jwt_settings, audiences),
     .fallback = "[]",
     .accept = config_accept_text,
     .pattern = ".",
     .doc = "A token's `aud` must be, or hold, one of them. [] checks none."},
    {.name = "jwks",
     .type = CONFIG_OBJECT,
     .offset = offsetof(struct jwt_settings, jwks),
     .is_set_offset = offsetof(struct jwt_settings, has_jwks),
     .nullable = true,
     .object = &jwks_object,
     .doc = "The Auth Service's public keys. Either jwks or secret."},
    {.name = "algorithms",
     .type = CONFIG_FLAGS,
     .offset = offsetof(struct jwt_settings, algorithms),
     .fallback = "[RS256, ES256, EdDSA]",
     .min_count = 1,
     .options = algorithm_options,
     .doc = "Signature algorithms that are accepted. HS* only with a secret; with one, the default is "
            "[HS256]."},
    {.name = "secret",
     .type = CONFIG_SECRET,
     .offset = offsetof(struct jwt_settings, secret),
     .nullable = true,
     .doc = "Of HS*: at least 32 bytes (HS384: 48, HS512: 64).",
     .example = "{ env: JWT_SECRET }"},
    {.name = "leeway",
     .type = CONFIG_DURATION,
     .offset = offsetof(struct jwt_settings, leeway_us),
     .fallback = "30s",
     .min = 0,
     .max = HOUR,
     .doc = "How far the clocks may be apart, for `exp` and `nbf`."},
    {.name = "required_claims",
     .type = CONFIG_STRINGS,
     .offset = offsetof(struct jwt_settings, required_claims),
     .fallback = "[exp]",
     .accept = config_accept_text,
     .pattern = ".",
     .doc = "Claims that must be there, as dotted paths."},
    {.name = "roles_claim",
     .type = CONFIG_STRING,
     .offset = offsetof(struct jwt_settings, roles_claim),
     .fallback = "roles",
     .accept = config_accept_text,
     .pattern = ".",
     .doc = "The claim that becomes identity.roles, a dotted path: a string (space separated) or an array."},
    {.name = "scopes_claim",
     .type = CONFIG_STRING,
     .offset = offsetof(struct jwt_settings, scopes_claim),
     .fallback = "scope",
     .accept = config_accept_text,
     .pattern = ".",
     .doc = "The claim that becomes identity.scopes, likewise."},
    {.name = "consumer_claim",
     .type = CONFIG_STRING,
     .offset = offsetof(struct jwt_settings, consumer_claim),
     .nullable = true,
     .accept = config_accept_text,
     .pattern = ".",
     .doc = "The claim that becomes identity.consumer. null: none.",
     .example = "client_id"},
    {.name = "revocation",
     .type = CONFIG_BOOL,
     .offset = offsetof(struct jwt_settings, revocation),
     .fallback = "false",
     .doc = "true: tokens on the deny list are refused."},
    {.name = "forward_token",
     .type = CONFIG_BOOL,
     .offset = offsetof(struct jwt_settings, forward_token),
     .fallback = "true",
     .doc = "false: the Authorization header is not sent upstream."},
    {0},
};

const struct config_object jwt_object = {
    .name = "jwt",
    .doc = "JSON Web Tokens (RFC 7519), in Authorization: Bearer.",
    .example = "issuer: \"https://auth.example.com\"\n"
               "audiences: [orders-api]\n"
               "jwks: { uri: \"https://auth.example.com/jwks.json\" }\n"
               "algorithms: [RS256]\n"
               "roles_claim: realm_access.roles\n",
    .size = sizeof(struct jwt_settings),
    .fields = jwt_fields,
    .check_rules = check_jwt,
};

// ---- what is kept of an Auth Service's answers ----

static const struct key_word {
    struct str text;
    bool is_named;
} key_words[] = {
    {STR("header."), true}, {STR("cookie."), true}, {STR("client_ip"), false},
    {STR("host"), false},   {STR("method"), false}, {STR("path"), false},
};

static bool accept_key(struct config_decoder *decoder, const struct config_node *node, struct str *value)
{
    struct str names[countof(key_words)];
    size_t count = 0;
    for (size_t i = 0; i < countof(key_words); i++) {
        struct str word = key_words[i].text;
        if (!key_words[i].is_named)
            names[count++] = word;
        if (key_words[i].is_named ? str_starts(*value, word) && header_name_valid(str_skip(*value, word.n))
                                  : str_eq(*value, word))
            return true;
    }
    const char *hint = config_suggest(decoder, *value, names, count);
    config_fail(decoder, node, *hint ? hint : "header.NAME, cookie.NAME, client_ip, host, method or path",
                "no part of a request: \"%.*s\"", value->n > 80 ? 80 : (int)value->n, value->p);
    return false;
}

// ttl, negative_ttl: their defaults.
#define CACHE_FIELDS(ttl_fallback, negative_fallback, ttl_doc)                                              \
    {.name = "ttl",                                                                                         \
     .type = CONFIG_DURATION,                                                                               \
     .offset = offsetof(struct auth_cache_settings, ttl_us),                                                \
     .fallback = ttl_fallback,                                                                              \
     .min = 0,                                                                                              \
     .max = 24 * HOUR,                                                                                      \
     .doc = ttl_doc},                                                                                       \
        {.name = "negative_ttl",                                                                            \
         .type = CONFIG_DURATION,                                                                           \
         .offset = offsetof(struct auth_cache_settings, negative_ttl_us),                                   \
         .fallback = negative_fallback,                                                                     \
         .min = 0,                                                                                          \
         .max = HOUR,                                                                                       \
         .doc = "How long a refusal is kept."},                                                             \
        {.name = "stale",                                                                                   \
         .type = CONFIG_DURATION,                                                                           \
         .offset = offsetof(struct auth_cache_settings, stale_us),                                          \
         .fallback = "0s",                                                                                  \
         .min = 0,                                                                                          \
         .max = 24 * HOUR,                                                                                  \
         .doc = "How much longer an answer serves while the Auth Service cannot be asked, never past a "    \
                "token's `exp`."},                                                                          \
    {                                                                                                       \
        .name = "ignore_cache_control", .type = CONFIG_BOOL,                                                \
        .offset = offsetof(struct auth_cache_settings, ignore_cache_control), .fallback = "false",          \
        .doc = "true: answers are kept as said here although their Cache-Control forbids it or says less, " \
               "for services that say no-store with every answer. A token's `exp` counts all the same."     \
    }

static const struct config_field introspection_cache_fields[] = {
    CACHE_FIELDS("30s", "5s", "How long a good answer is kept, at most until the token's `exp`."),
    {0},
};

static const struct config_object introspection_cache_object = {
    .name = "introspection_cache",
    .doc = "How long answers are kept.",
    .example = "{ ttl: 30s, negative_ttl: 5s, stale: 5m }",
    .size = sizeof(struct auth_cache_settings),
    .fields = introspection_cache_fields,
};

static const struct config_field forward_cache_fields[] = {
    CACHE_FIELDS("0s", "0s", "How long a good answer is kept; 0s: each request is asked about."),
    {.name = "key",
     .type = CONFIG_STRINGS,
     .offset = offsetof(struct auth_cache_settings, key),
     .fallback = "[header.Authorization]",
     .min_count = 1,
     .accept = accept_key,
     .pattern = "^((header|cookie)[.].+|client_ip|host|method|path)$",
     .type_name = "a list of parts of the request",
     .doc =
         "What tells requests apart: header.NAME, cookie.NAME, client_ip, host, method, path, and always the "
         "request_headers that it does not name. With a ttl, requests that are alike in all of them get the "
         "same answer: name everything that it depends on."},
    {0},
};

static const struct config_object forward_cache_object = {
    .name = "forward_cache",
    .doc = "How long answers are kept, and for which requests.",
    .example = "{ ttl: 10s, negative_ttl: 1s, key: [cookie.session, method, path] }",
    .size = sizeof(struct auth_cache_settings),
    .fields = forward_cache_fields,
};

// ---- introspection ----

static void check_introspection(struct config_decoder *decoder, const struct config_node *node, void *target)
{
    const struct introspection_settings *introspection = target;
    check_ca(decoder, node, &introspection->uri, introspection->ca);
}

static const struct config_field introspection_fields[] = {
    {.name = "uri",
     CONFIG_AUTH_URI,
     .offset = offsetof(struct introspection_settings, uri),
     .required = true,
     .doc = "The introspection endpoint.",
     .example = "\"https://auth.example.com/introspect\""},
    {.name = "client_id",
     .type = CONFIG_STRING,
     .offset = offsetof(struct introspection_settings, client_id),
     .required = true,
     .accept = config_accept_text,
     .pattern = ".",
     .doc = "Who the gateway is to the Auth Service (Basic, RFC 6749 2.3.1).",
     .example = "gateway"},
    {.name = "client_secret",
     .type = CONFIG_SECRET,
     .offset = offsetof(struct introspection_settings, client_secret),
     .required = true,
     .doc = "Its secret.",
     .example = "{ env: GATEWAY_SECRET }"},
    {.name = "timeout",
     .type = CONFIG_DURATION,
     .offset = offsetof(struct introspection_settings, timeout_us),
     .fallback = "200ms",
     .min = MILLISECOND,
     .max = 60 * SECOND,
     .doc = "How long an answer may take. Without one: 503, auth_unavailable."},
    {.name = "cache",
     .type = CONFIG_OBJECT,
     .offset = offsetof(struct introspection_settings, cache),
     .object = &introspection_cache_object,
     .doc = "How long answers are kept."},
    {.name = "issuer",
     .type = CONFIG_STRING,
     .offset = offsetof(struct introspection_settings, issuer),
     .nullable = true,
     .accept = config_accept_text,
     .pattern = ".",
     .doc = "When an answer has an `iss`, it must be this. null: any."},
    {.name = "audiences",
     .type = CONFIG_STRINGS,
     .offset = offsetof(struct introspection_settings, audiences),
     .fallback = "[]",
     .accept = config_accept_text,
     .pattern = ".",
     .doc = "An answer's `aud` must be, or hold, one of them. [] checks none."},
    {.name = "roles_claim",
     .type = CONFIG_STRING,
     .offset = offsetof(struct introspection_settings, roles_claim),
     .fallback = "roles",
     .accept = config_accept_text,
     .pattern = ".",
     .doc = "The member that becomes identity.roles, a dotted path."},
    {.name = "scopes_claim",
     .type = CONFIG_STRING,
     .offset = offsetof(struct introspection_settings, scopes_claim),
     .fallback = "scope",
     .accept = config_accept_text,
     .pattern = ".",
     .doc = "The member that becomes identity.scopes."},
    {.name = "consumer_claim",
     .type = CONFIG_STRING,
     .offset = offsetof(struct introspection_settings, consumer_claim),
     .nullable = true,
     .accept = config_accept_text,
     .pattern = ".",
     .doc = "The member that becomes identity.consumer. null: none.",
     .example = "client_id"},
    {.name = "ca",
     .type = CONFIG_STRING,
     .offset = offsetof(struct introspection_settings, ca),
     .fallback = "system",
     .accept = config_accept_path,
     CONFIG_PATH,
     .doc = CA_DOC},
    {.name = "revocation",
     .type = CONFIG_BOOL,
     .offset = offsetof(struct introspection_settings, revocation),
     .fallback = "false",
     .doc = "true: tokens on the deny list are refused, also while an answer about them is kept."},
    {.name = "forward_token",
     .type = CONFIG_BOOL,
     .offset = offsetof(struct introspection_settings, forward_token),
     .fallback = "true",
     .doc = "false: the Authorization header is not sent upstream."},
    {0},
};

const struct config_object introspection_object = {
    .name = "introspection",
    .doc = "The Auth Service is asked about each token in Authorization: Bearer (RFC 7662).",
    .example = "uri: \"https://auth.example.com/introspect\"\n"
               "client_id: gateway\n"
               "client_secret: { env: GATEWAY_SECRET }\n"
               "cache: { ttl: 30s, stale: 5m }\n",
    .size = sizeof(struct introspection_settings),
    .fields = introspection_fields,
    .check_rules = check_introspection,
};

// ---- forward ----

static void check_forward(struct config_decoder *decoder, const struct config_node *node, void *target)
{
    struct forward_settings *forward = target;
    check_ca(decoder, node, &forward->uri, forward->ca);
    clear_null(node, STR("subject_header"), &forward->subject_header);
    clear_null(node, STR("roles_header"), &forward->roles_header);
}

#define IDENTITY_NAME .accept = config_accept_identity_name, .pattern = CONFIG_TOKEN_PATTERN

static const struct config_field forward_fields[] = {
    {.name = "uri",
     CONFIG_AUTH_URI,
     .offset = offsetof(struct forward_settings, uri),
     .required = true,
     .doc = "Whom to ask.",
     .example = "\"http://127.0.0.1:9400/authorize\""},
    {.name = "timeout",
     .type = CONFIG_DURATION,
     .offset = offsetof(struct forward_settings, timeout_us),
     .fallback = "200ms",
     .min = MILLISECOND,
     .max = 60 * SECOND,
     .doc = "How long an answer may take. Without one: 503, auth_unavailable."},
    {.name = "request_headers",
     .type = CONFIG_STRINGS,
     .offset = offsetof(struct forward_settings, request_headers),
     .fallback = "[Authorization, Cookie]",
     .accept = config_accept_header,
     .pattern = CONFIG_TOKEN_PATTERN,
     .type_name = "a list of header names",
     .doc = "What the Auth Service sees of the request, besides X-Forwarded-Method, -Proto, -Host, -Uri and "
            "-For."},
    {.name = "response_headers",
     .type = CONFIG_STRINGS,
     .offset = offsetof(struct forward_settings, response_headers),
     .fallback = "[X-User-Id, X-User-Roles]",
     IDENTITY_NAME,
     .type_name = "a list of header names",
     .doc = "Headers of its answer that are copied to the upstream request. Clients cannot send them."},
    {.name = "subject_header",
     .type = CONFIG_STRING,
     .offset = offsetof(struct forward_settings, subject_header),
     .fallback = "X-User-Id",
     .nullable = true,
     IDENTITY_NAME,
     .type_name = "a header name",
     .doc = "The header of its answer that becomes identity.subject. null: none."},
    {.name = "roles_header",
     .type = CONFIG_STRING,
     .offset = offsetof(struct forward_settings, roles_header),
     .fallback = "X-User-Roles",
     .nullable = true,
     IDENTITY_NAME,
     .type_name = "a header name",
     .doc = "The header that becomes identity.roles, separated by commas or spaces. null: none."},
    {.name = "scopes_header",
     .type = CONFIG_STRING,
     .offset = offsetof(struct forward_settings, scopes_header),
     .nullable = true,
     IDENTITY_NAME,
     .type_name = "a header name",
     .doc = "The header that becomes identity.scopes, likewise. null: none."},
    {.name = "cache",
     .type = CONFIG_OBJECT,
     .offset = offsetof(struct forward_settings, cache),
     .object = &forward_cache_object,
     .doc = "How long answers are kept."},
    {.name = "ca",
     .type = CONFIG_STRING,
     .offset = offsetof(struct forward_settings, ca),
     .fallback = "system",
     .accept = config_accept_path,
     CONFIG_PATH,
     .doc = CA_DOC},
    {0},
};

const struct config_object forward_object = {
    .name = "forward",
    .doc =
        "The Auth Service decides: 2xx lets the request through, 401 and 403 refuse it. Anything else is no "
        "decision.",
    .example = "uri: \"http://127.0.0.1:9400/authorize\"\n"
               "request_headers: [Cookie]\n"
               "response_headers: [X-User-Id, X-User-Roles]\n",
    .size = sizeof(struct forward_settings),
    .fields = forward_fields,
    .check_rules = check_forward,
};

// ---- api_key, mtls ----

static bool accept_query(struct config_decoder *decoder, const struct config_node *node, struct str *value)
{
    bool is_good = value->n > 0 && value->n <= 64;
    for (size_t i = 0; i < value->n && is_good; i++) {
        char c = ascii_lower(value->p[i]);
        is_good =
            (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9') || c == '_' || c == '.' || c == '-' || c == '~';
    }
    if (!is_good)
        config_fail(decoder, node, "1 to 64 letters, digits, _ . ~ and -",
                    "not the name of a query parameter");
    return is_good;
}

static void check_api_key(struct config_decoder *decoder, const struct config_node *node, void *target)
{
    struct api_key_settings *api_key = target;
    clear_null(node, STR("header"), &api_key->header);
    if (!api_key->header.n && !has_key(node, STR("query")))
        config_fail_at(decoder, node, STR("header"), "name a header or a query parameter",
                       "there is no place for the key");
}

static const struct config_field api_key_fields[] = {
    {.name = "header",
     .type = CONFIG_STRING,
     .offset = offsetof(struct api_key_settings, header),
     .fallback = "X-API-Key",
     .nullable = true,
     .accept = config_accept_header,
     .pattern = CONFIG_TOKEN_PATTERN,
     .type_name = "a header name",
     .doc = "The header that carries the key. null: none."},
    {.name = "query",
     .type = CONFIG_STRING,
     .offset = offsetof(struct api_key_settings, query),
     .nullable = true,
     .accept = accept_query,
     .pattern = "^[A-Za-z0-9_.~-]{1,64}$",
     .type_name = "the name of a query parameter",
     .doc = "The query parameter that carries it. null: none; addresses end up in logs and histories.",
     .example = "api_key"},
    {.name = "forward_key",
     .type = CONFIG_BOOL,
     .offset = offsetof(struct api_key_settings, forward_key),
     .fallback = "false",
     .doc = "false: the key is not sent upstream."},
    {0},
};

const struct config_object api_key_object = {
    .name = "api_key",
    .doc = "API keys of `consumers`.",
    .example = "{ header: X-API-Key, query: null }",
    .size = sizeof(struct api_key_settings),
    .fields = api_key_fields,
    .check_rules = check_api_key,
};

static const struct config_field mtls_fields[] = {
    {.name = "require_consumer",
     .type = CONFIG_BOOL,
     .offset = offsetof(struct mtls_settings, require_consumer),
     .fallback = "true",
     .doc = "true: a verified certificate that is no consumer's is refused."},
    {0},
};

const struct config_object mtls_object = {
    .name = "mtls",
    .doc = "Client certificates of `consumers`.",
    .example = "{ require_consumer: true }",
    .size = sizeof(struct mtls_settings),
    .fields = mtls_fields,
};
