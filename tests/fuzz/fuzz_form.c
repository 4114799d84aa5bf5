// What clients send to the Auth Service: a form body, and the Authorization header.
#include "exact_copy.h"

#include "auth_service/form.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n);

// Decoding never makes longer, and leaves no NUL, which would hide what follows it.
static void check_text(struct str text, size_t n)
{
    check(text.n <= n && str_find(text, '\0') == text.n);
}

static void check_form(struct str text, struct arena *arena)
{
    struct form form;
    const char *why = NULL;
    if (!form_parse(text, arena, &form, &why)) {
        check(why);
        return;
    }
    check(form.count <= FORM_FIELDS);
    for (unsigned i = 0; i < form.count; i++) {
        const struct form_field *field = &form.v[i];
        check(field->name.n && field->value.n && str_eq(form_get(&form, field->name), field->value));
        check_text(field->name, text.n);
        check_text(field->value, text.n);
    }
}

static void check_authorization(struct str text, struct arena *arena)
{
    struct str id, secret, bearer = form_bearer(text);
    if (form_basic(text, arena, &id, &secret)) {
        check(id.n && !bearer.n);
        check_text(id, text.n);
        check_text(secret, text.n);
    }
    check(str_find(bearer, ' ') == bearer.n);
}

static void check_words(struct str text)
{
    size_t n = 0;
    for (struct str rest = text, word; form_next_word(&rest, &word); n += word.n) {
        check(word.n && form_has_word(text, word) && rest.p + rest.n == text.p + text.n);
        check(!form_is_word(word) || word.n <= 128);
    }
    check(n <= text.n);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
    struct arena arena;
    arena_init(&arena, NULL);
    char *copy = exact_copy((const char *)data, n);
    struct str text = {copy, n};
    check_form(text, &arena);
    check_authorization(text, &arena);
    if (n < 4096) // a word is sought among all
        check_words(text);
    arena_reset(&arena);
    free(copy);
    return 0;
}
