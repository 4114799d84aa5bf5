// The control groups of this process.
#pragma once

#include "base/str.h"

#include <stdbool.h>

// The first line of a file, without its newline, in line; empty when there is none.
struct str cgroup_first_line(const char *path, char *line, size_t size);
// Shows the first line of this file of the process's group and of each parent. False: these are groups of
// version 1.
bool cgroup_each(const char *file, void (*look)(struct str line, void *context), void *context);
