#include "cli/process.h"

#include "base/log.h"

#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

struct place *process_place(struct process *process, const struct addr *addr)
{
    for (unsigned i = 0; i < process->places.count; i++)
        if (addr_eq(&process->places.v[i].addr, addr))
            return &process->places.v[i];
    return NULL;
}

static void keep_for_later(struct process *process, enum control_type type)
{
    struct process_message *message = calloc(1, sizeof *message), **last = &process->early;
    check(message);
    message->type = type;
    while (*last)
        last = &(*last)->next;
    if (last == &process->early)
        loop_post(&process->loop, &process->early_task);
    *last = message;
}

static void add_fds(struct place *place, struct control_message *message)
{
    place->fds = realloc(place->fds, (place->count + message->fd_count) * sizeof(int));
    check(place->fds);
    memcpy(place->fds + place->count, message->fds, message->fd_count * sizeof(int));
    place->count += message->fd_count;
    message->fd_count = 0;
}

// Waits for the answer: the supervisor does nothing that takes time.
static bool ask(struct process *process, const char *text, unsigned count, struct place *place,
                struct err *err)
{
    if (!control_send(process->control_fd, CONTROL_LISTEN, count, str_of(text), NULL, 0, CONTROL_WAIT_MS)) {
        err_set(err, ERR_SYSTEM, text, "the supervisor does not listen");
        return false;
    }
    struct control_message message;
    for (;;) {
        if (control_recv(process->control_fd, &message, CONTROL_WAIT_MS) != CONTROL_MESSAGE) {
            err_set(err, ERR_SYSTEM, text, "the supervisor does not answer");
            return false;
        }
        if (message.type == CONTROL_REFUSED) {
            err_set(err, ERR_SYSTEM, text, "%s", message.text);
            return false;
        }
        if (message.type != CONTROL_SOCKETS) {
            control_drop_fds(&message);
            keep_for_later(process, message.type);
            continue;
        }
        if (message.fd_count == 0) { // the kernel drops what would not fit into our table
            err_set(err, ERR_SYSTEM, text, "no descriptor is free");
            return false;
        }
        add_fds(place, &message);
        if (message.value == 0)
            return true;
    }
}

static void drop_place(struct process *process, struct place *place)
{
    for (unsigned i = 0; i < place->count; i++)
        close(place->fds[i]);
    free(place->fds);
    *place = process->places.v[--process->places.count];
}

static bool want(struct process *process, const struct addr *addr, unsigned count, struct err *err)
{
    struct place *place = process_place(process, addr);
    if (!place) {
        process->places.v = realloc(process->places.v, (process->places.count + 1) * sizeof *place);
        check(process->places.v);
        place = &process->places.v[process->places.count++];
        *place = (struct place){.addr = *addr};
        char text[ADDR_TEXT_MAX];
        addr_print(addr, text);
        if (!ask(process, text, count, place, err)) {
            process->places.count--;
            for (unsigned i = 0; i < place->count; i++)
                close(place->fds[i]);
            free(place->fds);
            return false;
        }
    }
    place->wanted = true;
    return true;
}

static bool want_one(struct process *process, const char *path, struct str address,
                     struct config_report *report)
{
    struct addr addr;
    struct err err = {0};
    if (address.n == 0 || !addr_parse(address, &addr) || want(process, &addr, 1, &err))
        return true;
    return process_refuse(report, process->file, 0, 0, str_of(path), "cannot listen on %s: %s", err.where,
                          err.what);
}

bool process_listen(struct process *process, const struct gateway *gateway, struct config_report *report)
{
    for (unsigned i = 0; i < process->places.count; i++)
        process->places.v[i].wanted = false;
    for (uint32_t i = 0; i < gateway->listener_count; i++) {
        const struct gateway_listener *listener = &gateway->listeners[i];
        struct err err = {0};
        if (want(process, &listener->addr, process->crew.count, &err))
            continue;
        char path[64];
        int n = snprintf(path, sizeof path, "listeners[%u].address", i);
        return process_refuse(report, process->file, listener->settings->line, listener->settings->column,
                              (struct str){path, (size_t)n}, "cannot listen on %s: %s", err.where, err.what);
    }
    return want_one(process, "status.address", gateway->settings.status.address, report) &&
           want_one(process, "admin.address", gateway->settings.admin.address, report);
}

void process_sweep(struct process *process)
{
    if (process->crew.orders)
        return; // the last one that is done sweeps
    for (unsigned i = process->places.count; i-- > 0;) {
        struct place *place = &process->places.v[i];
        if (place->wanted)
            continue;
        char text[ADDR_TEXT_MAX];
        size_t n = addr_print(&place->addr, text);
        control_send(process->control_fd, CONTROL_RETIRE, 0, (struct str){text, n}, NULL, 0, 0);
        drop_place(process, place);
    }
}

static bool listen_admin(struct process *process, enum admin_kind kind, struct str address)
{
    struct addr addr;
    if (address.n == 0 || !addr_parse(address, &addr))
        return true;
    struct place *place = process_place(process, &addr);
    check(place);
    if (admin_listen(process->admin, kind, place->fds[0]))
        return true;
    log_error("worker", "cannot watch the %s listener's socket", kind == ADMIN_API ? "admin" : "status");
    return false;
}

bool process_listen_admin(struct process *process)
{
    const struct gateway_settings *settings = &process->host.gateway->settings;
    return listen_admin(process, ADMIN_STATUS, settings->status.address) &&
           listen_admin(process, ADMIN_API, settings->admin.address);
}

void process_unlisten(struct process *process)
{
    const struct gateway *gateway = process->host.gateway;
    for (unsigned i = 0; !process->admin && i < process->places.count; i++)
        process->places.v[i].wanted = false;
    for (uint32_t i = 0; i < gateway->listener_count; i++) {
        struct place *place = process_place(process, &gateway->listeners[i].addr);
        if (place)
            place->wanted = false;
    }
}
