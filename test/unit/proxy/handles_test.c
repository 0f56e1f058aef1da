/* handles: what is remembered opens no other door than what was opened. */
#include "proxy/handles.h"

#include <stdio.h>
#include <string.h>

#include "common/secret.h"
#include "test/support/cmocka.h"

struct world {
    struct keys *keys;
    struct proxy_handles *handles;
    struct buf text;
};

static void world_init(struct world *w)
{
    struct secret *secret = secret_new(sv_of("0123456789abcdef0123456789abcdef", 32));
    const struct secret *view[] = { secret };

    assert_int_equal(keys_new(view, 1, &w->keys), ERR_OK);
    secret_free(&secret);
    w->handles = proxy_handles_new(w->keys);
    buf_init(&w->text, 1024);
}

static void world_deinit(struct world *w)
{
    proxy_handles_free(&w->handles);
    keys_free(&w->keys);
    buf_deinit(&w->text);
}

static void make(struct world *w, const char *session, struct sv host)
{
    struct handle h = { .record_version = 7, .issued_at_s = 11 };

    (void)snprintf(h.session, sizeof(h.session), "%s", session);
    buf_reset(&w->text);
    assert_int_equal(proxy_handles_make(w->handles, &h, host, &w->text), ERR_OK);
}

static void a_handle_opens_again_and_again(void **state)
{
    struct world w;

    (void)state;
    world_init(&w);
    for (int s = 0; s < 2000; s++) { /* more than are remembered */
        char session[32];

        (void)snprintf(session, sizeof(session), "session-%d", s);
        make(&w, session, SV("app.example.com"));
        for (int i = 0; i < 3; i++) {
            struct handle h = { .issued_at_s = 0 };

            assert_int_equal(
                proxy_handles_open(w.handles, buf_sv(&w.text), SV("app.example.com"), &h), ERR_OK);
            assert_string_equal(h.session, session);
            assert_int_equal(h.record_version, 7);
            assert_int_equal(h.issued_at_s, 11);
        }
    }
    world_deinit(&w);
}

static void a_remembered_handle_stays_bound_to_its_host(void **state)
{
    static const char *const hosts[] = { "b.example.com", "a.example.com:8443", "a.example.co", "",
                                         "A.example.com" };
    struct handle h;
    struct world w;

    (void)state;
    world_init(&w);
    make(&w, "s", SV("a.example.com"));
    assert_int_equal(proxy_handles_open(w.handles, buf_sv(&w.text), SV("a.example.com"), &h),
                     ERR_OK);
    for (size_t i = 0; i < ARRAY_LEN(hosts); i++) {
        assert_int_equal(proxy_handles_open(w.handles, buf_sv(&w.text), sv_from(hosts[i]), &h),
                         ERR_CRYPTO);
    }
    world_deinit(&w);
}

static void every_changed_byte_is_refused_after_the_right_text_was_seen(void **state)
{
    struct handle h;
    struct world w;

    (void)state;
    world_init(&w);
    make(&w, "s", SV("a.example.com"));
    assert_int_equal(proxy_handles_open(w.handles, buf_sv(&w.text), SV("a.example.com"), &h),
                     ERR_OK);
    for (size_t i = 0; i < w.text.n; i++) {
        char kept = w.text.p[i];

        w.text.p[i] = kept == 'A' ? 'B' : 'A';
        assert_int_equal(proxy_handles_open(w.handles, buf_sv(&w.text), SV("a.example.com"), &h),
                         ERR_CRYPTO);
        w.text.p[i] = kept;
        assert_int_equal(
            proxy_handles_open(w.handles, sv_head(buf_sv(&w.text), i), SV("a.example.com"), &h),
            ERR_CRYPTO);
    }
    world_deinit(&w);
}

static void a_host_too_long_to_remember_works_all_the_same(void **state)
{
    char host[600];
    struct handle h;
    struct world w;

    (void)state;
    world_init(&w);
    memset(host, 'a', sizeof(host));
    make(&w, "s", sv_of(host, sizeof(host)));
    for (int i = 0; i < 2; i++) {
        assert_int_equal(
            proxy_handles_open(w.handles, buf_sv(&w.text), sv_of(host, sizeof(host)), &h), ERR_OK);
        assert_int_equal(
            proxy_handles_open(w.handles, buf_sv(&w.text), sv_of(host, sizeof(host) - 1), &h),
            ERR_CRYPTO);
    }
    world_deinit(&w);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_handle_opens_again_and_again),
        cmocka_unit_test(a_remembered_handle_stays_bound_to_its_host),
        cmocka_unit_test(every_changed_byte_is_refused_after_the_right_text_was_seen),
        cmocka_unit_test(a_host_too_long_to_remember_works_all_the_same),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
