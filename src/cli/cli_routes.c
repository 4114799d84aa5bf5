// sallyport routes: the routing table as requests meet it.
#include "cli/cli.h"
#include "cli/load.h"

#include <getopt.h>
#include <stdio.h>

static const char usage[] = "usage: sallyport routes -c FILE [--json]\n";

static void json_strings(struct json *json, struct str key, const struct str_list *list)
{
    json_key(json, key);
    json_array(json);
    for (uint32_t i = 0; i < list->count; i++)
        json_string(json, list->v[i]);
    json_array_end(json);
}

static void json_route(struct json *json, const struct route *route)
{
    static const char *const kinds[] = {[PATH_PREFIX] = "prefix",
                                        [PATH_EXACT] = "exact",
                                        [PATH_TEMPLATE] = "template",
                                        [PATH_REGEX] = "regex"};
    const struct route_settings *settings = route->settings;
    json_object(json);
    json_field_string(json, "name", route->name);
    json_key(json, STR("match"));
    json_object(json);
    json_strings(json, STR("hosts"), &settings->match.hosts);
    json_key(json, STR("path"));
    json_object(json);
    json_key(json, str_of(kinds[settings->match.path.kind]));
    json_string(json, settings->match.path.text);
    json_object_end(json);
    json_strings(json, STR("methods"), &settings->match.methods);
    json_field_u64(json, "headers", settings->match.headers.count);
    json_field_u64(json, "query", settings->match.query.count);
    json_object_end(json);
    switch (route->action) {
    case ROUTE_FORWARD: json_field_string(json, "upstream", route->upstream->name); break;
    case ROUTE_SPLIT:
        json_key(json, STR("split"));
        json_array(json);
        for (uint32_t i = 0; i < route->split_count; i++) {
            json_object(json);
            json_field_string(json, "upstream", route->split[i].upstream->name);
            json_field_u64(json, "weight", route->split[i].weight);
            json_object_end(json);
        }
        json_array_end(json);
        break;
    case ROUTE_REDIRECT: json_field_string(json, "redirect", settings->redirect.to); break;
    case ROUTE_RESPOND: json_field_u64(json, "respond", (uint64_t)settings->respond.status); break;
    }
    json_field_u64(json, "line", settings->line);
    json_object_end(json);
}

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

static void print_table(const struct route_table *routes, struct buf *out)
{
    for (uint32_t i = 0; i < route_table_count(routes); i++) {
        const struct route *route = route_table_at(routes, i);
        buf_printf(out, "%4u  %-24.*s  ", i + 1, STR_ARG(route->name));
        route_print(route, out);
        buf_append(out, STR("  ->  "));
        print_target(route, out);
        buf_append(out, STR("\n"));
    }
}

static void print_json(const struct route_table *routes, struct buf *out)
{
    struct json json;
    json_init(&json, out, true);
    json_array(&json);
    for (uint32_t i = 0; i < route_table_count(routes); i++)
        json_route(&json, route_table_at(routes, i));
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
