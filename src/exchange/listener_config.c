// The field tables of listeners.
#include "exchange/listener_config.h"

#include "http/h1_parse.h"

#define MILLISECOND 1e3
#define HOUR        3600e6

// ---- addresses ----

bool config_accept_address(struct config_decoder *decoder, const struct config_node *node, struct str *value)
{
    struct addr addr;
    if (addr_parse(*value, &addr))
        return true;
    uint64_t port;
    const char *hint = "host:port, [v6]:port or unix:/path";
    if (memmem(value->p, value->n, "://", 3))
        hint = "without a scheme: 0.0.0.0:8080";
    else if (str_to_u64(*value, 65535, &port))
        hint = config_hint(decoder, "write \"0.0.0.0:%.*s\"", STR_ARG(*value));
    else if (str_starts(*value, STR("localhost:")))
        hint = config_hint(decoder, "write \"127.0.0.1:%.*s\"", STR_ARG(str_skip(*value, 10)));
    else if (str_find(*value, ':') == value->n)
        hint = config_hint(decoder, "add the port: %.*s:8080", STR_ARG(*value));
    config_fail(decoder, node, hint, "not an address: \"%.*s\"", STR_ARG(*value));
    return false;
}

// ---- limits and timeouts ----

#define LIMIT_OFFSET(field) \
    (offsetof(struct listener_settings, limits.field) - offsetof(struct listener_settings, limits))
#define TIMEOUT_OFFSET(field) \
    (offsetof(struct listener_settings, timeouts.field) - offsetof(struct listener_settings, timeouts))

static const struct config_field limit_fields[] = {
    {.name = "header_bytes",
     .type = CONFIG_SIZE,
     .offset = LIMIT_OFFSET(header_bytes),
     .fallback = "32KiB",
     .min = 1024,
     .max = 1 << 20,
     .doc = "The request line and all headers. Past it: 431."},
    {.name = "headers",
     .type = CONFIG_INT,
     .offset = LIMIT_OFFSET(headers),
     .fallback = "100",
     .min = 1,
     .max = 10000,
     .doc = "How many headers. Past it: 431."},
    {.name = "uri_bytes",
     .type = CONFIG_SIZE,
     .offset = LIMIT_OFFSET(uri_bytes),
     .fallback = "8KiB",
     .min = 64,
     .max = 1 << 20,
     .doc = "The request target. Past it: 414."},
    {.name = "body_bytes",
     .type = CONFIG_SIZE,
     .offset = LIMIT_OFFSET(body_bytes),
     .fallback = "10MiB",
     .min = 0,
     .max = CONFIG_BODY_MAX,
     .doc = "The request body; a route may set its own. Past it: 413."},
    {.name = "connections",
     .type = CONFIG_INT,
     .offset = LIMIT_OFFSET(connections),
     .fallback = "10000",
     .min = 1,
     .max = 10000000,
     .doc = "Client connections at once, over all workers. Past it, new ones are closed."},
    {0},
};

static const struct config_object limits_object = {
    .name = "listener_limits",
    .doc = "What a client may send.",
    .example =
        "{ header_bytes: 32KiB, headers: 100, uri_bytes: 8KiB, body_bytes: 10MiB, connections: 10000 }",
    .size = sizeof(((struct listener_settings *)0)->limits),
    .fields = limit_fields,
};

static const struct config_field timeout_fields[] = {
    {.name = "header",
     .type = CONFIG_DURATION,
     .offset = TIMEOUT_OFFSET(header_us),
     .fallback = "10s",
     .min = MILLISECOND,
     .max = HOUR,
     .doc = "From a request's first byte to the end of its headers. Past it: 408."},
    {.name = "body",
     .type = CONFIG_DURATION,
     .offset = TIMEOUT_OFFSET(body_us),
     .fallback = "30s",
     .min = MILLISECOND,
     .max = 24 * HOUR,
     .doc = "Between two pieces of a request body. Past it: 408."},
    {.name = "idle",
     .type = CONFIG_DURATION,
     .offset = TIMEOUT_OFFSET(idle_us),
     .fallback = "60s",
     .min = MILLISECOND,
     .max = 24 * HOUR,
     .doc = "How long a connection without a request is kept."},
    {.name = "write",
     .type = CONFIG_DURATION,
     .offset = TIMEOUT_OFFSET(write_us),
     .fallback = "30s",
     .min = MILLISECOND,
     .max = 24 * HOUR,
     .doc = "How long a client may take nothing of a response that waits for it."},
    {0},
};

static const struct config_object timeouts_object = {
    .name = "listener_timeouts",
    .doc = "How long a client may take.",
    .example = "{ header: 10s, body: 30s, idle: 60s, write: 30s }",
    .size = sizeof(((struct listener_settings *)0)->timeouts),
    .fields = timeout_fields,
};

// ---- tls ----

static const struct config_field certificate_fields[] = {
    {.name = "cert",
     .type = CONFIG_STRING,
     .offset = offsetof(struct listener_certificate, files.cert),
     .required = true,
     .accept = config_accept_path,
     CONFIG_PATH,
     .doc = "PEM: the certificate, then the chain that leads to a root.",
     .example = "certs/api.pem"},
    {.name = "key",
     .type = CONFIG_STRING,
     .offset = offsetof(struct listener_certificate, files.key),
     .required = true,
     .accept = config_accept_path,
     CONFIG_PATH,
     .doc = "PEM: its private key, not encrypted; RSA, ECDSA or EdDSA.",
     .example = "certs/api.key"},
    {.name = "ocsp",
     .type = CONFIG_STRING,
     .offset = offsetof(struct listener_certificate, files.ocsp),
     .nullable = true,
     .accept = config_accept_path,
     CONFIG_PATH,
     .doc = "DER: an OCSP response about it, stapled while it is valid.",
     .example = "certs/api.ocsp"},
    {0},
};

static const struct config_object certificate_object = {
    .name = "certificate",
    .doc = "A certificate and its private key.",
    .example = "{ cert: certs/api.pem, key: certs/api.key }",
    .size = sizeof(struct listener_certificate),
    .fields = certificate_fields,
    .has_position = true,
};

static const struct config_option client_auth_options[] = {
    {"none", TLS_CLIENT_AUTH_NONE},
    {"optional", TLS_CLIENT_AUTH_OPTIONAL},
    {"require", TLS_CLIENT_AUTH_REQUIRE},
    {0},
};

static const struct config_option version_options[] = {{"1.2", TLS_1_2}, {"1.3", TLS_1_3}, {0}};

// By what was written rather than what is stored: a key with a mistake of its own holds its default.
static void check_tls(struct config_decoder *decoder, const struct config_node *node, void *target)
{
    const struct listener_tls_settings *tls = target;
    const struct config_node *auth = config_get(node, STR("client_auth")),
                             *ca = config_get(node, STR("client_ca"));
    bool has_ca = ca && ca->kind != CONFIG_NULL;
    bool is_none = !auth || (auth->kind == CONFIG_SCALAR && str_eq(auth->text, STR("none")));
    if (tls->client_auth != TLS_CLIENT_AUTH_NONE && !has_ca)
        config_fail_at(decoder, node, STR("client_auth"),
                       "add client_ca: the file of the certificates that sign those of clients",
                       "nobody is trusted to sign certificates of clients");
    else if (has_ca && is_none)
        config_fail_at(decoder, node, STR("client_ca"),
                       "add client_auth: require, or optional; or remove client_ca",
                       "clients are not asked for a certificate while client_auth is none");
}

static const struct config_field tls_fields[] = {
    {.name = "certificates",
     .type = CONFIG_OBJECTS,
     .offset = offsetof(struct listener_tls_settings, certificates),
     .object = &certificate_object,
     .required = true,
     .min_count = 1,
     .doc = "Chosen by the name that the client asks for (SNI) from the names in them; for one name there "
            "may be one with an RSA and one with an ECDSA key. The first is for clients that ask for no name "
            "or an unknown one.",
     .example = "[{ cert: certs/api.pem, key: certs/api.key }]"},
    {.name = "client_ca",
     .type = CONFIG_STRING,
     .offset = offsetof(struct listener_tls_settings, client_ca),
     .nullable = true,
     .accept = config_accept_path,
     CONFIG_PATH,
     .doc = "PEM: the certificates against which those of clients are verified.",
     .example = "certs/clients-ca.pem"},
    {.name = "client_auth",
     .type = CONFIG_ENUM,
     .offset = offsetof(struct listener_tls_settings, client_auth),
     .fallback = "none",
     .options = client_auth_options,
     .doc = "Whether clients are asked for a certificate: optional takes clients without one, require does "
            "not; neither takes one that client_ca does not vouch for."},
    {.name = "min_version",
     .type = CONFIG_ENUM,
     .offset = offsetof(struct listener_tls_settings, min_version),
     .fallback = "\"1.2\"",
     .options = version_options,
     .doc = "The oldest TLS that is spoken."},
    {.name = "strict_sni",
     .type = CONFIG_BOOL,
     .offset = offsetof(struct listener_tls_settings, strict_sni),
     .fallback = "false",
     .doc = "true: a client that asks for no name or an unknown one is refused, instead of being shown the "
            "first certificate."},
    {0},
};

static const struct config_object tls_object = {
    .name = "listener_tls",
    .doc = "TLS to clients.",
    .example = "certificates:\n"
               "  - { cert: certs/api.pem, key: certs/api.key }\n"
               "  - { cert: certs/www.pem, key: certs/www.key, ocsp: certs/www.ocsp }\n"
               "client_ca: certs/clients-ca.pem\n"
               "client_auth: optional\n"
               "min_version: \"1.2\"\n",
    .size = sizeof(struct listener_tls_settings),
    .fields = tls_fields,
    .has_position = true,
    .check_rules = check_tls,
};

// ---- a listener ----

// In the order in which they are offered to TLS clients.
static const struct config_option protocol_options[] = {
    {"h2", PROTOCOL_H2}, {"http/1.1", PROTOCOL_HTTP1}, {0}};

static const struct config_option underscore_options[] = {
    {"drop", H1_UNDERSCORES_DROP},
    {"reject", H1_UNDERSCORES_REJECT},
    {"allow", H1_UNDERSCORES_ALLOW},
    {0},
};

static void check_listener(struct config_decoder *decoder, const struct config_node *node, void *target)
{
    const struct listener_settings *listener = target;
    const struct config_node *limits = config_get(node, STR("limits"));
    if (limits && listener->limits.uri_bytes > listener->limits.header_bytes) {
        config_enter(decoder, STR("limits"));
        config_fail_at(decoder, limits, STR("uri_bytes"), "lower it, or raise header_bytes",
                       "more than header_bytes");
        config_leave(decoder);
    }
    if (listener->proxy_protocol && !listener->trusted_proxies.count)
        config_fail_at(decoder, node, STR("proxy_protocol"), "list the load balancers in trusted_proxies",
                       "nobody is trusted to send PROXY headers");
}

static const struct config_field listener_fields[] = {
    {.name = "name",
     .type = CONFIG_STRING,
     .offset = offsetof(struct listener_settings, name),
     .required = true,
     .accept = config_accept_name,
     .pattern = CONFIG_NAME_PATTERN,
     .type_name = "a name",
     .doc = "Its name in logs and metrics; unique.",
     .example = "http"},
    {.name = "address",
     .type = CONFIG_STRING,
     .offset = offsetof(struct listener_settings, address),
     .required = true,
     .accept = config_accept_address,
     .pattern = CONFIG_ADDRESS_PATTERN,
     .type_name = "an address",
     .doc = "host:port, [v6]:port or unix:/path; hosts are numeric.",
     .example = "\"0.0.0.0:8080\""},
    {.name = "tls",
     .type = CONFIG_OBJECT,
     .offset = offsetof(struct listener_settings, tls),
     .nullable = true,
     .is_set_offset = offsetof(struct listener_settings, has_tls),
     .object = &tls_object,
     .doc = "TLS to clients. null: none."},
    {.name = "redirect_to",
     .type = CONFIG_STRING,
     .offset = offsetof(struct listener_settings, redirect_to),
     .nullable = true,
     .accept = config_accept_name,
     .pattern = CONFIG_NAME_PATTERN,
     .type_name = "the name of a listener",
     .doc = "Requests are not routed but sent to this listener, which has tls, by 308.",
     .example = "https"},
    {.name = "protocols",
     .type = CONFIG_FLAGS,
     .offset = offsetof(struct listener_settings, protocols),
     .fallback = "[h2, http/1.1]",
     .min_count = 1,
     .options = protocol_options,
     .doc = "What clients may speak. With tls they choose by ALPN; without it, h2 is for clients that begin "
            "with it (prior knowledge). With h2 alone, who begins otherwise is answered 505 in HTTP/1.1."},
    {.name = "trusted_proxies",
     CONFIG_CIDRS,
     .offset = offsetof(struct listener_settings, trusted_proxies),
     .fallback = "[]",
     .doc = "Networks whose X-Forwarded-*, Forwarded, X-Request-Id and X-Request-Timeout-Ms are believed; "
            "from others they are "
            "replaced.",
     .example = "[10.0.0.0/8]"},
    {.name = "proxy_protocol",
     .type = CONFIG_BOOL,
     .offset = offsetof(struct listener_settings, proxy_protocol),
     .fallback = "false",
     .doc = "true: a PROXY v1 or v2 header is required from trusted_proxies."},
    {.name = "underscores",
     .type = CONFIG_ENUM,
     .offset = offsetof(struct listener_settings, underscores),
     .fallback = "drop",
     .options = underscore_options,
     .doc = "Request headers with _ in their name, which many programs take for -: drop removes them, reject "
            "answers "
            "400, allow forwards them."},
    {.name = "merge_slashes",
     .type = CONFIG_BOOL,
     .offset = offsetof(struct listener_settings, merge_slashes),
     .fallback = "false",
     .doc = "true: // in a path is /, to match and to forward."},
    {.name = "limits",
     .type = CONFIG_OBJECT,
     .offset = offsetof(struct listener_settings, limits),
     .object = &limits_object,
     .doc = "What a client may send."},
    {.name = "timeouts",
     .type = CONFIG_OBJECT,
     .offset = offsetof(struct listener_settings, timeouts),
     .object = &timeouts_object,
     .doc = "How long a client may take."},
    {0},
};

const struct config_object listener_object = {
    .name = "listener",
    .doc = "An address on which clients are served.",
    .example = "name: https\n"
               "address: \"0.0.0.0:8443\"\n"
               "tls: { certificates: [{ cert: certs/api.pem, key: certs/api.key }] }\n"
               "trusted_proxies: [10.0.0.0/8]\n"
               "limits: { body_bytes: 1MiB }\n",
    .size = sizeof(struct listener_settings),
    .fields = listener_fields,
    .has_position = true,
    .check_rules = check_listener,
};
