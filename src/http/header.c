#include "http/header.h"

#include "base/arena.h"
#include "base/check.h"
#include "base/swar.h"
#include "http/chars.h"
#include "http/header_lookup.h"

struct header_slot header_slots[HEADER_SLOTS];
struct header_entry header_entries[HEADER_ID_COUNT];

static const struct str names[HEADER_ID_COUNT] = {
#define X(id, name) [id] = {name, sizeof(name) - 1},
    HEADER_NAMES(X)
#undef X
};

__attribute__((constructor)) static void fill_table(void)
{
    _Static_assert(HEADER_ID_COUNT < HEADER_GONE && HEADER_ID_COUNT < HEADER_SLOTS / 2,
                   "the table is nearly full");
    for (unsigned id = 1; id < HEADER_ID_COUNT; id++) {
        struct str name = names[id];
        check(name.n >= 2 && name.n <= HEADER_NAME_MAX);
        memcpy(header_entries[id].name, name.p, name.n);
        for (size_t i = 0; i < name.n; i++)
            header_entries[id].fold[i] = IS_ALPHA(name.p[i]) ? 0x20 : 0;
        unsigned slot = header_hash(name.p, name.n);
        while (header_slots[slot].length)
            slot = (slot + 1) % HEADER_SLOTS;
        header_slots[slot] = (struct header_slot){.length = (uint8_t)name.n, .id = (uint8_t)id};
    }
}

enum header_id header_id_of(struct str name)
{
    return name.n ? header_lookup(name.p, name.n) : HEADER_OTHER;
}

struct str header_name(enum header_id id)
{
    check(id > HEADER_OTHER && id < HEADER_ID_COUNT);
    return names[id];
}

static bool all_of(struct str s, unsigned classes)
{
    for (size_t i = 0; i < s.n; i++)
        if (!char_is(s.p[i], classes))
            return false;
    return true;
}

bool header_name_valid(struct str name)
{
    return name.n && all_of(name, CHAR_TOKEN);
}

// Is there a byte in the word that a value may not hold, or HTAB? (May be wrong with yes.)
static inline uint64_t controls(uint64_t word)
{
    uint64_t del = word ^ SWAR_EACH(0x7f);
    return (((word - SWAR_EACH(0x20)) & ~word) | ((del - SWAR_EACH(1)) & ~del)) & SWAR_EACH(0x80);
}

static inline swar_vector vector_controls(const char *p)
{
    swar_vector v = swar_load_vector(p);
    return ((v & ~0x1f) == 0) | (v == 0x7f);
}

// Whether a short look finds none. The last piece overlaps the one before it.
static bool has_no_controls(struct str value)
{
    if (value.n >= SWAR_VECTOR) {
        size_t last = value.n - SWAR_VECTOR;
        swar_vector found = vector_controls(value.p + last);
        for (size_t i = 0; i < last; i += SWAR_VECTOR)
            found |= vector_controls(value.p + i);
        return swar_is_zero(found);
    }
    if (value.n >= sizeof(uint64_t))
        return !(controls(swar_load8(value.p)) | controls(swar_load8(value.p + value.n - sizeof(uint64_t))));
    return false;
}

bool header_value_valid(struct str value)
{
    return has_no_controls(value) || all_of(value, CHAR_VALUE);
}

struct header *headers_find(const struct headers *headers, enum header_id id)
{
    for (uint32_t i = 0; i < headers->count; i++)
        if (headers->v[i].id == id)
            return &headers->v[i];
    return NULL;
}

static bool has_name(const struct header *header, struct str name)
{
    return header->name.n == name.n && header->id != HEADER_GONE && str_eq_fold(header->name, name);
}

struct str headers_value(const struct headers *headers, enum header_id id)
{
    const struct header *header = headers_find(headers, id);
    return header ? header->value : STR_NULL;
}

struct header *headers_find_name(const struct headers *headers, struct str name)
{
    enum header_id id = header_id_of(name);
    if (id != HEADER_OTHER)
        return headers_find(headers, id);
    for (uint32_t i = 0; i < headers->count; i++)
        if (has_name(&headers->v[i], name))
            return &headers->v[i];
    return NULL;
}

static struct header *take_slot(struct headers *headers, struct arena *arena)
{
    if (headers->count == headers->capacity) {
        uint32_t capacity = headers->capacity ? headers->capacity * 2 : 16;
        struct header *v = arena_alloc(arena, capacity * sizeof *v);
        if (headers->count)
            memcpy(v, headers->v, headers->count * sizeof *v);
        headers->v = v;
        headers->capacity = capacity;
    }
    return &headers->v[headers->count++];
}

void headers_add(struct headers *headers, struct arena *arena, struct str name, struct str value)
{
    *take_slot(headers, arena) = (struct header){.name = name, .value = value, .id = header_id_of(name)};
}

void headers_add_id(struct headers *headers, struct arena *arena, enum header_id id, struct str value)
{
    headers_add_as(headers, arena, id, header_name(id), value);
}

void headers_add_as(struct headers *headers, struct arena *arena, enum header_id id, struct str name,
                    struct str value)
{
    *take_slot(headers, arena) = (struct header){.name = name, .value = value, .id = id};
}

unsigned headers_remove(struct headers *headers, enum header_id id)
{
    unsigned removed = 0;
    for (uint32_t i = 0; i < headers->count; i++) {
        if (headers->v[i].id == id) {
            headers->v[i].id = HEADER_GONE;
            removed++;
        }
    }
    return removed;
}

unsigned headers_remove_name(struct headers *headers, struct str name)
{
    enum header_id id = header_id_of(name);
    if (id != HEADER_OTHER)
        return headers_remove(headers, id);
    unsigned removed = 0;
    for (uint32_t i = 0; i < headers->count; i++) {
        if (has_name(&headers->v[i], name)) {
            headers->v[i].id = HEADER_GONE;
            removed++;
        }
    }
    return removed;
}

void headers_set(struct headers *headers, struct arena *arena, struct str name, struct str value)
{
    headers_remove_name(headers, name);
    headers_add(headers, arena, name, value);
}

bool headers_list_has(const struct headers *headers, enum header_id id, struct str token)
{
    for (uint32_t i = 0; i < headers->count; i++) {
        if (headers->v[i].id != id)
            continue;
        struct str rest = headers->v[i].value, element;
        while (str_next_token(&rest, &element))
            if (str_eq_fold(element, token))
                return true;
    }
    return false;
}

bool header_is_hop_by_hop(enum header_id id)
{
    switch (id) {
    case HEADER_CONNECTION:
    case HEADER_TRANSFER_ENCODING:
    case HEADER_TE:
    case HEADER_TRAILER:
    case HEADER_UPGRADE:
    case HEADER_KEEP_ALIVE:
    case HEADER_PROXY_CONNECTION:
    case HEADER_PROXY_AUTHENTICATE:
    case HEADER_PROXY_AUTHORIZATION:
    case HEADER_HTTP2_SETTINGS: return true;
    default: return false;
    }
}

// What a peer must not be able to strip by naming it in Connection (CVE-2022-31813): Host, framing, and what
// the gateway itself tells upstreams.
static bool is_protected(enum header_id id)
{
    switch (id) {
    case HEADER_HOST:
    case HEADER_CONTENT_LENGTH:
    case HEADER_VIA:
    case HEADER_FORWARDED:
    case HEADER_X_FORWARDED_FOR:
    case HEADER_X_FORWARDED_PROTO:
    case HEADER_X_FORWARDED_HOST:
    case HEADER_X_FORWARDED_PORT:
    case HEADER_X_FORWARDED_PREFIX:
    case HEADER_X_FORWARDED_URI:
    case HEADER_X_FORWARDED_METHOD:
    case HEADER_X_FORWARDED_SERVER:
    case HEADER_X_REAL_IP:
    case HEADER_X_FORWARDED_CLIENT_CERT:
    case HEADER_X_REQUEST_ID:
    case HEADER_TRACEPARENT:
    case HEADER_TRACESTATE: return true;
    default: return false;
    }
}

static void remove_named(struct headers *headers, struct str list)
{
    struct str token;
    while (str_next_token(&list, &token)) {
        enum header_id id = header_id_of(token);
        if (id == HEADER_OTHER)
            headers_remove_name(headers, token);
        else if (!is_protected(id) && !header_is_hop_by_hop(id)) // the latter are removed anyway
            headers_remove(headers, id);
    }
}

void headers_remove_hop_by_hop(struct headers *headers)
{
    for (uint32_t i = 0; i < headers->count; i++)
        if (headers->v[i].id == HEADER_CONNECTION)
            remove_named(headers, headers->v[i].value);
    for (uint32_t i = 0; i < headers->count; i++)
        if (header_is_hop_by_hop(headers->v[i].id))
            headers->v[i].id = HEADER_GONE;
}
