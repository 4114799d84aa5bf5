// Copies of answers, for when their service is not asked. In this process, for all its workers.
//
//   resource    scheme, authority, path, query: what is asked for. It is forgotten as a whole when it changes
//    │          (RFC 9111 4.4), whoever was told so
//    └─ copies  by their place (route, upstream, what steers it), and by the fields that Vary names and what
//               the request had in them (4.1)
//
// A resource that two callers have asked for is preferred to those that one has (shelf.h): nobody drives out
// what others use by asking for much.
#pragma once

#include "base/shared.h"
#include "replay/replay.h"

enum {
    COPIES_RESOURCES = 16384,
    COPIES_BYTES = 64 * 1024 * 1024, // of all, with what they take besides
    COPY_BYTES = 256 * 1024,         // of one: head and body
    COPY_VARIANTS = 8,               // of one resource: then the one that was kept longest ago goes
    COPY_SELECTION_BYTES = 4096,     // of what is kept of the request's fields
};

struct copy_key {
    struct replay_hash resource, place;
    uint64_t caller;   // who asks: a number of his own
    uint32_t upstream; // who answers: a dense number, for copies_of and copies_drop
};

struct copy {
    uint64_t asked_us; // when it was asked for: it may tell of what was before a change that came later
    uint64_t came_us;
    uint64_t born_us;  // when its age was nothing
    uint64_t until_us; // it is not given away then and later
    bool is_public;    // also for those who say who they are
    struct str span;   // as of replay_answer_write
    struct shared *in; // copies_find: what the span is of
};

// All of it is copied. vary: names of fields, a list. body: more bytes of the span. False: it is not kept.
bool copies_keep(const struct copy_key *key, const struct headers *request, struct str vary,
                 const struct copy *copy, struct str body);
// The last one that fits the request. The caller holds copy->in, until shared_unref.
bool copies_find(const struct copy_key *key, const struct headers *request, bool is_personal, uint64_t now_us,
                 struct copy *copy);
// All of the resource, or of one place of it; and what was asked for before now_us is no longer kept.
void copies_forget(struct replay_hash resource, const struct replay_hash *place, uint64_t now_us);
// Whether there are any: without the lock.
bool copies_any(void);

// ---- for people ----

struct copies_counts {
    uint32_t resources, copies;
    uint64_t bytes;
};
struct copies_counts copies_counts(void);
// Those of one upstream; bytes: of the copies alone. resources is 0.
struct copies_counts copies_of(uint32_t upstream);
enum { COPIES_OF_ALL = -1 };
// Of one upstream, or COPIES_OF_ALL; and what was asked for before now_us is no longer kept, whoever answers.
// Returns how many went.
uint32_t copies_drop(int64_t upstream, uint64_t now_us);
