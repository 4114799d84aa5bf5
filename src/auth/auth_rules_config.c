// The names that authentication takes for itself, and the rules between sections: no header means two things,
// no key belongs to two consumers, and the providers of routes are there.
#include "auth/auth.h"
#include "base/map.h"
#include "config/header.h"

// ---- header names ----

static bool check_identity_name(struct config_decoder *decoder, const struct config_node *node,
                                struct str name)
{
    if (!config_check_header_edit(decoder, node, name))
        return false;
    if (header_id_of(auth_fold(name, config_arena(decoder))) == HEADER_OTHER)
        return true;
    return config_fail_header(decoder, node, name, "a header that has a meaning of its own",
                              "clients could not send it any more: choose another");
}

bool config_accept_identity_name(struct config_decoder *decoder, const struct config_node *node,
                                 struct str *value)
{
    return check_identity_name(decoder, node, *value);
}

#define CLAIM_PREFIX "jwt."

static const struct {
    struct str text;
    enum identity_source source;
} identity_sources[] = {
    {STR("identity.subject"), IDENTITY_SUBJECT},   {STR("identity.consumer"), IDENTITY_CONSUMER},
    {STR("identity.roles"), IDENTITY_ROLES},       {STR("identity.scopes"), IDENTITY_SCOPES},
    {STR("identity.provider"), IDENTITY_PROVIDER},
};

bool auth_identity_source(struct str text, enum identity_source *source, struct str *claim)
{
    *claim = STR_NULL;
    if (str_starts(text, STR(CLAIM_PREFIX)) && text.n > sizeof CLAIM_PREFIX - 1) {
        *source = IDENTITY_CLAIM;
        *claim = str_skip(text, sizeof CLAIM_PREFIX - 1);
        return true;
    }
    for (size_t i = 0; i < countof(identity_sources); i++)
        if (str_eq(text, identity_sources[i].text)) {
            *source = identity_sources[i].source;
            return true;
        }
    return false;
}

static bool check_identity_source(struct config_decoder *decoder, const struct config_node *node,
                                  struct str text)
{
    struct str names[countof(identity_sources)], claim;
    enum identity_source source;
    if (config_is_printable(text) && auth_identity_source(text, &source, &claim))
        return true;
    for (size_t i = 0; i < countof(identity_sources); i++)
        names[i] = identity_sources[i].text;
    const char *hint = config_suggest(decoder, text, names, countof(names));
    config_fail(decoder, node,
                *hint ? hint : "identity.subject, .consumer, .roles, .scopes or .provider, or jwt.CLAIM",
                "nothing that is known of a caller: \"%.*s\"", text.n > 80 ? 80 : (int)text.n, text.p);
    return false;
}

bool config_accept_identity_header(struct config_decoder *decoder, const struct config_node *node,
                                   struct str *value)
{
    bool is_name = check_identity_name(decoder, node, node->key);
    return check_identity_source(decoder, node, *value) && is_name;
}

// ---- one header, one meaning ----

struct meaning {
    const char *owner;
    unsigned line; // 0: a default
};

// Who has taken a name, by its folded spelling.
struct meanings {
    struct map map;
    struct arena *arena;
};

static const struct meaning *meaning_of(const struct meanings *taken, struct str name)
{
    return name.n ? map_get(&taken->map, auth_fold(name, taken->arena)) : NULL;
}

static void take(struct meanings *taken, struct str name, const char *owner, unsigned line)
{
    struct meaning *meaning = arena_new(taken->arena, struct meaning);
    *meaning = (struct meaning){owner, line};
    if (name.n && !meaning_of(taken, name))
        map_put(&taken->map, auth_fold(name, taken->arena), meaning);
}

static void take_identity_headers(struct config_decoder *decoder, const struct config_node *root,
                                  const struct auth_sections *sections, struct meanings *taken)
{
    static const struct str section = STR("identity_headers");
    const struct config_node *map = config_get(root, section);
    config_enter(decoder, section);
    for (uint32_t i = 0; i < sections->identity_headers->count; i++) {
        struct str name = sections->identity_headers->v[i].name;
        const struct config_node *node = config_get(map, name);
        const struct meaning *before = meaning_of(taken, name);
        if (before && node) {
            config_enter(decoder, name);
            config_fail_key(decoder, node, "names that differ in case, - and _ only are one to services",
                            "the same header as on line %u", before->line);
            config_leave(decoder);
        }
        take(taken, name, "identity_headers", node ? node->key_line : 0);
    }
    config_leave(decoder);
}

static void take_identity_token(struct config_decoder *decoder, const struct config_node *root,
                                const struct auth_sections *sections, struct meanings *taken)
{
    static const struct str section = STR("identity_token"), key = STR("header");
    const struct config_node *map = config_get(root, section);
    if (!sections->identity_token || !map)
        return;
    struct str name = sections->identity_token->header;
    const struct meaning *before = meaning_of(taken, name);
    config_enter(decoder, section);
    if (before)
        config_fail_at(decoder, map, key, "choose another", "%.*s is a header of %s", STR_ARG(name),
                       before->owner);
    config_leave(decoder);
    take(taken, name, "identity_token", map->line);
}

static const struct config_node *kind_node(const struct config_node *root,
                                           const struct auth_settings *provider, struct str kind)
{
    return config_get(config_get(config_get(root, STR("auth")), provider->name), kind);
}

static void take_answers(const struct config_node *root, const struct auth_sections *sections,
                         struct meanings *taken)
{
    const struct auth_settings *providers = sections->providers->v;
    for (uint32_t i = 0; i < sections->providers->count; i++) {
        const struct forward_settings *forward = &providers[i].forward;
        const struct config_node *node = kind_node(root, &providers[i], STR("forward"));
        if (providers[i].kind != AUTH_FORWARD || !node)
            continue;
        const struct str names[] = {forward->subject_header, forward->roles_header, forward->scopes_header};
        for (uint32_t k = 0; k < forward->response_headers.count; k++)
            take(taken, forward->response_headers.v[k], "an Auth Service's answer", node->line);
        for (size_t k = 0; k < countof(names); k++)
            take(taken, names[k], "an Auth Service's answer", node->line);
    }
}

// What clients have to send must not be removed.
static void check_sent(struct config_decoder *decoder, const struct config_node *node, struct str key,
                       struct str name, const struct meanings *taken)
{
    const struct meaning *meaning = meaning_of(taken, name);
    if (meaning)
        config_fail_at(decoder, node, key, "choose another",
                       "clients cannot send %.*s, which is a header of %s", STR_ARG(name), meaning->owner);
}

static void check_credentials(struct config_decoder *decoder, const struct config_node *root,
                              const struct auth_settings *provider, const struct meanings *taken)
{
    static const struct str kinds[] = {STR("api_key"), STR("forward")};
    bool is_forward = provider->kind == AUTH_FORWARD;
    struct str kind = kinds[is_forward];
    const struct config_node *node = kind_node(root, provider, kind);
    if ((provider->kind != AUTH_API_KEY && !is_forward) || !node)
        return;
    config_enter(decoder, provider->name);
    config_enter(decoder, kind);
    if (is_forward)
        for (uint32_t i = 0; i < provider->forward.request_headers.count; i++)
            check_sent(decoder, node, STR("request_headers"), provider->forward.request_headers.v[i], taken);
    else
        check_sent(decoder, node, STR("header"), provider->api_key.header, taken);
    config_leave(decoder);
    config_leave(decoder);
}

static void check_request_id(struct config_decoder *decoder, const struct config_node *root, struct str name,
                             const struct meanings *taken)
{
    static const struct str telemetry = STR("telemetry"), headers = STR("headers");
    const struct config_node *node = config_get(config_get(root, telemetry), headers);
    if (!node)
        return;
    config_enter(decoder, telemetry);
    config_enter(decoder, headers);
    check_sent(decoder, node, STR("request_id"), name, taken);
    config_leave(decoder);
    config_leave(decoder);
}

static void check_headers(struct config_decoder *decoder, const struct config_node *root,
                          const struct auth_sections *sections)
{
    const struct auth_settings *providers = sections->providers->v;
    struct meanings taken = {.arena = config_arena(decoder)};
    take_identity_headers(decoder, root, sections, &taken);
    take_identity_token(decoder, root, sections, &taken);
    take_answers(root, sections, &taken);
    config_enter(decoder, STR("auth"));
    for (uint32_t i = 0; i < sections->providers->count; i++)
        if (providers[i].name.n)
            check_credentials(decoder, root, &providers[i], &taken);
    config_leave(decoder);
    check_request_id(decoder, root, sections->request_id, &taken);
    map_fini(&taken.map);
}

// ---- consumers ----

struct holder {
    struct str name; // of the consumer
    unsigned line;
};

// One thing that a consumer holds: reported when it has been held before.
static void hold(struct config_decoder *decoder, const struct config_node *node, struct str key,
                 struct str value, struct str consumer, struct map *held)
{
    if (!value.n)
        return;
    struct holder *holder = arena_new(config_arena(decoder), struct holder);
    struct str id = arena_printf(config_arena(decoder), "%s=%.*s", key.p, STR_ARG(value));
    *holder = (struct holder){consumer, node->line};
    const struct holder *before = map_put(held, id, holder);
    if (before)
        config_fail_at(decoder, node, key, "what tells who calls is one consumer's",
                       "held by %.*s, on line %u", STR_ARG(before->name), before->line);
}

static void hold_certificate(struct config_decoder *decoder, const struct config_node *node,
                             const struct consumer_certificate *certificate, struct str consumer,
                             struct map *held)
{
    hold(decoder, node, STR("san"), certificate->san, consumer, held);
    hold(decoder, node, STR("subject"), certificate->subject, consumer, held);
    hold(decoder, node, STR("fingerprint"), certificate->fingerprint, consumer, held);
}

static const struct config_node *first_of(const struct config_node *list)
{
    return list && list->kind == CONFIG_LIST ? list->first : NULL;
}

static void check_consumer(struct config_decoder *decoder, const struct config_node *node,
                           const struct consumer_settings *consumer, struct map *held)
{
    static const struct str api_keys = STR("api_keys"), certificates = STR("certificates");
    const struct consumer_key *keys = consumer->api_keys.v;
    uint32_t i = 0;
    config_enter(decoder, api_keys);
    for (const struct config_node *child = first_of(config_get(node, api_keys));
         child && i < consumer->api_keys.count; child = child->next, i++) {
        config_enter_index(decoder, i);
        hold(decoder, child, STR("sha256"), keys[i].sha256, consumer->name, held);
        config_leave(decoder);
    }
    config_leave(decoder);
    config_enter(decoder, certificates);
    i = 0;
    for (const struct config_node *child = first_of(config_get(node, certificates));
         child && i < consumer->certificates.count; child = child->next, i++) {
        const struct consumer_certificate *list = consumer->certificates.v;
        config_enter_index(decoder, i);
        hold_certificate(decoder, child, &list[i], consumer->name, held);
        config_leave(decoder);
    }
    config_leave(decoder);
}

static void check_consumers(struct config_decoder *decoder, const struct config_node *root,
                            const struct config_list *list)
{
    static const struct str section = STR("consumers");
    const struct config_node *map = config_get(root, section);
    const struct consumer_settings *consumers = list->v;
    struct map held = {0};
    uint32_t i = 0;
    if (!map || map->kind != CONFIG_MAP)
        return;
    config_enter(decoder, section);
    for (const struct config_node *child = map->first; child && i < list->count; child = child->next, i++) {
        config_enter(decoder, child->key);
        check_consumer(decoder, child, &consumers[i], &held);
        config_leave(decoder);
    }
    config_leave(decoder);
    map_fini(&held);
}

void config_check_auth(struct config_decoder *decoder, const struct config_node *root,
                       const struct auth_sections *sections)
{
    check_headers(decoder, root, sections);
    check_consumers(decoder, root, sections->consumers);
}

// ---- a route's providers ----

static bool find_provider(const struct config_list *list, struct str name, uint32_t *index)
{
    const struct auth_settings *providers = list->v;
    for (*index = 0; *index < list->count; ++*index)
        if (str_eq(providers[*index].name, name))
            return true;
    return false;
}

static const char *suggest_provider(struct config_decoder *decoder, struct str name,
                                    const struct config_list *list)
{
    const struct auth_settings *providers = list->v;
    struct str *names = arena_array(config_arena(decoder), struct str, list->count);
    for (uint32_t i = 0; i < list->count; i++)
        names[i] = providers[i].name;
    const char *hint = config_suggest(decoder, name, names, list->count);
    return *hint ? hint : "add it to auth";
}

// The value that says the name: node itself, or one of its any_of.
static const struct config_node *node_of_name(const struct config_node *node, struct str name,
                                              uint32_t *place)
{
    *place = 0;
    if (node->kind == CONFIG_SCALAR)
        return node;
    const struct config_node *list = config_get(node, STR("any_of"));
    for (const struct config_node *child = first_of(list); child; child = child->next, ++*place)
        if (child->kind == CONFIG_SCALAR && str_eq(child->text, name))
            return child;
    return node;
}

static void fail_provider(struct config_decoder *decoder, const struct config_node *node, struct str name,
                          const char *hint, const char *what)
{
    uint32_t place;
    const struct config_node *at = node_of_name(node, name, &place);
    if (at != node) {
        config_enter(decoder, STR("any_of"));
        config_enter_index(decoder, place);
    }
    config_fail(decoder, at, hint, "%s \"%.*s\"", what, STR_ARG(name));
    if (at != node) {
        config_leave(decoder);
        config_leave(decoder);
    }
}

void config_check_route_auth(struct config_decoder *decoder, const struct config_node *node,
                             const struct config_list *providers, struct route_auth_settings *auth)
{
    uint32_t *indices = arena_array(config_arena(decoder), uint32_t, auth->any_of.count);
    if (!node)
        return;
    for (uint32_t i = 0; i < auth->any_of.count; i++) {
        struct str name = auth->any_of.v[i];
        if (!find_provider(providers, name, &indices[i]))
            fail_provider(decoder, node, name, suggest_provider(decoder, name, providers),
                          "no provider is named");
        for (uint32_t k = 0; k < i; k++)
            if (str_eq(auth->any_of.v[k], name))
                fail_provider(decoder, node, name, "remove one of them", "named twice:");
    }
    auth->indices = indices;
}
