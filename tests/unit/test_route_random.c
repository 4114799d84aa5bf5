// Random tables and requests, against a matcher that simply looks at every route. It shares nothing with the
// compiled table but the settings: paths by string comparison, expressions by POSIX regexec.
#include "test_route_fixture.h"

#include <regex.h>

enum { TABLES = 400, ROUTES_MAX = 40, REQUESTS = 200 };

static const char *const hosts[] = {"a.com", "b.a.com",   "c.b.a.com", "x.org",     "*.a.com",
                                    "*.com", "*.b.a.com", "*.org",     "*.y.x.org", "long-host-name.a.com"};
static const char *const asked_hosts[] = {"a.com",     "b.a.com", "c.b.a.com", "d.c.b.a.com",
                                          "com",       "x.org",   "q.y.x.org", "z.org",
                                          "other.net", "",        "xa.com",    "long-host-name.a.com"};
static const char *const segments[] = {
    "a", "b", "ab", "", "exactly8", "sixteen-bytes-xx", "seventeen-bytes-x"};
static const char *const expressions[] = {"/a.*", "/[ab]/.*", "/.*", "/(a|b)+", ".*/b", "/ab/?"};
static const char *const methods[] = {"GET", "HEAD", "POST", "PURGE"};
static const char *const asked_methods[] = {"GET", "HEAD", "POST", "PURGE", "PUT", "BREW"};
static const char *const conditions[] = {"x=1", "x=2", "x", "y~[0-9]+", "te=trailers"};
static const char *const asked_headers[] = {"X: 1", "x: 2", "Y: 12", "Y: z", "TE: trailers", "x-y: 1"};
static const char *const parameters[] = {"p=1", "p=a b", "q", "q~[a-c]+"};
static const char *const asked_parameters[] = {"p=1", "p=a+b", "p=a%20b", "q=abc", "q=x", "r", "q"};

static struct rand rand_state;

static bool chance(unsigned percent)
{
    return rand_below(&rand_state, 100) < percent;
}

#define PICK(list) list[rand_below(&rand_state, countof(list))]

static void append(char *out, size_t size, const char *separator, const char *word)
{
    size_t n = strlen(out);
    snprintf(out + n, size - n, "%s%s", n ? separator : "", word);
}

// A path of up to four segments; some are names when a template is asked for.
static void random_path(char *out, size_t size, bool template)
{
    unsigned count = 1 + rand_below(&rand_state, 4);
    out[0] = 0;
    for (unsigned i = 0; i < count; i++) {
        char name[8];
        snprintf(name, sizeof name, "{v%u}", rand_below(&rand_state, 9));
        size_t n = strlen(out);
        snprintf(out + n, size - n, "/%s", template && chance(40) ? name : PICK(segments));
    }
}

static void random_spec(struct arena *arena, struct route_settings *settings)
{
    char host_text[128] = "", path[128], method_text[64] = "", header_text[64] = "", query_text[64] = "";
    for (unsigned i = rand_below(&rand_state, 4); i > 0; i--)
        append(host_text, sizeof host_text, " ", PICK(hosts));
    random_path(path + 1, sizeof path - 1, false);
    unsigned kind = rand_below(&rand_state, 10);
    path[0] = kind < 3 ? '=' : ' ';
    if (kind >= 3 && kind < 5)
        snprintf(path, sizeof path, "~%s", PICK(expressions));
    else if (kind >= 5 && kind < 7)
        random_path(path + 1, sizeof path - 1, true);
    if (chance(50))
        for (unsigned i = rand_below(&rand_state, 3); i > 0; i--)
            append(method_text, sizeof method_text, " ", PICK(methods));
    if (chance(30))
        for (unsigned i = 1 + rand_below(&rand_state, 2); i > 0; i--)
            append(header_text, sizeof header_text, " ", PICK(conditions));
    if (chance(20))
        append(query_text, sizeof query_text, " ", PICK(parameters));
    const char *kept = arena_copy(arena, str_of(path[0] == ' ' ? path + 1 : path)).p;
    struct route_spec spec = {"r",
                              arena_copy(arena, str_of(host_text)).p,
                              kept,
                              arena_copy(arena, str_of(method_text)).p,
                              arena_copy(arena, str_of(header_text)).p,
                              arena_copy(arena, str_of(query_text)).p};
    spec_settings(arena, &spec, settings);
    for (uint32_t i = 0; i < settings->match.query.count; i++)
        if (settings->match.query.v[i].kind == VALUE_EXACT && chance(50))
            settings->match.query.v[i].text = STR("a b"); // a space cannot be said in a spec
}

// ---- the plain matcher ----

static bool regex_whole(struct str expression, struct str value)
{
    char pattern[128], text[256];
    regex_t regex;
    snprintf(pattern, sizeof pattern, "^(%.*s)$", STR_ARG(expression));
    snprintf(text, sizeof text, "%.*s", STR_ARG(value));
    assert_int_equal(regcomp(&regex, pattern, REG_EXTENDED | REG_NOSUB), 0);
    bool matches = regexec(&regex, text, 0, NULL, 0) == 0;
    regfree(&regex);
    return matches;
}

static bool value_fits(const struct value_match *match, struct str value)
{
    return match->kind == VALUE_PRESENT ||
           (match->kind == VALUE_EXACT ? str_eq(match->text, value) : regex_whole(match->text, value));
}

static bool headers_fit(const struct value_matches *matches, const struct request_head *request)
{
    for (uint32_t i = 0; i < matches->count; i++) {
        bool fits = false;
        for (uint32_t j = 0; j < request->headers.count; j++)
            fits |= str_eq_fold(request->headers.v[j].name, matches->v[i].name) &&
                    value_fits(&matches->v[i], request->headers.v[j].value);
        if (!fits)
            return false;
    }
    return true;
}

// asked_parameters hold no other escape than these two.
static struct str plain_decode(struct arena *arena, struct str value)
{
    char *out = arena_alloc(arena, value.n + 1);
    size_t n = 0;
    for (size_t i = 0; i < value.n; i++) {
        bool escape = value.n - i >= 3 && memcmp(value.p + i, "%20", 3) == 0;
        out[n++] = escape || value.p[i] == '+' ? ' ' : value.p[i];
        i += escape ? 2 : 0;
    }
    return (struct str){out, n};
}

static bool query_fits(const struct value_matches *matches, const struct request_head *request,
                       struct arena *arena)
{
    for (uint32_t i = 0; i < matches->count; i++) {
        bool seen = false, fits = false;
        for (struct str rest = request->query; rest.n && !seen;) {
            size_t end = str_find(rest, '&');
            struct str pair = {rest.p, end};
            size_t equals = str_find(pair, '=');
            rest = str_skip(rest, end < rest.n ? end + 1 : end);
            if (!str_eq((struct str){pair.p, equals}, matches->v[i].name))
                continue;
            seen = true;
            struct str value = str_skip(pair, equals < pair.n ? equals + 1 : equals);
            fits = value_fits(&matches->v[i], plain_decode(arena, value));
        }
        if (!fits)
            return false;
    }
    return true;
}

static bool template_fits(struct str template, struct str path, struct str_pair *captures, uint32_t *count)
{
    *count = 0;
    while (template.n && path.n) {
        struct str t = str_skip(template, 1), p = str_skip(path, 1);
        size_t tn = str_find(t, '/'), pn = str_find(p, '/');
        struct str name = {t.p, tn}, value = {p.p, pn};
        template = str_skip(t, tn);
        path = str_skip(p, pn);
        if (tn && name.p[0] == '{') {
            if (!pn)
                return false;
            captures[(*count)++] = (struct str_pair){{name.p + 1, tn - 2}, value};
        } else if (!str_eq(name, value)) {
            return false;
        }
    }
    return !template.n && !path.n;
}

static bool path_fits(const struct path_match *match, struct str path, struct str_pair *captures,
                      uint32_t *count)
{
    struct str text = match->text;
    *count = 0;
    switch (match->kind) {
    case PATH_EXACT: return str_eq(text, path);
    case PATH_REGEX: return regex_whole(text, path);
    case PATH_TEMPLATE: return template_fits(text, path, captures, count);
    case PATH_PREFIX: break;
    }
    if (text.p[text.n - 1] == '/')
        text.n--;
    return str_starts(path, text) && (path.n == text.n || path.p[text.n] == '/');
}

// 0: no; else higher for the more specific.
static unsigned host_rank(struct str pattern, struct str host)
{
    if (!pattern.n)
        return 1;
    if (pattern.p[0] != '*')
        return str_eq(pattern, host) ? 1000 : 0;
    struct str suffix = str_skip(pattern, 1);
    return host.n > suffix.n && str_ends(host, suffix) ? 1 + (unsigned)suffix.n : 0;
}

struct plain_key { // of a route under one of its hosts
    uint32_t route;
    unsigned host_rank, kind_rank;
    struct str host, text;
    size_t first_use; // of the expression for that host pattern
};

static bool has_host(const struct route_settings *settings, struct str host)
{
    for (uint32_t i = 0; i < settings->match.hosts.count; i++)
        if (str_eq(settings->match.hosts.v[i], host))
            return true;
    return !host.n && settings->match.hosts.count == 0;
}

// Negative when a comes first.
static long compare_plain(const struct fixture *f, const struct plain_key *a, const struct plain_key *b)
{
    const struct match_settings *x = &f->settings[a->route].match, *y = &f->settings[b->route].match;
    if (a->host_rank != b->host_rank)
        return (long)b->host_rank - (long)a->host_rank;
    if (a->kind_rank != b->kind_rank)
        return (long)a->kind_rank - (long)b->kind_rank;
    if (x->path.kind == PATH_PREFIX) {
        size_t xn = a->text.n - (a->text.p[a->text.n - 1] == '/'),
               yn = b->text.n - (b->text.p[b->text.n - 1] == '/');
        if (xn != yn)
            return (long)yn - (long)xn;
    }
    if (x->path.kind == PATH_REGEX && a->first_use != b->first_use)
        return (long)a->first_use - (long)b->first_use;
    if (x->path.kind == PATH_TEMPLATE) { // both fit the same path: walk them side by side
        struct str s = a->text, t = b->text, s1, t1;
        while (s.n) {
            s1 = str_skip(s, 1);
            t1 = str_skip(t, 1);
            size_t sn = str_find(s1, '/'), tn = str_find(t1, '/');
            bool sv = sn && s1.p[0] == '{', tv = tn && t1.p[0] == '{';
            if (sv != tv)
                return sv ? 1 : -1;
            s = str_skip(s1, sn);
            t = str_skip(t1, tn);
        }
    }
    if ((x->methods.count > 0) != (y->methods.count > 0))
        return x->methods.count ? -1 : 1;
    if (x->headers.count != y->headers.count)
        return (long)y->headers.count - (long)x->headers.count;
    if (x->query.count != y->query.count)
        return (long)y->query.count - (long)x->query.count;
    return (long)a->route - (long)b->route;
}

static size_t first_use(const struct fixture *f, struct str expression, struct str host)
{
    for (uint32_t i = 0; i < f->count; i++)
        if (f->settings[i].match.path.kind == PATH_REGEX &&
            str_eq(f->settings[i].match.path.text, expression) && has_host(&f->settings[i], host))
            return i;
    return SIZE_MAX;
}

static bool method_fits(const struct str_list *list, struct str method)
{
    for (uint32_t i = 0; i < list->count; i++)
        if (str_eq(list->v[i], method))
            return true;
    return list->count == 0;
}

struct plain_answer {
    bool found;
    struct plain_key best;
    unsigned allowed; // bits of methods[]
    struct str_pair captures[ROUTE_CAPTURES];
    uint32_t capture_count;
};

static void consider(struct fixture *f, uint32_t index, struct str host, struct plain_answer *answer)
{
    static const unsigned kind_ranks[] = {
        [PATH_EXACT] = 0, [PATH_TEMPLATE] = 1, [PATH_REGEX] = 2, [PATH_PREFIX] = 3};
    const struct match_settings *match = &f->settings[index].match;
    struct plain_key key = {.route = index,
                            .host_rank = host_rank(host, f->request.host),
                            .host = host,
                            .kind_rank = kind_ranks[match->path.kind],
                            .text = match->path.text};
    struct str_pair captures[ROUTE_CAPTURES];
    uint32_t count;
    if (!key.host_rank || !path_fits(&match->path, f->request.path, captures, &count) ||
        !headers_fit(&match->headers, &f->request) ||
        !query_fits(&match->query, &f->request, &f->request_arena))
        return;
    if (!method_fits(&match->methods, f->request.method_name)) {
        for (size_t i = 0; i < countof(methods); i++)
            answer->allowed |= (unsigned)method_fits(&match->methods, str_of(methods[i])) << i;
        return;
    }
    key.first_use = match->path.kind == PATH_REGEX ? first_use(f, match->path.text, host) : 0;
    if (answer->found && compare_plain(f, &answer->best, &key) <= 0)
        return;
    answer->found = true;
    answer->best = key;
    answer->capture_count = count;
    memcpy(answer->captures, captures, sizeof captures[0] * count);
}

static struct plain_answer find_plainly(struct fixture *f)
{
    struct plain_answer answer = {0};
    for (uint32_t i = 0; i < f->count; i++) {
        const struct str_list *list = &f->settings[i].match.hosts;
        for (uint32_t j = 0; j < list->count; j++)
            consider(f, i, list->v[j], &answer);
        if (!list->count)
            consider(f, i, STR(""), &answer);
    }
    return answer;
}

// ---- both ----

static void random_request(struct fixture *f)
{
    char path[128], query[128] = "", line[512], header_text[128] = "";
    random_path(path, sizeof path, false);
    for (unsigned i = rand_below(&rand_state, 3); i > 0; i--)
        append(query, sizeof query, "&", PICK(asked_parameters));
    for (unsigned i = rand_below(&rand_state, 4); i > 0; i--)
        append(header_text, sizeof header_text, "|", PICK(asked_headers));
    snprintf(line, sizeof line, "%s %s %s%s%s", PICK(asked_methods), PICK(asked_hosts), path,
             query[0] ? "?" : "", query);
    fixture_request(f, line, header_text);
}

static struct str plain_allow(const struct plain_answer *answer, struct arena *arena)
{
    char text[128] = "";
    for (size_t i = 0; i < countof(methods); i++)
        if (answer->allowed >> i & 1)
            append(text, sizeof text, ", ", methods[i]);
    return arena_copy(arena, str_of(text));
}

static void compare_one(struct fixture *f, unsigned *found, unsigned *mismatched)
{
    random_request(f);
    struct plain_answer want = find_plainly(f);
    const struct route_match *got = &f->match;
    route_find(f->table, &f->request, f->scratch, &f->request_arena, &f->match);
    uint32_t index = got->route ? (uint32_t)(got->route->settings - f->settings) : UINT32_MAX;
    if (index != (want.found ? want.best.route : UINT32_MAX))
        fail_msg("%.*s %.*s %.*s?%.*s: got route %d, want %d", STR_ARG(f->request.method_name),
                 STR_ARG(f->request.host), STR_ARG(f->request.path), STR_ARG(f->request.query), (int)index,
                 want.found ? (int)want.best.route : -1);
    assert_int_equal(got->method_mismatch, !want.found && want.allowed);
    if (got->method_mismatch)
        assert_true(str_eq(got->allow, plain_allow(&want, &f->request_arena)));
    assert_int_equal(got->capture_count, want.found ? want.capture_count : 0);
    for (uint32_t i = 0; i < got->capture_count; i++) {
        assert_true(str_eq(got->captures[i].name, want.captures[i].name));
        assert_true(str_eq(got->captures[i].value, want.captures[i].value));
    }
    *found += want.found;
    *mismatched += got->method_mismatch;
}

static void test_agrees_with_plain_matcher(void **state)
{
    (void)state;
    unsigned found = 0, mismatched = 0;
    for (unsigned seed = 1; seed <= TABLES; seed++) {
        rand_init_seed(&rand_state, seed);
        struct fixture f;
        fixture_init(&f);
        f.count = 1 + rand_below(&rand_state, ROUTES_MAX);
        f.settings = arena_array(&f.arena, struct route_settings, f.count);
        for (uint32_t i = 0; i < f.count; i++)
            random_spec(&f.arena, &f.settings[i]);
        struct err err = {0};
        if (!fixture_compile(&f, &err))
            fail_msg("seed %u: %s", seed, err.what);
        for (unsigned i = 0; i < REQUESTS; i++)
            compare_one(&f, &found, &mismatched);
        fixture_close(&f);
    }
    // The vocabulary is small enough that each outcome is common.
    assert_in_range(found, TABLES * REQUESTS / 5, TABLES * REQUESTS * 9 / 10);
    assert_in_range(mismatched, TABLES * REQUESTS / 200, TABLES * REQUESTS / 2);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_agrees_with_plain_matcher)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
