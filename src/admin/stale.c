// GET /api/v1/stale: what this process keeps for fallback.stale. DELETE: away with it, of one upstream or
// all.
#include "admin/room.h"
#include "base/clock.h"
#include "replay/copies.h"

static void print_counts(struct json *json, const struct copies_counts *counts)
{
    json_field_u64(json, "copies", counts->copies);
    json_field_u64(json, "bytes", counts->bytes);
}

// Those that keep copies, and those that did before a reload.
static void print_upstream(struct json *json, const struct upstream *upstream)
{
    struct copies_counts counts = copies_of(upstream->metric_id);
    if (!upstream->stale_us && !counts.copies)
        return;
    json_object(json);
    json_field_string(json, "upstream", upstream->name);
    print_counts(json, &counts);
    json_object_end(json);
}

static void print_all(struct json *json, const struct gateway *gateway)
{
    struct copies_counts counts = copies_counts();
    json_field_u64(json, "resources", counts.resources);
    print_counts(json, &counts);
    json_key(json, STR("limits"));
    json_object(json);
    json_field_u64(json, "resources", COPIES_RESOURCES);
    json_field_u64(json, "bytes", COPIES_BYTES);
    json_object_end(json);
    json_key(json, STR("upstreams"));
    json_array(json);
    for (uint32_t i = 0; i < gateway->own_upstream_count; i++)
        print_upstream(json, gateway->upstreams[i]);
    json_array_end(json);
}

void api_stale(struct serve_client *c)
{
    struct buf body = {0};
    struct json json;
    json_init(&json, &body, false);
    json_object(&json);
    print_all(&json, host_of(c)->gateway);
    json_object_end(&json);
    serve_reply_json(c, 200, &body);
}

void api_stale_drop(struct serve_client *c)
{
    int64_t whose = COPIES_OF_ALL;
    if (c->row->below) {
        struct str name = str_skip(c->request.path, c->row->path.n);
        const struct upstream *upstream = upstream_named(host_of(c)->gateway, name);
        if (!upstream) {
            serve_reply_problem(c, &(struct serve_problem){.status = 404,
                                                           .code = STR("not_found"),
                                                           .detail = STR("no upstream has this name")});
            return;
        }
        whose = upstream->metric_id;
    }
    struct buf body = {0};
    struct json json;
    json_init(&json, &body, false);
    json_object(&json);
    json_field_u64(&json, "dropped", copies_drop(whose, clock_monotonic_us()));
    json_object_end(&json);
    serve_reply_json(c, 200, &body);
}
