/* Sealed login state and one-time codes: nothing opens as something else. */
#include "authenticate/flow.h"

#include <string.h>

#include "common/secret.h"
#include "test/support/cmocka.h"

struct world {
    struct keys *keys;
    struct sealer *states;
    struct sealer *forms;
    struct sealer *codes;
    struct arena arena;
};

static int set_up(void **state)
{
    static struct world w;
    struct secret *secret = secret_new(SV("0123456789abcdef0123456789abcdef"));
    const struct secret *list[] = { secret };

    assert_int_equal(keys_new(list, 1, &w.keys), ERR_OK);
    secret_free(&secret);
    w.states = sealer_new(w.keys, KEYS_LOGIN_STATE);
    w.forms = sealer_new(w.keys, KEYS_FORM);
    w.codes = sealer_new(w.keys, KEYS_LOGIN_CODE);
    arena_init(&w.arena);
    *state = &w;
    return 0;
}

static int tear_down(void **state)
{
    struct world *w = *state;

    sealer_free(&w->states);
    sealer_free(&w->forms);
    sealer_free(&w->codes);
    keys_free(&w->keys);
    arena_deinit(&w->arena);
    return 0;
}

static const struct authn_flow sample = { .redirect_uri = { "https://app.example/x?a=\"1\"", 25 },
                                          .binding = { "bind", 4 },
                                          .program = { "tcp:db:1", 8 },
                                          .browser = { "brow", 4 },
                                          .nonce = { "nonce", 5 },
                                          .verifier = { "verifier", 8 },
                                          .fresh = true,
                                          .attempt = 2,
                                          .issued_at_s = 1234567890123 };

static void a_flow_comes_back_as_it_left(void **state)
{
    struct world *w = *state;
    struct authn_flow back;
    CLEANUP(buf_deinit) struct buf text;

    buf_init(&text, 65536);
    assert_int_equal(authn_flow_seal(w->states, AUTHN_FLOW_PROVIDER, &sample, &text), ERR_OK);
    assert_int_equal(
        authn_flow_open(w->states, AUTHN_FLOW_PROVIDER, buf_sv(&text), &w->arena, &back), ERR_OK);
    assert_true(sv_eq(back.redirect_uri, sample.redirect_uri));
    assert_true(sv_eq(back.program, sample.program));
    assert_true(sv_eq(back.binding, sample.binding) && sv_eq(back.browser, sample.browser));
    assert_true(sv_eq(back.nonce, sample.nonce) && sv_eq(back.verifier, sample.verifier));
    assert_true(back.fresh);
    assert_int_equal(back.attempt, 2);
    assert_int_equal(back.issued_at_s, 1234567890123);
}

static void no_kind_of_seal_opens_as_another(void **state)
{
    struct world *w = *state;
    struct sealer *sealers[] = { w->states, w->forms, w->codes };
    struct authn_flow back;
    struct authn_code code;
    CLEANUP(buf_deinit) struct buf text;

    buf_init(&text, 65536);
    assert_int_equal(authn_flow_seal(w->forms, AUTHN_FLOW_FORM, &sample, &text), ERR_OK);
    for (size_t i = 0; i < ARRAY_LEN(sealers); i++) {
        for (int use = AUTHN_FLOW_NONE; use <= AUTHN_FLOW_SIGN_OUT; use++) {
            enum err err = authn_flow_open(sealers[i], (enum authn_flow_use)use, buf_sv(&text),
                                           &w->arena, &back);

            assert_int_equal(err, i == 1 && use == AUTHN_FLOW_FORM ? ERR_OK : ERR_CRYPTO);
        }
        assert_int_equal(authn_code_open(sealers[i], buf_sv(&text), 0, &w->arena, &code),
                         ERR_CRYPTO);
    }
}

static void any_changed_bit_is_seen(void **state)
{
    struct world *w = *state;
    struct authn_flow back;
    CLEANUP(buf_deinit) struct buf text;

    buf_init(&text, 65536);
    assert_int_equal(authn_flow_seal(w->states, AUTHN_FLOW_PROVIDER, &sample, &text), ERR_OK);
    for (size_t i = 0; i < text.n; i++) {
        char was = text.p[i];

        text.p[i] = was == 'A' ? 'B' : 'A';
        assert_int_equal(
            authn_flow_open(w->states, AUTHN_FLOW_PROVIDER, buf_sv(&text), &w->arena, &back),
            ERR_CRYPTO);
        text.p[i] = was;
    }
}

static void a_code_ends_with_its_minute(void **state)
{
    struct world *w = *state;
    struct authn_code code = { .id = SV("id"),
                               .session = SV("s"),
                               .record_version = UINT64_C(1) << 62,
                               .host = SV("app.example:8443"),
                               .redirect_uri = SV("https://app.example:8443/"),
                               .expires_at_s = 1000,
                               .session_expires_at_s = 5000 };
    struct authn_code back;
    CLEANUP(buf_deinit) struct buf text;

    buf_init(&text, 65536);
    assert_int_equal(authn_code_seal(w->codes, &code, &text), ERR_OK);
    assert_int_equal(authn_code_open(w->codes, buf_sv(&text), 999, &w->arena, &back), ERR_OK);
    assert_true(back.record_version == code.record_version && back.session_expires_at_s == 5000);
    assert_true(sv_eq(back.host, code.host));
    assert_int_equal(authn_code_open(w->codes, buf_sv(&text), 1000, &w->arena, &back), ERR_EXPIRED);
    assert_true(
        sv_eq(back.redirect_uri, code.redirect_uri)); /* known, so that it can begin again */
}

static void text_that_is_not_utf8_is_refused_when_sealed(void **state)
{
    struct world *w = *state;
    struct authn_flow flow = sample;
    CLEANUP(buf_deinit) struct buf text;

    buf_init(&text, 65536);
    flow.redirect_uri = sv_of("https://app.example/\xff", 21);
    assert_int_equal(authn_flow_seal(w->states, AUTHN_FLOW_PROVIDER, &flow, &text), ERR_INVALID);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(a_flow_comes_back_as_it_left, set_up, tear_down),
        cmocka_unit_test_setup_teardown(no_kind_of_seal_opens_as_another, set_up, tear_down),
        cmocka_unit_test_setup_teardown(any_changed_bit_is_seen, set_up, tear_down),
        cmocka_unit_test_setup_teardown(a_code_ends_with_its_minute, set_up, tear_down),
        cmocka_unit_test_setup_teardown(text_that_is_not_utf8_is_refused_when_sealed, set_up,
                                        tear_down),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
