// Fields of HTTP/2 header blocks: what arrives is checked and kept, what leaves is laid out for nghttp2.
#include "http/h2.h"

#include "base/swar.h"
#include "http/body.h"
#include "http/chars.h"
#include "http/head.h"
#include "http/header_lookup.h"

enum {
    TEXT_BYTES = 2048,   // of fields that are kept side by side
    FIELD_OVERHEAD = 32, // of a field without a byte, in an account of decoded bytes (RFC 7541 4.1)
    LINE_OVERHEAD = 4,   // ": " and CRLF: a field's size in HTTP/1
};

// ---- fields that arrive ----

void h2_fields_init(struct h2_fields *fields, struct arena *arena, uint32_t max_bytes, uint32_t max_fields)
{
    *fields = (struct h2_fields){.arena = arena, .max_bytes = max_bytes, .max_fields = max_fields};
}

static void fault(struct h2_fields *fields, enum h1_fault fault, const char *why)
{
    fields->fault = fault;
    fields->why = why;
}

static void malformed(struct h2_fields *fields, const char *why)
{
    fault(fields, H1_BAD_REQUEST, why);
}

static bool count_in_block(struct h2_fields *fields, struct str name, struct str value)
{
    size_t bytes = name.n + value.n + FIELD_OVERHEAD;
    if (bytes > H2_BLOCK_BYTES - fields->block_bytes || fields->block_fields == H2_BLOCK_FIELDS)
        return false;
    fields->block_bytes += (uint32_t)bytes;
    fields->block_fields++;
    return true;
}

// Whether there is room for one more field of n bytes.
static bool count_kept(struct h2_fields *fields, size_t n, bool is_field)
{
    n += LINE_OVERHEAD;
    if (n > fields->max_bytes - fields->kept_bytes) {
        fault(fields, H1_HEAD_TOO_LARGE, "head too large");
        return false;
    }
    if (is_field && fields->kept_fields == fields->max_fields) {
        fault(fields, H1_HEAD_TOO_LARGE, "too many header fields");
        return false;
    }
    fields->kept_bytes += (uint32_t)n;
    fields->kept_fields += is_field;
    return true;
}

// High bits set where a byte is a small letter or a dash.
static inline uint64_t plain_bytes(uint64_t word)
{
    uint64_t from_a = word + SWAR_EACH(0x80 - 'a'), beyond_z = word + SWAR_EACH(0x80 - 'z' - 1);
    uint64_t dash = SWAR_EACH(0x80) - (word ^ SWAR_EACH('-'));
    return ((from_a & ~beyond_z) | dash) & ~word & SWAR_EACH(0x80);
}

// Most names are nothing but small letters and dashes. False: look again.
static bool is_plain_name(struct str name)
{
    if (name.n < sizeof(uint64_t))
        return false;
    uint64_t plain = plain_bytes(swar_load8(name.p + name.n - sizeof plain)); // overlaps the last but one
    for (size_t i = 0; i + sizeof plain <= name.n; i += sizeof plain)
        plain &= plain_bytes(swar_load8(name.p + i));
    return plain == SWAR_EACH(0x80);
}

// A lower-case token (RFC 9113 8.2). *underscore: one is in it.
static bool is_name(struct str name, bool *underscore)
{
    if (is_plain_name(name))
        return true;
    if (!name.n)
        return false;
    for (size_t i = 0; i < name.n; i++) {
        if ((char_classes[(unsigned char)name.p[i]] & (CHAR_TOKEN | CHAR_UPPER)) != CHAR_TOKEN)
            return false;
        *underscore |= name.p[i] == '_';
    }
    return true;
}

static bool is_blank(char c)
{
    return c == ' ' || c == '\t';
}

// RFC 9113 8.2.1: no NUL, CR, LF, nor the other controls of RFC 9110 5.5, no white space around it.
static bool is_value(struct str value)
{
    if (value.n && (is_blank(value.p[0]) || is_blank(value.p[value.n - 1])))
        return false;
    return header_value_valid(value);
}

// Fields lie as they would in HTTP/1, "name: value CRLF" one behind the other, so that h1_write.c takes them
// in one copy.
static void keep(struct h2_fields *fields, enum header_id id, struct str name, struct str value)
{
    size_t n = name.n + value.n + LINE_OVERHEAD;
    if ((size_t)(fields->text_end - fields->text) < n) {
        size_t size = n > TEXT_BYTES ? n : TEXT_BYTES;
        fields->text = arena_alloc(fields->arena, size);
        fields->text_end = fields->text + size;
    }
    if (!fields->headers.v) {
        fields->headers.v = arena_alloc(fields->arena, HEAD_FIELDS_FIRST * sizeof *fields->headers.v);
        fields->headers.capacity = HEAD_FIELDS_FIRST;
    }
    char *p = fields->text, *v = p + name.n + 2;
    fields->text += n;
    memcpy(p, name.p, name.n);
    memcpy(p + name.n, ": ", 2);
    if (value.n)
        memcpy(v, value.p, value.n);
    memcpy(v + value.n, "\r\n", 2);
    headers_add_as(&fields->headers, fields->arena, id, (struct str){p, name.n}, (struct str){v, value.n});
    uint64_t bit = header_bit(id);
    fields->repeated |= fields->seen & bit;
    fields->seen |= bit;
}

static struct str *pseudo_place(struct h2_fields *fields, struct str name)
{
    if (str_eq(name, STR(":method")))
        return &fields->method;
    if (str_eq(name, STR(":path")))
        return &fields->path;
    if (str_eq(name, STR(":scheme")))
        return &fields->scheme;
    if (str_eq(name, STR(":authority")))
        return &fields->authority;
    return str_eq(name, STR(":protocol")) ? &fields->protocol : NULL;
}

// Exactly three digits (RFC 9110 15).
static unsigned status_of(struct str value)
{
    if (value.n != 3 || !IS_DIGIT(value.p[0]) || !IS_DIGIT(value.p[1]) || !IS_DIGIT(value.p[2]))
        return 0;
    unsigned status =
        (unsigned)(value.p[0] - '0') * 100 + (unsigned)(value.p[1] - '0') * 10 + (unsigned)(value.p[2] - '0');
    return status >= 100 && status <= 599 ? status : 0;
}

static void take_status(struct h2_fields *fields, struct str value)
{
    if (fields->status)
        malformed(fields, "repeated pseudo-field");
    else if (!(fields->status = status_of(value)))
        malformed(fields, "malformed :status");
}

// With a space behind it, and padding: what the parser of targets reads (head_take_path_query).
static struct str copy_path(struct arena *arena, struct str path)
{
    char *p = arena_alloc(arena, path.n + 1 + HEAD_PADDING);
    if (path.n)
        memcpy(p, path.p, path.n);
    memset(p + path.n, ' ', 1 + HEAD_PADDING);
    return (struct str){p, path.n};
}

static void take_pseudo(struct h2_fields *fields, struct str name, struct str value)
{
    struct str *place = pseudo_place(fields, name);
    if (fields->is_regular) {
        malformed(fields, "pseudo-field behind other fields");
    } else if (str_eq(name, STR(":status"))) {
        take_status(fields, value);
    } else if (!place) {
        malformed(fields, "unknown pseudo-field");
    } else if (place->p) {
        malformed(fields, "repeated pseudo-field");
    } else if (!is_value(value)) {
        malformed(fields, "malformed value of a pseudo-field");
    } else if (count_kept(fields, value.n, false)) {
        *place = place == &fields->path ? copy_path(fields->arena, value) : arena_copy(fields->arena, value);
    } else if (place == &fields->path) {
        fault(fields, H1_URI_TOO_LONG, "request target too long");
    }
}

// RFC 9113 8.2.2.
static bool is_connection_specific(enum header_id id, struct str value)
{
    switch (id) {
    case HEADER_CONNECTION:
    case HEADER_PROXY_CONNECTION:
    case HEADER_KEEP_ALIVE:
    case HEADER_TRANSFER_ENCODING:
    case HEADER_UPGRADE: return true;
    case HEADER_TE: return !str_eq_fold(value, STR("trailers"));
    default: return false;
    }
}

// The grammar of a field that is none of the pseudo-fields. *id: HEADER_GONE for one that does not pass.
static enum header_id check_regular(struct h2_fields *fields, struct str name, struct str value,
                                    bool *underscore)
{
    fields->is_regular = true;
    enum header_id id = name.n ? header_lookup_lower(name.p, name.n) : HEADER_OTHER;
    // Those of the table are tokens without an underscore.
    if (id == HEADER_OTHER && !is_name(name, underscore)) {
        malformed(fields, "malformed field name");
        return HEADER_GONE;
    }
    if (!is_value(value)) {
        malformed(fields, "malformed field value");
        return HEADER_GONE;
    }
    if (is_connection_specific(id, value)) {
        malformed(fields, "connection-specific field");
        return HEADER_GONE;
    }
    return count_kept(fields, name.n + value.n, true) ? id : HEADER_GONE;
}

bool h2_field(struct h2_fields *fields, struct str name, struct str value)
{
    if (!count_in_block(fields, name, value))
        return false;
    if (fields->fault)
        return true;
    if (name.n && name.p[0] == ':') {
        take_pseudo(fields, name, value);
        return true;
    }
    enum header_id id = check_regular(fields, name, value, &fields->has_underscore);
    if (id != HEADER_GONE)
        keep(fields, id, name, value);
    return true;
}

bool h2_trailer_field(struct h2_fields *fields, struct str name, struct str value)
{
    if (!count_in_block(fields, name, value))
        return false;
    if (fields->fault)
        return true;
    if (name.n && name.p[0] == ':') {
        malformed(fields, "pseudo-field in trailers");
        return true;
    }
    bool underscore = false;
    enum header_id id = check_regular(fields, name, value, &underscore);
    if (id != HEADER_GONE && !body_forbids_trailer(name))
        keep(fields, id, name, value);
    return true;
}

// ---- fields that leave ----

enum { OWN_FIELDS = 2 }; // Content-Length and TE

size_t h2_fields_max(const struct headers *headers)
{
    return headers->count + H2_PSEUDO_FIELDS + OWN_FIELDS;
}

static nghttp2_nv nv_of(struct str name, struct str value)
{
    return (nghttp2_nv){
        .name = (uint8_t *)(uintptr_t)name.p,
        .value = (uint8_t *)(uintptr_t)(value.n ? value.p : ""),
        .namelen = name.n,
        .valuelen = value.n,
        .flags = NGHTTP2_NV_FLAG_NO_COPY_NAME | NGHTTP2_NV_FLAG_NO_COPY_VALUE,
    };
}

// Values that are another one in every message would only push useful ones out of the dynamic table.
static bool is_unique(enum header_id id)
{
    return id == HEADER_X_REQUEST_ID || id == HEADER_TRACEPARENT;
}

static size_t put_headers(const struct headers *headers, struct arena *arena, nghttp2_nv *nv)
{
    size_t count = 0;
    for (uint32_t i = 0; i < headers->count; i++) {
        const struct header *header = &headers->v[i];
        enum header_id id = header->id;
        if (id == HEADER_GONE || id == HEADER_HOST || id == HEADER_CONTENT_LENGTH || header_is_hop_by_hop(id))
            continue;
        struct str name = id ? header_name(id) : head_lower(header->name, arena);
        nv[count] = nv_of(name, header->value);
        if (is_unique(id))
            nv[count].flags |= NGHTTP2_NV_FLAG_NO_INDEX;
        count++;
    }
    return count;
}

static nghttp2_nv length_nv(uint64_t length, struct arena *arena)
{
    return nv_of(STR("content-length"), arena_u64(arena, length));
}

size_t h2_response_fields(const struct response_head *head, enum framing framing, struct arena *arena,
                          nghttp2_nv *nv)
{
    char *status = arena_alloc(arena, 3);
    status[0] = (char)('0' + head->status / 100);
    status[1] = (char)('0' + head->status / 10 % 10);
    status[2] = (char)('0' + head->status % 10);
    size_t count = 0;
    nv[count++] = nv_of(STR(":status"), (struct str){status, 3});
    count += put_headers(&head->headers, arena, nv + count);
    if (framing == FRAMING_LENGTH)
        nv[count++] = length_nv(head->content_length, arena);
    return count;
}

size_t h2_request_fields(const struct request_head *head, struct str scheme, struct str target,
                         enum framing framing, bool te_trailers, struct arena *arena, nghttp2_nv *nv)
{
    size_t count = 0;
    nv[count++] =
        nv_of(STR(":method"), head->method_name.n ? head->method_name : http_method_name(head->method));
    nv[count++] = nv_of(STR(":scheme"), scheme);
    struct str authority = headers_value(&head->headers, HEADER_HOST);
    if (authority.n)
        nv[count++] = nv_of(STR(":authority"), authority);
    nv[count++] = nv_of(STR(":path"), target);
    count += put_headers(&head->headers, arena, nv + count);
    if (framing == FRAMING_LENGTH)
        nv[count++] = length_nv(head->content_length, arena);
    if (te_trailers)
        nv[count++] = nv_of(STR("te"), STR("trailers"));
    return count;
}

size_t h2_trailer_fields(const struct headers *trailers, struct arena *arena, nghttp2_nv *nv)
{
    return put_headers(trailers, arena, nv);
}
