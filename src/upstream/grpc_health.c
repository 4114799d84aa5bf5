#include "upstream/grpc_health.h"

#include "base/check.h"

enum {
    WIRE_VARINT = 0,
    WIRE_64 = 1,
    WIRE_BYTES = 2,
    WIRE_32 = 5,
    FIELD_SERVICE = 1,
    FIELD_STATUS = 1,
    VARINT_BYTES = 10,
};

// ---- writing ----

static char *put_varint(char *p, size_t value)
{
    for (; value > 0x7f; value >>= 7)
        *p++ = (char)(value | 0x80);
    *p++ = (char)value;
    return p;
}

size_t grpc_health_request(struct str service, char out[GRPC_HEALTH_REQUEST_MAX])
{
    check(service.n <= GRPC_HEALTH_SERVICE_MAX);
    char *message = out + GRPC_PREFIX_BYTES, *p = message;
    if (service.n) { // the empty string is what a field that is absent means
        *p++ = FIELD_SERVICE << 3 | WIRE_BYTES;
        p = put_varint(p, service.n);
        memcpy(p, service.p, service.n);
        p += service.n;
    }
    size_t n = (size_t)(p - message);
    memset(out, 0, GRPC_PREFIX_BYTES); // not compressed
    out[3] = (char)(n >> 8);
    out[4] = (char)n;
    return GRPC_PREFIX_BYTES + n;
}

// ---- reading ----

// At most ten bytes, at most 64 bits.
static bool take_varint(struct str *rest, uint64_t *value)
{
    uint64_t v = 0;
    for (unsigned i = 0; i < VARINT_BYTES && i < rest->n; i++) {
        uint64_t byte = (unsigned char)rest->p[i];
        if (i == VARINT_BYTES - 1 && byte > 1)
            return false;
        v |= (byte & 0x7f) << 7 * i;
        if (byte & 0x80)
            continue;
        *rest = str_skip(*rest, i + 1);
        *value = v;
        return true;
    }
    return false;
}

static bool skip(struct str *rest, uint64_t n)
{
    if (n > rest->n)
        return false;
    *rest = str_skip(*rest, (size_t)n);
    return true;
}

static bool skip_value(struct str *rest, unsigned wire)
{
    uint64_t value;
    switch (wire) {
    case WIRE_VARINT: return take_varint(rest, &value);
    case WIRE_64: return skip(rest, 8);
    case WIRE_BYTES: return take_varint(rest, &value) && skip(rest, value);
    case WIRE_32: return skip(rest, 4);
    default: return false; // groups are not in proto3
    }
}

static bool take_field(struct str *rest, uint64_t *serving)
{
    uint64_t key;
    if (!take_varint(rest, &key) || key > UINT32_MAX || key >> 3 == 0)
        return false;
    unsigned wire = (unsigned)(key & 7);
    if (key >> 3 != FIELD_STATUS)
        return skip_value(rest, wire);
    return wire == WIRE_VARINT && take_varint(rest, serving);
}

const char *grpc_health_answer(struct str body, uint64_t *serving)
{
    *serving = GRPC_SERVING_UNKNOWN;
    if (!body.n)
        return "no message";
    if (body.n < GRPC_PREFIX_BYTES)
        return "a message that is cut short";
    if (body.p[0] != 0)
        return "a message that is compressed";
    uint32_t length = 0;
    for (unsigned i = 1; i < GRPC_PREFIX_BYTES; i++)
        length = length << 8 | (unsigned char)body.p[i];
    struct str rest = str_skip(body, GRPC_PREFIX_BYTES);
    if (length > rest.n)
        return "a message that is cut short";
    if (length < rest.n)
        return "more than one message";
    while (rest.n)
        if (!take_field(&rest, serving))
            return "a message that is malformed";
    return NULL;
}

struct str grpc_serving_name(uint64_t serving)
{
    switch (serving) {
    case GRPC_SERVING_UNKNOWN: return STR("UNKNOWN");
    case GRPC_SERVING: return STR("SERVING");
    case GRPC_NOT_SERVING: return STR("NOT_SERVING");
    case GRPC_SERVICE_UNKNOWN: return STR("SERVICE_UNKNOWN");
    default: return STR_NULL;
    }
}
