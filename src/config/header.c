// Names and values of header fields in a configuration.
#include "config/header.h"

#include "base/map.h"
#include "http/header.h"

bool config_fail_header(struct config_decoder *decoder, const struct config_node *node, struct str name,
                        const char *what, const char *hint)
{
    if (name.p == node->key.p)
        config_fail_key(decoder, node, hint, "%s: \"%.*s\"", what, STR_ARG(name));
    else
        config_fail(decoder, node, hint, "%s: \"%.*s\"", what, STR_ARG(name));
    return false;
}

bool config_check_header_edit(struct config_decoder *decoder, const struct config_node *node, struct str name)
{
    const char *hint;
    if (!header_name_valid(name))
        return config_fail_header(decoder, node, name, "not a header name",
                                  "letters, digits and !#$%&'*+-.^_`|~");
    switch (header_id_of(name)) {
    case HEADER_HOST: hint = "write rewrite: { host: NAME } to send another Host"; break;
    case HEADER_CONTENT_LENGTH:
    case HEADER_TRANSFER_ENCODING:
    case HEADER_TRAILER: hint = "the gateway frames messages itself"; break;
    case HEADER_CONNECTION:
    case HEADER_TE:
    case HEADER_UPGRADE:
    case HEADER_KEEP_ALIVE:
    case HEADER_PROXY_CONNECTION:
    case HEADER_PROXY_AUTHENTICATE:
    case HEADER_PROXY_AUTHORIZATION:
    case HEADER_HTTP2_SETTINGS: hint = "it belongs to one connection, and the gateway sets its own"; break;
    default: return true;
    }
    return config_fail_header(decoder, node, name, "a header that cannot be edited", hint);
}

bool config_check_header_value(struct config_decoder *decoder, const struct config_node *node,
                               struct str value)
{
    struct str trimmed = str_trim(value);
    if (!header_value_valid(value)) {
        config_fail(decoder, node, "one line, without control characters", "not a header value");
        return false;
    }
    if (trimmed.n != value.n) {
        config_fail(decoder, node, "remove it", "white space at the beginning or the end of a header value");
        return false;
    }
    return true;
}

bool config_accept_header(struct config_decoder *decoder, const struct config_node *node, struct str *value)
{
    return config_check_header_edit(decoder, node, *value);
}

void config_check_header_names(struct config_decoder *decoder, const struct config_node *edit, struct str key)
{
    const struct config_node *map = config_get(edit, key);
    struct map seen = {0};
    if (!map || map->kind != CONFIG_MAP)
        return;
    config_enter(decoder, key);
    for (const struct config_node *child = map->first; child; child = child->next) {
        struct str folded = arena_copy(config_arena(decoder), child->key);
        for (size_t i = 0; i < folded.n; i++)
            ((char *)(uintptr_t)folded.p)[i] = ascii_lower(folded.p[i]);
        const struct config_node *before = map_put(&seen, folded, (void *)(uintptr_t)child);
        config_enter(decoder, child->key);
        if (before)
            config_fail_key(decoder, child, "remove one of the two", "the same header as on line %u",
                            before->key_line);
        config_leave(decoder);
    }
    config_leave(decoder);
    map_fini(&seen);
}
