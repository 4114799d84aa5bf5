#include "auth/deny.h"

#include "base/json.h"
#include "base/json_parse.h"
#include "base/siphash.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>

enum { FIRST_PLACES = 1024 };

// 32 bytes. until 0: the place is empty.
struct place {
    struct hash128 key;
    int64_t before; // jti: INT64_MAX
    int64_t until;
};

struct table {
    struct place *places;
    uint32_t capacity, count; // capacity: a power of two, at most half full
};

// Readers see a whole table: it grows and is swept beside the one in use, and only the exchange shuts them
// out.
static pthread_rwlock_t lock = PTHREAD_RWLOCK_WRITER_NONRECURSIVE_INITIALIZER_NP;
static pthread_mutex_t writing = PTHREAD_MUTEX_INITIALIZER; // before lock
static struct table table;
static int64_t soonest = INT64_MAX; // under writing: nothing can be forgotten before
static atomic_uint_fast64_t version = 1;
static atomic_uint entries;

// ---- the table ----

enum { OF_JTI = 1, OF_SUBJECT = 2 };

// The issuer's length stands in front, so that no two pairs of names make one text.
static struct hash128 key_of(unsigned kind, struct str issuer, struct str name)
{
    char text[DENY_TEXT_BYTES];
    if (issuer.n)
        memcpy(text, issuer.p, issuer.n);
    memcpy(text + issuer.n, name.p, name.n);
    return siphash128(siphash_process_key(), (uint64_t)issuer.n << 8 | kind,
                      (struct str){text, issuer.n + name.n});
}

static struct place *place_of(const struct table *in, struct hash128 key)
{
    for (uint32_t i = (uint32_t)key.lo & (in->capacity - 1);; i = (i + 1) & (in->capacity - 1)) {
        struct place *place = &in->places[i];
        if (!place->until || (place->key.lo == key.lo && place->key.hi == key.hi))
            return place;
    }
}

// A copy without what is past. False: memory is out.
static bool copy_table(struct table *to, const struct table *from, uint32_t capacity, int64_t now_s,
                       int64_t *first)
{
    *to = (struct table){.places = calloc(capacity, sizeof *to->places), .capacity = capacity};
    *first = INT64_MAX;
    if (!to->places)
        return false;
    for (uint32_t i = 0; i < from->capacity; i++) {
        const struct place *place = &from->places[i];
        if (!place->until || place->until <= now_s)
            continue;
        *place_of(to, place->key) = *place;
        to->count++;
        if (place->until < *first)
            *first = place->until;
    }
    return true;
}

// Under writing.
static bool replace(uint32_t capacity, int64_t now_s)
{
    struct table next, before = table; // nobody else writes
    int64_t first;
    if (!copy_table(&next, &before, capacity, now_s, &first))
        return false;
    pthread_rwlock_wrlock(&lock);
    table = next;
    pthread_rwlock_unlock(&lock);
    soonest = first;
    atomic_store(&entries, next.count);
    free(before.places);
    return true;
}

static bool make_room(int64_t now_s)
{
    if (table.count >= DENY_ENTRIES && (soonest > now_s || !replace(table.capacity, now_s)))
        return false;
    if (table.count < DENY_ENTRIES && table.count * 2 < table.capacity)
        return true;
    return table.count < DENY_ENTRIES && replace(table.capacity ? table.capacity * 2 : FIRST_PLACES, now_s);
}

// ---- adding and asking ----

static bool is_valid(const struct deny_entry *entry)
{
    struct str name = entry->jti.n ? entry->jti : entry->subject;
    return (entry->jti.n > 0) != (entry->subject.n > 0) && entry->issuer.n <= DENY_TEXT_BYTES &&
           name.n <= DENY_TEXT_BYTES - entry->issuer.n;
}

static enum deny_result insert(const struct place *wanted, int64_t now_s)
{
    const struct place *known = table.capacity ? place_of(&table, wanted->key) : NULL;
    bool is_new = !known || !known->until;
    if (!is_new && known->until >= wanted->until && known->before >= wanted->before)
        return DENY_KNOWN;
    if (is_new && !make_room(now_s))
        return DENY_FULL;
    struct place *place = place_of(&table, wanted->key);
    pthread_rwlock_wrlock(&lock);
    if (is_new) {
        *place = *wanted;
        table.count++;
    } else { // the later of both: an entry only grows
        place->before = place->before > wanted->before ? place->before : wanted->before;
        place->until = place->until > wanted->until ? place->until : wanted->until;
    }
    atomic_store(&entries, table.count); // first: who sees the version asks
    atomic_fetch_add(&version, 1);
    pthread_rwlock_unlock(&lock);
    if (wanted->until < soonest)
        soonest = wanted->until;
    return DENY_ADDED;
}

enum deny_result deny_add(const struct deny_entry *entry, int64_t now_s)
{
    if (!is_valid(entry))
        return DENY_BAD;
    if (entry->until <= now_s)
        return DENY_PAST;
    bool by_jti = entry->jti.n > 0;
    struct place place = {
        .key = key_of(by_jti ? OF_JTI : OF_SUBJECT, entry->issuer, by_jti ? entry->jti : entry->subject),
        .before = by_jti ? INT64_MAX : entry->before,
        .until = entry->until,
    };
    pthread_mutex_lock(&writing);
    enum deny_result result = insert(&place, now_s);
    pthread_mutex_unlock(&writing);
    return result;
}

struct question {
    struct hash128 keys[4];
    unsigned count;
};

// What is too long to be in an entry is in none.
static void ask_for(struct question *question, unsigned kind, struct str issuer, struct str name)
{
    if (!name.n || name.n > DENY_TEXT_BYTES)
        return;
    question->keys[question->count++] = key_of(kind, STR_NULL, name);
    if (issuer.n && issuer.n <= DENY_TEXT_BYTES - name.n)
        question->keys[question->count++] = key_of(kind, issuer, name);
}

bool deny_has(struct str issuer, struct str jti, struct str subject, int64_t issued_at, int64_t now_s)
{
    struct question question = {.count = 0};
    bool found = false;
    if (!atomic_load(&entries))
        return false;
    ask_for(&question, OF_JTI, issuer, jti);
    ask_for(&question, OF_SUBJECT, issuer, subject);
    pthread_rwlock_rdlock(&lock);
    for (unsigned i = 0; table.capacity && i < question.count && !found; i++) {
        const struct place *place = place_of(&table, question.keys[i]);
        found = place->until > now_s && issued_at <= place->before;
    }
    pthread_rwlock_unlock(&lock);
    return found;
}

uint64_t deny_version(void)
{
    return atomic_load(&version);
}

uint32_t deny_count(void)
{
    return atomic_load(&entries);
}

void deny_sweep(int64_t now_s)
{
    pthread_mutex_lock(&writing);
    uint32_t capacity = table.capacity;
    if (table.count && soonest <= now_s) {
        while (capacity > FIRST_PLACES && table.count * 8 < capacity) // what was a flood is over
            capacity /= 2;
        if (!replace(capacity, now_s))
            soonest = now_s + 1; // memory is out: what is past is kept, and does no harm
    }
    pthread_mutex_unlock(&writing);
}

// ---- as text ----

struct str deny_print(const struct deny_entry *entry, struct arena *arena)
{
    struct buf out = {0};
    struct json json;
    json_init(&json, &out, false);
    json_object(&json);
    if (entry->issuer.n)
        json_field_string(&json, "iss", entry->issuer);
    if (entry->jti.n) {
        json_field_string(&json, "jti", entry->jti);
    } else {
        json_field_string(&json, "sub", entry->subject);
        json_key(&json, STR("before"));
        json_i64(&json, entry->before);
    }
    json_object_end(&json);
    struct str text = arena_copy(arena, buf_str(&out));
    buf_free(&out);
    return text;
}

static bool take_string(const struct json_value *object, struct str key, struct str *text)
{
    const struct json_value *value = json_get(object, key);
    *text = STR_NULL;
    if (!value)
        return true;
    if (value->kind != JSON_STRING || !value->text.n)
        return false;
    *text = value->text;
    return true;
}

bool deny_parse(struct str text, struct arena *arena, struct deny_entry *entry)
{
    const char *why;
    const struct json_value *object = json_parse(text, arena, &why);
    *entry = (struct deny_entry){0};
    return object && object->kind == JSON_OBJECT && take_string(object, STR("iss"), &entry->issuer) &&
           take_string(object, STR("jti"), &entry->jti) && take_string(object, STR("sub"), &entry->subject) &&
           (!entry->subject.n || json_integer(json_get(object, STR("before")), &entry->before)) &&
           is_valid(entry);
}
