// What gRPC over HTTP/2 (grpc/grpc: doc/PROTOCOL-HTTP2.md) asks of a gateway, as pure functions: which
// requests are gRPC, the client's deadline, and how an error is told.
#pragma once

#include "base/arena.h"
#include "http/message.h"
#include "observe/grpc_status.h"

enum {
    GRPC_TIMEOUT_DIGITS = 8,
    GRPC_TIMEOUT_TEXT = GRPC_TIMEOUT_DIGITS + 1, // and the unit
    // Of a grpc-message before it is encoded: clients take 8 KiB of response fields, and this is a sentence.
    GRPC_MESSAGE_BYTES = 512,
};

// Content-Type application/grpc, alone or with a suffix (+proto) or parameters. Not application/grpc-web,
// which is another protocol.
bool grpc_is_content_type(struct str value);
// A POST with such a type.
bool grpc_is_request(const struct request_head *head);

// Whether an answer that began with this head can end at any byte, with a status in its trailers: a gRPC one
// of no declared length. A message that is cut short is no lie then; in any other answer it would be.
bool grpc_can_end_early(const struct response_head *head);

// grpc-timeout: one to eight digits and a unit (H M S m u n), in whole microseconds, rounded down. False:
// malformed.
must_check bool grpc_timeout_parse(struct str value, uint64_t *us);
// In the finest unit that eight digits can tell, rounded down, so that it never grows on its way. What is
// more than they can tell at all becomes the most that they can. The str is in out.
struct str grpc_timeout_print(uint64_t us, char out[GRPC_TIMEOUT_TEXT]);

// For an answer that has only a status of HTTP. Finer than the protocol's http-grpc-status-mapping.md, which
// is for clients that do not know who answered: a limit (413, 429, 431) is RESOURCE_EXHAUSTED.
enum grpc_status grpc_status_of_http(unsigned status);
// The other way round: what a call that ended with this grpc-status amounts to, for whoever judges servers by
// their statuses. As Envoy has it, but UNIMPLEMENTED is 404: callers bring it about by what they ask for. 500
// for numbers that are no status.
unsigned grpc_status_to_http(unsigned status);
// The value of grpc-message: percent-encoded but for printable ASCII, cut after GRPC_MESSAGE_BYTES, never
// within a character of UTF-8.
struct str grpc_message_encode(struct arena *arena, struct str message);
