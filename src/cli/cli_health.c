// sallyport health: for a container's HEALTHCHECK and for scripts.
#include "cli/ask.h"
#include "cli/cli.h"
#include "cli/load.h"

#include <getopt.h>
#include <stdio.h>

enum { TIMEOUT_MS = 2000 };

static const char usage[] = "usage: sallyport health [--status ADDRESS | -c FILE] [--timeout 2s]\n";

static bool address_in(const char *file, struct addr *addr)
{
    struct arena arena;
    struct gateway_settings settings;
    arena_init(&arena, NULL);
    bool good = load_settings(file, &arena, &settings) && addr_parse(settings.status.address, addr);
    arena_reset(&arena);
    return good;
}

static int ask_ready(const struct addr *addr, uint64_t timeout_ms)
{
    struct ask_answer answer;
    struct err err;
    if (!ask(addr, "GET", "/readyz", STR(""), STR(""), timeout_ms, &answer, &err)) {
        fprintf(stderr, "sallyport: %s: %s\n", err.where, err.what);
        return CLI_FAILED;
    }
    bool ready = answer.status == 200;
    if (ready)
        puts("ready");
    else
        fprintf(stderr, "sallyport: not ready: status %u\n", answer.status);
    buf_free(&answer.text);
    return ready ? CLI_OK : CLI_FAILED;
}

int cli_health(int argc, char **argv)
{
    static const struct option options[] = {{"config", required_argument, NULL, 'c'},
                                            {"status", required_argument, NULL, 's'},
                                            {"timeout", required_argument, NULL, 't'},
                                            {NULL, 0, NULL, 0}};
    const char *file = NULL, *status = NULL;
    uint64_t timeout_us = TIMEOUT_MS * 1000;
    bool good = true;
    for (int option; (option = getopt_long(argc, argv, "c:", options, NULL)) != -1;) {
        switch (option) {
        case 'c': file = optarg; break;
        case 's': status = optarg; break;
        case 't': good = good && config_duration(str_of(optarg), &timeout_us) && timeout_us >= 1000; break;
        default: good = false;
        }
    }
    struct addr addr;
    if (!good || optind != argc || (file && status)) {
        fputs(usage, stderr);
        return CLI_USAGE;
    }
    if (!file && !addr_parse(str_of(status ? status : "127.0.0.1:9902"), &addr)) {
        fprintf(stderr, "sallyport: --status: \"%s\" is no address (host:port, [v6]:port or unix:/path)\n",
                status);
        return CLI_USAGE;
    }
    if (file && !address_in(file, &addr))
        return CLI_FAILED;
    return ask_ready(&addr, timeout_us / 1000);
}
