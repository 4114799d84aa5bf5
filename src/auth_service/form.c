#include "auth_service/form.h"

#include "base/base64.h"
#include "http/uri.h"

bool form_parse(struct str text, struct arena *arena, struct form *form, const char **why)
{
    form->count = 0;
    while (text.n) {
        struct str pair = {text.p, str_find(text, '&')}, name, value = STR_NULL;
        text = str_skip(text, pair.n < text.n ? pair.n + 1 : pair.n);
        struct str left = {pair.p, str_find(pair, '=')};
        struct str right = left.n < pair.n ? str_skip(pair, left.n + 1) : STR_NULL;
        *why = "a parameter is not form-encoded";
        if (!uri_form_decode(left, arena, &name) || !uri_form_decode(right, arena, &value))
            return false;
        if (!name.n || !value.n)
            continue;
        *why = "a parameter comes twice";
        if (form_get(form, name).n)
            return false;
        *why = "too many parameters";
        if (form->count == FORM_FIELDS)
            return false;
        form->v[form->count++] = (struct form_field){name, value};
    }
    return true;
}

struct str form_get(const struct form *form, struct str name)
{
    for (unsigned i = 0; i < form->count; i++)
        if (str_eq(form->v[i].name, name))
            return form->v[i].value;
    return STR_NULL;
}

// What stands behind the scheme.
static struct str credentials(struct str authorization, struct str scheme)
{
    if (authorization.n <= scheme.n || !str_eq_fold((struct str){authorization.p, scheme.n}, scheme) ||
        authorization.p[scheme.n] != ' ')
        return STR_NULL;
    return str_trim(str_skip(authorization, scheme.n));
}

bool form_basic(struct str authorization, struct arena *arena, struct str *id, struct str *secret)
{
    struct str text = credentials(authorization, STR("Basic"));
    uint8_t *bytes = arena_alloc(arena, text.n + 4);
    size_t n;
    if (!text.n || !base64_decode(text, bytes, &n))
        return false;
    struct str both = {(const char *)bytes, n};
    size_t colon = str_find(both, ':');
    return colon < n && uri_form_decode((struct str){both.p, colon}, arena, id) &&
           uri_form_decode(str_skip(both, colon + 1), arena, secret) && id->n;
}

struct str form_bearer(struct str authorization)
{
    struct str token = credentials(authorization, STR("Bearer"));
    return str_find(token, ' ') == token.n ? token : STR_NULL;
}

bool form_next_word(struct str *rest, struct str *word)
{
    while (rest->n && rest->p[0] == ' ')
        *rest = str_skip(*rest, 1);
    *word = (struct str){rest->p, str_find(*rest, ' ')};
    *rest = str_skip(*rest, word->n);
    return word->n > 0;
}

bool form_has_word(struct str list, struct str word)
{
    for (struct str each; form_next_word(&list, &each);)
        if (str_eq(each, word))
            return true;
    return false;
}

bool form_is_word(struct str word)
{
    for (size_t i = 0; i < word.n; i++) {
        char c = word.p[i];
        if (c <= ' ' || c > '~' || c == '"' || c == '\\' || c == ',')
            return false;
    }
    return word.n > 0 && word.n <= 128;
}
