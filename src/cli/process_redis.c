// The deny list's connection to Redis, on the control thread, and what makes the list forget.
#include "cli/process.h"

#include "auth/redis_deny.h"
#include "base/clock.h"

enum { SWEEP_MS = 10000 };

static int64_t now_s(void)
{
    return (int64_t)(clock_wall_us() / 1000000);
}

struct redis_access process_redis_access(struct process *process, const struct gateway *gateway)
{
    return (struct redis_access){.loop = &process->loop,
                                 .tls_slot = TLS_SLOT_CONTROL,
                                 .settings = &gateway->settings.redis,
                                 .addrs = gateway->redis_addrs,
                                 .addr_count = gateway->redis_addr_count,
                                 .metrics = process->host.own};
}

bool process_refuse_redis(const struct process *process, const struct gateway *gateway, const struct err *err,
                          struct config_report *report)
{
    const struct redis_settings *settings = &gateway->settings.redis;
    return process_refuse(report, process->file, settings->line, settings->column, STR("redis"), "%s: %s",
                          err->where, err->what);
}

bool process_use_redis(struct process *process, const struct gateway *gateway, struct config_report *report)
{
    struct redis_deny *before = process->deny, *next = NULL;
    struct err err = {0};
    if (gateway->settings.has_redis) {
        const struct redis_access access = process_redis_access(process, gateway);
        gateway_files_read_from(&gateway->files);
        next = redis_deny_new(&access, &err);
        gateway_files_read_from(NULL);
        if (!next)
            return process_refuse_redis(process, gateway, &err, report);
    }
    if (before && next && redis_deny_is_same(before, next)) {
        redis_deny_free(next);
        return true;
    }
    process->deny = next;
    if (before && next)
        redis_deny_replace(next, before);
    else
        redis_deny_free(before);
    return true;
}

static void on_sweep(struct loop_timer *timer)
{
    struct process *process = container_of(timer, struct process, sweep_timer);
    deny_sweep(now_s());
    loop_timer_set(&process->loop, timer, SWEEP_MS);
}

static enum admin_revoked revoke(struct admin_host *host, const struct deny_entry *entry)
{
    struct process *process = process_of(host);
    switch (deny_add(entry, now_s())) {
    case DENY_ADDED:
    case DENY_KNOWN: break;
    case DENY_PAST: return ADMIN_REVOKED_PAST;
    case DENY_FULL: return ADMIN_REVOKED_FULL;
    case DENY_BAD: return ADMIN_REVOKED_BAD;
    }
    return !process->deny || redis_deny_tell(process->deny, entry) ? ADMIN_REVOKED : ADMIN_REVOKED_HERE;
}

static struct str redis_state(struct admin_host *host)
{
    const struct redis_deny *deny = process_of(host)->deny;
    return !deny ? STR("off") : redis_deny_is_up(deny) ? STR("up") : STR("down");
}

void process_start_revocation(struct process *process)
{
    process->host.revoke = revoke;
    process->host.redis_state = redis_state;
    loop_timer_init(&process->sweep_timer, on_sweep);
    loop_timer_set(&process->loop, &process->sweep_timer, SWEEP_MS);
}

void process_end_revocation(struct process *process)
{
    loop_timer_stop(&process->loop, &process->sweep_timer);
    redis_deny_free(process->deny);
    process->deny = NULL;
}
