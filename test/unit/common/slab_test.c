/* slab, keyed: many things in little memory, which comes back when they go. */
#include "common/slab.h"

#include <stdio.h>
#include <string.h>

#include "common/keyed.h"
#include "common/map.h"
#include "common/mem.h"
#include "test/support/cmocka.h"

enum { MANY = 20000, SIZES = 40 };

static size_t size_of(size_t i)
{
    return i % 500 == 0   ? 40000 /* larger than a slab's pieces hold */
           : i % 100 == 0 ? i
                          : i % SIZES * 37 + 1;
}

static void things_do_not_overlap_and_are_given_back(void **state)
{
    struct slab *slab = slab_new();
    char **things = mem_array(MANY, sizeof(*things));

    (void)state;
    for (size_t i = 0; i < MANY; i++) {
        things[i] = slab_take(slab, size_of(i));
        assert_true((uintptr_t)things[i] % 8 == 0);
        memset(things[i], (int)(i % 251), size_of(i));
    }
    size_t full = slab_bytes(slab);

    for (size_t i = 0; i < MANY; i += 2) { /* holes are taken again */
        slab_give(slab, things[i], size_of(i));
    }
    for (size_t i = 0; i < MANY; i += 2) {
        things[i] = slab_take(slab, size_of(i));
        memset(things[i], (int)(i % 251), size_of(i));
    }
    assert_true(slab_bytes(slab) <= full);
    for (size_t i = 0; i < MANY; i++) {
        for (size_t k = 0; k < size_of(i); k++) {
            assert_int_equal((unsigned char)things[i][k], i % 251);
        }
        slab_give(slab, things[i], size_of(i));
    }
    assert_true(slab_bytes(slab) * 2 < full); /* at most one piece of each size is left */
    slab_give(slab, NULL, 8);
    slab_free(&slab);
    mem_free(&things);
}

/* The sanitizer's malloc places things as it likes. */
static void a_thing_of_so_many_lines_lies_in_no_more(void **state)
{
#ifndef __SANITIZE_ADDRESS__
    enum { LINE = 64 };

    struct slab *slab = slab_new();

    for (size_t i = 0; i < MANY; i++) {
        assert_true((uintptr_t)slab_take(slab, (i % 3 + 1) * LINE) % LINE == 0);
        (void)slab_take(slab, 40);
    }
    slab_free(&slab);
#endif
    (void)state;
}

static void memory_for_many_goes_back_as_well(void **state)
{
    enum { SIZE = 512, THINGS = 60000, PAGE = 2 << 20 };

    struct slab *slab = slab_new();
    char **things = mem_array(THINGS, sizeof(*things));

    (void)state;
    for (size_t round = 0; round < 2; round++) {
        for (size_t i = 0; i < THINGS; i++) {
            things[i] = slab_take(slab, SIZE);
            memset(things[i], (int)(i % 251), SIZE);
        }
        assert_in_range(slab_bytes(slab), THINGS * SIZE, THINGS * SIZE * 11 / 10 + PAGE);
        for (size_t i = 0; i < THINGS; i++) { /* every other one, then the rest */
            size_t at = i * 2 % THINGS + (i * 2 >= THINGS);

            assert_int_equal((unsigned char)things[at][SIZE - 1], at % 251);
            slab_give(slab, things[at], SIZE);
        }
        assert_in_range(slab_bytes(slab), 0, PAGE);
    }
    slab_free(&slab);
    mem_free(&things);
}

static void what_was_not_given_back_goes_with_the_slab(void **state)
{
    struct slab *slab = slab_new();

    (void)state;
    (void)slab_take(slab, 16);
    (void)slab_take(slab, 5000);
    (void)slab_take(slab, 1U << 20U);
    slab_free(&slab);
    assert_null(slab);
    slab_free(&slab);
}

/* --- keyed ------------------------------------------------------------------------------------ */

struct thing {
    size_t number;
    char key[24];
};

static struct sv key_of(const void *item)
{
    const struct thing *thing = item;

    return sv_from(thing->key);
}

static struct thing *things_new(size_t n)
{
    struct thing *things = mem_array(n, sizeof(*things));

    for (size_t i = 0; i < n; i++) {
        things[i].number = i;
        (void)snprintf(things[i].key, sizeof(things[i].key), "thing-%zu", i);
    }
    return things;
}

static void sum_up(void *item, void *arg)
{
    size_t *sum = arg;

    *sum += ((const struct thing *)item)->number;
}

static void a_thing_is_found_by_its_key_until_it_is_taken(void **state)
{
    struct thing *things = things_new(MANY);
    struct slab *slab = slab_new();
    struct keyed *k = keyed_new(key_of, slab);
    size_t sum = 0;
    size_t guessed = 0;

    (void)state;
    assert_null(keyed_guess(k, map_hash(SV("thing-1"))));
    for (size_t i = 0; i < MANY; i++) {
        assert_null(keyed_get(k, key_of(&things[i])));
        assert_null(keyed_set(k, &things[i]));
    }
    for (size_t i = 0; i < MANY; i += 3) { /* each hole is closed */
        assert_ptr_equal(keyed_take(k, key_of(&things[i])), &things[i]);
        assert_null(keyed_take(k, key_of(&things[i])));
    }
    for (size_t i = 0; i < MANY; i++) {
        assert_ptr_equal(keyed_get(k, key_of(&things[i])), i % 3 == 0 ? NULL : &things[i]);
        keyed_expect(k, map_hash(key_of(&things[i])));
        guessed += keyed_guess(k, map_hash(key_of(&things[i]))) == &things[i];
        sum += i % 3 == 0 ? 0 : i;
    }
    assert_in_range(guessed, MANY - MANY / 3 - 2, MANY - MANY / 3); /* hashes may be the same */
    size_t seen = 0;

    keyed_each(k, sum_up, &seen);
    assert_int_equal(seen, sum);
    for (size_t i = 0; i < MANY; i++) {
        (void)keyed_take(k, key_of(&things[i]));
    }
    assert_int_equal(keyed_count(k), 0);
    assert_null(keyed_get(k, SV("thing-1")));
    keyed_free(&k);
    slab_free(&slab);
    mem_free(&things);
}

static void another_thing_of_the_same_key_replaces_the_first(void **state)
{
    struct thing first = { .number = 1, .key = "same" };
    struct thing second = { .number = 2, .key = "same" };
    struct slab *slab = slab_new();
    struct keyed *k = keyed_new(key_of, slab);

    (void)state;
    assert_null(keyed_set(k, &first));
    assert_ptr_equal(keyed_set(k, &second), &first);
    assert_int_equal(keyed_count(k), 1);
    assert_ptr_equal(keyed_get(k, SV("same")), &second);
    keyed_free(&k);
    slab_free(&slab);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(things_do_not_overlap_and_are_given_back),
        cmocka_unit_test(a_thing_of_so_many_lines_lies_in_no_more),
        cmocka_unit_test(memory_for_many_goes_back_as_well),
        cmocka_unit_test(what_was_not_given_back_goes_with_the_slab),
        cmocka_unit_test(a_thing_is_found_by_its_key_until_it_is_taken),
        cmocka_unit_test(another_thing_of_the_same_key_replaces_the_first),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
