// A configuration file for the sub-commands that only look at it.
#pragma once

#include "exchange/gateway.h"

// Compiled, or NULL after printing every mistake to stderr. The caller's to unref and reap.
struct gateway *load_gateway(const char *file);
// The settings, in arena. False after printing every mistake.
bool load_settings(const char *file, struct arena *arena, struct gateway_settings *settings);
// To stderr, one line each.
void load_print(const struct config_report *report);
