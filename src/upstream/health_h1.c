// The probe over HTTP/1.1: GET, and the status of the first final response.
#include "upstream/health_probe.h"

static bool begin(struct probe *probe)
{
    (void)probe;
    return true;
}

static void ask(struct probe *probe)
{
    if (probe->asked)
        return;
    probe->asked = true;
    buf_printf(&probe->out,
               "GET %.*s HTTP/1.1\r\nHost: %.*s\r\nUser-Agent: sallyport-health\r\nAccept: */*\r\n"
               "Connection: close\r\n\r\n",
               STR_ARG(probe->question->path), STR_ARG(probe_authority(probe)));
}

// Interim responses are passed over (RFC 9110 15.2).
static void hear(struct probe *probe)
{
    static const struct h1_limits limits = {
        .head_bytes = HEALTH_HEAD_BYTES, .uri_bytes = 0, .headers = HEALTH_HEAD_FIELDS};
    for (;;) {
        struct response_head head;
        enum h1_result result = h1_parse_response(&probe->h1, probe->data, probe->received, &limits,
                                                  METHOD_GET, &probe->arena, &head);
        if (result == H1_FAULT)
            probe_fail(probe, "bad response", probe->h1.why);
        if (result != H1_DONE)
            return;
        if (head.status >= 200 || head.status == 101) {
            probe_judge_status(probe, head.status);
            return;
        }
        probe->received -= probe->h1.consumed;
        memmove(probe->data, probe->data + probe->h1.consumed, probe->received);
        probe->h1 = (struct h1_parse){0};
    }
}

const struct probe_kind probe_h1 = {.name = "h1", .begin = begin, .ask = ask, .hear = hear};
