#include "serve/serve.h"

static void on_accept(struct listener *listener, int fd, const struct addr *peer)
{
    serve_accept(container_of(listener, struct server, listener), fd, peer);
}

void serve_init(struct server *server, struct loop *loop, const struct serve_settings *settings,
                struct rand *rand, void *context)
{
    *server = (struct server){
        .listener.on_accept = on_accept,
        .loop = loop,
        .settings = settings,
        .rand = rand,
        .context = context,
    };
    list_init(&server->clients);
}

static void shut(struct server *server)
{
    if (server->listening)
        listener_stop(&server->listener);
    server->listening = false;
}

bool serve_listen(struct server *server, int fd)
{
    shut(server);
    server->listening = listener_start(&server->listener, server->loop, fd) == ERR_OK;
    return server->listening;
}

void serve_drain(struct server *server)
{
    shut(server);
    server->draining = true;
    list_each (&server->clients, node) {
        struct serve_client *c = container_of(node, struct serve_client, node);
        if (c->step == SERVE_IDLE)
            serve_client_close(c);
    }
}

void serve_fini(struct server *server)
{
    shut(server);
    list_each (&server->clients, node)
        serve_client_close(container_of(node, struct serve_client, node));
}
