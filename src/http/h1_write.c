#include "http/h1_write.h"

#include "base/check.h"

static void put_field(struct buf *buf, struct str name, struct str value)
{
    buf_put(buf, name);
    buf_put(buf, STR(": "));
    if (value.n) // an empty one may be STR_NULL
        buf_put(buf, value);
    buf_put(buf, STR("\r\n"));
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
static void put_fields(struct buf *buf, const struct headers *headers)
{
    const struct header *v = headers->v;
    for (uint32_t i = 0, count = headers->count; i < count;) {
        const struct header *header = &v[i++];
        if (header->id == HEADER_GONE)
            continue;
        if (!is_span(header)) {
            put_field(buf, header->name, header->value);
            continue;
        }
        const char *end = header->value.p + header->value.n;
        while (i < count && v[i].id != HEADER_GONE && follows(&v[i], end) && is_span(&v[i])) {
            end = v[i].value.p + v[i].value.n;
            i++;
        }
        buf_put(buf, str_range(header->name.p, end));
        buf_put(buf, STR("\r\n"));
    }
}

static void put_number_field(struct buf *buf, struct str start, uint64_t value)
{
    char digits[20];
    buf_put(buf, start);
    buf_put(buf, (struct str){digits, u64_print(value, digits)});
    buf_put(buf, STR("\r\n"));
}

static void put_framing(struct buf *buf, enum framing framing, uint64_t content_length)
{
    if (framing == FRAMING_LENGTH)
        put_number_field(buf, STR("Content-Length: "), content_length);
    else if (framing == FRAMING_CHUNKED)
        buf_put(buf, STR("Transfer-Encoding: chunked\r\n"));
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
    buf_put(buf, method_of(head));
    buf_put(buf, STR(" "));
    buf_put(buf, target);
    buf_put(buf, STR(" HTTP/1.1\r\n"));
    put_fields(buf, &head->headers);
    put_framing(buf, framing, head->content_length);
    if (upgrade) {
        buf_put(buf, STR("Connection: Upgrade\r\n"));
        put_field(buf, STR("Upgrade"), head->upgrade);
    }
    buf_put(buf, STR("\r\n"));
    check(buf->end <= buf->cap);
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

static void put_status_line(struct buf *buf, const struct response_head *head)
{
    char line[] = "HTTP/1.1 200 ";
    check(head->status >= 100 && head->status <= 999);
    line[9] = (char)('0' + head->status / 100);
    line[10] = (char)('0' + head->status / 10 % 10);
    line[11] = (char)('0' + head->status % 10);
    buf_put(buf, (struct str){line, sizeof line - 1});
    buf_put(buf, reason_of(head));
    buf_put(buf, STR("\r\n"));
}

void h1_write_response(struct buf *buf, const struct response_head *head, enum framing framing,
                       struct str connection)
{
    check(connection.n <= CONNECTION_VALUE_MAX);
    if (head->status == 200 && str_eq(head->reason, STR("OK")))
        buf_put(buf, STR("HTTP/1.1 200 OK\r\n"));
    else
        put_status_line(buf, head);
    put_fields(buf, &head->headers);
    put_framing(buf, framing, head->content_length);
    if (connection.n)
        put_field(buf, STR("Connection"), connection);
    buf_put(buf, STR("\r\n"));
    check(buf->end <= buf->cap);
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
    buf_put(buf, STR("0\r\n"));
    if (trailers)
        put_fields(buf, trailers);
    buf_put(buf, STR("\r\n"));
    check(buf->end <= buf->cap);
}
