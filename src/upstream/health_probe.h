// One question to one endpoint, on a connection of its own: connect, TLS where the upstream has it, ask, hear
// the answer, one verdict. What is asked and what a good answer is, is a row of struct probe_kind.
//
//   probe_start ──▶ connect ──▶ TLS? ──▶ kind->begin, ask ──▶ kind->hear … ──▶ on_verdict
//                      └───────────┴── the owner's deadline: probe_time_out ──┘
//
// The connection outlives the verdict by one turn: whoever is in the middle of a callback may end the probe.
#pragma once

#include "base/arena.h"
#include "base/buf.h"
#include "http/h1_parse.h"
#include "net/conn.h"
#include "upstream/health.h"

struct probe;
struct tls_client;

struct probe_kind {
    const char *name;
    // The connection stands. False: memory is out.
    bool (*begin)(struct probe *probe);
    // What is to be sent next, into probe->out, which is empty; nothing when there is nothing.
    void (*ask)(struct probe *probe);
    // probe->data[0, received) is there: takes what it can. A full data without a verdict ends the probe.
    void (*hear)(struct probe *probe);
    void (*fini)(struct probe *probe); // NULL: nothing
};

extern const struct probe_kind probe_h1, probe_h2, probe_grpc;

// Of all endpoints of an upstream.
struct probe_question {
    const struct probe_kind *kind;
    struct str path;            // h1, h2
    struct str service;         // grpc
    struct status_set statuses; // h1, h2: which are good
    uint64_t timeout_ms;
    struct tls_client *tls; // NULL: plain
};

enum probe_result {
    PROBE_GOOD,
    PROBE_BAD,
    PROBE_UNDECIDED, // this machine's want of something says nothing about the endpoint
};

struct probe_verdict {
    enum probe_result result;
    char words[HEALTH_WORDS];
};

struct probe {
    struct conn conn;
    const struct probe_kind *kind; // the question's, also when that is gone
    const struct probe_question *question;
    struct str name; // of the endpoint
    struct str host; // whom its certificate must name
    void *owner;     // NULL: the verdict is in, or nobody wants it any more
    void (*on_verdict)(void *owner, const struct probe_verdict *verdict);
    uint64_t begun_us;
    enum { PROBE_CONNECTING, PROBE_SECURING, PROBE_ASKING } stage;
    struct buf out;
    struct arena arena;
    union {
        struct h1_parse h1;
        struct h2_probe *h2; // health_h2.h
    };
    bool asked;   // h1: the request is in out or gone
    size_t heard; // bytes in all
    size_t received;
    char data[HEALTH_HEAD_BYTES];
};

// on_verdict is called once, from the loop, unless probe_drop comes before; the probe is gone then. NULL: it
// could not even begin, *verdict says why.
struct probe *probe_start(struct loop *loop, const struct probe_question *question, struct str name,
                          struct str host, const struct addr *addr, void *owner,
                          void (*on_verdict)(void *owner, const struct probe_verdict *verdict),
                          struct probe_verdict *verdict);
// The deadline has come: the verdict says what was waited for.
void probe_time_out(struct probe *probe);
// Nobody wants to know any more.
void probe_drop(struct probe *probe);
// From one snapshot's checks to the next one's; the question is the same.
void probe_hand_over(struct probe *probe, const struct probe_question *question, struct str host,
                     void *owner);

// ---- for kinds ----

static inline bool probe_is_over(const struct probe *probe)
{
    return probe->owner == NULL;
}

// The Host of a request.
struct str probe_authority(const struct probe *probe);
// The verdict. Harmless once it is in.
void probe_say(struct probe *probe, enum probe_result result, const char *format, ...)
    __attribute__((format(printf, 3, 4)));
void probe_fail(struct probe *probe, const char *what, const char *why);
void probe_judge_status(struct probe *probe, unsigned status);
unsigned long long probe_took_ms(const struct probe *probe);
