#include "base/err.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

enum err_code err_set(struct err *err, enum err_code code, const char *where, const char *format, ...)
{
    if (!err)
        return code;
    err->code = code;
    snprintf(err->where, sizeof err->where, "%s", where ? where : "");
    va_list args;
    va_start(args, format);
    vsnprintf(err->what, sizeof err->what, format, args);
    va_end(args);
    return code;
}

enum err_code err_system(struct err *err, const char *where, const char *what)
{
    return err_set(err, ERR_SYSTEM, where, "%s: %s", what, strerror(errno));
}
