// Small files: their content, and whether they are still what they were.
#pragma once

#include "base/arena.h"

// How a file was. Zero: there is none.
struct file_stamp {
    uint64_t device, inode, size;
    int64_t modified_ns, changed_ns;
};

struct file_stamp file_stamp_of(struct str path); // with a NUL behind it
bool file_stamp_same(const struct file_stamp *a, const struct file_stamp *b);

// The content of a regular file of at most max bytes, with a NUL behind it. p NULL: *what says why not.
struct str file_load(struct str path, size_t max, struct arena *arena, const char **what);
