#include "base/check.h"

#include <stdio.h>
#include <stdlib.h>

void (*check_on_failure)(void);

void check_failed(const char *expression, const char *file, int line)
{
    fprintf(stderr, "sallyport: bug: check(%s) failed at %s:%d\n", expression, file, line);
    if (check_on_failure)
        check_on_failure();
    abort();
}
