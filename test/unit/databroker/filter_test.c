/* filter: what a Query's filter says, and which records it means. */
#include "databroker/filter.h"

#include <stdio.h>
#include <string.h>

#include <jansson.h>

#include "session.pb-c.h"

#include "common/clock.h"
#include "common/mem.h"
#include "test/support/cmocka.h"

#define SESSION_URL "type.googleapis.com/session.Session"
#define STRUCT_URL  "type.googleapis.com/google.protobuf.Struct"

/* ---- JSON to the messages of a client --------------------------------------------------------- */

static Google__Protobuf__Value *value_of(struct arena *arena, json_t *json);

static Google__Protobuf__Struct *struct_of(struct arena *arena, json_t *json)
{
    Google__Protobuf__Struct *s = arena_alloc(arena, sizeof(*s));
    const char *key = NULL;
    json_t *value = NULL;

    google__protobuf__struct__init(s);
    s->fields = arena_alloc(arena, (json_object_size(json) + 1) * sizeof(void *));
    json_object_foreach(json, key, value)
    {
        Google__Protobuf__Struct__FieldsEntry *entry = arena_alloc(arena, sizeof(*entry));

        google__protobuf__struct__fields_entry__init(entry);
        entry->key = arena_str(arena, sv_from(key));
        entry->value = value_of(arena, value);
        s->fields[s->n_fields++] = entry;
    }
    return s;
}

static Google__Protobuf__ListValue *list_of(struct arena *arena, const json_t *json)
{
    Google__Protobuf__ListValue *list = arena_alloc(arena, sizeof(*list));

    google__protobuf__list_value__init(list);
    list->values = arena_alloc(arena, (json_array_size(json) + 1) * sizeof(void *));
    for (size_t i = 0; i < json_array_size(json); i++) {
        list->values[list->n_values++] = value_of(arena, json_array_get(json, i));
    }
    return list;
}

static Google__Protobuf__Value *value_of(struct arena *arena, json_t *json)
{
    Google__Protobuf__Value *value = arena_alloc(arena, sizeof(*value));

    google__protobuf__value__init(value);
    value->kind_case = GOOGLE__PROTOBUF__VALUE__KIND_NULL_VALUE;
    if (json_is_string(json)) {
        value->kind_case = GOOGLE__PROTOBUF__VALUE__KIND_STRING_VALUE;
        value->string_value = arena_str(arena, sv_from(json_string_value(json)));
    } else if (json_is_number(json)) {
        value->kind_case = GOOGLE__PROTOBUF__VALUE__KIND_NUMBER_VALUE;
        value->number_value = json_number_value(json);
    } else if (json_is_boolean(json)) {
        value->kind_case = GOOGLE__PROTOBUF__VALUE__KIND_BOOL_VALUE;
        value->bool_value = json_is_true(json);
    } else if (json_is_array(json)) {
        value->kind_case = GOOGLE__PROTOBUF__VALUE__KIND_LIST_VALUE;
        value->list_value = list_of(arena, json);
    } else if (json_is_object(json)) {
        value->kind_case = GOOGLE__PROTOBUF__VALUE__KIND_STRUCT_VALUE;
        value->struct_value = struct_of(arena, json);
    }
    return value;
}

static Google__Protobuf__Struct *parsed(struct arena *arena, const char *text)
{
    json_error_t error;
    json_t *json = json_loads(text, 0, &error);
    Google__Protobuf__Struct *s = NULL;

    if (json == NULL) {
        fail_msg("%s: %s", text, error.text);
    }
    s = struct_of(arena, json);
    json_decref(json);
    return s;
}

/* ---- records ----------------------------------------------------------------------------------- */

static struct sv packed(struct arena *arena, const ProtobufCMessage *m)
{
    size_t n = protobuf_c_message_get_packed_size(m);
    uint8_t *bytes = arena_alloc(arena, n + 1);

    (void)protobuf_c_message_pack(m, bytes);
    return sv_of(bytes, n);
}

static struct broker_record struct_record(struct arena *arena, const char *id, const char *json)
{
    return (struct broker_record){ .type = SV("acme.test/x"),
                                   .id = sv_from(id),
                                   .data_type = SV(STRUCT_URL),
                                   .data = packed(arena, &parsed(arena, json)->base) };
}

static struct broker_record session_record(struct arena *arena)
{
    Session__Session s = SESSION__SESSION__INIT;
    Session__OAuthToken token = SESSION__OAUTH_TOKEN__INIT;
    Session__Session__ClaimsEntry entry = SESSION__SESSION__CLAIMS_ENTRY__INIT;
    Session__Session__ClaimsEntry *claims[] = { &entry };
    Google__Protobuf__Timestamp expires = GOOGLE__PROTOBUF__TIMESTAMP__INIT;
    char *audience[] = { base_unconst("one"), base_unconst("two") };
    json_t *groups = json_pack("[s, s]", "admins", "staff");

    s.id = base_unconst("s1");
    s.user_id = base_unconst("ann");
    expires.seconds = 1700000000;
    expires.nanos = 500000000;
    s.expires_at = &expires;
    token.access_token = base_unconst("secret");
    s.oauth_token = &token;
    entry.key = base_unconst("groups");
    entry.value = list_of(arena, groups);
    json_decref(groups);
    s.claims = claims;
    s.n_claims = 1;
    s.audience = audience;
    s.n_audience = 2;
    s.refresh_disabled = true;
    return (struct broker_record){ .type = SV(SESSION_URL),
                                   .id = SV("s1"),
                                   .data_type = SV(SESSION_URL),
                                   .data = packed(arena, &s.base) };
}

static enum err ask(struct arena *arena, const char *text, const struct broker_record *record,
                    bool *match_out, struct diag *d)
{
    CLEANUP(broker_filter_run_deinit) struct broker_filter_run run = { .steps = 0 };
    const struct broker_filter *filter = NULL;
    enum err err = broker_filter_read(parsed(arena, text), arena, &filter, d);

    if (err != ERR_OK) {
        return err;
    }
    broker_filter_run_init(&run, clock_mono_ms() + 60000, d);
    return broker_filter_match(filter, record, &run, match_out);
}

static void expect(struct arena *arena, const struct broker_record *record, const char *filter,
                   bool expected)
{
    CLEANUP(mem_free) char *inverse = NULL;
    struct diag d = { .text = "" };
    bool match = !expected;
    bool opposite = expected;

    if (ask(arena, filter, record, &match, &d) != ERR_OK || match != expected) {
        fail_msg("%s is not %d: %s", filter, expected, d.text);
    }
    inverse = mem_alloc(strlen(filter) + 16);
    (void)snprintf(inverse, strlen(filter) + 16, "{\"$not\": %s}", filter);
    if (ask(arena, inverse, record, &opposite, &d) != ERR_OK || opposite == expected) {
        fail_msg("%s is %d, too", inverse, expected);
    }
}

struct expectation {
    const char *filter;
    bool match;
};

/* Single quotes for double ones. */
static const struct expectation about_a_struct[] = {
    { "{'name': 'Ann'}", true },
    { "{'name': 'ann'}", false },
    { "{'name': ['Bob', 'Ann']}", true },
    { "{'name': []}", false },
    { "{'nothing': 'Ann'}", false },
    { "{'a': {'b': 'deep'}}", true },
    { "{'a': {'b': {'c': 'deep'}}}", false },
    { "{'a': 'deep'}", false },
    { "{'name': {'$eq': 'Ann'}}", true },
    { "{'name': {'=': 'Ann'}}", true },
    { "{'name': {'==': 'Ann'}}", true },
    { "{'name': {'$equals': 'Ann'}}", true },
    { "{'name': {'$is': 'Ann'}}", true },
    { "{'name': {'!=': 'Ann'}}", false },
    { "{'name': {'$doesNotEqual': 'Bob'}}", true },
    { "{'nothing': {'!=': 'Bob'}}", true },
    { "{'name': {'$contains': 'n'}}", true },
    { "{'name': {'$contains': 'N'}}", false },
    { "{'name': {'$doesNotContain': 'x'}}", true },
    { "{'name': {'$startsWith': 'An'}}", true },
    { "{'name': {'$startsWith': 'nn'}}", false },
    { "{'name': {'$endsWith': 'nn'}}", true },
    { "{'name': {'$endsWith': 'Ann Ann'}}", false },
    { "{'name': {'$isAnyOf': ['x', 'Ann']}}", true },
    { "{'name': {'$isAnyOf': 'Ann'}}", true },
    { "{'name': {'$isAnyOf': []}}", false },
    { "{'empty': {'$isEmpty': true}}", true },
    { "{'null': {'$isEmpty': true}}", true },
    { "{'nothing': {'$isEmpty': ''}}", true },
    { "{'none': {'$isEmpty': true}}", true },
    { "{'name': {'$isNotEmpty': true}}", true },
    { "{'groups': {'$isNotEmpty': true}}", true },
    { "{'a': {'$isNotEmpty': true}}", true },
    { "{'nothing': null}", true },
    { "{'name': null}", false },
    { "{'groups': 'staff'}", true },
    { "{'groups': 'nobody'}", false },
    { "{'list': {'x': 2}}", true },
    { "{'n': 5}", true },
    { "{'n': '5'}", true },
    { "{'n': 5.5}", false },
    { "{'n': {'>': 4, '<': 6}}", true },
    { "{'n': {'>=': 5, '<=': 5}}", true },
    { "{'n': {'>': 5}}", false },
    { "{'n': {'>': 10}}", false }, /* numbers, not texts */
    { "{'n': {'<': '10'}}", true },
    { "{'half': {'>': 0.4}}", true },
    { "{'n': 'x'}", false },
    { "{'digits': 5}", true },
    { "{'yes': true}", true },
    { "{'yes': 'true'}", true },
    { "{'yes': false}", false },
    { "{'no': false}", true },
    { "{'name': {'<': 'B', '>': 'A'}}", true },
    { "{'when': {'$after': '2024-05-01T00:00:00Z'}}", true },
    { "{'when': {'$before': '2024-05-01T14:00:00+02:00'}}", false },
    { "{'when': {'$onOrBefore': '2024-05-01T14:00:00+02:00'}}", true },
    { "{'when': {'$onOrAfter': '2024-05-01T12:00:00.000001Z'}}", false },
    { "{'name': {'$after': '2024-05-01'}}", false },
    { "{'id': 'r1'}", true },
    { "{'id': {'$startsWith': 'r'}}", true },
    { "{'type': 'acme.test/x'}", true },
    { "{'$and': [{'name': 'Ann'}, {'n': 5}]}", true },
    { "{'$and': [{'name': 'Ann'}, {'n': 6}]}", false },
    { "{'$or': [{'name': 'Bob'}, {'n': 5}]}", true },
    { "{'$or': [{'name': 'Bob'}, {'n': 6}]}", false },
    { "{'$or': []}", false },
    { "{'name': {'$or': ['Bob', {'$startsWith': 'A'}]}}", true },
    { "{'name': {'$not': 'Bob'}}", true },
    { "{'name': 'Ann', 'n': 6}", false },
    { "{'$or': [{'id': 'r1'}, {'$index': 'r1'}]}", true },
    { "{'$index': '10.1.2.3'}", true },
    { "{'$index': '10.1.0.0/16'}", true },
    { "{'$index': '10.0.0.0/8'}", true },
    { "{'$index': '10.0.0.0/7'}", false },
    { "{'$index': '11.1.2.3'}", false },
    { "{'$index': 'nonsense'}", false },
    { "{'$index': ['nonsense', '10.9.9.9']}", true },
    { "{'$index': {'cidr': '10.0.0.0/8'}}", true },
};

static void a_structs_fields_are_compared(void **state)
{
    CLEANUP(arena_deinit) struct arena arena = { 0 };
    struct broker_record record = { .version = 0 };

    (void)state;
    arena_init(&arena);
    record = struct_record(
        &arena, "r1",
        "{\"name\": \"Ann\", \"a\": {\"b\": \"deep\"}, \"empty\": \"\", \"null\": null, "
        "\"none\": [], \"groups\": [\"admins\", \"staff\"], \"n\": 5, \"half\": 0.5, "
        "\"digits\": \"5\", \"list\": [{\"x\": 1}, {\"x\": 2}], \"yes\": true, "
        "\"no\": false, \"when\": \"2024-05-01T12:00:00Z\", "
        "\"$index\": {\"cidr\": \"10.0.0.0/8\"}}");
    for (size_t i = 0; i < ARRAY_LEN(about_a_struct); i++) {
        char *text = arena_str(&arena, sv_from(about_a_struct[i].filter));

        for (char *p = text; *p != '\0'; p++) {
            *p = *p == '\'' ? '"' : *p;
        }
        expect(&arena, &record, text, about_a_struct[i].match);
    }
}

static void a_messages_fields_are_compared(void **state)
{
    static const struct expectation cases[] = {
        { "{\"user_id\": \"ann\"}", true },
        { "{\"user_id\": \"bob\"}", false },
        { "{\"audience\": \"two\"}", true },
        { "{\"audience\": \"three\"}", false },
        { "{\"claims\": {\"groups\": \"staff\"}}", true },
        { "{\"claims\": {\"groups\": {\"$startsWith\": \"ad\"}}}", true },
        { "{\"claims\": {\"none\": \"staff\"}}", false },
        { "{\"claims\": {\"$isNotEmpty\": true}}", true },
        { "{\"device_credentials\": {\"$isEmpty\": true}}", true },
        { "{\"oauth_token\": {\"access_token\": \"secret\"}}", true },
        { "{\"oauth_token\": {\"$isNotEmpty\": true}}", true },
        { "{\"id_token\": {\"issuer\": \"x\"}}", false },
        { "{\"id_token\": {\"$isEmpty\": true}}", true },
        { "{\"impersonate_session_id\": {\"$isEmpty\": true}}", true },
        { "{\"refresh_disabled\": true}", true },
        { "{\"expires_at\": {\"$before\": \"2023-11-14T22:13:21Z\"}}", true },
        { "{\"expires_at\": {\"$after\": \"2023-11-14T22:13:20.4Z\"}}", true },
        { "{\"expires_at\": {\">\": \"2023-11-14T22:13:20.6Z\"}}", false },
        { "{\"expires_at\": \"2023-11-14T22:13:20.5Z\"}", true },
        { "{\"expires_at\": {\">\": 1700000000}}", true },
        { "{\"expires_at\": {\"seconds\": 1700000000}}", true },
        { "{\"issued_at\": {\"$before\": \"2030-01-01\"}}", false },
    };
    CLEANUP(arena_deinit) struct arena arena = { 0 };
    struct broker_record record = { .version = 0 };

    (void)state;
    arena_init(&arena);
    record = session_record(&arena);
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        expect(&arena, &record, cases[i].filter, cases[i].match);
    }
}

static void what_is_not_known_is_said(void **state)
{
    CLEANUP(arena_deinit) struct arena arena = { 0 };
    struct broker_record session = { .version = 0 };
    struct broker_record foreign = { .type = SV("t"), .id = SV("1"), .data_type = SV("x/y.Z") };
    struct diag d = { .text = "" };
    bool match = true;

    (void)state;
    arena_init(&arena);
    session = session_record(&arena);
    assert_int_equal(ask(&arena, "{\"email\": \"x\"}", &session, &match, &d), ERR_UNSUPPORTED);
    assert_false(match);
    assert_non_null(strstr(d.text, "session.Session has no field 'email'"));
    assert_int_equal(ask(&arena, "{\"user_id\": {\"x\": \"y\"}}", &session, &match, &d),
                     ERR_UNSUPPORTED);
    assert_int_equal(ask(&arena, "{\"name\": \"x\"}", &foreign, &match, &d), ERR_UNSUPPORTED);
    assert_int_equal(ask(&arena, "{\"id\": \"1\"}", &foreign, &match, &d), ERR_OK);
    assert_true(match);
    assert_int_equal(ask(&arena, "{\"$index\": \"10.0.0.1\"}", &foreign, &match, &d), ERR_OK);
    assert_false(match);
}

static void damaged_data_matches_nothing(void **state)
{
    static const char *const filters[] = { "{\"user_id\": \"x\"}", "{\"user_id\": {\"!=\": \"x\"}}",
                                           "{\"user_id\": null}" };
    CLEANUP(arena_deinit) struct arena arena = { 0 };
    const struct broker_record record = {
        .type = SV(SESSION_URL), .id = SV("1"), .data_type = SV(SESSION_URL), .data = SV("\x1a\x05")
    };

    (void)state;
    arena_init(&arena);
    for (size_t i = 0; i < ARRAY_LEN(filters); i++) {
        bool match = true;

        assert_int_equal(ask(&arena, filters[i], &record, &match, NULL), ERR_OK);
        assert_false(match);
    }
}

static void nonsense_is_refused(void **state)
{
    static const struct {
        const char *filter;
        enum err err;
    } cases[] = {
        { "{\"$eq\": \"x\"}", ERR_INVALID },
        { "{\"a\": {}}", ERR_INVALID },
        { "{\"\": \"x\"}", ERR_INVALID },
        { "{\"$and\": {\"a\": \"x\"}}", ERR_INVALID },
        { "{\"$or\": \"x\"}", ERR_INVALID },
        { "{\"$and\": []}", ERR_INVALID },
        { "{\"$not\": \"x\"}", ERR_INVALID },
        { "{\"a\": {\"$eq\": {\"b\": \"c\"}}}", ERR_INVALID },
        { "{\"a\": {\"$eq\": [\"b\"]}}", ERR_INVALID },
        { "{\"a\": {\"$contains\": null}}", ERR_INVALID },
        { "{\"a\": {\"$isAnyOf\": [[\"b\"]]}}", ERR_INVALID },
        { "{\"a\": {\"$after\": \"yesterday\"}}", ERR_INVALID },
        { "{\"a\": {\"$isEmpty\": false}}", ERR_INVALID },
        { "{\"a\": {\"$regex\": \"x\"}}", ERR_UNSUPPORTED },
        { "{\"$nor\": []}", ERR_UNSUPPORTED },
        { "{\"$Index\": \"10.0.0.1\"}", ERR_UNSUPPORTED },
    };
    CLEANUP(arena_deinit) struct arena arena = { 0 };
    const struct broker_record record = { .type = SV("t"), .id = SV("1") };

    (void)state;
    arena_init(&arena);
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        struct diag d = { .text = "" };
        bool match = true;

        if (ask(&arena, cases[i].filter, &record, &match, &d) != cases[i].err) {
            fail_msg("%s", cases[i].filter);
        }
        assert_true(strlen(d.text) > 0);
    }
}

static enum err read_only(struct arena *arena, json_t *json)
{
    const struct broker_filter *filter = NULL;
    Google__Protobuf__Struct *message = struct_of(arena, json);

    json_decref(json);
    return broker_filter_read(message, arena, &filter, NULL);
}

static void a_filter_is_bounded(void **state)
{
    CLEANUP(arena_deinit) struct arena arena = { 0 };
    CLEANUP(mem_free) char *text = mem_alloc(BROKER_FILTER_BYTES + 1);
    json_t *list = json_array();
    json_t *deep = json_string("x");
    json_t *nots = json_pack("{s:s}", "a", "x");

    (void)state;
    arena_init(&arena);
    for (size_t i = 0; i < BROKER_FILTER_NODES; i++) {
        assert_int_equal(json_array_append_new(list, json_string("x")), 0);
    }
    assert_int_equal(read_only(&arena, json_pack("{s:{s:O}}", "a", "$isAnyOf", list)), ERR_LIMIT);
    assert_int_equal(read_only(&arena, json_pack("{s:o}", "a", list)), ERR_LIMIT);
    for (size_t i = 0; i <= BROKER_FILTER_DEPTH; i++) {
        deep = json_pack("{s:o}", "a", deep);
        nots = json_pack("{s:o}", "$not", nots);
    }
    assert_int_equal(read_only(&arena, deep), ERR_LIMIT);
    assert_int_equal(read_only(&arena, nots), ERR_LIMIT);
    memset(text, 'x', BROKER_FILTER_BYTES);
    text[BROKER_FILTER_BYTES] = '\0';
    assert_int_equal(read_only(&arena, json_pack("{s:s}", "a", text)), ERR_LIMIT);
    assert_int_equal(read_only(&arena, json_pack("{s:s}", text, "a")), ERR_LIMIT);
}

static void looking_ends_at_its_deadline(void **state)
{
    CLEANUP(arena_deinit) struct arena arena = { 0 };
    CLEANUP(broker_filter_run_deinit) struct broker_filter_run run = { .steps = 0 };
    const struct broker_filter *filter = NULL;
    struct broker_record record = { .version = 0 };
    bool match = false;
    enum err err = ERR_OK;

    (void)state;
    arena_init(&arena);
    record = struct_record(&arena, "r", "{\"a\": \"x\"}");
    assert_int_equal(broker_filter_read(parsed(&arena, "{\"a\": \"x\"}"), &arena, &filter, NULL),
                     ERR_OK);
    broker_filter_run_init(&run, clock_mono_ms() - 1, NULL);
    for (size_t i = 0; i < 100000 && err == ERR_OK; i++) {
        err = broker_filter_match(filter, &record, &run, &match);
    }
    assert_int_equal(err, ERR_TIMEOUT);
    assert_false(match);
}

static void what_asks_for_ids_is_read_by_them(void **state)
{
    static const struct {
        const char *filter;
        const char *ids; /* NULL: any */
    } cases[] = {
        { "{\"id\": \"a\"}", "a," },
        { "{\"id\": [\"b\", \"a\", \"b\"]}", "a,b," },
        { "{\"id\": {\"$isAnyOf\": [\"c\", \"a\"]}}", "a,c," },
        { "{\"id\": []}", "" },
        { "{\"id\": \"a\", \"name\": \"x\"}", "a," },
        { "{\"name\": \"x\", \"id\": \"a\"}", "a," },
        { "{\"$or\": [{\"id\": \"a\"}, {\"$index\": \"a\"}]}", "a," },
        { "{\"$or\": [{\"id\": \"a\"}, {\"id\": \"b\", \"n\": 1}]}", "a,b," },
        { "{\"$and\": [{\"n\": 1}, {\"$or\": [{\"id\": \"a\"}]}]}", "a," },
        { "{\"$or\": [{\"id\": \"10.0.0.1\"}, {\"$index\": \"10.0.0.1\"}]}", NULL },
        { "{\"$or\": [{\"id\": \"a\"}, {\"name\": \"x\"}]}", NULL },
        { "{\"$not\": {\"id\": \"a\"}}", NULL },
        { "{\"id\": {\"!=\": \"a\"}}", NULL },
        { "{\"id\": {\">\": \"a\"}}", NULL },
        { "{\"id\": {\"$startsWith\": \"a\"}}", NULL },
        { "{\"id\": {\"x\": \"a\"}}", NULL },
        { "{\"name\": \"x\"}", NULL },
    };
    CLEANUP(arena_deinit) struct arena arena = { 0 };

    (void)state;
    arena_init(&arena);
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        const struct broker_filter *filter = NULL;
        const struct sv *ids = NULL;
        size_t n = 0;
        char text[64] = "";
        bool known = false;

        assert_int_equal(broker_filter_read(parsed(&arena, cases[i].filter), &arena, &filter, NULL),
                         ERR_OK);
        known = broker_filter_ids(filter, &arena, &ids, &n);
        for (size_t k = 0; k < n; k++) {
            size_t at = strlen(text);

            (void)snprintf(text + at, sizeof(text) - at, "%.*s,", SV_ARG(ids[k]));
        }
        if (known != (cases[i].ids != NULL) || (known && strcmp(text, cases[i].ids) != 0)) {
            fail_msg("%s: %s", cases[i].filter, known ? text : "any");
        }
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_structs_fields_are_compared),
        cmocka_unit_test(a_messages_fields_are_compared),
        cmocka_unit_test(what_is_not_known_is_said),
        cmocka_unit_test(damaged_data_matches_nothing),
        cmocka_unit_test(nonsense_is_refused),
        cmocka_unit_test(a_filter_is_bounded),
        cmocka_unit_test(looking_ends_at_its_deadline),
        cmocka_unit_test(what_asks_for_ids_is_read_by_them),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
