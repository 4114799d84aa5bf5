#include "redis/resp.h"

void resp_command(struct buf *out, const struct str *argv, unsigned argc)
{
    buf_printf(out, "*%u\r\n", argc);
    for (unsigned i = 0; i < argc; i++) {
        buf_printf(out, "$%zu\r\n", argv[i].n);
        buf_append(out, argv[i]);
        buf_append(out, STR("\r\n"));
    }
}
