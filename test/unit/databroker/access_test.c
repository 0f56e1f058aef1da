/* access: what a name may be, and what a role may read and write. */
#include "databroker/access.h"

#include <string.h>

#include "test/support/cmocka.h"

static void names_are_bounded_clean_text(void **state)
{
    char text[BROKER_NAME_MAX + 1];

    (void)state;
    memset(text, 'a', sizeof(text));
    assert_int_equal(broker_name_check(sv_of(text, BROKER_NAME_MAX), "x", NULL), ERR_OK);
    assert_int_equal(broker_name_check(sv_of(text, BROKER_NAME_MAX + 1), "x", NULL), ERR_LIMIT);
    assert_int_equal(broker_name_check(SV(""), "x", NULL), ERR_INVALID);
    assert_int_equal(broker_name_check(SV("a\0b"), "x", NULL), ERR_INVALID);
    assert_int_equal(broker_name_check(SV("a\x7f"), "x", NULL), ERR_INVALID);
    assert_int_equal(broker_name_check(SV("a\xc0\x80"), "x", NULL), ERR_INVALID);
    assert_int_equal(broker_name_check(SV("grün/a b"), "x", NULL), ERR_OK);
}

#define ROUTE "type.googleapis.com/pomerium.config.Route"

static void who_may_put_what(void **state)
{
    static const struct {
        enum rpc_role role;
        const char *type;
        bool deletion;
        enum err err;
    } cases[] = {
        { RPC_AUTHENTICATE, "any", false, ERR_OK },
        { RPC_CLI, "any", true, ERR_OK },
        { RPC_TOKEN_SESSION_ADMIN, BROKER_TYPE_SESSION, true, ERR_OK },
        { RPC_TOKEN_SESSION_ADMIN, BROKER_TYPE_SESSION, false, ERR_DENIED },
        { RPC_TOKEN_SESSION_ADMIN, BROKER_TYPE_USER, true, ERR_DENIED },
        { RPC_TOKEN_SESSION_ADMIN, BROKER_TYPE_SESSION "x", true, ERR_DENIED },
        { RPC_TOKEN_READER, BROKER_TYPE_SESSION, true, ERR_DENIED },
        { RPC_PROXY, BROKER_TYPE_SESSION, true, ERR_DENIED },
        { RPC_AUTHORIZE, BROKER_TYPE_SESSION, true, ERR_DENIED },
        { RPC_AUTHORIZE, BROKER_TYPE_ACCESS, false, ERR_OK },
        { RPC_AUTHORIZE, BROKER_TYPE_ACCESS "x", false, ERR_DENIED },
        { RPC_TOKEN_SESSION_ADMIN, BROKER_TYPE_ACCESS, false, ERR_DENIED },
        { RPC_TOKEN_DIRECTORY_WRITER, BROKER_TYPE_DIRECTORY_GROUP, false, ERR_OK },
        { RPC_TOKEN_DIRECTORY_WRITER, BROKER_TYPE_USER, false, ERR_DENIED },
        { RPC_TOKEN_RECORD_WRITER, "acme.test/posture", false, ERR_OK },
        { RPC_TOKEN_RECORD_WRITER, ROUTE, false, ERR_DENIED },
        { RPC_TOKEN_CONFIG_WRITER, ROUTE, false, ERR_OK },
        { RPC_TOKEN_CONFIG_WRITER, ROUTE, true, ERR_OK },
        { RPC_TOKEN_CONFIG_WRITER, ROUTE "s", false, ERR_DENIED },
        { RPC_TOKEN_CONFIG_WRITER, BROKER_TYPE_SESSION, true, ERR_DENIED },
        { RPC_TOKEN_CONFIG_WRITER, BROKER_TYPE_KEY, false, ERR_DENIED },
        { RPC_CLI, BROKER_TYPE_KEY, false, ERR_DENIED },
        { RPC_TOKEN_CHECKER, BROKER_TYPE_SESSION, true, ERR_DENIED },
        { RPC_DATABROKER, BROKER_TYPE_SESSION, true, ERR_DENIED },
        { RPC_NOBODY, BROKER_TYPE_SESSION, true, ERR_DENIED },
    };

    size_t i = 0;

    (void)state;
    for (i = 0; i < ARRAY_LEN(cases); i++) {
        CLEANUP(broker_records_deinit) struct broker_records list = { .items = NULL };
        struct broker_record record = { .type = sv_from(cases[i].type),
                                        .id = SV("1"),
                                        .deleted_us = cases[i].deletion ? 1 : 0 };

        broker_records_init(&list);
        broker_records_add(&list, &record);
        assert_int_equal(broker_access_put(cases[i].role, &list, NULL), cases[i].err);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(names_are_bounded_clean_text),
        cmocka_unit_test(who_may_put_what),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
