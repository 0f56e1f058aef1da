/* Records of the databroker as authorize takes them in: a sync answer of any bytes, then each of its
 * records again as every kind that counts. Who a session belongs to is always known, and nothing of
 * a record stays when it is deleted. */
#include "authorize/replica.h"
#include "common/arena.h"
#include "common/rpc/scan.h"
#include "test/fuzz/http_must.h"

/* NOLINTNEXTLINE(readability-identifier-naming): libFuzzer names it */
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

enum { NOW_S = 1700000000 };

static char session_type[] = AUTHZ_TYPE_SESSION;
static char user_type[] = AUTHZ_TYPE_USER;
static char directory_type[] = AUTHZ_TYPE_DIRECTORY;
static char *const types[] = { session_type, user_type, directory_type };

/* An id goes into a record as a char *, which protobuf-c wants even of what it only reads. */
static char ids[][2] = { "a", "b" };

static void look(const struct authz_replica *replica)
{
    size_t i = 0;

    for (i = 0; i < ARRAY_LEN(ids); i++) {
        const struct authz_session *s = authz_replica_session(replica, sv_from(ids[i]));
        const struct authz_session *effective = NULL;
        struct policy_input in = { .session = false };

        if (s == NULL) {
            continue;
        }
        must(s->person != NULL && sv_eq(authz_session_id(s), sv_from(ids[i])) && s->version != 0);
        effective = authz_replica_effective(replica, s, NOW_S);
        if (effective != NULL) {
            struct authz_who who = { replica, effective->person, effective };
            size_t n = 0;

            authz_who_input(&who, &in);
            (void)in.find_groups(in.groups_arg, &n);
            must(in.session && n <= AUTHZ_GROUPS_MAX);
            (void)in.user_claims.find(in.user_claims.arg, SV("a"));
            (void)in.session_claims.find(in.session_claims.arg, SV(""));
        }
    }
}

static void put(struct authz_replica *replica, struct sv value, size_t type, uint64_t version)
{
    Google__Protobuf__Any any = GOOGLE__PROTOBUF__ANY__INIT;
    Databroker__Record record = DATABROKER__RECORD__INIT;

    any.type_url = types[type];
    any.value.data = (uint8_t *)base_unconst(value.p);
    any.value.len = value.n;
    record.type = types[type];
    record.id = ids[version % ARRAY_LEN(ids)];
    record.version = version;
    record.data = &any;
    authz_replica_apply(replica, &record);
}

static void take_away(struct authz_replica *replica, uint64_t version)
{
    Google__Protobuf__Timestamp at = GOOGLE__PROTOBUF__TIMESTAMP__INIT;
    size_t i = 0;
    size_t k = 0;

    for (i = 0; i < ARRAY_LEN(types); i++) {
        for (k = 0; k < ARRAY_LEN(ids); k++) {
            Databroker__Record record = DATABROKER__RECORD__INIT;

            record.type = types[i];
            record.id = ids[k];
            record.version = ++version;
            record.deleted_at = &at;
            authz_replica_apply(replica, &record);
        }
    }
}

/* NOLINTNEXTLINE(readability-identifier-naming): libFuzzer names it */
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct authz_replica *replica = authz_replica_new();
    struct authz_replica_counts counts = { .sessions = 0 };
    struct sv rest = sv_of(data, size);
    uint64_t version = 0;

    /* A byte chooses the kind, the next says how long the record is. */
    while (rest.n > 2 && version < 64) {
        size_t n = MIN((size_t)(unsigned char)rest.p[1] * 4, rest.n - 2);

        put(replica, sv_of(rest.p + 2, n), (unsigned char)rest.p[0] % ARRAY_LEN(types), ++version);
        look(replica);
        rest = sv_from_at(rest, n + 2);
    }
    must(authz_replica_version(replica) == version);
    take_away(replica, version);
    authz_replica_count(replica, &counts);
    must(counts.sessions == 0 && counts.persons == 0 && counts.texts == 0);
    authz_replica_free(&replica);
    return 0;
}
