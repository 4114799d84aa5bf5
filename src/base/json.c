#include "base/json.h"

#include <math.h>
#include <stdio.h>

void json_init(struct json *json, struct buf *out, bool pretty)
{
    *json = (struct json){.out = out, .pretty = pretty};
}

static void newline(struct json *json)
{
    if (json->pretty)
        buf_printf(json->out, "\n%*s", (int)json->depth * 2, "");
}

static void begin_item(struct json *json)
{
    if (json->after_key) {
        json->after_key = false;
        return;
    }
    if (json->has_item[json->depth])
        buf_append(json->out, STR(","));
    json->has_item[json->depth] = true;
    if (json->depth)
        newline(json);
}

static void open_level(struct json *json, struct str bracket)
{
    begin_item(json);
    buf_append(json->out, bracket);
    check(json->depth + 1 < JSON_DEPTH);
    json->has_item[++json->depth] = false;
}

static void close_level(struct json *json, struct str bracket)
{
    check(json->depth > 0 && !json->after_key);
    bool any = json->has_item[json->depth--];
    if (any)
        newline(json);
    buf_append(json->out, bracket);
}

void json_object(struct json *json)
{
    open_level(json, STR("{"));
}

void json_object_end(struct json *json)
{
    close_level(json, STR("}"));
}

void json_array(struct json *json)
{
    open_level(json, STR("["));
}

void json_array_end(struct json *json)
{
    close_level(json, STR("]"));
}

static size_t escape_control(unsigned char c, char *out)
{
    static const char hex[] = "0123456789abcdef";
    char letter = c == '\n' ? 'n' : c == '\r' ? 'r' : c == '\t' ? 't' : c == '"' ? '"' : c == '\\' ? '\\' : 0;
    out[0] = '\\';
    if (letter) {
        out[1] = letter;
        return 2;
    }
    memcpy(out + 1, "u00", 3);
    out[4] = hex[c >> 4];
    out[5] = hex[c & 15];
    return 6;
}

size_t json_escape(struct str s, char *out)
{
    if (json_copy_plain(out, s))
        return s.n;
    char *at = out;
    while (s.n) {
        unsigned char c = (unsigned char)s.p[0];
        if (c >= 0x20 && c < 0x7f && c != '"' && c != '\\') {
            *at++ = (char)c;
            s = str_skip(s, 1);
        } else if (c < 0x80) {
            at += escape_control(c, at);
            s = str_skip(s, 1);
        } else {
            size_t n = str_utf8_length(s);
            if (n) {
                memcpy(at, s.p, n);
                at += n;
            } else {
                memcpy(at, "\xef\xbf\xbd", 3);
                at += 3;
                n = 1;
            }
            s = str_skip(s, n);
        }
    }
    return (size_t)(at - out);
}

static void append_quoted(struct json *json, struct str value)
{
    buf_append(json->out, STR("\""));
    while (value.n) {
        char piece[JSON_ESCAPE_MAX * 256];
        size_t n = value.n < 256 ? value.n : 256;
        while (n < value.n && n > 250 && ((unsigned char)value.p[n] & 0xc0) == 0x80)
            n--; // do not split a character
        buf_append(json->out, (struct str){piece, json_escape((struct str){value.p, n}, piece)});
        value = str_skip(value, n);
    }
    buf_append(json->out, STR("\""));
}

void json_key(struct json *json, struct str key)
{
    begin_item(json);
    append_quoted(json, key);
    buf_append(json->out, json->pretty ? STR(": ") : STR(":"));
    json->after_key = true;
}

void json_string(struct json *json, struct str value)
{
    begin_item(json);
    append_quoted(json, value);
}

void json_u64(struct json *json, uint64_t value)
{
    char digits[20];
    json_raw(json, (struct str){digits, u64_print(value, digits)});
}

void json_i64(struct json *json, int64_t value)
{
    begin_item(json);
    buf_printf(json->out, "%lld", (long long)value);
}

void json_double(struct json *json, double value)
{
    if (!isfinite(value)) {
        json_null(json);
        return;
    }
    char text[32];
    int n = snprintf(text, sizeof text, "%.15g", value);
    double back = 0;
    if (sscanf(text, "%lf", &back) != 1 || back < value || back > value)
        n = snprintf(text, sizeof text, "%.17g", value);
    json_raw(json, (struct str){text, (size_t)n});
}

void json_bool(struct json *json, bool value)
{
    json_raw(json, value ? STR("true") : STR("false"));
}

void json_null(struct json *json)
{
    json_raw(json, STR("null"));
}

void json_raw(struct json *json, struct str text)
{
    begin_item(json);
    buf_append(json->out, text);
}
