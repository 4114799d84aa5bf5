// Who may call, by address. deny wins over allow; an empty allow lets in all that deny does not name.
#include "policy/policy.h"
#include "policy/policy_config.h"

static enum verdict check_client(struct policy_call *call)
{
    const struct ip_rules *rules = call->settings;
    bool denied = cidr_set_has(&rules->deny, call->client);
    bool allowed = rules->allow.count == 0 || cidr_set_has(&rules->allow, call->client);
    if (allowed && !denied)
        return PASS;
    call->cause = END_IP_DENIED;
    call->detail = STR("This address may not call this route.");
    return FAIL;
}

const struct policy policy_ip = {.name = "ip", .on_request = check_client};
