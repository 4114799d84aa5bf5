// Reads a message body out of received bytes, whatever its framing, without copying: each call names the next
// span. Chunked (RFC 9112 7.1) is strict: only CRLF, hexadecimal sizes of at most 16 digits, extensions
// parsed and dropped, trailers parsed by the same grammar as heads and kept apart from the head's fields.
#pragma once

#include "http/message.h"

struct arena;

enum {
    CHUNK_EXTENSION_BYTES =
        4096, // of chunk extensions in one message: more is an attack (CVE-2023-39326 class)
    CHUNK_OVERHEAD_RATIO =
        16, // framing bytes allowed for each body byte, beyond a grace of CHUNK_EXTENSION_BYTES
    TRAILER_BYTES = 8192,
    TRAILER_FIELDS = 64,
};

struct body_reader {
    enum framing framing;
    uint64_t remaining; // LENGTH: of the body; CHUNKED: of the chunk
    uint64_t overhead_bytes, body_bytes;
    uint32_t extension_bytes, trailer_bytes;
    bool done; // nothing more belongs to this body: the next call says BODY_DONE
    // The chunk decoder's, private.
    uint8_t state, digits, trailer_fields;
    uint32_t trailer_capacity;
    char *trailer_text; // the trailer section so far, in the arena; only when trailers are asked for
};

enum body_result {
    BODY_SPAN, // *span holds body bytes: consume them as they are forwarded
    BODY_MORE, // all of data is used up, more bytes are needed
    BODY_DONE, // the message is complete; bytes after *consumed belong to the next one
    BODY_BAD,  // framing fault: the message never completes
};

void body_reader_init(struct body_reader *reader, enum framing framing, uint64_t content_length);

// Looks at data[0..n). Bytes of an unfinished line are remembered in *reader, so data may be reused after
// each call. Sets *consumed to the framing bytes and body bytes that this call used up (the span's bytes
// included, and the span lies within them). After BODY_SPAN call again behind consumed. FRAMING_CLOSE and
// FRAMING_TUNNEL pass everything as spans and never say DONE.
//
// Trailers, if any, are added to *trailers in arena together with BODY_DONE, when every call gave a place for
// them (else both may be NULL: parsed and dropped). Names that mean something to framing, routing,
// authentication or the gateway itself (RFC 9110 6.5.1) are dropped, and so are names with an underscore.
enum body_result body_read(struct body_reader *reader, const char *data, size_t n, size_t *consumed,
                           struct str *span, struct headers *trailers, struct arena *arena);

// RFC 9110 6.5.1: fields that direct framing, routing, authentication, request modification, response control
// or content processing have no meaning in a trailer, and an upstream that merged them would be fooled. That
// is every name the gateway has a use for, some others, and every one with an underscore.
bool body_forbids_trailer(struct str name);
