/* data: whose row of external data a policy reads, and when a set comes into force. */
#include "authorize/data.h"

#include <string.h>

#include "google/protobuf/struct.pb-c.h"

#include "test/support/cmocka.h"

#define TYPE "acme.test/posture"

struct world {
    struct authz_texts *texts;
    struct authz_data *data;
    uint64_t version;
};

static void world_init(struct world *w)
{
    *w = (struct world){ .texts = authz_texts_new() };
    w->data = authz_data_new(w->texts);
}

static void world_deinit(struct world *w)
{
    authz_data_free(&w->data);
    assert_int_equal(authz_texts_count(w->texts), 0);
    authz_texts_free(&w->texts);
}

/* Two fields of text; a NULL: the record ends. */
static bool put(struct world *w, const char *id, const char *const names[2],
                const char *const texts[2])
{
    Databroker__Record record = DATABROKER__RECORD__INIT;
    Google__Protobuf__Any any = GOOGLE__PROTOBUF__ANY__INIT;
    Google__Protobuf__Timestamp now = GOOGLE__PROTOBUF__TIMESTAMP__INIT;
    Google__Protobuf__Struct m = GOOGLE__PROTOBUF__STRUCT__INIT;
    Google__Protobuf__Struct__FieldsEntry entries[2];
    Google__Protobuf__Struct__FieldsEntry *list[] = { &entries[0], &entries[1] };
    Google__Protobuf__Value values[2];
    uint8_t bytes[512];

    record.type = base_unconst(TYPE);
    record.id = base_unconst(id);
    record.version = ++w->version;
    if (names == NULL) {
        record.deleted_at = &now;
        return authz_data_apply(w->data, &record);
    }
    for (size_t i = 0; i < 2; i++) {
        entries[i] =
            (Google__Protobuf__Struct__FieldsEntry)GOOGLE__PROTOBUF__STRUCT__FIELDS_ENTRY__INIT;
        values[i] = (Google__Protobuf__Value)GOOGLE__PROTOBUF__VALUE__INIT;
        values[i].kind_case = GOOGLE__PROTOBUF__VALUE__KIND_STRING_VALUE;
        values[i].string_value = base_unconst(texts[i]);
        entries[i].key = base_unconst(names[i]);
        entries[i].value = &values[i];
    }
    m.n_fields = 2;
    m.fields = list;
    assert_true(google__protobuf__struct__get_packed_size(&m) <= sizeof(bytes));
    any.value.data = bytes;
    any.value.len = google__protobuf__struct__pack(&m, bytes);
    record.data = &any;
    return authz_data_apply(w->data, &record);
}

static bool put_set(struct world *w, const char *key, const char *generation)
{
    return put(w, "set", (const char *const[]){ "key", "generation" },
               (const char *const[]){ key, generation });
}

static bool put_row(struct world *w, const char *id, const char *team)
{
    return put(w, id, (const char *const[]){ "team", "empty" }, (const char *const[]){ team, "" });
}

/* What ann's policy reads as team; "": no record. */
static struct sv team_of(const struct world *w)
{
    struct authz_data_ask ask = {
        .data = w->data, .user_id = SV("u-1"), .email = SV("Ann@X.test"), .session_id = SV("s-1")
    };
    struct policy_field field = { 0 };

    authz_data_field(&ask, SV(TYPE), SV("team"), &field);
    assert_int_equal(field.record, field.present);
    return field.record ? field.values[0].text.s : SV("");
}

static void a_row_belongs_to_who_has_its_key(void **state)
{
    struct world w;

    (void)state;
    world_init(&w);
    assert_true(put_row(&w, "g/u-1", "user"));
    assert_true(put_row(&w, "g/ann@x.test", "email"));
    assert_true(put_row(&w, "g/s-1", "session"));
    assert_true(sv_eq(team_of(&w), SV(""))); /* nothing is in force yet */
    assert_true(put_set(&w, "user_id", "g"));
    assert_true(sv_eq(team_of(&w), SV("user")));
    assert_true(put_set(&w, "email", "g"));
    assert_true(sv_eq(team_of(&w), SV("email")));
    assert_true(put_set(&w, "session_id", "g"));
    assert_true(sv_eq(team_of(&w), SV("session")));
    world_deinit(&w);
}

static void another_generation_is_not_in_force_until_the_set_says_so(void **state)
{
    struct world w;

    (void)state;
    world_init(&w);
    assert_true(put_set(&w, "user_id", "g1"));
    assert_true(put_row(&w, "g1/u-1", "old"));
    uint64_t epoch = authz_data_epoch(w.data);

    assert_true(put_row(&w, "g2/u-1", "new"));
    assert_true(put_row(&w, "g/u-1", "other"));
    assert_int_equal(authz_data_epoch(w.data), epoch);
    assert_true(sv_eq(team_of(&w), SV("old")));
    assert_true(put_set(&w, "user_id", "g2"));
    assert_true(authz_data_epoch(w.data) > epoch);
    epoch = authz_data_epoch(w.data);
    assert_true(sv_eq(team_of(&w), SV("new")));
    assert_true(put(&w, "g1/u-1", NULL, NULL));
    assert_int_equal(authz_data_epoch(w.data), epoch);
    assert_int_equal(authz_data_rows(w.data), 2);
    world_deinit(&w);
}

static void what_ends_or_cannot_be_read_is_gone(void **state)
{
    struct world w;

    (void)state;
    world_init(&w);
    assert_true(put_set(&w, "user_id", "g"));
    assert_true(put_row(&w, "g/u-1", "a"));
    assert_true(put(&w, "g/u-1", NULL, NULL));
    assert_true(sv_eq(team_of(&w), SV("")));
    assert_true(put_row(&w, "g/u-1", "b"));
    w.version -= 2;
    assert_true(put(&w, "g/u-1", NULL, NULL)); /* older than what is there */
    assert_true(sv_eq(team_of(&w), SV("b")));
    w.version += 2;
    assert_false(put_set(&w, "phone", "g"));
    assert_true(sv_eq(team_of(&w), SV("")));
    assert_true(put_set(&w, "user_id", "g"));
    assert_false(put_set(&w, "user_id", "a-generation-too-long"));
    assert_true(sv_eq(team_of(&w), SV("")));
    assert_true(put(&w, "set", NULL, NULL));
    assert_true(put(&w, "g/u-1", NULL, NULL));
    assert_int_equal(authz_data_rows(w.data), 0);
    world_deinit(&w);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_row_belongs_to_who_has_its_key),
        cmocka_unit_test(another_generation_is_not_in_force_until_the_set_says_so),
        cmocka_unit_test(what_ends_or_cannot_be_read_is_gone),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
