#include "common/token_memory.h"

#include "common/clock.h"
#include "test/support/cmocka.h"

enum { MANY = 20000 };

static struct token_key key_of(struct token_memory *m, unsigned n)
{
    return token_memory_key(m, sv_of(&n, sizeof(n)), NULL);
}

static void what_holds_is_known_for_its_route_and_edition_alone(void **state)
{
    struct config_route a = { .id = 1, .edition = 1 };
    struct config_route b = { .id = 2, .edition = 1 };
    const struct handle handle = { .session = "s" };
    CLEANUP(token_memory_free) struct token_memory *m = token_memory_new();
    struct token_key key = token_memory_key(m, SV("t"), &a);
    const struct token_known *known = NULL;

    (void)state;
    assert_null(token_memory_recall(m, &key));
    token_memory_keep(m, &key, &handle, clock_wall_s() + 60);
    known = token_memory_recall(m, &key);
    assert_non_null(known);
    assert_null(known->code);
    assert_string_equal(known->handle.session, "s");
    key = token_memory_key(m, SV("t"), &b);
    assert_null(token_memory_recall(m, &key));
    key = token_memory_key(m, SV("t"), NULL);
    assert_null(token_memory_recall(m, &key));
    a.edition = 2;
    key = token_memory_key(m, SV("t"), &a);
    assert_null(token_memory_recall(m, &key));
}

static void what_has_ended_is_not_kept(void **state)
{
    const struct handle handle = { .session = "s" };
    CLEANUP(token_memory_free) struct token_memory *m = token_memory_new();
    struct token_key key = key_of(m, 1);

    (void)state;
    token_memory_keep(m, &key, &handle, clock_wall_s());
    assert_null(token_memory_recall(m, &key));
}

static void made_up_tokens_drive_out_none_that_holds(void **state)
{
    const struct handle handle = { .session = "s" };
    CLEANUP(token_memory_free) struct token_memory *m = token_memory_new();
    struct token_key good = key_of(m, 0);

    (void)state;
    token_memory_keep(m, &good, &handle, clock_wall_s() + 60);
    for (unsigned i = 1; i < MANY; i++) {
        struct token_key bad = key_of(m, i);

        token_memory_keep_bad(m, &bad, "token-invalid");
    }
    assert_non_null(token_memory_recall(m, &good));
    assert_null(token_memory_recall(m, &good)->code);
}

static void an_address_that_misses_a_hundred_times_is_known_for_it(void **state)
{
    static const unsigned char network[2][16] = { { 0x20, 1, [15] = 1 }, { 0x20, 1, [15] = 2 } };
    CLEANUP(token_memory_free) struct token_memory *m = token_memory_new();

    (void)state;
    for (unsigned i = 0; i < 100; i++) {
        assert_false(token_memory_misses_too_often(m, sv_of(network[0], 16)));
        token_memory_note_miss(m, sv_of(network[i % 2], 16)); /* of one network */
    }
    assert_true(token_memory_misses_too_often(m, sv_of(network[0], 16)));
    assert_false(token_memory_misses_too_often(m, SV("\x0a\x00\x00\x01")));
    assert_false(token_memory_misses_too_often(m, SV("")));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(what_holds_is_known_for_its_route_and_edition_alone),
        cmocka_unit_test(what_has_ended_is_not_kept),
        cmocka_unit_test(made_up_tokens_drive_out_none_that_holds),
        cmocka_unit_test(an_address_that_misses_a_hundred_times_is_known_for_it),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
