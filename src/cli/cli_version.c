#include "base/str.h"
#include "cli/cli.h"

#include <stdio.h>

int cli_version(int argc, char **argv)
{
    bool as_json = argc == 2 && strcmp(argv[1], "--json") == 0;
    if (argc > 1 && !as_json) {
        fputs("usage: sallyport version [--json]\n", stderr);
        return CLI_USAGE;
    }
    if (as_json)
        puts("{\"name\":\"sallyport\",\"version\":\"" SALLYPORT_VERSION "\"}");
    else
        puts("sallyport " SALLYPORT_VERSION);
    return CLI_OK;
}
