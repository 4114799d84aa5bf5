// sallyport explain: what would happen to a request, by a file or by a running gateway.
#include "admin/admin.h"
#include "cli/ask.h"
#include "cli/cli.h"
#include "cli/load.h"

#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>

enum { TIMEOUT_MS = 5000, HEADERS_MAX = 100 };

#define TOKEN_VARIABLE "SALLYPORT_ADMIN_TOKEN"

static const char usage[] =
    "usage: sallyport explain -c FILE 'GET https://host/path' [-H 'Name: value']...\n"
    "       sallyport explain --admin ADDRESS 'GET https://host/path' [-H 'Name: value']...\n"
    "       (the admin listener's token is read from $" TOKEN_VARIABLE ")\n";

struct question {
    const char *file, *admin;
    struct str method, url;
    struct str_pair headers[HEADERS_MAX];
    struct str_map header_map;
};

static bool add_header(struct question *question, const char *text)
{
    struct str line = str_of(text);
    size_t colon = str_find(line, ':');
    if (colon == 0 || colon == line.n || question->header_map.count == HEADERS_MAX)
        return false;
    question->headers[question->header_map.count++] =
        (struct str_pair){{line.p, colon}, str_trim(str_skip(line, colon + 1))};
    return true;
}

// "GET https://host/path"; the method may be left out.
static void read_request(struct question *question, const char *text)
{
    struct str request = str_trim(str_of(text));
    size_t space = str_find(request, ' ');
    bool has_method = space < request.n;
    question->method = has_method ? (struct str){request.p, space} : STR("GET");
    question->url = has_method ? str_trim(str_skip(request, space)) : request;
}

static bool read_arguments(struct question *question, int argc, char **argv)
{
    static const struct option options[] = {{"config", required_argument, NULL, 'c'},
                                            {"admin", required_argument, NULL, 'a'},
                                            {"header", required_argument, NULL, 'H'},
                                            {NULL, 0, NULL, 0}};
    question->header_map.v = question->headers;
    for (int option; (option = getopt_long(argc, argv, "c:H:", options, NULL)) != -1;) {
        switch (option) {
        case 'c': question->file = optarg; break;
        case 'a': question->admin = optarg; break;
        case 'H':
            if (add_header(question, optarg))
                break;
            fprintf(stderr, "sallyport: -H: \"%s\" is no 'Name: value'\n", optarg);
            return false;
        default: return false;
        }
    }
    if (optind != argc - 1 || !(question->file || question->admin))
        return false;
    read_request(question, argv[optind]);
    return true;
}

static int from_file(const struct question *question)
{
    struct gateway *gateway = load_gateway(question->file);
    if (!gateway)
        return CLI_FAILED;
    struct buf out = {0};
    struct json json;
    struct err err = {0};
    json_init(&json, &out, true);
    bool good = explain_request(gateway, question->method, question->url, &question->header_map, &json, &err);
    if (good)
        printf("%.*s\n", STR_ARG(buf_str(&out)));
    else
        fprintf(stderr, "sallyport: %s%s%s\n", err.where, err.where[0] ? ": " : "", err.what);
    buf_free(&out);
    gateway_unref(gateway);
    gateway_reap();
    return good ? CLI_OK : CLI_FAILED;
}

// A field that comes more than once is one member with a list.
static void print_headers(const struct str_map *headers, struct json *json)
{
    json_object(json);
    for (uint32_t i = 0; i < headers->count; i++) {
        uint32_t first = 0;
        while (!str_eq(headers->v[first].name, headers->v[i].name))
            first++;
        if (first < i)
            continue;
        json_key(json, headers->v[i].name);
        json_array(json);
        for (uint32_t j = i; j < headers->count; j++)
            if (str_eq(headers->v[j].name, headers->v[i].name))
                json_string(json, headers->v[j].value);
        json_array_end(json);
    }
    json_object_end(json);
}

static void print_question(const struct question *question, struct buf *out)
{
    struct json json;
    struct buf line = {0};
    json_init(&json, out, false);
    json_object(&json);
    buf_printf(&line, "%.*s %.*s", STR_ARG(question->method), STR_ARG(question->url));
    json_field_string(&json, "request", buf_str(&line));
    json_key(&json, STR("headers"));
    print_headers(&question->header_map, &json);
    json_object_end(&json);
    buf_free(&line);
}

static int from_admin(const struct question *question)
{
    struct addr addr;
    if (!addr_parse(str_of(question->admin), &addr)) {
        fprintf(stderr, "sallyport: --admin: \"%s\" is no address (host:port, [v6]:port or unix:/path)\n",
                question->admin);
        return CLI_USAGE;
    }
    struct buf body = {0};
    print_question(question, &body);
    struct ask_answer answer;
    struct err err;
    bool good = ask(&addr, "POST", "/api/v1/explain", str_of(getenv(TOKEN_VARIABLE)), buf_str(&body),
                    TIMEOUT_MS, &answer, &err);
    buf_free(&body);
    if (!good) {
        fprintf(stderr, "sallyport: %s: %s\n", err.where, err.what);
        return CLI_FAILED;
    }
    good = answer.status == 200;
    fprintf(good ? stdout : stderr, "%.*s\n", STR_ARG(answer.body));
    buf_free(&answer.text);
    return good ? CLI_OK : CLI_FAILED;
}

int cli_explain(int argc, char **argv)
{
    struct question question = {0};
    if (!read_arguments(&question, argc, argv)) {
        fputs(usage, stderr);
        return CLI_USAGE;
    }
    return question.admin ? from_admin(&question) : from_file(&question);
}
