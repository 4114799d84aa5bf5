// The settings of the policies that issue a route's guards, and their field tables.
#pragma once

#include "config/config.h"
#include "net/addr.h"

struct header_edit {
    struct str_map set, add;
    struct str_list remove;
};

struct header_rules {
    struct header_edit request, response;
};

struct fault_settings {
    uint64_t delay_us;
    double delay_ratio;
    int64_t status; // 0: none
    double status_ratio;
};

struct ip_rules {
    struct cidr_set allow, deny; // deny wins; an empty allow allows all others
};

extern const struct config_object header_rules_object;
extern const struct config_object fault_object;
extern const struct config_object ip_rules_object;

// A CUSTOM decoder for a list of CIDRs into a struct cidr_set, and its schema: listeners use it too.
void config_decode_cidrs(struct config_decoder *decoder, const struct config_node *node, void *target);
void config_schema_cidrs(struct json *out);
