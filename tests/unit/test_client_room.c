#include "unit.h"

#include "base/check.h"
#include "upstream/client_room.h"

enum { KIB = 1024 };

static void test_who_asks_gets_half_of_what_is_left(void **state)
{
    (void)state;
    struct client_room room = {0};
    assert_int_equal(client_room_take(&room, 224 * KIB), 224 * KIB);
    assert_int_equal(client_room_take(&room, 224 * KIB), 144 * KIB);
    assert_int_equal(client_room_take(&room, 224 * KIB), 72 * KIB);
    assert_int_equal(client_room_take(&room, 224 * KIB), 36 * KIB);
    assert_int_equal(client_room_take(&room, 224 * KIB), 18 * KIB);
    assert_int_equal(client_room_take(&room, 224 * KIB), 0); // less than is worth a frame
    assert_int_equal(room.granted_bytes, 494 * KIB);
    client_room_give(&room, 224 * KIB);
    assert_int_equal(client_room_take(&room, 20 * KIB), 20 * KIB);
}

static void test_what_is_held_leaves_less(void **state)
{
    (void)state;
    struct client_room room = {.held_bytes = CLIENT_ROOM_BYTES - 100 * KIB};
    assert_false(client_room_is_full(&room));
    assert_int_equal(client_room_take(&room, 224 * KIB), 50 * KIB);
    room.held_bytes = CLIENT_ROOM_BYTES;
    assert_true(client_room_is_full(&room));
    assert_int_equal(client_room_take(&room, 224 * KIB), 0);
    room.held_bytes = 100 * CLIENT_ROOM_BYTES; // one span, or an answer of the gateway's own, may be large
    assert_int_equal(client_room_take(&room, 224 * KIB), 0);
    client_room_give(&room, 50 * KIB);
    assert_int_equal(room.granted_bytes, 0);
}

struct owner {
    struct lender lender;
    unsigned lent;
};

static void take_back(struct lender *lender)
{
    container_of(lender, struct owner, lender)->lent--;
}

static bool lend(struct owner *owner, struct client_room *room, size_t n, struct lent *lent)
{
    *lent = (struct lent){{"", n}, &owner->lender};
    if (!client_room_lend(room, lent))
        return false;
    owner->lent++;
    return true;
}

static void test_what_is_lent_is_held(void **state)
{
    (void)state;
    struct owner owner = {{take_back}, 0};
    struct client_room room = {0};
    struct lent first, second, more;
    assert_true(lend(&owner, &room, CLIENT_ROOM_BYTES - 1, &first));
    assert_int_equal(room.held_bytes, CLIENT_ROOM_BYTES - 1);
    assert_true(lend(&owner, &room, 1024 * KIB, &second)); // there was some
    assert_false(lend(&owner, &room, CLIENT_ROOM_SIP_BYTES + 1, &more));
    assert_ptr_equal(more.lender, &owner.lender);
    assert_true(lend(&owner, &room, CLIENT_ROOM_SIP_BYTES, &more)); // for so little there always is
    first.span = STR_NULL;                                          // sent
    lent_give_back(&first);
    lent_give_back(&second);
    assert_int_equal(room.held_bytes, CLIENT_ROOM_SIP_BYTES);
    lent_give_back(&more);
    assert_int_equal(room.held_bytes, 0);
    assert_int_equal(owner.lent, 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_who_asks_gets_half_of_what_is_left),
        cmocka_unit_test(test_what_is_held_leaves_less),
        cmocka_unit_test(test_what_is_lent_is_held),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
