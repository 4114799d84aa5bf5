#include "admin/room.h"

#include "http/uri.h"

// Looks at every byte of what was presented, whatever the first difference: the time tells nothing but its
// length.
static bool equal_constant_time(struct str presented, struct str secret)
{
    unsigned difference = presented.n != secret.n;
    for (size_t i = 0; i < presented.n; i++)
        difference |= (unsigned)(unsigned char)presented.p[i] ^ (unsigned char)secret.p[i % secret.n];
    return difference == 0;
}

static bool refuse(struct serve_problem *problem, unsigned status, struct str code, struct str detail)
{
    *problem = (struct serve_problem){.status = status, .code = code, .detail = detail};
    return false;
}

static bool guard_token(struct str token, const struct request_head *request, struct serve_problem *problem)
{
    const struct header *authorization = headers_find(&request->headers, HEADER_AUTHORIZATION);
    struct str scheme = STR("Bearer ");
    if (!authorization || authorization->value.n < scheme.n ||
        !str_eq_fold((struct str){authorization->value.p, scheme.n}, scheme)) {
        refuse(problem, 401, STR("no_credentials"), STR("send Authorization: Bearer and the admin token"));
        problem->authenticate = STR("Bearer realm=\"sallyport admin\"");
        return false;
    }
    if (equal_constant_time(str_trim(str_skip(authorization->value, scheme.n)), token))
        return true;
    refuse(problem, 401, STR("invalid_token"), STR("this is not the admin token"));
    problem->authenticate = STR("Bearer realm=\"sallyport admin\", error=\"invalid_token\"");
    return false;
}

static bool is_loopback_name(struct str host)
{
    if (host.n > 2 && host.p[0] == '[')
        host = (struct str){host.p + 1, host.n - 2};
    struct ip ip;
    if (ip_parse(host, &ip)) {
        static const unsigned char v6_loopback[16] = {[15] = 1}, v4_mapped[12] = {[10] = 0xff, [11] = 0xff};
        return memcmp(ip.bytes, v6_loopback, 16) == 0 ||
               (memcmp(ip.bytes, v4_mapped, 12) == 0 && ip.bytes[12] == 127);
    }
    return str_eq_fold(host, STR("localhost"));
}

static struct str field(const struct request_head *request, struct str name)
{
    const struct header *header = headers_find_name(&request->headers, name);
    return header ? header->value : STR_NULL;
}

// Browsers send Origin with every cross-origin request that could change something, and "null" for those that
// hide where they come from.
static bool is_foreign(const struct request_head *request)
{
    struct str origin = field(request, STR("Origin")), site = field(request, STR("Sec-Fetch-Site"));
    if (site.n && !str_eq(site, STR("same-origin")) && !str_eq(site, STR("none")))
        return true;
    if (!origin.n)
        return headers_find_name(&request->headers, STR("Origin")) != NULL;
    struct str scheme = STR("http://");
    return !str_starts(origin, scheme) || !str_eq_fold(str_skip(origin, scheme.n), request->authority);
}

// The gateway's own requests say so, and no route's header rules can take that away.
static bool came_through_a_route(const struct request_head *request)
{
    return headers_list_has(&request->headers, HEADER_VIA, STR("1.1 sallyport")) ||
           headers_list_has(&request->headers, HEADER_VIA, STR("1.0 sallyport"));
}

bool admin_guard(struct str token, const struct addr *peer, const struct request_head *request,
                 struct serve_problem *problem)
{
    if (came_through_a_route(request))
        return refuse(problem, 403, STR("route_denied"), STR("no route leads to this API"));
    if (token.n)
        return guard_token(token, request, problem);
    if (!addr_is_loopback(peer))
        return refuse(problem, 403, STR("ip_denied"),
                      STR("without admin.token, only loopback addresses are served"));
    bool unix_peer = peer->any.sa_family == AF_UNIX; // no browser gets there: any Host will do
    if (!unix_peer && !is_loopback_name(request->host))
        return refuse(problem, 403, STR("host_denied"),
                      STR("without admin.token, Host must be localhost or a loopback address"));
    if (is_foreign(request))
        return refuse(problem, 403, STR("origin_denied"), STR("a page of another site may not use this API"));
    return true;
}
