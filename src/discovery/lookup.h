// Targets by name: looked up once, when a configuration is compiled, on the control thread (getaddrinfo
// blocks).
#pragma once

#include "net/addr.h"

enum { LOOKUP_MAX = 64 /* addresses a name may have */ };

// text: an address (addr_parse), or "name:port". Fills at most LOOKUP_MAX addresses, sorted, without
// duplicates; *count is how many. ERR_INVALID: no address and no name; ERR_NOT_FOUND: the resolver's words
// are in *err.
must_check enum err_code lookup_target(struct str text, struct addr *addrs, unsigned *count, struct err *err);
