// What becomes of a matched request: the upstream's path, the Location of a redirect, one target of a split.
#include "http/uri.h"
#include "route/route_table.h"

// ---- "{name}" texts ----

struct expansion {
    const struct route_match *match;
    const struct request_head *request;
    struct str scheme;
    bool of_request; // {path}, {query}, {host} and {scheme} stand for the request's, besides the template's
                     // names
};

static bool value_of(const struct expansion *expansion, struct str name, struct str *value)
{
    const struct route_match *match = expansion->match;
    for (uint32_t i = 0; i < match->capture_count; i++)
        if (str_eq(match->captures[i].name, name)) {
            *value = match->captures[i].value;
            return true;
        }
    if (!expansion->of_request)
        return false;
    const struct {
        struct str name, value;
    } own[] = {
        {STR("path"), expansion->request->path},
        {STR("query"), expansion->request->query},
        {STR("host"), expansion->request->host},
        {STR("scheme"), expansion->scheme},
    };
    for (size_t i = 0; i < countof(own); i++)
        if (str_eq(own[i].name, name)) {
            *value = own[i].value;
            return true;
        }
    return false;
}

// The next piece of *rest: plain text, or the value of a {name}, which *is_value tells. Braces that name
// nothing are plain text. False at the end.
static bool next_piece(const struct expansion *expansion, struct str *rest, struct str *piece, bool *is_value)
{
    if (!rest->n)
        return false;
    size_t open = str_find(*rest, '{');
    *is_value = false;
    if (open == 0) {
        size_t close = str_find(*rest, '}');
        if (close < rest->n && value_of(expansion, (struct str){rest->p + 1, close - 1}, piece)) {
            *is_value = true;
            *rest = str_skip(*rest, close + 1);
            return true;
        }
        open = 1 + str_find(str_skip(*rest, 1), '{');
    }
    *piece = (struct str){rest->p, open};
    *rest = str_skip(*rest, open);
    return true;
}

// ---- rewrite ----

// As Gateway API's ReplacePrefixMatch: /foo → /xyz/ makes /foo/bar /xyz/bar, and an emptied path is "/".
static struct str replace_prefix(const struct path_match *matched, struct str by, struct str path,
                                 struct arena *arena)
{
    struct str rest = STR_NULL; // of other kinds than a prefix the whole path was matched
    if (matched->kind == PATH_PREFIX)
        rest = str_skip(path, route_prefix_text(matched).n);
    if (rest.n && by.n && by.p[by.n - 1] == '/')
        by.n--;
    if (!by.n)
        return rest.n ? rest : STR("/");
    const struct str parts[] = {by, rest};
    return rest.n ? arena_join(arena, parts, countof(parts)) : by;
}

static struct str expand_path(const struct expansion *expansion, struct str text, struct arena *arena)
{
    struct str piece;
    bool is_value;
    size_t bytes = 0;
    for (struct str rest = text; next_piece(expansion, &rest, &piece, &is_value);)
        bytes += piece.n;
    char *out = arena_alloc(arena, bytes + 1), *at = out;
    for (struct str rest = text; next_piece(expansion, &rest, &piece, &is_value);)
        at = mempcpy(at, piece.p, piece.n);
    return str_range(out, at);
}

bool route_rewrite_path(const struct route_match *match, const struct request_head *request,
                        struct arena *arena, struct str *path)
{
    const struct route_settings *settings = match->route->settings;
    const struct rewrite_settings *rewrite = &settings->rewrite;
    *path = request->path;
    if (!settings->has_rewrite || (!rewrite->path.n && !rewrite->prefix.n))
        return true;
    struct str rewritten;
    if (rewrite->path.n)
        rewritten = expand_path(&(struct expansion){.match = match}, rewrite->path, arena);
    else
        rewritten = replace_prefix(&settings->match.path, rewrite->prefix, request->path, arena);
    // Parts that are harmless by themselves may not be when joined: "/." and a captured ".".
    const char *why;
    return uri_normalise_path(rewritten, false, arena, path, &why) == URI_OK;
}

// ---- redirect ----

// Bytes that a URI never holds raw; the parsers have refused them already, so this is the second lock on the
// door that header injection would need.
static bool must_escape(char c)
{
    unsigned char u = (unsigned char)c;
    return u <= 0x20 || u >= 0x7f || c == '"' || c == '<' || c == '>' || c == '\\';
}

static char *put_escaped(char *at, struct str value)
{
    static const char hex[] = "0123456789ABCDEF";
    for (size_t i = 0; i < value.n; i++) {
        unsigned char u = (unsigned char)value.p[i];
        if (!must_escape(value.p[i])) {
            *at++ = value.p[i];
            continue;
        }
        *at++ = '%';
        *at++ = hex[u >> 4];
        *at++ = hex[u & 15];
    }
    return at;
}

struct str route_redirect_location(const struct route_match *match, const struct request_head *request,
                                   struct str scheme, struct arena *arena)
{
    struct str to = match->route->settings->redirect.to, piece;
    struct expansion expansion = {match, request, scheme, true};
    bool is_value;
    size_t bytes = 2;
    for (struct str rest = to; next_piece(&expansion, &rest, &piece, &is_value);)
        bytes += piece.n * 3;
    char *room = arena_alloc(arena, bytes + 1), *out = room + 2, *at = out;
    for (struct str rest = to; next_piece(&expansion, &rest, &piece, &is_value);) {
        at = put_escaped(at, piece);
        if (is_value && piece.n == 0 && at > out && at[-1] == '?')
            at--; // "{path}?{query}" of a request without a query
    }
    // A path of the request that begins with "//" must not turn into an authority (RFC 3986 4.2): "/." says
    // that it is still a path.
    if (at - out >= 2 && out[0] == '/' && out[1] == '/' && !str_starts(to, STR("//"))) {
        out = room;
        memcpy(out, "/.", 2);
    }
    return str_range(out, at);
}

// ---- split ----

struct upstream *route_draw(const struct route *route, struct rand *rand)
{
    if (route->action != ROUTE_SPLIT)
        return route->upstream;
    uint32_t drawn = rand_below(rand, route->split_total);
    for (const struct route_split *at = route->split;; at++) {
        if (drawn < at->weight)
            return at->upstream;
        drawn -= at->weight;
    }
}
