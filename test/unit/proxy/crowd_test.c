/* crowd: how many connections an address has. */
#include "proxy/crowd.h"

#include <arpa/inet.h>
#include <pthread.h>
#include <string.h>

#include "test/support/cmocka.h"

enum { THREADS = 4, ROUNDS = 20000, MOST = 3 };

static struct proxy_address at(const char *text)
{
    struct proxy_address address = { .known = true };

    if (inet_pton(AF_INET6, text, address.ip) != 1) {
        address.ip[10] = 0xff;
        address.ip[11] = 0xff;
        assert_int_equal(inet_pton(AF_INET, text, address.ip + 12), 1);
    }
    return address;
}

static bool enter(struct proxy_crowd *crowd, const char *text, struct proxy_place *place)
{
    struct proxy_address address = at(text);

    return proxy_crowd_enter(crowd, &address, MOST, place);
}

static void each_address_has_its_own_places_and_gets_them_back(void **state)
{
    struct proxy_crowd *crowd = proxy_crowd_new();
    struct proxy_place places[MOST];
    struct proxy_place other = { .taken = false };
    struct proxy_place beyond;

    (void)state;
    for (size_t i = 0; i < MOST; i++) {
        assert_true(enter(crowd, "192.0.2.7", &places[i]));
    }
    for (size_t i = 0; i < 10; i++) { /* who was refused takes nothing */
        assert_false(enter(crowd, "192.0.2.7", &beyond));
        assert_false(beyond.taken);
    }
    assert_true(enter(crowd, "192.0.2.8", &other));
    proxy_crowd_leave(crowd, &places[0]);
    proxy_crowd_leave(crowd, &places[0]); /* once */
    assert_true(enter(crowd, "192.0.2.7", &places[0]));
    assert_false(enter(crowd, "192.0.2.7", &beyond));
    proxy_crowd_free(&crowd);
}

static void a_network_of_ipv6_counts_as_one(void **state)
{
    struct proxy_crowd *crowd = proxy_crowd_new();
    struct proxy_place place;

    (void)state;
    assert_true(enter(crowd, "2001:db8:0:1::1", &place));
    assert_true(enter(crowd, "2001:db8:0:1:ffff::2", &place));
    assert_true(enter(crowd, "2001:db8:0:1::3", &place));
    assert_false(enter(crowd, "2001:db8:0:1::4", &place));
    assert_true(enter(crowd, "2001:db8:0:2::1", &place));
    proxy_crowd_free(&crowd);
}

struct shared {
    struct proxy_crowd *crowd;
    int inside; /* atomic */
    int most;   /* atomic */
};

static void *come_and_go(void *arg)
{
    struct shared *s = arg;
    struct proxy_address address = at("192.0.2.7");

    for (int i = 0; i < ROUNDS; i++) {
        struct proxy_place place;

        if (proxy_crowd_enter(s->crowd, &address, 2, &place)) {
            int n = __atomic_add_fetch(&s->inside, 1, __ATOMIC_SEQ_CST);

            if (n > __atomic_load_n(&s->most, __ATOMIC_SEQ_CST)) {
                __atomic_store_n(&s->most, n, __ATOMIC_SEQ_CST);
            }
            (void)__atomic_sub_fetch(&s->inside, 1, __ATOMIC_SEQ_CST);
            proxy_crowd_leave(s->crowd, &place);
        }
    }
    return NULL;
}

static void threads_never_let_in_too_many_and_lose_no_place(void **state)
{
    struct shared s = { .crowd = proxy_crowd_new() };
    struct proxy_place place;
    pthread_t threads[THREADS];

    (void)state;
    for (size_t i = 0; i < THREADS; i++) {
        assert_int_equal(pthread_create(&threads[i], NULL, come_and_go, &s), 0);
    }
    for (size_t i = 0; i < THREADS; i++) {
        assert_int_equal(pthread_join(threads[i], NULL), 0);
    }
    assert_in_range(s.most, 1, 2);
    for (size_t i = 0; i < MOST; i++) {
        assert_true(enter(s.crowd, "192.0.2.7", &place));
    }
    assert_false(enter(s.crowd, "192.0.2.7", &place));
    proxy_crowd_free(&s.crowd);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(each_address_has_its_own_places_and_gets_them_back),
        cmocka_unit_test(a_network_of_ipv6_counts_as_one),
        cmocka_unit_test(threads_never_let_in_too_many_and_lose_no_place),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
