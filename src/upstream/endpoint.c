// The endpoints of the whole process, by upstream, name and address: a host name that moves to another
// address makes another endpoint, so that what one address has earned is not held against the next. Control
// thread only.
#include "upstream/endpoint.h"

#include "base/check.h"
#include "observe/metrics.h"
#include "upstream/shared_breaker.h"

#include <stdlib.h>
#include <xxhash.h>

enum { BUCKETS = 1024 }; // 16 KiB; ten thousand endpoints make chains of ten

struct entry {
    struct endpoint endpoint;
    struct list node; // in its bucket
    uint64_t hash;
};

static struct list buckets[BUCKETS];
static uint32_t count; // of all there ever were

static uint64_t hash_of(struct str upstream_name, struct str name, const struct addr *addr)
{
    uint64_t hash = XXH3_64bits(upstream_name.p, upstream_name.n);
    hash = XXH3_64bits_withSeed(name.p, name.n, hash);
    return XXH3_64bits_withSeed(&addr->any, addr->length, hash);
}

static struct list *bucket_of(uint64_t hash)
{
    struct list *bucket = &buckets[hash % BUCKETS];
    if (!bucket->next)
        list_init(bucket);
    return bucket;
}

static uint32_t metric_id_of(struct str upstream_name, struct str name)
{
    size_t n = upstream_name.n + 1 + name.n;
    char *pair = malloc(n);
    check(pair);
    memcpy(pair, upstream_name.p, upstream_name.n);
    pair[upstream_name.n] = 0;
    memcpy(pair + upstream_name.n + 1, name.p, name.n);
    uint32_t id = metric_name_id(NAME_ENDPOINT, (struct str){pair, n});
    free(pair);
    return id;
}

static struct endpoint *endpoint_new(struct str upstream_name, struct str name, const struct addr *addr,
                                     uint64_t hash)
{
    struct entry *entry = calloc(1, sizeof *entry);
    check(entry);
    entry->hash = hash;
    list_push_back(bucket_of(hash), &entry->node);
    struct endpoint *endpoint = &entry->endpoint;
    endpoint->upstream_name = (struct str){str_dup(upstream_name), upstream_name.n};
    endpoint->name = (struct str){str_dup(name), name.n};
    endpoint->addr = *addr;
    endpoint->index = count++;
    endpoint->metric_id = metric_id_of(upstream_name, name);
    atomic_init(&endpoint->up, true);
    return endpoint;
}

static void forget(struct endpoint *endpoint)
{
    if (endpoint->breaker)
        shared_breaker_reset(endpoint->breaker);
    atomic_store_explicit(&endpoint->up, true, memory_order_relaxed);
    atomic_store_explicit(&endpoint->up_since_us, 0, memory_order_relaxed);
    atomic_store_explicit(&endpoint->checks, 0, memory_order_relaxed);
    atomic_store_explicit(&endpoint->check_failures, 0, memory_order_relaxed);
    endpoint->last_check[0] = 0;
    ejector_forget(&endpoint->ejector);
}

struct endpoint *endpoint_ref(struct str upstream_name, struct str name, const struct addr *addr)
{
    uint64_t hash = hash_of(upstream_name, name, addr);
    struct endpoint *found = NULL;
    list_each (bucket_of(hash), node) {
        struct entry *entry = container_of(node, struct entry, node);
        struct endpoint *endpoint = &entry->endpoint;
        if (entry->hash == hash && str_eq(endpoint->upstream_name, upstream_name) &&
            str_eq(endpoint->name, name) && addr_eq(&endpoint->addr, addr))
            found = endpoint;
    }
    if (!found)
        found = endpoint_new(upstream_name, name, addr, hash);
    else if (!found->references) // it was gone: nothing is known of what happened to it since
        forget(found);
    found->references++;
    return found;
}

void endpoint_unref(struct endpoint *endpoint)
{
    check(endpoint->references > 0);
    endpoint->references--;
}

uint32_t endpoint_count(void)
{
    return count;
}
