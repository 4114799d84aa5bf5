// The field table of a route's cors.
#include "policy/policy_config.h"

#include "http/header.h"
#include "http/uri.h"

static void lower(struct str s)
{
    for (size_t i = 0; i < s.n; i++)
        ((char *)(uintptr_t)s.p)[i] = ascii_lower(s.p[i]);
}

static bool is_host(struct str text)
{
    struct str host, port;
    return text.n && uri_authority_split(text, &host, &port) && host.n && str_find(text, '*') == text.n;
}

// As a browser writes it (RFC 6454 6.2): scheme://host, and a port that is not the scheme's own.
static bool accept_origin(struct config_decoder *decoder, const struct config_node *node, struct str *value)
{
    static const struct {
        struct str scheme, port;
    } usual[] = {{STR("http://"), STR(":80")}, {STR("https://"), STR(":443")}};
    lower(*value);
    if (str_eq(*value, STR("*")) || str_eq(*value, STR("null")))
        return true;
    const struct str separator = STR("://");
    const char *at = memmem(value->p, value->n, separator.p, separator.n);
    struct str rest = at ? str_skip(*value, (size_t)(at - value->p) + separator.n) : STR_NULL;
    if (str_starts(rest, STR("*.")))
        rest = str_skip(rest, 2);
    if (!at || at == value->p || !is_host(rest)) {
        config_fail(decoder, node, "such as https://app.example.com, https://*.example.com or \"*\"",
                    "not an origin: \"%.*s\"", STR_ARG(*value));
        return false;
    }
    for (size_t i = 0; i < countof(usual); i++)
        if (str_starts(*value, usual[i].scheme) && str_ends(*value, usual[i].port)) {
            config_fail(decoder, node, "leave it out, as browsers do", "the scheme's own port");
            return false;
        }
    return true;
}

static bool accept_token(struct config_decoder *decoder, const struct config_node *node, struct str *value)
{
    if (header_name_valid(*value))
        return true;
    config_fail(decoder, node, "letters, digits and !#$%&'*+-.^_`|~", "not a name: \"%.*s\"",
                STR_ARG(*value));
    return false;
}

static bool has_star(const struct str_list *list)
{
    return str_list_has(list, STR("*"));
}

static void check_cors(struct config_decoder *decoder, const struct config_node *node, void *target)
{
    const struct cors_settings *cors = target;
    const struct {
        struct str key;
        const struct str_list *list;
    } lists[] = {{STR("origins"), &cors->origins},
                 {STR("methods"), &cors->methods},
                 {STR("headers"), &cors->headers},
                 {STR("expose"), &cors->expose}};
    for (size_t i = 0; i < countof(lists); i++)
        if (has_star(lists[i].list) && lists[i].list->count > 1)
            config_fail_at(decoder, node, lists[i].key, "write [\"*\"] alone", "\"*\" says all there is");
    if (!cors->credentials)
        return;
    if (has_star(&cors->origins))
        config_fail_at(decoder, node, STR("origins"), "name the origins, or leave credentials out",
                       "any site could act as its visitors: \"*\" with credentials");
    if (has_star(&cors->expose))
        config_fail_at(decoder, node, STR("expose"), "name the headers",
                       "with credentials, browsers take \"*\" for a header's name");
}

static const struct config_field cors_fields[] = {
    {.name = "origins",
     .type = CONFIG_STRINGS,
     .offset = offsetof(struct cors_settings, origins),
     .required = true,
     .min_count = 1,
     .accept = accept_origin,
     .pattern = "^([*]|null|[A-Za-z][A-Za-z0-9+.-]*://.+)$",
     .type_name = "a list of origins",
     .doc = "Whose scripts may call: https://app.example.com, https://*.example.com for every name below a "
            "domain, or \"*\" alone for all. null, which sandboxed pages send, only when it is listed.",
     .example = "[\"https://app.example.com\"]"},
    {.name = "methods",
     .type = CONFIG_STRINGS,
     .offset = offsetof(struct cors_settings, methods),
     .fallback = "[GET, HEAD, POST]",
     .accept = accept_token,
     .pattern = CONFIG_TOKEN_PATTERN,
     .type_name = "a list of methods",
     .doc = "Which methods a preflight may ask for; \"*\" for all."},
    {.name = "headers",
     .type = CONFIG_STRINGS,
     .offset = offsetof(struct cors_settings, headers),
     .fallback = "[]",
     .accept = accept_token,
     .pattern = CONFIG_TOKEN_PATTERN,
     .type_name = "a list of header names",
     .doc = "Which headers a script may set, such as Authorization or Content-Type; \"*\" for all."},
    {.name = "expose",
     .type = CONFIG_STRINGS,
     .offset = offsetof(struct cors_settings, expose),
     .fallback = "[]",
     .accept = accept_token,
     .pattern = CONFIG_TOKEN_PATTERN,
     .type_name = "a list of header names",
     .doc = "Which headers of the response a script may read, besides those that browsers always show."},
    {.name = "credentials",
     .type = CONFIG_BOOL,
     .offset = offsetof(struct cors_settings, credentials),
     .fallback = "false",
     .doc = "Whether browsers send cookies, client certificates and their own Authorization along."},
    {.name = "max_age",
     .type = CONFIG_DURATION,
     .offset = offsetof(struct cors_settings, max_age_us),
     .fallback = "10m",
     .min = 0,
     .max = 24 * 3600e6,
     .doc = "How long a browser may remember the answer to a preflight."},
    {0},
};

const struct config_object cors_object = {
    .name = "cors",
    .doc = "Lets scripts of other origins call a route (the CORS protocol of the Fetch standard). Preflights "
           "are answered by the gateway, before authentication; what the upstream says in "
           "Access-Control-… is replaced.",
    .example = "origins: [\"https://app.example.com\"]\n"
               "methods: [GET, POST, DELETE]\n"
               "headers: [Authorization, Content-Type]\n"
               "credentials: true\n",
    .size = sizeof(struct cors_settings),
    .fields = cors_fields,
    .check_rules = check_cors,
};
