// How consumers are put together: private to the files of consumers.
#pragma once

#include "auth/consumers.h"

enum {
    CONSUMERS_MAX = 10 * 1000 * 1000,
    CONSUMER_NAME_BYTES = 256,    // a name of a consumer, a role, a scope
    CONSUMER_ITEMS = 1000,        // keys, certificates, roles or scopes of one
    CONSUMER_SAN_BYTES = 1024,    // what names a certificate
    CONSUMERS_LINE_BYTES = 65536, // of JSON Lines
    CONSUMERS_HASH_BYTES = 32,    // SHA-256
};

struct consumers_builder;

// False and err->what, where err may be NULL: a bad hash, a name or a key that another consumer has. The
// settings are copied.
must_check bool consumers_add(struct consumers_builder *builder, const struct consumer_settings *settings,
                              struct err *err);
// Adds all that the source's text holds.
must_check bool consumers_read_file(struct consumers_builder *builder, const struct consumers_source *source,
                                    struct err *err);
// 64 hex digits, in any case; with_colons: those between bytes are passed over.
bool consumers_read_hash(struct str text, bool with_colons, uint8_t hash[CONSUMERS_HASH_BYTES]);
