// One whole question to an upstream on behalf of the gateway itself: the request is at hand, the answer is
// collected in memory, one deadline covers all of it. Connections are the upstream's pools'. No redirects.
//
// Tried again within the deadline only what cannot have been carried out, or may be twice: an endpoint that
// cannot be reached makes way for the next one, a kept-alive connection that turns out to be dead for a fresh
// one.
#pragma once

#include "upstream/upstream.h"

enum { FETCH_TRIES = 3 /* a host's addresses, or a stale connection and then these */ };

struct fetch;

struct fetch_request {         // copied
    struct upstream *upstream; // must outlive the fetch: the owner holds the snapshot
    enum http_method method;
    struct str target;             // "/introspect?x=1"
    struct str authority;          // for Host
    const struct headers *headers; // further ones; no framing, no Host, no hop-by-hop. May be NULL
    struct str body;               // Content-Length is sent when it is not empty or the method is POST
    bool repeatable;               // asked twice it does no harm, whatever its method: a POST that only asks
    size_t answer_bytes;           // a longer body is END_UPSTREAM_BAD_RESPONSE
    uint64_t timeout_us;
};

struct fetch_answer {     // valid during on_done
    enum end_cause cause; // END_OK: there is an answer, of any status. END_UPSTREAM_TIMEOUT: the deadline
    unsigned status;
    const struct headers *headers; // NULL without an answer
    struct str body;
};

// on_done is called once, from the loop, never from inside fetch_start, unless fetch_cancel comes first; with
// it the fetch is over. NULL: memory is out, or it cannot begin: *cause says why.
struct fetch *fetch_start(struct upstream_worker *worker, const struct fetch_request *request, void *owner,
                          void (*on_done)(void *owner, const struct fetch_answer *answer),
                          enum end_cause *cause);
// Nothing is called any more. Not from inside on_done.
void fetch_cancel(struct fetch *fetch);
