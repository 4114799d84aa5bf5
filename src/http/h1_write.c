#include "http/h1_write.h"

#include "base/check.h"

// Room has been reserved for all that is put, so the place goes from one to the next.
static char *put(char *at, struct str s)
{
    return mempcpy(at, s.p, s.n);
}

static char *put_field(char *at, struct str name, struct str value)
{
    at = put(at, name);
    at = put(at, STR(": "));
    if (value.n) // an empty one may be STR_NULL
        at = put(at, value);
    return put(at, STR("\r\n"));
}

size_t h1_headers_size(const struct headers *headers)
{
    size_t size = 0;
    for (uint32_t i = 0; i < headers->count; i++)
        size += headers->v[i].name.n + headers->v[i].value.n + 4;
    return size;
}

// True when a field stands in memory as "name: value": two strs at this distance come from one received head,
// whose bytes between them are readable.
static bool is_span(const struct header *header)
{
    return header->value.p == header->name.p + header->name.n + 2 && header->name.p[header->name.n] == ':' &&
           header->name.p[header->name.n + 1] == ' ';
}

static bool follows(const struct header *header, const char *end)
{
    return header->name.p == end + 2 && end[0] == '\r' && end[1] == '\n';
}

// Fields that were received one behind the other and are still as they came leave in one copy.
static char *put_fields(char *at, const struct headers *headers)
{
    const struct header *v = headers->v;
    for (uint32_t i = 0, count = headers->count; i < count;) {
        const struct header *header = &v[i++];
        if (header->id == HEADER_GONE)
            continue;
        if (!is_span(header)) {
            at = put_field(at, header->name, header->value);
            continue;
        }
        const char *end = header->value.p + header->value.n;
        while (i < count && v[i].id != HEADER_GONE && follows(&v[i], end) && is_span(&v[i])) {
            end = v[i].value.p + v[i].value.n;
            i++;
        }
        at = put(at, str_range(header->name.p, end));
        at = put(at, STR("\r\n"));
    }
    return at;
}

static char *put_framing(char *at, enum framing framing, uint64_t content_length)
{
    if (framing == FRAMING_CHUNKED)
        return put(at, STR("Transfer-Encoding: chunked\r\n"));
    if (framing != FRAMING_LENGTH)
        return at;
    at = put(at, STR("Content-Length: "));
    at += u64_print(content_length, at);
    return put(at, STR("\r\n"));
}

static char *end_of(const struct buf *buf)
{
    return buf->base + buf->end;
}

// What was put behind the end, up to here, belongs to the buffer.
static void put_end(struct buf *buf, const char *at)
{
    buf->end = (uint32_t)(at - buf->base);
    check(buf->end <= buf->cap);
}

enum { FRAMING_FIELD_MAX = 40 }; // "Content-Length: ", 20 digits, CRLF

static struct str method_of(const struct request_head *head)
{
    return head->method_name.n ? head->method_name : http_method_name(head->method);
}

size_t h1_request_size(const struct request_head *head, struct str target)
{
    size_t line = method_of(head).n + 1 + target.n + sizeof " HTTP/1.1\r\n";
    size_t upgrade = sizeof "Connection: Upgrade\r\nUpgrade: \r\n" + head->upgrade.n;
    return line + h1_headers_size(&head->headers) + FRAMING_FIELD_MAX + upgrade + 2;
}

void h1_write_request(struct buf *buf, const struct request_head *head, struct str target,
                      enum framing framing, bool upgrade)
{
    char *at = put(end_of(buf), method_of(head));
    at = put(at, STR(" "));
    at = put(at, target);
    at = put(at, STR(" HTTP/1.1\r\n"));
    at = put_fields(at, &head->headers);
    at = put_framing(at, framing, head->content_length);
    if (upgrade) {
        at = put(at, STR("Connection: Upgrade\r\n"));
        at = put_field(at, STR("Upgrade"), head->upgrade);
    }
    put_end(buf, put(at, STR("\r\n")));
}

enum { CONNECTION_VALUE_MAX = 32 };

static struct str reason_of(const struct response_head *head)
{
    return head->reason.n ? head->reason : http_reason(head->status);
}

size_t h1_response_size(const struct response_head *head)
{
    size_t line = sizeof "HTTP/1.1 200 \r\n" + reason_of(head).n;
    size_t connection = sizeof "Connection: \r\n" + CONNECTION_VALUE_MAX;
    return line + h1_headers_size(&head->headers) + FRAMING_FIELD_MAX + connection + 2;
}

static char *put_status_line(char *at, const struct response_head *head)
{
    if (head->status == 200 && str_eq(head->reason, STR("OK")))
        return put(at, STR("HTTP/1.1 200 OK\r\n"));
    check(head->status >= 100 && head->status <= 999);
    at = put(at, STR("HTTP/1.1 "));
    at += u64_print(head->status, at);
    at = put(at, STR(" "));
    at = put(at, reason_of(head));
    return put(at, STR("\r\n"));
}

void h1_write_response(struct buf *buf, const struct response_head *head, enum framing framing,
                       struct str connection)
{
    check(connection.n <= CONNECTION_VALUE_MAX);
    char *at = put_status_line(end_of(buf), head);
    at = put_fields(at, &head->headers);
    at = put_framing(at, framing, head->content_length);
    if (connection.n)
        at = put_field(at, STR("Connection"), connection);
    put_end(buf, put(at, STR("\r\n")));
}

size_t h1_write_chunk_head(uint64_t size, char *out)
{
    static const char digits[] = "0123456789abcdef";
    unsigned bits = size ? 64 - (unsigned)__builtin_clzll(size) : 1, n = (bits + 3) / 4;
    for (unsigned i = 0; i < n; i++)
        out[i] = digits[size >> (4 * (n - 1 - i)) & 15];
    out[n] = '\r';
    out[n + 1] = '\n';
    return n + 2;
}

size_t h1_trailers_size(const struct headers *trailers)
{
    return sizeof "0\r\n\r\n" + (trailers ? h1_headers_size(trailers) : 0);
}

void h1_write_last_chunk(struct buf *buf, const struct headers *trailers)
{
    char *at = put(end_of(buf), STR("0\r\n"));
    if (trailers)
        at = put_fields(at, trailers);
    put_end(buf, put(at, STR("\r\n")));
}
