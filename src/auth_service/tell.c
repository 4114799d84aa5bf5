// Revocations for the gateways, by way of Redis (auth/redis_deny.h).
#include "auth_service/service.h"

#include "base/log.h"
#include "discovery/lookup_redis.h"

static void on_deny(struct vault *vault, struct str jti, int64_t expires)
{
    struct service *service = container_of(vault, struct service, vault);
    struct deny_entry entry = {
        .issuer = service->config->settings.issuer, .jti = jti, .until = expires + DENY_LEEWAY_S};
    if (service->deny && !redis_deny_tell(service->deny, &entry))
        log_error("redis", "a revocation is not told to the gateways: too many wait for Redis");
}

bool tell_open(struct service *service, struct err *err)
{
    const struct auth_service_settings *settings = &service->config->settings;
    struct addr addrs[REDIS_SEEDS];
    if (!settings->has_redis)
        return true;
    unsigned count = lookup_redis(&settings->redis, addrs, err);
    if (!count)
        return false;
    service->deny = redis_deny_new(
        &(struct redis_access){
            .loop = &service->loop, .settings = &settings->redis, .addrs = addrs, .addr_count = count},
        err);
    if (!service->deny)
        return false;
    service->vault.on_deny = on_deny;
    vault_tell(&service->vault, service_now_s()); // Redis may have been away, or have lost them
    return true;
}
