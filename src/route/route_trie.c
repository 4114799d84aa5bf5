#include "route/route_trie.h"

#include "base/check.h"

#include <stdlib.h>

static uint32_t add_node(struct trie *trie, struct trie_node node)
{
    if (trie->count == trie->node_capacity) {
        check(trie->node_capacity < UINT32_MAX / 4);
        trie->node_capacity = trie->node_capacity ? trie->node_capacity * 2 : 64;
        trie->nodes = realloc(trie->nodes, sizeof *trie->nodes * trie->node_capacity);
        check(trie->nodes);
    }
    if (trie->count == 0)
        trie->nodes[trie->count++] = (struct trie_node){0};
    trie->nodes[trie->count] = node;
    return trie->count++;
}

static uint32_t add_label(struct trie *trie, const char *p, size_t n)
{
    check(n < UINT32_MAX / 4 - trie->label_bytes);
    uint32_t at = trie->label_bytes, end = at + (uint32_t)n;
    if (end > trie->label_capacity) {
        trie->label_capacity = end * 2 + 256;
        trie->labels = realloc(trie->labels, trie->label_capacity);
        check(trie->labels);
    }
    memcpy(trie->labels + at, p, n);
    trie->label_bytes = end;
    return at;
}

uint32_t trie_root(struct trie *trie)
{
    return add_node(trie, (struct trie_node){0});
}

uint32_t trie_add_child(struct trie *trie, uint32_t parent, const struct trie_segment *segment)
{
    uint32_t child = trie_child(trie, parent, segment);
    if (child)
        return child;
    check(segment->n <= TRIE_LABEL_BYTES);
    uint32_t tail = segment->n > 8 ? add_label(trie, segment->p + 8, segment->n - 8) : 0;
    child = add_node(trie, (struct trie_node){.head = segment->head,
                                              .tail = tail,
                                              .label_bytes = (uint16_t)segment->n,
                                              .parent = parent});
    trie->nodes[parent].has_children = true;
    route_index_add(&trie->edges, trie_edge_hash(parent, segment->hash), child);
    return child;
}

uint32_t trie_add_variable(struct trie *trie, uint32_t parent)
{
    if (!trie->nodes[parent].variable) {
        uint32_t child = add_node(trie, (struct trie_node){.parent = parent});
        trie->nodes[parent].variable = child;
    }
    return trie->nodes[parent].variable;
}

void trie_seal(struct trie *trie, struct arena *arena)
{
    if (trie->count) {
        size_t bytes = sizeof *trie->nodes * trie->count;
        char *room = arena_alloc(arena, bytes + sizeof *trie->nodes);
        room += -(uintptr_t)room % sizeof *trie->nodes; // no node lies across two cache lines
        struct trie_node *nodes = memcpy(room, trie->nodes, bytes);
        free(trie->nodes);
        trie->nodes = nodes;
    }
    char *labels = arena_alloc(arena, (size_t)trie->label_bytes + 1);
    if (trie->label_bytes)
        memcpy(labels, trie->labels, trie->label_bytes);
    free(trie->labels);
    trie->labels = labels;
    route_index_seal(&trie->edges, arena);
}

void trie_fini(struct trie *trie)
{
    free(trie->nodes);
    free(trie->labels);
    route_index_fini(&trie->edges);
    *trie = (struct trie){0};
}
