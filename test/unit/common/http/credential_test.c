/* credential: which credentials are ours, and what two of them say together. */
#include "common/http/credential.h"

#include <stdio.h>

#include "test/support/cmocka.h"

struct row {
    const char *lines;
    bool bearer; /* the route's every Bearer is ours */
    bool shown;
    bool differs;
    const char *token;
};

static void check_row(const struct row *row)
{
    struct http_field fields[16];
    struct http_head head;
    struct arena arena;
    struct http_credential got;
    char text[512];

    (void)snprintf(text, sizeof(text), "GET / HTTP/1.1\r\nHost: a\r\n%s\r\n", row->lines);
    arena_init(&arena);
    http_head_init(&head, HTTP_REQUEST, NULL, fields, ARRAY_LEN(fields));
    assert_int_equal(http_head_parse(&head, sv_from(text)), HTTP_DONE);
    got = http_credential_find(&head, row->bearer, &arena);
    if (got.shown != row->shown || got.differs != row->differs ||
        (!got.differs && !sv_eq(got.token, sv_from(row->token)))) {
        fail_msg("'%s' is %d %d '%.*s'", row->lines, got.shown, got.differs, SV_ARG(got.token));
    }
    arena_deinit(&arena);
}

static void a_token_is_found_where_it_may_stand(void **state)
{
    static const struct row rows[] = {
        { "", false, false, false, "" },
        { "X-Pomerium-Authorization:  t \r\n", false, true, false, "t" },
        { "Authorization: Pomerium t\r\n", false, true, false, "t" },
        { "Authorization: Pomerium\r\n", false, true, false, "" },
        { "Authorization: Bearer Pomerium-t\r\n", false, true, false, "t" },
        { "Authorization: Bearer Pomerium-t\r\n", true, true, false, "t" },
        { "Authorization: Bearer t\r\n", false, false, false, "" },
        { "Authorization: Bearer t\r\n", true, true, false, "t" },
        { "Authorization: Bearer\r\n", true, true, false, "" },
        { "Authorization: Basic Z2l0OlBvbWVyaXVtLXQ=\r\n", false, true, false, "t" },
        { "Authorization: Basic OlBvbWVyaXVtLQ==\r\n", false, true, false, "" },
        { "Authorization: Basic UG9tZXJpdW0tdA==\r\n", false, false, false, "" },
        { "Authorization: Basic YTpi\r\n", true, false, false, "" },
        { "Authorization: Basic ????\r\n", true, false, false, "" },
        { "Authorization: Basic\r\n", true, false, false, "" },
    };

    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
        check_row(&rows[i]);
    }
}

static void two_tokens_must_be_one(void **state)
{
    static const struct row rows[] = {
        { "X-Pomerium-Authorization: t\r\nAuthorization: Pomerium t\r\n", false, true, false, "t" },
        { "X-Pomerium-Authorization: t\r\nAuthorization: Pomerium u\r\n", false, true, true, "" },
        { "Authorization: Basic OlBvbWVyaXVtLXU=\r\nX-Pomerium-Authorization: t\r\n", false, true,
          true, "" },
        { "X-Pomerium-Authorization: \r\nAuthorization: Pomerium u\r\n", false, true, true, "" },
        { "X-Pomerium-Authorization: t\r\nAuthorization: Bearer u\r\n", false, true, false, "t" },
        { "X-Pomerium-Authorization: t\r\nAuthorization: Bearer u\r\n", true, true, true, "" },
    };

    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
        check_row(&rows[i]);
    }
}

static void a_token_beyond_the_bound_is_none(void **state)
{
    static char long_token[HTTP_CREDENTIAL_MAX + 2];
    struct http_field fields[4];
    struct http_head head;
    struct arena arena;
    struct buf text;

    (void)state;
    arena_init(&arena);
    buf_init(&text, 65536);
    __builtin_memset(long_token, 'a', sizeof(long_token) - 1);
    buf_add_str(&text, "GET / HTTP/1.1\r\nHost: a\r\nX-Pomerium-Authorization: ");
    buf_add_str(&text, long_token);
    buf_add_str(&text, "\r\n\r\n");
    http_head_init(&head, HTTP_REQUEST, NULL, fields, ARRAY_LEN(fields));
    assert_int_equal(http_head_parse(&head, buf_sv(&text)), HTTP_DONE);
    struct http_credential got = http_credential_find(&head, false, &arena);

    assert_true(got.shown);
    assert_int_equal(got.token.n, 0);
    buf_deinit(&text);
    arena_deinit(&arena);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_token_is_found_where_it_may_stand),
        cmocka_unit_test(two_tokens_must_be_one),
        cmocka_unit_test(a_token_beyond_the_bound_is_none),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
