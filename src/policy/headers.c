// Edits of the request and response heads, in this order: remove, set, add. So a name that is both removed
// and added holds the added value alone, whatever the peer sent.
#include "policy/policy.h"
#include "policy/policy_config.h"

// The framing of a message is the gateway's own: an edit of these could make two peers see different messages
// (RFC 9112 11.2).
static bool is_framing(struct str name)
{
    enum header_id id = header_id_of(name);
    return id == HEADER_CONTENT_LENGTH || id == HEADER_TRANSFER_ENCODING || id == HEADER_CONNECTION;
}

static void edit(const struct header_edit *rules, struct headers *headers, struct arena *arena)
{
    for (uint32_t i = 0; i < rules->remove.count; i++)
        if (!is_framing(rules->remove.v[i]))
            headers_remove_name(headers, rules->remove.v[i]);
    for (uint32_t i = 0; i < rules->set.count; i++)
        if (!is_framing(rules->set.v[i].name))
            headers_set(headers, arena, rules->set.v[i].name, rules->set.v[i].value);
    for (uint32_t i = 0; i < rules->add.count; i++)
        if (!is_framing(rules->add.v[i].name))
            headers_add(headers, arena, rules->add.v[i].name, rules->add.v[i].value);
}

static enum verdict edit_request(struct policy_call *call)
{
    const struct header_rules *rules = call->settings;
    edit(&rules->request, &call->request->headers, call->arena);
    return PASS;
}

static void edit_response(struct policy_call *call)
{
    const struct header_rules *rules = call->settings;
    edit(&rules->response, &call->response->headers, call->arena);
}

const struct policy policy_headers = {
    .name = "headers", .on_request = edit_request, .on_response = edit_response};
