#include "base/arena.h"

#include "base/check.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

void arena_init(struct arena *arena, struct arena_spares *spares)
{
    *arena = (struct arena){.spares = spares};
}

static void block_release(struct arena *arena, struct arena_block *block)
{
    struct arena_spares *spares = arena->spares;
    if (spares && block->size == ARENA_BLOCK && spares->count < spares->max) {
        block->next = spares->first;
        spares->first = block;
        spares->count++;
        return;
    }
    free(block);
}

void arena_reset(struct arena *arena)
{
    while (arena->blocks) {
        struct arena_block *block = arena->blocks;
        arena->blocks = block->next;
        block_release(arena, block);
    }
    arena->at = arena->end = NULL;
}

bool arena_spares_fill(struct arena_spares *spares, unsigned count)
{
    while (unlikely(spares->count < count)) {
        struct arena_block *block = malloc(sizeof *block + ARENA_BLOCK);
        if (!block)
            return false;
        block->size = ARENA_BLOCK;
        block->next = spares->first;
        spares->first = block;
        spares->count++;
    }
    return true;
}

void arena_spares_fini(struct arena_spares *spares)
{
    while (spares->first) {
        struct arena_block *block = spares->first;
        spares->first = block->next;
        free(block);
    }
    spares->count = 0;
}

static struct arena_block *block_take(struct arena *arena, size_t size)
{
    struct arena_spares *spares = arena->spares;
    if (size == ARENA_BLOCK && spares && spares->first) {
        struct arena_block *block = spares->first;
        spares->first = block->next;
        spares->count--;
        return block;
    }
    struct arena_block *block = malloc(sizeof *block + size);
    check(block);
    block->size = size;
    return block;
}

static void *alloc_from_new_block(struct arena *arena, size_t size)
{
    if (size > ARENA_BLOCK / 2) { // a block of its own, behind the current one
        struct arena_block *block = block_take(arena, size);
        if (arena->blocks) {
            block->next = arena->blocks->next;
            arena->blocks->next = block;
        } else {
            block->next = NULL;
            arena->blocks = block;
        }
        return block->data;
    }
    struct arena_block *block = block_take(arena, ARENA_BLOCK);
    block->next = arena->blocks;
    arena->blocks = block;
    arena->at = block->data + size;
    arena->end = block->data + ARENA_BLOCK;
    return block->data;
}

void *arena_alloc(struct arena *arena, size_t size)
{
    size = (size + 15) & ~(size_t)15;
    if ((size_t)(arena->end - arena->at) < size)
        return alloc_from_new_block(arena, size);
    char *p = arena->at;
    arena->at += size;
    return p;
}

void *arena_zalloc(struct arena *arena, size_t size)
{
    void *p = arena_alloc(arena, size);
    return size ? memset(p, 0, size) : p; // nothing of an empty arena is NULL
}

struct str arena_copy(struct arena *arena, struct str s)
{
    char *p = arena_alloc(arena, s.n + 1);
    if (s.n)
        memcpy(p, s.p, s.n);
    p[s.n] = 0;
    return (struct str){p, s.n};
}

struct str arena_join(struct arena *arena, const struct str *parts, size_t count)
{
    size_t n = 0;
    for (size_t i = 0; i < count; i++)
        n += parts[i].n;
    char *text = arena_alloc(arena, n + 1), *at = text;
    for (size_t i = 0; i < count; i++)
        at = parts[i].n ? mempcpy(at, parts[i].p, parts[i].n) : at;
    *at = '\0';
    return (struct str){text, n};
}

struct str arena_u64(struct arena *arena, uint64_t value)
{
    enum { DIGITS = 20 };
    char *digits = arena_alloc(arena, DIGITS);
    return (struct str){digits, u64_print(value, digits)};
}

struct str arena_printf(struct arena *arena, const char *format, ...)
{
    va_list args, again;
    va_start(args, format);
    va_copy(again, args);
    int n = vsnprintf(NULL, 0, format, args);
    va_end(args);
    check(n >= 0);
    char *p = arena_alloc(arena, (size_t)n + 1);
    vsnprintf(p, (size_t)n + 1, format, again);
    va_end(again);
    return (struct str){p, (size_t)n};
}
