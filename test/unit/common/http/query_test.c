/* query: what a log may have of a query. */
#include "common/http/query.h"

#include "test/support/cmocka.h"

static void values_that_may_let_somebody_in_are_left_out(void **state)
{
    static const struct {
        const char *query;
        const char *written;
    } rows[] = {
        { "", "" },
        { "a=1", "a=1" },
        { "a", "a" },
        { "a=1&&b=2&", "a=1&&b=2&" },
        { "page=2&access_token=x&q=y", "page=2&access_token=…&q=y" },
        { "X-Amz-Signature=x", "X-Amz-Signature=…" },
        { "PASSWORD=a=b", "PASSWORD=…" },
        { "pomerium_session", "…" },
        { "%74oken=x", "%74oken=…" },
        { "a=token", "a=token" },
    };

    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
        struct buf out;

        buf_init(&out, 4096);
        http_query_tame(sv_from(rows[i].query), &out);
        assert_string_equal(buf_cstr(&out), rows[i].written);
        buf_deinit(&out);
    }
}

static void a_name_too_long_to_be_looked_at_counts_as_secret(void **state)
{
    struct buf query;
    struct buf out;

    (void)state;
    buf_init(&query, 4096);
    buf_init(&out, 4096);
    for (int i = 0; i < 65; i++) {
        buf_add_char(&query, 'n');
    }
    buf_add_str(&query, "=x");
    http_query_tame(buf_sv(&query), &out);
    assert_null(strchr(buf_cstr(&out), 'x'));
    buf_deinit(&out);
    buf_deinit(&query);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(values_that_may_let_somebody_in_are_left_out),
        cmocka_unit_test(a_name_too_long_to_be_looked_at_counts_as_secret),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
