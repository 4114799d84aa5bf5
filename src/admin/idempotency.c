// GET /api/v1/idempotency: what this process keeps of requests with an Idempotency-Key.
#include "admin/room.h"

#include "replay/table.h"

void api_idempotency(struct serve_client *c)
{
    struct replay_table_counts counts = replay_table_counts();
    struct buf body = {0};
    struct json json;
    json_init(&json, &body, false);
    json_object(&json);
    json_field_u64(&json, "entries", counts.entries);
    json_field_u64(&json, "running", counts.running);
    json_field_u64(&json, "bytes", counts.bytes);
    json_key(&json, STR("limits"));
    json_object(&json);
    json_field_u64(&json, "entries", REPLAY_ENTRIES);
    json_field_u64(&json, "bytes", REPLAY_BYTES);
    json_object_end(&json);
    json_object_end(&json);
    serve_reply_json(c, 200, &body);
}
