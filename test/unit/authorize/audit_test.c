/* audit: the line of a decision says who it was as the replica has it now, however often it is
 * written. */
#include "authorize/audit.h"

#include <string.h>

#include "databroker.pb-c.h"
#include "session.pb-c.h"
#include "user.pb-c.h"

#include "common/mem.h"
#include "test/support/cmocka.h"

#define HEAD \
    "{\"time\":\"1970-01-01T00:00:01.234Z\",\"service\":\"postern\",\"event\":\"authorize check\""
#define YES                                                                                   \
    ",\"decision\":\"allow\",\"reasons\":[\"user-ok\"],\"allow\":true,\"allow-why-true\":[\"" \
    "user-ok\"],\"deny\":false,\"deny-why-false\":[]"
#define NO                                                                                \
    ",\"decision\":\"deny\",\"reasons\":[\"user-unauthorized\"],\"allow\":false,\"allow-" \
    "why-false\":[\"user-unauthorized\"],\"deny\":false,\"deny-why-false\":[]"
#define REQUEST ",\"request-id\":\"r\",\"method\":\"GET\",\"host\":\"a.b\",\"path\":\"/\""
#define TAIL    ",\"route-id\":\"\"}\n"

static void put(struct authz_replica *replica, const char *type, const char *id,
                const ProtobufCMessage *m, uint64_t version)
{
    Google__Protobuf__Any any = GOOGLE__PROTOBUF__ANY__INIT;
    Databroker__Record record = DATABROKER__RECORD__INIT;
    uint8_t bytes[4096];

    assert_true(protobuf_c_message_get_packed_size(m) <= sizeof(bytes));
    any.value.data = bytes;
    any.value.len = protobuf_c_message_pack(m, bytes);
    any.type_url = base_unconst(type);
    record.type = base_unconst(type);
    record.id = base_unconst(id);
    record.version = version;
    record.data = &any;
    authz_replica_apply(replica, &record);
}

static void put_session(struct authz_replica *replica, const char *id, const char *user,
                        const char *acts_as, uint64_t version)
{
    Session__Session m = SESSION__SESSION__INIT;

    m.id = base_unconst(id);
    m.user_id = base_unconst(user);
    if (acts_as != NULL) {
        m.has_impersonate_session_id_case =
            SESSION__SESSION__HAS_IMPERSONATE_SESSION_ID_IMPERSONATE_SESSION_ID;
        m.impersonate_session_id = base_unconst(acts_as);
    }
    put(replica, AUTHZ_TYPE_SESSION, id, &m.base, version);
}

static void put_user(struct authz_replica *replica, const char *id, const char *email,
                     uint64_t version)
{
    User__User m = USER__USER__INIT;

    m.id = base_unconst(id);
    m.email = base_unconst(email);
    put(replica, AUTHZ_TYPE_USER, id, &m.base, version);
}

static void remove_record(struct authz_replica *replica, const char *type, const char *id,
                          uint64_t version)
{
    Google__Protobuf__Timestamp now = GOOGLE__PROTOBUF__TIMESTAMP__INIT;
    Databroker__Record record = DATABROKER__RECORD__INIT;

    record.type = base_unconst(type);
    record.id = base_unconst(id);
    record.version = version;
    record.deleted_at = &now;
    authz_replica_apply(replica, &record);
}

static ProtobufCBinaryData bytes_of(struct sv s)
{
    return (ProtobufCBinaryData){ .len = s.n, .data = base_unconst(s.p) };
}

static struct authz_outcome outcome_of(const struct authz_replica *replica, const char *session,
                                       bool allow)
{
    enum policy_reason reason = allow ? POLICY_REASON_USER_OK : POLICY_REASON_USER_UNAUTHORIZED;
    struct authz_outcome o = { .decision = allow ? AUTHZ_ALLOW : AUTHZ_DENY,
                               .reasons = POLICY_REASON_BIT(reason) };

    o.verdict.allow = allow;
    o.verdict.allow_reasons = o.reasons;
    o.replica = replica;
    o.session = authz_replica_session(replica, sv_from(session));
    o.effective =
        o.session == NULL ? NULL : authz_replica_effective(replica, o.session, /*now_s=*/1);
    return o;
}

/* Writes the line of a check twice: who reads it sees no difference. */
static void check_line(const struct authz_replica *replica, const char *session, bool allow,
                       struct sv ip, const char *expected)
{
    Postern__CheckRequest req = POSTERN__CHECK_REQUEST__INIT;
    struct authz_outcome o = outcome_of(replica, session, allow);

    req.session = base_unconst(session);
    req.request_id = bytes_of(SV("r"));
    req.method = bytes_of(SV("GET"));
    req.host = bytes_of(SV("a.b"));
    req.path = bytes_of(SV("/"));
    req.client_ip = bytes_of(ip);
    for (int i = 0; i < 2; i++) {
        struct buf out;

        buf_init(&out, 65536);
        authz_audit_line(&out, &req, &o, 1234, &(struct config_log_fields){ .given = false });
        assert_int_equal(out.err, ERR_OK);
        assert_string_equal(buf_cstr(&out), expected);
        buf_deinit(&out);
    }
}

#define LOCAL SV("\x7f\x00\x00\x01")
#define WHO(session, user, email)                                           \
    ",\"ip\":\"127.0.0.1\",\"session-id\":\"" session "\",\"user\":\"" user \
    "\",\"email\":\"" email "\""

static void the_line_says_who_it_is_now(void **state)
{
    struct authz_replica *replica = authz_replica_new();

    (void)state;
    check_line(replica, "s", false, LOCAL, HEAD NO REQUEST WHO("s", "", "") TAIL);
    put_session(replica, "s", "ann", NULL, 1);
    check_line(replica, "s", true, LOCAL, HEAD YES REQUEST WHO("s", "ann", "") TAIL);
    put_user(replica, "ann", "ann@a.b", 2);
    check_line(replica, "s", true, LOCAL, HEAD YES REQUEST WHO("s", "ann", "ann@a.b") TAIL);
    put_user(replica, "ann", "an\"n@a.b", 3);
    check_line(replica, "s", true, LOCAL, HEAD YES REQUEST WHO("s", "ann", "an\\\"n@a.b") TAIL);
    put_session(replica, "s", "bob", NULL, 4);
    check_line(replica, "s", false, LOCAL, HEAD NO REQUEST WHO("s", "bob", "") TAIL);
    put_user(replica, "bob", "bob@a.b", 5);
    check_line(replica, "s", true, LOCAL, HEAD YES REQUEST WHO("s", "bob", "bob@a.b") TAIL);
    remove_record(replica, AUTHZ_TYPE_USER, "bob", 6);
    check_line(replica, "s", true, LOCAL, HEAD YES REQUEST WHO("s", "bob", "") TAIL);
    remove_record(replica, AUTHZ_TYPE_SESSION, "s", 7);
    check_line(replica, "s", false, LOCAL, HEAD NO REQUEST WHO("s", "", "") TAIL);
    authz_replica_free(&replica);
}

static void the_line_of_who_acts_for_another_names_both(void **state)
{
    static const char both[] =
        HEAD YES REQUEST WHO("s", "ann", "ann@a.b") ",\"impersonate-session-id\":\"t\"" TAIL;
    struct authz_replica *replica = authz_replica_new();

    (void)state;
    put_user(replica, "ann", "ann@a.b", 1);
    put_session(replica, "t", "ann", NULL, 2);
    put_session(replica, "s", "eve", NULL, 3);
    check_line(replica, "t", true, LOCAL, HEAD YES REQUEST WHO("t", "ann", "ann@a.b") TAIL);
    check_line(replica, "s", true, LOCAL, HEAD YES REQUEST WHO("s", "eve", "") TAIL);
    put_session(replica, "s", "eve", "t", 4);
    check_line(replica, "s", true, LOCAL, both);
    put_session(replica, "s", "eve", NULL, 5);
    check_line(replica, "s", true, LOCAL, HEAD YES REQUEST WHO("s", "eve", "") TAIL);
    authz_replica_free(&replica);
}

static void addresses_are_written_in_their_shortest_form(void **state)
{
    static const struct {
        struct sv ip;
        const char *text;
    } rows[] = {
        { { "\x0a\x63\x64\xff", 4 }, "10.99.100.255" },
        { { "\x00\x09\xc8\x65", 4 }, "0.9.200.101" },
        { { "\x20\x01\x0d\xb8\0\0\0\0\0\0\0\0\0\0\0\x01", 16 }, "2001:db8::1" },
        { { "", 0 }, "" },
    };
    struct authz_replica *replica = authz_replica_new();

    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
        struct buf expected;

        buf_init(&expected, 4096);
        buf_printf(&expected,
                   HEAD YES REQUEST
                   ",\"ip\":\"%s\",\"session-id\":\"\",\"user\":\"\",\"email\":\"\"" TAIL,
                   rows[i].text);
        check_line(replica, "", true, rows[i].ip, buf_cstr(&expected));
        buf_deinit(&expected);
    }
    authz_replica_free(&replica);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_line_says_who_it_is_now),
        cmocka_unit_test(the_line_of_who_acts_for_another_names_both),
        cmocka_unit_test(addresses_are_written_in_their_shortest_form),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
