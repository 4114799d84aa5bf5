#include "http/h2.h"

struct allowance {
    uint32_t per_s, burst;
};

static const struct allowance allowances[H2_EVENTS] = {
    [H2_EVENT_RESET] = {H2_RESETS_PER_S, H2_RESETS_BURST},
    [H2_EVENT_PING] = {H2_PINGS_PER_S, H2_PINGS_BURST},
    [H2_EVENT_SETTINGS] = {H2_SETTINGS_PER_S, H2_SETTINGS_BURST},
    [H2_EVENT_PRIORITY] = {H2_PRIORITIES_PER_S, H2_PRIORITIES_BURST},
    [H2_EVENT_EMPTY] = {H2_EMPTIES_PER_S, H2_EMPTIES_BURST},
    [H2_EVENT_UPDATE] = {H2_UPDATES_PER_S, H2_UPDATES_BURST},
    [H2_EVENT_UNKNOWN] = {H2_UNKNOWNS_PER_S, H2_UNKNOWNS_BURST},
};

void h2_guard_sent(struct h2_guard *guard, size_t n)
{
    size_t room = H2_ENTITLED_BYTES - guard->sent_bytes;
    guard->sent_bytes += (uint32_t)(n < room ? n : room);
    guard->sent_data = true;
}

static bool is_entitled(struct h2_guard *guard, enum h2_event event)
{
    if (event == H2_EVENT_UPDATE && guard->sent_bytes >= H2_UPDATE_BYTES) {
        guard->sent_bytes -= H2_UPDATE_BYTES;
        return true;
    }
    if (event == H2_EVENT_PING && guard->sent_data) {
        guard->sent_data = false;
        return true;
    }
    return false;
}

bool h2_guard_note(struct h2_guard *guard, enum h2_event event, uint64_t now_us)
{
    if (is_entitled(guard, event))
        return true;
    enum { ONE = 1000000 }; // an event; what leaks in a microsecond is per_s of these
    const struct allowance *allowance = &allowances[event];
    uint64_t level = guard->buckets[event].level;
    uint64_t elapsed_us = now_us > guard->buckets[event].at_us ? now_us - guard->buckets[event].at_us : 0;
    // Divided, not multiplied: a long silence must not overflow.
    level = elapsed_us >= level / allowance->per_s + 1 ? 0 : level - elapsed_us * allowance->per_s;
    level += ONE;
    guard->buckets[event].level = level;
    guard->buckets[event].at_us = now_us;
    return level <= (uint64_t)allowance->burst * ONE;
}

enum h2_event h2_event_of(const nghttp2_frame_hd *frame)
{
    enum { PRIORITY_UPDATE = 0x10 /* RFC 9218 7.1 */ };
    switch (frame->type) {
    case NGHTTP2_DATA:
    case NGHTTP2_HEADERS:
        return frame->length == 0 && !(frame->flags & NGHTTP2_FLAG_END_STREAM) ? H2_EVENT_EMPTY : H2_EVENTS;
    case NGHTTP2_CONTINUATION: return frame->length == 0 ? H2_EVENT_EMPTY : H2_EVENTS;
    case NGHTTP2_PRIORITY:
    case PRIORITY_UPDATE: return H2_EVENT_PRIORITY;
    case NGHTTP2_RST_STREAM: return H2_EVENT_RESET;
    case NGHTTP2_SETTINGS: return frame->flags & NGHTTP2_FLAG_ACK ? H2_EVENTS : H2_EVENT_SETTINGS;
    case NGHTTP2_PING: return H2_EVENT_PING;
    case NGHTTP2_WINDOW_UPDATE: return H2_EVENT_UPDATE;
    case NGHTTP2_PUSH_PROMISE:
    case NGHTTP2_GOAWAY: return H2_EVENTS;
    default: return H2_EVENT_UNKNOWN;
    }
}

static bool begin_frame(struct h2_frames *frames)
{
    const uint8_t *head = frames->head;
    frames->have = 0;
    frames->left = (uint32_t)head[0] << 16 | (uint32_t)head[1] << 8 | head[2];
    frames->type = head[3];
    frames->begun += frames->type != NGHTTP2_CONTINUATION;
    switch (frames->type) {
    case NGHTTP2_HEADERS:
    case NGHTTP2_PUSH_PROMISE: frames->continuations = 0; break;
    case NGHTTP2_CONTINUATION:
        if (++frames->continuations > H2_CONTINUATIONS)
            return false;
        break;
    default: return true;
    }
    frames->in_block = !(head[4] & NGHTTP2_FLAG_END_HEADERS);
    return true;
}

bool h2_frames_follow(struct h2_frames *frames, const uint8_t *data, size_t n)
{
    while (n) {
        size_t part = frames->left < n ? frames->left : n;
        frames->left -= (uint32_t)part;
        data += part;
        n -= part;
        while (n && !frames->left && frames->have < sizeof frames->head) {
            frames->head[frames->have++] = *data++;
            n--;
        }
        if (frames->have == sizeof frames->head && !begin_frame(frames))
            return false;
    }
    return true;
}

bool h2_frames_partial(const struct h2_frames *frames)
{
    return frames->in_block || frames->have || (frames->left && frames->type != NGHTTP2_DATA);
}
