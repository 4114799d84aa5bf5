// sallyport check, dump, schema: what a configuration file says, without running it.
#include "cli/cli.h"
#include "cli/file.h"
#include "cli/load.h"
#include "exchange/gateway_files.h"

#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>
#include <unistd.h>

// ---- arguments ----

struct arguments {
    const char *file;
    bool as_json, as_markdown;
};

static bool parse_arguments(int argc, char **argv, const char *usage, struct arguments *arguments)
{
    static const struct option options[] = {{"config", required_argument, NULL, 'c'},
                                            {"json", no_argument, NULL, 'j'},
                                            {"markdown", no_argument, NULL, 'm'},
                                            {NULL, 0, NULL, 0}};
    bool takes_file = strstr(usage, "-c") != NULL, is_good = true;
    optind = 0; // this may not be the first call in the process
    for (int option; (option = getopt_long(argc, argv, "c:", options, NULL)) != -1;) {
        if (option == 'c' && takes_file)
            arguments->file = optarg;
        else if (option == 'j' && takes_file)
            arguments->as_json = true;
        else if (option == 'm' && !takes_file)
            arguments->as_markdown = true;
        else
            is_good = false;
    }
    is_good = is_good && optind == argc && (arguments->file || !takes_file);
    if (!is_good)
        fputs(usage, stderr);
    return is_good;
}

// Writes to stdout what out holds, and frees it.
static int finish(struct buf *out, int status)
{
    if (buf_len(out))
        fwrite(out->base + out->start, 1, buf_len(out), stdout);
    buf_free(out);
    return file_finish_stdout(status);
}

// ---- the file ----

struct loaded {
    struct arena arena;
    struct config_report report, warnings;
    struct gateway_settings settings;
    struct str name; // of the file, for messages
    bool is_valid;
};

static void load(const char *file, struct loaded *loaded)
{
    struct str text, name = strcmp(file, "-") == 0 ? STR("stdin") : str_of(file);
    struct err err;
    arena_init(&loaded->arena, NULL);
    loaded->report.arena = loaded->warnings.arena = &loaded->arena;
    loaded->name = name;
    enum err_code code = strcmp(file, "-") == 0 ? file_read_fd(STDIN_FILENO, "stdin", &text, &err)
                                                : file_read(file, &text, &err);
    if (code != ERR_OK) {
        config_report_add(&loaded->report, &(struct config_error){.file = name, .what = str_of(err.what)});
        return;
    }
    loaded->is_valid = gateway_settings_load(name, text, &loaded->arena, &loaded->settings, &loaded->report);
    free((void *)(uintptr_t)text.p);
}

// What it names for TLS as well.
static void check_files(struct loaded *loaded)
{
    struct gateway_files files;
    if (!loaded->is_valid)
        return;
    loaded->is_valid =
        gateway_files_check(&loaded->settings, loaded->name, NULL, &loaded->arena, &files, &loaded->report);
    config_report_sort(&loaded->report);
    if (loaded->is_valid)
        gateway_files_warn(&files, loaded->name, time(NULL), &loaded->warnings);
    gateway_files_fini(&files);
}

static void print_count(struct buf *out, uint32_t count, const char *what)
{
    buf_printf(out, "%u %s%s", count, what, count == 1 ? "" : "s");
}

static void print_valid(struct str name, const struct gateway_settings *settings, struct buf *out)
{
    buf_printf(out, "%.*s: valid (", STR_ARG(name));
    print_count(out, settings->listeners.count, "listener");
    buf_append(out, STR(", "));
    print_count(out, settings->upstreams.count, "upstream");
    buf_append(out, STR(", "));
    print_count(out, settings->routes.count, "route");
    buf_append(out, STR(")\n"));
}

static void print_verdict(const struct loaded *loaded, struct buf *out)
{
    struct json json;
    json_init(&json, out, true);
    json_object(&json);
    json_field_bool(&json, "valid", loaded->is_valid);
    json_key(&json, STR("errors"));
    config_report_json(&loaded->report, &json);
    if (loaded->warnings.count) {
        json_key(&json, STR("warnings"));
        config_report_json(&loaded->warnings, &json);
    }
    json_object_end(&json);
    buf_append(out, STR("\n"));
}

// ---- the commands ----

int cli_check(int argc, char **argv)
{
    struct arguments arguments = {0};
    if (!parse_arguments(argc, argv, "usage: sallyport check -c FILE [--json]\n", &arguments))
        return CLI_USAGE;
    struct loaded loaded = {0};
    struct buf out = {0};
    load(arguments.file, &loaded);
    check_files(&loaded);
    if (arguments.as_json)
        print_verdict(&loaded, &out);
    else if (loaded.is_valid)
        print_valid(loaded.name, &loaded.settings, &out);
    if (!arguments.as_json) {
        load_print(&loaded.report);
        load_print(&loaded.warnings);
    }
    int status = loaded.is_valid ? CLI_OK : CLI_FAILED;
    arena_reset(&loaded.arena);
    return finish(&out, status);
}

int cli_dump(int argc, char **argv)
{
    struct arguments arguments = {0};
    if (!parse_arguments(argc, argv, "usage: sallyport dump -c FILE [--json]\n", &arguments))
        return CLI_USAGE;
    struct loaded loaded = {0};
    struct buf out = {0};
    load(arguments.file, &loaded);
    if (loaded.is_valid)
        config_dump(&gateway_object, &loaded.settings, arguments.as_json, &out);
    else
        load_print(&loaded.report);
    int status = loaded.is_valid ? CLI_OK : CLI_FAILED;
    arena_reset(&loaded.arena);
    return finish(&out, status);
}

int cli_schema(int argc, char **argv)
{
    struct arguments arguments = {0};
    struct buf out = {0};
    if (!parse_arguments(argc, argv, "usage: sallyport schema [--markdown]\n", &arguments))
        return CLI_USAGE;
    if (arguments.as_markdown)
        config_reference(&gateway_object, "Configuration", &out);
    else
        config_schema(&gateway_object, "sallyport configuration", &out);
    return finish(&out, CLI_OK);
}
