// Faults on purpose, so that clients can be tried against a slow or failing service: a delay, then a status,
// each with a probability of its own. The two draws are independent.
#include "base/check.h"
#include "policy/policy.h"
#include "policy/policy_config.h"

static bool happens(struct rand *rand, double ratio)
{
    return ratio > 0 && rand_unit(rand) < ratio;
}

static enum verdict inject(struct policy_call *call)
{
    const struct fault_settings *fault = call->settings;
    if (!call->again && fault->delay_us && happens(call->rand, fault->delay_ratio)) {
        call->wait_ms = (fault->delay_us + 999) / 1000;
        return WAIT;
    }
    if (!fault->status || !happens(call->rand, fault->status_ratio))
        return PASS;
    check(fault->status >= 100 && fault->status <= 599);
    call->cause = END_FAULT_INJECTED;
    call->answer.status = (unsigned)fault->status;
    call->detail = STR("The configuration asked for this failure.");
    return FAIL;
}

const struct policy policy_fault = {.name = "fault", .on_request = inject};
