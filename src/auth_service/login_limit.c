#include "auth_service/login_limit.h"

#include "base/check.h"

#include <stdlib.h>

enum { OF_NAME_AND_ADDRESS, OF_ADDRESS, OF_NAME };

void login_limit_init(struct login_limit *limit)
{
    *limit = (struct login_limit){0};
    limit->entries = calloc((size_t)LOGIN_BUCKETS * LOGIN_WAYS, sizeof *limit->entries);
    check(limit->entries);
}

void login_limit_fini(struct login_limit *limit)
{
    free(limit->entries);
}

static uint64_t hash(uint64_t head, struct str text)
{
    return siphash128(siphash_process_key(), head, text).lo | 1; // 0 is an empty place
}

static void find_keys(struct str name, const struct ip *address, struct login_charge *charge)
{
    struct str prefix = {(const char *)address->bytes, address->family == AF_INET6 ? 8 : 16};
    uint64_t of_address = hash(1, prefix);
    charge->keys[OF_ADDRESS] = of_address;
    charge->keys[OF_NAME] = hash(2, name);
    charge->keys[OF_NAME_AND_ADDRESS] = hash(of_address, name);
}

// The key's place, or the one in its bucket that is over first.
static struct login_entry *find(struct login_limit *limit, uint64_t key)
{
    struct login_entry *bucket = &limit->entries[(key >> 1) % LOGIN_BUCKETS * LOGIN_WAYS], *oldest = bucket;
    for (unsigned i = 0; i < LOGIN_WAYS; i++) {
        if (bucket[i].key == key)
            return &bucket[i];
        if (bucket[i].arrival_us < oldest->arrival_us)
            oldest = &bucket[i];
    }
    return oldest;
}

static uint64_t arrival_of(struct login_limit *limit, uint64_t key, uint64_t now_us)
{
    const struct login_entry *entry = find(limit, key);
    return entry->key == key && entry->arrival_us > now_us ? entry->arrival_us : now_us;
}

static uint64_t interval(const struct login_limit *limit, unsigned i)
{
    return limit->per_us / limit->counts[i];
}

// Until one more failure of this key may be.
static uint64_t wait_of(struct login_limit *limit, const struct login_charge *charge, unsigned i,
                        uint64_t now_us)
{
    uint64_t next = arrival_of(limit, charge->keys[i], now_us) + interval(limit, i);
    return next > now_us + limit->per_us ? next - now_us - limit->per_us : 0;
}

bool login_limit_take(struct login_limit *limit, struct str name, const struct ip *address, uint64_t now_us,
                      struct login_charge *charge, uint64_t *retry_us)
{
    find_keys(name, address, charge);
    *retry_us = 0;
    for (unsigned i = 0; i < LOGIN_KEYS; i++) {
        uint64_t wait_us = wait_of(limit, charge, i, now_us);
        if (wait_us > *retry_us)
            *retry_us = wait_us;
    }
    for (unsigned i = 0; i < LOGIN_KEYS && !*retry_us; i++) {
        struct login_entry *entry = find(limit, charge->keys[i]);
        uint64_t arrival_us = arrival_of(limit, charge->keys[i], now_us) + interval(limit, i);
        *entry = (struct login_entry){charge->keys[i], arrival_us};
    }
    return !*retry_us;
}

bool login_limit_is_own(struct login_limit *limit, const struct login_charge *charge, uint64_t now_us)
{
    return wait_of(limit, charge, OF_NAME_AND_ADDRESS, now_us) || wait_of(limit, charge, OF_ADDRESS, now_us);
}

void login_limit_give(struct login_limit *limit, const struct login_charge *charge)
{
    for (unsigned i = 0; i < LOGIN_KEYS; i++) {
        struct login_entry *entry = find(limit, charge->keys[i]);
        uint64_t back = interval(limit, i);
        if (entry->key == charge->keys[i])
            entry->arrival_us = entry->arrival_us > back ? entry->arrival_us - back : 0;
    }
}
