#include "auth/cache.h"

#include <stdlib.h>

enum { CHAINS = AUTH_CACHE_ENTRIES, NOBODY = UINT32_MAX };

struct entry {
    struct auth_decision decision;
    uint32_t next;  // of its chain, or of those that are free
    uint32_t bytes; // counted for its identity
    bool is_filled;
    bool is_used; // since the hand was last here
};

// Entries are taken in their order, so that the pages of those never needed are never touched.
struct auth_cache {
    struct entry *entries;
    uint32_t *chains;           // by key: the first entry of it, plus one; 0: none
    uint32_t taken;             // entries that were ever filled
    uint32_t free, hand, count; // free: the first of those that were and are not; NOBODY: none
    size_t bytes;
};

struct auth_cache *auth_cache_new(void)
{
    struct auth_cache *cache = calloc(1, sizeof *cache);
    check(cache);
    cache->entries = calloc(AUTH_CACHE_ENTRIES, sizeof *cache->entries);
    cache->chains = calloc(CHAINS, sizeof *cache->chains);
    check(cache->entries && cache->chains);
    cache->free = NOBODY;
    return cache;
}

void auth_cache_free(struct auth_cache *cache)
{
    if (!cache)
        return;
    for (uint32_t i = 0; i < cache->taken; i++)
        if (cache->entries[i].is_filled)
            identity_unref(cache->entries[i].decision.identity);
    free(cache->entries);
    free(cache->chains);
    free(cache);
}

uint32_t auth_cache_count(const struct auth_cache *cache)
{
    return cache->count;
}

size_t auth_cache_bytes(const struct auth_cache *cache)
{
    return cache->bytes;
}

// Keys are the output of a SipHash with a secret key: any bits of them are as good as any others.
static uint32_t *chain_of(const struct auth_cache *cache, struct hash128 key)
{
    return &cache->chains[key.lo % CHAINS];
}

static struct entry *lookup(const struct auth_cache *cache, struct hash128 key)
{
    for (uint32_t at = *chain_of(cache, key); at; at = cache->entries[at - 1].next) {
        struct entry *entry = &cache->entries[at - 1];
        if (entry->decision.key.lo == key.lo && entry->decision.key.hi == key.hi)
            return entry;
    }
    return NULL;
}

// An identity grows when a token is signed for it.
static void count_bytes(struct auth_cache *cache, struct entry *entry)
{
    uint32_t bytes = entry->decision.identity ? (uint32_t)entry->decision.identity->bytes : 0;
    cache->bytes = cache->bytes - entry->bytes + bytes;
    entry->bytes = bytes;
}

static void drop(struct auth_cache *cache, struct entry *entry)
{
    uint32_t index = (uint32_t)(entry - cache->entries);
    uint32_t *link = chain_of(cache, entry->decision.key);
    while (*link != index + 1)
        link = &cache->entries[*link - 1].next;
    *link = entry->next;
    identity_unref(entry->decision.identity);
    cache->bytes -= entry->bytes;
    cache->count--;
    *entry = (struct entry){.next = cache->free};
    cache->free = index;
}

// The hand goes round: who was used since it was here last stays for another round.
static void drop_one(struct auth_cache *cache)
{
    for (;;) {
        struct entry *entry = &cache->entries[cache->hand];
        cache->hand = (cache->hand + 1) % cache->taken;
        if (entry->is_filled && !entry->is_used) {
            drop(cache, entry);
            return;
        }
        entry->is_used = false;
    }
}

static struct entry *take(struct auth_cache *cache)
{
    struct entry *entry;
    if (cache->free != NOBODY) {
        entry = &cache->entries[cache->free];
        cache->free = entry->next;
    } else {
        entry = &cache->entries[cache->taken++];
    }
    entry->is_filled = true;
    cache->count++;
    return entry;
}

struct auth_decision *auth_cache_find(struct auth_cache *cache, struct hash128 key, int64_t now_ms)
{
    struct entry *entry = lookup(cache, key);
    if (!entry)
        return NULL;
    if (now_ms >= entry->decision.stale_until_ms) {
        drop(cache, entry);
        return NULL;
    }
    entry->is_used = true;
    count_bytes(cache, entry);
    return &entry->decision;
}

void auth_cache_put(struct auth_cache *cache, const struct auth_decision *decision)
{
    struct auth_decision kept = *decision; // which may be the one in the cache, with another date
    size_t bytes = kept.identity ? identity_ref(kept.identity)->bytes : 0;
    auth_cache_drop(cache, kept.key);
    while (cache->count == AUTH_CACHE_ENTRIES || (cache->count && cache->bytes + bytes > AUTH_CACHE_BYTES))
        drop_one(cache);
    struct entry *entry = take(cache);
    uint32_t *chain = chain_of(cache, kept.key);
    entry->decision = kept;
    entry->next = *chain;
    *chain = (uint32_t)(entry - cache->entries) + 1;
    count_bytes(cache, entry);
}

void auth_cache_drop(struct auth_cache *cache, struct hash128 key)
{
    struct entry *entry = lookup(cache, key);
    if (entry)
        drop(cache, entry);
}
