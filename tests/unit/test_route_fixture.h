// Routes and requests in short texts, for the tests of src/route.
//
//   hosts    "a.com *.b.com", "" any
//   path     "/p" prefix, "=/p" exact, "/p/{x}" template, "~expr" regex
//   methods  "GET POST", "" any
//   headers  "x=1 y~expr z": exact, regex, present; query in the same way
//   request  "GET host /path?query", its headers "X: 1|Y: 2"
#pragma once

#include "route/route.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

struct route_spec {
    const char *name, *hosts, *path, *methods, *headers, *query;
    bool cors;
};

struct fixture {
    struct arena arena, request_arena;
    struct route_settings *settings;
    uint32_t count;
    struct route_table *table;
    struct route_scratch *scratch;
    struct route_names names;
    struct request_head request;
    struct route_match match;
};

static inline struct str_list spec_words(struct arena *arena, const char *text)
{
    struct str_list list = {arena_array(arena, struct str, strlen(text) / 2 + 1), 0};
    struct str rest = str_of(text);
    while (rest.n) {
        size_t n = str_find(rest, ' ');
        if (n)
            list.v[list.count++] = (struct str){rest.p, n};
        rest = str_skip(rest, n < rest.n ? n + 1 : n);
    }
    return list;
}

static inline struct value_matches spec_values(struct arena *arena, const char *text)
{
    struct str_list words = spec_words(arena, text);
    struct value_matches matches = {arena_array(arena, struct value_match, words.count + 1), words.count};
    for (uint32_t i = 0; i < words.count; i++) {
        struct str word = words.v[i];
        size_t equals = str_find(word, '='), tilde = str_find(word, '~'),
               end = equals < tilde ? equals : tilde;
        struct value_match *match = &matches.v[i];
        match->name = (struct str){word.p, end};
        match->kind = end == word.n ? VALUE_PRESENT : equals < tilde ? VALUE_EXACT : VALUE_REGEX;
        match->text = end == word.n ? STR_NULL : str_skip(word, end + 1);
    }
    return matches;
}

static inline struct path_match spec_path(const char *text)
{
    struct path_match path = {PATH_PREFIX, str_of(text)};
    if (text[0] == '=' || text[0] == '~') {
        path.kind = text[0] == '=' ? PATH_EXACT : PATH_REGEX;
        path.text = str_skip(path.text, 1);
    } else if (strchr(text, '{')) {
        path.kind = PATH_TEMPLATE;
    }
    return path;
}

static inline void spec_settings(struct arena *arena, const struct route_spec *spec,
                                 struct route_settings *out)
{
    *out = (struct route_settings){
        .name = str_of(spec->name), .upstream = STR("u"), .has_cors = spec->cors, .access_log = true};
    out->match.hosts = spec_words(arena, spec->hosts ? spec->hosts : "");
    out->match.path = spec_path(spec->path ? spec->path : "/");
    out->match.methods = spec_words(arena, spec->methods ? spec->methods : "");
    out->match.headers = spec_values(arena, spec->headers ? spec->headers : "");
    out->match.query = spec_values(arena, spec->query ? spec->query : "");
}

// An upstream is opaque to routes: its name's first byte will do as an address.
static inline struct upstream *fixture_upstream(struct route_names *names, struct str name)
{
    (void)names;
    static char places[256];
    return str_eq(name, STR("missing")) ? NULL : (struct upstream *)(void *)&places[(unsigned char)name.p[0]];
}

static inline struct route_table *fixture_compile(struct fixture *f, struct err *err)
{
    struct config_list list = {f->settings, f->count};
    f->names.upstream_of = fixture_upstream;
    return f->table = route_table_new(&list, &f->arena, &f->names, err);
}

static inline void fixture_init(struct fixture *f)
{
    *f = (struct fixture){0};
    arena_init(&f->arena, NULL);
    arena_init(&f->request_arena, NULL);
    f->scratch = route_scratch_new();
}

static inline void fixture_open(struct fixture *f, const struct route_spec *specs, uint32_t count)
{
    fixture_init(f);
    f->settings = arena_array(&f->arena, struct route_settings, count + 1);
    f->count = count;
    for (uint32_t i = 0; i < count; i++)
        spec_settings(&f->arena, &specs[i], &f->settings[i]);
    struct err err = {0};
    fixture_compile(f, &err);
    if (!f->table)
        fail_msg("%s: %s", err.where, err.what);
}

static inline void fixture_close(struct fixture *f)
{
    if (f->table)
        route_table_fini(f->table);
    route_scratch_free(f->scratch);
    arena_reset(&f->arena);
    arena_reset(&f->request_arena);
}

static inline void fixture_request(struct fixture *f, const char *text, const char *headers)
{
    arena_reset(&f->request_arena);
    struct str rest = arena_copy(&f->request_arena, str_of(text)), parts[3] = {0};
    for (int i = 0; i < 3; i++) {
        size_t n = i < 2 ? str_find(rest, ' ') : rest.n;
        parts[i] = (struct str){rest.p, n};
        rest = str_skip(rest, n < rest.n ? n + 1 : n);
    }
    size_t question = str_find(parts[2], '?');
    f->request = (struct request_head){
        .method = http_method_of(parts[0]),
        .method_name = parts[0],
        .host = parts[1],
        .authority = parts[1],
        .target = parts[2],
        .path = {parts[2].p, question},
        .has_query = question < parts[2].n,
    };
    if (f->request.has_query)
        f->request.query = str_skip(parts[2], question + 1);
    struct str lines = arena_copy(&f->request_arena, str_of(headers));
    while (lines.n) {
        size_t end = str_find(lines, '|'), colon = str_find(lines, ':');
        headers_add(&f->request.headers, &f->request_arena, (struct str){lines.p, colon},
                    str_trim(str_range(lines.p + colon + 1, lines.p + end)));
        lines = str_skip(lines, end < lines.n ? end + 1 : end);
    }
}

// The name of the route found, "405 <allow>" or "404".
static inline const char *fixture_find(struct fixture *f, const char *text, const char *headers)
{
    fixture_request(f, text, headers);
    route_find(f->table, &f->request, f->scratch, &f->request_arena, &f->match);
    struct str name = f->match.route ? f->match.route->name : STR("404");
    if (f->match.method_mismatch)
        return arena_printf(&f->request_arena, "405 %.*s", STR_ARG(f->match.allow)).p;
    return arena_copy(&f->request_arena, name).p;
}
