#include "answer.h"

#include <stdlib.h>
#include <string.h>
#include <strings.h>

enum chunk_state {
    CHUNK_SIZE,
    CHUNK_EXTENSION,
    CHUNK_DATA,
    CHUNK_DATA_END,
    CHUNK_TRAILER,
    CHUNK_TRAILER_LINE
};

static bool starts_with(const char *line, const char *end, const char *word, size_t size)
{
    return (size_t)(end - line) >= size && strncasecmp(line, word, size) == 0;
}

/* Reads a whole head, its empty line included; false when it makes no sense. */
static bool read_head(struct answer *a, const char *p, const char *end)
{
    if (end - p < 16 || memcmp(p, "HTTP/1.", 7) != 0)
        return false;
    bool length_seen = false;
    a->status = (p[9] - '0') * 100 + (p[10] - '0') * 10 + (p[11] - '0');
    a->keep = p[7] == '1';
    a->chunked = false;
    a->left = 0;
    for (p = (const char *)memchr(p, '\n', (size_t)(end - p)) + 1; p < end;) {
        const char *line_end = memchr(p, '\n', (size_t)(end - p));
        char first = (char)(*p | 0x20);
        if (first == 'c' && starts_with(p, line_end, "content-length:", 15)) {
            a->left = strtoull(p + 15, NULL, 10);
            length_seen = true;
        } else if (first == 't' && starts_with(p, line_end, "transfer-encoding: chunked", 26)) {
            a->chunked = true;
        } else if (first == 'c' && starts_with(p, line_end, "connection: close", 17)) {
            a->keep = false;
        }
        p = line_end + 1;
    }
    bool bodiless = a->status == 204 || a->status == 304 || a->status < 200;
    a->in_body = !bodiless && (a->chunked || a->left > 0);
    a->chunk_at = CHUNK_SIZE;
    if (a->chunked || bodiless)
        a->left = 0;
    return bodiless || a->chunked || length_seen;
}

/* Takes chunked bytes one at a time but for the data itself; true when the last chunk's end was among them.
 */
static bool take_chunked(struct answer *a, const char *p, size_t size, size_t *used)
{
    size_t at = 0;
    while (at < size) {
        if (a->chunk_at == CHUNK_DATA) {
            size_t n = a->left < size - at ? (size_t)a->left : size - at;
            at += n;
            a->left -= n;
            if (a->left == 0)
                a->chunk_at = CHUNK_DATA_END;
            continue;
        }
        char c = p[at++];
        if (a->chunk_at == CHUNK_SIZE && c >= '0' && c <= '9')
            a->left = a->left * 16 + (uint64_t)(c - '0');
        else if (a->chunk_at == CHUNK_SIZE && (c | 0x20) >= 'a' && (c | 0x20) <= 'f')
            a->left = a->left * 16 + (uint64_t)((c | 0x20) - 'a' + 10);
        else if (a->chunk_at == CHUNK_SIZE && c != '\n')
            a->chunk_at = CHUNK_EXTENSION;
        if (c != '\n') {
            if (a->chunk_at == CHUNK_TRAILER && c != '\r')
                a->chunk_at = CHUNK_TRAILER_LINE;
            continue;
        }
        if (a->chunk_at == CHUNK_SIZE || a->chunk_at == CHUNK_EXTENSION) {
            a->chunk_at = a->left > 0 ? CHUNK_DATA : CHUNK_TRAILER;
        } else if (a->chunk_at == CHUNK_DATA_END) {
            a->chunk_at = CHUNK_SIZE;
        } else if (a->chunk_at == CHUNK_TRAILER_LINE) {
            a->chunk_at = CHUNK_TRAILER;
        } else if (a->chunk_at == CHUNK_TRAILER) {
            *used = at;
            return true;
        }
    }
    *used = at;
    return false;
}

static enum answer_step take_body(struct answer *a, const char *data, size_t size, size_t *used)
{
    if (a->chunked) {
        if (!take_chunked(a, data, size, used))
            return ANSWER_MORE;
    } else {
        size_t n = a->left < size ? (size_t)a->left : size;
        a->left -= n;
        *used = n;
        if (a->left > 0)
            return ANSWER_MORE;
    }
    a->in_body = false;
    return ANSWER_DONE;
}

static bool hold(struct answer *a, const char *data, size_t size)
{
    if (a->held_size + size > ANSWER_HEAD_MAX)
        return false;
    char *more = realloc(a->held, a->held_size + size);
    if (more == NULL)
        return false;
    memcpy(more + a->held_size, data, size);
    a->held = more;
    a->held_size += size;
    return true;
}

/* The head's end among the new bytes, which may have begun among the held ones; 0 when it is not there. */
static size_t head_end(const struct answer *a, const char *data, size_t size)
{
    if (a->held_size == 0) {
        const char *stop = memmem(data, size, "\r\n\r\n", 4);
        return stop != NULL ? (size_t)(stop - data) + 4 : 0;
    }
    for (size_t i = 1; i <= size; i++) {
        char last[4] = {0};
        for (size_t k = 0; k < 4; k++) {
            size_t back = 4 - k;
            if (back <= i)
                last[k] = data[i - back];
            else if (back - i <= a->held_size)
                last[k] = a->held[a->held_size - (back - i)];
        }
        if (memcmp(last, "\r\n\r\n", 4) == 0)
            return i;
    }
    return 0;
}

enum answer_step answer_take(struct answer *a, const char *data, size_t size, size_t *used)
{
    size_t at = 0;
    while (!a->in_body) {
        size_t head = head_end(a, data + at, size - at);
        if (head == 0) {
            *used = size;
            return size == at || hold(a, data + at, size - at) ? ANSWER_MORE : ANSWER_BAD;
        }
        bool good;
        if (a->held_size == 0) {
            good = read_head(a, data + at, data + at + head);
        } else {
            good = hold(a, data + at, head) && read_head(a, a->held, a->held + a->held_size);
            free(a->held);
            a->held = NULL;
            a->held_size = 0;
        }
        if (!good)
            return ANSWER_BAD;
        at += head;
        *used = at;
        if (!a->in_body && a->status >= 200)
            return ANSWER_DONE; /* else 1xx: the final response follows */
    }
    size_t taken = 0;
    enum answer_step step = take_body(a, data + at, size - at, &taken);
    *used = at + taken;
    return step;
}

void answer_reset(struct answer *a)
{
    free(a->held);
    *a = (struct answer){0};
}
