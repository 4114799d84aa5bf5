// sallyport routes: the routing table as requests meet it.
#include "admin/admin.h"
#include "cli/cli.h"
#include "cli/load.h"

#include <getopt.h>
#include <stdio.h>

static const char usage[] = "usage: sallyport routes -c FILE [--json]\n";

static void print_target(const struct route *route, struct buf *out)
{
    switch (route->action) {
    case ROUTE_FORWARD: buf_printf(out, "%.*s", STR_ARG(route->upstream->name)); break;
    case ROUTE_SPLIT:
        for (uint32_t i = 0; i < route->split_count; i++)
            buf_printf(out, "%s%.*s %u/%u", i ? ", " : "", STR_ARG(route->split[i].upstream->name),
                       route->split[i].weight, route->split_total);
        break;
    case ROUTE_REDIRECT: buf_printf(out, "redirect %.*s", STR_ARG(route->settings->redirect.to)); break;
    case ROUTE_RESPOND: buf_printf(out, "respond %d", (int)route->settings->respond.status); break;
    }
}

static void print_auth(const struct route *route, struct buf *out)
{
    if (!route->settings->has_auth)
        return;
    buf_append(out, STR("  ["));
    route_print_auth(route, out);
    buf_append(out, STR("]"));
}

static void print_table(const struct route_table *routes, struct buf *out)
{
    for (uint32_t i = 0; i < route_table_count(routes); i++) {
        const struct route *route = route_table_at(routes, i);
        buf_printf(out, "%4u  %-24.*s  ", i + 1, STR_ARG(route->name));
        route_print(route, out);
        buf_append(out, STR("  ->  "));
        print_target(route, out);
        print_auth(route, out);
        buf_append(out, STR("\n"));
    }
}

static void print_json(const struct route_table *routes, struct buf *out)
{
    struct json json;
    json_init(&json, out, true);
    json_array(&json);
    for (uint32_t i = 0; i < route_table_count(routes); i++)
        admin_print_route(&json, route_table_at(routes, i));
    json_array_end(&json);
    buf_append(out, STR("\n"));
}

int cli_routes(int argc, char **argv)
{
    static const struct option options[] = {
        {"config", required_argument, NULL, 'c'}, {"json", no_argument, NULL, 'j'}, {NULL, 0, NULL, 0}};
    const char *file = NULL;
    bool as_json = false;
    for (int option; (option = getopt_long(argc, argv, "c:", options, NULL)) != -1;) {
        if (option == 'c')
            file = optarg;
        else if (option == 'j')
            as_json = true;
        else
            file = NULL, optind = argc + 1;
    }
    if (!file || optind != argc) {
        fputs(usage, stderr);
        return CLI_USAGE;
    }
    struct gateway *gateway = load_gateway(file);
    if (!gateway)
        return CLI_FAILED;
    struct buf out = {0};
    (as_json ? print_json : print_table)(gateway->routes, &out);
    if (buf_len(&out))
        fwrite(out.base + out.start, 1, buf_len(&out), stdout);
    buf_free(&out);
    gateway_unref(gateway);
    gateway_reap();
    return CLI_OK;
}
