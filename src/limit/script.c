#include "limit/script.h"

#include <openssl/evp.h>
#include <pthread.h>

enum { SHA1_BYTES = 20, SECOND_US = 1000000 };

// ARGV: the verb, then for each key of KEYS
//
//   bucket, shadow, parts, price (µs, parts), span (µs, parts), most (µs, parts)
//   window, shadow, seconds or 0 for the calendar's, its begin, its end, the next one's end, tokens, cost, 0
//
// and of a lease after each how many extras there are, and those: price (µs, parts), or tokens and 0.
//
// A window is a fixed number of seconds from any begin; the bounds of months, and of days in a time zone,
// come from a gateway, whose clock may be wrong by as much as one of them.
//
// In all that is read the keys come first, so that nothing has changed when a key is not what it should be.
static const char text[] =
    "local clock = redis.call('TIME')\n"
    "local now = clock[1] * 1000000 + clock[2]\n"
    "local verb, at = ARGV[1], 2\n"
    "local function number() at = at + 1 return tonumber(ARGV[at - 1]) end\n"
    "local function word() at = at + 1 return ARGV[at - 1] end\n"
    "local function pair() local us = number() return {us, number()} end\n"
    "local function more(a, b) return a[1] > b[1] or a[1] == b[1] and a[2] > b[2] end\n"
    "local function plus(a, b, parts)\n"
    "  local us, over = a[1] + b[1], a[2] + b[2]\n"
    "  if over >= parts then return {us + 1, over - parts} end\n"
    "  return {us, over}\n"
    "end\n"
    "local function minus(a, b, parts)\n"
    "  if not more(a, b) then return {0, 0} end\n"
    "  local us, over = a[1] - b[1], a[2] - b[2]\n"
    "  if over < 0 then return {us - 1, over + parts} end\n"
    "  return {us, over}\n"
    "end\n"
    "local function stored(key)\n"
    "  local first, second = string.match(redis.call('GET', key) or '', '^(%d+) (%d+)$')\n"
    "  return tonumber(first), tonumber(second)\n"
    "end\n"
    "local function store(key, first, second, ms)\n"
    "  redis.call('SET', key, string.format('%.0f %.0f', first, second), 'PX', string.format('%.0f', ms))\n"
    "end\n"
    // ---- buckets: lacks is what is missing to be full ----
    "local bucket = {}\n"
    "function bucket.read(u)\n"
    "  u.parts, u.price, u.span, u.most = number(), pair(), pair(), pair()\n"
    "  local full, over = stored(u.key)\n"
    "  u.lacks = {0, 0}\n"
    "  if full and full >= now then u.lacks = {full - now, math.min(over, u.parts - 1)} end\n"
    "  if more(u.lacks, {u.most[1] + 1000000, u.most[2]}) then\n"
    "    u.lacks, u.changed = u.most, true\n"
    "  end\n"
    "  u.refuses = more(plus(u.lacks, u.price, u.parts), u.span)\n"
    "end\n"
    "function bucket.charge(u)\n"
    "  local after = plus(u.lacks, u.price, u.parts)\n"
    "  if more(after, u.most) then after = more(u.lacks, u.most) and u.lacks or u.most end\n"
    "  u.lacks, u.changed = after, true\n"
    "end\n"
    "function bucket.give(u) u.lacks, u.changed = minus(u.lacks, u.price, u.parts), true end\n"
    "function bucket.store(u)\n"
    "  store(u.key, now + u.lacks[1], u.lacks[2], math.floor(u.lacks[1] / 1000) + 1)\n"
    "end\n"
    "function bucket.told(u) return u.lacks[1], u.lacks[2] end\n"
    "function bucket.spares(u, extra)\n"
    "  local after = plus(u.lacks, extra, u.parts)\n"
    "  if more(plus(after, extra, u.parts), u.span) then return false end\n"
    "  u.lacks = after\n"
    "  return true\n"
    "end\n"
    // ---- quotas ----
    "local window = {}\n"
    "function window.read(u)\n"
    "  local length, from, to, next = number(), number(), number(), number()\n"
    "  u.tokens, u.cost = number(), number()\n"
    "  at = at + 1\n"
    "  if length > 0 then\n"
    "    local s = now / 1000000 - from\n"
    "    u.ends = from + (math.floor(s / length) + 1) * length\n"
    "  elseif now < to * 1000000 then\n"
    "    u.ends, length = now < from * 1000000 and from or to, to - from\n"
    "  else\n"
    "    u.ends, length = next, next - to\n"
    "  end\n"
    "  local ends, gone = stored(u.key)\n" // of another time zone perhaps: window.c's rule
    "  u.gone = ends and ends + length / 2 > u.ends and gone or 0\n"
    "  u.refuses = u.gone + u.cost > u.tokens\n"
    "end\n"
    "function window.charge(u) u.gone, u.changed = math.min(u.gone + u.cost, 2147483647), true end\n"
    "function window.give(u) u.gone, u.changed = math.max(u.gone - u.cost, 0), true end\n"
    "function window.store(u)\n"
    "  store(u.key, u.ends, u.gone, math.max(u.ends * 1000 - math.floor(now / 1000), 0) + 1)\n"
    "end\n"
    "function window.told(u) return math.max(u.ends * 1000000 - now, 0), u.gone end\n"
    "function window.spares(u, extra)\n"
    "  if u.gone + extra[1] + extra[1] > u.tokens then return false end\n"
    "  u.gone = u.gone + extra[1]\n"
    "  return true\n"
    "end\n"
    // ---- all of them ----
    "local kinds, uses, passes, is_lease = {bucket = bucket, window = window}, {}, true, verb == 'lease'\n"
    "local function lease(u)\n"
    "  for i, extra in ipairs(u.extras) do\n"
    "    if u.kind.spares(u, extra) then u.extra = i return end\n"
    "  end\n"
    "end\n"
    "for i, key in ipairs(KEYS) do\n"
    "  local kind = kinds[word()]\n"
    "  local u = {key = key, kind = kind, shadow = number() == 1, extras = {}, extra = 0}\n"
    "  kind.read(u)\n"
    "  if is_lease then for j = 1, number() do u.extras[j] = pair() end end\n"
    "  uses[i] = u\n"
    "  if u.refuses and not u.shadow then passes = false end\n"
    "end\n"
    "local reply = {passes and 1 or 0}\n"
    "for _, u in ipairs(uses) do\n"
    "  if verb == 'take' or is_lease then\n"
    "    if passes and not u.refuses then u.kind.charge(u) lease(u) end\n"
    "  elseif verb ~= 'look' then\n"
    "    u.kind[verb](u)\n"
    "  end\n"
    "  if u.changed and verb ~= 'look' then u.kind.store(u) end\n"
    "  reply[#reply + 1] = u.refuses and 1 or 0\n"
    "  reply[#reply + 1], reply[#reply + 2] = u.kind.told(u)\n"
    "  if is_lease then reply[#reply + 1] = u.extra end\n"
    "end\n"
    "return reply\n";

struct str limit_script_text(void)
{
    return STR(text);
}

static char digest_text[2 * SHA1_BYTES + 1];
static pthread_once_t digest_once = PTHREAD_ONCE_INIT;

static void make_digest(void)
{
    static const char digits[] = "0123456789abcdef";
    uint8_t digest[EVP_MAX_MD_SIZE];
    size_t n = 0;
    check(EVP_Q_digest(NULL, "SHA1", NULL, text, sizeof text - 1, digest, &n) == 1 && n == SHA1_BYTES);
    for (size_t i = 0; i < n; i++) {
        digest_text[2 * i] = digits[digest[i] >> 4];
        digest_text[2 * i + 1] = digits[digest[i] & 15];
    }
}

// ---- arguments ----

struct arguments {
    struct str *v;
    unsigned count;
    struct arena *arena;
};

static void add(struct arguments *to, struct str word)
{
    to->v[to->count++] = word;
}

static void add_number(struct arguments *to, uint64_t number)
{
    enum { DIGITS = 20 };
    char *digits = arena_alloc(to->arena, DIGITS);
    add(to, (struct str){digits, u64_print(number, digits)});
}

static void add_amount(struct arguments *to, const struct bucket *bucket, uint64_t parts)
{
    add_number(to, parts / bucket->parts);
    add_number(to, parts % bucket->parts);
}

static void add_bucket(struct arguments *to, const struct bucket *bucket, uint64_t cost)
{
    add_number(to, bucket->parts);
    add_amount(to, bucket, bucket_price(bucket, cost));
    add_amount(to, bucket, bucket->span);
    add_amount(to, bucket, bucket->most);
}

static void add_window(struct arguments *to, const struct window *window, uint64_t cost, int64_t now_s)
{
    int64_t begin_s, end_s, next_s;
    window_bounds(window->unit, window->zone, now_s, &begin_s, &end_s);
    window_bounds(window->unit, window->zone, end_s, &end_s, &next_s);
    bool is_fixed = window->unit != WINDOW_MONTH && !(window->unit == WINDOW_DAY && window->zone);
    add_number(to, is_fixed ? (uint64_t)(end_s - begin_s) : 0);
    add_number(to, (uint64_t)begin_s);
    add_number(to, (uint64_t)end_s);
    add_number(to, (uint64_t)next_s);
    add_number(to, window->tokens);
    add_number(to, cost < WINDOW_COUNT_MASK ? cost : WINDOW_COUNT_MASK);
    add_number(to, 0);
}

static void add_extras(struct arguments *to, const struct limit_query *query)
{
    add_number(to, query->extra_count);
    for (uint32_t i = 0; i < query->extra_count; i++) {
        if (query->rule.is_window) {
            add_number(to, query->extras[i]);
            add_number(to, 0);
        } else {
            add_amount(to, &query->rule.bucket, bucket_price(&query->rule.bucket, query->extras[i]));
        }
    }
}

unsigned limit_script_command(enum limit_verb verb, const struct limit_query *queries, uint32_t count,
                              int64_t now_s, struct arena *arena, struct str **argv)
{
    static const struct str verbs[] = {
        [LIMIT_TAKE] = {"take", 4}, [LIMIT_CHARGE] = {"charge", 6}, [LIMIT_GIVE] = {"give", 4},
        [LIMIT_LOOK] = {"look", 4}, [LIMIT_LEASE] = {"lease", 5},
    };
    pthread_once(&digest_once, make_digest);
    struct arguments to = {.arena = arena};
    to.v = arena_array(arena, struct str, LIMIT_SCRIPT_HEAD + count * LIMIT_SCRIPT_ARGUMENTS);
    add(&to, STR("EVALSHA"));
    add(&to, (struct str){digest_text, sizeof digest_text - 1});
    add_number(&to, count);
    for (uint32_t i = 0; i < count; i++)
        add(&to, queries[i].key);
    add(&to, verbs[verb]);
    for (uint32_t i = 0; i < count; i++) {
        const struct limit_query *query = &queries[i];
        add(&to, query->rule.is_window ? STR("window") : STR("bucket"));
        add(&to, query->is_shadow ? STR("1") : STR("0"));
        if (query->rule.is_window)
            add_window(&to, &query->rule.window, query->cost, now_s);
        else
            add_bucket(&to, &query->rule.bucket, query->cost);
        if (verb == LIMIT_LEASE)
            add_extras(&to, query);
    }
    *argv = to.v;
    return to.count;
}

void limit_script_spell_out(struct str *argv)
{
    argv[0] = STR("EVAL");
    argv[1] = limit_script_text();
}

bool limit_script_is_missing(const struct resp_value *reply)
{
    return reply->kind == RESP_ERROR && str_starts(reply->text, STR("NOSCRIPT"));
}

bool limit_script_is_torn(const struct resp_value *reply)
{
    return reply->kind == RESP_ERROR && str_starts(reply->text, STR("TRYAGAIN"));
}

// ---- the answer ----

static bool is_count(const struct resp_value *value, int64_t max)
{
    return value->kind == RESP_INTEGER && value->integer >= 0 && value->integer <= max;
}

static uint64_t bucket_state(const struct bucket *bucket, uint64_t now_us, const struct resp_value *lacks)
{
    uint64_t over = (uint64_t)lacks[1].integer;
    if (over >= bucket->parts)
        over = bucket->parts - 1;
    return (now_us + (uint64_t)lacks[0].integer) << BUCKET_PART_BITS | over;
}

// Who refuses is never without a time to wait, though there may be room by now: it was given back.
static uint64_t wait_us(const struct limit_query *query, const struct limit_told *told, uint64_t now_us)
{
    uint64_t until_us = rule_wait_us(&told->rule, told->state, now_us, query->cost);
    return until_us ? until_us : 1;
}

static void read_one(const struct resp_value *items, const struct limit_query *query, uint64_t now_us,
                     struct limit_told *told)
{
    told->rule = query->rule;
    told->extra = 0;
    if (query->rule.is_window) {
        told->rule.window.end_us = now_us + (uint64_t)items[1].integer;
        told->state = window_charge(&told->rule.window, 0, now_us, (uint64_t)items[2].integer);
    } else {
        told->state = bucket_state(&query->rule.bucket, now_us, &items[1]);
    }
    told->wait_us = items[0].integer ? wait_us(query, told, now_us) : 0;
}

// Of one key: whether it refuses, what is in it, and of a lease which extra was taken, counted from 1.
enum { ITEMS = 3, LEASE_ITEMS = 4 };

bool limit_script_read(const struct resp_value *reply, const struct limit_query *queries, uint32_t count,
                       uint64_t now_us, bool *passes, struct limit_told *told)
{
    bool is_lease = reply->count == 1 + LEASE_ITEMS * count;
    if (reply->kind != RESP_ARRAY || (reply->count != 1 + ITEMS * count && !is_lease) ||
        !is_count(&reply->items[0], 1))
        return false;
    bool is_refused = false;
    *passes = reply->items[0].integer;
    for (uint32_t i = 0; i < count; i++) {
        const struct resp_value *items = &reply->items[1 + (is_lease ? LEASE_ITEMS : ITEMS) * i];
        if (!is_count(&items[0], 1) || !is_count(&items[1], 3 * (int64_t)BUCKET_SPAN_MAX_US) ||
            !is_count(&items[2], INT32_MAX) || (is_lease && !is_count(&items[3], queries[i].extra_count)))
            return false;
        read_one(items, &queries[i], now_us, &told[i]);
        is_refused |= items[0].integer && !queries[i].is_shadow;
        if (is_lease && items[3].integer)
            told[i].extra = queries[i].extras[items[3].integer - 1];
    }
    return *passes == !is_refused; // or nobody could be told why, and would pass
}
