// What one client connection lets the gateway hold of answers that the client has not taken, over all its
// streams (HTTP/2: one connection of HTTP/1.1 has one answer at a time). The front says what it holds; calls
// for the connection are told how much they may bring.
//
//   HTTP/1.1 upstreams   while the room is full, what is read at a time is a sip
//   answers of our own   lie where they are kept, and take no room (base/lent.h); one that is there for this
//                        client alone does (an answer that Redis has kept), and is refused when there is none
//   HTTP/2 upstreams     send unasked what their stream's window allows: a small one at first
//                        (H2_FIRST_WINDOW), wider when the client takes what comes and there is room
//
// There is always room for a sip, and for the first window: so an answer that its client waits for goes on,
// whatever other answers wait for the client (RFC 9113 5.2.2, 10.5).
#pragma once

#include "base/lent.h"

#include <stdbool.h>
#include <stdint.h>

enum {
    CLIENT_ROOM_BYTES = 512 * 1024,      // one answer at full width, some at less: 224, 144, 72, 36 KiB more
    CLIENT_ROOM_SIP_BYTES = 4 * 1024,    // of each answer when there is no room
    CLIENT_ROOM_GRANT_BYTES = 16 * 1024, // the least that is worth telling an upstream
};

struct client_room {        // zero it
    uint32_t held_bytes;    // of memory: what was read, and the client has not taken
    uint32_t granted_bytes; // beyond the first windows: what upstreams of HTTP/2 may send
};

static inline bool client_room_is_full(const struct client_room *room)
{
    return room->held_bytes >= CLIENT_ROOM_BYTES;
}

// How much of what is wanted may come. Half of what is left at most: others will ask. It is the caller's to
// give back.
uint32_t client_room_take(struct client_room *room, uint32_t wanted_bytes);
void client_room_give(struct client_room *room, uint32_t bytes);
// What lies there for this client alone, to send: it is held until it is given back. False: there is no room,
// or no memory, and nothing has changed. The room lasts longer than what is lent.
bool client_room_lend(struct client_room *room, struct lent *lent);
