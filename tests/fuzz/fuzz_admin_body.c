// Bodies of the admin API that change something: a breaker by hand (the first byte is even), a revocation.
// What is refused says why; what is taken is what the documentation allows.
#include "two_ways.h"

#include "admin/room.h"
#include "base/json_parse.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n);

static void check_force(struct str body, struct arena *arena)
{
    enum breaker_force how = BREAKER_AUTOMATIC;
    const char *why = breaker_force_read(body, arena, &how), *fault = NULL;
    if (why) {
        check(why[0] && how == BREAKER_AUTOMATIC);
        return;
    }
    const struct json_value *object = json_parse(body, arena, &fault);
    check(object && object->kind == JSON_OBJECT);
    const struct json_value *word = json_get(object, STR("force"));
    check(json_is_string(word));
    check(str_eq(word->text, how == BREAKER_FORCED_OPEN ? STR("open") : STR("closed")));
    check(how == BREAKER_FORCED_OPEN || how == BREAKER_FORCED_CLOSED);
}

// It can be told to other gateways, who read the same, unless it is too long to be taken at all.
static void check_revocation(struct str body, struct arena *arena)
{
    const int64_t now_s = 1700000000;
    struct deny_entry entry, told;
    const char *why = revocation_read(body, arena, now_s, &entry);
    if (why) {
        check(why[0]);
        return;
    }
    check((entry.jti.n > 0) != (entry.subject.n > 0));
    check(entry.before >= 0 && entry.before <= now_s + 300 && (entry.subject.n || !entry.before));
    check(entry.until >= 0);
    if (entry.issuer.n + entry.jti.n + entry.subject.n > DENY_TEXT_BYTES)
        return;
    check(deny_parse(deny_print(&entry, arena), arena, &told));
    check(str_eq(told.issuer, entry.issuer) && str_eq(told.jti, entry.jti) &&
          str_eq(told.subject, entry.subject) && told.before == entry.before);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
    return read_in_two_ways(data, n, check_force, check_revocation);
}
