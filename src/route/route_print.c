#include "route/route_table.h"

static void print_list(const struct str_list *list, struct buf *out)
{
    for (uint32_t i = 0; i < list->count; i++)
        buf_printf(out, "%s%.*s", i ? "," : "", STR_ARG(list->v[i]));
    if (!list->count)
        buf_append(out, STR("*"));
}

static void print_path(const struct path_match *path, struct buf *out)
{
    struct str text = path->kind == PATH_PREFIX ? route_prefix_text(path) : path->text;
    const char *before = path->kind == PATH_REGEX ? "~" : "", *after = path->kind == PATH_PREFIX ? "/*" : "";
    buf_printf(out, " %s%.*s%s ", before, STR_ARG(text), after);
}

static void print_values(const char *what, const struct value_matches *matches, struct buf *out)
{
    for (uint32_t i = 0; i < matches->count; i++) {
        const struct value_match *match = &matches->v[i];
        buf_printf(out, " [%s %.*s", what, STR_ARG(match->name));
        if (match->kind != VALUE_PRESENT)
            buf_printf(out, "%s%.*s", match->kind == VALUE_REGEX ? "~" : "=", STR_ARG(match->text));
        buf_append(out, STR("]"));
    }
}

void route_print(const struct route *route, struct buf *out)
{
    const struct match_settings *match = &route->settings->match;
    print_list(&match->hosts, out);
    print_path(&match->path, out);
    print_list(&match->methods, out);
    print_values("header", &match->headers, out);
    print_values("query", &match->query, out);
}

static void print_words(const char *what, const struct str_list *list, const char *between, struct buf *out)
{
    for (uint32_t i = 0; i < list->count; i++)
        buf_printf(out, "%s%.*s", i ? between : what, STR_ARG(list->v[i]));
}

void route_print_auth(const struct route *route, struct buf *out)
{
    static const char *const between[] = {[AUTH_MATCH_ALL] = " and ", [AUTH_MATCH_ANY] = " or "};
    const struct route_auth_settings *auth = &route->settings->auth;
    if (!route->settings->has_auth)
        return;
    print_words("auth ", &auth->any_of, " or ", out);
    if (auth->optional)
        buf_append(out, STR(", optional"));
    print_words(", scopes ", &auth->scopes, between[auth->scopes_match], out);
    print_words(", roles ", &auth->roles, between[auth->roles_match], out);
}
