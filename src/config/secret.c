// { env: NAME } or { file: PATH }: secrets are named in the file, never written in it, and never shown.
#include "base/file.h"
#include "config/decoder.h"

#include <stdlib.h>

enum { SECRET_MAX = 64 * 1024 };

bool config_read_secret(struct config_decoder *decoder, const struct config_node *node, struct str *secret);

// Without the line ends behind its last line. NULL: *what says why not.
static struct str read_file(struct arena *arena, struct str path, const char **what)
{
    struct str text = file_load(path, SECRET_MAX, arena, what);
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
    const char *what = NULL;
    struct str text = read_file(decoder->arena, path, &what);
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
