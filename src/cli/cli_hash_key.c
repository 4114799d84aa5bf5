// sallyport hash-key: what the configuration keeps of an API key.
#include "auth/consumers.h"
#include "cli/cli.h"
#include "cli/file.h"

#include <openssl/crypto.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

static struct str without_newline(struct str text)
{
    if (text.n && text.p[text.n - 1] == '\n')
        text.n--;
    if (text.n && text.p[text.n - 1] == '\r')
        text.n--;
    return text;
}

static int print_hash(struct str key)
{
    char hex[64];
    if (!key.n || key.n > API_KEY_BYTES) {
        fprintf(stderr, "sallyport: stdin: an API key has 1 to %d bytes\n", API_KEY_BYTES);
        return CLI_FAILED;
    }
    consumers_hash_key(key, hex);
    printf("%.*s\n", (int)sizeof hex, hex);
    return file_finish_stdout(CLI_OK);
}

int cli_hash_key(int argc, char **argv)
{
    struct str text;
    struct err err;
    (void)argv;
    if (argc > 1) {
        fputs("usage: sallyport hash-key      (an API key on stdin)\n", stderr);
        return CLI_USAGE;
    }
    if (file_read_fd(STDIN_FILENO, "stdin", &text, &err) != ERR_OK) {
        fprintf(stderr, "sallyport: stdin: %s\n", err.what);
        return CLI_FAILED;
    }
    int status = print_hash(without_newline(text));
    OPENSSL_cleanse((void *)(uintptr_t)text.p, text.n);
    free((void *)(uintptr_t)text.p);
    return status;
}
