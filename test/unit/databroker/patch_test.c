/* patch and access: which fields a Patch changes, what a token may do. */
#include "databroker/patch.h"

#include <string.h>

#include "session.pb-c.h"

#include "common/buf.h"
#include "common/mem.h"
#include "databroker/access.h"
#include "test/support/cmocka.h"

#define SESSION_URL "type.googleapis.com/session.Session"

static enum err init(struct broker_patch *patch, const char *type_url, const char *path)
{
    CLEANUP(mem_free) char *text = mem_strdup(path);

    return broker_patch_init(patch, sv_from(type_url), &text, path[0] == '\0' ? 0 : 1, NULL);
}

static void only_whole_known_fields_can_be_patched(void **state)
{
    static const struct {
        const char *type_url;
        const char *path;
        enum err err;
    } cases[] = {
        { SESSION_URL, "user_id", ERR_OK },
        { "session.Session", "claims", ERR_OK },
        { "type.googleapis.com/user.User", "email", ERR_OK },
        { "type.googleapis.com/user.ServiceAccount", "accessed_at", ERR_OK },
        { "type.googleapis.com/google.protobuf.Struct", "fields", ERR_OK },
        { SESSION_URL, "", ERR_INVALID },
        { SESSION_URL, "email", ERR_INVALID },
        { SESSION_URL, "USER_ID", ERR_INVALID },
        { SESSION_URL, "oauth_token.access_token", ERR_UNSUPPORTED },
        { "type.googleapis.com/session.SessionX", "user_id", ERR_UNSUPPORTED },
        { "type.googleapis.com/", "user_id", ERR_UNSUPPORTED },
        { "", "user_id", ERR_UNSUPPORTED },
    };

    size_t i = 0;

    (void)state;
    for (i = 0; i < ARRAY_LEN(cases); i++) {
        struct broker_patch patch;

        assert_int_equal(init(&patch, cases[i].type_url, cases[i].path), cases[i].err);
    }
}

static void a_patch_takes_its_fields_and_leaves_the_others(void **state)
{
    CLEANUP(buf_deinit) struct buf out = { 0 };
    /* user_id "before", field 99 (unknown) = 7; the patch: user_id "after", id "x" */
    struct sv stored = SV("\x1a\x06"
                          "before\x98\x06\x07");
    struct sv given = SV("\x12\x01x\x1a\x05"
                         "after");
    struct sv merged = { 0 };
    struct broker_patch patch;

    (void)state;
    assert_int_equal(init(&patch, SESSION_URL, "user_id"), ERR_OK);
    buf_init(&out, 1000);
    assert_int_equal(broker_patch_apply(&patch, stored, given, &out), ERR_OK);
    assert_int_equal(buf_finish(&out, &merged), ERR_OK);
    assert_true(sv_eq(merged, SV("\x98\x06\x07\x1a\x05"
                                 "after")));
    buf_reset(&out);
    assert_int_equal(broker_patch_apply(&patch, stored, SV(""), &out), ERR_OK);
    assert_true(sv_eq(buf_sv(&out), SV("\x98\x06\x07"))); /* absent there: absent then */
}

static void damaged_messages_are_refused(void **state)
{
    static const struct sv cases[] = {
        { "\x1a", 1 },         /* no length */
        { "\x1a\x05hi", 4 },   /* too short */
        { "\x98\x80", 2 },     /* an endless tag */
        { "\x00\x01", 2 },     /* field 0 */
        { "\x1b\x1c", 2 },     /* a group */
        { "\x1d\x01\x02", 3 }, /* half a fixed32 */
        { "\x19\x01", 2 },     /* half a fixed64 */
        { "\x1a\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01", 11 },
    };
    struct broker_patch patch;
    size_t i = 0;

    (void)state;
    assert_int_equal(init(&patch, SESSION_URL, "user_id"), ERR_OK);
    for (i = 0; i < ARRAY_LEN(cases); i++) {
        CLEANUP(buf_deinit) struct buf out = { 0 };

        buf_init(&out, 1000);
        assert_int_equal(broker_patch_apply(&patch, cases[i], SV(""), &out), ERR_INVALID);
        assert_int_equal(broker_patch_apply(&patch, SV(""), cases[i], &out), ERR_INVALID);
    }
}

static void the_merged_message_is_bounded(void **state)
{
    CLEANUP(buf_deinit) struct buf out = { 0 };
    struct broker_patch patch;

    (void)state;
    assert_int_equal(init(&patch, SESSION_URL, "user_id"), ERR_OK);
    buf_init(&out, 4);
    assert_int_equal(broker_patch_apply(&patch, SV(""), SV("\x1a\x03yes"), &out), ERR_LIMIT);
}

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
        cmocka_unit_test(only_whole_known_fields_can_be_patched),
        cmocka_unit_test(a_patch_takes_its_fields_and_leaves_the_others),
        cmocka_unit_test(damaged_messages_are_refused),
        cmocka_unit_test(the_merged_message_is_bounded),
        cmocka_unit_test(names_are_bounded_clean_text),
        cmocka_unit_test(who_may_put_what),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
