// What would happen to a request: it is written as an HTTP/1.1 head and read by the parser that clients'
// requests go through, so that the same grammar and the same bounds hold, then matched by the same table.
#include "admin/room.h"

#include "http/uri.h"

enum { URL_BYTES = 65536 };

struct explanation {
    const struct gateway *gateway;
    const struct gateway_listener *listener;
    struct str scheme;
    struct arena *arena;
    struct request_head head;
    struct route_match match;
    struct json *out;
    struct explained *explained;
};

// ---- from a URL to a head ----

struct url {
    struct str scheme, authority, target;
};

static bool split_url(struct str text, struct url *url)
{
    *url = (struct url){.scheme = STR("http")};
    static const struct str schemes[] = {{"http", 4}, {"https", 5}};
    for (size_t i = 0; i < countof(schemes); i++) {
        size_t n = schemes[i].n;
        if (text.n < n + 3 || !str_eq_fold((struct str){text.p, n}, schemes[i]) ||
            memcmp(text.p + n, "://", 3) != 0)
            continue;
        url->scheme = schemes[i];
        text = str_skip(text, n + 3);
        url->authority = text;
        for (url->authority.n = 0; url->authority.n < text.n && !strchr("/?#", text.p[url->authority.n]);)
            url->authority.n++;
        text = str_skip(text, url->authority.n);
        break;
    }
    url->target = (struct str){text.p, str_find(text, '#')}; // a fragment is never sent (RFC 9110 7.1)
    return url->authority.n || (text.n && text.p[0] == '/');
}

// The listener that the URL's port belongs to, or the first one of its scheme, or the first one.
static const struct gateway_listener *listener_for(const struct gateway *gateway, const struct url *url)
{
    struct str host, port;
    uint64_t number;
    bool is_tls = str_eq(url->scheme, STR("https"));
    if (uri_authority_split(url->authority, &host, &port) && str_to_u64(port, 65535, &number))
        for (uint32_t i = 0; i < gateway->listener_count; i++)
            if (gateway->listeners[i].port == number)
                return &gateway->listeners[i];
    for (uint32_t i = 0; i < gateway->listener_count; i++)
        if (gateway->listeners[i].settings->has_tls == is_tls)
            return &gateway->listeners[i];
    return gateway->listener_count ? &gateway->listeners[0] : NULL;
}

// Nothing in here may end its line early: a field that would is a mistake of the question, not of the
// request.
static bool check_question(struct str method, struct str url, const struct str_map *headers, struct err *err)
{
    if (!header_name_valid(method)) {
        err_set(err, ERR_INVALID, "method", "not a method");
        return false;
    }
    if (url.n > URL_BYTES || !header_value_valid(url) || str_find(url, ' ') < url.n) {
        err_set(err, ERR_INVALID, "url", "too long, or white space or control characters in it");
        return false;
    }
    for (uint32_t i = 0; i < headers->count; i++) {
        const struct str_pair *header = &headers->v[i];
        if (header_name_valid(header->name) && header_value_valid(header->value))
            continue;
        err_set(err, ERR_INVALID, "headers", "\"%.*s\": a name or value that no header can have",
                STR_ARG(header->name));
        return false;
    }
    return true;
}

static void write_head(struct buf *text, struct str method, const struct url *url,
                       const struct str_map *headers)
{
    const char *slash = url->target.n && url->target.p[0] == '/' ? "" : "/";
    bool host_given = false;
    buf_printf(text, "%.*s %s%.*s HTTP/1.1\r\n", STR_ARG(method), slash, STR_ARG(url->target));
    for (uint32_t i = 0; i < headers->count; i++) {
        host_given |= str_eq_fold(headers->v[i].name, STR("Host"));
        buf_printf(text, "%.*s: %.*s\r\n", STR_ARG(headers->v[i].name), STR_ARG(headers->v[i].value));
    }
    if (!host_given)
        buf_printf(text, "Host: %.*s\r\n", STR_ARG(url->authority));
    buf_append(text, STR("\r\n"));
}

// ---- what to say ----

static void key(struct explanation *e, const char *name)
{
    json_key(e->out, str_of(name));
}

static void string(struct explanation *e, const char *name, struct str value)
{
    key(e, name);
    json_string(e->out, value);
}

static void duration(struct explanation *e, const char *name, uint64_t us)
{
    key(e, name);
    config_print_json(config_new_duration(e->arena, us), e->out);
}

static void print_error(struct explanation *e, enum end_cause cause, struct str detail)
{
    const struct end_row *row = end_row(cause);
    key(e, "error");
    json_object(e->out);
    json_field_u64(e->out, "status", row->status);
    string(e, "code", row->code);
    string(e, "detail", detail);
    if (cause == END_METHOD_NOT_ALLOWED)
        string(e, "allow", e->match.allow);
    json_object_end(e->out);
}

static void print_request(struct explanation *e)
{
    const struct request_head *head = &e->head;
    key(e, "request");
    json_object(e->out);
    string(e, "method", head->method_name);
    string(e, "scheme", e->scheme);
    string(e, "host", head->host);
    string(e, "path", head->path);
    if (head->has_query)
        string(e, "query", head->query);
    json_object_end(e->out);
    string(e, "listener", e->listener->name);
}

static struct str matched_host(const struct str_list *hosts, struct str host, const char **kind)
{
    struct str longest = STR_NULL;
    *kind = "any";
    for (uint32_t i = 0; i < hosts->count; i++) {
        struct str pattern = hosts->v[i];
        if (str_eq(pattern, host)) {
            *kind = "exact";
            return pattern;
        }
        if (pattern.n > longest.n && str_starts(pattern, STR("*")) && str_ends(host, str_skip(pattern, 1)))
            longest = pattern;
    }
    if (longest.n)
        *kind = "wildcard";
    return longest;
}

static void print_names(struct explanation *e, const char *name, const struct value_matches *matches)
{
    if (!matches->count)
        return;
    key(e, name);
    json_array(e->out);
    for (uint32_t i = 0; i < matches->count; i++)
        json_string(e->out, matches->v[i].name);
    json_array_end(e->out);
}

static void print_captures(struct explanation *e)
{
    if (!e->match.capture_count)
        return;
    key(e, "captures");
    json_object(e->out);
    for (uint32_t i = 0; i < e->match.capture_count; i++) {
        json_key(e->out, e->match.captures[i].name);
        json_string(e->out, e->match.captures[i].value);
    }
    json_object_end(e->out);
}

// Which of the route's conditions fitted this request.
static void print_matched(struct explanation *e)
{
    static const char *const path_kinds[] = {[PATH_PREFIX] = "prefix",
                                             [PATH_EXACT] = "exact",
                                             [PATH_TEMPLATE] = "template",
                                             [PATH_REGEX] = "regex"};
    const struct match_settings *match = &e->match.route->settings->match;
    const char *host_kind;
    struct str host = matched_host(&match->hosts, e->head.host, &host_kind);
    key(e, "matched");
    json_object(e->out);
    key(e, "host");
    json_object(e->out);
    string(e, host_kind, host.n ? host : STR("*"));
    json_object_end(e->out);
    key(e, "path");
    json_object(e->out);
    string(e, path_kinds[match->path.kind], match->path.text);
    json_object_end(e->out);
    if (match->methods.count)
        string(e, "method", e->head.method_name);
    print_names(e, "headers", &match->headers);
    print_names(e, "query", &match->query);
    print_captures(e);
    json_object_end(e->out);
}

// Who may call; null: everybody.
static void print_auth(struct explanation *e)
{
    const struct config_node *auth = config_encode_route_auth(e->arena, &e->match.route->settings->auth);
    key(e, "auth");
    if (auth)
        config_print_json(auth, e->out);
    else
        json_null(e->out);
}

static void print_policies(struct explanation *e)
{
    const struct route *route = e->match.route;
    key(e, "policies");
    json_array(e->out);
    for (uint32_t i = 0; i < route->policy_count; i++)
        json_string(e->out, str_of(route->policies[i].policy->name));
    json_array_end(e->out);
}

// How many requests each tier may have under way.
static void print_in_flight(struct explanation *e, const struct limit *limit)
{
    key(e, "in_flight");
    json_object(e->out);
    for (uint32_t i = 0; i <= limit->tier_count; i++) {
        const struct limit_tier *tier = &limit->tiers[i];
        json_key(e->out, tier->name.n ? tier->name : STR("default"));
        if (tier->in_flight)
            json_u64(e->out, tier->in_flight);
        else
            json_null(e->out);
    }
    json_object_end(e->out);
}

static void print_limit(struct explanation *e, const struct limit *compiled)
{
    const struct limit_settings *limit = compiled->settings;
    json_object(e->out);
    string(e, "name", limit->name);
    key(e, "key");
    json_array(e->out);
    for (uint32_t i = 0; i < limit->key.count; i++)
        json_string(e->out, limit_from_print(&limit->key.v[i], e->arena));
    json_array_end(e->out);
    if (compiled->has_flight)
        print_in_flight(e, compiled);
    json_field_bool(e->out, "before_auth", limit->before_auth);
    json_field_bool(e->out, "shadow", limit->shadow);
    json_object_end(e->out);
}

// Which limits, and by what keys, in the order in which they are asked.
static void print_limits(struct explanation *e)
{
    key(e, "rate_limits");
    json_array(e->out);
    for (unsigned i = 0; i < LIMIT_STAGES; i++) {
        const struct route_limit_stage *stage = &e->match.route->settings->rate_limits.stages[i];
        for (uint32_t j = 0; j < stage->count; j++)
            print_limit(e, &e->gateway->limits.v[stage->indices[j]]);
    }
    json_array_end(e->out);
}

static void note_upstream(struct explanation *e, const struct upstream *upstream)
{
    if (e->explained->count < EXPLAIN_UPSTREAMS)
        e->explained->upstreams[e->explained->count++] = upstream;
}

static void print_split(struct explanation *e)
{
    const struct route *route = e->match.route;
    key(e, "split");
    json_array(e->out);
    for (uint32_t i = 0; i < route->split_count; i++) {
        json_object(e->out);
        string(e, "upstream", route->split[i].upstream->name);
        key(e, "weight");
        json_u64(e->out, route->split[i].weight);
        json_object_end(e->out);
        note_upstream(e, route->split[i].upstream);
    }
    json_array_end(e->out);
}

// The path and query for the upstream, and what bounds the exchange there.
static void print_forwarding(struct explanation *e)
{
    const struct route *route = e->match.route;
    const struct route_settings *settings = route->settings;
    struct str path = e->head.path;
    if (settings->has_rewrite && !route_rewrite_path(&e->match, &e->head, e->arena, &path)) {
        print_error(e, END_BAD_REQUEST, STR("the rewritten path is refused"));
        return;
    }
    string(e, "target",
           e->head.has_query ? arena_printf(e->arena, "%.*s?%.*s", STR_ARG(path), STR_ARG(e->head.query))
                             : path);
    static const char *const hosts[] = {[REWRITE_HOST_KEEP] = NULL,
                                        [REWRITE_HOST_NAME] = NULL,
                                        [REWRITE_HOST_UPSTREAM] = "the endpoint's address"};
    struct str host = e->head.authority;
    if (settings->has_rewrite && settings->rewrite.host_kind == REWRITE_HOST_NAME)
        host = settings->rewrite.host;
    if (settings->has_rewrite && hosts[settings->rewrite.host_kind])
        host = str_of(hosts[settings->rewrite.host_kind]);
    string(e, "host", host);
    const struct retry_settings *retries = route->retries;
    if (!retries && route->upstream)
        retries = &route->upstream->settings->retries;
    if (retries) {
        key(e, "retries");
        config_print_json(config_encode(&retry_object, retries, e->arena), e->out);
    }
}

static void explain_forward(struct explanation *e)
{
    string(e, "upstream", e->match.route->upstream->name);
    note_upstream(e, e->match.route->upstream);
    print_forwarding(e);
}

static void explain_split(struct explanation *e)
{
    print_split(e);
    print_forwarding(e);
}

static void explain_redirect(struct explanation *e)
{
    key(e, "redirect");
    json_object(e->out);
    json_field_u64(e->out, "status", (uint64_t)e->match.route->settings->redirect.status);
    string(e, "location", route_redirect_location(&e->match, &e->head, e->scheme, e->arena));
    json_object_end(e->out);
}

// redirect_to of the listener: no route is looked for.
static void explain_redirect_to(struct explanation *e)
{
    string(e, "action", STR("redirect_to"));
    key(e, "redirect");
    json_object(e->out);
    json_field_u64(e->out, "status", 308);
    string(e, "location", gateway_tls_location(e->listener->redirect, &e->head, e->arena));
    json_object_end(e->out);
}

static void explain_respond(struct explanation *e)
{
    const struct respond_settings *respond = &e->match.route->settings->respond;
    key(e, "respond");
    json_object(e->out);
    json_field_u64(e->out, "status", (uint64_t)respond->status);
    string(e, "body", respond->body);
    json_object_end(e->out);
}

// By enum route_action.
static const struct {
    const char *name;
    void (*explain)(struct explanation *e);
} actions[] = {
    [ROUTE_FORWARD] = {"forward", explain_forward},
    [ROUTE_SPLIT] = {"split", explain_split},
    [ROUTE_REDIRECT] = {"redirect", explain_redirect},
    [ROUTE_RESPOND] = {"respond", explain_respond},
};

static void explain_match(struct explanation *e)
{
    const struct route *route = e->match.route;
    if (!route) {
        key(e, "route");
        json_null(e->out);
        if (e->match.method_mismatch)
            print_error(e, END_METHOD_NOT_ALLOWED, STR("no route here takes this method"));
        else
            print_error(e, END_NO_ROUTE, STR("no route matches this host and path"));
        return;
    }
    uint64_t body_bytes = route->settings->request_body_bytes;
    if (body_bytes == UINT64_MAX)
        body_bytes = e->listener->settings->limits.body_bytes;
    string(e, "route", route->name);
    print_matched(e);
    if (e->head.framing == FRAMING_LENGTH && e->head.content_length > body_bytes) {
        print_error(e, END_BODY_TOO_LARGE, STR("the body is larger than request_body_bytes"));
        return;
    }
    print_auth(e);
    print_policies(e);
    print_limits(e);
    string(e, "action", str_of(actions[route->action].name));
    actions[route->action].explain(e);
    duration(e, "timeout", route->settings->timeout_us);
    key(e, "request_body_bytes");
    config_print_json(config_new_size(e->arena, body_bytes), e->out);
}

static void explain_head(struct explanation *e, struct str text)
{
    const struct listener_settings *settings = e->listener->settings;
    const struct h1_limits limits = {
        .head_bytes = (uint32_t)settings->limits.header_bytes,
        .uri_bytes = (uint32_t)settings->limits.uri_bytes,
        .headers = (uint32_t)settings->limits.headers,
        .merge_slashes = settings->merge_slashes,
    };
    struct h1_parse parse = {0};
    enum h1_result result = h1_parse_request(&parse, text.p, text.n, &limits,
                                             (enum h1_underscores)settings->underscores, e->arena, &e->head);
    if (result != H1_DONE) {
        print_error(e, h1_fault_cause(result == H1_FAULT ? parse.fault : H1_BAD_REQUEST),
                    str_of(result == H1_FAULT ? parse.why : "the head is not complete"));
        return;
    }
    print_request(e);
    if (e->listener->redirect) {
        explain_redirect_to(e);
        return;
    }
    struct route_scratch *scratch = route_scratch_new();
    route_find(e->gateway->routes, &e->head, scratch, e->arena, &e->match);
    explain_match(e);
    route_scratch_free(scratch);
}

bool explain_members(const struct gateway *gateway, struct str method, struct str url_text,
                     const struct str_map *headers, struct json *out, struct explained *explained,
                     struct err *err)
{
    static const struct str_map none;
    struct url url;
    headers = headers ? headers : &none;
    if (!check_question(method, url_text, headers, err))
        return false;
    if (!split_url(url_text, &url)) {
        err_set(err, ERR_INVALID, "url", "expected http://host/path or https://host/path");
        return false;
    }
    struct arena arena;
    arena_init(&arena, NULL);
    struct explanation e = {
        .gateway = gateway,
        .listener = listener_for(gateway, &url),
        .scheme = url.scheme,
        .arena = &arena,
        .out = out,
        .explained = explained,
    };
    if (e.listener) {
        struct buf text = {0};
        write_head(&text, method, &url, headers);
        explain_head(&e, buf_str(&text));
        buf_free(&text);
    } else {
        err_set(err, ERR_INVALID, "listeners", "there is none");
    }
    arena_reset(&arena);
    return e.listener != NULL;
}

bool explain_request(const struct gateway *gateway, struct str method, struct str url,
                     const struct str_map *headers, struct json *out, struct err *err)
{
    struct buf members = {0};
    struct json json;
    struct explained explained = {0};
    json_init(&json, &members, out->pretty);
    json_object(&json);
    bool good = explain_members(gateway, method, url, headers, &json, &explained, err);
    json_object_end(&json);
    if (good)
        json_raw(out, buf_str(&members));
    buf_free(&members);
    return good;
}
