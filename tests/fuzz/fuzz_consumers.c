// A file of consumers. The first line of the input is an API key, and names of a certificate after it; the
// rest is the file. Whatever is taken can be asked, and what is refused says in which line.
#include "exact_copy.h"

#include "auth/consumers.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n);

static void check_names(const struct str_list *list)
{
    for (uint32_t i = 0; i < list->count; i++)
        check(list->v[i].n && str_find(list->v[i], '\n') == list->v[i].n);
}

static void check_consumer(const struct consumer *consumer)
{
    if (!consumer)
        return;
    check(consumer->name.n);
    check_names(&consumer->roles);
    check_names(&consumer->scopes);
}

static void ask(const struct consumers *consumers, struct str question)
{
    struct str text = question, part[4] = {0};
    for (size_t i = 0; i < countof(part) && text.n; i++) {
        part[i] = (struct str){text.p, str_find(text, '|')};
        text = str_skip(text, part[i].n < text.n ? part[i].n + 1 : text.n);
    }
    const struct consumer *by_key = consumers_by_key(consumers, part[0]);
    check(by_key == consumers_by_key(consumers, part[0]));
    check_consumer(by_key);
    check_consumer(consumers_by_certificate(consumers, part[1], part[2], part[3]));
}

// The hash of its first key makes a file that knows the key.
static void check_own(struct str key)
{
    char text[] = "{\"name\":\"own\",\"api_keys\":[\"........................................................"
                  "........\"]}";
    struct err err = {0};
    consumers_hash_key(key, memchr(text, '.', sizeof text));
    struct consumers_source source = {.file = STR("own"), .text = str_of(text)};
    struct consumers *consumers = consumers_new(&source, &err);
    check(consumers && consumers_count(consumers) == 1);
    const struct consumer *consumer = consumers_by_key(consumers, key);
    check(key.n <= API_KEY_BYTES ? consumer && str_eq(consumer->name, STR("own")) : !consumer);
    consumers_unref(consumers);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
    struct str input = {(const char *)data, n};
    struct str question = {input.p, n ? str_find(input, '\n') : 0};
    struct str rest = str_skip(input, question.n < n ? question.n + 1 : question.n);
    struct err err = {0};
    char *copy = exact_copy(rest.p, rest.n);
    struct consumers_source source = {.file = STR("f"), .text = {copy, rest.n}};
    struct consumers *consumers = consumers_new(&source, &err);
    check(consumers || (err.code != ERR_OK && err.what[0]));
    free(copy); // they hold no part of the text
    if (consumers) {
        ask(consumers, question);
        consumers_unref(consumers);
    }
    if (question.n && str_find(question, '|') == question.n)
        check_own(question);
    return 0;
}
