#include "upstream/client_room.h"

#include "base/check.h"

#include <stdlib.h>

uint32_t client_room_take(struct client_room *room, uint32_t wanted_bytes)
{
    uint32_t used = room->held_bytes + room->granted_bytes;
    uint32_t most = used < CLIENT_ROOM_BYTES ? (CLIENT_ROOM_BYTES - used) / 2 : 0;
    uint32_t bytes = wanted_bytes < most ? wanted_bytes : most;
    if (bytes < CLIENT_ROOM_GRANT_BYTES)
        return 0;
    room->granted_bytes += bytes;
    return bytes;
}

void client_room_give(struct client_room *room, uint32_t bytes)
{
    check(bytes <= room->granted_bytes);
    room->granted_bytes -= bytes;
}

struct held {
    struct lender lender;
    struct client_room *room;
    uint32_t bytes;
    struct lent lent;
};

static void take_back(struct lender *lender)
{
    struct held *held = container_of(lender, struct held, lender);
    held->room->held_bytes -= held->bytes;
    lent_give_back(&held->lent);
    free(held);
}

bool client_room_lend(struct client_room *room, struct lent *lent)
{
    bool fits = lent->span.n <= CLIENT_ROOM_SIP_BYTES || !client_room_is_full(room);
    struct held *held = fits ? malloc(sizeof *held) : NULL;
    if (!held)
        return false;
    *held = (struct held){{take_back}, room, (uint32_t)lent->span.n, *lent};
    room->held_bytes += held->bytes;
    lent->lender = &held->lender;
    return true;
}
