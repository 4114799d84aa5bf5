// What the gateways on one Redis tell each other about rate limits (limit/gateways.h), on the control thread.
#include "cli/process.h"

#include "limit/gateways.h"

bool process_use_limits(struct process *process, const struct gateway *gateway, struct config_report *report)
{
    const struct redis_settings *settings = &gateway->settings.redis;
    struct limit_gateways *before = process->host.gateways, *next = NULL;
    struct err err = {0};
    if (gateway->settings.has_redis && gateway->limits.any_shared) {
        gateway_tls_read_from(&gateway->tls);
        next = limit_gateways_new(&(struct limit_gateways_options){.loop = &process->loop,
                                                                   .tls_slot = TLS_SLOT_CONTROL,
                                                                   .settings = settings,
                                                                   .addrs = gateway->redis_addrs,
                                                                   .addr_count = gateway->redis_addr_count,
                                                                   .metrics = process->host.own},
                                  &err);
        gateway_tls_read_from(NULL);
        if (!next)
            return process_refuse(report, process->file, settings->line, settings->column, STR("redis"),
                                  "%s: %s", err.where, err.what);
    }
    if (before && next && limit_gateways_is_same(before, next)) {
        limit_gateways_free(next);
        return true;
    }
    process->host.gateways = next;
    limit_gateways_free(before);
    return true;
}

void process_end_limits(struct process *process)
{
    limit_gateways_free(process->host.gateways);
    process->host.gateways = NULL;
}
