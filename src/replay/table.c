#include "replay/table.h"

#include "replay/shelf.h"

#include <pthread.h>
#include <stdlib.h>

struct entry {
    struct shelf_item item; // held until it is answered; bytes: of its answer
    struct replay_hash print;
    uint64_t token; // of its holder; 0: it is answered
    uint64_t until_us;
    struct shared *answer; // NULL: none is kept
};

static void entry_free(struct shelf_item *item)
{
    struct entry *entry = container_of(item, struct entry, item);
    shared_unref(entry->answer);
    free(entry);
}

// One lock for all: a request holds it twice.
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static struct shelf shelf = SHELF_INIT(shelf, REPLAY_ENTRIES, REPLAY_BYTES, entry_free);
static uint32_t running;
static uint64_t last_token;

static struct entry *find(struct replay_hash name)
{
    struct shelf_item *item = shelf_find(&shelf, name);
    return item ? container_of(item, struct entry, item) : NULL;
}

static void forget(struct entry *entry)
{
    running -= entry->token != 0;
    shelf_remove(&shelf, &entry->item);
}

static enum replay_state state_of(struct entry *entry, struct replay_hash print, struct shared **answer)
{
    if (memcmp(&entry->print, &print, sizeof print) != 0)
        return REPLAY_OTHER;
    if (entry->token)
        return REPLAY_RUNNING;
    shelf_use(&shelf, &entry->item);
    if (!entry->answer)
        return REPLAY_LOST;
    *answer = shared_ref(entry->answer);
    return REPLAY_ANSWER;
}

static enum replay_state begin(struct replay_hash name, struct replay_hash print, uint64_t until_us,
                               uint64_t *token)
{
    struct entry *entry = shelf_make_room(&shelf, 1, 0) ? calloc(1, sizeof *entry) : NULL;
    if (!entry)
        return REPLAY_FULL;
    *token = ++last_token;
    *entry = (struct entry){.item.name = name, .print = print, .token = *token, .until_us = until_us};
    shelf_add(&shelf, &entry->item);
    running++;
    return REPLAY_NEW;
}

enum replay_state replay_table_claim(struct replay_hash name, struct replay_hash print, uint64_t now_us,
                                     uint64_t until_us, uint64_t *token, struct shared **answer)
{
    pthread_mutex_lock(&lock);
    struct entry *entry = find(name);
    if (entry && entry->until_us <= now_us) {
        forget(entry);
        entry = NULL;
    }
    enum replay_state state = entry ? state_of(entry, print, answer) : begin(name, print, until_us, token);
    pthread_mutex_unlock(&lock);
    return state;
}

// Its memory is asked for before the lock is held. False: none is kept.
static bool attach(struct entry *entry, struct shared *copy)
{
    if (!copy || !shelf_make_room(&shelf, 0, copy->n))
        return false;
    entry->answer = copy;
    shelf_weigh(&shelf, &entry->item, copy->n);
    return true;
}

void replay_table_keep(struct replay_hash name, uint64_t token, struct str answer, uint64_t until_us)
{
    struct shared *copy = answer.n ? shared_copy(answer) : NULL;
    pthread_mutex_lock(&lock);
    struct entry *entry = find(name);
    bool kept = false;
    if (entry && entry->token == token) {
        entry->token = 0;
        entry->until_us = until_us;
        running--;
        kept = attach(entry, copy); // held: it makes no room of itself
        shelf_use(&shelf, &entry->item);
    }
    pthread_mutex_unlock(&lock);
    if (!kept)
        shared_unref(copy);
}

void replay_table_drop(struct replay_hash name, uint64_t token)
{
    pthread_mutex_lock(&lock);
    struct entry *entry = find(name);
    if (entry && entry->token == token)
        forget(entry);
    pthread_mutex_unlock(&lock);
}

struct replay_table_counts replay_table_counts(void)
{
    pthread_mutex_lock(&lock);
    struct replay_table_counts now = {shelf.count, running, shelf.bytes};
    pthread_mutex_unlock(&lock);
    return now;
}
