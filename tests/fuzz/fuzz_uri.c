// Paths, queries and authorities. A path that is accepted comes out canonical: once normalised it stays as it
// is, holds no dot segment, no escape of an unreserved character, control, slash or backslash, and is no
// longer than it was.
#include "h1_input.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n);

static bool is_hex(char c)
{
    return (c >= '0' && c <= '9') || (c >= 'A' && c <= 'F');
}

static unsigned value_of(const char *p)
{
    unsigned high = (unsigned)(p[0] <= '9' ? p[0] - '0' : p[0] - 'A' + 10);
    unsigned low = (unsigned)(p[1] <= '9' ? p[1] - '0' : p[1] - 'A' + 10);
    return high << 4 | low;
}

static bool is_unreserved(unsigned c)
{
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '-' ||
           c == '.' || c == '_' || c == '~';
}

static void check_bytes(struct str path)
{
    for (size_t i = 0; i < path.n; i++) {
        unsigned c = (unsigned char)path.p[i];
        check(c > 0x20 && c < 0x7f && !strchr("\\?#\"<>^`{|}[]", (int)c));
        if (c != '%')
            continue;
        check(path.n - i >= 3 && is_hex(path.p[i + 1]) && is_hex(path.p[i + 2]));
        unsigned value = value_of(path.p + i + 1);
        check(value >= 0x20 && value != 0x7f && value != '/' && value != '\\' && !is_unreserved(value));
        // "%25" and two hex digits would be an escape after one more decoding.
        check(value != '%' || path.n - i < 5 ||
              !is_hex((char)(path.p[i + 3] & ~(path.p[i + 3] > '9' ? 0x20 : 0))) ||
              !is_hex((char)(path.p[i + 4] & ~(path.p[i + 4] > '9' ? 0x20 : 0))));
    }
}

static void check_segments(struct str path, bool merged)
{
    struct str rest = str_skip(path, 1);
    for (bool last = false; !last;) {
        size_t n = str_find(rest, '/');
        struct str segment = {rest.p, n};
        last = n == rest.n;
        check(!str_eq(segment, STR(".")) && !str_eq(segment, STR("..")));
        check(!str_starts(segment, STR(".;")) && !str_starts(segment, STR("..;")));
        check(!merged || last || segment.n);
        if (!last)
            rest = str_skip(rest, n + 1);
    }
}

static void check_path(struct str text, bool merge, struct arena *arena)
{
    struct str path, again;
    const char *why = NULL;
    if (uri_normalise_path(text, merge, arena, &path, &why) == URI_BAD) {
        check(why);
        return;
    }
    check(path.n && path.n <= text.n && path.p[0] == '/');
    check_bytes(path);
    check_segments(path, merge);
    check(uri_normalise_path(path, merge, arena, &again, &why) == URI_OK);
    check(str_eq(path, again));
    check(uri_query_valid(path));
}

static void check_authority(struct str text)
{
    struct str host, port;
    if (!uri_authority_split(text, &host, &port))
        return;
    check(host.n && host.p == text.p);
    check(port.n ? port.p + port.n == text.p + text.n : text.n <= host.n + 1);
    for (size_t i = 0; i < text.n; i++)
        check((unsigned char)text.p[i] > 0x20 && !strchr("/\\?#@%\"<>", text.p[i]));
}

// A query is valid when, and only when, its parts around a character that is no part of an escape are.
static void check_query(struct str text)
{
    size_t cut = str_find(text, '&');
    if (cut == text.n)
        return;
    bool parts = uri_query_valid((struct str){text.p, cut}) && uri_query_valid(str_skip(text, cut + 1));
    check(uri_query_valid(text) == parts);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
    struct arena arena;
    char *copy = exact_copy((const char *)data, n);
    struct str text = {copy, n};
    arena_init(&arena, NULL);
    check_path(text, false, &arena);
    check_path(text, true, &arena);
    check_authority(text);
    check_query(text);
    arena_reset(&arena);
    free(copy);
    return 0;
}
