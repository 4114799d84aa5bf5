// Files of the state directory: for nobody but this user, replaced in one step.
#pragma once

#include "base/buf.h"
#include "base/err.h"

// Makes it, and its parent, 0700, when it is not there.
must_check bool disk_directory(const char *path, struct err *err);
// Whole; an empty buf when there is none is not an error of disk_read but ERR_NOT_FOUND. Free *out.
must_check bool disk_read(const char *path, struct buf *out, struct err *err);
// Written beside it with mode 0600, synchronised, renamed.
must_check bool disk_write(const char *path, struct str text, struct err *err);
void disk_remove(const char *path);
// Locks PATH/lock for this process: two that write one state would undo each other's. -1 and *err: another
// has it.
must_check int disk_lock(const char *directory, struct err *err);
