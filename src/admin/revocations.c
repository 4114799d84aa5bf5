// Revoking tokens, and what the deny list holds.
#include "admin/room.h"

#include "base/clock.h"
#include "base/json_parse.h"

enum { AHEAD_S = 300 /* of our clock, that `before` may be */, FAR_S = 3650 * 86400 };

static const char usage[] =
    "expected {\"iss\": …, \"jti\": …, \"exp\": …} or {\"iss\": …, \"sub\": …, \"before\": …}; iss, exp "
    "and before may be left out";

static bool take_text(const struct json_value *member, struct str *text)
{
    *text = member->text;
    return json_is_string(member) && member->text.n;
}

const char *revocation_read(struct str body, struct arena *arena, int64_t now_s, struct deny_entry *entry)
{
    const char *why = NULL;
    const struct json_value *object = json_parse(body, arena, &why);
    int64_t expires = 0, before = now_s;
    bool has_exp = false, has_before = false, good = true;
    if (!object || object->kind != JSON_OBJECT)
        return why ? why : usage;
    *entry = (struct deny_entry){0};
    for (const struct json_value *member = object->first; member && good; member = member->next) {
        if (str_eq(member->key, STR("iss")))
            good = take_text(member, &entry->issuer);
        else if (str_eq(member->key, STR("jti")))
            good = take_text(member, &entry->jti);
        else if (str_eq(member->key, STR("sub")))
            good = take_text(member, &entry->subject);
        else if (str_eq(member->key, STR("exp")))
            good = has_exp = json_integer(member, &expires);
        else if (str_eq(member->key, STR("before")))
            good = has_before = json_integer(member, &before);
        else
            good = false;
    }
    if (!good || (entry->jti.n > 0) == (entry->subject.n > 0) || (has_exp && !entry->jti.n) ||
        (has_before && !entry->subject.n))
        return usage;
    if (before > now_s + AHEAD_S || before < 0)
        return "before is in the future, or no time: tokens that are not issued yet cannot be revoked";
    if (expires > now_s + FAR_S || expires < 0)
        return "exp is no time of the next ten years";
    entry->before = entry->subject.n ? before : 0;
    entry->until = has_exp ? expires + DENY_LEEWAY_S : now_s + DENY_KEPT_S;
    return NULL;
}

static void reply_entry(struct serve_client *c, const struct deny_entry *entry)
{
    struct admin_host *host = host_of(c);
    struct buf body = {0};
    struct json json;
    json_init(&json, &body, false);
    json_object(&json);
    if (entry->issuer.n)
        json_field_string(&json, "iss", entry->issuer);
    if (entry->jti.n) {
        json_field_string(&json, "jti", entry->jti);
    } else {
        json_field_string(&json, "sub", entry->subject);
        json_field_u64(&json, "before", (uint64_t)entry->before);
    }
    json_field_u64(&json, "until", (uint64_t)entry->until);
    json_field_string(&json, "redis", host->redis_state(host));
    json_object_end(&json);
    serve_reply_json(c, 201, &body);
}

void api_revoke(struct serve_client *c)
{
    struct admin_host *host = host_of(c);
    struct deny_entry entry;
    struct str body = serve_body(c);
    const char *why = revocation_read(body, &c->arena, (int64_t)(clock_wall_us() / 1000000), &entry);
    unsigned status = 400;
    if (!why) {
        switch (host->revoke(host, &entry)) {
        case ADMIN_REVOKED: reply_entry(c, &entry); return;
        case ADMIN_REVOKED_HERE:
            status = 503;
            why = "it is refused here, but too many revocations wait for Redis to tell other gateways";
            break;
        case ADMIN_REVOKED_FULL:
            status = 503;
            why = "the deny list is full";
            break;
        case ADMIN_REVOKED_PAST: why = "exp is past: the token is refused anyhow"; break;
        case ADMIN_REVOKED_BAD: why = "the names are too long"; break;
        }
    }
    struct str code = status == 400 ? STR("bad_request") : STR("overloaded");
    serve_reply_problem(c, &(struct serve_problem){.status = status, .code = code, .detail = str_of(why)});
}

void api_revocations(struct serve_client *c)
{
    struct admin_host *host = host_of(c);
    struct buf body = {0};
    struct json json;
    json_init(&json, &body, false);
    json_object(&json);
    json_field_u64(&json, "count", deny_count());
    json_field_u64(&json, "version", deny_version());
    json_field_string(&json, "redis", host->redis_state(host));
    json_object_end(&json);
    serve_reply_json(c, 200, &body);
}
