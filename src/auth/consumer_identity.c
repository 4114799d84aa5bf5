#include "auth/consumer_identity.h"

// The fingerprint stands for the consumers as well: a key that has been taken away is not found here either.
static struct hash128 key_of(const struct auth_provider *provider, struct str credentials)
{
    return siphash128(siphash_process_key(), provider->fingerprint, credentials);
}

bool consumer_identity_find(struct auth_worker *worker, const struct auth_provider *provider,
                            struct auth_call *call, struct str credentials)
{
    const struct auth_decision *decision =
        auth_cache_find(worker->cache, key_of(provider, credentials), call->now_s * 1000);
    metrics_provider(worker->needs.metrics, provider->id, decision ? COUNT_CACHE_HIT : COUNT_CACHE_MISS);
    if (!decision)
        return false;
    call->identity = identity_ref(decision->identity);
    return true;
}

bool consumer_identity_make(struct auth_worker *worker, const struct auth_provider *provider,
                            struct auth_call *call, struct str credentials, const struct consumer *consumer,
                            struct str subject)
{
    struct identity_facts facts = {
        .provider = provider,
        .subject = subject,
        .issued_at = INT64_MIN,
        .expires = INT64_MAX,
    };
    if (consumer) {
        facts.subject = facts.consumer = consumer->name;
        facts.roles = consumer->roles;
        facts.scopes = consumer->scopes;
    }
    call->identity = identity_new(provider->auth, &facts);
    if (!call->identity)
        return false;
    const struct auth_decision decision = {
        .key = key_of(provider, credentials),
        .identity = call->identity,
        .fresh_until_ms = INT64_MAX,
        .stale_until_ms = INT64_MAX,
    };
    auth_cache_put(worker->cache, &decision);
    return true;
}
