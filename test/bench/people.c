/* people: fills a databroker's SQLite file with people as logins leave them: for each a user, a
 * directory user with 20 of 2,000 groups, and a session, in the order in which they would have come.
 * Session i has the id that people_id(2 * i + 1) makes; sessions.py makes the same. The data is sealed as
 * the databroker seals it. */
#include <endian.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <sqlite3.h>

#include "common/buf.h"
#include "common/mem.h"
#include "common/rpc/wire.h"
#include "common/secret.h"
#include "databroker/keyring.h"
#include "databroker/store.h"

enum { GROUPS = 20, ALL_GROUPS = 2000, RECORD_MAX = 64 * 1024, ID_SIZE = 37 };

#define TYPE_SESSION "type.googleapis.com/session.Session"
#define TYPE_USER    "type.googleapis.com/user.User"
#define TYPE_PERSON  "pomerium.io/DirectoryUser"
#define TYPE_STRUCT  "type.googleapis.com/google.protobuf.Struct"
#define ISSUER       "https://login.example.com/realms/company"
#define FAR          4102444800U /* 2100 */

struct person {
    char user[ID_SIZE];
    char session[ID_SIZE];
    char name[64];
    char email[96];
    char login[64];
    const char *given;
    const char *family;
    char groups[GROUPS][16];
    uint64_t seed;
};

struct filling {
    sqlite3 *db;
    sqlite3_stmt *put;
    uint64_t version;
    struct broker_keyring *ring;
    struct buf record;
    struct buf sealed;
    struct buf entry;
    struct buf list;
    struct buf value;
};

/* splitmix64 (Steele, Lea, Flood 2014). */
static uint64_t mix(uint64_t *seed)
{
    uint64_t z = (*seed += UINT64_C(0x9e3779b97f4a7c15));

    z = (z ^ (z >> 30U)) * UINT64_C(0xbf58476d1ce4e5b9);
    z = (z ^ (z >> 27U)) * UINT64_C(0x94d049bb133111eb);
    return z ^ (z >> 31U);
}

static void people_id(uint64_t number, char out[ID_SIZE])
{
    uint64_t seed = number << 20U;
    uint64_t a = mix(&seed);
    uint64_t b = mix(&seed);

    (void)snprintf(out, ID_SIZE, "%08x-%04x-4%03x-8%03x-%012llx", (unsigned)(a >> 32U),
                   (unsigned)(a >> 16U & 0xffff), (unsigned)(a & 0xfff),
                   (unsigned)(b >> 52U & 0xfff), (unsigned long long)(b & 0xffffffffffff));
}

static void person_make(struct person *p, uint64_t i)
{
    static const char *const given[] = { "Ada",  "Bob",  "Chloe", "Dmitri", "Elena", "Farid",
                                         "Gita", "Hans", "Ines",  "Jorge",  "Keiko", "Lars" };
    static const char *const family[] = { "Anders",  "Bianchi", "Costa",  "Dupont", "Eriksson",
                                          "Fischer", "Garcia",  "Hansen", "Ivanov", "Jansen" };

    people_id(2 * i, p->user);
    people_id(2 * i + 1, p->session);
    p->seed = i;
    p->given = given[mix(&p->seed) % ARRAY_LEN(given)];
    p->family = family[mix(&p->seed) % ARRAY_LEN(family)];
    (void)snprintf(p->name, sizeof(p->name), "%s %s", p->given, p->family);
    (void)snprintf(p->login, sizeof(p->login), "%c%s%llu", p->given[0], p->family,
                   (unsigned long long)i);
    (void)snprintf(p->email, sizeof(p->email), "%s.%s%llu@example.com", p->given, p->family,
                   (unsigned long long)i);
    for (size_t k = 0; k < GROUPS; k++) {
        (void)snprintf(p->groups[k], sizeof(p->groups[k]), "team-%04u",
                       (unsigned)(mix(&p->seed) % ALL_GROUPS));
    }
}

/* --- protobuf ---------------------------------------------------------------------------------- */

static void add_bytes(struct buf *out, uint32_t number, struct sv bytes)
{
    rpc_wire_add_head(out, number, bytes.n);
    buf_add_sv(out, bytes);
}

static void add_text(struct buf *out, uint32_t number, const char *text)
{
    add_bytes(out, number, sv_from(text));
}

static void add_time(struct buf *out, uint32_t number, uint64_t seconds)
{
    char room[RPC_WIRE_FIELD_MAX];
    char *end = rpc_wire_put_number(room, 1, seconds);

    add_bytes(out, number, sv_of(room, (size_t)(end - room)));
}

/* Value{string_value = 3} as field number of out. */
static void add_value(struct filling *f, struct buf *out, uint32_t number, const char *text)
{
    buf_reset(&f->value);
    add_text(&f->value, 3, text);
    add_bytes(out, number, buf_sv(&f->value));
}

static void add_number(struct buf *out, uint32_t number, double v)
{
    char room[RPC_WIRE_FIELD_MAX];
    uint64_t bits = 0;

    memcpy(&bits, &v, sizeof(bits));
    char *end = rpc_wire_put_fixed(room, 2, bits);

    add_bytes(out, number, sv_of(room, (size_t)(end - room)));
}

/* The claim whose ListValue stands in f->list. */
static void end_claim(struct filling *f, const char *name)
{
    buf_reset(&f->entry);
    add_text(&f->entry, 1, name);
    add_bytes(&f->entry, 2, buf_sv(&f->list));
    add_bytes(&f->record, 9, buf_sv(&f->entry));
    buf_reset(&f->list);
}

static void text_claim(struct filling *f, const char *name, const char *text)
{
    add_value(f, &f->list, 1, text);
    end_claim(f, name);
}

static void number_claim(struct filling *f, const char *name, double v)
{
    add_number(&f->list, 1, v);
    end_claim(f, name);
}

static void add_groups(struct filling *f, const struct person *p)
{
    for (size_t k = 0; k < GROUPS; k++) {
        add_value(f, &f->list, 1, p->groups[k]);
    }
}

static void add_claims(struct filling *f, const struct person *p)
{
    static const char yes[] = { 0x20, 1 }; /* Value{bool_value = 4} */

    text_claim(f, "iss", ISSUER);
    text_claim(f, "aud", "postern");
    text_claim(f, "azp", "postern");
    text_claim(f, "sub", p->user);
    number_claim(f, "exp", 1795000300.0 + (double)(p->seed % 100000));
    number_claim(f, "iat", 1795000000.0 + (double)(p->seed % 100000));
    number_claim(f, "auth_time", 1795000000.0 + (double)(p->seed % 100000));
    text_claim(f, "email", p->email);
    add_bytes(&f->list, 1, sv_of(yes, sizeof(yes)));
    end_claim(f, "email_verified");
    text_claim(f, "name", p->name);
    text_claim(f, "preferred_username", p->login);
    text_claim(f, "given_name", p->given);
    text_claim(f, "family_name", p->family);
    add_groups(f, p);
    end_claim(f, "groups");
}

static void add_issuer(struct filling *f)
{
    buf_reset(&f->entry);
    add_text(&f->entry, 1, ISSUER);
    add_bytes(&f->record, 6, buf_sv(&f->entry));
}

/* --- the file ---------------------------------------------------------------------------------- */

static void put(struct filling *f, const char *type, const char *id, const char *data_type)
{
    const struct broker_record record = { .type = sv_from(type),
                                          .id = sv_from(id),
                                          .data_type = sv_from(data_type),
                                          .data = buf_sv(&f->record) };

    CHECK(f->record.err == ERR_OK);
    buf_reset(&f->sealed);
    CHECK(broker_keyring_seal(f->ring, &record, &f->sealed) == ERR_OK);
    (void)sqlite3_bind_int64(f->put, 1, (sqlite3_int64)++f->version);
    (void)sqlite3_bind_text(f->put, 2, type, -1, SQLITE_STATIC);
    (void)sqlite3_bind_text(f->put, 3, id, -1, SQLITE_STATIC);
    (void)sqlite3_bind_int64(f->put, 4, (sqlite3_int64)f->version + 1795000000000000);
    (void)sqlite3_bind_text(f->put, 5, data_type, -1, SQLITE_STATIC);
    (void)sqlite3_bind_blob(f->put, 6, f->sealed.p, (int)f->sealed.n, SQLITE_STATIC);
    CHECK(sqlite3_step(f->put) == SQLITE_DONE);
    (void)sqlite3_reset(f->put);
    buf_reset(&f->record);
}

static void put_user(struct filling *f, const struct person *p)
{
    add_text(&f->record, 2, p->user);
    add_text(&f->record, 3, p->name);
    add_text(&f->record, 4, p->email);
    add_claims(f, p);
    put(f, TYPE_USER, p->user, TYPE_USER);
}

static void add_field(struct filling *f, const char *name, const char *text)
{
    buf_reset(&f->entry);
    add_text(&f->entry, 1, name);
    add_value(f, &f->entry, 2, text);
    add_bytes(&f->record, 1, buf_sv(&f->entry));
}

static void put_directory(struct filling *f, const struct person *p)
{
    add_field(f, "id", p->user);
    add_field(f, "email", p->email);
    add_field(f, "display_name", p->name);
    add_groups(f, p);
    buf_reset(&f->entry);
    add_text(&f->entry, 1, "group_ids");
    buf_reset(&f->value);
    add_bytes(&f->value, 6, buf_sv(&f->list)); /* Value{list_value = 6} */
    add_bytes(&f->entry, 2, buf_sv(&f->value));
    add_bytes(&f->record, 1, buf_sv(&f->entry));
    buf_reset(&f->list);
    put(f, TYPE_PERSON, p->user, TYPE_STRUCT);
}

static void put_session(struct filling *f, const struct person *p)
{
    add_text(&f->record, 2, p->session);
    add_text(&f->record, 3, p->user);
    add_time(&f->record, 4, FAR);
    add_issuer(f);
    add_claims(f, p);
    add_time(&f->record, 14, 1795000000);
    add_time(&f->record, 18, 1795000000);
    add_text(&f->record, 20, "company");
    add_time(&f->record, 1001, 1795000000);
    put(f, TYPE_SESSION, p->session, TYPE_SESSION);
}

static bool run(sqlite3 *db, const char *sql)
{
    bool fine = sqlite3_exec(db, sql, NULL, NULL, NULL) == SQLITE_OK;

    if (!fine) {
        (void)fprintf(stderr, "people: %s: %s\n", sql, sqlite3_errmsg(db));
    }
    return fine;
}

/* The file and its data key, as the store itself makes them. */
static bool make_store(const char *file, const struct secret *secret)
{
    const struct broker_store_opts opts = {
        .target = file, .beneath = &broker_store_sqlite, .secrets = { secret }, .n_secrets = 1
    };
    struct broker_store *store = NULL;
    struct diag d = { .text = "" };

    if (broker_store_sealed.open(&opts, &store, &d) != ERR_OK) {
        (void)fprintf(stderr, "people: %s\n", d.text);
        return false;
    }
    broker_store_sealed.close(&store);
    return true;
}

static struct sv column(sqlite3_stmt *stmt, int i)
{
    const void *p = sqlite3_column_blob(stmt, i);

    return sv_of(p, (size_t)sqlite3_column_bytes(stmt, i));
}

static bool take_key(struct filling *f, const struct secret *secret)
{
    const struct secret *const secrets[] = { secret };
    sqlite3_stmt *stmt = NULL;
    struct diag d = { .text = "" };
    bool old = false;

    f->ring = broker_keyring_new(secrets, 1);
    if (sqlite3_prepare_v2(f->db,
                           "SELECT version, id, modified_us, data_type, data FROM records WHERE "
                           "type = '" BROKER_TYPE_KEY "'",
                           -1, &stmt, NULL) != SQLITE_OK ||
        sqlite3_step(stmt) != SQLITE_ROW) {
        return false;
    }
    const struct broker_record key = { .version = (uint64_t)sqlite3_column_int64(stmt, 0),
                                       .type = SV(BROKER_TYPE_KEY),
                                       .id = column(stmt, 1),
                                       .modified_us = sqlite3_column_int64(stmt, 2),
                                       .data_type = column(stmt, 3),
                                       .data = column(stmt, 4) };
    enum err err = broker_keyring_take(f->ring, &key, &old, &d);

    f->version = key.version;
    (void)sqlite3_finalize(stmt);
    return err == ERR_OK;
}

static bool fill(struct filling *f, uint64_t n)
{
    char sql[128];

    if (!run(f->db, "PRAGMA synchronous=OFF; PRAGMA cache_size=-1000000; BEGIN") ||
        sqlite3_prepare_v2(f->db,
                           "INSERT INTO records (version, type, id, modified_us, data_type, data) "
                           "VALUES (?1, ?2, ?3, ?4, ?5, ?6)",
                           -1, &f->put, NULL) != SQLITE_OK) {
        return false;
    }
    for (uint64_t i = 0; i < n; i++) {
        struct person p;

        person_make(&p, i);
        put_user(f, &p);
        put_directory(f, &p);
        put_session(f, &p);
    }
    (void)sqlite3_finalize(f->put);
    (void)snprintf(sql, sizeof(sql),
                   "DELETE FROM changes; UPDATE store SET latest_version = %llu, log_floor = %llu",
                   (unsigned long long)f->version, (unsigned long long)f->version);
    return run(f->db, sql) && run(f->db, "COMMIT; PRAGMA wal_checkpoint(TRUNCATE)");
}

int main(int argc, char **argv)
{
    struct filling f = { .version = 0 };
    uint64_t n = argc == 3 ? strtoull(argv[2], NULL, 10) : 0;
    const char *text = getenv("SHARED_SECRET"); /* NOLINT(concurrency-mt-unsafe): one thread */
    struct secret *secret = NULL;
    bool fine = false;

    if (n == 0 || text == NULL || secret_from_b64(sv_from(text), &secret) != ERR_OK) {
        (void)fprintf(stderr, "usage: SHARED_SECRET=base64 bench-people FILE COUNT\n");
        return 2;
    }
    buf_init(&f.record, RECORD_MAX);
    buf_init(&f.sealed, RECORD_MAX);
    buf_init(&f.entry, RECORD_MAX);
    buf_init(&f.list, RECORD_MAX);
    buf_init(&f.value, RECORD_MAX);
    fine = make_store(argv[1], secret) && sqlite3_open(argv[1], &f.db) == SQLITE_OK &&
           take_key(&f, secret) && fill(&f, n);
    (void)sqlite3_close(f.db);
    broker_keyring_free(&f.ring);
    secret_free(&secret);
    buf_deinit(&f.record);
    buf_deinit(&f.sealed);
    buf_deinit(&f.entry);
    buf_deinit(&f.list);
    buf_deinit(&f.value);
    return fine ? 0 : 1;
}
