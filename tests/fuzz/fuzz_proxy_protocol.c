// PROXY headers: byte by byte the outcome is that of all bytes at once, and a header never takes more than
// there is.
#include "base/check.h"
#include "net/proxy_protocol.h"

#include <stdlib.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n);

static enum proxy_result parse(const uint8_t *data, size_t n, size_t *consumed, struct ip *source)
{
    char *copy = malloc(n ? n : 1); // of the exact size, for ASan
    check(copy);
    if (n)
        memcpy(copy, data, n);
    *consumed = SIZE_MAX;
    *source = (struct ip){.family = 99};
    enum proxy_result result = proxy_protocol_parse(copy, n, consumed, source);
    check(result == PROXY_DONE || (*consumed == SIZE_MAX && source->family == 99));
    free(copy);
    return result;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
    size_t consumed, consumed_early;
    struct ip source, source_early;
    char text[IP_TEXT_MAX];
    enum proxy_result result = parse(data, n, &consumed, &source), early = PROXY_MORE;
    for (size_t have = 0; have <= n && have <= PROXY_HEADER_MAX && early == PROXY_MORE; have++)
        early = parse(data, have, &consumed_early, &source_early);
    check(early == result);
    if (result == PROXY_MORE) {
        check(n < PROXY_HEADER_MAX);
    } else if (result == PROXY_DONE) {
        check(consumed == consumed_early && consumed <= n && consumed <= PROXY_HEADER_MAX);
        check(memcmp(&source, &source_early, sizeof source) == 0);
        check(source.family == 99 || ip_print(&source, text) <= IP_TEXT_MAX);
    }
    return 0;
}
