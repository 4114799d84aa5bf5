// PROXY protocol v1 and v2 (haproxy's proxy-protocol.txt), receiving side. I/O-free.
#pragma once

#include "net/addr.h"

enum { PROXY_HEADER_MAX = 536 }; // v1: 107; v2: 16 + at most this gateway's bound on addresses and TLVs

enum proxy_result { PROXY_MORE, PROXY_DONE, PROXY_BAD };

// On PROXY_DONE *consumed bytes are the header; *source is the client, untouched for LOCAL, UNKNOWN and unix
// sockets.
enum proxy_result proxy_protocol_parse(const char *data, size_t n, size_t *consumed, struct ip *source);
