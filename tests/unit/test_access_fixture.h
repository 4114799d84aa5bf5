// What the tests of the access log share: a usual record, formats, and JSON lines read back by jansson.
#pragma once

#include "unit.h"

#include "observe/access_log.h"

#include <jansson.h>

static struct arena arena;
static const struct access_format *json;

static const struct access_record usual = {
    .wall_us = 1795521600123456, // 2026-11-24T12:00:00.123456Z
    .request_id = STR("01890a5d-ac96-774b-bcce-b302099a8057"),
    .client = STR("192.0.2.7"),
    .listener = STR("http"),
    .host = STR("api.example.com"),
    .method = STR("GET"),
    .path = STR("/orders/17"),
    .query = STR("token=secret"),
    .protocol = STR("HTTP/1.1"),
    .route = STR("orders"),
    .upstream = STR("orders"),
    .endpoint = STR("127.0.0.1:9101"),
    .trace_id = STR("4bf92f3577b34da6a3ce929d0e0e4736"),
    .user_agent = STR("curl/8.0 \"x\""),
    .referer = STR("https://example.com/"),
    .status = 200,
    .cause = END_OK,
    .bytes_in = 0,
    .bytes_out = 12345678901,
    .duration_us = 1234567,
    .upstream_us = 1005,
    .attempts = 1,
};

static inline const struct access_format *compile(enum access_format_kind kind, const char *template)
{
    const char *why = NULL;
    const struct access_format *format = access_format_compile(kind, str_of(template), &arena, &why);
    if (!format)
        fail_msg("%s", why);
    return format;
}

static inline void formats_init(void)
{
    arena_init(&arena, NULL);
    json = compile(ACCESS_JSON, "");
}

static inline json_t *parse(const char *line)
{
    json_error_t error;
    json_t *value = json_loads(line, JSON_REJECT_DUPLICATES, &error);
    if (!value)
        fail_msg("%s: %s", error.text, line);
    return value;
}
