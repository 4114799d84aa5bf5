#include "replay/table.h"

#include "base/list.h"
#include "base/siphash.h"

#include <pthread.h>
#include <stdlib.h>

enum { BUCKETS = 16384 };

struct entry {
    struct entry *next; // in its bucket
    struct list recent; // once it is answered: the one that was asked for last comes first
    struct replay_hash name, print;
    uint64_t token; // of its holder; 0: it is answered
    uint64_t until_us;
    struct str answer; // on the heap; n == 0: none is kept
};

// One lock for all: a request holds it twice, for as long as a copy of its answer takes.
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static struct entry *buckets[BUCKETS];
static struct list recent = {&recent, &recent};
static struct replay_table_counts counts;
static uint64_t last_token;

static struct entry **bucket_of(struct replay_hash name)
{
    struct str text = {(const char *)name.bytes, sizeof name.bytes};
    return &buckets[siphash128(siphash_process_key(), 0, text).lo % BUCKETS];
}

// What points at the entry of this name; at NULL when there is none.
static struct entry **find(struct replay_hash name)
{
    struct entry **at = bucket_of(name);
    while (*at && memcmp(&(*at)->name, &name, sizeof name) != 0)
        at = &(*at)->next;
    return at;
}

static void forget(struct entry **at)
{
    struct entry *entry = *at;
    *at = entry->next;
    list_remove(&entry->recent);
    counts.entries--;
    counts.running -= entry->token != 0;
    counts.bytes -= entry->answer.n;
    free((char *)entry->answer.p);
    free(entry);
}

static bool make_room(uint32_t entries, uint64_t bytes)
{
    while (counts.entries + entries > REPLAY_ENTRIES || counts.bytes + bytes > REPLAY_BYTES) {
        if (list_empty(&recent))
            return false;
        forget(find(container_of(recent.prev, struct entry, recent)->name));
    }
    return true;
}

static enum replay_state state_of(struct entry *entry, struct replay_hash print, struct arena *arena,
                                  struct str *answer)
{
    if (memcmp(&entry->print, &print, sizeof print) != 0)
        return REPLAY_OTHER;
    if (entry->token)
        return REPLAY_RUNNING;
    list_remove(&entry->recent);
    list_push_front(&recent, &entry->recent);
    if (!entry->answer.n)
        return REPLAY_LOST;
    *answer = arena_copy(arena, entry->answer);
    return REPLAY_ANSWER;
}

static enum replay_state begin(struct replay_hash name, struct replay_hash print, uint64_t until_us,
                               uint64_t *token)
{
    struct entry *entry = make_room(1, 0) ? calloc(1, sizeof *entry) : NULL;
    if (!entry)
        return REPLAY_FULL;
    *token = ++last_token;
    *entry = (struct entry){.name = name, .print = print, .token = *token, .until_us = until_us};
    list_init(&entry->recent);
    struct entry **bucket = bucket_of(name);
    entry->next = *bucket;
    *bucket = entry;
    counts.entries++;
    counts.running++;
    return REPLAY_NEW;
}

enum replay_state replay_table_claim(struct replay_hash name, struct replay_hash print, uint64_t now_us,
                                     uint64_t until_us, struct arena *arena, uint64_t *token,
                                     struct str *answer)
{
    pthread_mutex_lock(&lock);
    struct entry **at = find(name);
    if (*at && (*at)->until_us <= now_us)
        forget(at);
    struct entry *entry = *find(name);
    enum replay_state state =
        entry ? state_of(entry, print, arena, answer) : begin(name, print, until_us, token);
    pthread_mutex_unlock(&lock);
    return state;
}

// Its memory is asked for before the lock is held. False: none is kept.
static bool attach(struct entry *entry, struct str copy)
{
    if (!copy.p || !make_room(0, copy.n))
        return false;
    entry->answer = copy;
    counts.bytes += copy.n;
    return true;
}

void replay_table_keep(struct replay_hash name, uint64_t token, struct str answer, uint64_t until_us)
{
    char *copy = answer.n ? malloc(answer.n) : NULL;
    if (copy)
        memcpy(copy, answer.p, answer.n);
    pthread_mutex_lock(&lock);
    struct entry *entry = *find(name);
    bool kept = false;
    if (entry && entry->token == token) {
        entry->token = 0;
        entry->until_us = until_us;
        counts.running--;
        kept = attach(entry, (struct str){copy, answer.n}); // not in the list yet: it makes no room of itself
        list_push_front(&recent, &entry->recent);
    }
    pthread_mutex_unlock(&lock);
    if (!kept)
        free(copy);
}

void replay_table_drop(struct replay_hash name, uint64_t token)
{
    pthread_mutex_lock(&lock);
    struct entry **at = find(name);
    if (*at && (*at)->token == token)
        forget(at);
    pthread_mutex_unlock(&lock);
}

struct replay_table_counts replay_table_counts(void)
{
    pthread_mutex_lock(&lock);
    struct replay_table_counts now = counts;
    pthread_mutex_unlock(&lock);
    return now;
}
