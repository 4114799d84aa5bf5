// sallyport verify: what the gateway says of a token, without a gateway.
#include "cli/cli.h"
#include "cli/file.h"
#include "token/token.h"

#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>
#include <unistd.h>

enum {
    AUDIENCES = 16,
    // A JWK, a token and what JSON adds; a longer line is answered like any other that is no token.
    LINE_BYTES = TOKEN_KEYS_BYTES + 2 * TOKEN_BYTES,
};

static const char usage[] =
    "usage: sallyport verify --jwks FILE [--issuer I] [--audience A]...\n"
    "       (a token on stdin: its claims on stdout, or the reason on stderr)\n"
    "       sallyport verify --lines\n"
    "       (lines of {\"jwk\": {...}, \"jws\": \"...\"} on stdin, answered `valid` or "
    "`invalid`; signatures only)\n";

struct arguments {
    const char *jwks;
    struct str issuer;
    struct str audiences[AUDIENCES];
    uint32_t audience_count;
    bool lines;
};

// An empty one would not be looked at: a variable that is not set must not make a check go away.
static bool add_audience(struct arguments *arguments, struct str audience)
{
    if (!audience.n || arguments->audience_count == AUDIENCES)
        return false;
    arguments->audiences[arguments->audience_count++] = audience;
    return true;
}

static bool read_arguments(int argc, char **argv, struct arguments *arguments)
{
    static const struct option options[] = {{"jwks", required_argument, NULL, 'j'},
                                            {"issuer", required_argument, NULL, 'i'},
                                            {"audience", required_argument, NULL, 'a'},
                                            {"lines", no_argument, NULL, 'l'},
                                            {NULL, 0, NULL, 0}};
    bool good = true;
    for (int option; (option = getopt_long(argc, argv, "", options, NULL)) != -1;) {
        switch (option) {
        case 'j': arguments->jwks = optarg; break;
        case 'i':
            arguments->issuer = str_of(optarg);
            good = good && arguments->issuer.n;
            break;
        case 'a': good = good && add_audience(arguments, str_of(optarg)); break;
        case 'l': arguments->lines = true; break;
        default: good = false;
        }
    }
    bool judges = arguments->jwks || arguments->issuer.n || arguments->audience_count;
    return good && optind == argc && (arguments->lines ? !judges : arguments->jwks != NULL);
}

// ---- one token, as a jwt provider judges it ----

static struct token_keys *read_keys(const char *path)
{
    struct str text;
    struct err err;
    if (file_read(path, &text, &err) != ERR_OK) {
        fprintf(stderr, "sallyport: %s: %s\n", path, err.what);
        return NULL;
    }
    struct token_keys *keys = token_keys_parse(text, &err);
    if (!keys)
        fprintf(stderr, "sallyport: %s: %s\n", path, err.what);
    free((void *)(uintptr_t)text.p);
    return keys;
}

static enum token_fault judge(struct token_verifier *verifier, const struct arguments *arguments,
                              const struct token *token, struct str *missing)
{
    const struct token_rules rules = {.issuer = arguments->issuer,
                                      .audiences = arguments->audiences,
                                      .audience_count = arguments->audience_count};
    struct token_facts facts;
    enum token_fault fault = token_verify(verifier, token, ALGORITHMS_ALL);
    return fault == TOKEN_GOOD ? token_judge(token, &rules, time(NULL), &facts, missing) : fault;
}

static int print_verdict(enum token_fault fault, struct str missing, const struct token *token)
{
    if (fault == TOKEN_GOOD) {
        printf("%.*s\n", STR_ARG(token->claims->text));
        return CLI_OK;
    }
    fprintf(stderr, "sallyport: %.*s", STR_ARG(token_fault_words(fault)));
    if (fault == TOKEN_MISSING_CLAIM)
        fprintf(stderr, ": %.*s", STR_ARG(missing));
    fputs("\n", stderr);
    return CLI_FAILED;
}

static int verify_stdin(struct token_verifier *verifier, const struct arguments *arguments)
{
    struct str text, missing = STR_NULL;
    struct err err;
    if (file_read_fd(STDIN_FILENO, "stdin", &text, &err) != ERR_OK) {
        fprintf(stderr, "sallyport: stdin: %s\n", err.what);
        return CLI_FAILED;
    }
    struct str line = text;
    while (line.n && (line.p[line.n - 1] == '\n' || line.p[line.n - 1] == '\r'))
        line.n--;
    struct arena arena;
    struct token token;
    arena_init(&arena, NULL);
    enum token_fault fault = token_parse(line, &arena, &token);
    if (fault == TOKEN_GOOD)
        fault = judge(verifier, arguments, &token, &missing);
    int status = print_verdict(fault, missing, &token);
    arena_reset(&arena);
    free((void *)(uintptr_t)text.p);
    return status;
}

static int verify_token(const struct arguments *arguments)
{
    struct token_keys *keys = read_keys(arguments->jwks);
    struct token_verifier *verifier = keys ? token_verifier_new(keys, NULL) : NULL;
    if (keys && !verifier)
        fputs("sallyport: memory is out\n", stderr);
    int status = verifier ? verify_stdin(verifier, arguments) : CLI_FAILED;
    token_verifier_free(verifier);
    token_keys_unref(keys);
    return status;
}

// ---- lines of keys and signatures ----

static bool is_signed(struct str jwk, struct str jws, struct arena *arena)
{
    struct token token;
    if (token_parse(jws, arena, &token) != TOKEN_GOOD)
        return false;
    struct token_keys *keys = token_keys_parse_private(jwk, NULL);
    struct token_verifier *verifier = keys ? token_verifier_new(keys, NULL) : NULL;
    bool valid = verifier && token_verify(verifier, &token, ALGORITHMS_ALL) == TOKEN_GOOD;
    token_verifier_free(verifier);
    token_keys_unref(keys);
    return valid;
}

static bool is_valid_line(struct str line)
{
    struct arena arena;
    const char *why;
    arena_init(&arena, NULL);
    const struct json_value *root = json_parse(line, &arena, &why);
    const struct json_value *jwk = json_get(root, STR("jwk")), *jws = json_get(root, STR("jws"));
    bool valid =
        jwk && jwk->kind == JSON_OBJECT && json_is_string(jws) && is_signed(jwk->text, jws->text, &arena);
    arena_reset(&arena);
    return valid;
}

// False at the end. A line that is too long is empty.
static bool read_line(char *buffer, struct str *line)
{
    size_t n = 0;
    int c;
    for (; (c = getc_unlocked(stdin)) != EOF && c != '\n'; n++)
        if (n < LINE_BYTES)
            buffer[n] = (char)c;
    *line = (struct str){buffer, n <= LINE_BYTES ? n : 0};
    return c != EOF || n;
}

static int verify_lines(void)
{
    char *buffer = malloc(LINE_BYTES);
    struct str line;
    if (!buffer) {
        fputs("sallyport: memory is out\n", stderr);
        return CLI_FAILED;
    }
    setvbuf(stdout, NULL, _IOLBF, 0); // who asks line by line is answered line by line
    while (read_line(buffer, &line))
        puts(is_valid_line(line) ? "valid" : "invalid");
    free(buffer);
    return ferror(stdin) ? CLI_FAILED : CLI_OK;
}

int cli_verify(int argc, char **argv)
{
    struct arguments arguments = {0};
    if (!read_arguments(argc, argv, &arguments)) {
        fputs(usage, stderr);
        return CLI_USAGE;
    }
    return file_finish_stdout(arguments.lines ? verify_lines() : verify_token(&arguments));
}
