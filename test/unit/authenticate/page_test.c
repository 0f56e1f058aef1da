/* Pages: whatever comes in, only our own markup goes out. */
#include "authenticate/page.h"

#include <string.h>

#include "common/http/page.h"
#include "test/support/cmocka.h"

#define EVIL "\"><script>alert('1')</script><img src=x onerror=y>&amp;"

static void no_value_becomes_markup(void **state)
{
    json_t *groups = json_pack("[s,s]", EVIL, "staff");
    CLEANUP(buf_deinit) struct buf b;

    (void)state;
    buf_init(&b, 1 << 20);
    authn_page_login(&b, &(struct authn_page_login){ .token = SV(EVIL),
                                                     .email = SV(EVIL),
                                                     .note = SV(EVIL),
                                                     .app = SV(EVIL),
                                                     .request_id = SV(EVIL) });
    authn_page_user(&b, &(struct authn_page_user){ .name = SV(EVIL),
                                                   .email = SV(EVIL),
                                                   .user_id = SV(EVIL),
                                                   .groups = groups,
                                                   .expires_at_s = 1700000000,
                                                   .sign_out = SV(EVIL),
                                                   .request_id = SV(EVIL) });
    authn_page_sign_out(&b, SV(EVIL), SV(EVIL), SV(EVIL));
    authn_page_signed_out(&b, SV(EVIL));
    http_page_problem(&b, &(struct http_page_problem){ .title = SV(EVIL),
                                                       .what = SV(EVIL),
                                                       .todo = SV(EVIL),
                                                       .code = SV(EVIL),
                                                       .request_id = SV(EVIL),
                                                       .link = SV(EVIL),
                                                       .link_text = SV(EVIL) });
    assert_int_equal(b.err, ERR_OK);
    assert_null(strstr(buf_cstr(&b), "<script"));
    assert_null(strstr(buf_cstr(&b), "<img"));
    assert_null(strstr(buf_cstr(&b), "onerror=y>"));
    assert_non_null(strstr(buf_cstr(&b), "2023-11-14 22:13 UTC"));
    json_decref(groups);
}

static void the_csp_names_the_style_and_nothing_that_could_break_out(void **state)
{
    const struct sv origins[] = { SV("https://app.example:8443"), SV("https://x; script-src *"),
                                  SV("javascript:x"), SV("https://*.evil") };
    CLEANUP(buf_deinit) struct buf b;

    (void)state;
    buf_init(&b, 4096);
    http_page_csp(&b, origins, ARRAY_LEN(origins));
    assert_non_null(strstr(buf_cstr(&b), "default-src 'none'; style-src 'sha256-"));
    assert_non_null(strstr(buf_cstr(&b), "form-action 'self' https://app.example:8443; "));
    assert_null(strstr(buf_cstr(&b), "script"));
    assert_null(strstr(buf_cstr(&b), "evil"));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(no_value_becomes_markup),
        cmocka_unit_test(the_csp_names_the_style_and_nothing_that_could_break_out),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
