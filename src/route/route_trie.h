// Paths as tries of segments. One array of nodes holds every trie of a table; the children of all nodes are
// in one hash keyed by (parent, segment), so a step down costs the same however many siblings there are.
// Private to this room.
//
//   /orders, /orders/, /orders/{id}/items     root ── "orders" ── ""
//                                                         └── {} ── "items"       (in the host's template
//                                                         trie)
#pragma once

#include "route/route_index.h"

#include <endian.h>

struct trie_node {        // 32 bytes: two a cache line
    uint64_t head;        // the first eight bytes of the segment, see trie_segment
    uint32_t tail;        // where trie.labels has the rest
    uint16_t label_bytes; // of the whole segment
    bool has_children;    // literal ones; false: no need to look
    uint32_t parent;
    uint32_t variable; // the child for {name}, 0: none
    uint32_t exact;    // candidates for a path that ends here (exact, template), 0: none
    uint32_t
        prefix; // candidates for a path that goes through here: its own, else those of a node above, 0: none
};

enum { TRIE_LABEL_BYTES = UINT16_MAX };

struct trie {
    struct trie_node *nodes; // 0 stands for none
    struct route_index edges;
    char *labels;
    uint32_t count, node_capacity, label_bytes, label_capacity;
};

// A new root.
uint32_t trie_root(struct trie *trie);
// The child for a literal segment of at most TRIE_LABEL_BYTES, made when it is new.
struct trie_segment;
uint32_t trie_add_child(struct trie *trie, uint32_t parent, const struct trie_segment *segment);
uint32_t trie_add_variable(struct trie *trie, uint32_t parent);
// Moves all of it into the arena.
void trie_seal(struct trie *trie, struct arena *arena);
// Drops one that was not sealed.
void trie_fini(struct trie *trie);

struct trie_segment {
    const char *p;
    size_t n;
    uint64_t head; // its first eight bytes, the first in the lowest bits, padded with zeros
    uint64_t hash;
};

static inline uint64_t trie_mix(uint64_t hash, uint64_t word)
{
    hash = (hash ^ word) * 0x9e3779b97f4a7c15;
    return hash ^ (hash >> 32);
}

// n < 8 bytes in memory order, the first in the lowest bits, padded with zeros; no byte outside is read.
static inline uint64_t trie_load_short(const char *p, size_t n)
{
    if (n >= 4) {
        uint32_t low, high;
        memcpy(&low, p, 4);
        memcpy(&high, p + n - 4, 4);
        return (uint64_t)le32toh(low) | (uint64_t)le32toh(high) << (n - 4) * 8;
    }
    if (n == 0)
        return 0;
    return (uint64_t)(unsigned char)p[0] | (uint64_t)(unsigned char)p[n / 2] << n / 2 * 8 |
           (uint64_t)(unsigned char)p[n - 1] << (n - 1) * 8;
}

// The segment that begins at p and ends before the next '/' or at end, hashed eight bytes at a time while the
// slash is looked for.
static inline struct trie_segment trie_segment_at(const char *p, const char *end)
{
    const uint64_t ones = 0x0101010101010101, highs = 0x8080808080808080;
    struct trie_segment segment = {.p = p};
    for (const char *at = p;; at += 8) {
        size_t left = (size_t)(end - at), n = left < 8 ? left : 8;
        uint64_t word;
        if (left >= 8) {
            memcpy(&word, at, 8);
            word = le64toh(word);
        } else {
            word = trie_load_short(at, left);
        }
        uint64_t differ = word ^ ones * '/',
                 slash = (differ - ones) & ~differ & highs; // lowest bit: the first slash
        if (slash) {
            unsigned bits = (unsigned)__builtin_ctzll(slash) & ~7u;
            word &= (1ull << bits) - 1;
            n = bits / 8;
        }
        if (at == p)
            segment.head = word;
        if (n)
            segment.hash = trie_mix(segment.hash, word);
        segment.n += n;
        if (slash || left <= 8)
            return segment;
    }
}

static inline uint32_t trie_edge_hash(uint32_t parent, uint64_t segment_hash)
{
    return (uint32_t)trie_mix(segment_hash, parent);
}

static inline uint32_t trie_child(const struct trie *trie, uint32_t parent,
                                  const struct trie_segment *segment)
{
    uint32_t hash = trie_edge_hash(parent, segment->hash), id;
    for (uint32_t at = 0; (id = route_index_next(&trie->edges, hash, &at));) {
        const struct trie_node *node = &trie->nodes[id];
        if (node->head == segment->head && node->parent == parent && node->label_bytes == segment->n &&
            (segment->n <= 8 || memcmp(trie->labels + node->tail, segment->p + 8, segment->n - 8) == 0))
            return id;
    }
    return 0;
}
