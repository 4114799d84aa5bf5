// Inside the route room: the tables of a route's match, and what they share with the rest of its tables.
#pragma once

#include "route/route_config.h"

extern const struct config_object match_object;

enum { CONFIG_TEMPLATE_NAMES = 16 };

// The names in braces of text, into names. -1 and reported (decoder NULL: not) when braces are unbalanced, a
// name is malformed or there are too many.
int config_template_names(struct config_decoder *decoder, const struct config_node *node, struct str text,
                          struct str names[CONFIG_TEMPLATE_NAMES]);
// For accept hooks: the canonical form of a path, and of one with {name} segments.
bool config_normalise_path(struct config_decoder *decoder, const struct config_node *node, struct str *path);
bool config_normalise_template(struct config_decoder *decoder, const struct config_node *node,
                               struct str *path);
