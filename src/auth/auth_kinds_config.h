// The field tables of each kind of provider: private to the room.
#pragma once

#include "auth/auth_config.h"
#include "config/header.h"

extern const struct config_object jwt_object, introspection_object, forward_object, api_key_object,
    mtls_object;

#define CONFIG_SCOPE_PATTERN "^[!#-[\\]-~]+$" // RFC 6749 3.3
#define CONFIG_ROLE_PATTERN  "^[^,]+$"
