// What scripts of other origins may do (Fetch standard, 3.2 "CORS protocol"). Browsers ask beforehand, by a
// preflight, which carries no credentials: it is answered here, before authentication. To any other request
// the answer says whether the script may read it; that goes for the gateway's own answers too. What the
// upstream says about it is replaced.
#include "policy/policy.h"
#include "policy/policy_config.h"

static bool is_any(const struct str_list *list)
{
    return list->count == 1 && str_eq(list->v[0], STR("*"));
}

static bool lists_fold(const struct str_list *list, struct str name)
{
    for (uint32_t i = 0; i < list->count; i++)
        if (str_eq_fold(list->v[i], name))
            return true;
    return false;
}

// ---- origins ----

// One or more whole labels, so that nothing but a name below the domain can stand for the asterisk.
static bool is_labels(struct str s)
{
    char before = '.';
    for (size_t i = 0; i < s.n; before = s.p[i++]) {
        char c = s.p[i];
        bool is_label = (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9') || c == '-' || c == '_';
        if (!is_label && (c != '.' || before == '.'))
            return false;
    }
    return before != '.';
}

// Origins are compared as they are: browsers write them in lower case, without a default port (RFC 6454 6.2).
static bool origin_fits(struct str pattern, struct str origin)
{
    size_t star = str_find(pattern, '*');
    if (star == pattern.n)
        return str_eq(pattern, origin);
    struct str before = {pattern.p, star}, after = str_skip(pattern, star + 1);
    if (origin.n <= before.n + after.n || !str_starts(origin, before) || !str_ends(origin, after))
        return false;
    return is_labels((struct str){origin.p + before.n, origin.n - before.n - after.n});
}

static bool is_allowed(const struct cors_settings *cors, struct str origin)
{
    for (uint32_t i = 0; origin.n && i < cors->origins.count; i++)
        if (origin_fits(cors->origins.v[i], origin))
            return true;
    return false;
}

// ---- preflights ----

static struct str asked_headers(const struct policy_call *call)
{
    const struct header *header =
        headers_find_name(&call->request->headers, STR("Access-Control-Request-Headers"));
    return header ? header->value : STR_NULL;
}

static bool allows_headers(const struct cors_settings *cors, struct str asked)
{
    for (struct str name; str_next_token(&asked, &name);)
        if (!header_name_valid(name) || !(is_any(&cors->headers) || lists_fold(&cors->headers, name)))
            return false;
    return true;
}

static bool allows_method(const struct cors_settings *cors, struct str asked)
{
    return is_any(&cors->methods) || str_list_has(&cors->methods, asked);
}

// ---- what is said ----

// Of *, what was asked for: in Access-Control-Allow-Headers an asterisk does not cover Authorization, and
// with credentials it is a name like any other.
static void add_list(struct policy_call *call, struct str name, const struct str_list *list, struct str asked)
{
    struct str value = is_any(list) ? asked : str_list_join(list, STR(", "), call->arena);
    if (value.n)
        headers_add(&call->response->headers, call->arena, name, value);
}

static void add_preflight(struct policy_call *call, const struct cors_settings *cors, struct str method)
{
    add_list(call, STR("Access-Control-Allow-Methods"), &cors->methods, method);
    add_list(call, STR("Access-Control-Allow-Headers"), &cors->headers, asked_headers(call));
    headers_add(&call->response->headers, call->arena, STR("Access-Control-Max-Age"),
                arena_u64(call->arena, cors->max_age_us / 1000000));
}

static void remove_said(struct headers *headers)
{
    const struct str prefix = STR("access-control-");
    for (uint32_t i = 0; i < headers->count; i++) {
        struct header *header = &headers->v[i];
        if (header->id != HEADER_GONE && header->name.n > prefix.n &&
            str_eq_fold((struct str){header->name.p, prefix.n}, prefix))
            header->id = HEADER_GONE;
    }
}

// Caches must not give one origin's answer to another, nor that of a request without any.
static void vary(struct policy_call *call)
{
    struct headers *headers = &call->response->headers;
    if (!headers_list_has(headers, HEADER_VARY, STR("Origin")) &&
        !headers_list_has(headers, HEADER_VARY, STR("*")))
        headers_add_as(headers, call->arena, HEADER_VARY, STR("Vary"), STR("Origin"));
}

static void tell(struct policy_call *call)
{
    const struct cors_settings *cors = call->settings;
    struct headers *headers = &call->response->headers;
    struct str asked = http_preflight_method(call->request);
    bool is_public = is_any(&cors->origins);
    remove_said(headers);
    if (!is_public)
        vary(call);
    if (!is_public && !is_allowed(cors, call->origin))
        return;
    if (asked.n && !(allows_method(cors, asked) && allows_headers(cors, asked_headers(call))))
        return;
    headers_add(headers, call->arena, STR("Access-Control-Allow-Origin"),
                is_public ? STR("*") : call->origin);
    if (cors->credentials)
        headers_add(headers, call->arena, STR("Access-Control-Allow-Credentials"), STR("true"));
    if (asked.n)
        add_preflight(call, cors, asked);
    else if (cors->expose.count)
        headers_add(headers, call->arena, STR("Access-Control-Expose-Headers"),
                    str_list_join(&cors->expose, STR(", "), call->arena));
}

// What it says is added by tell, as to every answer.
static enum verdict answer_preflight(struct policy_call *call)
{
    if (!http_preflight_method(call->request).n)
        return PASS;
    call->answer.status = 204;
    return REPLY;
}

const struct policy policy_cors = {
    .name = "cors", .on_request = answer_preflight, .on_response = tell, .on_answer = tell};
