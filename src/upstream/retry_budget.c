#include "upstream/retry_budget.h"

#include "base/check.h"
#include "base/kept.h"

#include <pthread.h>
#include <stdlib.h>

// ---- the decision ----

static double clamp(double value, double least, double most)
{
    return value < least ? least : value > most ? most : value;
}

// Clocks of workers are read once a turn: one may be behind what another has seen.
static void catch_up(struct retry_account *account, double allowed, double earned, uint64_t now_us)
{
    if (now_us < account->at_us)
        now_us = account->at_us;
    double seconds = account->at_us ? (double)(now_us - account->at_us) / 1e6 : 0;
    account->earned = clamp(account->earned + earned, -RETRY_RESERVE, 1 + allowed);
    account->lent = clamp(account->lent - seconds, 0, RETRY_RESERVE);
    account->at_us = now_us;
}

static enum retry_payment pay(struct retry_account *account)
{
    bool borrows = account->earned < 1;
    if (borrows && account->lent + 1 > RETRY_RESERVE)
        return RETRY_REFUSED;
    account->lent += borrows;
    account->earned--;
    return borrows ? RETRY_LENT : RETRY_EARNED;
}

enum retry_payment retry_account_take(struct retry_account *account, double budget, uint32_t active,
                                      uint64_t begun, bool is_more, uint64_t now_us)
{
    double allowed = budget * active;
    catch_up(account, allowed, budget * (double)(begun - account->begun), now_us);
    account->begun = begun;
    if (budget <= 0)
        return RETRY_REFUSED;
    if (!is_more && account->in_flight >= RETRIES_AT_LEAST && account->in_flight + 1 > allowed)
        return RETRY_REFUSED;
    enum retry_payment payment = budget < 1 ? pay(account) : RETRY_FREE;
    account->in_flight += payment && !is_more;
    return payment;
}

// What is more than may be kept, or has been let off meanwhile, catch_up takes away again.
void retry_account_give_back(struct retry_account *account, enum retry_payment payment, bool was_more)
{
    account->earned += payment == RETRY_EARNED || payment == RETRY_LENT;
    account->lent = clamp(account->lent - (payment == RETRY_LENT), 0, RETRY_RESERVE);
    account->in_flight -= payment && !was_more;
}

// ---- an upstream's ----

struct retry_budget {
    pthread_mutex_t lock; // guards all of it; taken for retries alone
    struct list shares;
    struct retry_account account;
};

struct retry_budget *retry_budget_at(uint32_t index)
{
    static struct kept all;
    void **place = kept_at(&all, index);
    if (!*place) {
        struct retry_budget *budget = calloc(1, sizeof *budget);
        check(budget);
        pthread_mutex_init(&budget->lock, NULL);
        list_init(&budget->shares);
        *place = budget;
    }
    return *place;
}

void retry_share_join(struct retry_share *share, struct retry_budget *budget)
{
    if (share->budget || !budget)
        return;
    pthread_mutex_lock(&budget->lock);
    share->budget = budget;
    list_push_back(&budget->shares, &share->listed);
    pthread_mutex_unlock(&budget->lock);
}

void retry_share_leave(struct retry_share *share)
{
    struct retry_budget *budget = share->budget;
    if (!budget)
        return;
    pthread_mutex_lock(&budget->lock);
    list_remove(&share->listed);
    // What it had begun is not there to be counted any more.
    uint64_t begun = atomic_load_explicit(&share->begun, memory_order_relaxed);
    budget->account.begun -= begun < budget->account.begun ? begun : budget->account.begun;
    pthread_mutex_unlock(&budget->lock);
    share->budget = NULL;
}

// ---- one request's ----

// The worker alone writes to its share: no need of a locked instruction.
static void add_active(struct retry_share *share, int change)
{
    unsigned active = atomic_load_explicit(&share->active, memory_order_relaxed);
    atomic_store_explicit(&share->active, active + (unsigned)change, memory_order_relaxed);
}

void retry_place_enter(struct retry_place *place, struct retry_share *share)
{
    if (place->share == share)
        return;
    retry_place_leave(place);
    place->share = share;
    add_active(share, 1);
    uint64_t begun = atomic_load_explicit(&share->begun, memory_order_relaxed);
    atomic_store_explicit(&share->begun, begun + 1, memory_order_relaxed);
}

bool retry_place_take(struct retry_place *place, double ratio, uint64_t now_us)
{
    struct retry_budget *budget = place->share->budget;
    uint32_t active = 0;
    uint64_t begun = 0;
    pthread_mutex_lock(&budget->lock);
    list_each (&budget->shares, node) {
        struct retry_share *share = container_of(node, struct retry_share, listed);
        active += atomic_load_explicit(&share->active, memory_order_relaxed);
        begun += atomic_load_explicit(&share->begun, memory_order_relaxed);
    }
    place->was_more = place->in_flight;
    place->paid = retry_account_take(&budget->account, ratio, active, begun, place->was_more, now_us);
    pthread_mutex_unlock(&budget->lock);
    place->in_flight |= place->paid != RETRY_REFUSED;
    return place->paid != RETRY_REFUSED;
}

void retry_place_give_back(struct retry_place *place)
{
    if (!place->share || !place->paid)
        return;
    struct retry_budget *budget = place->share->budget;
    pthread_mutex_lock(&budget->lock);
    retry_account_give_back(&budget->account, place->paid, place->was_more);
    pthread_mutex_unlock(&budget->lock);
    place->in_flight = place->was_more;
    place->paid = RETRY_REFUSED;
}

void retry_place_leave(struct retry_place *place)
{
    if (!place->share)
        return;
    if (place->in_flight) {
        struct retry_budget *budget = place->share->budget;
        pthread_mutex_lock(&budget->lock);
        budget->account.in_flight--;
        pthread_mutex_unlock(&budget->lock);
    }
    add_active(place->share, -1);
    *place = (struct retry_place){0};
}
