#include "load.h"

#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static void usage(void)
{
    fputs("usage: load --to ADDRESS [options]\n"
          "  --connections N   kept-alive connections (64)\n"
          "  --seconds S       length of the measured run (5)\n"
          "  --requests N      closed loop: this many requests instead of a time\n"
          "  --warmup S        unmeasured run before it (0)\n"
          "  --rate R          open loop at R requests a second\n"
          "  --idle N          N connections, one request each, held until standard input ends\n"
          "  --at-once N       idle: connections between opening and answer (8)\n"
          "  --tls             TLS 1.3 with X25519 and AES-128-GCM\n"
          "  --handshakes KIND full or resumed: each request over a connection of its own, with TLS\n"
          "  --phases          open loop: a line on standard input begins the run, and each further one the "
          "next phase;\n"
          "                    it ends when standard input does\n"
          "  --gate            wait for a line on standard input before the run, for its end after it\n"
          "  --path P          path and query (/api/v1/orders/1842?expand=items)\n"
          "  --spread N        the @ in the path becomes a five-digit number below N, another for each "
          "request\n"
          "  --host H          Host field (api.example.com)\n"
          "  --tokens FILE     bearer tokens, a line each, all of one length: any of them for each request\n"
          "  --in-order        the next one for each request\n"
          "  --header 'N: V'   a further field, up to 16 times\n",
          stderr);
    exit(2);
}

static enum shakes parse_shakes(const char *text)
{
    if (strcmp(text, "full") != 0 && strcmp(text, "resumed") != 0)
        usage();
    return text[0] == 'f' ? SHAKES_FULL : SHAKES_RESUMED;
}

void options_read(struct load *l, int argc, char **argv)
{
    enum {
        TO = 1,
        CONNECTIONS,
        SECONDS,
        REQUESTS,
        WARMUP,
        RATE,
        IDLE,
        AT_ONCE,
        GATE,
        PHASES,
        PATH,
        SPREAD,
        HOST,
        HEADER,
        TLS,
        HANDSHAKES,
        TOKENS,
        IN_ORDER,
    };
    static const struct option names[] = {
        {"to", 1, NULL, TO},
        {"connections", 1, NULL, CONNECTIONS},
        {"seconds", 1, NULL, SECONDS},
        {"warmup", 1, NULL, WARMUP},
        {"requests", 1, NULL, REQUESTS},
        {"rate", 1, NULL, RATE},
        {"idle", 1, NULL, IDLE},
        {"at-once", 1, NULL, AT_ONCE},
        {"gate", 0, NULL, GATE},
        {"phases", 0, NULL, PHASES},
        {"path", 1, NULL, PATH},
        {"spread", 1, NULL, SPREAD},
        {"host", 1, NULL, HOST},
        {"header", 1, NULL, HEADER},
        {"tls", 0, NULL, TLS},
        {"handshakes", 1, NULL, HANDSHAKES},
        {"tokens", 1, NULL, TOKENS},
        {"in-order", 0, NULL, IN_ORDER},
        {NULL, 0, NULL, 0},
    };
    int option;
    while ((option = getopt_long(argc, argv, "", names, NULL)) != -1) {
        switch (option) {
        case TO: l->to = sock_address(optarg); break;
        case CONNECTIONS: l->connections = parse_number("--connections", optarg, CONNECTIONS_MAX); break;
        case SECONDS: l->seconds = parse_seconds("--seconds", optarg); break;
        case WARMUP: l->warmup = parse_seconds("--warmup", optarg); break;
        case REQUESTS: l->limit = parse_number("--requests", optarg, UINT64_MAX); break;
        case RATE: l->rate = parse_number("--rate", optarg, 10000000); break;
        case IDLE: l->idle = parse_number("--idle", optarg, CONNECTIONS_MAX); break;
        case AT_ONCE: l->at_once = parse_number("--at-once", optarg, CONNECTIONS_MAX); break;
        case GATE: l->gate = true; break;
        case PHASES: l->phased = true; break;
        case PATH: l->path = optarg; break;
        case SPREAD: l->spread = (uint32_t)parse_number("--spread", optarg, SPREAD_MAX); break;
        case HOST: l->host = optarg; break;
        case HEADER:
            if (l->extra_count == sizeof l->extra / sizeof *l->extra)
                usage();
            l->extra[l->extra_count++] = optarg;
            break;
        case TLS: l->over_tls = true; break;
        case HANDSHAKES: l->shakes = parse_shakes(optarg); break;
        case TOKENS: l->tokens = optarg; break;
        case IN_ORDER: l->in_order = true; break;
        default: usage();
        }
    }
    if (l->idle > 0)
        l->connections = l->idle;
    l->over_tls = l->over_tls || l->shakes != SHAKES_NONE;
    bool twice = (l->rate > 0 && (l->idle > 0 || l->limit > 0)) ||
                 (l->shakes != SHAKES_NONE && (l->rate > 0 || l->idle > 0));
    if (l->phased && (l->rate == 0 || l->gate))
        usage();
    if (optind != argc || l->to.sin_port == 0 || l->connections == 0 || l->at_once == 0 || twice)
        usage();
}
