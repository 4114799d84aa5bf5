// The steps of an exchange and what they share: private to the room.
#pragma once

#include "exchange/exchange.h"

enum step_result { STEP_MORE, STEP_WAIT, STEP_DONE };

struct step {
    const char *name;
    enum step_result (*run)(struct exchange *x);
};

extern const struct step steps[STEP_COUNT];

static inline uint64_t exchange_now_us(const struct exchange *x)
{
    return x->worker->loop.now_us;
}

// ---- retry.c ----

// An attempt has ended badly, or with a status worth another try: tries again, or ends with the cause. Sets
// the step.
enum step_result exchange_try_again(struct exchange *x, enum end_cause cause);
// Whether the exchange would try again. A yes is paid for out of the retry budget, once for each attempt.
bool exchange_may_retry(struct exchange *x, enum end_cause cause);

// What an attempt at the exchange's upstream has cost; status 0: it brought no answer. Returns microseconds.
uint64_t exchange_record_attempt(struct exchange *x, const struct upstream_call *call, unsigned status);
// Ends the attempt, if there is one, with this cause: its connection goes back or is closed.
void exchange_leave_upstream(struct exchange *x, enum end_cause cause);
// The head of an answer that may last.
void exchange_judge_upstream(struct exchange *x);

// Its upstream's way of trying again, or the route's own.
void exchange_choose_retries(struct exchange *x);
// The client asks for another protocol (extended CONNECT), which this upstream cannot be asked for.
static inline bool exchange_lacks_upgrade(const struct exchange *x, const struct upstream *upstream)
{
    return x->request.extended_connect && upstream->settings->protocol == UPSTREAM_H2;
}

// ---- hedge.c: a second attempt beside one that is slow ----

// An attempt begins: when another is to be made beside it.
void hedge_plan(struct exchange *x);
// It is time (x->hedge_at_us). From the loop.
void hedge_start(struct exchange *x);
// The attempt has an answer, or the exchange ends: there is no hedge from now on.
void hedge_settle(struct exchange *x);
// The attempt has failed, but there is x->hedge: which goes on instead. Sets the step.
enum step_result hedge_take_over(struct exchange *x, const struct attempt_end *failed);

// ---- exchange.c ----

// Ends the exchange with this cause: an answer when none has begun, else a cut. Sets STEP_FINISH; does not
// run it.
void exchange_end(struct exchange *x, enum end_cause cause, struct str detail);
// Sets when the timer must look at the exchange again.
void exchange_arm(struct exchange *x);
void exchange_release(struct exchange *x);
// Tells the policies that the exchange is over (on_end), the first time. Call it before the end of the answer
// is sent; exchange_release does in any case.
void exchange_end_policies(struct exchange *x);
// What a policy of this exchange waits with. The one before is void.
struct ticket exchange_new_ticket(struct exchange *x);
extern const struct upstream_call_events exchange_call_events;

// ---- reply.c: the sole writer of the gateway's own answers ----

// problem+json for the row of x->cause. status 0: the row's.
void reply_error(struct exchange *x, enum end_cause cause, unsigned status, struct str detail);
// What the policy asked last has said: FAIL.
void reply_refusal(struct exchange *x);
void reply_answer(struct exchange *x, struct policy_answer *given);
void reply_redirect(struct exchange *x);
// To the same place on the listener of redirect_to: 308, method and body are kept (RFC 9110 15.4.9).
void reply_redirect_to_tls(struct exchange *x);
void reply_respond(struct exchange *x, const struct respond_settings *respond);
// What a service had answered. in: what its body is of.
void reply_copy(struct exchange *x, const struct replay_answer *copy, struct shared *in);
// The end of a gRPC answer that has begun (x->grpc_trailers).
void reply_grpc_trailers(struct exchange *x, enum end_cause cause, struct str detail);

// ---- orphan.c ----

// The client has gone: the front is told that x has ended, but it goes on for nobody. False: there is no
// reason for that, or it still has need of its client.
bool exchange_outlive_client(struct exchange *x, enum end_cause cause);
// Its client has gone, and nobody will ask for its answer any more.
bool exchange_is_forsaken(const struct exchange *x);

// ---- watch.c ----

// A stream whose identity can expire or be revoked ends when it does. Call it when it may have become one.
void exchange_watch(struct exchange *x);

// ---- upload.c ----

// Whether an upload that has had its place for so long has brought too little to keep it when others wait.
bool upload_is_slow(uint64_t bytes, uint64_t us);
// The upstream is kept waiting by one.
bool upload_is_stalled(const struct exchange *x);
// At the end of a turn, while others are held up: ends uploads that keep places of an upstream that is short
// of them, passes over those that are probes, and judges probes whose answer lasts by its head.
void upload_look_at_stalled(struct worker *worker);

// ---- forward.c: what goes to upstreams and to clients besides what the peers said ----

// Finds out who asks: peer_trusted, source. Drops what an untrusted client may not say.
void forward_identify(struct exchange *x);
// The request target for upstreams; false when a rewrite makes a path that is refused.
bool forward_make_target(struct exchange *x);
// Makes the request head ready for upstreams, once.
void forward_prepare_request(struct exchange *x);
// The Host field for the attempt's endpoint.
void forward_set_host(struct exchange *x, const struct upstream_call *call);
// Makes a response head ready for the client.
void forward_shape_response(struct exchange *x, struct response_head *head);

// ---- deadline.c ----

// The request's deadline, by its route and its client. False: grpc-timeout is malformed.
bool deadline_take(struct exchange *x);
// A place for it in the request for upstreams, once.
void deadline_prepare(struct exchange *x);
// What is left of it, for this attempt's upstream. False: nothing is.
bool deadline_pass(struct exchange *x);

// ---- relay.c ----

void relay_open_body(struct exchange *x); // HELD → OPEN: the front may deliver
// Another try: what has been delivered already, from this byte on, until the upstream is full. True: it has
// all of it; else on_drain goes on.
bool relay_replay_body(struct exchange *x, size_t from);
