// Endpoints outlive snapshots: the same pair is the same endpoint, whatever was reloaded.
#include "upstream/endpoint.h"

#include "base/check.h"
#include "observe/metrics.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>

#include <cmocka.h>

static struct addr addr_of(const char *text)
{
    struct addr addr;
    assert_true(addr_parse(str_of(text), &addr));
    return addr;
}

static struct endpoint *ref(const char *upstream, const char *name, const char *address)
{
    struct addr addr = addr_of(address);
    return endpoint_ref(str_of(upstream), str_of(name), &addr);
}

static void test_a_new_endpoint(void **state)
{
    (void)state;
    struct endpoint *endpoint = ref("shop", "shop.local:80", "10.0.0.1:80");
    struct addr addr = addr_of("10.0.0.1:80");
    assert_true(str_eq(endpoint->upstream_name, STR("shop")));
    assert_true(str_eq(endpoint->name, STR("shop.local:80")));
    assert_true(addr_eq(&endpoint->addr, &addr));
    assert_true(atomic_load(&endpoint->up));
    assert_int_equal(atomic_load(&endpoint->up_since_us), 0);
    assert_int_equal(endpoint->references, 1);
    assert_true(endpoint->index < endpoint_count());
    struct str name = metric_name(NAME_ENDPOINT, endpoint->metric_id);
    assert_true(str_eq(name, STR("shop\0shop.local:80")));
}

static void test_same_pair_is_same_endpoint(void **state)
{
    (void)state;
    struct endpoint *first = ref("a", "10.0.0.1:80", "10.0.0.1:80");
    uint32_t count = endpoint_count();
    assert_ptr_equal(first, ref("a", "10.0.0.1:80", "10.0.0.1:80"));
    assert_int_equal(first->references, 2);
    assert_int_equal(endpoint_count(), count);
    struct endpoint *others[] = {
        ref("b", "10.0.0.1:80", "10.0.0.1:80"),
        ref("a", "10.0.0.2:80", "10.0.0.2:80"),
        ref("a", "10.0.0.1:80", "10.0.0.9:80"), // the name's address has changed
        ref("a", "10.0.0.1:80", "unix:/tmp/x"),
    };
    for (size_t i = 0; i < countof(others); i++) {
        assert_ptr_not_equal(others[i], first);
        assert_int_equal(others[i]->index, count + i);
    }
    assert_int_equal(others[2]->metric_id, first->metric_id);
    assert_int_equal(endpoint_count(), count + countof(others));
}

static void test_a_reload_keeps_what_is_known(void **state)
{
    (void)state;
    struct endpoint *endpoint = ref("kept", "10.0.1.1:80", "10.0.1.1:80");
    atomic_store(&endpoint->up, false);
    atomic_store(&endpoint->up_since_us, 77);
    struct endpoint *again = ref("kept", "10.0.1.1:80", "10.0.1.1:80"); // the new snapshot first
    endpoint_unref(endpoint);                                           // then the old one goes
    assert_ptr_equal(endpoint, again);
    assert_false(atomic_load(&again->up));
    assert_int_equal(atomic_load(&again->up_since_us), 77);
    assert_int_equal(again->references, 1);
}

// Workers may still hold it, so it is the same one; but nobody has watched it meanwhile.
static void test_one_that_was_gone_starts_afresh(void **state)
{
    (void)state;
    struct endpoint *endpoint = ref("gone", "10.0.2.1:80", "10.0.2.1:80");
    uint32_t index = endpoint->index;
    atomic_store(&endpoint->up, false);
    snprintf(endpoint->last_check, sizeof endpoint->last_check, "status 500");
    endpoint_unref(endpoint);
    assert_int_equal(endpoint->references, 0);
    struct endpoint *again = ref("gone", "10.0.2.1:80", "10.0.2.1:80");
    assert_ptr_equal(endpoint, again);
    assert_int_equal(again->index, index);
    assert_true(atomic_load(&again->up));
    assert_string_equal(again->last_check, "");
}

static void test_many(void **state)
{
    (void)state;
    static struct endpoint *all[5000];
    char name[32];
    for (int round = 0; round < 2; round++) {
        for (unsigned i = 0; i < countof(all); i++) {
            snprintf(name, sizeof name, "10.1.%u.%u:80", i / 250, i % 250);
            struct endpoint *endpoint = ref("many", name, name);
            if (round)
                assert_ptr_equal(endpoint, all[i]);
            all[i] = endpoint;
        }
    }
    for (unsigned i = 1; i < countof(all); i++)
        assert_int_equal(all[i]->index, all[i - 1]->index + 1);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_a_new_endpoint),
        cmocka_unit_test(test_same_pair_is_same_endpoint),
        cmocka_unit_test(test_a_reload_keeps_what_is_known),
        cmocka_unit_test(test_one_that_was_gone_starts_afresh),
        cmocka_unit_test(test_many),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
