#include "auth/shared.h"

#include <pthread.h>

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static struct auth_cache *cache; // while a worker is there
static unsigned workers;

void auth_shared_open(void)
{
    pthread_mutex_lock(&lock);
    if (!workers++)
        cache = auth_cache_new();
    pthread_mutex_unlock(&lock);
}

void auth_shared_close(void)
{
    pthread_mutex_lock(&lock);
    check(workers);
    if (!--workers) {
        auth_cache_free(cache);
        cache = NULL;
    }
    pthread_mutex_unlock(&lock);
}

bool auth_shared_find(struct hash128 key, int64_t now_ms, int64_t known_ms, struct auth_decision *found)
{
    pthread_mutex_lock(&lock);
    const struct auth_decision *decision = auth_cache_find(cache, key, now_ms);
    bool is_fresher = decision && decision->fresh_until_ms > known_ms;
    if (is_fresher) {
        *found = *decision;
        if (decision->identity)
            found->identity = identity_copy(decision->identity);
        is_fresher = !decision->identity == !found->identity; // else memory is out
    }
    pthread_mutex_unlock(&lock);
    return is_fresher;
}

void auth_shared_put(const struct auth_decision *decision)
{
    struct auth_decision copy = *decision;
    if (decision->identity && !(copy.identity = identity_copy(decision->identity))) {
        auth_shared_drop(decision->key);
        return;
    }
    pthread_mutex_lock(&lock);
    auth_cache_put(cache, &copy);
    identity_unref(copy.identity);
    pthread_mutex_unlock(&lock);
}

void auth_shared_drop(struct hash128 key)
{
    pthread_mutex_lock(&lock);
    auth_cache_drop(cache, key);
    pthread_mutex_unlock(&lock);
}
