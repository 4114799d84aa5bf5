#include "replay/copies.h"

#include "replay/shelf.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>

struct variant {
    struct list listed; // in its resource: the one that was kept last comes first
    struct replay_hash place;
    uint64_t caller;
    uint32_t upstream;
    bool is_shared;             // two callers have had it kept
    struct str vary, selection; // in bytes, as the copy's span is
    struct copy copy;           // its span apart, for those who send it may have it for longer
    size_t size;                // of all of it
    char bytes[];
};

struct resource {
    struct shelf_item item; // bytes: of it and its variants
    uint64_t caller;        // who had it kept first
    struct list variants;
    uint32_t count;
};

static struct variant *variant_at(struct list *node)
{
    return container_of(node, struct variant, listed);
}

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
// When resources were last forgotten, by their names: those that share a place lose a copy now and then.
enum { CHANGES = 1024 };
static uint64_t changes_us[CHANGES], drop_us;

// What upstreams have on the shelf, by their numbers.
static struct tally {
    uint32_t copies;
    uint64_t bytes;
} * tallies;
static uint32_t tally_count;

static bool tally_add(const struct variant *variant)
{
    if (variant->upstream >= tally_count) {
        uint32_t count = variant->upstream + 1;
        struct tally *more = realloc(tallies, count * sizeof *more);
        if (!more)
            return false;
        memset(more + tally_count, 0, (count - tally_count) * sizeof *more);
        tallies = more;
        tally_count = count;
    }
    tallies[variant->upstream].copies++;
    tallies[variant->upstream].bytes += variant->size;
    return true;
}

static void variant_free(struct variant *variant)
{
    shared_unref(variant->copy.in);
    free(variant);
}

// One that is on the shelf.
static void variant_drop(struct variant *variant)
{
    tallies[variant->upstream].copies--;
    tallies[variant->upstream].bytes -= variant->size;
    variant_free(variant);
}

static void resource_free(struct shelf_item *item)
{
    struct resource *resource = container_of(item, struct resource, item);
    list_each (&resource->variants, node)
        variant_drop(variant_at(node));
    free(resource);
}

static struct shelf shelf = SHELF_INIT(shelf, COPIES_RESOURCES, COPIES_BYTES, resource_free);
static atomic_bool is_any;

static void enter(void)
{
    pthread_mutex_lock(&lock);
}

static void leave(void)
{
    atomic_store_explicit(&is_any, shelf.count > 0, memory_order_relaxed);
    pthread_mutex_unlock(&lock);
}

bool copies_any(void)
{
    return atomic_load_explicit(&is_any, memory_order_relaxed);
}

static uint64_t *change_of(const struct replay_hash *resource)
{
    uint32_t number;
    memcpy(&number, resource->bytes, sizeof number); // as good as random
    return &changes_us[number % CHANGES];
}

static struct resource *find(struct replay_hash name)
{
    struct shelf_item *item = shelf_find(&shelf, name);
    return item ? container_of(item, struct resource, item) : NULL;
}

// ---- what of a request selects an answer ----

// The names, a line each; behind a colon the values, when there are any.
struct text {
    char bytes[COPY_SELECTION_BYTES];
    size_t n;
    bool is_full;
};

static void put(struct text *text, struct str s)
{
    if (text->n + s.n > sizeof text->bytes) {
        text->is_full = true;
        return;
    }
    if (s.n)
        memcpy(text->bytes + text->n, s.p, s.n);
    text->n += s.n;
}

static void put_values(struct text *text, const struct headers *headers, struct str name)
{
    struct str before = STR(":");
    for (uint32_t i = 0; i < headers->count; i++) {
        if (headers->v[i].id == HEADER_GONE || !str_eq_fold(headers->v[i].name, name))
            continue;
        put(text, before);
        put(text, headers->v[i].value);
        before = STR(", ");
    }
}

// False: that is too much.
static bool select_fields(const struct headers *request, struct str vary, struct text *text)
{
    text->n = 0;
    text->is_full = false;
    for (struct str name; str_next_token(&vary, &name);) {
        if (str_eq_fold(name, STR("Host"))) // every resource has one
            continue;
        put(text, name);
        put_values(text, request, name);
        put(text, STR("\n"));
    }
    return !text->is_full;
}

// ---- one copy ----

static struct str append(char **at, struct str s)
{
    char *from = *at;
    *at = s.n ? mempcpy(from, s.p, s.n) : from;
    return (struct str){from, s.n};
}

static struct variant *variant_new(const struct copy_key *key, struct str vary, struct str selection,
                                   const struct copy *copy, struct str body)
{
    size_t size = sizeof(struct variant) + vary.n + selection.n;
    struct variant *variant = malloc(size);
    struct shared *span = shared_new(copy->span.n + body.n);
    if (!variant || !span) {
        free(variant);
        shared_unref(span);
        return NULL;
    }
    *variant = (struct variant){.place = key->place,
                                .caller = key->caller,
                                .upstream = key->upstream,
                                .copy = *copy,
                                .size = size + sizeof *span + span->n};
    list_init(&variant->listed);
    char *at = variant->bytes;
    variant->vary = append(&at, vary);
    variant->selection = append(&at, selection);
    at = span->bytes;
    append(&at, copy->span);
    append(&at, body);
    variant->copy.in = span;
    variant->copy.span = shared_str(span);
    return variant;
}

static bool is_at(const struct variant *variant, const struct replay_hash *place)
{
    return memcmp(&variant->place, place, sizeof *place) == 0;
}

static bool stands_for(const struct variant *variant, const struct variant *older)
{
    return variant->copy.is_public == older->copy.is_public && str_eq(variant->vary, older->vary) &&
           str_eq(variant->selection, older->selection) && is_at(variant, &older->place);
}

static bool fits(const struct variant *variant, const struct copy_key *key, const struct headers *request,
                 bool is_personal)
{
    struct text text;
    return (variant->copy.is_public || !is_personal) && is_at(variant, &key->place) &&
           select_fields(request, variant->vary, &text) &&
           str_eq(variant->selection, (struct str){text.bytes, text.n});
}

// ---- one resource ----

static void drop(struct resource *resource, struct variant *variant)
{
    list_remove(&variant->listed);
    resource->count--;
    shelf_weigh(&shelf, &resource->item, resource->item.bytes - variant->size);
    variant_drop(variant);
}

static void replace_older(struct resource *resource, struct variant *variant)
{
    list_each (&resource->variants, node) {
        struct variant *older = variant_at(node);
        if (!stands_for(variant, older))
            continue;
        variant->is_shared = older->is_shared || older->caller != variant->caller;
        drop(resource, older);
    }
}

// Those that only one caller has a use for go first.
static void drop_oldest(struct resource *resource)
{
    struct variant *oldest = variant_at(resource->variants.prev);
    list_each (&resource->variants, node)
        if (!variant_at(node)->is_shared)
            oldest = variant_at(node);
    drop(resource, oldest);
}

// It is held. NULL: there is no room, or no memory.
static struct resource *resource_for(const struct copy_key *key)
{
    struct resource *resource = find(key->resource);
    if (resource) {
        shelf_hold(&resource->item);
        return resource;
    }
    if (!shelf_make_room(&shelf, 1, sizeof *resource))
        return NULL;
    resource = calloc(1, sizeof *resource);
    if (!resource)
        return NULL;
    resource->item.name = key->resource;
    resource->item.bytes = sizeof *resource;
    resource->caller = key->caller;
    list_init(&resource->variants);
    shelf_add(&shelf, &resource->item);
    return resource;
}

// Asked for before a change that is known of, or before it was dropped.
static bool is_outdated(const struct copy_key *key, const struct copy *copy)
{
    return copy->asked_us <= *change_of(&key->resource) || copy->asked_us <= drop_us;
}

static bool put_variant(const struct copy_key *key, struct variant *variant)
{
    struct resource *resource = resource_for(key);
    if (!resource)
        return false;
    replace_older(resource, variant);
    if (resource->count == COPY_VARIANTS)
        drop_oldest(resource);
    bool has_room = shelf_make_room(&shelf, 0, variant->size) && tally_add(variant);
    if (has_room) {
        list_push_front(&resource->variants, &variant->listed);
        resource->count++;
        shelf_weigh(&shelf, &resource->item, resource->item.bytes + variant->size);
    }
    if (resource->caller == key->caller)
        shelf_use(&shelf, &resource->item);
    else
        shelf_prefer(&shelf, &resource->item);
    if (!resource->count)
        shelf_remove(&shelf, &resource->item);
    return has_room;
}

bool copies_keep(const struct copy_key *key, const struct headers *request, struct str vary,
                 const struct copy *copy, struct str body)
{
    struct text selection;
    if (copy->span.n + body.n > COPY_BYTES || vary.n > COPY_SELECTION_BYTES ||
        !select_fields(request, vary, &selection))
        return false;
    struct variant *variant = variant_new(key, vary, (struct str){selection.bytes, selection.n}, copy, body);
    if (!variant)
        return false;
    enter();
    bool is_kept = !is_outdated(key, copy) && put_variant(key, variant);
    leave();
    if (!is_kept)
        variant_free(variant);
    return is_kept;
}

static struct variant *find_variant(struct resource *resource, const struct copy_key *key,
                                    const struct headers *request, bool is_personal, uint64_t now_us)
{
    list_each (&resource->variants, node) {
        if (variant_at(node)->copy.until_us <= now_us)
            drop(resource, variant_at(node));
        else if (fits(variant_at(node), key, request, is_personal))
            return variant_at(node);
    }
    return NULL;
}

bool copies_find(const struct copy_key *key, const struct headers *request, bool is_personal, uint64_t now_us,
                 struct copy *copy)
{
    enter();
    struct resource *resource = find(key->resource);
    struct variant *variant = resource ? find_variant(resource, key, request, is_personal, now_us) : NULL;
    if (variant) {
        shelf_use(&shelf, &resource->item);
        *copy = variant->copy;
        shared_ref(copy->in);
    }
    if (resource && !resource->count)
        shelf_remove(&shelf, &resource->item);
    leave();
    return variant != NULL;
}

static void drop_at(struct resource *resource, const struct replay_hash *place)
{
    list_each (&resource->variants, node)
        if (!place || is_at(variant_at(node), place))
            drop(resource, variant_at(node));
}

void copies_forget(struct replay_hash name, const struct replay_hash *place, uint64_t now_us)
{
    enter();
    *change_of(&name) = now_us;
    struct resource *resource = find(name);
    if (resource)
        drop_at(resource, place);
    if (resource && !resource->count)
        shelf_remove(&shelf, &resource->item);
    leave();
}

struct copies_counts copies_counts(void)
{
    enter();
    struct copies_counts now = {.resources = shelf.count, .bytes = shelf.bytes};
    for (uint32_t i = 0; i < tally_count; i++)
        now.copies += tallies[i].copies;
    leave();
    return now;
}

struct copies_counts copies_of(uint32_t upstream)
{
    struct copies_counts now = {0};
    enter();
    if (upstream < tally_count)
        now = (struct copies_counts){.copies = tallies[upstream].copies, .bytes = tallies[upstream].bytes};
    leave();
    return now;
}

static uint32_t drop_of(struct resource *resource, int64_t upstream)
{
    uint32_t before = resource->count;
    list_each (&resource->variants, node)
        if (upstream == COPIES_OF_ALL || variant_at(node)->upstream == upstream)
            drop(resource, variant_at(node));
    return before - resource->count;
}

static uint32_t drop_in(struct list *recent, int64_t upstream)
{
    uint32_t dropped = 0;
    list_each (recent, at) {
        struct resource *resource =
            container_of(container_of(at, struct shelf_item, recent), struct resource, item);
        dropped += drop_of(resource, upstream);
        if (!resource->count)
            shelf_remove(&shelf, &resource->item);
    }
    return dropped;
}

uint32_t copies_drop(int64_t upstream, uint64_t now_us)
{
    enter();
    drop_us = now_us;
    uint32_t dropped = drop_in(&shelf.plain, upstream) + drop_in(&shelf.preferred, upstream);
    leave();
    return dropped;
}
