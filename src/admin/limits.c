// GET /api/v1/limits: what is bounded, by how much and why. Compile-time limits have a row each; those of the
// configuration are shown under their names.
#include "admin/collect.h"

#include "discovery/lookup.h"
#include "exchange/exchange.h"
#include "front/front.h"
#include "http/grpc.h"
#include "net/proxy_protocol.h"
#include "net/tls.h"
#include "replay/copies.h"
#include "replay/table.h"
#include "route/route_regex.h"
#include "upstream/grpc_health.h"
#include "upstream/hash_ring.h"
#include "upstream/health.h"

struct bound {
    const char *name, *unit, *reason;
    uint64_t value;
};

#define LIMIT(name, unit, reason)             \
    {                                         \
#name, unit, reason, (uint64_t)(name) \
    }

static const struct bound bounds[] = {
    LIMIT(ARENA_BLOCK, "bytes", "one block holds a usual exchange: its head, route and answer"),
    LIMIT(BUF_BLOCK, "bytes", "one read takes a usual request whole"),
    LIMIT(JSON_DEPTH, "levels", "admin answers are flat; deeper is a bug"),
    LIMIT(LOOP_EVENTS, "events", "taken from the kernel at once, so that a turn ends"),
    LIMIT(LOOP_SLOTS, "slots", "of the timer wheel, a millisecond each; later deadlines go round again"),
    LIMIT(LOOP_IDLE_MS, "ms", "the longest wait: hooks run at least this often"),
    LIMIT(LISTENER_BATCH, "connections", "accepted in one go, before others get their turn"),
    LIMIT(LISTENER_PAUSE_MS, "ms", "accepting pauses when descriptors run out"),
    LIMIT(OUT_GATHER, "bytes", "smaller spans are copied together: one send instead of many"),
    LIMIT(OUT_MAX, "bytes", "unsent on one connection; more is a fault of the flow control"),
    LIMIT(LOOP_LATE_ROUNDS, "rounds", "of late work in a turn; the rest is the next turn's"),
    LIMIT(TLS_CLIENT_HELLO_BYTES, "bytes", "of a ClientHello: a longer one ends the connection"),
    LIMIT(TLS_CHAIN_DEPTH, "certificates", "of a peer's chain"),
    LIMIT(TLS_TICKET_HOURS, "hours", "after which new session tickets are sealed with another key"),
    LIMIT(TLS_TICKET_KEPT, "keys", "older ones that still open tickets"),
    LIMIT(H2_STREAMS, "streams", "at once on one HTTP/2 connection"),
    LIMIT(H2_STREAM_WINDOW, "bytes", "of a body over HTTP/2 that waits"),
    LIMIT(H2_FIRST_WINDOW, "bytes", "of an HTTP/2 upstream's answer, until its client takes what comes"),
    LIMIT(CLIENT_ROOM_BYTES, "bytes",
          "of answers that an HTTP/2 client has not taken, in all: then they come in sips"),
    LIMIT(CLIENT_ROOM_SIP_BYTES, "bytes", "of each answer then, at a time"),
    LIMIT(CLIENT_ROOM_GRANT_BYTES, "bytes", "by which an upstream's window is widened at least"),
    LIMIT(H2_CONNECTION_WINDOW, "bytes", "of all bodies of an HTTP/2 connection that wait"),
    LIMIT(H2_TABLE_BYTES, "bytes", "of HPACK's dynamic tables"),
    LIMIT(H2_CONTINUATIONS, "frames", "that continue one header block (VU#421644)"),
    LIMIT(H2_BLOCK_BYTES, "bytes", "decoded of one header block: past it the connection ends"),
    LIMIT(H2_BLOCK_FIELDS, "fields", "of one header block: past it the connection ends"),
    LIMIT(H2_OUT_ACKS, "frames", "SETTINGS and PING answers that wait for a peer to read"),
    LIMIT(H2_RESETS_PER_S, "1/s", "streams that a peer resets, or makes us reset (CVE-2023-44487)"),
    LIMIT(H2_RESETS_BURST, "resets", "at once"),
    LIMIT(H2_PINGS_PER_S, "1/s", "PING (CVE-2019-9512)"),
    LIMIT(H2_PINGS_BURST, "frames", "at once"),
    LIMIT(H2_SETTINGS_PER_S, "1/s", "SETTINGS (CVE-2019-9515)"),
    LIMIT(H2_SETTINGS_BURST, "frames", "at once"),
    LIMIT(H2_PRIORITIES_PER_S, "1/s", "PRIORITY and PRIORITY_UPDATE (CVE-2019-9513)"),
    LIMIT(H2_PRIORITIES_BURST, "frames", "at once"),
    LIMIT(H2_EMPTIES_PER_S, "1/s", "frames without a byte (CVE-2019-9518)"),
    LIMIT(H2_EMPTIES_BURST, "frames", "at once"),
    LIMIT(H2_UPDATES_PER_S, "1/s", "WINDOW_UPDATE"),
    LIMIT(H2_UPDATES_BURST, "frames", "at once"),
    LIMIT(H2_UPDATE_BYTES, "bytes", "of DATA sent allow the peer one WINDOW_UPDATE that is not counted"),
    LIMIT(H2_ENTITLED_BYTES, "bytes", "of DATA sent, for which such are remembered"),
    LIMIT(H2_UNKNOWNS_PER_S, "1/s", "frames of unknown types"),
    LIMIT(H2_UNKNOWNS_BURST, "frames", "at once"),
    LIMIT(H2_OUT_BYTES, "bytes", "unsent on an HTTP/2 connection: no DATA is framed beyond it"),
    LIMIT(H2_HELD_BYTES, "bytes", "of a request body over HTTP/2 that the exchange does not take yet"),
    LIMIT(H2_TURN_BYTES, "bytes", "read from one HTTP/2 connection before others have their turn"),
    LIMIT(H2_SPARE_STREAMS, "streams", "kept for the next requests"),
    LIMIT(CHUNK_EXTENSION_BYTES, "bytes", "of chunk extensions in one message (CVE-2023-39326)"),
    LIMIT(CHUNK_OVERHEAD_RATIO, "bytes",
          "of chunk framing for each body byte, beyond a grace (CVE-2023-39326)"),
    LIMIT(TRAILER_BYTES, "bytes", "of trailers in one message"),
    LIMIT(TRAILER_FIELDS, "fields", "of trailers in one message"),
    LIMIT(ROUTE_CAPTURES, "names", "of a path template, kept in the exchange without an allocation"),
    LIMIT(REGEX_MATCH_LIMIT, "steps", "of one match: a pattern cannot be made to run away (ReDoS)"),
    LIMIT(REGEX_HEAP_KIB, "KiB", "of one match"),
    LIMIT(RING_POINTS_MAX, "points", "of a consistent_hash ring: 3 MiB at most"),
    LIMIT(LOOKUP_MAX, "addresses", "that one upstream host name may stand for"),
    LIMIT(UPSTREAM_HEAD_BYTES, "bytes", "of a response head: twice what clients may send"),
    LIMIT(UPSTREAM_HEADERS, "fields", "of a response head"),
    LIMIT(INFORMATIONAL_MAX, "heads", "1xx before the final one: more is a flood"),
    LIMIT(RETRIES_AT_LEAST, "retries", "in flight, whatever the budget makes of few requests"),
    LIMIT(RETRY_RESERVE, "retries", "that few requests may borrow; one a second is given back"),
    LIMIT(IDEMPOTENCY_KEY_BYTES, "bytes", "of an Idempotency-Key"),
    LIMIT(REPLAY_ENTRIES, "requests",
          "with an Idempotency-Key that are remembered; the oldest answer makes room"),
    LIMIT(REPLAY_BYTES, "bytes", "of the answers to them"),
    LIMIT(COPIES_RESOURCES, "URIs", "of which copies are kept for fallback.stale"),
    LIMIT(COPIES_BYTES, "bytes", "of these copies"),
    LIMIT(COPY_BYTES, "bytes", "of one copy"),
    LIMIT(COPY_VARIANTS, "copies", "of one URI"),
    LIMIT(BACKOFF_DOUBLINGS, "doublings", "of retries.backoff"),
    LIMIT(CONTINUE_WAIT_MS, "ms", "for an upstream's 100, which it need not send"),
    LIMIT(REQUEST_ID_MAX, "bytes", "of a trusted peer's request id: a longer one is replaced"),
    LIMIT(LINGER_MS, "ms", "a closing client connection may still talk"),
    LIMIT(LINGER_BYTES, "bytes", "it may still send"),
    LIMIT(DRAIN_IDLE_MS, "ms", "an idle client connection is kept while draining"),
    LIMIT(DRAIN_BODY_BYTES, "bytes", "of an unread request body are read to keep the connection"),
    LIMIT(HEALTH_HEAD_BYTES, "bytes", "of the head that answers a health check"),
    LIMIT(HEALTH_HEAD_FIELDS, "fields", "of the head that answers a health check"),
    LIMIT(GRPC_MESSAGE_BYTES, "bytes", "of a grpc-message of ours"),
    LIMIT(GRPC_HEALTH_SERVICE_MAX, "bytes", "of a service's name in a gRPC health check"),
    LIMIT(GRPC_HEALTH_ANSWER_MAX, "bytes", "of the message that answers one"),
    LIMIT(HEALTH_ANSWER_BYTES, "bytes", "of all that an endpoint says to one health check"),
    LIMIT(HEALTH_AT_ONCE, "checks", "at once: they leave descriptors to the clients"),
    LIMIT(PROXY_HEADER_MAX, "bytes", "of a PROXY protocol header, addresses and TLVs included"),
    LIMIT(CONFIG_DEPTH, "levels", "of the configuration file: no real one is deeper"),
    LIMIT(CONFIG_NODES, "nodes", "of the configuration file, so that it cannot eat the memory"),
    LIMIT(CONFIG_ALIAS_NODES, "nodes", "made by YAML aliases (billion laughs)"),
    LIMIT(CONFIG_BYTES, "bytes", "of the configuration file"),
    LIMIT(CONFIG_ERRORS, "mistakes", "reported of one file; the rest is counted"),
    LIMIT(LIMIT_KEYS, "keys", "of rate limits live at once, without one being forgotten early"),
    LIMIT(LIMIT_TABLE_BYTES, "bytes", "of the table that holds them"),
    LIMIT(LIMIT_KEY_PARTS, "parts", "of a rate limit's key"),
    LIMIT(LIMITS_PER_ROUTE, "limits", "that a route may name"),
    LIMIT(LIMIT_IN_FLIGHT_MAX, "requests", "at once of one key that a rate limit may allow"),
    LIMIT(LIMIT_COST_MAX, "tokens", "that a request may cost by the configuration"),
    LIMIT(ADMIN_CONNECTIONS, "connections",
          "to the admin and to the status listener each; the idlest makes room"),
    LIMIT(ADMIN_HEAD_BYTES, "bytes", "of an admin request's head"),
    LIMIT(ADMIN_URI_BYTES, "bytes", "of an admin request's target"),
    LIMIT(ADMIN_HEADERS, "fields", "of an admin request"),
    LIMIT(ADMIN_BODY_BYTES, "bytes", "of an admin request's body"),
    LIMIT(ADMIN_REQUEST_MS, "ms", "from the first byte of an admin request to its last"),
    LIMIT(ADMIN_IDLE_MS, "ms", "between admin requests on one connection"),
    LIMIT(ADMIN_WRITE_MS, "ms", "without progress while an admin answer is sent"),
    LIMIT(ADMIN_COLLECT_MS, "ms", "that workers get to answer; later answers are dropped"),
    LIMIT(COLLECT_AT_ONCE, "questions",
          "to workers under way: those that do not answer must not pile them up"),
    LIMIT(COLLECT_EXCHANGES, "exchanges", "printed of each worker: printing more would hold its requests up"),
};

static void print_table(struct json *json)
{
    json_key(json, STR("limits"));
    json_array(json);
    for (size_t i = 0; i < countof(bounds); i++) {
        json_object(json);
        json_field_string(json, "name", str_of(bounds[i].name));
        json_field_u64(json, "value", bounds[i].value);
        json_field_string(json, "unit", str_of(bounds[i].unit));
        json_field_string(json, "reason", str_of(bounds[i].reason));
        json_object_end(json);
    }
    json_array_end(json);
}

// The bounds that the configuration sets: limits and timeouts of each listener and upstream.
static void print_configured(struct json *json, const struct config_node *root, const char *section)
{
    const struct config_node *nodes = config_get(root, str_of(section));
    json_key(json, str_of(section));
    json_array(json);
    for (const struct config_node *node = nodes ? nodes->first : NULL; node; node = node->next) {
        const struct config_node *name = config_get(node, STR("name"));
        json_object(json);
        json_field_string(json, "name", name ? name->text : node->key);
        static const struct str keys[] = {{"limits", 6}, {"timeouts", 8}};
        for (size_t i = 0; i < countof(keys); i++) {
            const struct config_node *value = config_get(node, keys[i]);
            if (!value)
                continue;
            json_key(json, keys[i]);
            config_print_json(value, json);
        }
        json_object_end(json);
    }
    json_array_end(json);
}

// What the table of buckets holds (limit/table.h).
static void print_buckets(struct json *json, const struct limits *limits)
{
    struct limit_table_stats stats;
    limit_table_stats(limits->table, &stats);
    json_key(json, STR("rate_limits"));
    json_object(json);
    json_key(json, STR("names"));
    json_array(json);
    for (uint32_t i = 0; i < limits->count; i++)
        json_string(json, limits->v[i].name);
    json_array_end(json);
    json_key(json, STR("keys"));
    json_object(json);
    json_field_u64(json, "places", stats.places);
    json_field_u64(json, "used", stats.used);
    json_field_u64(json, "forgotten", stats.forgotten);
    json_field_u64(json, "bytes", stats.bytes);
    json_object_end(json);
    json_field_u64(json, "gateways", limit_gateways_count());
    json_object_end(json);
}

void api_limits(struct serve_client *c)
{
    const struct gateway *gateway = host_of(c)->gateway;
    const struct config_node *root = config_encode(&gateway_object, &gateway->settings, &c->arena);
    struct buf body = {0};
    struct json json;
    json_init(&json, &body, false);
    json_object(&json);
    print_table(&json);
    print_configured(&json, root, "listeners");
    print_configured(&json, root, "upstreams");
    print_buckets(&json, &gateway->limits);
    json_object_end(&json);
    serve_reply_json(c, 200, &body);
}
