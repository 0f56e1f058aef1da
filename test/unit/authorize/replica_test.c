/* replica: a service account is its user until it ends, and never a session. What is packed comes out
 * as it went in, whatever changed around it. */
#include "authorize/replica.h"

#include <stdio.h>

#include "access.pb-c.h"
#include "session.pb-c.h"
#include "user.pb-c.h"

#include "common/clock.h"
#include "common/mem.h"
#include "test/support/cmocka.h"

enum { NAMES = 32 };

struct world {
    struct authz_replica *replica;
    uint64_t version;
    char changed[NAMES][64];
    size_t n_changed;
};

static void on_changed(void *arg, struct sv session)
{
    struct world *w = arg;

    assert_true(w->n_changed < NAMES && session.n < sizeof(w->changed[0]));
    __builtin_memcpy(w->changed[w->n_changed], session.p, session.n);
    w->changed[w->n_changed++][session.n] = '\0';
}

static void world_init(struct world *w)
{
    *w = (struct world){ .replica = authz_replica_new() };
    authz_replica_on_change(w->replica, on_changed, w);
}

/* m NULL: it is deleted. */
static void put(struct world *w, const char *type, const char *id, const ProtobufCMessage *m)
{
    Databroker__Record record = DATABROKER__RECORD__INIT;
    Google__Protobuf__Any any = GOOGLE__PROTOBUF__ANY__INIT;
    Google__Protobuf__Timestamp now = GOOGLE__PROTOBUF__TIMESTAMP__INIT;
    uint8_t bytes[1024];

    record.type = base_unconst(type);
    record.id = base_unconst(id);
    record.version = ++w->version;
    if (m == NULL) {
        record.deleted_at = &now;
    } else {
        assert_true(protobuf_c_message_get_packed_size(m) <= sizeof(bytes));
        any.value.data = bytes;
        any.value.len = protobuf_c_message_pack(m, bytes);
        record.data = &any;
    }
    authz_replica_apply(w->replica, &record);
}

static void put_account(struct world *w, const char *id, const char *user, int64_t life_s)
{
    User__ServiceAccount m = USER__SERVICE_ACCOUNT__INIT;
    Google__Protobuf__Timestamp end = GOOGLE__PROTOBUF__TIMESTAMP__INIT;

    m.id = base_unconst(id);
    m.user_id = base_unconst(user);
    end.seconds = clock_wall_s() + life_s;
    m.expires_at = life_s == 0 ? NULL : &end;
    put(w, AUTHZ_TYPE_ACCOUNT, id, &m.base);
}

static bool lives(const struct world *w, const char *id)
{
    const struct authz_session *s = authz_replica_session(w->replica, sv_from(id));

    return s != NULL && authz_session_live(s, clock_wall_s());
}

static struct authz_who who_of(const struct world *w, const char *id)
{
    const struct authz_session *s = authz_replica_session(w->replica, sv_from(id));

    assert_non_null(s);
    return (struct authz_who){ .replica = w->replica, .person = s->person, .session = s };
}

static bool belongs_to(const struct world *w, const char *session, const char *user)
{
    return sv_eq(authz_person_id(who_of(w, session).person), sv_from(user));
}

static void an_account_is_its_user_until_it_ends(void **state)
{
    struct world w;
    User__User user = USER__USER__INIT;
    struct policy_input in = { .session = false };

    (void)state;
    world_init(&w);
    user.id = base_unconst("robot");
    user.email = base_unconst("robot@example.com");
    put(&w, AUTHZ_TYPE_USER, "robot", &user.base);
    put_account(&w, "a-1", "robot", 600);
    put_account(&w, "a-2", "robot", -1);
    put_account(&w, "a-3", "", 600);
    put_account(&w, "a-4", "robot", 0);
    assert_true(lives(&w, "service-account/a-1"));
    struct authz_who who = who_of(&w, "service-account/a-1");

    authz_who_input(&who, &in);
    assert_true(sv_eq(in.user_id.s, SV("robot")) && sv_eq(in.email.s, SV("robot@example.com")));
    assert_false(lives(&w, "service-account/a-2"));
    assert_false(lives(&w, "service-account/a-3"));
    assert_true(lives(&w, "service-account/a-4"));
    put(&w, AUTHZ_TYPE_ACCOUNT, "a-1", NULL);
    assert_false(lives(&w, "service-account/a-1"));
    assert_int_equal(w.n_changed, 1);
    assert_string_equal(w.changed[0], "service-account/a-1");
    authz_replica_free(&w.replica);
}

static void neither_kind_passes_for_the_other(void **state)
{
    Session__Session session = SESSION__SESSION__INIT;
    struct world w;

    (void)state;
    world_init(&w);
    session.user_id = base_unconst("ann");
    put_account(&w, "a-1", "robot", 600);
    put(&w, AUTHZ_TYPE_SESSION, "service-account/a-1", &session.base);
    put(&w, AUTHZ_TYPE_SESSION, "service-account/a-2", &session.base);
    put(&w, AUTHZ_TYPE_SESSION, "a-3", &session.base);
    put_account(&w, "a-3", "robot", 600);
    assert_false(lives(&w, "a-1"));
    assert_false(lives(&w, "service-account/a-2"));
    assert_true(belongs_to(&w, "a-3", "ann"));
    put(&w, AUTHZ_TYPE_SESSION, "a-1", NULL);
    put(&w, AUTHZ_TYPE_SESSION, "service-account/a-1", NULL);
    put(&w, AUTHZ_TYPE_ACCOUNT, "a-3", NULL);
    assert_true(lives(&w, "a-3"));
    assert_true(belongs_to(&w, "service-account/a-1", "robot"));
    authz_replica_free(&w.replica);
}

/* --- what is packed --------------------------------------------------------------------------- */

static Google__Protobuf__Value text_value(const char *text)
{
    Google__Protobuf__Value v = GOOGLE__PROTOBUF__VALUE__INIT;

    v.kind_case = GOOGLE__PROTOBUF__VALUE__KIND_STRING_VALUE;
    v.string_value = base_unconst(text);
    return v;
}

static Google__Protobuf__Value number_value(double number)
{
    Google__Protobuf__Value v = GOOGLE__PROTOBUF__VALUE__INIT;

    v.kind_case = GOOGLE__PROTOBUF__VALUE__KIND_NUMBER_VALUE;
    v.number_value = number;
    return v;
}

enum { VALUES_MAX = 8, CLAIMS_MAX = 8, SHARERS = 20 };

/* Claims as a message has them; a name may come twice. */
struct claims {
    Google__Protobuf__Value values[CLAIMS_MAX][VALUES_MAX];
    Google__Protobuf__Value *pointers[CLAIMS_MAX][VALUES_MAX];
    Google__Protobuf__ListValue lists[CLAIMS_MAX];
    Session__Session__ClaimsEntry of_session[CLAIMS_MAX];
    Session__Session__ClaimsEntry *session[CLAIMS_MAX];
    User__User__ClaimsEntry of_user[CLAIMS_MAX];
    User__User__ClaimsEntry *user[CLAIMS_MAX];
    size_t n;
};

static void add(struct claims *c, const char *name, size_t n, const Google__Protobuf__Value *values)
{
    static const Google__Protobuf__ListValue list = GOOGLE__PROTOBUF__LIST_VALUE__INIT;
    size_t at = c->n++;

    for (size_t i = 0; i < n; i++) {
        c->values[at][i] = values[i];
        c->pointers[at][i] = &c->values[at][i];
    }
    c->lists[at] = list;
    c->lists[at].n_values = n;
    c->lists[at].values = c->pointers[at];
    session__session__claims_entry__init(&c->of_session[at]);
    user__user__claims_entry__init(&c->of_user[at]);
    c->of_session[at].key = c->of_user[at].key = base_unconst(name);
    c->of_session[at].value = c->of_user[at].value = &c->lists[at];
    c->session[at] = &c->of_session[at];
    c->user[at] = &c->of_user[at];
}

static void add_text(struct claims *c, const char *name, const char *text)
{
    Google__Protobuf__Value v = text_value(text);

    add(c, name, 1, &v);
}

static void put_session(struct world *w, const char *id, const char *user, struct claims *c)
{
    Session__Session m = SESSION__SESSION__INIT;

    m.id = base_unconst(id);
    m.user_id = base_unconst(user);
    m.claims = c->session;
    m.n_claims = c->n;
    put(w, AUTHZ_TYPE_SESSION, id, &m.base);
}

static void put_user(struct world *w, const char *id, const char *name, const char *email,
                     struct claims *c)
{
    User__User m = USER__USER__INIT;

    m.id = base_unconst(id);
    m.name = base_unconst(name);
    m.email = base_unconst(email);
    m.claims = c->user;
    m.n_claims = c->n;
    put(w, AUTHZ_TYPE_USER, id, &m.base);
}

static void put_directory(struct world *w, const char *id, const char *email, size_t n,
                          const char *const *groups)
{
    Google__Protobuf__Struct m = GOOGLE__PROTOBUF__STRUCT__INIT;
    Google__Protobuf__Struct__FieldsEntry entries[2] = {
        GOOGLE__PROTOBUF__STRUCT__FIELDS_ENTRY__INIT, GOOGLE__PROTOBUF__STRUCT__FIELDS_ENTRY__INIT
    };
    Google__Protobuf__Struct__FieldsEntry *fields[] = { &entries[0], &entries[1] };
    Google__Protobuf__Value mail = text_value(email);
    Google__Protobuf__Value list = GOOGLE__PROTOBUF__VALUE__INIT;
    Google__Protobuf__ListValue values = GOOGLE__PROTOBUF__LIST_VALUE__INIT;
    Google__Protobuf__Value one[VALUES_MAX];
    Google__Protobuf__Value *all[VALUES_MAX];

    for (size_t i = 0; i < n; i++) {
        one[i] = text_value(groups[i]);
        all[i] = &one[i];
    }
    values.n_values = n;
    values.values = all;
    list.kind_case = GOOGLE__PROTOBUF__VALUE__KIND_LIST_VALUE;
    list.list_value = &values;
    entries[0].key = base_unconst("email");
    entries[0].value = &mail;
    entries[1].key = base_unconst("group_ids");
    entries[1].value = &list;
    m.fields = fields;
    m.n_fields = ARRAY_LEN(fields);
    put(w, AUTHZ_TYPE_DIRECTORY, id, &m.base);
}

static const struct policy_claim *claim(const struct world *w, const char *session,
                                        const char *name)
{
    return authz_session_claim(w->replica, authz_replica_session(w->replica, sv_from(session)),
                               sv_from(name));
}

static bool claim_is(const struct world *w, const char *session, const char *name, const char *text)
{
    const struct policy_claim *c = claim(w, session, name);

    return c != NULL && c->count == 1 && c->values[0].kind == POLICY_KIND_STRING &&
           sv_eq(c->values[0].text.s, sv_from(text));
}

static void world_end(struct world *w)
{
    authz_replica_free(&w->replica);
}

static void claims_of_every_kind_come_out_as_they_went_in(void **state)
{
    static const double numbers[] = {
        0, 7, 1795000300.0, 9007199254740991.0, 9007199254740993.0, 2.5, -1.0, -0.0
    };
    Google__Protobuf__Value of_number[ARRAY_LEN(numbers)];
    Google__Protobuf__Value mixed[] = { GOOGLE__PROTOBUF__VALUE__INIT,
                                        GOOGLE__PROTOBUF__VALUE__INIT,
                                        GOOGLE__PROTOBUF__VALUE__INIT, text_value(""),
                                        text_value("5") };
    struct claims c = { .n = 0 };
    struct world w;

    (void)state;
    world_init(&w);
    for (size_t i = 0; i < ARRAY_LEN(numbers); i++) {
        of_number[i] = number_value(numbers[i]);
    }
    mixed[0].kind_case = GOOGLE__PROTOBUF__VALUE__KIND_BOOL_VALUE;
    mixed[0].bool_value = 1;
    mixed[1].kind_case = GOOGLE__PROTOBUF__VALUE__KIND_NULL_VALUE;
    add(&c, "numbers", ARRAY_LEN(numbers), of_number);
    add(&c, "mixed", ARRAY_LEN(mixed), mixed);
    add(&c, "none", 0, NULL);
    add_text(&c, "twice", "first");
    add_text(&c, "", "of no name");
    add_text(&c, "twice", "last");
    put_session(&w, "s", "ann", &c);
    const struct policy_claim *got = claim(&w, "s", "numbers");

    assert_int_equal(got->count, ARRAY_LEN(numbers));
    for (size_t i = 0; i < ARRAY_LEN(numbers); i++) {
        assert_int_equal(got->values[i].kind, POLICY_KIND_NUMBER);
        assert_memory_equal(&got->values[i].number, &numbers[i], sizeof(double));
    }
    got = claim(&w, "s", "mixed");
    assert_int_equal(got->count, ARRAY_LEN(mixed));
    assert_true(got->values[0].kind == POLICY_KIND_BOOL && got->values[0].flag);
    assert_int_equal(got->values[1].kind, POLICY_KIND_NULL);
    assert_int_equal(got->values[2].kind, POLICY_KIND_OTHER);
    assert_true(got->values[3].kind == POLICY_KIND_STRING && got->values[3].text.s.n == 0);
    assert_true(got->values[4].kind == POLICY_KIND_STRING && sv_eq(got->values[4].text.s, SV("5")));
    assert_int_equal(claim(&w, "s", "none")->count, 0);
    assert_true(claim_is(&w, "s", "twice", "last"));
    assert_true(claim_is(&w, "s", "", "of no name"));
    assert_null(claim(&w, "s", "absent"));
    assert_null(claim(&w, "s", "first")); /* a value is no name */
    world_end(&w);
}

static void a_person_keeps_its_sessions_when_it_changes(void **state)
{
    static const char *const groups[] = { "a", "b", "", "c" };
    struct claims none = { .n = 0 };
    struct world w;
    size_t n = 0;

    (void)state;
    world_init(&w);
    put_session(&w, "s-1", "ann", &none);
    put_session(&w, "s-2", "ann", &none);
    put_user(&w, "ann", "Ann", "ann@example.com", &none);
    put_directory(&w, "ann", "ann@example.com", ARRAY_LEN(groups), groups);
    const struct authz_person *p = who_of(&w, "s-1").person;

    assert_ptr_equal(p, who_of(&w, "s-2").person);
    assert_true(sv_eq(authz_person_email(p), SV("ann@example.com")));
    const struct policy_text *got = authz_person_groups(w.replica, p, &n);

    assert_int_equal(n, ARRAY_LEN(groups));
    for (size_t i = 0; i < n; i++) {
        assert_true(sv_eq(got[i].s, sv_from(groups[i])));
    }
    put_user(&w, "ann", "Ann B.", "ann.b@example.com", &none);
    p = who_of(&w, "s-1").person;
    assert_true(sv_eq(authz_person_text(p, AUTHZ_PERSON_EMAIL), SV("ann.b@example.com")));
    assert_true(sv_eq(authz_person_email(p), SV("ann@example.com"))); /* the directory's */
    put_directory(&w, "ann", "", 1, groups + 3);
    p = who_of(&w, "s-2").person;
    got = authz_person_groups(w.replica, p, &n);
    assert_int_equal(n, 1);
    assert_true(sv_eq(got[0].s, SV("c")));
    assert_true(sv_eq(authz_person_email(p), SV("ann.b@example.com")));
    put(&w, AUTHZ_TYPE_DIRECTORY, "ann", NULL);
    (void)authz_person_groups(w.replica, who_of(&w, "s-1").person, &n);
    assert_int_equal(n, 0);
    put(&w, AUTHZ_TYPE_SESSION, "s-2", NULL);
    assert_ptr_equal(who_of(&w, "s-1").person->sessions,
                     authz_replica_session(w.replica, SV("s-1")));
    world_end(&w);
}

static void what_many_share_outlives_each_of_them(void **state)
{
    struct claims c = { .n = 0 };
    struct world w;
    struct authz_replica_counts counts;

    (void)state;
    world_init(&w);
    add_text(&c, "iss", "https://issuer.example.com");
    add_text(&c, "sub", "ann");
    put_user(&w, "ann", "Ann", "", &c);
    put_session(&w, "s-1", "ann", &c);
    put_session(&w, "s-2", "ann", &c);
    assert_ptr_equal(who_of(&w, "s-1").session->claims, who_of(&w, "s-2").session->claims);
    assert_ptr_equal(who_of(&w, "s-1").session->claims, who_of(&w, "s-1").person->claims);
    put_user(&w, "ann", "Ann B.", "", &c); /* the claims are the same, and shared once more */
    assert_true(sv_eq(authz_person_id(who_of(&w, "s-1").person), SV("ann")));
    put(&w, AUTHZ_TYPE_USER, "ann", NULL);
    put(&w, AUTHZ_TYPE_SESSION, "s-1", NULL);
    assert_true(sv_eq(authz_person_id(who_of(&w, "s-2").person), SV("ann")));
    assert_true(claim_is(&w, "s-2", "sub", "ann"));
    assert_null(authz_person_claim(w.replica, who_of(&w, "s-2").person, SV("sub")));
    put(&w, AUTHZ_TYPE_SESSION, "s-2", NULL);
    authz_replica_count(w.replica, &counts);
    assert_int_equal(counts.sessions + counts.persons + counts.texts, 0);
    world_end(&w);
}

static void a_value_that_many_have_becomes_a_text_and_reads_the_same(void **state)
{
    struct world w;
    struct authz_replica_counts counts;
    char ids[SHARERS][16];

    (void)state;
    world_init(&w);
    for (size_t i = 0; i < SHARERS; i++) {
        struct claims c = { .n = 0 };

        (void)snprintf(ids[i], sizeof(ids[i]), "s-%zu", i);
        add_text(&c, "iss", "https://issuer.example.com");
        add_text(&c, "sub", ids[i]);
        put_session(&w, ids[i], ids[i], &c);
    }
    authz_replica_count(w.replica, &counts);
    assert_int_equal(counts.texts, 3); /* two names, and the issuer */
    for (size_t i = 0; i < SHARERS; i++) {
        assert_true(claim_is(&w, ids[i], "iss", "https://issuer.example.com"));
        assert_true(claim_is(&w, ids[i], "sub", ids[i]));
        put(&w, AUTHZ_TYPE_SESSION, ids[i], NULL);
    }
    authz_replica_count(w.replica, &counts);
    assert_int_equal(counts.texts, 0);
    world_end(&w);
}

static void a_record_that_says_the_same_again_changes_nothing(void **state)
{
    static const char *const groups[] = { "a" };
    struct claims c = { .n = 0 };
    struct world w;

    (void)state;
    world_init(&w);
    add_text(&c, "sub", "ann");
    put_session(&w, "s", "ann", &c);
    put_user(&w, "ann", "Ann", "", &c);
    put_directory(&w, "ann", "", 1, groups);
    uint64_t epoch = who_of(&w, "s").session->epoch;

    w.n_changed = 0;
    put_session(&w, "s", "ann", &c);
    put_user(&w, "ann", "Ann", "", &c);
    put_directory(&w, "ann", "", 1, groups);
    assert_int_equal(w.n_changed, 0);
    assert_int_equal(who_of(&w, "s").session->epoch, epoch);
    assert_int_equal(who_of(&w, "s").person->directory_version, w.version);
    put_directory(&w, "ann", "", 0, groups);
    assert_int_equal(w.n_changed, 1);
    assert_true(who_of(&w, "s").session->epoch > epoch);
    world_end(&w);
}

static void put_login(struct world *w, const char *id, int64_t ago_s)
{
    Session__Session m = SESSION__SESSION__INIT;
    Google__Protobuf__Timestamp issued = GOOGLE__PROTOBUF__TIMESTAMP__INIT;
    Google__Protobuf__Timestamp end = GOOGLE__PROTOBUF__TIMESTAMP__INIT;

    m.id = base_unconst(id);
    m.user_id = base_unconst("u");
    issued.seconds = clock_wall_s() - ago_s;
    end.seconds = clock_wall_s() + 86400;
    m.issued_at = &issued;
    m.accessed_at = &issued;
    m.expires_at = &end;
    put(w, AUTHZ_TYPE_SESSION, id, &m.base);
}

static void put_use(struct world *w, const char *id, int64_t ago_s)
{
    Postern__SessionAccess m = POSTERN__SESSION_ACCESS__INIT;
    Google__Protobuf__Timestamp at = GOOGLE__PROTOBUF__TIMESTAMP__INIT;

    at.seconds = clock_wall_s() - ago_s;
    m.accessed_at = &at;
    put(w, AUTHZ_TYPE_ACCESS, id, &m.base);
}

/* In seconds, to the nearest one or two. */
static bool unused_for(const struct world *w, const char *id, int64_t seconds)
{
    const struct authz_session *s = authz_replica_session(w->replica, sv_from(id));
    int64_t is_ms = authz_session_unused_ms(s, clock_mono_ms());

    return is_ms > seconds * 1000 - 2000 && is_ms < seconds * 1000 + 2000;
}

static void the_latest_use_of_a_session_counts_in_whatever_order_it_is_told(void **state)
{
    struct world w;

    (void)state;
    world_init(&w);
    put_login(&w, "s", 3600);
    assert_true(unused_for(&w, "s", 3600));
    put_use(&w, "s", 600);
    put_use(&w, "s", 900);
    assert_true(unused_for(&w, "s", 600));
    put_use(&w, "s", -50); /* another machine's clock is ahead */
    assert_true(unused_for(&w, "s", 0));
    put_use(&w, "t", 300); /* in a snapshot uses may come before their sessions */
    put_login(&w, "t", 3600);
    assert_true(unused_for(&w, "t", 300));
    put_login(&w, "t", 3500); /* changed: it was used as it was */
    assert_true(unused_for(&w, "t", 300));
    put_use(&w, "gone", 1);
    put(&w, AUTHZ_TYPE_ACCESS, "gone", NULL);
    put_login(&w, "gone", 3600);
    assert_true(unused_for(&w, "gone", 3600));
    assert_int_equal(w.n_changed, 1); /* no use is a change of the session; the one is t's */
    authz_replica_free(&w.replica);
}

static void a_use_is_told_of_once_a_minute(void **state)
{
    struct world w;
    const struct authz_session *s = NULL;
    int64_t now_ms = clock_mono_ms();

    (void)state;
    world_init(&w);
    put_login(&w, "s", 3600);
    s = authz_replica_session(w.replica, SV("s"));
    assert_true(authz_session_used(s, now_ms));
    assert_false(authz_session_used(s, now_ms + AUTHZ_ACCESS_EVERY_MS - 1000));
    assert_true(authz_session_used(s, now_ms + AUTHZ_ACCESS_EVERY_MS));
    put_login(&w, "new", 0);
    assert_false(authz_session_used(authz_replica_session(w.replica, SV("new")), now_ms));
    put_login(&w, "other", 3600);
    put_use(&w, "other", 0); /* another authorize has told of it */
    assert_false(authz_session_used(authz_replica_session(w.replica, SV("other")), now_ms));
    authz_replica_free(&w.replica);
}

static void an_end_outside_of_the_times_that_are_kept_is_the_nearest_one(void **state)
{
    enum { YEAR_S = 365 * 86400 };

    struct world w;

    (void)state;
    world_init(&w);
    put_account(&w, "late", "u", (int64_t)200 * YEAR_S);
    assert_true(lives(&w, "service-account/late"));
    assert_false(authz_session_live(authz_replica_session(w.replica, SV("service-account/late")),
                                    (int64_t)UINT32_MAX));
    put_account(&w, "early", "u", (int64_t)-100 * YEAR_S);
    assert_false(lives(&w, "service-account/early"));
    world_end(&w);
}

static void a_jump_of_the_wall_clock_makes_no_session_idle(void **state)
{
    struct world w;

    (void)state;
    world_init(&w);
    put_login(&w, "s", 60);
    clock_test_shift(7200000);
    assert_true(unused_for(&w, "s", 60));
    clock_test_shift(-14400000);
    assert_true(unused_for(&w, "s", 60));
    put_use(&w, "s", -7200); /* told before the clock was set back */
    assert_true(unused_for(&w, "s", 0));
    clock_test_shift(7200000);
    authz_replica_free(&w.replica);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(an_account_is_its_user_until_it_ends),
        cmocka_unit_test(neither_kind_passes_for_the_other),
        cmocka_unit_test(claims_of_every_kind_come_out_as_they_went_in),
        cmocka_unit_test(a_person_keeps_its_sessions_when_it_changes),
        cmocka_unit_test(what_many_share_outlives_each_of_them),
        cmocka_unit_test(a_value_that_many_have_becomes_a_text_and_reads_the_same),
        cmocka_unit_test(a_record_that_says_the_same_again_changes_nothing),
        cmocka_unit_test(the_latest_use_of_a_session_counts_in_whatever_order_it_is_told),
        cmocka_unit_test(a_use_is_told_of_once_a_minute),
        cmocka_unit_test(an_end_outside_of_the_times_that_are_kept_is_the_nearest_one),
        cmocka_unit_test(a_jump_of_the_wall_clock_makes_no_session_idle),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
