#include "admin/collect.h"

#include <stdlib.h>

static void on_accept(struct listener *listener, int fd, const struct addr *peer)
{
    admin_accept(container_of(listener, struct admin_door, listener), fd, peer);
}

struct admin *admin_new(struct loop *loop, struct admin_host *host)
{
    struct admin *admin = calloc(1, sizeof *admin);
    check(admin);
    admin->loop = loop;
    admin->host = host;
    rand_init(&admin->rand);
    list_init(&admin->under_way);
    for (unsigned kind = 0; kind < ADMIN_KINDS; kind++) {
        struct admin_door *door = &admin->doors[kind];
        door->admin = admin;
        door->kind = (enum admin_kind)kind;
        door->listener.on_accept = on_accept;
        list_init(&door->clients);
    }
    return admin;
}

static void shut(struct admin_door *door)
{
    if (door->listening)
        listener_stop(&door->listener);
    door->listening = false;
}

bool admin_listen(struct admin *admin, enum admin_kind kind, int fd)
{
    struct admin_door *door = &admin->doors[kind];
    shut(door);
    door->listening = listener_start(&door->listener, admin->loop, fd) == ERR_OK;
    return door->listening;
}

void admin_free(struct admin *admin)
{
    for (unsigned kind = 0; kind < ADMIN_KINDS; kind++) {
        shut(&admin->doors[kind]);
        list_each (&admin->doors[kind].clients, node)
            admin_client_close(container_of(node, struct admin_client, node));
    }
    list_each (&admin->under_way, node) { // freed when the last worker answers
        container_of(node, struct collection, node)->admin = NULL;
        list_remove(node);
    }
    free(admin);
}

#define PATH(literal)                \
    {                                \
        literal, sizeof(literal) - 1 \
    }
const struct admin_row admin_rows[] = {
    {ADMIN_STATUS, METHOD_GET, PATH("/livez"), status_livez},
    {ADMIN_STATUS, METHOD_GET, PATH("/readyz"), status_readyz},
    {ADMIN_STATUS, METHOD_GET, PATH("/healthz"), status_healthz},
    {ADMIN_STATUS, METHOD_GET, PATH("/metrics"), status_metrics},
    {ADMIN_API, METHOD_GET, PATH("/api/v1/config"), api_config},
    {ADMIN_API, METHOD_GET, PATH("/api/v1/routes"), api_routes},
    {ADMIN_API, METHOD_GET, PATH("/api/v1/upstreams"), api_upstreams},
    {ADMIN_API, METHOD_GET, PATH("/api/v1/limits"), api_limits},
    {ADMIN_API, METHOD_GET, PATH("/api/v1/exchanges"), api_exchanges},
    {ADMIN_API, METHOD_GET, PATH("/api/v1/info"), api_info},
    {ADMIN_API, METHOD_POST, PATH("/api/v1/reload"), api_reload},
    {ADMIN_API, METHOD_POST, PATH("/api/v1/drain"), api_drain},
    {ADMIN_API, METHOD_POST, PATH("/api/v1/explain"), api_explain},
};
const size_t admin_row_count = countof(admin_rows);
