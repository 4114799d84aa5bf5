// ${VAR} inside one scalar. It happens after parsing, so that a variable's value can never become structure.
#include "config/decoder.h"

#include <stdlib.h>

enum { EXPANDED_MAX = 256 * 1024, VARIABLE_MAX = 128 };

static bool is_name(struct str s)
{
    for (size_t i = 0; i < s.n; i++) {
        char c = ascii_lower(s.p[i]);
        if ((c < 'a' || c > 'z') && c != '_' && (i == 0 || c < '0' || c > '9'))
            return false;
    }
    return s.n > 0 && s.n < VARIABLE_MAX;
}

// "NAME", "NAME:-default" or "NAME:?message".
struct reference {
    struct str name, word;
    char how; // 0, '-' or '?'
};

static bool split_reference(struct str inner, struct reference *reference)
{
    size_t colon = str_find(inner, ':');
    *reference = (struct reference){.name = {inner.p, colon}};
    if (!is_name(reference->name))
        return false;
    if (colon == inner.n)
        return true;
    if (colon + 1 == inner.n || (inner.p[colon + 1] != '-' && inner.p[colon + 1] != '?'))
        return false;
    reference->how = inner.p[colon + 1];
    reference->word = str_skip(inner, colon + 2);
    return true;
}

static bool value_of(const struct reference *reference, struct arena *arena, struct str *value,
                     struct str *why, const char **hint)
{
    char name[VARIABLE_MAX];
    memcpy(name, reference->name.p, reference->name.n);
    name[reference->name.n] = 0;
    *value = str_of(getenv(name));
    if (reference->how ? value->n > 0 : value->p != NULL)
        return true;
    if (reference->how == '-') {
        *value = reference->word;
        return true;
    }
    if (reference->how == '?' && reference->word.n) {
        *why =
            arena_printf(arena, "environment variable %s is not set: %.*s", name, STR_ARG(reference->word));
        *hint = "";
    } else {
        *why = arena_printf(arena, "environment variable %s is not set", name);
        *hint = arena_printf(arena, "set it, or give a default: ${%s:-value}", name).p;
    }
    return false;
}

static const char *const syntax_hint =
    "write ${NAME}, ${NAME:-default} or ${NAME:?message}; $$ stands for one $";

// s begins with "${". Appends its value and returns the rest behind "}"; rest.p is NULL when it cannot be.
static struct str expand_one(struct str s, struct arena *arena, struct buf *built, struct str *why,
                             const char **hint)
{
    struct reference reference;
    struct str value;
    size_t end = str_find(s, '}');
    if (end == s.n || !split_reference((struct str){s.p + 2, end - 2}, &reference) ||
        (reference.word.n > 1 && memmem(reference.word.p, reference.word.n, "${", 2))) {
        *why = STR("malformed ${…}");
        *hint = syntax_hint;
        return STR_NULL;
    }
    if (!value_of(&reference, arena, &value, why, hint))
        return STR_NULL;
    if (buf_len(built) + value.n > EXPANDED_MAX) {
        *why = STR("too long with its variables expanded");
        *hint = "at most 256KiB";
        return STR_NULL;
    }
    buf_append(built, value);
    return str_skip(s, end + 1);
}

bool config_expand(struct str text, struct arena *arena, struct str *out, bool *changed, struct str *why,
                   const char **hint)
{
    *changed = false;
    if (str_find(text, '$') == text.n) {
        *out = arena_copy(arena, text);
        return true;
    }
    struct buf built = {0};
    while (text.n) {
        size_t dollar = str_find(text, '$');
        buf_append(&built, (struct str){text.p, dollar});
        text = str_skip(text, dollar);
        if (text.n > 1 && text.p[1] == '{') {
            text = expand_one(text, arena, &built, why, hint);
            *changed = true;
            if (!text.p) {
                buf_free(&built);
                return false;
            }
        } else if (text.n) {
            buf_append(&built, STR("$"));
            text = str_skip(text, text.n > 1 && text.p[1] == '$' ? 2 : 1);
        }
    }
    *out = arena_copy(arena, config_text_of(&built));
    buf_free(&built);
    return true;
}
