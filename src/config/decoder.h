// Inside the config room: where a decoder stands.
#pragma once

#include "config/config.h"

struct config_step {
    struct str key; // p NULL: index
    uint32_t index;
};

// The defaults of one object, decoded once and copied for each use.
struct config_image {
    const struct config_object *object;
    void *bytes;
};

enum { CONFIG_IMAGES = 64, CONFIG_STEPS = CONFIG_DEPTH + 16 };

struct config_decoder {
    struct str file;
    struct arena *arena;
    struct config_report *report;
    unsigned depth, suggestions, image_count;
    struct config_step steps[CONFIG_STEPS];
    struct config_image images[CONFIG_IMAGES];
};

// What a value of this field is called: "a duration", "one of a, b".
const char *config_type_name(const struct config_field *field, struct arena *arena);
// A field's default as a node, NULL when it has none.
const struct config_node *config_fallback(const struct config_field *field, struct arena *arena);
// A table's example or a field's, parsed; it is a bug when that fails.
struct config_node *config_parse_constant(const char *text, struct arena *arena);

// What was appended; an unused buffer has no memory to point into.
static inline struct str config_text_of(const struct buf *buf)
{
    return buf->base ? buf_str(buf) : STR_NULL;
}

// More mistakes than are kept: hints are not worth their price any more.
static inline bool config_is_full(const struct config_decoder *decoder)
{
    return decoder->report->count >= CONFIG_ERRORS;
}

// An integer whose null is a value of its own.
static inline bool config_is_null_number(const struct config_field *field)
{
    return field->nullable &&
           (field->type == CONFIG_INT || field->type == CONFIG_DURATION || field->type == CONFIG_SIZE);
}
