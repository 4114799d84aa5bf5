// The field tables of authentication: providers, consumers, identity_token and a route's auth. What each kind
// of provider has is in auth_kinds_config.c, the rules between sections are in auth_rules_config.c.
#include "auth/auth_config.h"

#include "auth/auth_kinds_config.h"

#define SECOND 1e6

// ---- words ----

bool config_accept_text(struct config_decoder *decoder, const struct config_node *node, struct str *value)
{
    if (value->n && config_is_printable(*value))
        return true;
    config_fail(decoder, node, "", value->n ? "holds control characters" : "is empty");
    return false;
}

bool auth_scope_valid(struct str scope)
{
    bool is_good = scope.n > 0;
    for (size_t i = 0; i < scope.n; i++)
        is_good &= scope.p[i] > ' ' && scope.p[i] <= '~' && scope.p[i] != '"' && scope.p[i] != '\\';
    return is_good;
}

bool auth_role_valid(struct str role)
{
    return role.n && str_find(role, ',') == role.n && config_is_printable(role);
}

bool config_accept_scope(struct config_decoder *decoder, const struct config_node *node, struct str *value)
{
    if (auth_scope_valid(*value))
        return true;
    config_fail(decoder, node, "printable ASCII without spaces, quotes and backslashes", "not a scope");
    return false;
}

bool config_accept_role(struct config_decoder *decoder, const struct config_node *node, struct str *value)
{
    if (str_find(*value, ',') == value->n)
        return config_accept_text(decoder, node, value);
    config_fail(decoder, node, "roles are told to services separated by commas", "a comma in a role");
    return false;
}

// ---- providers ----

static void check_provider(struct config_decoder *decoder, const struct config_node *node, void *target)
{
    struct auth_settings *provider = target;
    const bool has[AUTH_KINDS] = {
        [AUTH_JWT] = provider->has_jwt,         [AUTH_INTROSPECTION] = provider->has_introspection,
        [AUTH_FORWARD] = provider->has_forward, [AUTH_API_KEY] = provider->has_api_key,
        [AUTH_MTLS] = provider->has_mtls,
    };
    (void)decoder;
    (void)node;
    for (int kind = 0; kind < AUTH_KINDS; kind++)
        if (has[kind])
            provider->kind = (enum auth_kind)kind;
}

static const char *const kinds[] = {"jwt", "introspection", "forward", "api_key", "mtls", NULL};

static const struct config_field provider_fields[] = {
    {.name = "jwt",
     .type = CONFIG_OBJECT,
     .offset = offsetof(struct auth_settings, jwt),
     .is_set_offset = offsetof(struct auth_settings, has_jwt),
     .object = &jwt_object,
     .doc = "JSON Web Tokens, checked here with the keys that the Auth Service publishes."},
    {.name = "introspection",
     .type = CONFIG_OBJECT,
     .offset = offsetof(struct auth_settings, introspection),
     .is_set_offset = offsetof(struct auth_settings, has_introspection),
     .object = &introspection_object,
     .doc = "Tokens that the Auth Service is asked about (RFC 7662)."},
    {.name = "forward",
     .type = CONFIG_OBJECT,
     .offset = offsetof(struct auth_settings, forward),
     .is_set_offset = offsetof(struct auth_settings, has_forward),
     .object = &forward_object,
     .doc = "The Auth Service decides about the request."},
    {.name = "api_key",
     .type = CONFIG_OBJECT,
     .offset = offsetof(struct auth_settings, api_key),
     .is_set_offset = offsetof(struct auth_settings, has_api_key),
     .object = &api_key_object,
     .doc = "Keys of `consumers`."},
    {.name = "mtls",
     .type = CONFIG_OBJECT,
     .offset = offsetof(struct auth_settings, mtls),
     .is_set_offset = offsetof(struct auth_settings, has_mtls),
     .object = &mtls_object,
     .doc = "Client certificates, which the listener has verified (`tls.client_ca`)."},
    {0},
};

const struct config_object auth_object = {
    .name = "provider",
    .doc = "One way to find out who calls. A route names the providers that it takes.",
    .example = "jwt:\n"
               "  issuer: \"https://auth.example.com\"\n"
               "  audiences: [orders-api]\n"
               "  jwks: { uri: \"https://auth.example.com/jwks.json\" }\n",
    .size = sizeof(struct auth_settings),
    .fields = provider_fields,
    .has_position = true,
    .name_offset = offsetof(struct auth_settings, name),
    .one_of = kinds,
    .check_rules = check_provider,
};

// ---- consumers ----

enum { DIGEST_HEX = 64 };

// The hash in lower case, without colons; false: no SHA-256.
static bool read_digest(struct str text, bool with_colons, struct arena *arena, struct str *hex)
{
    char *out = arena_alloc(arena, DIGEST_HEX + 1);
    size_t n = 0;
    for (size_t i = 0; i < text.n; i++) {
        char c = ascii_lower(text.p[i]);
        if (with_colons && c == ':' && i % 3 == 2)
            continue;
        if (n == DIGEST_HEX || !((c >= '0' && c <= '9') || (c >= 'a' && c <= 'f')))
            return false;
        out[n++] = c;
    }
    out[n] = 0;
    *hex = (struct str){out, n};
    return n == DIGEST_HEX;
}

// What stands here by mistake may be the key itself: it is not shown.
static void decode_sha256(struct config_decoder *decoder, const struct config_node *node, void *target)
{
    struct str hex;
    if (node->kind == CONFIG_SCALAR && read_digest(node->text, false, config_arena(decoder), &hex))
        memcpy(target, &hex, sizeof hex);
    else
        config_fail(decoder, node, "sallyport hash-key makes it of a key", "not a SHA-256 of 64 hex digits");
}

static struct config_node *encode_sha256(struct arena *arena, const void *target)
{
    const struct str *hex = target;
    return hex->n ? config_new_string(arena, *hex) : NULL;
}

static const struct config_field key_fields[] = {
    {.name = "sha256",
     .type = CONFIG_CUSTOM,
     .offset = offsetof(struct consumer_key, sha256),
     .required = true,
     .decode = decode_sha256,
     .encode = encode_sha256,
     .schema = "{ anyOf: [{ type: string, pattern: '^[0-9A-Fa-f]{64}$' }, { $ref: '#/$defs/variable' }] }",
     .type_name = "64 hex digits",
     .doc = "The SHA-256 of the key, as `sallyport hash-key` prints it. The key itself is nowhere kept.",
     .example = "\"8649cdebee753898fd50e01408a9e438aa5090249bc3e51b65f33dce973b0873\""},
    {0},
};

static const struct config_object key_object = {
    .name = "consumer_key",
    .doc = "An API key.",
    .example = "{ sha256: \"8649cdebee753898fd50e01408a9e438aa5090249bc3e51b65f33dce973b0873\" }",
    .size = sizeof(struct consumer_key),
    .is_hidden = true,
    .fields = key_fields,
};

bool auth_san_valid(struct str san)
{
    static const struct str kinds_of_san[] = {STR("DNS="), STR("URI="), STR("email="), STR("IP=")};
    struct ip ip;
    for (size_t i = 0; i < countof(kinds_of_san); i++) {
        struct str name = str_starts(san, kinds_of_san[i]) ? str_skip(san, kinds_of_san[i].n) : STR_NULL;
        if (name.n)
            return config_is_printable(name) && (!str_starts(san, STR("IP=")) || ip_parse(name, &ip));
    }
    return false;
}

static bool accept_san(struct config_decoder *decoder, const struct config_node *node, struct str *value)
{
    const struct str address = STR("IP=");
    struct ip ip;
    char text[IP_TEXT_MAX];
    if (!auth_san_valid(*value)) {
        config_fail(decoder, node, "DNS=, URI=, email= or IP=, and the name",
                    "not a name of a certificate: \"%.*s\"", value->n > 80 ? 80 : (int)value->n, value->p);
        return false;
    }
    if (str_starts(*value, address) && ip_parse(str_skip(*value, address.n), &ip)) // as a certificate's is
        *value = arena_printf(config_arena(decoder), "IP=%.*s", (int)ip_print(&ip, text), text);
    return true;
}

static bool accept_fingerprint(struct config_decoder *decoder, const struct config_node *node,
                               struct str *value)
{
    if (read_digest(*value, true, config_arena(decoder), value))
        return true;
    config_fail(decoder, node, "openssl x509 -noout -fingerprint -sha256", "not a SHA-256 of 64 hex digits");
    return false;
}

static const char *const certificate_kinds[] = {"san", "subject", "fingerprint", NULL};

static const struct config_field certificate_fields[] = {
    {.name = "san",
     .type = CONFIG_STRING,
     .offset = offsetof(struct consumer_certificate, san),
     .accept = accept_san,
     .pattern = "^(DNS|URI|email|IP)=.+$",
     .type_name = "a name such as DNS=orders.example",
     .doc = "One of its alternative names: DNS=, URI=, email= or IP=."},
    {.name = "subject",
     .type = CONFIG_STRING,
     .offset = offsetof(struct consumer_certificate, subject),
     .accept = config_accept_text,
     .pattern = ".",
     .doc = "Its subject, as RFC 2253 writes it: CN=orders,O=Example."},
    {.name = "fingerprint",
     .type = CONFIG_STRING,
     .offset = offsetof(struct consumer_certificate, fingerprint),
     .accept = accept_fingerprint,
     .pattern = "^[0-9A-Fa-f:]{64,95}$",
     .type_name = "64 hex digits",
     .doc = "The SHA-256 of the whole certificate; colons between its bytes are allowed."},
    {0},
};

static const struct config_object certificate_object = {
    .name = "consumer_certificate",
    .doc = "A client certificate, by one of its properties.",
    .example = "{ san: \"URI=spiffe://example.com/orders\" }",
    .size = sizeof(struct consumer_certificate),
    .fields = certificate_fields,
    .one_of = certificate_kinds,
};

static const struct config_field consumer_fields[] = {
    {.name = "api_keys",
     .type = CONFIG_OBJECTS,
     .offset = offsetof(struct consumer_settings, api_keys),
     .fallback = "[]",
     .object = &key_object,
     .doc = "Its keys; several while one takes another's place."},
    {.name = "certificates",
     .type = CONFIG_OBJECTS,
     .offset = offsetof(struct consumer_settings, certificates),
     .fallback = "[]",
     .object = &certificate_object,
     .doc = "Its client certificates."},
    {.name = "roles",
     .type = CONFIG_STRINGS,
     .offset = offsetof(struct consumer_settings, roles),
     .fallback = "[]",
     .accept = config_accept_role,
     .pattern = CONFIG_ROLE_PATTERN,
     .doc = "What becomes identity.roles."},
    {.name = "scopes",
     .type = CONFIG_STRINGS,
     .offset = offsetof(struct consumer_settings, scopes),
     .fallback = "[]",
     .accept = config_accept_scope,
     .pattern = CONFIG_SCOPE_PATTERN,
     .doc = "What becomes identity.scopes."},
    {0},
};

const struct config_object consumer_object = {
    .name = "consumer",
    .doc = "A program that calls with an API key or a client certificate.",
    .example =
        "api_keys: [{ sha256: \"8649cdebee753898fd50e01408a9e438aa5090249bc3e51b65f33dce973b0873\" }]\n"
        "roles: [gold]\n",
    .size = sizeof(struct consumer_settings),
    .fields = consumer_fields,
    .has_position = true,
    .name_offset = offsetof(struct consumer_settings, name),
};

// ---- identity_token ----

static const struct config_field identity_token_fields[] = {
    {.name = "key",
     .type = CONFIG_STRING,
     .offset = offsetof(struct identity_token_settings, key),
     .required = true,
     .accept = config_accept_path,
     CONFIG_PATH,
     .doc = "PEM: the private key that signs it: RSA (RS256), P-256 (ES256), P-384 (ES384), P-521 (ES512) or "
            "Ed25519 (EdDSA).",
     .example = "keys/identity.pem"},
    {.name = "header",
     .type = CONFIG_STRING,
     .offset = offsetof(struct identity_token_settings, header),
     .fallback = "X-Identity",
     .accept = config_accept_identity_name,
     .pattern = CONFIG_TOKEN_PATTERN,
     .type_name = "a header name",
     .doc = "The header that carries it to upstreams."},
    {.name = "ttl",
     .type = CONFIG_DURATION,
     .offset = offsetof(struct identity_token_settings, ttl_us),
     .fallback = "60s",
     .min = 2 * SECOND,
     .max = 3600 * SECOND,
     .doc = "How long it is good."},
    {.name = "issuer",
     .type = CONFIG_STRING,
     .offset = offsetof(struct identity_token_settings, issuer),
     .fallback = "sallyport",
     .accept = config_accept_text,
     .pattern = ".",
     .doc = "Its `iss`."},
    {0},
};

const struct config_object identity_token_object = {
    .name = "identity_token",
    .doc = "A short-lived JSON Web Token that tells upstreams who calls, signed by the gateway, so that they "
           "can "
           "check it and need not trust their network.",
    .example = "{ key: keys/identity.pem, header: X-Identity, ttl: 60s }",
    .size = sizeof(struct identity_token_settings),
    .fields = identity_token_fields,
};

// ---- a route's auth ----

#define REQUIRE_OFFSET(field) \
    (offsetof(struct route_auth_settings, field) - offsetof(struct route_auth_settings, scopes))

static const struct config_option match_options[] = {{"all", AUTH_MATCH_ALL}, {"any", AUTH_MATCH_ANY}, {0}};

static const struct config_field require_fields[] = {
    {.name = "scopes",
     .type = CONFIG_STRINGS,
     .offset = REQUIRE_OFFSET(scopes),
     .fallback = "[]",
     .accept = config_accept_scope,
     .pattern = CONFIG_SCOPE_PATTERN,
     .doc = "Scopes that the caller must have; [] asks for none."},
    {.name = "scopes_match",
     .type = CONFIG_ENUM,
     .offset = REQUIRE_OFFSET(scopes_match),
     .fallback = "all",
     .options = match_options,
     .doc = "Whether all of the scopes are needed, or one of them."},
    {.name = "roles",
     .type = CONFIG_STRINGS,
     .offset = REQUIRE_OFFSET(roles),
     .fallback = "[]",
     .accept = config_accept_role,
     .pattern = CONFIG_ROLE_PATTERN,
     .doc = "Roles that the caller must have; [] asks for none."},
    {.name = "roles_match",
     .type = CONFIG_ENUM,
     .offset = REQUIRE_OFFSET(roles_match),
     .fallback = "any",
     .options = match_options,
     .doc = "Whether all of the roles are needed, or one of them."},
    {0},
};

static const struct config_object require_object = {
    .name = "require",
    .doc = "What a caller must be allowed, besides being known.",
    .example = "{ scopes: [orders.read], roles: [gold, silver], roles_match: any }",
    .size = sizeof(struct route_auth_settings) - offsetof(struct route_auth_settings, scopes),
    .fields = require_fields,
};

static const struct config_field route_auth_fields[] = {
    {.name = "any_of",
     .type = CONFIG_STRINGS,
     .offset = offsetof(struct route_auth_settings, any_of),
     .required = true,
     .min_count = 1,
     .accept = config_accept_name,
     .pattern = CONFIG_NAME_PATTERN,
     .type_name = "a list of names of providers",
     .doc = "Providers, asked one after the other until one knows the caller.",
     .example = "[corp]"},
    {.name = "optional",
     .type = CONFIG_BOOL,
     .offset = offsetof(struct route_auth_settings, optional),
     .fallback = "false",
     .doc =
         "true: requests without credentials go on without an identity. Bad credentials are refused all the "
         "same."},
    {.name = "require",
     .type = CONFIG_OBJECT,
     .offset = offsetof(struct route_auth_settings, scopes),
     .object = &require_object,
     .doc = "What the caller must be allowed."},
    {0},
};

const struct config_object route_auth_object = {
    .name = "route_auth",
    .doc = "Who may call. The name of a provider alone stands for { any_of: [NAME] }.",
    .example = "{ any_of: [corp, keys], optional: false, require: { scopes: [orders.read] } }",
    .size = sizeof(struct route_auth_settings),
    .fields = route_auth_fields,
};

void config_decode_route_auth(struct config_decoder *decoder, const struct config_node *node, void *target)
{
    struct route_auth_settings *auth = target;
    struct str name;
    if (node->kind == CONFIG_MAP) {
        config_decode_child(decoder, &route_auth_object, node, auth);
        return;
    }
    config_decode_child(decoder, &route_auth_object, NULL, auth);
    if (node->kind == CONFIG_LIST) {
        config_fail_type(decoder, node, "write { any_of: [NAME] }", "the name of a provider, or a map");
    } else if (config_decode_string(decoder, node, &name) && config_check_name(decoder, node, name)) {
        auth->any_of = (struct str_list){arena_new(config_arena(decoder), struct str), 1};
        auth->any_of.v[0] = name;
    }
}

struct config_node *config_encode_route_auth(struct arena *arena, const void *target)
{
    const struct route_auth_settings *auth = target;
    return auth->any_of.count ? config_encode(&route_auth_object, auth, arena) : NULL;
}
