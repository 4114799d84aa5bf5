// The whole way of a configuration file: text → tree → settings with every rule, and back to text. What a
// dump prints must be taken again and mean the same.
#include "exchange/gateway_config.h"

#include "base/check.h"

#include <stdlib.h>

struct run {
    struct arena arena;
    struct config_report report;
    struct gateway_settings settings;
};

static bool load(struct run *run, struct str text)
{
    *run = (struct run){0};
    arena_init(&run->arena, NULL);
    run->report.arena = &run->arena;
    bool is_valid = gateway_settings_load(STR("f"), text, &run->arena, &run->settings, &run->report);
    check(is_valid == (run->report.count == 0));
    return is_valid;
}

static void print_report(const struct run *run)
{
    struct buf out = {0};
    struct json json;
    config_report_print(&run->report, &out);
    unsigned lines = 0;
    for (uint32_t i = 0; i < out.end; i++)
        lines += out.base[i] == '\n';
    check(lines == (run->report.count > CONFIG_ERRORS ? CONFIG_ERRORS + 1 : run->report.count));
    json_init(&json, &out, true);
    config_report_json(&run->report, &json);
    buf_free(&out);
}

// Masked values come back as "***", and a secret that is "***" is none: those dumps are not taken again.
static bool is_masked(struct str dump)
{
    return memmem(dump.p, dump.n, "***", 3) != NULL;
}

static void check_dump(const struct run *run, bool as_json)
{
    struct buf first = {0}, second = {0};
    struct run again;
    config_dump(&gateway_object, &run->settings, as_json, &first);
    if (!is_masked(buf_str(&first))) {
        check(load(&again, buf_str(&first)));
        config_dump(&gateway_object, &again.settings, as_json, &second);
        check(str_eq(buf_str(&first), buf_str(&second)));
        arena_reset(&again.arena);
    }
    buf_free(&first);
    buf_free(&second);
}

int LLVMFuzzerInitialize(int *argc, char ***argv);
int LLVMFuzzerInitialize(int *argc, char ***argv)
{
    (void)argc, (void)argv;
    setenv("SALLYPORT_TEST_PORT", "9000", 1);
    setenv("SALLYPORT_TEST_EMPTY", "", 1);
    setenv("SALLYPORT_TEST_TOKEN", "token", 1);
    return 0;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
    struct run run;
    if (load(&run, (struct str){(const char *)data, n})) {
        check_dump(&run, false);
        check_dump(&run, true);
    }
    print_report(&run);
    arena_reset(&run.arena);
    return 0;
}
