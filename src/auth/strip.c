// What clients may not say: the names that tell services who calls. Nearly every field of every request is
// none of them, so each is looked at twice and cheaply, its length and its last character, before any names
// are compared.
#include "auth/auth.h"

#include "base/arena.h"

enum { LENGTHS = 64 }; // longer names share a place with shorter ones

struct auth_guarded {
    uint32_t last[LENGTHS]; // by length: which last characters there are, by their five lower bits
    const struct str *names;
    uint32_t count;
};

static bool is_alphanumeric(char c)
{
    return (c >= '0' && c <= '9') || ((c | 0x20) >= 'a' && (c | 0x20) <= 'z');
}

static char fold(char c)
{
    if (!is_alphanumeric(c))
        return '-';
    return c >= 'A' && c <= 'Z' ? (char)(c | 0x20) : c;
}

struct str auth_fold(struct str name, struct arena *arena)
{
    char *folded = arena_alloc(arena, name.n);
    for (size_t i = 0; i < name.n; i++)
        folded[i] = fold(name.p[i]);
    return (struct str){folded, name.n};
}

const struct auth_guarded *auth_guarded_new(const struct str *names, uint32_t count, struct arena *arena)
{
    if (!count)
        return NULL;
    struct auth_guarded *guarded = arena_new(arena, struct auth_guarded);
    struct str *kept = arena_array(arena, struct str, count);
    for (uint32_t i = 0; i < count; i++) {
        struct str name = names[i];
        if (!name.n)
            continue;
        struct str folded = auth_fold(name, arena);
        // Five bits do not tell the letters' case apart. What stands for a dash may be anything.
        char last = folded.p[name.n - 1];
        guarded->last[name.n % LENGTHS] |= last == '-' ? UINT32_MAX : UINT32_C(1) << (last & 31);
        kept[guarded->count++] = folded;
    }
    guarded->names = kept;
    return guarded;
}

static bool is_spelling_of(struct str name, struct str folded)
{
    if (name.n != folded.n)
        return false;
    for (size_t i = name.n; i-- > 0;) // most names begin alike: X-
        if (fold(name.p[i]) != folded.p[i])
            return false;
    return true;
}

static bool is_guarded(const struct auth_guarded *guarded, struct str name)
{
    for (uint32_t i = 0; i < guarded->count; i++)
        if (is_spelling_of(name, guarded->names[i]))
            return true;
    return false;
}

void auth_strip(const struct auth *auth, struct headers *headers)
{
    const struct auth_guarded *guarded = auth->guarded;
    if (!guarded)
        return;
    for (struct header *header = headers->v, *end = header + headers->count; header < end; header++) {
        struct str name = header->name;
        if (name.n && guarded->last[name.n % LENGTHS] >> (name.p[name.n - 1] & 31) & 1 &&
            is_guarded(guarded, name))
            header->id = HEADER_GONE;
    }
}
