// The field table of `redis`, and its url.
#include "redis/redis.h"

enum { DATABASE_MAX = 65535, HOST_MAX = 255, USERINFO_MAX = 1024, PREFIX_MAX = 200 };

// ---- the url ----

static int hex_digit(char c)
{
    if (c >= '0' && c <= '9')
        return c - '0';
    c = ascii_lower(c);
    return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

// RFC 3986 2.1; no NUL comes out of it.
static bool percent_decode(struct str text, struct arena *arena, struct str *out)
{
    char *to = arena_alloc(arena, text.n + 1);
    size_t n = 0;
    for (size_t i = 0; i < text.n; i++) {
        char c = text.p[i];
        if (c == '%') {
            int high = i + 2 < text.n ? hex_digit(text.p[i + 1]) : -1;
            int low = high >= 0 ? hex_digit(text.p[i + 2]) : -1;
            if (low < 0)
                return false;
            c = (char)(high << 4 | low);
            i += 2;
        }
        if (!c)
            return false;
        to[n++] = c;
    }
    to[n] = 0;
    *out = (struct str){to, n};
    return true;
}

static bool is_host(struct str host)
{
    for (size_t i = 0; i < host.n; i++) {
        char c = ascii_lower(host.p[i]);
        if (!(c >= 'a' && c <= 'z') && !(c >= '0' && c <= '9') && c != '.' && c != '-' && c != '_')
            return false;
    }
    return host.n > 0 && host.n <= HOST_MAX;
}

// host[:port] or [v6][:port]
static bool parse_authority(struct str text, struct arena *arena, struct redis_url *url, const char **why)
{
    bool is_v6 = text.n && text.p[0] == '[';
    size_t close = is_v6 ? str_find(text, ']') : str_find(text, ':');
    struct str host = {text.p, close}, rest;
    struct ip ip;
    uint64_t port = 6379;
    *why = "expected a host behind the scheme";
    if (is_v6) {
        if (close == text.n)
            return false;
        host = (struct str){text.p + 1, close - 1};
        rest = str_skip(text, close + 1);
    } else {
        rest = str_skip(text, close);
    }
    if (is_v6 ? !ip_parse(host, &ip) || !memchr(host.p, ':', host.n) : !is_host(host))
        return false;
    *why = "the port is a number between 1 and 65535";
    if (rest.n && (rest.p[0] != ':' || !str_to_u64(str_skip(rest, 1), 65535, &port) || port == 0))
        return false;
    url->host = arena_copy(arena, host);
    url->address = arena_printf(arena, is_v6 ? "[%.*s]:%u" : "%.*s:%u", STR_ARG(host), (unsigned)port);
    return true;
}

static bool parse_userinfo(struct str text, struct arena *arena, struct redis_url *url, const char **why)
{
    size_t colon = str_find(text, ':');
    struct str password = colon < text.n ? str_skip(text, colon + 1) : STR_NULL;
    *why = "user and password are percent-encoded";
    if (text.n > USERINFO_MAX || !percent_decode((struct str){text.p, colon}, arena, &url->username) ||
        !percent_decode(password, arena, &url->password))
        return false;
    *why = "a user without a password";
    return url->password.n || !url->username.n;
}

static bool parse_database(struct str text, struct redis_url *url, const char **why)
{
    uint64_t database = 0;
    *why = "behind the host, only the number of a database: /0";
    if (text.n > 1 && !str_to_u64(str_skip(text, 1), DATABASE_MAX, &database))
        return false;
    url->database = (unsigned)database;
    return true;
}

bool redis_url_parse(struct str text, struct arena *arena, struct redis_url *url, const char **why)
{
    static const struct str plain = STR("redis://"), tls = STR("rediss://");
    *url = (struct redis_url){.tls = str_starts(text, tls)};
    *why = "expected redis:// or rediss://";
    if (!url->tls && !str_starts(text, plain))
        return false;
    struct str rest = str_skip(text, url->tls ? tls.n : plain.n);
    size_t slash = str_find(rest, '/'), at = slash;
    struct str path = str_skip(rest, slash);
    while (at > 0 && rest.p[at - 1] != '@')
        at--;
    if (at > 0 && !parse_userinfo((struct str){rest.p, at - 1}, arena, url, why))
        return false;
    url->text = arena_copy(arena, text);
    return parse_authority((struct str){rest.p + at, slash - at}, arena, url, why) &&
           parse_database(path, url, why);
}

// ---- fields ----

static void decode_url(struct config_decoder *decoder, const struct config_node *node, void *target)
{
    struct str text;
    struct redis_url url;
    const char *why;
    if (!config_decode_string(decoder, node, &text))
        return;
    if (redis_url_parse(text, config_arena(decoder), &url, &why))
        memcpy(target, &url, sizeof url);
    else
        config_fail(decoder, node, "such as redis://127.0.0.1:6379/0", "%s", why);
}

// A password in it is as secret as any.
static struct config_node *encode_url(struct arena *arena, const void *target)
{
    const struct redis_url *url = target;
    if (!url->password.n)
        return config_new_string(arena, url->text);
    return config_new_string(arena,
                             arena_printf(arena, "%s://%.*s:***@%.*s/%u", url->tls ? "rediss" : "redis",
                                          STR_ARG(url->username), STR_ARG(url->address), url->database));
}

static bool accept_prefix(struct config_decoder *decoder, const struct config_node *node, struct str *value)
{
    if (value->n <= PREFIX_MAX)
        return true;
    config_fail(decoder, node, "", "longer than %d bytes", PREFIX_MAX);
    return false;
}

static bool accept_node(struct config_decoder *decoder, const struct config_node *node, struct str *value)
{
    struct redis_url url;
    const char *why;
    bool has_port = value->n && str_find(*value, '@') == value->n && str_find(*value, '/') == value->n &&
                    value->p[value->n - 1] >= '0' && value->p[value->n - 1] <= '9' &&
                    memchr(value->p, ':', value->n);
    if (has_port && parse_authority(*value, config_arena(decoder), &url, &why))
        return true;
    config_fail(decoder, node, "such as redis-1.internal:26379", "not host:port: \"%.*s\"", STR_ARG(*value));
    return false;
}

static void check_mode(struct config_decoder *decoder, const struct config_node *node,
                       const struct redis_settings *redis)
{
    bool is_sentinel = redis->mode == REDIS_SENTINEL, is_cluster = redis->mode == REDIS_CLUSTER;
    bool is_one = !is_sentinel && !is_cluster;
    if (is_one && redis->nodes.count)
        config_fail_at(decoder, node, STR("nodes"), "remove it, or set mode",
                       "only for sentinel and cluster");
    if (!is_one && !redis->nodes.count)
        config_fail_at(decoder, node, STR("nodes"), "add some, host:port", "mode %s needs nodes",
                       is_cluster ? "cluster" : "sentinel");
    if (redis->nodes.count > REDIS_SEEDS)
        config_fail_at(decoder, node, STR("nodes"), "a few are enough: they tell of the others",
                       "more than %d", REDIS_SEEDS);
    if (!is_sentinel && redis->master.n)
        config_fail_at(decoder, node, STR("master"), "remove it, or set mode", "only for sentinel");
    if (is_sentinel && !redis->master.n)
        config_fail_at(decoder, node, STR("master"), "add the master's name", "mode sentinel needs master");
    if (is_cluster && redis->url.database)
        config_fail_at(decoder, node, STR("url"), "write /0", "a cluster has only database 0");
    if (is_cluster && str_find(redis->key_prefix, '{') < redis->key_prefix.n)
        config_fail_at(decoder, node, STR("key_prefix"), "write it without {",
                       "in a cluster, what is in braces chooses a key's slot");
}

static void check_redis(struct config_decoder *decoder, const struct config_node *node, void *target)
{
    const struct redis_settings *redis = target;
    check_mode(decoder, node, redis);
    if (redis->username.n && !redis->password.n && !redis->url.password.n)
        config_fail_at(decoder, node, STR("username"), "add password: { env: NAME }",
                       "a user without a password");
    if (redis->password.n && redis->url.password.n)
        config_fail_at(decoder, node, STR("password"), "remove one of the two",
                       "the url has a password, too");
    if (redis->ca.n && !redis->url.tls)
        config_fail_at(decoder, node, STR("ca"), "write rediss://",
                       "without TLS nothing is checked against it");
}

static const struct config_option modes[] = {
    {"standalone", REDIS_STANDALONE}, {"sentinel", REDIS_SENTINEL}, {"cluster", REDIS_CLUSTER}, {0}};

static const struct config_field fields[] = {
    {.name = "url",
     .type = CONFIG_CUSTOM,
     .offset = offsetof(struct redis_settings, url),
     .fallback = "\"redis://127.0.0.1:6379/0\"",
     .decode = decode_url,
     .encode = encode_url,
     .schema = "{ anyOf: [{ type: string, pattern: '^rediss?://.+' }, { $ref: '#/$defs/variable' }] }",
     .type_name = "a redis:// or rediss:// URL",
     .doc = "The server: redis[s]://[[user]:password@]host[:port][/database]. A password in it is not shown. "
            "A name is looked up when the configuration is loaded. Modes sentinel and cluster take from it "
            "whether "
            "there is TLS, user, password and database, and the host that every certificate must be of."},
    {.name = "username",
     .type = CONFIG_STRING,
     .offset = offsetof(struct redis_settings, username),
     .nullable = true,
     .doc =
         "Of an ACL user; null: the default user. The same for all servers and sentinels; sentinels without "
         "a password are asked without."},
    {.name = "password",
     .type = CONFIG_SECRET,
     .offset = offsetof(struct redis_settings, password),
     .nullable = true,
     .doc = "Sent before anything else.",
     .example = "{ env: REDIS_PASSWORD }"},
    {.name = "mode",
     .type = CONFIG_ENUM,
     .offset = offsetof(struct redis_settings, mode),
     .fallback = "standalone",
     .options = modes,
     .doc =
         "standalone: the server of the url. sentinel: the master that the nodes, which are Sentinels, name. "
         "cluster: the masters of the Redis Cluster that the nodes belong to."},
    {.name = "nodes",
     .type = CONFIG_STRINGS,
     .offset = offsetof(struct redis_settings, nodes),
     .fallback = "[]",
     .accept = accept_node,
     .pattern = "^.+:[0-9]{1,5}$",
     .type_name = "a list of host:port",
     .doc = "The first ones to ask, for mode sentinel (Sentinels) and cluster (any of its nodes). Names are "
            "looked "
            "up when the configuration is loaded; one that is known is enough."},
    {.name = "master",
     .type = CONFIG_STRING,
     .offset = offsetof(struct redis_settings, master),
     .nullable = true,
     .doc = "The name that the Sentinels know the master by, for mode sentinel."},
    {.name = "ca",
     .type = CONFIG_STRING,
     .offset = offsetof(struct redis_settings, ca),
     .nullable = true,
     .doc = "rediss://: the CA certificates that the server's is checked against, a PEM file; null: the "
            "system's."},
    {.name = "deadline",
     .type = CONFIG_DURATION,
     .offset = offsetof(struct redis_settings, deadline_us),
     .fallback = "5ms",
     .min = 1e3,
     .max = 10e6,
     .doc = "What a command on a request's path may take. A later reply is dropped."},
    {.name = "key_prefix",
     .type = CONFIG_STRING,
     .offset = offsetof(struct redis_settings, key_prefix),
     .fallback = "\"sallyport:\"",
     .accept = accept_prefix,
     .doc = "Every key and every channel begins with it. In a cluster it has no {, since the first braces "
            "of a key choose its slot."},
    {0},
};

const struct config_object redis_object = {
    .name = "redis",
    .doc = "A Redis or Valkey server that gateways share, or several behind Sentinels or in a Cluster. "
           "Without it, "
           "everything lives in the process.",
    .example = "url: \"rediss://redis.internal:6379/0\"\n"
               "deadline: 5ms\n"
               "ca: certs/redis-ca.pem\n",
    .size = sizeof(struct redis_settings),
    .fields = fields,
    .has_position = true,
    .check_rules = check_redis,
};
