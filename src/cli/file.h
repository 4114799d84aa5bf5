// Whole files: the configuration, and what sub-commands read and write.
#pragma once

#include "base/err.h"
#include "base/str.h"

// The content, on the heap with a NUL behind it (free out->p). ERR_SYSTEM, or ERR_LIMIT beyond CONFIG_BYTES.
must_check enum err_code file_read(const char *path, struct str *out, struct err *err);
// The same from the start of an open file.
must_check enum err_code file_read_fd(int fd, const char *name, struct str *out, struct err *err);
// Flushes stdout: a full disk must not look like success. The status, or 1 after words on stderr.
int file_finish_stdout(int status);
// A sealed memory file with this content; -1 when the machine refuses.
int file_in_memory(struct str text);
