#include "http/h1_scan.h"

#include "base/check.h"
#include "http/chars.h"
#include "http/header_lookup.h"

#if defined(__x86_64__)
#include <immintrin.h>
#endif

// The loops are written once, over these few steps; each instruction set gets its own copy with its own steps
// inlined. A step may read up to STEP bytes, all before limit, and falls back to plain C near it.
#define INLINE static inline __attribute__((always_inline))

enum { BLOCK = 64 };

struct masks {
    uint64_t lf, cr, control; // bit i for byte i of a block; control: any forbidden but CR and LF
};

typedef void masks_step(const char *block, struct masks *masks);
typedef size_t name_step(const char *p, const char *limit, bool *underscore);
typedef const char *line_end_step(const char *p, const char *limit);
typedef enum header_id lookup_step(const char *name, size_t n, const char *limit);

// ---- the loops

// What a block says, given the last bits of the one before it. False: nothing yet.
INLINE bool judge_block(struct masks m, uint64_t valid, uint64_t cr_before, uint64_t lf_before, size_t start,
                        enum h1_scanned *scanned, size_t *at)
{
    uint64_t bad = (((m.cr << 1 | cr_before) & valid) ^ m.lf) | m.control;
    uint64_t end = m.lf & (m.lf << 2 | lf_before);
    if (likely(!(bad | end)))
        return false;
    unsigned bad_at = bad ? (unsigned)__builtin_ctzll(bad) : BLOCK;
    unsigned end_at = end ? (unsigned)__builtin_ctzll(end) : BLOCK;
    *scanned = end_at < bad_at ? SCAN_END : SCAN_BAD;
    *at = start + (end_at < bad_at ? end_at + 1 : bad_at);
    return true;
}

// The masks of the last `rest` bytes of data[0..n), fewer than BLOCK: those of the last BLOCK bytes, shifted;
// of a copy, when there are fewer in all.
INLINE struct masks tail_masks(const char *data, size_t n, size_t rest, masks_step *step)
{
    struct masks m;
    char copy[BLOCK];
    if (n < BLOCK) {
        memset(copy, 0, sizeof copy);
        memcpy(copy + BLOCK - n, data, n);
    }
    step(n < BLOCK ? copy : data + n - BLOCK, &m);
    m.lf >>= BLOCK - rest;
    m.cr >>= BLOCK - rest;
    m.control >>= BLOCK - rest;
    return m;
}

// Finds the end of the head by bit arithmetic on 64 bytes at a time: an LF is right when, and only when, a CR
// is just before it; a right LF two bytes behind another one is an empty line.
INLINE enum h1_scanned scan_head(const char *data, size_t n, size_t *at, masks_step *step)
{
    enum h1_scanned scanned = SCAN_MORE;
    uint64_t cr_before = 0, lf_before = 2; // the last bits of the previous block; an LF stands before data
    struct masks m;
    size_t i = 0;
    for (; n - i >= BLOCK; i += BLOCK) {
        step(data + i, &m);
        if (judge_block(m, ~UINT64_C(0), cr_before, lf_before, i, &scanned, at))
            return scanned;
        cr_before = m.cr >> 63;
        lf_before = m.lf >> 62;
    }
    size_t rest = n - i;
    if (rest) {
        m = tail_masks(data, n, rest, step);
        judge_block(m, (UINT64_C(1) << rest) - 1, cr_before, lf_before, i, &scanned, at);
    }
    return scanned;
}

INLINE bool is_blank(char c)
{
    return c == ' ' || c == '\t';
}

static const char *why_not_a_name(const char *line, const char *after)
{
    if (is_blank(line[0]))
        return "folded header line";
    if (after == line && *after == ':')
        return "empty header name";
    if (is_blank(*after))
        return "white space in or behind a header name";
    return *after == '\r' ? "header line without a colon" : "character not allowed in a header name";
}

// The end of a line is looked for from its start, not from the value: the next line then depends on nothing
// that is found out about this one, and the processor works on several at once.
INLINE enum h1_fields_result scan_fields(struct h1_fields *f, name_step *name_length, line_end_step *line_end,
                                         lookup_step *lookup)
{
    const char *p = f->at, *const limit = f->limit;
    uint64_t seen = f->seen, repeated = f->repeated;
    enum h1_fields_result result = H1_FIELDS_DONE;
    uint32_t count = f->count, lines = f->lines;
    for (; p < f->stop; lines++) {
        if (unlikely(count == f->capacity)) {
            result = H1_FIELDS_FULL;
            break;
        }
        if (unlikely(lines == f->lines_max)) {
            result = H1_FIELDS_TOO_MANY;
            break;
        }
        const char *end = line_end(p, limit), *next = end + 2;
        bool underscore;
        size_t n = name_length(p, limit, &underscore);
        const char *value = p + n;
        if (unlikely(*value != ':' || n == 0)) {
            f->why = why_not_a_name(p, value);
            result = H1_FIELDS_BAD;
            break;
        }
        value += 1 + (value[1] == ' ');
        while (unlikely(is_blank(*value)))
            value++;
        while (end > value && (unsigned char)end[-1] <= ' ') // SP or HTAB: no other control is here
            end--;
        if (unlikely(underscore) && (f->drop_underscores || f->reject_underscores)) {
            if (f->reject_underscores) {
                f->why = "underscore in a header name";
                result = H1_FIELDS_BAD;
                break;
            }
            p = next;
            continue;
        }
        struct header *header = &f->v[count++];
        header->name = (struct str){p, n};
        header->value = str_range(value, end);
        header->id = lookup(p, n, limit);
        uint64_t bit = header_bit(header->id);
        repeated |= seen & bit;
        seen |= bit;
        p = next;
    }
    f->at = p;
    f->count = count;
    f->lines = lines;
    f->seen = seen;
    f->repeated = repeated;
    return result;
}

static bool always(void)
{
    return true;
}

// ---- plain C: the tails of the others, the whole on other processors, and what the others are tested
// against

static size_t name_length_plain(const char *p, const char *limit, bool *underscore)
{
    size_t n = 0;
    *underscore = false;
    while (p + n < limit && char_is(p[n], CHAR_TOKEN))
        *underscore |= p[n++] == '_';
    return n;
}

static enum header_id lookup_plain(const char *name, size_t n, const char *limit)
{
    (void)limit;
    return header_lookup(name, n);
}

static const char *line_end_plain(const char *p, const char *limit)
{
    const char *cr = memchr(p, '\r', (size_t)(limit - p));
    check(cr); // whole lines were promised
    return cr;
}

static const char *span_plain(const char *p, const char *limit, unsigned classes)
{
    while (p < limit && char_is(*p, classes))
        p++;
    return p;
}

static void masks_plain(const char *block, struct masks *m)
{
    *m = (struct masks){0};
    for (unsigned i = 0; i < BLOCK; i++) {
        uint64_t bit = UINT64_C(1) << i;
        if (block[i] == '\n')
            m->lf |= bit;
        else if (block[i] == '\r')
            m->cr |= bit;
        else if (!char_is(block[i], CHAR_VALUE))
            m->control |= bit;
    }
}

static const char *plain_path_plain(const char *p, const char *limit)
{
    return span_plain(p, limit, CHAR_PLAIN_PATH);
}

static const char *query_plain(const char *p, const char *limit)
{
    return span_plain(p, limit, CHAR_QUERY);
}

static enum h1_scanned head_plain(const char *data, size_t n, size_t *at)
{
    return scan_head(data, n, at, masks_plain);
}

static enum h1_fields_result fields_plain(struct h1_fields *fields)
{
    return scan_fields(fields, name_length_plain, line_end_plain, lookup_plain);
}

#if defined(__x86_64__)

// ---- SSE2: every x86-64

static inline __m128i load_16(const char *p)
{
    return _mm_loadu_si128((const __m128i *)(const void *)p);
}

static inline uint64_t mask_16(__m128i v)
{
    return (uint64_t)(unsigned)_mm_movemask_epi8(v);
}

static inline void masks_sse2(const char *block, struct masks *m)
{
    *m = (struct masks){0};
    for (unsigned i = 0; i < BLOCK; i += 16) {
        __m128i v = load_16(block + i);
        __m128i cr = _mm_cmpeq_epi8(v, _mm_set1_epi8('\r')), lf = _mm_cmpeq_epi8(v, _mm_set1_epi8('\n'));
        __m128i low = _mm_cmpeq_epi8(_mm_max_epu8(v, _mm_set1_epi8(0x1f)), _mm_set1_epi8(0x1f));
        __m128i good = _mm_or_si128(_mm_cmpeq_epi8(v, _mm_set1_epi8('\t')), _mm_or_si128(cr, lf));
        __m128i control = _mm_or_si128(_mm_andnot_si128(good, low), _mm_cmpeq_epi8(v, _mm_set1_epi8(0x7f)));
        m->lf |= mask_16(lf) << i;
        m->cr |= mask_16(cr) << i;
        m->control |= mask_16(control) << i;
    }
}

static inline const char *line_end_sse2(const char *p, const char *limit)
{
    for (; limit - p >= 16; p += 16) {
        unsigned cr = (unsigned)mask_16(_mm_cmpeq_epi8(load_16(p), _mm_set1_epi8('\r')));
        if (cr)
            return p + __builtin_ctz(cr);
    }
    return line_end_plain(p, limit);
}

static enum h1_scanned head_sse2(const char *data, size_t n, size_t *at)
{
    return scan_head(data, n, at, masks_sse2);
}

static enum h1_fields_result fields_sse2(struct h1_fields *fields)
{
    return scan_fields(fields, name_length_plain, line_end_sse2, lookup_plain);
}

// ---- AVX2

#define AVX2 __attribute__((target("avx2,bmi")))

// A set of ASCII characters as two shuffle tables: in[low nibble] has bit h when the character with high
// nibble h is in the set, and high[h] selects that bit. Bytes from 0x80 on select nothing.
#define BIT(IS, c) ((IS(c)) ? 1 << ((c) >> 4) : 0)
#define IN(IS, l)                                                                           \
    (char)(BIT(IS, (l)) | BIT(IS, (l) + 0x10) | BIT(IS, (l) + 0x20) | BIT(IS, (l) + 0x30) | \
           BIT(IS, (l) + 0x40) | BIT(IS, (l) + 0x50) | BIT(IS, (l) + 0x60) | BIT(IS, (l) + 0x70))
#define SET(IS)                                                                                            \
    {                                                                                                      \
        IN(IS, 0), IN(IS, 1), IN(IS, 2), IN(IS, 3), IN(IS, 4), IN(IS, 5), IN(IS, 6), IN(IS, 7), IN(IS, 8), \
            IN(IS, 9), IN(IS, 10), IN(IS, 11), IN(IS, 12), IN(IS, 13), IN(IS, 14), IN(IS, 15)              \
    }

static const char token_set[16] = SET(IS_TOKEN);
static const char plain_path_set[16] = SET(IS_PLAIN_PATH);
static const char query_set[16] = SET(IS_QUERY);
static const char high_set[16] = {1, 2, 4, 8, 16, 32, 64, (char)128};

AVX2 static inline __m256i load_32(const char *p)
{
    return _mm256_loadu_si256((const __m256i *)(const void *)p);
}

AVX2 static inline __m256i load_set(const char *set)
{
    return _mm256_broadcastsi128_si256(load_16(set));
}

// Bits of the bytes that are not in the set.
AVX2 static inline uint32_t outside(__m256i v, const char *set)
{
    __m256i in = _mm256_shuffle_epi8(load_set(set), v);
    __m256i high = _mm256_and_si256(_mm256_srli_epi16(v, 4), _mm256_set1_epi8(0x0f));
    __m256i bit = _mm256_shuffle_epi8(load_set(high_set), high);
    __m256i none = _mm256_cmpeq_epi8(_mm256_and_si256(in, bit), _mm256_setzero_si256());
    return (uint32_t)_mm256_movemask_epi8(none);
}

AVX2 static inline uint64_t mask_32(__m256i v)
{
    return (uint32_t)_mm256_movemask_epi8(v);
}

AVX2 static inline void masks_avx2(const char *block, struct masks *m)
{
    *m = (struct masks){0};
    for (unsigned i = 0; i < BLOCK; i += 32) {
        __m256i v = load_32(block + i);
        __m256i cr = _mm256_cmpeq_epi8(v, _mm256_set1_epi8('\r'));
        __m256i lf = _mm256_cmpeq_epi8(v, _mm256_set1_epi8('\n'));
        __m256i low = _mm256_cmpeq_epi8(_mm256_max_epu8(v, _mm256_set1_epi8(0x1f)), _mm256_set1_epi8(0x1f));
        __m256i good = _mm256_or_si256(_mm256_cmpeq_epi8(v, _mm256_set1_epi8('\t')), _mm256_or_si256(cr, lf));
        __m256i control =
            _mm256_or_si256(_mm256_andnot_si256(good, low), _mm256_cmpeq_epi8(v, _mm256_set1_epi8(0x7f)));
        m->lf |= mask_32(lf) << i;
        m->cr |= mask_32(cr) << i;
        m->control |= mask_32(control) << i;
    }
}

AVX2 static inline size_t name_length_avx2(const char *p, const char *limit, bool *underscore)
{
    if (likely(limit - p >= 32)) {
        __m256i v = load_32(p);
        uint32_t after = outside(v, token_set);
        if (likely(after)) {
            uint32_t low = (uint32_t)mask_32(_mm256_cmpeq_epi8(v, _mm256_set1_epi8('_')));
            *underscore = (low & (after - 1) & ~after) != 0; // an underscore before the first bit of after
            return (size_t)__builtin_ctz(after);
        }
    }
    return name_length_plain(p, limit, underscore);
}

AVX2 static inline uint32_t equals(const char *p, char c)
{
    return (uint32_t)mask_32(_mm256_cmpeq_epi8(load_32(p), _mm256_set1_epi8(c)));
}

// Two steps at a time: most lines end within them, so that the branch is well predicted.
AVX2 static inline const char *line_end_avx2(const char *p, const char *limit)
{
    for (; limit - p >= 64; p += 64) {
        uint64_t cr = (uint64_t)equals(p + 32, '\r') << 32 | equals(p, '\r');
        if (likely(cr))
            return p + __builtin_ctzll(cr);
    }
    return line_end_plain(p, limit);
}

// As header_lookup, with the whole name compared in one step.
AVX2 static inline enum header_id lookup_avx2(const char *name, size_t n, const char *limit)
{
    _Static_assert(HEADER_NAME_MAX == 32, "a name is one step");
    if (unlikely(limit - name < 32 || n > 32))
        return header_lookup(name, n);
    for (unsigned i = header_hash(name, n);; i = (i + 1) % HEADER_SLOTS) {
        struct header_slot slot = header_slots[i];
        if (slot.length == 0)
            return HEADER_OTHER;
        if (slot.length != n)
            continue;
        const struct header_entry *entry = &header_entries[slot.id];
        __m256i folded = _mm256_or_si256(load_32(name), load_32(entry->fold));
        uint64_t same = mask_32(_mm256_cmpeq_epi8(folded, load_32(entry->name)));
        if (((same + 1) & ((UINT64_C(1) << n) - 1)) == 0) // the first n bits are ones
            return (enum header_id)slot.id;
    }
}

AVX2 static inline const char *span_avx2(const char *p, const char *limit, const char *set, unsigned classes)
{
    for (; limit - p >= 32; p += 32) {
        uint32_t after = outside(load_32(p), set);
        if (after)
            return p + __builtin_ctz(after);
    }
    return span_plain(p, limit, classes);
}

AVX2 static enum h1_scanned head_avx2(const char *data, size_t n, size_t *at)
{
    return scan_head(data, n, at, masks_avx2);
}

AVX2 static enum h1_fields_result fields_avx2(struct h1_fields *fields)
{
    return scan_fields(fields, name_length_avx2, line_end_avx2, lookup_avx2);
}

AVX2 static const char *plain_path_avx2(const char *p, const char *limit)
{
    return span_avx2(p, limit, plain_path_set, CHAR_PLAIN_PATH);
}

AVX2 static const char *query_avx2(const char *p, const char *limit)
{
    return span_avx2(p, limit, query_set, CHAR_QUERY);
}

static bool has_avx2(void)
{
    __builtin_cpu_init(); // constructors may run before libgcc's own
    return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("bmi");
}

#endif

// ---- the choice

const struct h1_scanner h1_scanners[] = {
    {"plain", always, head_plain, fields_plain, plain_path_plain, query_plain},
#if defined(__x86_64__)
    {"sse2", always, head_sse2, fields_sse2, plain_path_plain, query_plain},
    {"avx2", has_avx2, head_avx2, fields_avx2, plain_path_avx2, query_avx2},
#endif
    {0},
};

struct h1_scanner h1_scan;

__attribute__((constructor)) static void choose_scanner(void)
{
    for (const struct h1_scanner *scanner = h1_scanners; scanner->name; scanner++)
        if (scanner->usable())
            h1_scan = *scanner;
}
