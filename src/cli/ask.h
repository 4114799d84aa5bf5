// One HTTP request to a running gateway's status or admin listener, and its answer.
#pragma once

#include "base/buf.h"
#include "net/addr.h"

struct ask_answer {
    unsigned status;
    struct buf text; // head and body; buf_free it
    struct str body; // in text
};

enum { ASK_BYTES = 64 << 20 };

// method and path as they go out; token and body may be empty. Waits at most timeout_ms in all. False and
// *err when no complete answer came.
bool ask(const struct addr *addr, const char *method, const char *path, struct str token, struct str body,
         uint64_t timeout_ms, struct ask_answer *answer, struct err *err);
