// Writes heads and chunk framing. What comes out is well-formed by construction: names and values were
// accepted by the strict grammar or checked by whoever added them.
#pragma once

#include "base/buf.h"
#include "http/message.h"

enum { CHUNK_HEAD_MAX = 18 }; // 16 hex digits and CRLF

// An upper bound of the bytes that h1_write_* puts out for these fields.
size_t h1_headers_size(const struct headers *headers);

// Each appends to buf, which must have the space (buf_reserve with *_size first).
// "METHOD target HTTP/1.1\r\n", then the fields that are not gone, then framing and connection fields, then
// CRLF. framing: LENGTH writes Content-Length (the head's own field must be gone), CHUNKED writes
// Transfer-Encoding.
size_t h1_request_size(const struct request_head *head, struct str target);
void h1_write_request(struct buf *buf, const struct request_head *head, struct str target,
                      enum framing framing, bool upgrade);
// connection: "close", "keep-alive" or n == 0 for none.
size_t h1_response_size(const struct response_head *head);
void h1_write_response(struct buf *buf, const struct response_head *head, enum framing framing,
                       struct str connection);

// "1a\r\n"; returns the length. out has CHUNK_HEAD_MAX bytes.
size_t h1_write_chunk_head(uint64_t size, char *out);
// "0\r\n", trailers (NULL: none), "\r\n".
size_t h1_trailers_size(const struct headers *trailers);
void h1_write_last_chunk(struct buf *buf, const struct headers *trailers);
