#include "discovery/lookup.h"

#include <netdb.h>
#include <stdio.h>
#include <stdlib.h>

enum { NAME_MAX_BYTES = 255 };

static int compare_addrs(const void *a, const void *b)
{
    const struct addr *left = a, *right = b;
    if (left->length != right->length)
        return left->length < right->length ? -1 : 1;
    return memcmp(&left->any, &right->any, left->length);
}

static bool split_name(struct str text, char *name, uint64_t *port)
{
    size_t colon = str_find(text, ':');
    if (colon == 0 || colon == text.n || colon > NAME_MAX_BYTES ||
        !str_to_u64(str_skip(text, colon + 1), 65535, port) || *port == 0)
        return false;
    memcpy(name, text.p, colon);
    name[colon] = 0;
    return true;
}

static unsigned collect(const struct addrinfo *found, struct addr *addrs)
{
    unsigned count = 0;
    for (; found && count < LOOKUP_MAX; found = found->ai_next) {
        struct addr *addr = &addrs[count];
        memset(addr, 0, sizeof *addr);
        addr->length = found->ai_addrlen;
        memcpy(&addr->any, found->ai_addr, found->ai_addrlen);
        count++;
    }
    qsort(addrs, count, sizeof *addrs, compare_addrs);
    unsigned kept = 0;
    for (unsigned i = 0; i < count; i++)
        if (kept == 0 || !addr_eq(&addrs[kept - 1], &addrs[i]))
            addrs[kept++] = addrs[i];
    return kept;
}

enum err_code lookup_target(struct str text, struct addr *addrs, unsigned *count, struct err *err)
{
    char name[NAME_MAX_BYTES + 1], service[8];
    uint64_t port;
    *count = 0;
    if (addr_parse(text, &addrs[0])) {
        *count = 1;
        return ERR_OK;
    }
    if (!split_name(text, name, &port))
        return err_set(err, ERR_INVALID, "target", "\"%.*s\" is no address", STR_ARG(text));
    snprintf(service, sizeof service, "%u", (unsigned)port);
    struct addrinfo hints = {.ai_family = AF_UNSPEC, .ai_socktype = SOCK_STREAM, .ai_flags = AI_NUMERICSERV};
    struct addrinfo *found = NULL;
    int failure = getaddrinfo(name, service, &hints, &found);
    if (failure)
        return err_set(err, ERR_NOT_FOUND, name, "looking up the name failed: %s", gai_strerror(failure));
    *count = collect(found, addrs);
    freeaddrinfo(found);
    return ERR_OK;
}
