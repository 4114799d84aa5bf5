#include "echo/echo.h"

#include <signal.h>
#include <stdio.h>
#include <stdlib.h>

static const char usage[] =
    "usage: sallyport-echo [--listen ADDRESS]… [--control ADDRESS]… [--name NAME] [--seed N] [--outage "
    "TEXT]\n"
    "\n"
    "Answers every request with what it received, as JSON, and misbehaves on request: see GET "
    "/_control/help.\n"
    "\n"
    "  --listen ADDRESS   host:port, [v6]:port or unix:/path; port 0: any free one (default 127.0.0.1:9101)\n"
    "  --control ADDRESS  serves /_control/ alone, in outages too\n"
    "  --name NAME        what it calls itself in its answers (default echo)\n"
    "  --seed N           makes ?ratio= repeatable\n"
    "  --outage TEXT      misbehaves from the start, as /_control/outage?TEXT would make it\n";

static struct echo echo;

struct options {
    struct {
        struct addr addr;
        bool control;
    } doors[ECHO_LISTENERS];
    unsigned count;
    bool serves; // a door that is not for control is named
    struct str name;
    bool seeded;
    uint64_t seed;
    bool out;
    struct outage_settings outage;
};

_Noreturn static void fail(const char *what, const char *why)
{
    fprintf(stderr, "sallyport-echo: %s: %s\n", what, why);
    exit(2);
}

static void take_address(struct options *options, const char *option, const char *value, bool control)
{
    if (options->count == ECHO_LISTENERS)
        fail(option, "too many addresses");
    options->doors[options->count].control = control;
    if (!addr_parse(str_of(value), &options->doors[options->count++].addr))
        fail(value, "not an address (host:port, [v6]:port, unix:/path)");
}

static void take_listen(struct options *options, const char *value)
{
    options->serves = true;
    take_address(options, "--listen", value, false);
}

static void take_control(struct options *options, const char *value)
{
    take_address(options, "--control", value, true);
}

static void take_outage(struct options *options, const char *value)
{
    const char *why = outage_parse(str_of(value), &options->outage);
    if (why)
        fail("--outage", why);
    options->out = true;
}

static void take_name(struct options *options, const char *value)
{
    options->name = str_of(value);
    if (!options->name.n || !header_value_valid(options->name))
        fail("--name", "not a field value");
}

static void take_seed(struct options *options, const char *value)
{
    if (!str_to_u64(str_of(value), UINT64_MAX, &options->seed))
        fail("--seed", "not a number");
    options->seeded = true;
}

static const struct {
    const char *name;
    void (*take)(struct options *options, const char *value);
} known[] = {{"--listen", take_listen},
             {"--control", take_control},
             {"--name", take_name},
             {"--seed", take_seed},
             {"--outage", take_outage}};

static void parse_options(int argc, char **argv, struct options *options)
{
    *options = (struct options){.name = STR("echo")};
    for (int i = 1; i < argc; i++) {
        if (!strcmp(argv[i], "--help") || !strcmp(argv[i], "-h")) {
            fputs(usage, stdout);
            exit(0);
        }
        size_t k = 0;
        while (k < countof(known) && strcmp(argv[i], known[k].name) != 0)
            k++;
        if (k == countof(known))
            fail(argv[i], "unknown option (--help)");
        if (++i == argc)
            fail(argv[i - 1], "needs a value");
        known[k].take(options, argv[i]);
    }
    if (!options->serves)
        take_listen(options, "127.0.0.1:9101");
}

static void on_signal(int number)
{
    (void)number;
    loop_stop(&echo.loop);
}

// One line an address, so that a caller that asked for port 0 learns the real one.
static void announce(const struct door *door)
{
    struct addr addr = {.length = sizeof addr.local};
    char text[ADDR_TEXT_MAX];
    if (getsockname(door->fd, &addr.any, &addr.length) < 0)
        return;
    addr_print(&addr, text);
    printf(door->control ? "control on %s\n" : "listening on %s\n", text);
    fflush(stdout);
}

int main(int argc, char **argv)
{
    struct options options;
    struct err err;
    parse_options(argc, argv, &options);
    if (!echo_init(&echo, options.name, &err))
        fail(err.where, err.what);
    if (options.seeded)
        rand_init_seed(&echo.rand, options.seed);
    signal(SIGPIPE, SIG_IGN);
    signal(SIGINT, on_signal);
    signal(SIGTERM, on_signal);
    for (unsigned i = 0; i < options.count; i++) {
        if (!echo_listen(&echo, &options.doors[i].addr, options.doors[i].control, &err))
            fail(err.where, err.what);
        announce(&echo.doors[i]);
    }
    if (options.out)
        outage_begin(&echo, &options.outage);
    loop_run(&echo.loop);
    echo_fini(&echo);
    return 0;
}
