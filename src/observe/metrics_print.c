// Prometheus text format 0.0.4 and OpenMetrics 1.0. They differ in the name of a counter's family
// (OpenMetrics leaves
// `_total` to the sample), in how a bucket's bound is spelled (OpenMetrics: always a fraction) and in the
// last line.
#include "observe/metrics.h"
#include "observe/process_stats.h"
#include "observe/shard.h"

#include "base/json.h"
#include "base/log.h"

#include <stdlib.h>

struct page {
    struct buf *out;
    bool openmetrics;
};

static const struct str bounds_text[] = {
#define X(us, text) {text, sizeof(text) - 1},
    METRIC_BOUNDS(X)
#undef X
};

static const struct str redis_bounds_text[METRIC_BUCKETS] = {
#define X(us, text) {text, sizeof(text) - 1},
    REDIS_BOUNDS(X)
#undef X
};

struct str metric_method_name(unsigned method)
{
    static const struct str names[] = {STR("OTHER"), STR("GET"),    STR("HEAD"),  STR("POST"),
                                       STR("PUT"),   STR("DELETE"), STR("PATCH"), STR("OPTIONS"),
                                       STR("TRACE"), STR("CONNECT")};
    return names[method < countof(names) ? method : 0];
}

// ---- lines ----

#define put(page, literal) buf_append((page)->out, STR(literal))

static void put_str(struct page *page, struct str s)
{
    buf_append(page->out, s);
}

static void put_u64(struct page *page, uint64_t value)
{
    char digits[20];
    put_str(page, (struct str){digits, u64_print(value, digits)});
}

static void put_i64(struct page *page, int64_t value)
{
    if (value < 0)
        put(page, "-");
    put_u64(page, value < 0 ? -(uint64_t)value : (uint64_t)value);
}

static void put_seconds(struct page *page, uint64_t us)
{
    char digits[20];
    put_u64(page, us / 1000000);
    size_t n = u64_print(us % 1000000 + 1000000, digits);
    digits[0] = '.';
    put_str(page, (struct str){digits, n});
}

enum family_type { FAMILY_COUNTER, FAMILY_GAUGE, FAMILY_HISTOGRAM };

static void family(struct page *page, struct str name, enum family_type type, struct str help)
{
    static const struct str types[] = {STR(" counter\n"), STR(" gauge\n"), STR(" histogram\n")};
    if (page->openmetrics && type == FAMILY_COUNTER)
        name.n -= sizeof "_total" - 1;
    put(page, "# HELP ");
    put_str(page, name);
    put(page, " ");
    put_str(page, help);
    put(page, "\n# TYPE ");
    put_str(page, name);
    put_str(page, types[type]);
}

// A label value: backslash, quote and line feed are escaped; what is no UTF-8 becomes U+FFFD (by json_escape,
// which leaves well-formed characters beyond ASCII as they are).
static void put_escaped(struct page *page, struct str value)
{
    while (value.n) {
        size_t n = 1;
        unsigned char c = (unsigned char)value.p[0];
        if (c == '\\')
            put(page, "\\\\");
        else if (c == '"')
            put(page, "\\\"");
        else if (c == '\n')
            put(page, "\\n");
        else if (c < 0x80)
            put_str(page, (struct str){value.p, 1});
        else {
            char utf8[JSON_ESCAPE_MAX * 64];
            while (n < value.n && n < 64 && (unsigned char)value.p[n] >= 0x80)
                n++;
            if (n == 64) // do not split a character
                while (n > 60 && n < value.n && ((unsigned char)value.p[n] & 0xc0) == 0x80)
                    n--;
            put_str(page, (struct str){utf8, json_escape((struct str){value.p, n}, utf8)});
        }
        value = str_skip(value, n);
    }
}

// first: '{' or ','.
static void put_label(struct page *page, struct str first, struct str name, struct str value)
{
    put_str(page, first);
    put_str(page, name);
    put(page, "=\"");
    put_escaped(page, value);
    put(page, "\"");
}

#define label_first(page, name, value) put_label((page), STR("{"), STR(name), (value))
#define label(page, name, value)       put_label((page), STR(","), STR(name), (value))

static void put_code(struct page *page, unsigned status)
{
    put(page, ",code=\"");
    if (metric_class(status))
        put_u64(page, status);
    else
        put(page, "none");
    put(page, "\"");
}

static void sample_u64(struct page *page, uint64_t value)
{
    put(page, "} ");
    put_u64(page, value);
    put(page, "\n");
}

static void sample_i64(struct page *page, int64_t value)
{
    put(page, "} ");
    put_i64(page, value);
    put(page, "\n");
}

static void sample_double(struct page *page, double value)
{
    buf_printf(page->out, "} %.3f\n", value);
}

static void plain_sample(struct page *page, struct str name, enum family_type type, struct str help)
{
    family(page, name, type, help);
    put_str(page, name);
    put(page, " ");
}

// labels: `{route="x",code_class="2xx"`, not yet closed; n == 0: none.
static void put_histogram(struct page *page, struct str name, struct str labels, const struct str *bounds,
                          const struct metric_histogram *histogram)
{
    uint64_t below = 0;
    for (unsigned i = 0; i <= METRIC_BUCKETS; i++) {
        below += histogram->counts[i];
        put_str(page, name);
        put(page, "_bucket");
        put_str(page, labels);
        put_str(page, labels.n ? STR(",le=\"") : STR("{le=\""));
        put_str(page, i < METRIC_BUCKETS ? bounds[i] : STR("+Inf"));
        if (page->openmetrics && i < METRIC_BUCKETS && str_find(bounds[i], '.') == bounds[i].n)
            put(page, ".0");
        put(page, "\"");
        sample_u64(page, below);
    }
    put_str(page, name);
    put(page, "_sum");
    put_str(page, labels);
    put_str(page, labels.n ? STR("} ") : STR(" "));
    put_seconds(page, histogram->sum_us);
    put(page, "\n");
    put_str(page, name);
    put(page, "_count");
    put_str(page, labels);
    put_str(page, labels.n ? STR("} ") : STR(" "));
    put_u64(page, below);
    put(page, "\n");
}

// A counter with one label: a sample for each of its values.
static void print_counts(struct page *page, struct str name, struct str help, struct str key,
                         const struct str *values, const uint64_t *counts, unsigned count)
{
    family(page, name, FAMILY_COUNTER, help);
    for (unsigned i = 0; i < count; i++) {
        put_str(page, name);
        put_label(page, STR("{"), key, values[i]);
        sample_u64(page, counts[i]);
    }
}

// ---- families ----

static struct str route_name(uint32_t index)
{
    return index ? metric_name(NAME_ROUTE, index - 1) : STR("");
}

static void print_requests(struct page *page, const struct metrics *total)
{
    family(page, STR("sallyport_http_requests_total"), FAMILY_COUNTER, STR("Requests finished."));
    for (uint32_t r = 0; r < total->route_count; r++) {
        const struct metric_table *table = total->routes[r] ? &total->routes[r]->requests : NULL;
        for (uint32_t i = 0; table && i < table->capacity; i++) {
            uint64_t key = table->series[i].key;
            if (!key)
                continue;
            put(page, "sallyport_http_requests_total");
            label_first(page, "listener", metric_name(NAME_LISTENER, metric_key_listener(key)));
            label(page, "route", route_name(r));
            label(page, "method", metric_method_name(metric_key_method(key)));
            put_code(page, metric_key_status(key));
            sample_u64(page, table->series[i].count);
        }
    }
}

static void print_durations(struct page *page, const struct metrics *total)
{
    static const struct str classes[METRIC_CLASSES] = {STR("none"), STR("1xx"), STR("2xx"),
                                                       STR("3xx"),  STR("4xx"), STR("5xx")};
    struct buf labels = {0};
    struct page label_page = {&labels, page->openmetrics};
    family(page, STR("sallyport_http_request_duration_seconds"), FAMILY_HISTOGRAM,
           STR("From the request's first byte to the response's last."));
    for (uint32_t r = 0; r < total->route_count; r++) {
        for (unsigned class = 0; total->routes[r] && class < METRIC_CLASSES; class ++) {
            const struct metric_histogram *duration =
                metric_table_duration(&total->routes[r]->requests, class);
            if (!duration)
                continue;
            labels.start = labels.end = 0;
            label_first(&label_page, "route", route_name(r));
            label(&label_page, "code_class", classes[class]);
            put_histogram(page, STR("sallyport_http_request_duration_seconds"), buf_str(&labels), bounds_text,
                          duration);
        }
    }
    buf_free(&labels);
}

static void print_bytes(struct page *page, const struct metrics *total)
{
    family(page, STR("sallyport_http_request_bytes_total"), FAMILY_COUNTER,
           STR("Bytes received from clients in finished requests."));
    for (uint32_t r = 0; r < total->route_count; r++) {
        if (!total->routes[r])
            continue;
        put(page, "sallyport_http_request_bytes_total");
        label_first(page, "route", route_name(r));
        sample_u64(page, total->routes[r]->bytes_in);
    }
    family(page, STR("sallyport_http_response_bytes_total"), FAMILY_COUNTER,
           STR("Bytes sent to clients in finished requests."));
    for (uint32_t r = 0; r < total->route_count; r++) {
        if (!total->routes[r])
            continue;
        put(page, "sallyport_http_response_bytes_total");
        label_first(page, "route", route_name(r));
        sample_u64(page, total->routes[r]->bytes_out);
    }
}

static const struct str connection_states[CONNECTION_STATES] = {STR("active"), STR("idle")};

static void print_listeners(struct page *page, const struct metrics *total)
{
    family(page, STR("sallyport_connections"), FAMILY_GAUGE, STR("Client connections open."));
    for (uint32_t i = 0; i < total->listener_count; i++) {
        for (unsigned state = 0; state < CONNECTION_STATES; state++) {
            put(page, "sallyport_connections");
            label_first(page, "listener", metric_name(NAME_LISTENER, i));
            label(page, "state", connection_states[state]);
            sample_i64(page, total->listeners[i].connections[state]);
        }
    }
}

static void print_ends(struct page *page, const struct metrics *total)
{
    family(page, STR("sallyport_ends_total"), FAMILY_COUNTER, STR("Exchanges by how they ended."));
    for (unsigned cause = 0; cause < END_CAUSE_COUNT; cause++) {
        put(page, "sallyport_ends_total");
        label_first(page, "cause", end_rows[cause].code);
        sample_u64(page, total->ends[cause]);
    }
}

static void print_upstream_requests(struct page *page, const struct metrics *total)
{
    family(page, STR("sallyport_upstream_requests_total"), FAMILY_COUNTER,
           STR("Attempts at upstreams, by the status of the response."));
    for (uint32_t u = 0; u < total->upstream_count; u++) {
        const struct metric_table *table = total->upstreams[u] ? &total->upstreams[u]->requests : NULL;
        for (uint32_t i = 0; table && i < table->capacity; i++) {
            if (!table->series[i].key)
                continue;
            put(page, "sallyport_upstream_requests_total");
            label_first(page, "upstream", metric_name(NAME_UPSTREAM, u));
            put_code(page, metric_key_status(table->series[i].key));
            sample_u64(page, table->series[i].count);
        }
    }
}

static void print_upstream_durations(struct page *page, const struct metrics *total)
{
    struct buf labels = {0};
    struct page label_page = {&labels, page->openmetrics};
    family(page, STR("sallyport_upstream_request_duration_seconds"), FAMILY_HISTOGRAM,
           STR("How long attempts at upstreams took."));
    for (uint32_t u = 0; u < total->upstream_count; u++) {
        if (!total->upstreams[u])
            continue;
        labels.start = labels.end = 0;
        label_first(&label_page, "upstream", metric_name(NAME_UPSTREAM, u));
        put_histogram(page, STR("sallyport_upstream_request_duration_seconds"), buf_str(&labels), bounds_text,
                      total->upstreams[u]->duration);
    }
    buf_free(&labels);
}

// A counter of each upstream with one label more. offset: of the counts, in struct metric_upstream.
static void print_upstream_counts(struct page *page, const struct metrics *total, struct str name,
                                  struct str help, struct str key, const struct str *values, unsigned count,
                                  size_t offset)
{
    family(page, name, FAMILY_COUNTER, help);
    for (uint32_t u = 0; u < total->upstream_count; u++) {
        const uint64_t *counts = (const void *)((const char *)total->upstreams[u] + offset);
        for (unsigned i = 0; total->upstreams[u] && i < count; i++) {
            put_str(page, name);
            label_first(page, "upstream", metric_name(NAME_UPSTREAM, u));
            put_label(page, STR(","), key, values[i]);
            sample_u64(page, counts[i]);
        }
    }
}

static void print_second_tries(struct page *page, const struct metrics *total)
{
    static const struct str reasons[RETRY_REASONS] = {
        STR("connect_failure"), STR("reset"), STR("refused_stream"), STR("status"), STR("response_timeout")};
    static const struct str results[] = {
#define X(id, text) STR(text),
        HEDGE_RESULTS(X)
#undef X
    };
    print_upstream_counts(page, total, STR("sallyport_upstream_retries_total"),
                          STR("Requests tried again, by why."), STR("reason"), reasons, RETRY_REASONS,
                          offsetof(struct metric_upstream, retries));
    print_upstream_counts(page, total, STR("sallyport_upstream_hedges_total"),
                          STR("Second tries beside slow ones, by what became of them."), STR("result"),
                          results, HEDGE_RESULT_COUNT, offsetof(struct metric_upstream, hedges));
}

static void print_upstream_states(struct page *page, const struct metrics *total)
{
    family(page, STR("sallyport_upstream_connections"), FAMILY_GAUGE, STR("Connections to upstreams open."));
    for (uint32_t u = 0; u < total->upstream_count; u++) {
        for (unsigned state = 0; total->upstreams[u] && state < CONNECTION_STATES; state++) {
            put(page, "sallyport_upstream_connections");
            label_first(page, "upstream", metric_name(NAME_UPSTREAM, u));
            label(page, "state", connection_states[state]);
            sample_i64(page, total->upstreams[u]->connections[state]);
        }
    }
    print_second_tries(page, total);
    family(page, STR("sallyport_stale_answers_total"), FAMILY_COUNTER,
           STR("Copies of earlier answers, given while the breaker was open."));
    for (uint32_t u = 0; u < total->upstream_count; u++) {
        if (!total->upstreams[u])
            continue;
        put(page, "sallyport_stale_answers_total");
        label_first(page, "upstream", metric_name(NAME_UPSTREAM, u));
        sample_u64(page, total->upstreams[u]->stale_answers);
    }
}

static void print_places(struct page *page, const struct metrics_process *process, struct str name,
                         struct str help, size_t offset)
{
    family(page, name, FAMILY_GAUGE, help);
    for (size_t i = 0; i < process->requests_count; i++) {
        const struct metrics_requests *requests = &process->requests[i];
        put_str(page, name);
        label_first(page, "upstream", metric_name(NAME_UPSTREAM, requests->upstream));
        sample_u64(page, *(const uint32_t *)((const char *)requests + offset));
    }
}

static void print_requests_of_upstreams(struct page *page, const struct metrics_process *process)
{
    print_places(
        page, process, STR("sallyport_upstream_requests_limit"),
        STR("Requests that an upstream is given at a time: limits.requests, or fewer where it is adaptive."),
        offsetof(struct metrics_requests, limit));
    print_places(page, process, STR("sallyport_upstream_requests_waiting"),
                 STR("Requests that wait in line for an upstream, over all workers."),
                 offsetof(struct metrics_requests, waiting));
}

static int by_endpoint(const void *a, const void *b)
{
    const struct metrics_endpoint *left = a, *right = b;
    return left->endpoint < right->endpoint ? -1 : left->endpoint > right->endpoint;
}

// A host name may stand for several addresses; they share a name and so a series, which is up when any of
// them is, and ejected likewise. In place; returns how many are left.
static size_t one_a_name(struct metrics_endpoint *endpoints, size_t count)
{
    size_t kept = 0;
    if (count)
        qsort(endpoints, count, sizeof *endpoints, by_endpoint);
    for (size_t i = 0; i < count; i++) {
        struct metrics_endpoint *last = kept ? &endpoints[kept - 1] : NULL;
        if (!last || last->endpoint != endpoints[i].endpoint) {
            endpoints[kept++] = endpoints[i];
            continue;
        }
        last->up = last->up || endpoints[i].up;
        last->ejected = last->ejected || endpoints[i].ejected;
    }
    return kept;
}

static void label_endpoint(struct page *page, uint32_t endpoint)
{
    struct str name = metric_name(NAME_ENDPOINT, endpoint);
    size_t nul = str_find(name, 0);
    label_first(page, "upstream", ((struct str){name.p, nul}));
    label(page, "endpoint", nul < name.n ? str_skip(name, nul + 1) : STR(""));
}

static void print_ejections(struct page *page, const struct metrics *total,
                            const struct metrics_endpoint *endpoints, size_t count)
{
    family(page, STR("sallyport_upstream_endpoint_ejected"), FAMILY_GAUGE,
           STR("1 while an endpoint takes no requests because it failed while others served."));
    for (size_t i = 0; i < count; i++) {
        put(page, "sallyport_upstream_endpoint_ejected");
        label_endpoint(page, endpoints[i].endpoint);
        sample_u64(page, endpoints[i].ejected);
    }
    family(page, STR("sallyport_upstream_ejections_total"), FAMILY_COUNTER,
           STR("Ejections of endpoints, by why."));
    for (size_t i = 0; i < count; i++)
        for (unsigned reason = 0; reason < EJECTION_REASONS; reason++) {
            uint32_t id = endpoints[i].endpoint;
            put(page, "sallyport_upstream_ejections_total");
            label_endpoint(page, id);
            label(page, "reason", ejection_reason_name((enum ejection_reason)reason));
            sample_u64(page, id < total->endpoint_count ? total->endpoints[id].ejections[reason] : 0);
        }
}

static void print_endpoints(struct page *page, const struct metrics *total,
                            const struct metrics_endpoint *endpoints, size_t count)
{
    family(page, STR("sallyport_upstream_endpoint_up"), FAMILY_GAUGE,
           STR("1 when active health checks pass or there are none."));
    struct metrics_endpoint *sorted = calloc(count ? count : 1, sizeof *sorted);
    check(sorted);
    if (count)
        memcpy(sorted, endpoints, count * sizeof *sorted);
    count = one_a_name(sorted, count);
    for (size_t i = 0; i < count; i++) {
        put(page, "sallyport_upstream_endpoint_up");
        label_endpoint(page, sorted[i].endpoint);
        sample_u64(page, sorted[i].up);
    }
    print_ejections(page, total, sorted, count);
    free(sorted);
}

static int by_breaker(const void *a, const void *b)
{
    const struct metrics_breaker *left = a, *right = b;
    if (left->upstream != right->upstream)
        return left->upstream < right->upstream ? -1 : 1;
    return left->endpoint < right->endpoint ? -1 : left->endpoint > right->endpoint;
}

static void print_breakers(struct page *page, const struct metrics_process *process)
{
    static const struct str states[BREAKER_STATES] = {
#define X(id, text) {text, sizeof(text) - 1},
        BREAKER_STATE_NAMES(X)
#undef X
    };
    size_t count = process->breaker_count;
    struct metrics_breaker *sorted = calloc(count + 1, sizeof *sorted);
    check(sorted);
    if (count)
        memcpy(sorted, process->breakers, count * sizeof *sorted);
    qsort(sorted, count, sizeof *sorted, by_breaker);
    family(page, STR("sallyport_breaker_state"), FAMILY_GAUGE,
           STR("Circuit breakers: 0 closed, 1 open, 2 half-open, 3 ramping."));
    for (size_t i = 0; i < count; i++) {
        if (i && by_breaker(&sorted[i], &sorted[i - 1]) == 0)
            continue; // names that stand for the same address share an endpoint
        bool whole = sorted[i].endpoint == UINT32_MAX;
        struct str name = whole ? STR_NULL : metric_name(NAME_ENDPOINT, sorted[i].endpoint);
        put(page, "sallyport_breaker_state");
        label_first(page, "upstream", metric_name(NAME_UPSTREAM, sorted[i].upstream));
        label(page, "endpoint", whole ? STR("") : str_skip(name, str_find(name, 0) + 1));
        sample_u64(page, sorted[i].state);
    }
    free(sorted);
    family(page, STR("sallyport_breaker_transitions_total"), FAMILY_COUNTER,
           STR("Times that circuit breakers came to a state."));
    for (size_t i = 0; i < process->breaker_change_count; i++) {
        const struct metrics_breaker_changes *changes = &process->breaker_changes[i];
        for (unsigned state = 0; state < BREAKER_STATES; state++) {
            put(page, "sallyport_breaker_transitions_total");
            label_first(page, "upstream", metric_name(NAME_UPSTREAM, changes->upstream));
            label(page, "to", states[state]);
            sample_u64(page, changes->to[state]);
        }
    }
}

static int by_name_and_end(const void *a, const void *b)
{
    const struct metrics_certificate *left = a, *right = b;
    int order = str_compare(left->name, right->name);
    return order ? order : left->not_after < right->not_after ? -1 : left->not_after > right->not_after;
}

static void print_certificates(struct page *page, const struct metrics_process *process)
{
    static const struct str name = STR("sallyport_tls_certificate_expiry_timestamp_seconds");
    size_t count = process->certificate_count;
    family(page, name, FAMILY_GAUGE, STR("When a certificate in force ends, in seconds since 1970."));
    struct metrics_certificate *sorted = calloc(count + 1, sizeof *sorted);
    check(sorted);
    if (count)
        memcpy(sorted, process->certificates, count * sizeof *sorted);
    qsort(sorted, count, sizeof *sorted, by_name_and_end);
    for (size_t i = 0; i < count; i++) {
        if (i && str_eq(sorted[i].name, sorted[i - 1].name))
            continue;
        put_str(page, name);
        label_first(page, "name", sorted[i].name);
        sample_i64(page, sorted[i].not_after);
    }
    free(sorted);
}

static void print_providers(struct page *page, const struct metrics *total)
{
    static const struct {
        struct str name, help;
    } families[PROVIDER_FAMILY_COUNT] = {
#define X(id, name, help) {{name, sizeof(name) - 1}, {help, sizeof(help) - 1}},
        PROVIDER_FAMILIES(X)
#undef X
    };
    static const struct {
        enum provider_family family;
        struct str result;
    } rows[PROVIDER_COUNTER_COUNT] = {
#define X(id, family, result) {family, {result, sizeof(result) - 1}},
        PROVIDER_COUNTERS(X)
#undef X
    };
    for (unsigned f = 0; f < PROVIDER_FAMILY_COUNT; f++) {
        family(page, families[f].name, FAMILY_COUNTER, families[f].help);
        for (uint32_t p = 0; p < total->provider_count; p++) {
            for (unsigned i = 0; i < PROVIDER_COUNTER_COUNT; i++) {
                if (rows[i].family != f)
                    continue;
                put_str(page, families[f].name);
                label_first(page, "provider", metric_name(NAME_PROVIDER, p));
                label(page, "result", rows[i].result);
                sample_u64(page, total->providers[p].counters[i]);
            }
        }
    }
}

static void print_limits(struct page *page, const struct metrics *total)
{
    static const struct str decisions[LIMIT_DECISION_COUNT] = {
#define X(id, text) {text, sizeof(text) - 1},
        LIMIT_DECISIONS(X)
#undef X
    };
    static const struct str name = {"sallyport_rate_limit_decisions_total", 36};
    family(page, name, FAMILY_COUNTER, STR("Requests that a rate limit was asked about."));
    for (uint32_t l = 0; l < total->limit_count; l++)
        for (unsigned i = 0; i < LIMIT_DECISION_COUNT; i++) {
            put_str(page, name);
            label_first(page, "limit", metric_name(NAME_LIMIT, l));
            label(page, "decision", decisions[i]);
            sample_u64(page, total->limits[l].decisions[i]);
        }
}

static void print_redis(struct page *page, const struct metrics *total)
{
    static const struct str results[REDIS_RESULT_COUNT] = {
#define X(id, text) {text, sizeof(text) - 1},
        REDIS_RESULTS(X)
#undef X
    };
    print_counts(page, STR("sallyport_redis_commands_total"), STR("Commands to Redis, by how they ended."),
                 STR("result"), results, total->redis_results, REDIS_RESULT_COUNT);
    family(page, STR("sallyport_redis_command_duration_seconds"), FAMILY_HISTOGRAM,
           STR("How long replies of Redis took that came in time."));
    put_histogram(page, STR("sallyport_redis_command_duration_seconds"), STR_NULL, redis_bounds_text,
                  &total->redis_duration);
}

static void print_idempotency(struct page *page, const struct metrics *total)
{
    static const struct str results[IDEMPOTENCY_RESULT_COUNT] = {
#define X(id, text) {text, sizeof(text) - 1},
        IDEMPOTENCY_RESULTS(X)
#undef X
    };
    print_counts(
        page, STR("sallyport_idempotency_total"),
        STR("Requests with an Idempotency-Key, or without the one they need, by what became of them."),
        STR("result"), results, total->idempotency, IDEMPOTENCY_RESULT_COUNT);
}

static void print_overload(struct page *page, const struct metrics *total,
                           const struct metrics_process *process)
{
    static const struct str resources[OVERLOAD_RESOURCES] = {
#define X(id, text) {text, sizeof(text) - 1},
        OVERLOAD_RESOURCE_NAMES(X)
#undef X
    };
    static const struct str priorities[PRIORITIES] = {
#define X(id, text) {text, sizeof(text) - 1},
        PRIORITY_NAMES(X)
#undef X
    };
    family(page, STR("sallyport_overload_pressure"), FAMILY_GAUGE,
           STR("How short the gateway is of something, 0 to 3: of workers' time, the worst."));
    for (unsigned i = 0; i < OVERLOAD_RESOURCES; i++) {
        put(page, "sallyport_overload_pressure");
        label_first(page, "resource", resources[i]);
        sample_double(page, process->overload[i]);
    }
    print_counts(page, STR("sallyport_overload_shed_total"),
                 STR("Requests turned away because the gateway was short of something."), STR("priority"),
                 priorities, total->sheds, PRIORITIES);
}

static void print_counters(struct page *page, const struct metrics *total)
{
    static const struct {
        struct str name, help;
    } rows[METRIC_COUNTER_COUNT] = {
#define X(id, name, help) {{name, sizeof(name) - 1}, {help, sizeof(help) - 1}},
        METRIC_COUNTERS(X)
#undef X
    };
    for (unsigned i = 0; i < METRIC_COUNTER_COUNT; i++) {
        plain_sample(page, rows[i].name, FAMILY_COUNTER, rows[i].help);
        put_u64(page, total->counters[i]);
        put(page, "\n");
    }
}

#define plain_u64(page, name, type, help, value) \
    (plain_sample((page), STR(name), (type), STR(help)), put_u64((page), (value)), put((page), "\n"))

static void print_gateway(struct page *page, const struct metrics_process *process)
{
    static const struct str results[] = {STR("success"), STR("failure")};
    print_counts(page, STR("sallyport_config_reloads_total"), STR("Configuration reloads."), STR("result"),
                 results, (const uint64_t[]){process->reloads_ok, process->reloads_failed}, 2);
    plain_u64(page, "sallyport_config_last_reload_success", FAMILY_GAUGE, "1 when the last reload was good.",
              process->last_reload_ok);
    plain_u64(page, "sallyport_worker_restarts_total", FAMILY_COUNTER,
              "Worker processes started again after a crash.", process->worker_restarts);
    plain_u64(page, "sallyport_log_dropped_total", FAMILY_COUNTER,
              "Lines of the process log that stderr had no room for.", log_dropped());
    family(page, STR("sallyport_build_info"), FAMILY_GAUGE, STR("Always 1; the version is the label."));
    put(page, "sallyport_build_info");
    label_first(page, "version", str_of(SALLYPORT_VERSION));
    sample_u64(page, 1);
}

static void print_process(struct page *page, const struct metrics_process *process)
{
    struct process_stats stats = {0};
    plain_sample(page, STR("process_start_time_seconds"), FAMILY_GAUGE, STR("Start, in seconds since 1970."));
    buf_printf(page->out, "%.3f\n", process->start_seconds);
    if (!process_stats_read(&stats))
        return;
    plain_sample(page, STR("process_cpu_seconds_total"), FAMILY_COUNTER, STR("User and system time."));
    buf_printf(page->out, "%.2f\n", stats.cpu_seconds);
    plain_u64(page, "process_resident_memory_bytes", FAMILY_GAUGE, "Resident memory.", stats.resident_bytes);
    plain_u64(page, "process_virtual_memory_bytes", FAMILY_GAUGE, "Virtual memory.", stats.virtual_bytes);
    plain_u64(page, "process_open_fds", FAMILY_GAUGE, "Open descriptors.", stats.open_fds);
    plain_u64(page, "process_max_fds", FAMILY_GAUGE, "Most descriptors allowed.", stats.max_fds);
    plain_u64(page, "process_threads", FAMILY_GAUGE, "Threads.", stats.threads);
}

void metrics_print(const struct metrics *total, const struct metrics_process *process,
                   const struct metrics_endpoint *endpoints, size_t endpoint_count, bool openmetrics,
                   struct buf *out)
{
    struct page page = {out, openmetrics};
    print_requests(&page, total);
    print_durations(&page, total);
    print_bytes(&page, total);
    print_listeners(&page, total);
    print_ends(&page, total);
    print_upstream_requests(&page, total);
    print_upstream_durations(&page, total);
    print_upstream_states(&page, total);
    print_requests_of_upstreams(&page, process);
    print_endpoints(&page, total, endpoints, endpoint_count);
    print_breakers(&page, process);
    print_providers(&page, total);
    print_limits(&page, total);
    print_redis(&page, total);
    print_idempotency(&page, total);
    print_counters(&page, total);
    print_overload(&page, total, process);
    print_gateway(&page, process);
    print_certificates(&page, process);
    print_process(&page, process);
    if (openmetrics)
        put(&page, "# EOF\n");
}
