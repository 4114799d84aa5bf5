// A probe's HTTP/2 session: one request on one stream. Private to the room's probes.
#pragma once

#include "http/h2.h"
#include "upstream/health_probe.h"

// What is made of the answer; called from within nghttp2, and only while the probe goes on.
struct h2_probe_events {
    // A final head. end: nothing follows.
    void (*on_head)(struct probe *probe, const struct response_head *head, bool end);
    void (*on_body)(struct probe *probe, struct str span);
    // The end, unless it came with the head. trailers: NULL: none.
    void (*on_end)(struct probe *probe, const struct headers *trailers);
};

struct h2_probe {
    nghttp2_session *session;
    const struct h2_probe_events *events;
    struct h2_fields fields; // of the header block that is arriving
    bool has_head;
    unsigned interim;
    struct str body; // of the request; what is not sent yet
    void *state;     // the events'
};

// Opens a session and asks. request: method and headers, with Host; body: n == 0: none, else in the probe's
// arena. False: memory is out.
must_check bool h2_probe_begin(struct probe *probe, const struct h2_probe_events *events,
                               const struct request_head *request, struct str target, bool te_trailers,
                               struct str body);
void h2_probe_ask(struct probe *probe);
void h2_probe_hear(struct probe *probe);
void h2_probe_fini(struct probe *probe);
