// One address of an upstream, as the whole process knows it: health, when it came up, whether it is ejected.
// Kept by (upstream, address) across reloads. Written by the control thread, read by workers with relaxed
// loads; the ejector is written by workers, too.
#pragma once

#include "base/list.h"
#include "net/addr.h"
#include "upstream/ejector.h"

#include <stdatomic.h>

enum { HEALTH_WORDS = 128 }; // of what a check says, with its NUL

struct shared_breaker;

struct endpoint {
    struct str upstream_name, name; // name: the address as configured
    struct addr addr;
    uint32_t index;                // dense, process-wide: workers' arrays use it
    uint32_t metric_id;            // of "upstream\0address"
    unsigned references;           // snapshots that name it; control thread only
    atomic_bool up;                // active checks' opinion; true when there are none
    _Atomic(uint64_t) up_since_us; // for slow_start; 0: since the start
    _Atomic(uint64_t) checks, check_failures;
    char last_check[HEALTH_WORDS];  // what the last check said; control thread only
    struct shared_breaker *breaker; // NULL: none yet; in use where circuit_breaker.scope is endpoint
    struct ejector ejector;
};

// The endpoint of that pair and address, made when it is new; one reference is added. Control thread.
struct endpoint *endpoint_ref(struct str upstream_name, struct str name, const struct addr *addr);
// Without references it is forgotten what checks have found; the memory stays, since workers may point to it.
void endpoint_unref(struct endpoint *endpoint);
// One more than the highest index handed out so far.
uint32_t endpoint_count(void);
