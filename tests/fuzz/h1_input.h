// What the fuzz targets of HTTP/1.1 share: exact copies, and comparisons of heads.
#pragma once

#include "exact_copy.h"

#include "base/arena.h"
#include "base/buf.h"
#include "base/check.h"
#include "http/h1_parse.h"
#include "http/h1_scan.h"
#include "http/h1_write.h"
#include "http/uri.h"

enum { SCANNERS = 3 }; // at most in a build

// Every field must be what the strict grammar allows, with the id of its name.
static inline void check_headers(const struct headers *headers)
{
    for (uint32_t i = 0; i < headers->count; i++) {
        const struct header *h = &headers->v[i];
        if (h->id == HEADER_GONE)
            continue;
        check(header_name_valid(h->name));
        check(header_value_valid(h->value));
        check(str_eq(str_trim(h->value), h->value));
        check(h->id == header_id_of(h->name));
    }
}

// The fields that are not gone, in order, are the same.
static inline void check_same_headers(const struct headers *a, const struct headers *b)
{
    uint32_t i = 0, j = 0;
    for (;; i++, j++) {
        while (i < a->count && a->v[i].id == HEADER_GONE)
            i++;
        while (j < b->count && b->v[j].id == HEADER_GONE)
            j++;
        if (i == a->count || j == b->count)
            break;
        check(str_eq(a->v[i].name, b->v[j].name));
        check(str_eq(a->v[i].value, b->v[j].value));
    }
    check(i == a->count && j == b->count);
}

// Room for exactly size bytes: the writers must not need more than they announced.
static inline struct buf exact_buf(size_t size)
{
    struct buf buf = {.base = malloc(size), .cap = (uint32_t)size};
    check(buf.base);
    return buf;
}
