// Names and values of header fields in a configuration.
#pragma once

#include "config/config.h"

#define CONFIG_TOKEN_PATTERN "^[!#$%&'*+.^_`|~0-9A-Za-z-]+$" // header names, methods: RFC 9110 5.6.2
// For accept hooks and for keys: header names that configuration may set, add or remove (no framing, no
// hop-by-hop, no Host), and field values. Report what is wrong.
bool config_check_header_edit(struct config_decoder *decoder, const struct config_node *node,
                              struct str name);
bool config_check_header_value(struct config_decoder *decoder, const struct config_node *node,
                               struct str value);
// config_check_header_edit as an accept hook.
bool config_accept_header(struct config_decoder *decoder, const struct config_node *node, struct str *value);
// Reports a name at its place, which is a key of a map or a value. Returns false.
bool config_fail_header(struct config_decoder *decoder, const struct config_node *node, struct str name,
                        const char *what, const char *hint);
// The names of the map at key that differ in case only are one header: reported.
void config_check_header_names(struct config_decoder *decoder, const struct config_node *node,
                               struct str key);
