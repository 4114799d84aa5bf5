// The field tables of listeners, and what the admin and status addresses share with them.
#pragma once

#include "exchange/gateway_config.h"

extern const struct config_object listener_object;

#define CONFIG_ADDRESS_PATTERN "^(unix:/?.+|.*:[0-9]{1,5})$"
// Accept hook: an address to listen on.
bool config_accept_address(struct config_decoder *decoder, const struct config_node *node, struct str *value);
