// What rate_limits is in the root of a configuration file.
#pragma once

#include "test_config_fixture.h"

#include "limit/limit.h"

struct root {
    struct config_list limits;
};
static const struct config_field root_fields[] = {{.name = "rate_limits",
                                                   .type = CONFIG_OBJECT_MAP,
                                                   .offset = offsetof(struct root, limits),
                                                   .object = &rate_limit_object},
                                                  {0}};
static const struct config_object root_object = {
    .name = "root", .size = sizeof(struct root), .fields = root_fields};
