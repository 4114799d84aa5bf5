// sallyport-auth: the table of its sub-commands.
#include "auth_service/service.h"
#include "cli/load.h"

#include <errno.h>
#include <openssl/crypto.h>
#include <stdio.h>
#include <unistd.h>

static const char usage[] =
    "usage: sallyport-auth COMMAND [ARGUMENT...]\n"
    "\n"
    "  run -c FILE     serve\n"
    "  check -c FILE   say every mistake in a configuration\n"
    "  hash            print the hash of the password or secret on stdin, for the configuration\n"
    "  schema          print the configuration's JSON Schema\n"
    "  version         print the version\n"
    "  help            print this\n"
    "\n"
    "Signals: TERM and INT stop it (twice: at once), HUP reads the configuration again, USR1 opens\n"
    "the access log again, USR2 rotates the signing keys now.\n";

static const char *file_of(int argc, char **argv)
{
    if (argc == 3 && (strcmp(argv[1], "-c") == 0 || strcmp(argv[1], "--config") == 0))
        return argv[2];
    fputs(usage, stderr);
    return NULL;
}

static int command_run(int argc, char **argv)
{
    const char *file = file_of(argc, argv);
    return file ? service_run(file) : 2;
}

static int command_check(int argc, char **argv)
{
    const char *file = file_of(argc, argv);
    struct arena arena;
    if (!file)
        return 2;
    arena_init(&arena, NULL);
    struct config_report report = {.arena = &arena};
    struct config *config = config_load(file, &report);
    load_print(&report);
    if (config)
        printf("%s: valid (%u clients, %u users)\n", file, config->settings.clients.count,
               config->settings.users.count);
    int status = config ? 0 : 1;
    config_free(config);
    arena_reset(&arena);
    return status;
}

static int command_hash(int argc, char **argv)
{
    char secret[SCRYPT_SECRET_BYTES + 2], text[SCRYPT_TEXT];
    size_t n = 0;
    (void)argc, (void)argv;
    for (ssize_t got; n < sizeof secret; n += (size_t)got) {
        got = read(STDIN_FILENO, secret + n, sizeof secret - n);
        if (got < 0 && errno == EINTR)
            got = 0;
        else if (got <= 0)
            break;
    }
    while (n && (secret[n - 1] == '\n' || secret[n - 1] == '\r'))
        n--;
    bool fits = n && n <= SCRYPT_SECRET_BYTES && !memchr(secret, 0, n);
    if (!fits)
        fputs("sallyport-auth hash: stdin: expected a secret of 1 to 1024 bytes\n", stderr);
    bool good = fits && scrypt_make((struct str){secret, n}, text);
    OPENSSL_cleanse(secret, sizeof secret);
    return good && puts(text) >= 0 && fflush(stdout) == 0 ? 0 : 1;
}

static int command_schema(int argc, char **argv)
{
    struct buf out = {0};
    (void)argc, (void)argv;
    config_schema(&auth_service_object, "sallyport-auth configuration", &out);
    fwrite(out.base, 1, buf_len(&out), stdout);
    buf_free(&out);
    return fflush(stdout) == 0 ? 0 : 1;
}

static int command_version(int argc, char **argv)
{
    (void)argc, (void)argv;
    return puts("sallyport-auth " SALLYPORT_VERSION) >= 0 ? 0 : 1;
}

static int command_help(int argc, char **argv)
{
    (void)argc, (void)argv;
    return fputs(usage, stdout) >= 0 ? 0 : 1;
}

int main(int argc, char **argv)
{
    static const struct {
        const char *name;
        int (*run)(int argc, char **argv);
    } commands[] = {
        {"run", command_run},           {"check", command_check},     {"hash", command_hash},
        {"schema", command_schema},     {"version", command_version}, {"help", command_help},
        {"--version", command_version}, {"--help", command_help},     {"-h", command_help},
    };
    for (size_t i = 0; argc > 1 && i < countof(commands); i++)
        if (strcmp(commands[i].name, argv[1]) == 0)
            return commands[i].run(argc - 1, argv + 1);
    fputs(usage, stderr);
    return 2;
}
