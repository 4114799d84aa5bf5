#include "h2_wire.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#define BATCH_BYTES (64 * 1024)
#define FRAME_BYTES \
    (9 + 16384) /* more at once than what both sides' SETTINGS_MAX_FRAME_SIZE allows is not made */

static char batch[BATCH_BYTES];

/* Sends, and keeps what the socket refuses. */
static bool send_or_keep(struct link *link, const char *data, size_t size, struct h2_rest *rest)
{
    size_t sent = 0;
    while (sent < size) {
        ssize_t n = link_send(link, data + sent, size - sent);
        if (n < 0 && errno != EAGAIN)
            return false;
        if (n < 0)
            break;
        sent += (size_t)n;
    }
    if (sent == size)
        return true;
    rest->bytes = malloc(size - sent);
    if (rest->bytes == NULL)
        return false;
    memcpy(rest->bytes, data + sent, size - sent);
    rest->at = 0;
    rest->size = size - sent;
    return true;
}

static bool send_rest(struct link *link, struct h2_rest *rest)
{
    while (rest->at < rest->size) {
        ssize_t n = link_send(link, rest->bytes + rest->at, rest->size - rest->at);
        if (n < 0)
            return errno == EAGAIN;
        rest->at += (size_t)n;
    }
    h2_rest_reset(rest);
    return true;
}

bool h2_flush(nghttp2_session *session, struct link *link, struct h2_rest *rest)
{
    if (!send_rest(link, rest))
        return false;
    size_t filled = 0;
    while (rest->size == 0) {
        const uint8_t *frame = NULL;
        ssize_t n = nghttp2_session_mem_send(session, &frame);
        if (n < 0 || n > FRAME_BYTES)
            return false;
        if (n > 0)
            memcpy(batch + filled, frame, (size_t)n);
        filled += (size_t)n;
        if (n > 0 && filled + FRAME_BYTES <= sizeof batch)
            continue;
        if (filled > 0 && !send_or_keep(link, batch, filled, rest))
            return false;
        filled = 0;
        if (n == 0)
            break;
    }
    return true;
}

void h2_rest_reset(struct h2_rest *rest)
{
    free(rest->bytes);
    *rest = (struct h2_rest){0};
}

nghttp2_nv h2_field(const char *name, const char *value)
{
    return (nghttp2_nv){.name = (uint8_t *)(uintptr_t)name,
                        .value = (uint8_t *)(uintptr_t)value,
                        .namelen = strlen(name),
                        .valuelen = strlen(value),
                        .flags = NGHTTP2_NV_FLAG_NO_COPY_NAME | NGHTTP2_NV_FLAG_NO_COPY_VALUE};
}

static unsigned parse_status(const uint8_t *value, size_t size)
{
    unsigned status = 0;
    for (size_t i = 0; i < size && i < 3 && value[i] >= '0' && value[i] <= '9'; i++)
        status = status * 10 + value[i] - '0';
    return size == 3 ? status : 0;
}

static void note_field(struct h2_answer *a, const uint8_t *name, size_t name_size, const uint8_t *value,
                       size_t value_size)
{
    if (name_size == 7 && memcmp(name, ":status", 7) == 0) {
        a->status = parse_status(value, value_size);
    } else if (name_size == 11 && memcmp(name, "grpc-status", 11) == 0) {
        a->has_grpc_status = true;
        a->grpc_ok = value_size == 1 && value[0] == '0';
    }
}

ssize_t h2_read_body(nghttp2_session *session, int32_t stream, uint8_t *to, size_t room, uint32_t *flags,
                     nghttp2_data_source *source, void *unused)
{
    (void)session;
    (void)stream;
    (void)unused;
    struct h2_body *body = source->ptr;
    size_t n = body->left < room ? body->left : room;
    memcpy(to, body->bytes, n);
    body->bytes += n;
    body->left -= n;
    if (body->left == 0)
        *flags |= NGHTTP2_DATA_FLAG_EOF;
    return (ssize_t)n;
}

struct h2_call *h2_call_of(nghttp2_session *session, int32_t stream)
{
    struct h2_call *call = nghttp2_session_get_stream_user_data(session, stream);
    return call != NULL && call->busy && call->stream == stream ? call : NULL;
}

static int on_header(nghttp2_session *session, const nghttp2_frame *frame, const uint8_t *name,
                     size_t name_size, const uint8_t *value, size_t value_size, uint8_t flags, void *user)
{
    (void)flags;
    (void)user;
    struct h2_call *call = h2_call_of(session, frame->hd.stream_id);
    if (call != NULL && frame->hd.type == NGHTTP2_HEADERS)
        note_field(&call->answer, name, name_size, value, value_size);
    return 0;
}

static int on_data(nghttp2_session *session, uint8_t flags, int32_t stream, const uint8_t *data, size_t size,
                   void *user)
{
    (void)flags;
    (void)user;
    struct h2_call *call = h2_call_of(session, stream);
    if (call != NULL)
        grpc_take(&call->answer.message, data, size);
    return 0;
}

nghttp2_session_callbacks *h2_client_callbacks(nghttp2_on_stream_close_callback on_stream_close)
{
    nghttp2_session_callbacks *callbacks;
    if (nghttp2_session_callbacks_new(&callbacks) != 0)
        return NULL;
    nghttp2_session_callbacks_set_on_header_callback(callbacks, on_header);
    nghttp2_session_callbacks_set_on_data_chunk_recv_callback(callbacks, on_data);
    nghttp2_session_callbacks_set_on_stream_close_callback(callbacks, on_stream_close);
    return callbacks;
}

void grpc_take(struct grpc_message *m, const uint8_t *data, size_t size)
{
    for (size_t i = 0; i < size && m->got + i < GRPC_PREFIX; i++)
        m->prefix[m->got + i] = data[i];
    m->got += size;
}

bool grpc_is_whole(const struct grpc_message *m)
{
    uint64_t size = (uint64_t)m->prefix[1] << 24 | (uint64_t)m->prefix[2] << 16 |
                    (uint64_t)m->prefix[3] << 8 | m->prefix[4];
    return m->got >= GRPC_PREFIX && m->prefix[0] == 0 && m->got == GRPC_PREFIX + size;
}

void grpc_make(uint8_t *to, uint32_t size)
{
    to[0] = 0;
    for (unsigned i = 0; i < 4; i++)
        to[1 + i] = (uint8_t)(size >> (24 - 8 * i));
    memset(to + GRPC_PREFIX, 'x', size);
}
