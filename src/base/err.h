// A failure of the machine or of the configuration: a code, where, and words. Verdicts on requests (401, 429,
// breaker open) are not failures: see observe/end.h.
#pragma once

#include "base/check.h"

enum err_code {
    ERR_OK = 0,
    ERR_MEMORY,
    ERR_SYSTEM,  // a system call; `what` holds strerror
    ERR_INVALID, // input that does not mean anything
    ERR_LIMIT,   // well-formed, but beyond a bound
    ERR_NOT_FOUND,
    ERR_BUSY,
};

struct err {
    enum err_code code;
    char where[96]; // the file, address or name it happened at; may be empty
    char what[256];
};

// Fills *err and returns code. err may be NULL.
enum err_code err_set(struct err *err, enum err_code code, const char *where, const char *format, ...)
    __attribute__((format(printf, 4, 5)));
// The same for a failed system call: appends ": " and strerror(errno).
enum err_code err_system(struct err *err, const char *where, const char *what);
