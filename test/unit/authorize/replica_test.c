/* replica: a service account is its user until it ends, and never a session. */
#include "authorize/replica.h"

#include "session.pb-c.h"
#include "user.pb-c.h"

#include "common/clock.h"
#include "common/mem.h"
#include "test/support/cmocka.h"

enum { NAMES = 8 };

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
    authz_session_input(authz_replica_session(w.replica, SV("service-account/a-1")), &in);
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
    assert_true(sv_eq(authz_replica_session(w.replica, SV("a-3"))->person->id.s, SV("ann")));
    put(&w, AUTHZ_TYPE_SESSION, "a-1", NULL);
    put(&w, AUTHZ_TYPE_SESSION, "service-account/a-1", NULL);
    put(&w, AUTHZ_TYPE_ACCOUNT, "a-3", NULL);
    assert_true(lives(&w, "a-3"));
    assert_true(sv_eq(authz_replica_session(w.replica, SV("service-account/a-1"))->person->id.s,
                      SV("robot")));
    authz_replica_free(&w.replica);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(an_account_is_its_user_until_it_ends),
        cmocka_unit_test(neither_kind_passes_for_the_other),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
