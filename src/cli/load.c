#include "cli/load.h"

#include "cli/file.h"

#include <stdio.h>
#include <stdlib.h>

void load_print(const struct config_report *report)
{
    struct buf out = {0};
    config_report_print(report, &out);
    if (buf_len(&out))
        fwrite(out.base + out.start, 1, buf_len(&out), stderr);
    buf_free(&out);
}

static bool read_text(const char *file, struct str *text)
{
    struct err err;
    if (file_read(file, text, &err) == ERR_OK)
        return true;
    fprintf(stderr, "%s: %s\n", err.where, err.what);
    return false;
}

struct gateway *load_gateway(const char *file)
{
    struct str text;
    if (!read_text(file, &text))
        return NULL;
    struct arena arena;
    arena_init(&arena, NULL);
    struct config_report report = {.arena = &arena};
    struct gateway *gateway = gateway_new(str_of(file), text, NULL, &report);
    load_print(&report);
    arena_reset(&arena);
    free((void *)(uintptr_t)text.p);
    return gateway;
}

bool load_settings(const char *file, struct arena *arena, struct gateway_settings *settings)
{
    struct str text;
    if (!read_text(file, &text))
        return false;
    struct config_report report = {.arena = arena};
    bool good = gateway_settings_load(str_of(file), text, arena, settings, &report);
    load_print(&report);
    free((void *)(uintptr_t)text.p);
    return good;
}
