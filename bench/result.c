#include "result.h"

#include "sock.h"

#include <ctype.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/resource.h>
#include <unistd.h>

uint64_t errors(const struct counts *c)
{
    return c->bad_status + c->bad_message + c->broken + c->connect_failed + c->unanswered +
           c->wrong_handshakes;
}

double own_cpu_seconds(void)
{
    struct rusage u;
    getrusage(RUSAGE_SELF, &u);
    return (double)(u.ru_utime.tv_sec + u.ru_stime.tv_sec) +
           (double)(u.ru_utime.tv_usec + u.ru_stime.tv_usec) / 1e6;
}

static double us(uint64_t ns)
{
    return (double)ns / (double)NS_PER_US;
}

void result_print(const struct result *r)
{
    const struct {
        const char *name;
        uint64_t value;
    } numbers[] = {
        {"connections", r->connections},
        {"streams", r->streams},
        {"rate", r->rate},
        {"requests", r->counts->requests},
        {"bytes", r->counts->bytes},
        {"errors", errors(r->counts)},
        {"bad_status", r->counts->bad_status},
        {"too_many", r->counts->too_many},
        {"server_errors", r->counts->server_errors},
        {"bad_message", r->counts->bad_message},
        {"broken", r->counts->broken},
        {"connect_failed", r->counts->connect_failed},
        {"unanswered", r->counts->unanswered},
        {"reconnects", r->counts->reconnects},
        {"handshakes", r->counts->handshakes},
        {"resumed", r->counts->resumed},
        {"wrong_handshakes", r->counts->wrong_handshakes},
    };
    double seconds = (double)r->ns / (double)NS_PER_S;
    printf("{\"event\":\"%s\",\"loop\":\"%s\",\"seconds\":%.6f,\"rps\":%.1f,\"own_cpu_seconds\":%.6f,",
           r->event, r->loop, seconds, seconds > 0 ? (double)r->counts->requests / seconds : 0.0,
           r->cpu_seconds);
    if (r->phase != NULL)
        printf("\"phase\":\"%s\",", r->phase);
    for (size_t i = 0; i < sizeof numbers / sizeof *numbers; i++)
        printf("\"%s\":%llu,", numbers[i].name, (unsigned long long)numbers[i].value);
    const struct hist *h = r->hist;
    printf(
        "\"latency_us\":{\"mean\":%.2f,\"p50\":%.2f,\"p90\":%.2f,\"p99\":%.2f,\"p999\":%.2f,\"max\":%.2f}}\n",
        hist_mean(h) / 1e3, us(hist_quantile(h, 0.5)), us(hist_quantile(h, 0.9)), us(hist_quantile(h, 0.99)),
        us(hist_quantile(h, 0.999)), us(h->max));
    fflush(stdout);
}

/* False at the end of standard input. */
static bool read_byte(char *c)
{
    ssize_t n;
    do
        n = read(STDIN_FILENO, c, 1);
    while (n < 0 && errno == EINTR);
    return n == 1;
}

void gate_wait(void)
{
    puts("{\"event\":\"ready\"}");
    fflush(stdout);
    for (char c = 0; c != '\n' && read_byte(&c);)
        ;
}

bool phase_read(char phase[PHASE_MAX])
{
    size_t n = 0;
    char c;
    while (read_byte(&c)) {
        if (c == '\n') {
            phase[n] = '\0';
            return true;
        }
        if (!isalnum((unsigned char)c) && c != ' ')
            die("the name of a phase is of letters, digits and spaces");
        if (n < PHASE_MAX - 1)
            phase[n++] = c;
    }
    return false;
}

void wait_for_end(void)
{
    char c[256];
    ssize_t n;
    do
        n = read(STDIN_FILENO, c, sizeof c);
    while (n > 0 || (n < 0 && errno == EINTR));
}

double parse_seconds(const char *option, const char *text)
{
    char *end = NULL;
    double d = strtod(text, &end);
    if (end == text || *end != '\0' || !(d >= 0.0 && d <= 86400.0))
        die("%s: '%s' is not a number of seconds", option, text);
    return d;
}
