// A worker's side of authentication, across reloads.
#include "auth/identity_token.h"
#include "auth/jwks.h"
#include "auth/question.h"
#include "auth/shared.h"

#include <stdlib.h>

struct auth_worker *auth_worker_new(const struct auth_worker_needs *needs)
{
    struct auth_worker *worker = calloc(1, sizeof *worker);
    if (!worker || !(worker->cache = auth_cache_new())) {
        free(worker);
        return NULL;
    }
    auth_shared_open();
    worker->needs = *needs;
    worker->keys_fetched.loop = needs->loop;
    worker->keys_fetched.on_fetched = auth_on_keys_fetched;
    jwks_listen(&worker->keys_fetched);
    return worker;
}

static void drop_verifier(struct auth_local *local)
{
    token_verifier_free(local->verifier);
    local->verifier = NULL;
}

void auth_worker_free(struct auth_worker *worker)
{
    if (!worker)
        return;
    jwks_unlisten(&worker->keys_fetched);
    questions_free(worker);
    for (uint32_t id = 0; id < worker->local_count; id++) {
        struct auth_local *local = worker->locals[id];
        if (!local)
            continue;
        check(list_empty(&local->waiting)); // exchanges end before their worker
        drop_verifier(local);
        free(local);
    }
    free(worker->locals);
    auth_cache_free(worker->cache);
    auth_shared_close();
    identity_signer_free(worker->signer);
    free(worker);
}

// ---- each provider's ----

static void make_room(struct auth_worker *worker, uint32_t id)
{
    if (id < worker->local_count)
        return;
    uint32_t room = id + 1;
    worker->locals = realloc(worker->locals, room * sizeof *worker->locals);
    check(worker->locals);
    memset(worker->locals + worker->local_count, 0, (room - worker->local_count) * sizeof *worker->locals);
    worker->local_count = room;
}

struct auth_local *auth_local_of(struct auth_worker *worker, const struct auth_provider *provider)
{
    uint32_t id = provider->id;
    if (likely(id < worker->local_count && worker->locals[id]))
        return worker->locals[id];
    make_room(worker, id);
    struct auth_local *local = calloc(1, sizeof *local);
    check(local);
    local->worker = worker;
    local->id = id;
    list_init(&local->waiting);
    return worker->locals[id] = local;
}

void auth_worker_update(struct auth_worker *worker, const struct auth *auth)
{
    // Keys that are no longer configured are not kept; the others' are made ready again at the next token.
    for (uint32_t id = 0; id < worker->local_count; id++)
        if (worker->locals[id])
            drop_verifier(worker->locals[id]);
    for (uint32_t i = 0; i < auth->provider_count; i++)
        (void)auth_local_of(worker, auth->providers[i]);
}

void auth_forget(struct auth_worker *worker, struct auth_call *call)
{
    if (call->waits_for)
        call->waits_for->kind->forget(worker, call);
    call->waits_for = NULL;
}
