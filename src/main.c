// sallyport: the table of sub-commands. Each is a file in cli/.
#include "base/check.h"
#include "base/str.h"
#include "cli/cli.h"

#include <stdio.h>

static int help(int argc, char **argv);

static const struct command {
    const char *name;
    int (*run)(int argc, char **argv);
    const char *help; // NULL: not for people
} commands[] = {
    {"run", cli_run, "serve: -c FILE"},
    {"check", cli_check, "say every mistake in a configuration: -c FILE [--json]"},
    {"dump", cli_dump, "print the effective configuration, secrets as ***: -c FILE [--json]"},
    {"schema", cli_schema, "print the configuration's JSON Schema"},
    {"routes", cli_routes, "print the routes in matching order: -c FILE [--json]"},
    {"explain", cli_explain,
     "say what happens to a request: -c FILE 'GET https://host/path' [-H 'Name: value']..."},
    {"health", cli_health, "exit 0 when a running gateway is ready: [--status ADDRESS | -c FILE]"},
    {"hash-key", cli_hash_key, "print the SHA-256 of the API key on stdin, for `consumers`"},
    {"verify", cli_verify,
     "say whether the token on stdin is good: --jwks FILE [--issuer I] [--audience A]... | --lines"},
    {"version", cli_version, "print the version: [--json]"},
    {"help", help, "print this"},
    {"worker", cli_worker, NULL},
};

static void print_commands(FILE *out)
{
    fputs("usage: sallyport COMMAND [ARGUMENT...]\n\n", out);
    for (size_t i = 0; i < countof(commands); i++)
        if (commands[i].help)
            fprintf(out, "  %-8s  %s\n", commands[i].name, commands[i].help);
}

static int help(int argc, char **argv)
{
    (void)argc, (void)argv;
    print_commands(stdout);
    return CLI_OK;
}

static const char *nearest(const char *word)
{
    const char *best = NULL;
    unsigned least = 3; // farther away is another word
    for (size_t i = 0; i < countof(commands); i++) {
        unsigned distance = str_distance(str_of(word), str_of(commands[i].name));
        if (commands[i].help && distance < least) {
            least = distance;
            best = commands[i].name;
        }
    }
    return best;
}

int main(int argc, char **argv)
{
    if (argc < 2) {
        print_commands(stderr);
        return CLI_USAGE;
    }
    const char *name = argv[1];
    if (strcmp(name, "--help") == 0 || strcmp(name, "-h") == 0)
        name = "help";
    if (strcmp(name, "--version") == 0)
        name = "version";
    for (size_t i = 0; i < countof(commands); i++)
        if (strcmp(commands[i].name, name) == 0)
            return commands[i].run(argc - 1, argv + 1);
    const char *near = nearest(name);
    fprintf(stderr, "sallyport: unknown command \"%s\"", name);
    if (near)
        fprintf(stderr, " (did you mean \"%s\"?)", near);
    fputs("; sallyport help lists them\n", stderr);
    return CLI_USAGE;
}
