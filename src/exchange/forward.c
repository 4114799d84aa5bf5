// What the gateway itself says in heads: who asks, through whom, under which id (shared names: RFC 7239's
// older siblings X-Forwarded-*, RFC 9110 7.6.3 Via, W3C Trace Context).
#include "exchange/forward_names.h"
#include "exchange/steps.h"

#include "base/digits.h"
#include "http/uri.h"

enum {
    TRACEPARENT_LENGTH = 55, // 00-32-16-2
    ALIKE_MAX = 64,          // longer than any name the gateway knows
};

// The share of traces begun here that ask to be recorded: tracing.sample's default.
static const double trace_sample = 0.05;

// ---- who asks ----

// The last element of a comma-separated list, cut off it; empty ones are skipped (RFC 9110 5.6.1). False:
// none is left.
static bool take_last(struct str *list, struct str *element)
{
    while (list->n) {
        size_t at = list->n;
        while (at && list->p[at - 1] != ',')
            at--;
        *element = str_trim(str_skip(*list, at));
        list->n = at ? at - 1 : 0;
        if (element->n)
            return true;
    }
    return false;
}

static struct str unquote(struct str s)
{
    bool quoted = s.n >= 2 && s.p[0] == '"' && s.p[s.n - 1] == '"';
    return quoted ? (struct str){s.p + 1, s.n - 2} : s;
}

// The value of one pair of a Forwarded element: for=192.0.2.60;proto=https (RFC 7239 4).
static struct str forwarded_value(struct str element, struct str name)
{
    while (element.n) {
        size_t end = str_find(element, ';');
        struct str pair = str_trim((struct str){element.p, end});
        size_t equals = str_find(pair, '=');
        if (equals < pair.n && str_eq_fold((struct str){pair.p, equals}, name))
            return unquote(str_skip(pair, equals + 1));
        element = str_skip(element, end < element.n ? end + 1 : end);
    }
    return STR_NULL;
}

// An address, with or without a port: 192.0.2.60, 192.0.2.60:4711, [2001:db8::1]:4711, 2001:db8::1.
static bool parse_hop(struct str hop, struct ip *ip)
{
    if (ip_parse(hop, ip))
        return true;
    bool bracketed = hop.n && hop.p[0] == '[';
    size_t end = str_find(hop, bracketed ? ']' : ':');
    return end < hop.n && ip_parse((struct str){hop.p + bracketed, end - bracketed}, ip);
}

// Walks from the right past every trusted proxy: the first other address is the client (RFC 7239 8.1).
// Forwarded is looked at when there is no X-Forwarded-For.
static void find_source(struct exchange *x)
{
    const struct headers *headers = &x->request.headers;
    bool is_old = headers_find(headers, HEADER_X_FORWARDED_FOR) != NULL;
    enum header_id id = is_old ? HEADER_X_FORWARDED_FOR : HEADER_FORWARDED;
    for (uint32_t i = headers->count; i-- > 0;) {
        if (headers->v[i].id != id)
            continue;
        struct str list = headers->v[i].value, element;
        while (take_last(&list, &element)) {
            struct ip ip;
            if (!parse_hop(is_old ? element : forwarded_value(element, STR("for")), &ip))
                return;
            x->source = ip;
            if (!cidr_set_has(&x->listener->settings->trusted_proxies, &ip))
                return;
        }
    }
}

// How the client spoke to the proxy before us.
static void find_scheme(struct exchange *x)
{
    struct str proto = headers_value(&x->request.headers, HEADER_X_FORWARDED_PROTO);
    if (!proto.n) {
        struct str list = headers_value(&x->request.headers, HEADER_FORWARDED), element;
        proto = take_last(&list, &element) ? forwarded_value(element, STR("proto")) : STR_NULL;
    }
    if (str_eq_fold(proto, STR("https")))
        x->scheme = STR("https");
}

static struct str new_request_id(struct exchange *x)
{
    char *text = arena_alloc(&x->arena, 32);
    hex_print(rand_u64(&x->worker->rand), text);
    hex_print(rand_u64(&x->worker->rand), text + 16);
    return (struct str){text, 32};
}

static bool is_plain_id(struct str id)
{
    for (size_t i = 0; i < id.n; i++)
        if (id.p[i] <= ' ' || id.p[i] >= 0x7f || id.p[i] == '"' || id.p[i] == '\\')
            return false;
    return id.n > 0 && id.n <= REQUEST_ID_MAX;
}

static struct str request_id_header(const struct exchange *x)
{
    return x->gateway->settings.telemetry.headers.request_id;
}

static void identify_request(struct exchange *x)
{
    if (x->peer_trusted) {
        enum header_id id = x->gateway->request_id_header;
        const struct header *header = id ? headers_find(&x->request.headers, id)
                                         : headers_find_name(&x->request.headers, request_id_header(x));
        if (header && is_plain_id(header->value)) {
            x->request_id = header->value;
            return;
        }
    }
    x->request_id = new_request_id(x);
}

static bool is_hex(struct str s)
{
    for (size_t i = 0; i < s.n; i++)
        if (!((s.p[i] >= '0' && s.p[i] <= '9') || (s.p[i] >= 'a' && s.p[i] <= 'f')))
            return false;
    return true;
}

static bool all_zero(struct str s)
{
    for (size_t i = 0; i < s.n; i++)
        if (s.p[i] != '0')
            return false;
    return true;
}

// Version 00 only: "00-<trace id>-<parent id>-<flags>" (Trace Context 3.2).
static bool traceparent_valid(struct str s)
{
    return s.n == TRACEPARENT_LENGTH && memcmp(s.p, "00-", 3) == 0 && s.p[35] == '-' && s.p[52] == '-' &&
           is_hex((struct str){s.p + 3, 32}) && is_hex((struct str){s.p + 36, 16}) &&
           is_hex((struct str){s.p + 53, 2}) && !all_zero((struct str){s.p + 3, 32}) &&
           !all_zero((struct str){s.p + 36, 16});
}

static void identify_trace(struct exchange *x)
{
    if (x->peer_trusted) {
        struct str parent = headers_value(&x->request.headers, HEADER_TRACEPARENT);
        if (traceparent_valid(parent)) {
            memcpy(x->trace_id, parent.p + 3, sizeof x->trace_id);
            x->trace_kept = true;
            return;
        }
    }
    hex_print(rand_u64(&x->worker->rand) | 1, x->trace_id);
    hex_print(rand_u64(&x->worker->rand), x->trace_id + 16);
}

void forward_identify(struct exchange *x)
{
    const struct cidr_set *trusted = &x->listener->settings->trusted_proxies;
    x->peer_trusted = trusted->count && cidr_set_has(trusted, &x->peer);
    if (x->peer_trusted) {
        find_source(x);
        find_scheme(x);
    }
    identify_request(x);
    identify_trace(x);
}

// ---- the request, for upstreams ----

static struct str print_ip(struct arena *arena, const struct ip *ip)
{
    char *text = arena_alloc(arena, IP_TEXT_MAX);
    return (struct str){text, ip_print(ip, text)};
}

static struct str join(struct arena *arena, struct str a, struct str separator, struct str b)
{
    const struct str parts[] = {a, separator, b};
    return arena_join(arena, parts, countof(parts));
}

// What a trusted peer said before, all lines of it.
struct said {
    struct str chain, proto, host, port, via, forwarded, client_cert;
};

static struct str append(struct arena *arena, struct str list, struct str value)
{
    return list.n ? join(arena, list, STR(", "), value) : value;
}

static void take_saying(struct exchange *x, struct said *said, struct header *header)
{
    struct str value = header->value;
    switch (header->id) {
    case HEADER_X_FORWARDED_FOR: said->chain = append(&x->arena, said->chain, value); break;
    case HEADER_X_FORWARDED_PROTO: said->proto = value; break;
    case HEADER_X_FORWARDED_HOST: said->host = value; break;
    case HEADER_X_FORWARDED_PORT: said->port = value; break;
    case HEADER_VIA: said->via = append(&x->arena, said->via, value); break;
    case HEADER_FORWARDED: said->forwarded = append(&x->arena, said->forwarded, value); break;
    case HEADER_X_FORWARDED_CLIENT_CERT:
        said->client_cert = append(&x->arena, said->client_cert, value);
        break;
    default: break;
    }
}

// The id of a name that frameworks behind a gateway may read as one of ours: X_Forwarded_For.
static enum header_id alike_id(struct str name)
{
    char folded[ALIKE_MAX];
    if (name.n > sizeof folded || str_find(name, '_') == name.n)
        return HEADER_OTHER;
    for (size_t i = 0; i < name.n; i++)
        folded[i] = name.p[i] == '_' ? '-' : name.p[i];
    return header_id_of((struct str){folded, name.n});
}

// Only a listener with `underscores: allow` lets such fields come this far.
static void strip_alike(struct exchange *x)
{
    struct headers *headers = &x->request.headers;
    for (uint32_t i = 0; i < headers->count; i++) {
        struct header *header = &headers->v[i];
        if (header->id != HEADER_OTHER)
            continue;
        enum header_id id = alike_id(header->name);
        if (header_is_hop_by_hop(id) || forward_rule(id) != FORWARD_KEEP)
            header->id = HEADER_GONE;
    }
}

// One pass over the fields: what goes, what is remembered.
static void strip_request(struct exchange *x, struct said *said)
{
    struct headers *headers = &x->request.headers;
    x->request.te_trailers = headers_list_has(headers, HEADER_TE, STR("trailers"));
    headers_remove_hop_by_hop(headers);
    if (x->listener->settings->underscores == H1_UNDERSCORES_ALLOW)
        strip_alike(x);
    for (uint32_t i = 0; i < headers->count; i++) {
        struct header *header = &headers->v[i];
        enum forward_rule rule = forward_rule(header->id);
        if (rule == FORWARD_KEEP)
            continue;
        if (rule == FORWARD_REPLACE && x->peer_trusted)
            take_saying(x, said, header);
        if (header->id == HEADER_HOST && !x->host) {
            x->host = header;
            continue;
        }
        if (rule == FORWARD_EXPECT && x->request.expect_continue)
            continue;
        if (rule == FORWARD_TRUSTED && x->peer_trusted)
            continue;
        if (rule == FORWARD_TRACE && x->trace_kept)
            continue;
        header->id = HEADER_GONE;
    }
}

// proto: of the hop to us.
static struct str forwarded_element(struct exchange *x, struct str peer)
{
    const char *proto = x->tls ? "https" : "http";
    if (x->peer.family == 0)
        return arena_printf(&x->arena, "for=unknown;proto=%s", proto);
    bool v6 = str_find(peer, ':') < peer.n;
    return arena_printf(&x->arena, v6 ? "for=\"[%.*s]\";proto=%s" : "for=%.*s;proto=%s", STR_ARG(peer),
                        proto);
}

static char *put(char *at, struct str s)
{
    return mempcpy(at, s.p, s.n);
}

// The client's verified certificate, in Envoy's syntax: Hash=…;Subject="…";URI=…;DNS=…
static struct str client_cert_element(const struct tls_facts *tls, struct arena *arena)
{
    const struct str before = STR("Hash="), between = STR(";Subject=\"");
    size_t most = before.n + tls->client_fingerprint.n + between.n + 2 * tls->client_subject.n + 1 + 1 +
                  tls->client_sans.n;
    char *text = arena_alloc(arena, most);
    char *at = put(put(put(text, before), tls->client_fingerprint), between);
    for (size_t i = 0; i < tls->client_subject.n; i++) {
        char c = tls->client_subject.p[i];
        if (c == '"' || c == '\\')
            *at++ = '\\';
        *at++ = c;
    }
    *at++ = '"';
    struct str rest = tls->client_sans, san;
    while (str_next_token(&rest, &san)) {
        *at++ = ';';
        at = put(at, san);
    }
    return (struct str){text, (size_t)(at - text)};
}

static void add_forwarding(struct exchange *x, const struct said *said)
{
    struct headers *headers = &x->request.headers;
    struct arena *arena = &x->arena;
    struct str peer = print_ip(arena, &x->peer), chain = said->chain;
    if (!chain.n && memcmp(&x->source, &x->peer, sizeof x->source) != 0)
        chain = print_ip(arena, &x->source); // said by Forwarded
    headers_add_as(headers, arena, HEADER_X_FORWARDED_FOR, STR("X-Forwarded-For"),
                   append(arena, chain, peer));
    headers_add_as(headers, arena, HEADER_X_FORWARDED_PROTO, STR("X-Forwarded-Proto"),
                   said->proto.n ? said->proto : x->scheme);
    struct str host = said->host.n ? said->host : x->request.authority;
    if (host.n)
        headers_add_as(headers, arena, HEADER_X_FORWARDED_HOST, STR("X-Forwarded-Host"), host);
    headers_add_as(headers, arena, HEADER_X_FORWARDED_PORT, STR("X-Forwarded-Port"),
                   said->port.n ? said->port : x->listener->port_text);
    if (said->forwarded.n)
        headers_add_as(headers, arena, HEADER_FORWARDED, STR("Forwarded"),
                       append(arena, said->forwarded, forwarded_element(x, peer)));
    struct str client_cert = said->client_cert;
    if (x->tls && x->tls->client_fingerprint.n)
        client_cert = append(arena, client_cert, client_cert_element(x->tls, arena));
    if (client_cert.n)
        headers_add_as(headers, arena, HEADER_X_FORWARDED_CLIENT_CERT, STR("X-Forwarded-Client-Cert"),
                       client_cert);
    struct str via = x->request.http2   ? STR("2.0 sallyport")
                     : x->request.minor ? STR("1.1 sallyport")
                                        : STR("1.0 sallyport");
    headers_add_as(headers, arena, HEADER_VIA, STR("Via"), append(arena, said->via, via));
}

static void add_trace(struct exchange *x)
{
    if (x->trace_kept)
        return;
    char *text = arena_alloc(&x->arena, TRACEPARENT_LENGTH + 1);
    memcpy(text, "00-", 3);
    memcpy(text + 3, x->trace_id, 32);
    text[35] = '-';
    hex_print(rand_u64(&x->worker->rand) | 1, text + 36);
    memcpy(text + 52, rand_unit(&x->worker->rand) < trace_sample ? "-01" : "-00", 3);
    headers_add_as(&x->request.headers, &x->arena, HEADER_TRACEPARENT, STR("traceparent"),
                   (struct str){text, TRACEPARENT_LENGTH});
}

static void set_request_id(struct exchange *x, struct headers *headers)
{
    if (x->gateway->request_id_header)
        headers_remove(headers, x->gateway->request_id_header);
    else
        headers_remove_name(headers, request_id_header(x));
    headers_add_as(headers, &x->arena, x->gateway->request_id_header, request_id_header(x), x->request_id);
}

// After everything that a client could have removed by naming it in Connection. Names without a value for
// this caller are absent: what the client said under them is gone since step_admit.
static void add_identity(struct exchange *x)
{
    struct identity *identity = x->policy.identity;
    if (!identity)
        return;
    for (uint32_t i = 0; i < identity->header_count; i++)
        headers_add_as(&x->request.headers, &x->arena, identity->headers[i].id, identity->headers[i].name,
                       identity->headers[i].value);
    const struct auth *auth = &x->gateway->auth;
    struct str token =
        auth_identity_token(x->worker->auth, auth, identity, (int64_t)(x->wall_us / 1000000), &x->arena);
    if (token.n)
        headers_add(&x->request.headers, &x->arena, auth->identity_token->header, token);
}

bool forward_make_target(struct exchange *x)
{
    struct request_head *request = &x->request;
    struct str path = request->path;
    if (x->match.route->settings->has_rewrite && !route_rewrite_path(&x->match, request, &x->arena, &path))
        return false;
    if (path.p == request->target.p) // origin-form and canonical: as received
        x->target = request->target;
    else
        x->target = request->has_query ? join(&x->arena, path, STR("?"), request->query) : path;
    return true;
}

void forward_prepare_request(struct exchange *x)
{
    if (x->prepared)
        return;
    x->prepared = true;
    struct said said = {0};
    strip_request(x, &said);
    if (!x->host) {
        headers_add_as(&x->request.headers, &x->arena, HEADER_HOST, STR("Host"), STR_NULL);
        x->host = &x->request.headers.v[x->request.headers.count - 1];
    }
    size_t host_at = (size_t)(x->host - x->request.headers.v);
    add_forwarding(x, &said);
    add_identity(x);
    set_request_id(x, &x->request.headers);
    add_trace(x);
    deadline_prepare(x);
    x->host = &x->request.headers.v[host_at]; // the array may have moved
}

void forward_set_host(struct exchange *x, const struct upstream_call *call)
{
    const struct rewrite_settings *rewrite = &x->match.route->settings->rewrite;
    struct str endpoint = call->endpoint->name;
    x->host->value = x->request.authority;
    if (x->match.route->settings->has_rewrite && rewrite->host_kind == REWRITE_HOST_NAME)
        x->host->value = rewrite->host;
    else if (!x->host->value.n ||
             (x->match.route->settings->has_rewrite && rewrite->host_kind == REWRITE_HOST_UPSTREAM))
        x->host->value = str_starts(endpoint, STR("unix:")) ? STR("localhost") : endpoint;
}

// ---- the response, for the client ----

static void add_server_timing(struct exchange *x, struct response_head *head)
{
    uint64_t now_us = x->worker->loop.now_us, all_us = now_us - x->began_us;
    uint64_t upstream_us = x->upstream_us + (x->call->ready_us ? now_us - x->call->ready_us : 0);
    uint64_t own_us = all_us > upstream_us ? all_us - upstream_us : 0;
    headers_add(&head->headers, &x->arena, STR("Server-Timing"),
                arena_printf(&x->arena, "gateway;dur=%llu.%03llu, upstream;dur=%llu.%03llu",
                             (unsigned long long)own_us / 1000, (unsigned long long)own_us % 1000,
                             (unsigned long long)upstream_us / 1000, (unsigned long long)upstream_us % 1000));
}

void forward_shape_response(struct exchange *x, struct response_head *head)
{
    struct headers *headers = &head->headers;
    headers_remove_hop_by_hop(headers);
    headers_remove(headers, HEADER_CONTENT_LENGTH);
    set_request_id(x, headers);
    if (!headers_find(headers, HEADER_DATE))
        headers_add_as(headers, &x->arena, HEADER_DATE, STR("Date"),
                       arena_copy(&x->arena, worker_date(x->worker, x->wall_us)));
    if (x->gateway->settings.telemetry.headers.server_timing && x->upstream)
        add_server_timing(x, head);
}
