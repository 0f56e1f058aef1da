/* data: what a file of external data may be, and what a row is stored as. */
#include "common/data/rows.h"

#include <stdio.h>
#include <string.h>

#include "google/protobuf/struct.pb-c.h"

#include "common/buf.h"
#include "common/rpc/scan.h"
#include "test/support/cmocka.h"

static enum err read_rows(const char *text, enum data_format format, struct data_rows **rows_out,
                          char said[DIAG_LINE])
{
    const struct data_source source = { .name = "f", .format = format, .key = DATA_KEY_EMAIL };
    struct diag d = { .line = 0 };
    enum err err = data_rows_read(sv_from(text), &source, rows_out, &d);

    (void)diag_format(&d, said);
    return err;
}

static void both_formats_store_the_same_row(void **state)
{
    static const char *const json =
        "[{\"score\": 5, \"ok\": true, \"email\": \"A@x.test\", \"team\": \"b\"}]";
    static const char *const csv = "\xEF\xBB\xBF"
                                   "team,email,ok:bool,score:number,gone\r\nb,A@x.test,TRUE,5,\r\n";
    struct data_rows *a = NULL;
    struct data_rows *b = NULL;
    char said[DIAG_LINE];

    (void)state;
    assert_int_equal(read_rows(json, DATA_JSON, &a, said), ERR_OK);
    assert_int_equal(read_rows(csv, DATA_CSV, &b, said), ERR_OK);
    assert_int_equal(a->count, 1);
    assert_int_equal(b->count, 1);
    assert_string_equal(a->items[0].key, "a@x.test");
    assert_true(
        sv_eq(sv_of(a->items[0].bytes, a->items[0].n), sv_of(b->items[0].bytes, b->items[0].n)));
    data_rows_free(&a);
    data_rows_free(&b);
}

static void a_list_is_stored_value_by_value(void **state)
{
    struct data_rows *rows = NULL;
    ProtobufCMessage *m = NULL;
    char said[DIAG_LINE];

    (void)state;
    assert_int_equal(read_rows("[{\"email\": \"a@x\", \"l\": [\"a\", 1.5, null, false]}]",
                               DATA_JSON, &rows, said),
                     ERR_OK);
    assert_int_equal(rpc_unpack(&google__protobuf__struct__descriptor,
                                sv_of(rows->items[0].bytes, rows->items[0].n), NULL, &m),
                     ERR_OK);
    const Google__Protobuf__Struct *row = (const Google__Protobuf__Struct *)(const void *)m;

    assert_int_equal(row->n_fields, 2);
    assert_string_equal(row->fields[1]->key, "l");
    assert_int_equal(row->fields[1]->value->list_value->n_values, 4);
    assert_true(row->fields[1]->value->list_value->values[1]->number_value > 1.4);
    protobuf_c_message_free_unpacked(m, NULL);
    data_rows_free(&rows);
}

static void what_is_wrong_is_said_with_its_place(void **state)
{
    static const struct {
        enum data_format format;
        const char *text;
        const char *says;
    } cases[] = {
        { DATA_JSON, "", "f:1:" },
        { DATA_JSON, "[", "f:1:" },
        { DATA_JSON, "{}", "no JSON array of objects" },
        { DATA_JSON, "[] []", "no JSON: end of file expected" },
        { DATA_JSON, "[[]]", "f: row 1: no JSON object" },
        { DATA_JSON, "[{}]", "f: row 1: email, the key" },
        { DATA_JSON, "[{\"email\": \"\"}]", "f: row 1: email, the key" },
        { DATA_JSON, "[{\"email\": \"a\\nb\"}]", "row 1: email is no text" },
        { DATA_JSON, "[{\"email\": \"a\", \"email\": \"b\"}]", "duplicate object key" },
        { DATA_JSON, "[{\"email\": \"a\"}, {\"email\": \"b\"}, {\"email\": \"A\"}]",
          "row 3: email a stands in row 1, too" },
        { DATA_JSON, "[{\"email\": \"a\", \"\": 1}]", "row 1: the name of a field" },
        { DATA_JSON, "[{\"email\": \"a\", \"x\": [[]]}]", "row 1: x is neither" },
        { DATA_JSON, "[{\"email\": \"a\", \"x\": 9007199254740993}]",
          "row 1: x is a number too large" },
        { DATA_CSV, "", "f:1: no first line" },
        { DATA_CSV, "email,email\n", "f:1: two columns are named email" },
        { DATA_CSV, "email,\n", "f:1: the first line has" },
        { DATA_CSV, "email,ok:bool\na,yes\n", "f:2: ok is no true or false" },
        { DATA_CSV, "email,n:float\na,1\n", "f:1: behind the colon of n:float stands neither" },
        { DATA_CSV, "email,n:number:bool\na,1\n", "f:1: behind the colon of n:number" },
        { DATA_CSV, "email,n:number\na,0x10\n", "f:2: n is no number" },
        { DATA_CSV, "email,n:number\na,\"5,1\"\n", "f:2: n is no number" },
        { DATA_CSV, "email\na\n\nb\nA\n", "f:5: email a stands in row 1, too" },
        { DATA_CSV, "email\n\xff\n", "f:2: email is no UTF-8 text" },
        { DATA_CSV, "email,x\na,\"b\nc\"\n", "f:3: x is no text" },
    };

    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        struct data_rows *rows = NULL;
        char said[DIAG_LINE];

        assert_int_not_equal(read_rows(cases[i].text, cases[i].format, &rows, said), ERR_OK);
        assert_null(rows);
        if (strstr(said, cases[i].says) == NULL) {
            fail_msg("case %zu: \"%s\" is not in \"%s\"", i, cases[i].says, said);
        }
    }
}

static void sizes_have_their_bounds(void **state)
{
    CLEANUP(buf_deinit) struct buf text;
    struct data_rows *rows = NULL;
    char said[DIAG_LINE];

    (void)state;
    buf_init(&text, DATA_BYTES_MAX);
    buf_add_str(&text, "email\n");
    for (int i = 0; i < DATA_ROWS_MAX; i++) {
        buf_printf(&text, "u%d\n", i);
    }
    assert_int_equal(read_rows(buf_cstr(&text), DATA_CSV, &rows, said), ERR_OK);
    assert_int_equal(rows->count, DATA_ROWS_MAX);
    data_rows_free(&rows);
    buf_add_str(&text, "one-more\n");
    assert_int_equal(read_rows(buf_cstr(&text), DATA_CSV, &rows, said), ERR_LIMIT);
    assert_string_equal(said, "f:100002: more than 100000 rows");
    buf_reset(&text);
    buf_add_str(&text, "[{\"email\":\"a\"");
    for (int i = 0; i < DATA_FIELDS_MAX; i++) {
        buf_printf(&text, ",\"f%d\":1", i);
    }
    buf_add_str(&text, "}]");
    assert_int_equal(read_rows(buf_cstr(&text), DATA_JSON, &rows, said), ERR_INVALID);
    assert_string_equal(said, "f: row 1: more than 64 fields");
}

static void only_names_of_somebodys_own_are_external(void **state)
{
    static const char *const good[] = { "acme.test/posture", "a.b/c/d_e-f.1", "notpomerium.io/x" };
    static const char *const bad[] = { "",
                                       "posture",
                                       "acme.test/",
                                       "/x",
                                       "acme/x",
                                       "a.b/c d",
                                       "pomerium.io/DirectoryUser",
                                       "x.Pomerium.IO/y",
                                       "postern.io/ProviderCopy",
                                       "POSTERN.io/SessionAccess",
                                       "type.googleapis.com/session.Session",
                                       "a.b/c\n" };

    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(good); i++) {
        assert_true(data_type_is_external(sv_from(good[i])));
    }
    for (size_t i = 0; i < ARRAY_LEN(bad); i++) {
        assert_false(data_type_is_external(sv_from(bad[i])));
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(both_formats_store_the_same_row),
        cmocka_unit_test(a_list_is_stored_value_by_value),
        cmocka_unit_test(what_is_wrong_is_said_with_its_place),
        cmocka_unit_test(sizes_have_their_bounds),
        cmocka_unit_test(only_names_of_somebodys_own_are_external),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
