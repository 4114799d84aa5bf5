// The matching order of all routes, for people: by host, then as route_find would try them.
#include "route/route_table.h"

#include <stdlib.h>

static int compare_u32(uint32_t a, uint32_t b)
{
    return a < b ? -1 : a > b;
}

// Exact hosts, then wildcards from the longest on, then any host.
static int compare_hosts(const struct route_order *a, const struct route_order *b)
{
    if ((a->host.n > 0) != (b->host.n > 0))
        return a->host.n ? -1 : 1;
    if (a->wildcard != b->wildcard)
        return a->wildcard ? 1 : -1;
    if (a->wildcard && a->host.n != b->host.n)
        return a->host.n > b->host.n ? -1 : 1;
    return str_compare(a->host, b->host);
}

static int compare_templates(struct str a, struct str b)
{
    struct str x, y;
    for (;;) {
        bool more_a = route_next_segment(&a, &x), more_b = route_next_segment(&b, &y);
        if (!more_a || !more_b)
            return (int)more_a - (int)more_b;
        bool variable_a = route_is_variable(x), variable_b = route_is_variable(y);
        if (variable_a != variable_b)
            return variable_a ? 1 : -1;
        int order = variable_a ? 0 : str_compare(x, y);
        if (order)
            return order;
    }
}

static int compare_prefixes(struct str a, struct str b)
{
    return a.n != b.n ? (a.n > b.n ? -1 : 1) : str_compare(a, b);
}

static int compare_paths(const struct route_order *a, const struct route_order *b)
{
    static const uint32_t ranks[] = {
        [PATH_EXACT] = 0, [PATH_TEMPLATE] = 1, [PATH_REGEX] = 2, [PATH_PREFIX] = 3};
    const struct path_match *x = &a->route->settings->match.path, *y = &b->route->settings->match.path;
    if (x->kind != y->kind)
        return compare_u32(ranks[x->kind], ranks[y->kind]);
    switch (x->kind) {
    case PATH_EXACT: return str_compare(x->text, y->text);
    case PATH_TEMPLATE: return compare_templates(x->text, y->text);
    case PATH_REGEX: return compare_u32(a->regex_order, b->regex_order);
    case PATH_PREFIX: return compare_prefixes(route_prefix_text(x), route_prefix_text(y));
    }
    return 0;
}

static int compare_keys(const void *left, const void *right, void *keys)
{
    const struct route_order *a = (const struct route_order *)keys + *(const uint32_t *)left,
                             *b = (const struct route_order *)keys + *(const uint32_t *)right;
    int order = compare_hosts(a, b);
    if (!order)
        order = compare_paths(a, b);
    return order ? order : compare_u32(a->rank, b->rank);
}

void route_order(const struct route_order *keys, uint32_t count, uint32_t *order)
{
    for (uint32_t i = 0; i < count; i++)
        order[i] = i;
    qsort_r(order, count, sizeof *order, compare_keys, (void *)(uintptr_t)keys);
}
