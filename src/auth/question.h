// Questions to Auth Services (introspection, forward): one under way for all exchanges that ask the same, and
// the cache before it.
//
//   question_ask ─▶ cache ─fresh─▶ answer
//                     └─▶ the same question is under way ─▶ wait with the others
//                           └─▶ the breaker lets it through ─▶ fetch, wait
//                                 └─ no: what is stale, or AUTH_UNAVAILABLE
//   the answer ─▶ breaker, cache ─▶ wake(ticket) of each who waits ─▶ question_again
//
// Who waits gives up after the provider's timeout; the question goes on a while for the cache's sake, whether
// anybody still waits or not, and holds the snapshot it was asked under.
#pragma once

#include "auth/provider.h"

enum {
    QUESTIONS_MAX = 1024,          // under way, a worker
    QUESTION_WAITERS_MAX = 16384,  // a worker
    QUESTION_LATE_US = 2000000,    // so long after the timeout an answer still fills the cache
    QUESTION_ANSWER_BYTES = 65536, // of an answer's body
};

// What an answer says.
struct question_finding {
    bool decided;
    const char *why;              // undecided: for the log; static
    struct identity *identity;    // a reference; NULL: denied
    enum end_cause cause;         // denied
    struct str detail, challenge; // denied; n == 0: the usual. In the question's arena
    int64_t expires;              // Unix seconds: no longer than this is it kept; INT64_MAX: it does not say
};

struct question_kind {
    // Fills in method, target, authority, headers, body, repeatable; what it makes is in arena.
    void (*compose)(const struct auth_provider *provider, const struct auth_call *call,
                    struct str credentials, struct arena *arena, struct fetch_request *request);
    // Reads an answer, of any status; finding is zeroed. Not called when there is none.
    void (*judge)(const struct auth_provider *provider, const struct fetch_answer *answer, int64_t now_s,
                  struct arena *arena, struct question_finding *finding);
};

struct question_asked {
    const struct question_kind *kind;
    const struct auth_cache_settings *cache;
    uint64_t timeout_us;
    struct str credentials;
    struct hash128 key;  // what the decision is kept by
    struct hash128 same; // questions with the same one may have one answer
};

enum auth_result question_ask(struct auth_worker *worker, const struct auth_provider *provider,
                              struct auth_call *call, const struct question_asked *asked);
// After AUTH_WAIT: call->state is set.
enum auth_result question_again(struct auth_worker *worker, const struct auth_provider *provider,
                                struct auth_call *call);
// auth_kind_row.forget.
void question_forget(struct auth_worker *worker, struct auth_call *call);
// With its worker: all are given up, nobody is woken.
void questions_free(struct auth_worker *worker);
uint32_t questions_under_way(const struct auth_worker *worker);

// How long an answer may be kept by its own word (Cache-Control, RFC 9111 5.2.2): 0 for no-store, no-cache
// and private, what is left of s-maxage or max-age, else UINT64_MAX. *stale: whether it may be used beyond.
uint64_t question_freshness_us(const struct headers *headers, bool *stale);
