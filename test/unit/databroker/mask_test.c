/* mask: which fields a Patch changes. */
#include "databroker/mask.h"

#include <string.h>

#include "common/buf.h"
#include "common/mem.h"
#include "test/support/cmocka.h"

#define SESSION_URL "type.googleapis.com/session.Session"

static enum err init(struct broker_mask *mask, const char *type_url, const char *path)
{
    CLEANUP(mem_free) char *text = mem_strdup(path);

    return broker_mask_init(mask, sv_from(type_url), &text, path[0] == '\0' ? 0 : 1, NULL);
}

static void a_mask_names_fields_and_their_parts(void **state)
{
    static const struct {
        const char *type_url;
        const char *path;
        enum err err;
    } cases[] = {
        { SESSION_URL, "user_id", ERR_OK },
        { "session.Session", "claims", ERR_OK },
        { SESSION_URL, "oauth_token.access_token", ERR_OK },
        { SESSION_URL, "oauth_token.expires_at.seconds", ERR_OK },
        { SESSION_URL, "device_credentials", ERR_OK },
        { "type.googleapis.com/user.User", "email", ERR_OK },
        { "type.googleapis.com/user.ServiceAccount", "accessed_at", ERR_OK },
        { "type.googleapis.com/google.protobuf.Struct", "fields", ERR_OK },
        { "type.googleapis.com/pomerium.device.Enrollment", "approved_by", ERR_OK },
        { "type.googleapis.com/session.SessionBinding", "details", ERR_OK },
        { SESSION_URL, "", ERR_INVALID },
        { SESSION_URL, "email", ERR_INVALID },
        { SESSION_URL, "USER_ID", ERR_INVALID },
        { SESSION_URL, ".", ERR_INVALID },
        { SESSION_URL, "user_id.", ERR_INVALID },
        { SESSION_URL, "user_id.x", ERR_INVALID },
        { SESSION_URL, "oauth_token.", ERR_INVALID },
        { SESSION_URL, "oauth_token.nothing", ERR_INVALID },
        { SESSION_URL, "claims.email", ERR_INVALID },
        { SESSION_URL, "device_credentials.id", ERR_INVALID },
        { "type.googleapis.com/google.protobuf.Struct", "fields.x", ERR_INVALID },
        { "type.googleapis.com/google.protobuf.Value", "struct_value.fields.x", ERR_INVALID },
        { "type.googleapis.com/session.SessionX", "user_id", ERR_UNSUPPORTED },
        { "type.googleapis.com/", "user_id", ERR_UNSUPPORTED },
        { "", "user_id", ERR_UNSUPPORTED },
    };

    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        struct broker_mask mask;

        if (init(&mask, cases[i].type_url, cases[i].path) != cases[i].err) {
            fail_msg("%s of %s", cases[i].path, cases[i].type_url);
        }
    }
}

static void a_mask_is_bounded(void **state)
{
    char *paths[BROKER_MASK_PATHS + 1];
    struct broker_mask mask;

    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(paths); i++) {
        paths[i] = base_unconst("user_id");
    }
    assert_int_equal(broker_mask_init(&mask, SV(SESSION_URL), paths, BROKER_MASK_PATHS, NULL),
                     ERR_OK);
    assert_int_equal(mask.count, 2);
    assert_int_equal(broker_mask_init(&mask, SV(SESSION_URL), paths, ARRAY_LEN(paths), NULL),
                     ERR_INVALID);
}

static void expect_merged(char *const *paths, size_t n, struct sv stored, struct sv given,
                          struct sv expected)
{
    CLEANUP(buf_deinit) struct buf out = { 0 };
    CLEANUP(buf_deinit) struct buf again = { 0 };
    struct broker_mask mask;

    assert_int_equal(broker_mask_init(&mask, SV(SESSION_URL), paths, n, NULL), ERR_OK);
    buf_init(&out, 1000);
    buf_init(&again, 1000);
    assert_int_equal(broker_mask_apply(&mask, stored, given, &out), ERR_OK);
    assert_true(sv_eq(buf_sv(&out), expected));
    assert_int_equal(broker_mask_apply(&mask, buf_sv(&out), given, &again), ERR_OK);
    assert_true(sv_eq(buf_sv(&again), expected)); /* once more changes nothing */
}

static void a_field_is_taken_and_the_others_stay(void **state)
{
    char *paths[] = { base_unconst("user_id") };

    (void)state;
    /* user_id "before", field 99 (unknown) = 7; given: id "x", user_id "after" */
    expect_merged(paths, 1,
                  SV("\x1a\x06"
                     "before\x98\x06\x07"),
                  SV("\x12\x01x\x1a\x05"
                     "after"),
                  SV("\x98\x06\x07\x1a\x05"
                     "after"));
    expect_merged(paths, 1,
                  SV("\x1a\x06"
                     "before\x98\x06\x07"),
                  SV(""), SV("\x98\x06\x07")); /* absent there: absent then */
}

/* oauth_token (7): access_token (1) "a", refresh_token (4) "r", field 99 = 7 */
#define TOKEN             \
    SV("\x3a\x09\x0a\x01" \
       "a\x22\x01r\x98\x06\x07")

static void a_part_is_taken_and_its_siblings_stay(void **state)
{
    char *access[] = { base_unconst("oauth_token.access_token") };
    char *whole[] = { base_unconst("oauth_token.access_token"), base_unconst("oauth_token") };
    char *whole_first[] = { whole[1], whole[0] };
    struct sv given = SV("\x3a\x06\x0a\x01"
                         "b\x22\x01s");

    (void)state;
    expect_merged(access, 1, TOKEN, given,
                  SV("\x3a\x09\x22\x01r\x98\x06\x07\x0a\x01"
                     "b"));
    expect_merged(access, 1, TOKEN, SV("\x12\x01x"), SV("\x3a\x06\x22\x01r\x98\x06\x07"));
    expect_merged(access, 1, SV("\x12\x01y"), given,
                  SV("\x12\x01y\x3a\x03\x0a\x01"
                     "b"));
    expect_merged(access, 1, SV("\x12\x01y"), SV("\x12\x01x"), SV("\x12\x01y"));
    expect_merged(whole, 2, TOKEN, given, given);
    expect_merged(whole_first, 2, TOKEN, given, given);
    /* a message in two places is one message */
    expect_merged(access, 1,
                  SV("\x3a\x03\x0a\x01"
                     "a\x3a\x03\x22\x01r"),
                  SV(""), SV("\x3a\x03\x22\x01r"));
}

static void a_member_of_a_oneof_drives_out_the_stored_one(void **state)
{
    CLEANUP(buf_deinit) struct buf out = { 0 };
    struct broker_mask mask;

    (void)state;
    buf_init(&out, 1000);
    assert_int_equal(init(&mask, "type.googleapis.com/google.protobuf.Value", "string_value"),
                     ERR_OK);
    /* stored: true; given: "hi" */
    assert_int_equal(broker_mask_apply(&mask, SV("\x20\x01"), SV("\x1a\x02hi"), &out), ERR_OK);
    assert_true(sv_eq(buf_sv(&out), SV("\x1a\x02hi")));
    buf_reset(&out);
    assert_int_equal(broker_mask_apply(&mask, SV("\x20\x01"), SV(""), &out), ERR_OK);
    assert_true(sv_eq(buf_sv(&out), SV("\x20\x01")));
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
        { "\x18\x01", 2 },     /* a number where a text belongs */
        { "\x38\x01", 2 },     /* a number where a message belongs */
        { "\x1a\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01", 11 },
    };
    struct broker_mask mask;

    (void)state;
    assert_int_equal(init(&mask, SESSION_URL, "oauth_token.access_token"), ERR_OK);
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        CLEANUP(buf_deinit) struct buf out = { 0 };

        buf_init(&out, 1000);
        assert_int_equal(broker_mask_apply(&mask, cases[i], SV(""), &out), ERR_INVALID);
        assert_int_equal(broker_mask_apply(&mask, SV(""), cases[i], &out), ERR_INVALID);
    }
}

static void the_merged_message_is_bounded(void **state)
{
    CLEANUP(buf_deinit) struct buf out = { 0 };
    struct broker_mask mask;

    (void)state;
    assert_int_equal(init(&mask, SESSION_URL, "user_id"), ERR_OK);
    buf_init(&out, 4);
    assert_int_equal(broker_mask_apply(&mask, SV(""), SV("\x1a\x03yes"), &out), ERR_LIMIT);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_mask_names_fields_and_their_parts),
        cmocka_unit_test(a_mask_is_bounded),
        cmocka_unit_test(a_field_is_taken_and_the_others_stay),
        cmocka_unit_test(a_part_is_taken_and_its_siblings_stay),
        cmocka_unit_test(a_member_of_a_oneof_drives_out_the_stored_one),
        cmocka_unit_test(damaged_messages_are_refused),
        cmocka_unit_test(the_merged_message_is_bounded),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
