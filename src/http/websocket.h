// The opening handshake of WebSocket over HTTP/1 (RFC 6455 4), for clients that ask by RFC 8441 and know
// nothing of it.
#pragma once

#include "base/str.h"

enum { WEBSOCKET_KEY_LENGTH = 24, WEBSOCKET_ACCEPT_LENGTH = 28 };

// A new Sec-WebSocket-Key.
void websocket_new_key(char out[WEBSOCKET_KEY_LENGTH]);
// The Sec-WebSocket-Accept that answers it.
void websocket_accept(struct str key, char out[WEBSOCKET_ACCEPT_LENGTH]);
