#include "test_gateway_config_fixture.h"

#include "http/h1_parse.h"

#include <stdlib.h>

#define BASE                                                                                   \
    "version: 1\nlisteners: [{name: http, address: ':8080'}]\n"                                \
    "upstreams: {orders: {targets: [{address: 'a.example:80'}]}, other: {targets: [{address: " \
    "'[::1]:80'}]}}\n"

// The values of the configuration contract.
static void test_defaults(void **state)
{
    struct fixture *fixture = *state;
    struct gateway_settings settings;
    assert_string_equal(load(fixture, BASE "routes: [{name: a, upstream: orders}]\n", &settings), "");
    assert_int_equal(settings.version, 1);
    assert_int_equal(settings.workers, 0);
    const struct listener_settings *listener = settings.listeners.v;
    assert_int_equal(listener->protocols, PROTOCOL_H2 | PROTOCOL_HTTP1);
    assert_false(listener->has_tls);
    assert_null(listener->redirect_to.p);
    assert_int_equal(listener->trusted_proxies.count, 0);
    assert_false(listener->proxy_protocol || listener->merge_slashes);
    assert_int_equal(listener->underscores, H1_UNDERSCORES_DROP);
    assert_int_equal(listener->limits.header_bytes, 32 << 10);
    assert_int_equal(listener->limits.headers, 100);
    assert_int_equal(listener->limits.uri_bytes, 8 << 10);
    assert_int_equal(listener->limits.body_bytes, 10 << 20);
    assert_int_equal(listener->limits.connections, 10000);
    assert_int_equal(listener->timeouts.header_us, 10000000);
    assert_int_equal(listener->timeouts.body_us, 30000000);
    assert_int_equal(listener->timeouts.idle_us, 60000000);
    assert_int_equal(listener->timeouts.write_us, 30000000);
    assert_string_equal(settings.admin.address.p, "127.0.0.1:9901");
    assert_int_equal(settings.admin.token.n, 0);
    assert_string_equal(settings.status.address.p, "127.0.0.1:9902");
    const struct access_log_settings *log = &settings.telemetry.access_log;
    assert_int_equal(log->format, LOG_FORMAT_JSON);
    assert_string_equal(log->output.p, "stdout");
    assert_true(log->sample >= 1);
    assert_string_equal(settings.telemetry.headers.request_id.p, "X-Request-Id");
    assert_false(settings.telemetry.headers.server_timing);
    assert_int_equal(settings.drain.delay_us, 5000000);
    assert_int_equal(settings.drain.timeout_us, 30000000);
}

static void test_upstream_defaults(void **state)
{
    struct fixture *fixture = *state;
    struct gateway_settings settings;
    assert_string_equal(load(fixture, BASE, &settings), "");
    const struct upstream_settings *upstream = settings.upstreams.v;
    assert_string_equal(upstream->name.p, "orders");
    assert_int_equal(upstream->line, 3);
    assert_string_equal(((const struct target_settings *)upstream->targets.v)->address.p, "a.example:80");
    assert_int_equal(((const struct target_settings *)upstream->targets.v)->weight, 1);
    assert_int_equal(upstream->protocol, UPSTREAM_HTTP1);
    assert_false(upstream->has_tls || upstream->health_check.has_grpc);
    assert_int_equal(upstream->load_balancer, BALANCE_ROUND_ROBIN);
    assert_int_equal(upstream->hash_on.source, HASH_CLIENT_IP);
    assert_int_equal(upstream->health_check.path.n, 0);
    assert_int_equal(upstream->health_check.interval_us, 5000000);
    assert_int_equal(upstream->health_check.timeout_us, 1000000);
    assert_int_equal(upstream->health_check.healthy, 2);
    assert_int_equal(upstream->health_check.unhealthy, 3);
    assert_true(status_set_has(&upstream->health_check.statuses, 200));
    assert_true(status_set_has(&upstream->health_check.statuses, 399));
    assert_false(status_set_has(&upstream->health_check.statuses, 199));
    assert_false(status_set_has(&upstream->health_check.statuses, 400));
    const struct outlier_settings *outlier = &upstream->outlier;
    assert_int_equal(outlier->consecutive_failures, 5);
    assert_int_equal(outlier->connect_failures, 3);
    assert_int_equal(outlier->ejection_us, 10000000);
    assert_int_equal(outlier->max_ejection_us, 300000000);
    assert_true(outlier->max_ejected > 0.49 && outlier->max_ejected < 0.51);
    assert_true(outlier->check_readmits);
    assert_int_equal(outlier->success_rate.interval_us, 10000000);
    assert_int_equal(outlier->success_rate.min_requests, 100);
    assert_int_equal(outlier->success_rate.min_endpoints, 5);
    assert_true(outlier->success_rate.deviations > 1.89 && outlier->success_rate.deviations < 1.91);
    assert_true(upstream->panic_threshold > 0.49 && upstream->panic_threshold < 0.51);
    assert_int_equal(upstream->slow_start_us, 0);
    assert_int_equal(upstream->limits.connections, 1024);
    assert_int_equal(upstream->limits.requests, 1024);
    assert_int_equal(upstream->limits.pending, 256);
    assert_int_equal(upstream->timeouts.connect_us, 1000000);
    assert_int_equal(upstream->timeouts.response_us, 15000000);
    assert_int_equal(upstream->timeouts.idle_us, 60000000);
    assert_int_equal(upstream->retries.attempts, 1);
    assert_int_equal(upstream->retries.retry_on,
                     RETRY_CONNECT_FAILURE | RETRY_REFUSED_STREAM | RETRY_RESET_BEFORE_HEADERS);
    assert_int_equal(upstream->retries.statuses.count, 0);
    assert_true(upstream->retries.budget > 0.19 && upstream->retries.budget < 0.21);
    assert_int_equal(upstream->retries.backoff_us, 25000);
    assert_int_equal(upstream->retries.body_bytes, 64 << 10);
}

static void test_route_defaults(void **state)
{
    struct fixture *fixture = *state;
    struct gateway_settings settings;
    assert_string_equal(load(fixture, BASE "routes: [{name: a, upstream: orders}]\n", &settings), "");
    const struct route_settings *route = settings.routes.v;
    assert_int_equal(route->match.path.kind, PATH_PREFIX);
    assert_string_equal(route->match.path.text.p, "/");
    assert_int_equal(route->match.hosts.count + route->match.methods.count + route->match.headers.count, 0);
    assert_string_equal(route->upstream.p, "orders");
    assert_false(route->has_redirect || route->has_respond || route->has_rewrite || route->has_retries ||
                 route->has_fault);
    assert_int_equal(route->timeout_us, 30000000);
    assert_true(route->request_body_bytes == UINT64_MAX);
    assert_true(route->access_log);
    assert_int_equal(route->ip.allow.count + route->ip.deny.count + route->headers.request.set.count, 0);
}

static void test_tls_of_listeners(void **state)
{
    struct fixture *fixture = *state;
    struct gateway_settings settings;
    assert_string_equal(load(fixture,
                             "version: 1\nlisteners:\n"
                             "  - {name: http, address: ':80', redirect_to: https, protocols: [http/1.1]}\n"
                             "  - name: https\n    address: ':443'\n    tls:\n      certificates:\n"
                             "        - {cert: a.pem, key: a.key}\n"
                             "        - {cert: b.pem, key: b.key, ocsp: b.der}\n"
                             "  - {name: mtls, address: 'unix:/s', protocols: [h2], tls: {certificates: "
                             "[{cert: c, key: c}], client_ca: ca, client_auth: require, min_version: '1.3', "
                             "strict_sni: true}}\n",
                             &settings),
                        "");
    const struct listener_settings *listeners = settings.listeners.v;
    assert_string_equal(listeners[0].redirect_to.p, "https");
    assert_int_equal(listeners[0].protocols, PROTOCOL_HTTP1);
    assert_false(listeners[0].has_tls);
    assert_true(listeners[1].has_tls);
    const struct listener_tls_settings *tls = &listeners[1].tls;
    const struct listener_certificate *certificates = tls->certificates.v;
    assert_int_equal(tls->certificates.count, 2);
    assert_int_equal(tls->line, 7);
    assert_int_equal(certificates[0].line, 8);
    assert_string_equal(certificates[0].files.cert.p, "a.pem");
    assert_string_equal(certificates[0].files.key.p, "a.key");
    assert_int_equal(certificates[0].files.ocsp.n, 0);
    assert_int_equal(certificates[1].line, 9);
    assert_string_equal(certificates[1].files.ocsp.p, "b.der");
    assert_int_equal(tls->client_ca.n, 0);
    assert_int_equal(tls->client_auth, TLS_CLIENT_AUTH_NONE);
    assert_int_equal(tls->min_version, TLS_1_2);
    assert_false(tls->strict_sni);
    assert_int_equal(listeners[2].protocols, PROTOCOL_H2);
    assert_string_equal(listeners[2].tls.client_ca.p, "ca");
    assert_int_equal(listeners[2].tls.client_auth, TLS_CLIENT_AUTH_REQUIRE);
    assert_int_equal(listeners[2].tls.min_version, TLS_1_3);
    assert_true(listeners[2].tls.strict_sni);
}

static void test_tls_of_upstreams(void **state)
{
    struct fixture *fixture = *state;
    struct gateway_settings settings;
    assert_string_equal(load(fixture,
                             "version: 1\nlisteners: [{name: http, address: ':80'}]\nupstreams:\n"
                             "  a: {targets: [{address: 'a:1'}], tls: {}}\n"
                             "  b: {targets: [{address: 'a:1'}], protocol: h2, health_check: {grpc: ''},\n"
                             "      tls: {ca: ca, server_name: b.example, verify: false, cert: c, key: k}}\n"
                             "  c: {targets: [{address: 'a:1'}], protocol: h2, health_check: {grpc: x.Y}}\n",
                             &settings),
                        "");
    const struct upstream_settings *upstreams = settings.upstreams.v;
    assert_true(upstreams[0].has_tls && upstreams[0].tls.verify);
    assert_string_equal(upstreams[0].tls.ca.p, "system");
    assert_int_equal(upstreams[0].tls.server_name.n + upstreams[0].tls.cert.n + upstreams[0].tls.key.n, 0);
    assert_int_equal(upstreams[0].tls.line, 4);
    assert_int_equal(upstreams[1].protocol, UPSTREAM_H2);
    assert_string_equal(upstreams[1].tls.ca.p, "ca");
    assert_string_equal(upstreams[1].tls.server_name.p, "b.example");
    assert_false(upstreams[1].tls.verify);
    assert_string_equal(upstreams[1].tls.cert.p, "c");
    assert_string_equal(upstreams[1].tls.key.p, "k");
    assert_true(upstreams[1].health_check.has_grpc);
    assert_int_equal(upstreams[1].health_check.grpc.n, 0);
    assert_false(upstreams[2].has_tls);
    assert_true(upstreams[2].health_check.has_grpc);
    assert_string_equal(upstreams[2].health_check.grpc.p, "x.Y");
}

static void test_values_in_normal_form(void **state)
{
    struct fixture *fixture = *state;
    struct gateway_settings settings;
    assert_string_equal(
        load(fixture,
             BASE
             "routes:\n"
             "  - name: a\n    upstream: orders\n    match:\n      hosts: [API.Example.COM, '*.B.example', "
             "'[2001:DB8::1]']\n"
             "      path: {prefix: '/a/./b/../%7ec%2e/%3f'}\n"
             "      headers: {X-A: v, X-B: {regex: 'a|b'}, X-C: {present: true}}\n"
             "    rewrite: {prefix: '/x/%41', host: upstream}\n"
             "  - name: b\n    upstream: orders\n    match: {path: {template: '/%7e/{id}/x%2dy/{rest}'}}\n"
             "    rewrite: {path: '/%61/{rest}', host: 'h:80'}\n"
             "  - name: c\n    respond: {}\n    match: {path: {exact: '/a//b'}}\n    ip: {allow: "
             "[10.0.0.0/8, '::/0']}\n",
             &settings),
        "");
    const struct route_settings *routes = settings.routes.v;
    assert_string_equal(routes[0].match.hosts.v[0].p, "api.example.com");
    assert_string_equal(routes[0].match.hosts.v[1].p, "*.b.example");
    assert_string_equal(routes[0].match.hosts.v[2].p, "[2001:db8::1]");
    assert_string_equal(routes[0].match.path.text.p, "/a/~c./%3F");
    assert_int_equal(routes[0].match.headers.v[0].kind, VALUE_EXACT);
    assert_int_equal(routes[0].match.headers.v[1].kind, VALUE_REGEX);
    assert_string_equal(routes[0].match.headers.v[1].text.p, "a|b");
    assert_int_equal(routes[0].match.headers.v[2].kind, VALUE_PRESENT);
    assert_string_equal(routes[0].rewrite.prefix.p, "/x/A");
    assert_int_equal(routes[0].rewrite.host_kind, REWRITE_HOST_UPSTREAM);
    assert_int_equal(routes[1].match.path.kind, PATH_TEMPLATE);
    assert_string_equal(routes[1].match.path.text.p, "/~/{id}/x-y/{rest}");
    assert_string_equal(routes[1].rewrite.path.p, "/a/{rest}");
    assert_string_equal(routes[1].rewrite.host.p, "h:80");
    assert_string_equal(routes[2].match.path.text.p, "/a//b");
    assert_int_equal(routes[2].respond.status, 200);
    assert_int_equal(routes[2].ip.allow.v[0].bits, 96 + 8);
    assert_int_equal(routes[2].ip.allow.v[1].bits, 0);
}

// What is shown to readers must work as it is shown.
static void check_examples(struct fixture *fixture, const struct config_object *object)
{
    if (object->example) {
        void *target = arena_zalloc(&fixture->arena, object->size);
        const struct config_node *node =
            config_parse(str_of(object->name), str_of(object->example), &fixture->arena, &fixture->report);
        config_decode(object, node, target, str_of(object->name), &fixture->arena, &fixture->report);
        assert_string_equal(take_report(fixture), "");
    } else {
        fail_msg("%s has no example", object->name);
    }
    for (const struct config_field *field = object->fields; field->name; field++) {
        assert_true(field->doc && *field->doc);
        assert_true(!field->required || field->example || field->type == CONFIG_OBJECT);
        if (field->object)
            check_examples(fixture, field->object);
    }
}

static void test_every_example_is_valid(void **state)
{
    setenv("GATEWAY_SECRET", "that examples name", 1);
    check_examples(*state, &gateway_object);
}

static void test_rules_between_sections(void **state)
{
    struct fixture *fixture = *state;
    struct gateway_settings settings;
    assert_string_equal(
        load(fixture, BASE "routes: [{name: a, upstream: oders}, {name: a, split: [{upstream: x}]}]\n",
             &settings),
        "t:4:30: routes[0].upstream: no upstream is named \"oders\" (did you mean \"orders\"?)\n"
        "t:4:45: routes[1].name: the same name as on line 4 (names are unique)\n"
        "t:4:67: routes[1].split[0].upstream: no upstream is named \"x\" (add it to upstreams)\n");
    assert_string_equal(load(fixture, BASE "status: {address: '0.0.0.0:8080'}\n", &settings),
                        "t:2:35: listeners[0].address: the same address as status on line 4 (each needs an "
                        "address of its own)\n");
    // Mistakes elsewhere do not make further ones up.
    assert_string_equal(
        load(fixture, BASE "routes: [5, {name: 7, upstream: orders}, {name: a, upstream: 3}]\n", &settings),
        "t:4:10: routes[0]: expected a map of keys, got the number 5\n"
        "t:4:20: routes[1].name: expected a string, got the number 7 (put it in quotes: \"7\")\n"
        "t:4:62: routes[2].upstream: expected a string, got the number 3 (put it in quotes: \"3\")\n");
}

static void test_many_routes(void **state)
{
    struct fixture *fixture = *state;
    struct gateway_settings settings;
    struct buf text = {0};
    buf_append(&text, STR(BASE "routes:\n"));
    for (int i = 0; i < 10000; i++)
        buf_printf(&text,
                   "  - {name: r%d, upstream: orders, match: {hosts: [h%d.example], path: {prefix: /p%d}}}\n",
                   i, i, i);
    buf_append(&text, (struct str){"", 1});
    assert_string_equal(load(fixture, text.base, &settings), "");
    assert_int_equal(settings.routes.count, 10000);
    const struct route_settings *routes = settings.routes.v;
    assert_string_equal(routes[9999].name.p, "r9999");
    assert_int_equal(routes[9999].line, 4 + 10000);
    assert_string_equal(routes[9999].match.path.text.p, "/p9999");
    buf_free(&text);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_defaults, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_upstream_defaults, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_route_defaults, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_tls_of_listeners, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_tls_of_upstreams, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_values_in_normal_form, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_every_example_is_valid, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_rules_between_sections, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_many_routes, set_up, tear_down),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
