#include "route/route_table.h"

struct search {
    const struct route_table *table;
    const struct request_head *request;
    struct route_scratch *scratch;
    struct route_match *match;
    const char *path, *end;  // path: behind its first slash
    bool skipped;            // a candidate did not fit by its method
    bool too_hard;           // an expression ran into its limit: stop
    struct allowed *allowed; // not NULL: gather the methods of all that fits but for the method; find none
};

// The methods for Allow.
struct allowed {
    uint32_t known;
    uint32_t other_count;
    struct str others[16];
};

static bool method_fits(const struct candidate *candidate, const struct request_head *request)
{
    if (!(candidate->methods >> request->method & 1))
        return false;
    const struct route_conditions *conditions = candidate->conditions;
    if (request->method != METHOD_OTHER || !conditions || !conditions->method_count)
        return true;
    for (uint32_t i = 0; i < conditions->method_count; i++)
        if (str_eq(conditions->methods[i], request->method_name))
            return true;
    return false;
}

static bool conditions_fit(struct search *search, const struct candidate *candidate)
{
    if (likely(!candidate->conditions))
        return true;
    return route_conditions_fit(candidate->conditions, search->request, search->scratch, &search->too_hard);
}

static void allow(struct allowed *allowed, const struct candidate *candidate)
{
    allowed->known |= candidate->methods;
    const struct route_conditions *conditions = candidate->conditions;
    for (uint32_t i = 0; conditions && i < conditions->method_count; i++) {
        bool seen = false;
        for (uint32_t j = 0; j < allowed->other_count; j++)
            seen |= str_eq(allowed->others[j], conditions->methods[i]);
        if (!seen && allowed->other_count < countof(allowed->others))
            allowed->others[allowed->other_count++] = conditions->methods[i];
    }
}

// The candidates of one path, best first; those of a prefix go on with the next shorter prefix.
static const struct route *first_fit(struct search *search, uint32_t list)
{
    const struct candidate *candidates = search->table->candidates;
    for (const struct candidate *at; list && !search->too_hard; list = at->next) {
        at = &candidates[list];
        if (search->allowed) {
            if (conditions_fit(search, at) && !search->too_hard)
                allow(search->allowed, at);
        } else if (!method_fits(at, search->request)) {
            search->skipped = true;
        } else if (conditions_fit(search, at)) {
            return search->too_hard ? NULL : at->route;
        }
    }
    return NULL;
}

// Goes down by literal segments as far as they lead. True when the whole path was used up.
static bool walk(const struct search *search, uint32_t root, uint32_t *node)
{
    const struct trie *trie = &search->table->trie;
    const char *at = search->path;
    for (*node = root; trie->nodes[*node].has_children;) {
        struct trie_segment segment = trie_segment_at(at, search->end);
        uint32_t child = trie_child(trie, *node, &segment);
        if (!child)
            return false;
        *node = child;
        at += segment.n;
        if (at == search->end)
            return true;
        at++; // the slash
    }
    return false;
}

// Literal before variable at each segment, so that of two templates the one that is literal further left
// wins. Each node is seen at most once, whatever the path.
static const struct route *find_template(struct search *search, uint32_t node, const char *at,
                                         uint32_t captures)
{
    const struct trie *trie = &search->table->trie;
    struct trie_segment segment = trie_segment_at(at, search->end);
    const char *next = at + segment.n;
    uint32_t children[2] = {0, segment.n ? trie->nodes[node].variable : 0};
    if (trie->nodes[node].has_children)
        children[0] = trie_child(trie, node, &segment);
    for (uint32_t i = 0; i < countof(children); i++) {
        const struct trie_node *child = &trie->nodes[children[i]];
        const struct route *route = NULL;
        if (!children[i])
            continue;
        if (i == 1)
            search->match->captures[captures].value = (struct str){at, segment.n};
        search->match->capture_count = captures + i;
        if (next < search->end)
            route = find_template(search, children[i], next + 1, captures + i);
        else if (child->exact)
            route = first_fit(search, child->exact);
        if (route)
            return route;
    }
    return NULL;
}

static void name_captures(const struct search *search, const struct route *route)
{
    const struct str *names = search->table->capture_names[route - search->table->routes];
    for (uint32_t i = 0; i < search->match->capture_count; i++)
        search->match->captures[i].name = names[i];
}

static const struct route *find_regex(struct search *search, uint32_t first)
{
    const struct regex_use *uses = search->table->regex_uses;
    for (uint32_t at = first; at && !search->too_hard; at = uses[at].next) {
        enum regex_result result = route_regex_match(uses[at].regex, search->request->path, search->scratch);
        if (result == REGEX_TOO_HARD)
            search->too_hard = true;
        const struct route *route = result == REGEX_YES ? first_fit(search, uses[at].candidates) : NULL;
        if (route)
            return route;
    }
    return NULL;
}

static const struct route *find_in_group(struct search *search, const struct host_group *group)
{
    const struct trie_node *nodes = search->table->trie.nodes;
    const struct route *route;
    uint32_t node = 0;
    bool whole = group->literals && walk(search, group->literals, &node);
    if (whole && nodes[node].exact && (route = first_fit(search, nodes[node].exact)))
        return route;
    if (group->templates && (route = find_template(search, group->templates, search->path, 0))) {
        name_captures(search, route);
        return route;
    }
    search->match->capture_count = 0;
    if (group->regexes && (route = find_regex(search, group->regexes)))
        return route;
    return node ? first_fit(search, nodes[node].prefix) : NULL;
}

static uint32_t first_group(const struct route_table *table, struct str host)
{
    if (!table->hosts.count)
        return 0;
    if (host.n > 1 && host.p[host.n - 1] == '.') // the root of the DNS, spelled out
        host.n--;
    uint32_t group = route_group_of(table, host, false);
    return group ? group : table->wildcard_dots ? route_wildcard_of(table, host) : 0;
}

static const struct route *find(struct search *search)
{
    const struct host_group *groups = search->table->groups;
    for (uint32_t at = first_group(search->table, search->request->host);; at = groups[at].next) {
        const struct route *route = find_in_group(search, &groups[at]);
        if (route || search->too_hard)
            return search->too_hard ? NULL : route;
        if (at == 0)
            return NULL;
    }
}

static struct str print_allowed(const struct allowed *allowed, struct arena *arena)
{
    struct str names[METHOD_COUNT + countof(allowed->others)];
    uint32_t count = 0;
    size_t bytes = 0;
    for (unsigned method = METHOD_OTHER + 1; method < METHOD_COUNT; method++)
        if (allowed->known >> method & 1)
            names[count++] = http_method_name(method);
    for (uint32_t i = 0; i < allowed->other_count; i++)
        names[count++] = allowed->others[i];
    for (uint32_t i = 0; i < count; i++)
        bytes += names[i].n + 2;
    char *out = arena_alloc(arena, bytes + 1), *at = out;
    for (uint32_t i = 0; i < count; i++) {
        at = mempcpy(at, i ? ", " : "", i ? 2 : 0);
        at = mempcpy(at, names[i].p, names[i].n);
    }
    return str_range(out, at);
}

// Nothing fitted, and at least one candidate was passed over for its method: say which methods would have
// fitted.
static void find_allowed(struct search *search, struct arena *arena)
{
    struct allowed allowed = {0};
    search->allowed = &allowed;
    (void)find(search);
    search->match->capture_count = 0;
    if (search->too_hard || (!allowed.known && !allowed.other_count))
        return;
    search->match->method_mismatch = true;
    search->match->allow = print_allowed(&allowed, arena);
}

// A preflight goes where the request goes that it asks about, if that route answers preflights; else it is a
// request like any other.
static const struct route *find_preflighted(struct search *search, struct str method)
{
    struct request_head asked = *search->request;
    asked.method = http_method_of(method);
    asked.method_name = method;
    struct search other = *search;
    other.request = &asked;
    const struct route *route = find(&other);
    return route && route->settings->has_cors ? route : NULL;
}

void route_find(const struct route_table *table, const struct request_head *request,
                struct route_scratch *scratch, struct arena *arena, struct route_match *match)
{
    match->route = NULL;
    match->method_mismatch = false;
    match->allow = STR_NULL;
    match->capture_count = 0;
    struct str path = request->path;
    if (!path.n || path.p[0] != '/') // "*" and CONNECT's authority are no paths
        return;
    struct search search = {.table = table,
                            .request = request,
                            .scratch = scratch,
                            .match = match,
                            .path = path.p + 1,
                            .end = path.p + path.n};
    struct str preflight = http_preflight_method(request);
    if (unlikely(preflight.n) && (match->route = find_preflighted(&search, preflight)))
        return;
    match->capture_count = 0;
    match->route = find(&search);
    if (unlikely(!match->route && search.skipped && !search.too_hard))
        find_allowed(&search, arena);
}
