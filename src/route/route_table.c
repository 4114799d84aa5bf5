// From settings to the compiled table. Once, on the control thread; what is needed only here lives on the
// heap.
#include "route/route_table.h"

#include "base/map.h"
#include "observe/metrics.h"

#include <stdio.h>
#include <stdlib.h>

// A candidate that waits for its place: which list, and its rank there.
struct pending {
    enum pending_list { LIST_EXACT, LIST_PREFIX, LIST_REGEX } list;
    uint32_t owner; // trie node or regex use
    uint32_t rank;  // index into ranked
};

struct compiler {
    struct regex_source source;
    struct route_table *table;
    struct arena *arena;
    struct candidate *ranked; // by methods, headers, query, file order: the order within one path
    struct route_order *keys; // by file order
    struct host_group *groups;
    uint32_t group_count, group_capacity;
    struct regex_use *regex_uses;
    uint32_t regex_use_count, regex_use_capacity;
    struct route_index regex_index; // regex uses by (group, expression)
    struct pending *pending;
    uint32_t pending_count, pending_capacity;
    struct map regexes; // struct route_regex by text
};

// Room for one more element.
static void *reserve(void *v, uint32_t count, uint32_t *capacity, size_t size)
{
    if (count < *capacity)
        return v;
    check(*capacity < UINT32_MAX / 4);
    *capacity = *capacity ? *capacity * 2 : 16;
    v = realloc(v, size * *capacity);
    check(v);
    return v;
}

static struct route_regex *compile_regex(struct regex_source *source, struct str text, struct err *err)
{
    struct compiler *c = container_of(source, struct compiler, source);
    struct route_regex *regex = map_get(&c->regexes, text);
    if (regex)
        return regex;
    regex = route_regex_new(text, c->arena, err);
    if (!regex)
        return NULL;
    regex->next = c->table->regexes;
    c->table->regexes = regex;
    map_put(&c->regexes, text, regex);
    return regex;
}

// ---- texts ----

struct str route_prefix_text(const struct path_match *path)
{
    struct str text = path->text;
    if (text.n && text.p[text.n - 1] == '/')
        text.n--;
    return text;
}

bool route_is_variable(struct str segment)
{
    return segment.n >= 2 && segment.p[0] == '{' && segment.p[segment.n - 1] == '}';
}

bool route_next_segment(struct str *rest, struct str *segment)
{
    if (!rest->n)
        return false;
    struct str s = rest->p[0] == '/' ? str_skip(*rest, 1) : *rest;
    size_t n = str_find(s, '/');
    *segment = (struct str){s.p, n};
    *rest = str_skip(s, n);
    return true;
}

// ---- hosts ----

static uint32_t count_dots(struct str host)
{
    uint32_t dots = 0;
    for (size_t i = 0; i < host.n; i++)
        dots += host.p[i] == '.';
    return dots;
}

uint32_t route_wildcard_of(const struct route_table *table, struct str host)
{
    uint32_t dots = 0;
    size_t at = host.n;
    while (at > 1 && dots < table->wildcard_dots)
        dots += host.p[--at] == '.';
    for (; at < host.n && dots; at++) { // from the longest on
        if (at == 0 || host.p[at] != '.')
            continue;
        uint32_t group = route_group_of(table, str_skip(host, at), true);
        if (group)
            return group;
    }
    return 0;
}

// Splits "*.example.com" into ".example.com" and its mark. "*" is any host.
static struct str host_text(struct str host, bool *wildcard)
{
    *wildcard = host.n && host.p[0] == '*';
    return *wildcard ? str_skip(host, 1) : host;
}

// The group of a host as configured, made when it is new.
static uint32_t add_group(struct compiler *c, struct str host)
{
    bool wildcard;
    host = host_text(host, &wildcard);
    if (!host.n)
        return 0;
    uint32_t group = route_group_of(c->table, host, wildcard);
    if (group)
        return group;
    c->groups = reserve(c->groups, c->group_count, &c->group_capacity, sizeof *c->groups);
    c->groups[c->group_count] = (struct host_group){.host = host, .wildcard = wildcard};
    c->table->groups = c->groups;
    route_index_add(&c->table->hosts, route_host_hash(host, wildcard), c->group_count);
    if (wildcard && count_dots(host) > c->table->wildcard_dots)
        c->table->wildcard_dots = count_dots(host);
    return c->group_count++;
}

static void link_groups(struct compiler *c)
{
    for (uint32_t i = 1; i < c->group_count; i++)
        c->groups[i].next = route_wildcard_of(c->table, c->groups[i].host);
}

// ---- paths ----

static void add_pending(struct compiler *c, enum pending_list list, uint32_t owner, uint32_t rank)
{
    c->pending = reserve(c->pending, c->pending_count, &c->pending_capacity, sizeof *c->pending);
    c->pending[c->pending_count++] = (struct pending){list, owner, rank};
}

// The node for a path, made when it is new. Of a template, {name} segments are variables.
static uint32_t add_path(struct trie *trie, uint32_t root, struct str path, bool template)
{
    uint32_t node = root;
    for (struct str segment; route_next_segment(&path, &segment);) {
        if (template && route_is_variable(segment)) {
            node = trie_add_variable(trie, node);
            continue;
        }
        struct trie_segment step = trie_segment_at(segment.p, segment.p + segment.n);
        node = trie_add_child(trie, node, &step);
    }
    return node;
}

static uint32_t add_regex(struct compiler *c, uint32_t group, const struct route_regex *regex, uint32_t route)
{
    uint32_t hash = (uint32_t)trie_mix((uint64_t)(uintptr_t)regex, group), id;
    for (uint32_t at = 0; (id = route_index_next(&c->regex_index, hash, &at));)
        if (c->regex_uses[id].regex == regex && c->regex_uses[id].group == group)
            return id;
    c->regex_uses = reserve(c->regex_uses, c->regex_use_count, &c->regex_use_capacity, sizeof *c->regex_uses);
    id = c->regex_use_count++;
    c->regex_uses[id] = (struct regex_use){.regex = regex, .group = group, .first_route = route};
    route_index_add(&c->regex_index, hash, id);
    struct host_group *host = &c->groups[group];
    if (host->last_regex)
        c->regex_uses[host->last_regex].next = id;
    else
        host->regexes = id;
    host->last_regex = id;
    return id;
}

// Puts a route at its path under one host. Returns the order of its expression there, for PATH_REGEX.
static uint32_t add_to_group(struct compiler *c, uint32_t group, uint32_t index)
{
    struct route_table *table = c->table;
    uint32_t rank = c->keys[index].rank;
    const struct path_match *path = &table->routes[index].settings->match.path;
    struct host_group *host = &c->groups[group];
    if (path->kind == PATH_REGEX) {
        uint32_t use = add_regex(c, group, map_get(&c->regexes, path->text), index);
        add_pending(c, LIST_REGEX, use, rank);
        return c->regex_uses[use].first_route;
    }
    uint32_t *root = path->kind == PATH_TEMPLATE ? &host->templates : &host->literals;
    if (!*root)
        *root = trie_root(&table->trie);
    struct str text = path->kind == PATH_PREFIX ? route_prefix_text(path) : path->text;
    uint32_t node = add_path(&table->trie, *root, text, path->kind == PATH_TEMPLATE);
    add_pending(c, path->kind == PATH_PREFIX ? LIST_PREFIX : LIST_EXACT, node, rank);
    return 0;
}

static int compare_pending(const void *left, const void *right)
{
    const struct pending *a = left, *b = right;
    if (a->list != b->list)
        return a->list < b->list ? -1 : 1;
    if (a->owner != b->owner)
        return a->owner < b->owner ? -1 : 1;
    return a->rank < b->rank ? -1 : a->rank > b->rank;
}

// What a node without a prefix of its own falls back to, and where the candidates of one that has lead on to.
static void link_prefixes(const struct trie *trie, struct candidate *candidates)
{
    for (uint32_t i = 1; i < trie->count; i++) { // parents come before their children
        struct trie_node *node = &trie->nodes[i];
        uint32_t shorter = trie->nodes[node->parent].prefix, *link = &node->prefix;
        while (*link)
            link = &candidates[*link].next;
        *link = shorter;
    }
}

// Lays the candidates of each path side by side.
static void place_candidates(struct compiler *c)
{
    struct candidate *out = arena_alloc(c->arena, sizeof *out * ((size_t)c->pending_count + 1));
    uint32_t count = 1;
    out[0] = (struct candidate){0};
    if (c->pending_count) // qsort takes no NULL
        qsort(c->pending, c->pending_count, sizeof *c->pending, compare_pending);
    for (uint32_t i = 0; i < c->pending_count; i++) {
        const struct pending *at = &c->pending[i], *before = i ? at - 1 : NULL;
        bool same_list = before && before->list == at->list && before->owner == at->owner;
        if (same_list && before->rank == at->rank)
            continue; // the same host twice in one route
        if (same_list)
            out[count - 1].next = count;
        else if (at->list == LIST_REGEX)
            c->regex_uses[at->owner].candidates = count;
        else if (at->list == LIST_PREFIX)
            c->table->trie.nodes[at->owner].prefix = count;
        else
            c->table->trie.nodes[at->owner].exact = count;
        out[count++] = c->ranked[at->rank];
    }
    link_prefixes(&c->table->trie, out);
    c->table->candidates = out;
}

// ---- routes ----

#define refuse(...) (err_set(__VA_ARGS__), false)

static bool fill_split(struct route *route, struct arena *arena, struct route_names *names, struct err *err)
{
    const struct split_target *targets = route->settings->split.v;
    uint32_t count = route->settings->split.count;
    struct route_split *split = arena_array(arena, struct route_split, count);
    uint64_t total = 0;
    for (uint32_t i = 0; i < count; i++) {
        if (targets[i].weight < 0 || targets[i].weight > UINT32_MAX)
            return refuse(err, ERR_LIMIT, NULL, "a weight is beyond 4294967295");
        split[i].weight = (uint32_t)targets[i].weight;
        split[i].upstream = names->upstream_of(names, targets[i].upstream);
        if (!split[i].upstream)
            return refuse(err, ERR_NOT_FOUND, NULL, "no upstream \"%.*s\"", STR_ARG(targets[i].upstream));
        total += split[i].weight;
    }
    if (total == 0 || total > UINT32_MAX)
        return refuse(err, ERR_INVALID, NULL, "the weights of a split must add up to 1 to 4294967295");
    route->action = ROUTE_SPLIT;
    route->split = split;
    route->split_count = count;
    route->split_total = (uint32_t)total;
    return true;
}

static bool fill_action(struct route *route, struct arena *arena, struct route_names *names, struct err *err)
{
    const struct route_settings *settings = route->settings;
    if (settings->split.count)
        return fill_split(route, arena, names, err);
    if (settings->has_redirect || settings->has_respond) {
        route->action = settings->has_redirect ? ROUTE_REDIRECT : ROUTE_RESPOND;
        return true;
    }
    route->action = ROUTE_FORWARD;
    route->upstream = names->upstream_of(names, settings->upstream);
    return route->upstream ||
           refuse(err, ERR_NOT_FOUND, NULL, "no upstream \"%.*s\"", STR_ARG(settings->upstream));
}

static bool check_path(const struct path_match *path, struct err *err)
{
    if (path->kind == PATH_REGEX || (path->kind == PATH_PREFIX && !path->text.n))
        return true;
    if (!path->text.n || path->text.p[0] != '/')
        return refuse(err, ERR_INVALID, NULL, "a path begins with /");
    uint32_t segments = 0, captures = 0;
    struct str rest = path->text;
    for (struct str segment; route_next_segment(&rest, &segment); segments++) {
        if (segment.n > TRIE_LABEL_BYTES)
            return refuse(err, ERR_LIMIT, NULL, "a segment of more than %d bytes", TRIE_LABEL_BYTES);
        captures += route_is_variable(segment);
    }
    if (path->kind != PATH_TEMPLATE)
        return true;
    if (captures > ROUTE_CAPTURES)
        return refuse(err, ERR_LIMIT, NULL, "more than %d names in a template", ROUTE_CAPTURES);
    return segments <= TEMPLATE_SEGMENTS ||
           refuse(err, ERR_LIMIT, NULL, "more than %d segments in a template", TEMPLATE_SEGMENTS);
}

static const struct str *name_captures(const struct path_match *path, struct arena *arena)
{
    struct str names[ROUTE_CAPTURES], rest = path->text;
    uint32_t count = 0;
    for (struct str segment; route_next_segment(&rest, &segment);)
        if (route_is_variable(segment))
            names[count++] = (struct str){segment.p + 1, segment.n - 2};
    struct str *kept = arena_array(arena, struct str, count + 1);
    if (count)
        memcpy(kept, names, sizeof *names * count);
    return kept;
}

static bool fill_route(struct compiler *c, uint32_t index, const struct route_settings *settings,
                       struct route_names *names, struct err *err)
{
    struct route *route = &c->table->routes[index];
    *route = (struct route){.settings = settings,
                            .name = settings->name,
                            .metric_id = metric_name_id(NAME_ROUTE, settings->name)};
    if (settings->has_retries)
        route->retries = &settings->retries;
    route_guards_compile(route, c->arena);
    c->ranked[index].route = route;
    const struct path_match *path = &settings->match.path;
    bool ok = check_path(path, err) &&
              (path->kind != PATH_REGEX || compile_regex(&c->source, path->text, err)) &&
              fill_action(route, c->arena, names, err) &&
              route_conditions_compile(&settings->match, c->arena, &c->source, &c->ranked[index], err);
    if (ok && path->kind == PATH_TEMPLATE)
        c->table->capture_names[index] = name_captures(path, c->arena);
    if (!ok && err)
        snprintf(err->where, sizeof err->where, "route %.*s", STR_ARG(settings->name));
    return ok;
}

// The order among routes of the same host and path.
static int compare_rank(const void *left, const void *right)
{
    const struct candidate *a = left, *b = right;
    const struct match_settings *x = &a->route->settings->match, *y = &b->route->settings->match;
    if ((x->methods.count > 0) != (y->methods.count > 0))
        return x->methods.count ? -1 : 1;
    if (x->headers.count != y->headers.count)
        return x->headers.count > y->headers.count ? -1 : 1;
    if (x->query.count != y->query.count)
        return x->query.count > y->query.count ? -1 : 1;
    return a->route < b->route ? -1 : a->route > b->route;
}

static bool more_specific(const struct host_group *a, const struct host_group *b)
{
    if ((a->host.n > 0) != (b->host.n > 0))
        return a->host.n > 0;
    return a->wildcard != b->wildcard ? b->wildcard : a->host.n > b->host.n;
}

// Puts a route at its path under each of its hosts.
static void add_route(struct compiler *c, uint32_t index)
{
    static const struct str any = {"*", 1};
    struct route_order *key = &c->keys[index];
    const struct match_settings *match = &c->table->routes[index].settings->match;
    const struct str *hosts = match->hosts.count ? match->hosts.v : &any;
    uint32_t count = match->hosts.count ? match->hosts.count : 1, best = UINT32_MAX;
    for (uint32_t i = 0; i < count; i++) {
        uint32_t group = add_group(c, hosts[i]), regex_order = add_to_group(c, group, index);
        if (best != UINT32_MAX && !more_specific(&c->groups[group], &c->groups[best]))
            continue;
        best = group;
        key->host = c->groups[group].host;
        key->wildcard = c->groups[group].wildcard;
        key->regex_order = regex_order;
    }
}

static void rank_routes(struct compiler *c)
{
    qsort(c->ranked, c->table->route_count, sizeof *c->ranked, compare_rank);
    for (uint32_t rank = 0; rank < c->table->route_count; rank++) {
        uint32_t index = (uint32_t)(c->ranked[rank].route - c->table->routes);
        c->keys[index].route = c->ranked[rank].route;
        c->keys[index].rank = rank;
    }
}

static void *arena_move(struct arena *arena, const void *v, size_t bytes)
{
    return memcpy(arena_alloc(arena, bytes), v, bytes);
}

static bool compile(struct compiler *c, const struct config_list *list, struct route_names *names,
                    struct err *err)
{
    struct route_table *table = c->table;
    const struct route_settings *settings = list->v;
    for (uint32_t i = 0; i < list->count; i++)
        if (!fill_route(c, i, &settings[i], names, err))
            return false;
    rank_routes(c);
    for (uint32_t i = 0; i < list->count; i++)
        add_route(c, i);
    link_groups(c);
    place_candidates(c);
    route_order(c->keys, table->route_count, table->order);
    trie_seal(&table->trie, c->arena);
    route_index_seal(&table->hosts, c->arena);
    table->groups = arena_move(c->arena, c->groups, sizeof *c->groups * c->group_count);
    table->regex_uses = arena_move(c->arena, c->regex_uses, sizeof *c->regex_uses * c->regex_use_count);
    return true;
}

static void compiler_init(struct compiler *c, uint32_t route_count, struct arena *arena)
{
    struct route_table *table = arena_new(arena, struct route_table);
    table->routes = arena_array(arena, struct route, route_count);
    table->order = arena_array(arena, uint32_t, route_count);
    table->capture_names = arena_array(arena, const struct str *, route_count);
    table->route_count = route_count;
    *c = (struct compiler){.source = {compile_regex}, .table = table, .arena = arena};
    c->ranked = calloc((size_t)route_count + 1, sizeof *c->ranked);
    c->keys = calloc((size_t)route_count + 1, sizeof *c->keys);
    check(c->ranked && c->keys);
    // Number 0 of both: the group of any host, which is always there, and no expression.
    c->groups = reserve(NULL, 0, &c->group_capacity, sizeof *c->groups);
    c->groups[c->group_count++] = (struct host_group){0};
    c->regex_uses = reserve(NULL, 0, &c->regex_use_capacity, sizeof *c->regex_uses);
    c->regex_uses[c->regex_use_count++] = (struct regex_use){0};
}

static void compiler_fini(struct compiler *c)
{
    free(c->ranked);
    free(c->keys);
    free(c->groups);
    free(c->regex_uses);
    free(c->pending);
    route_index_fini(&c->regex_index);
    map_fini(&c->regexes);
}

struct route_table *route_table_new(const struct config_list *routes, struct arena *arena,
                                    struct route_names *names, struct err *err)
{
    struct compiler c;
    compiler_init(&c, routes->count, arena);
    struct route_table *table = c.table;
    if (!compile(&c, routes, names, err)) {
        trie_fini(&table->trie);
        route_index_fini(&table->hosts);
        route_table_fini(table);
        table = NULL;
    }
    compiler_fini(&c);
    return table;
}

void route_table_fini(struct route_table *table)
{
    route_regex_free_all(table->regexes);
    table->regexes = NULL;
}

uint32_t route_table_count(const struct route_table *table)
{
    return table->route_count;
}

const struct route *route_table_at(const struct route_table *table, uint32_t index)
{
    check(index < table->route_count);
    return &table->routes[table->order[index]];
}
