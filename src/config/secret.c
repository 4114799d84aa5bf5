// { env: NAME } or { file: PATH }: secrets are named in the file, never written in it, and never shown.
#include "config/decoder.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

enum { SECRET_MAX = 64 * 1024 };

bool config_read_secret(struct config_decoder *decoder, const struct config_node *node, struct str *secret);

// Reads a regular file, without the line ends behind its last line. NULL: *what says why not.
static struct str read_file(struct arena *arena, const char *path, const char **what)
{
    struct stat stat;
    struct str text = STR_NULL;
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);
    *what = NULL;
    if (fd < 0 || fstat(fd, &stat) < 0) {
        *what = strerror(errno);
    } else if (!S_ISREG(stat.st_mode)) {
        *what = "not a regular file";
    } else if (stat.st_size > SECRET_MAX) {
        *what = "larger than 64KiB";
    } else {
        char *bytes = arena_zalloc(arena, (size_t)stat.st_size + 1);
        ssize_t n = read(fd, bytes, (size_t)stat.st_size);
        if (n < 0)
            *what = strerror(errno);
        else
            text = (struct str){bytes, (size_t)n};
    }
    if (fd >= 0)
        close(fd);
    while (text.n && (text.p[text.n - 1] == '\n' || text.p[text.n - 1] == '\r'))
        text.n--;
    return text;
}

static bool from_env(struct config_decoder *decoder, const struct config_node *node, struct str name,
                     struct str *secret)
{
    const char *value = getenv(name.p);
    if (!value || !*value) {
        config_fail(decoder, node, "set it before starting", "environment variable %.*s is %s", STR_ARG(name),
                    value ? "empty" : "not set");
        return false;
    }
    *secret = arena_copy(decoder->arena, str_of(value));
    return true;
}

static bool from_file(struct config_decoder *decoder, const struct config_node *node, struct str path,
                      struct str *secret)
{
    const char *what;
    struct str text = read_file(decoder->arena, path.p, &what);
    if (!what && !text.n)
        what = "the file is empty";
    if (!what && memchr(text.p, 0, text.n))
        what = "the file holds a NUL byte";
    if (what) {
        config_fail(decoder, node, "", "cannot read the secret from %.*s: %s", STR_ARG(path), what);
        return false;
    }
    *secret = arena_copy(decoder->arena, text);
    return true;
}

bool config_read_secret(struct config_decoder *decoder, const struct config_node *node, struct str *secret)
{
    struct str word;
    if (node->kind != CONFIG_MAP) { // whatever stands there may be the secret itself: not shown
        config_fail(decoder, node, "secrets are never written in the file: { env: NAME } or { file: PATH }",
                    "expected a secret, { env: NAME } or { file: PATH }");
        return false;
    }
    const struct config_node *source = node->first;
    bool is_env = source && str_eq(source->key, STR("env")),
         is_file = source && str_eq(source->key, STR("file"));
    if (node->count != 1 || (!is_env && !is_file)) {
        config_fail(decoder, node, "write { env: NAME } or { file: PATH }",
                    "a secret has exactly one of env and file");
        return false;
    }
    config_enter(decoder, source->key);
    bool is_read =
        !source->bad && config_decode_string(decoder, source, &word) &&
        (is_env ? from_env(decoder, source, word, secret) : from_file(decoder, source, word, secret));
    config_leave(decoder);
    return is_read;
}
