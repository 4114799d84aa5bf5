// What a worker process runs, in one sealed memory file: the configuration's text, and the files of TLS as
// they were when they were accepted. The supervisor holds it for the next worker process, after a crash;
// there is no copy on disk.
#pragma once

#include "exchange/gateway_files.h"

struct running {
    struct str text;
    struct gateway_file *files;
    uint32_t file_count;
    struct str all; // the memory that text and files point into
};

// -1: the machine refuses.
int running_write(struct str text, const struct gateway_files *files);
// Also takes a file that is the text alone, as older versions made it. running_fini when it is ERR_OK.
must_check enum err_code running_read(int fd, const char *name, struct running *running, struct err *err);
void running_fini(struct running *running);
