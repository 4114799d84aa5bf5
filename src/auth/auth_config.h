// The settings of authentication (sallyport.yaml: auth, consumers, identity_headers; a route's auth) and
// their field tables. What is not in the contract is marked (+).
#pragma once

#include "config/config.h"
#include "upstream/upstream_config.h"

// An Auth Service's address, of http(s)://host[:port]/path: becomes an upstream of its own, named auth:NAME.
struct auth_uri {
    struct str text; // as configured
    bool tls;
    struct str address;   // host:port
    struct str authority; // for Host
    struct str target;    // path and query; "/" at least
};

struct auth_cache_settings {
    uint64_t ttl_us, negative_ttl_us, stale_us;
    bool ignore_cache_control; // (+) false: an answer is kept no longer than its Cache-Control allows
    struct str_list key;       // forward: header.NAME, cookie.NAME, client_ip, host, method, path
};

enum auth_kind { AUTH_JWT, AUTH_INTROSPECTION, AUTH_FORWARD, AUTH_API_KEY, AUTH_MTLS, AUTH_KINDS };

struct jwks_settings {
    struct auth_uri uri; // text.n == 0: see file
    struct str file;     // re-read when it changes
    uint64_t refresh_us, cooldown_us, keep_last_good_us;
    uint64_t timeout_us; // (+) of a fetch; 2s
    struct str ca;       // (+) https: a path, or system
};

struct jwt_settings {
    struct str issuer;
    struct str_list audiences;
    bool has_jwks; // false: secret
    struct jwks_settings jwks;
    unsigned algorithms; // bits of enum token_algorithm
    struct str secret;
    uint64_t leeway_us;
    struct str_list required_claims;
    struct str roles_claim, scopes_claim;
    struct str consumer_claim; // (+) n == 0: none
    bool revocation, forward_token;
};

struct introspection_settings {
    struct auth_uri uri;
    struct str client_id, client_secret; // Basic (RFC 6749 2.3.1)
    uint64_t timeout_us;
    struct auth_cache_settings cache;
    struct str issuer;                    // (+) when given, an `iss` of the answer must be this
    struct str_list audiences;            // (+) [] checks none
    struct str roles_claim, scopes_claim; // (+) roles, scope
    struct str consumer_claim;            // (+)
    struct str ca;                        // (+)
    bool revocation;                      // (+)
    bool forward_token;                   // (+) true
};

struct forward_settings {
    struct auth_uri uri;
    uint64_t timeout_us;
    struct str_list request_headers, response_headers;
    struct str subject_header, roles_header;
    struct str scopes_header; // (+) n == 0: none
    struct auth_cache_settings cache;
    struct str ca; // (+)
};

struct api_key_settings {
    struct str header, query; // n == 0: not there
    bool forward_key;         // (+) false: the key is not sent upstream
};

struct mtls_settings {     // (+)
    bool require_consumer; // true: a verified certificate that maps to no consumer is refused
};

struct auth_settings {
    CONFIG_POSITION_FIELDS;
    struct str name;
    bool has_jwt, has_introspection, has_forward, has_api_key, has_mtls; // exactly one
    enum auth_kind kind;
    struct jwt_settings jwt;
    struct introspection_settings introspection;
    struct forward_settings forward;
    struct api_key_settings api_key;
    struct mtls_settings mtls;
};

struct consumer_settings {
    CONFIG_POSITION_FIELDS;
    struct str name;
    struct config_list api_keys;     // of struct consumer_key
    struct config_list certificates; // (+) of struct consumer_certificate
    struct str_list roles, scopes;   // scopes (+)
};

struct consumer_key {
    struct str sha256; // 64 hex digits
};

struct consumer_certificate { // exactly one
    struct str
        san; // "DNS=orders.example", "URI=spiffe://x/y", "email=…", "IP=…", as in X-Forwarded-Client-Cert
    struct str subject;     // RFC 2253
    struct str fingerprint; // SHA-256, hex
};

struct identity_token_settings { // identity_token, at the file's root
    struct str key;              // the path of a PEM file
    struct str header;           // X-Identity
    uint64_t ttl_us;             // (+) 60s
    struct str issuer;           // (+) sallyport
};

// ---- a route's auth ----

enum auth_match { AUTH_MATCH_ALL, AUTH_MATCH_ANY };

struct route_auth_settings { // NAME, or { any_of, optional, require }
    struct str_list any_of;  // none: public
    const uint32_t *indices; // of each in the root's `auth`: filled in by the rules between sections
    bool optional;           // no credentials: goes on without an identity. Bad ones are refused all the same
    struct str_list scopes, roles;
    int scopes_match; // (+) enum auth_match; all
    int roles_match;  // (+) any
};

extern const struct config_object auth_object, consumer_object, identity_token_object;
extern const struct config_object route_auth_object;
// The CUSTOM field `auth` of a route.
void config_decode_route_auth(struct config_decoder *decoder, const struct config_node *node, void *target);
struct config_node *config_encode_route_auth(struct arena *arena, const void *target);
#define CONFIG_ROUTE_AUTH                                                                          \
    .type = CONFIG_CUSTOM, .decode = config_decode_route_auth, .encode = config_encode_route_auth, \
    .object = &route_auth_object, .type_name = "the name of a provider, or { any_of: [NAME] }",    \
    .schema = "{ anyOf: [{ type: string, pattern: '" CONFIG_NAME_PATTERN "' },"                    \
              " { $ref: '#/$defs/route_auth' }, { $ref: '#/$defs/variable' }] }"

// The CUSTOM field of an Auth Service's address in a struct auth_uri.
void config_decode_auth_uri(struct config_decoder *decoder, const struct config_node *node, void *target);
struct config_node *config_encode_auth_uri(struct arena *arena, const void *target);
#define CONFIG_AUTH_URI                                                                        \
    .type = CONFIG_CUSTOM, .decode = config_decode_auth_uri, .encode = config_encode_auth_uri, \
    .type_name = "an http:// or https:// URL",                                                 \
    .schema = "{ anyOf: [{ type: string, pattern: '^https?://[^/?#]+' }, { $ref: '#/$defs/variable' }] }"
// http:// and https:// without user and fragment. Everything is in arena. False: *why.
bool auth_uri_parse(struct str text, struct arena *arena, struct auth_uri *uri, const char **why);

// RFC 6749 3.3; one line without a comma; a kind and a name ("DNS=orders.example").
bool auth_scope_valid(struct str scope);
bool auth_role_valid(struct str role);
bool auth_san_valid(struct str san);

// Accept hooks. A header that tells services who calls, and so is taken from clients: none that the gateway
// itself asks for. A header name → where its value comes from (identity_headers). A line of text; a scope
// (RFC 6749 3.3); a role.
bool config_accept_identity_name(struct config_decoder *decoder, const struct config_node *node,
                                 struct str *value);
bool config_accept_identity_header(struct config_decoder *decoder, const struct config_node *node,
                                   struct str *value);
bool config_accept_text(struct config_decoder *decoder, const struct config_node *node, struct str *value);
bool config_accept_scope(struct config_decoder *decoder, const struct config_node *node, struct str *value);
bool config_accept_role(struct config_decoder *decoder, const struct config_node *node, struct str *value);
#define IDENTITY_HEADERS_DEFAULT                                    \
    "{ X-User-Id: identity.subject, X-User-Roles: identity.roles, " \
    "X-User-Scopes: identity.scopes, X-Consumer: identity.consumer }"

// ---- the rules between sections ----

struct auth_sections {
    const struct config_list *providers, *consumers;
    const struct str_map *identity_headers;
    const struct identity_token_settings *identity_token; // NULL: none
    struct str request_id;                                // telemetry.headers.request_id
};
// root: the file's. What one header is taken for twice, and what two consumers hold.
void config_check_auth(struct config_decoder *decoder, const struct config_node *root,
                       const struct auth_sections *sections);
// node: a route's `auth`; the path is as entered. Fills in the indices.
void config_check_route_auth(struct config_decoder *decoder, const struct config_node *node,
                             const struct config_list *providers, struct route_auth_settings *auth);
