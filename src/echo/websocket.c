// WebSocket (RFC 6455), server side: every data frame goes back as it came, fragments as fragments, unmasked
// while it is read, so that a message of any size needs no memory. Text is not checked for UTF-8: it is
// echoed, not read.
#include "echo/echo.h"

enum opcode { OP_CONTINUATION = 0, OP_TEXT = 1, OP_BINARY = 2, OP_CLOSE = 8, OP_PING = 9, OP_PONG = 10 };
enum close_code { CLOSE_PROTOCOL = 1002 };

static void refuse(struct client *c)
{
    answer_text(c, 426, STR("text/plain"), STR("/ws speaks WebSocket, version 13\n"));
}

void websocket_begin(struct client *c)
{
    const struct headers *headers = &c->request.headers;
    const struct header *key = headers_find(headers, HEADER_SEC_WEBSOCKET_KEY);
    const struct header *version = headers_find_name(headers, STR("Sec-WebSocket-Version"));
    if (c->request.method != METHOD_GET || !str_eq_fold(c->request.upgrade, STR("websocket")) || !key ||
        key->value.n != 24 || !version || !str_eq(version->value, STR("13")) || !c->reader.done) {
        refuse(c);
        return;
    }
    struct sha1 sha1;
    unsigned char hash[SHA1_BYTES];
    char accept[28];
    sha1_init(&sha1);
    sha1_update(&sha1, key->value);
    sha1_update(&sha1, STR("258EAFA5-E914-47DA-95CA-C5AB0DC85B11"));
    sha1_final(&sha1, hash);
    struct str accept_text = {accept, base64_encode(hash, sizeof hash, accept)};

    struct headers more = {0};
    headers_add(&more, &c->arena, STR("Upgrade"), STR("websocket"));
    headers_add(&more, &c->arena, STR("Connection"), STR("Upgrade"));
    headers_add(&more, &c->arena, STR("Sec-WebSocket-Accept"), arena_copy(&c->arena, accept_text));
    c->keep = true; // or the head would say close
    answer_head_with(c, 101, STR_NULL, &more, FRAMING_TUNNEL, 0);
    c->keep = false;
    c->state = REQUEST_TUNNEL;
    c->echo->counters.upgrades++;
}

// RFC 6455 5.2; out has room for 10 bytes.
static size_t write_frame_head(unsigned first, uint64_t length, char *out)
{
    out[0] = (char)first;
    unsigned bytes = length < 126 ? 0 : length <= UINT16_MAX ? 2 : 8;
    out[1] = (char)(bytes == 0 ? length : bytes == 2 ? 126 : 127);
    for (unsigned i = 0; i < bytes; i++)
        out[2 + i] = (char)(length >> 8 * (bytes - 1 - i));
    return 2 + bytes;
}

static void send_frame(struct client *c, enum opcode opcode, struct str payload)
{
    char head[10];
    answer_raw(c, (struct str){head, write_frame_head(0x80u | (unsigned)opcode, payload.n, head)});
    answer_raw(c, payload);
}

static void fail(struct client *c)
{
    char code[2] = {(char)(CLOSE_PROTOCOL >> 8), (char)(CLOSE_PROTOCOL & 255)};
    send_frame(c, OP_CLOSE, (struct str){code, sizeof code});
    c->answer = ANSWER_DONE;
}

static bool is_control(unsigned opcode)
{
    return opcode & 8;
}

// The rules of RFC 6455 5.2, 5.4 and 5.5 for a frame from a client.
static bool frame_allowed(const struct websocket *ws, unsigned char first, unsigned char second,
                          uint64_t length)
{
    unsigned opcode = first & 15;
    if (first & 0x70 || !(second & 0x80) || length > INT64_MAX)
        return false;
    if (is_control(opcode))
        return opcode <= OP_PONG && first & 0x80 && length <= 125;
    return opcode <= OP_BINARY && (opcode == OP_CONTINUATION) == ws->in_message;
}

// How many bytes the head has, 0 when it is not complete.
static size_t read_frame_head(const unsigned char *data, size_t n, uint64_t *length)
{
    if (n < 2)
        return 0;
    unsigned short_length = data[1] & 127, bytes = short_length == 126 ? 2 : short_length == 127 ? 8 : 0;
    size_t mask = data[1] & 0x80 ? 4 : 0;
    if (n < 2 + bytes + mask)
        return 0;
    *length = bytes ? 0 : short_length;
    for (unsigned i = 0; i < bytes; i++)
        *length = *length << 8 | data[2 + i];
    return 2 + bytes + mask;
}

static void begin_frame(struct client *c, const unsigned char *data, size_t head_bytes, uint64_t length)
{
    struct websocket *ws = &c->ws;
    if (!frame_allowed(ws, data[0], data[1], length)) {
        fail(c);
        return;
    }
    memcpy(ws->mask, data + head_bytes - 4, 4);
    ws->at = 0;
    ws->opcode = data[0] & 15;
    ws->left = length;
    ws->in_frame = true;
    ws->control_length = 0;
    if (is_control(ws->opcode))
        return;
    ws->in_message = !(data[0] & 0x80);
    char head[10];
    answer_raw(c, (struct str){head, write_frame_head(data[0], length, head)});
}

static void end_frame(struct client *c)
{
    struct websocket *ws = &c->ws;
    struct str payload = {(const char *)ws->control, ws->control_length};
    ws->in_frame = false;
    if (ws->opcode == OP_PING)
        send_frame(c, OP_PONG, payload);
    if (ws->opcode == OP_CLOSE) {
        if (payload.n == 1) { // half a status code
            fail(c);
            return;
        }
        send_frame(c, OP_CLOSE, payload);
        c->answer = ANSWER_DONE;
    }
}

static void take_payload(struct client *c, char *data, size_t n)
{
    struct websocket *ws = &c->ws;
    for (size_t i = 0; i < n; i++)
        data[i] = (char)((unsigned char)data[i] ^ ws->mask[(ws->at + i) & 3]);
    ws->at = (unsigned)(ws->at + n) & 3;
    ws->left -= n;
    if (!is_control(ws->opcode)) {
        answer_raw(c, (struct str){data, n});
        return;
    }
    memcpy(ws->control + ws->control_length, data, n);
    ws->control_length += (unsigned)n;
}

void websocket_tunnel(struct client *c, char *data, size_t n, size_t *consumed)
{
    struct websocket *ws = &c->ws;
    while (c->answer != ANSWER_DONE && *consumed < n && !c->out.blocked) {
        char *at = data + *consumed;
        size_t left = n - *consumed;
        if (!ws->in_frame) {
            uint64_t length = 0;
            size_t head_bytes = read_frame_head((const unsigned char *)at, left, &length);
            if (!head_bytes)
                return;
            begin_frame(c, (const unsigned char *)at, head_bytes, length);
            *consumed += head_bytes;
        } else {
            size_t take = left < ws->left ? left : (size_t)ws->left;
            take_payload(c, at, take);
            *consumed += take;
        }
        if (ws->in_frame && !ws->left)
            end_frame(c);
    }
}
