/* Rows of a store, from whoever can write its file or its database: sealed data that was changed, planted or
 * moved never opens, a key that is none is not taken, and what PostgreSQL's protocol carries is read within
 * its bounds. The first byte chooses. */
#include <libpq-fe.h>
#include <string.h>

#include "common/crypto/keys.h"
#include "common/mem.h"
#include "databroker/keyring.h"
#include "databroker/store_pg_conn.h"
#include "databroker/wire.h"

enum { COLUMNS = 7, ROWS_MAX = 64 };

/* NOLINTNEXTLINE(readability-identifier-naming): libFuzzer names it */
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* Plain data of before is not believed any more. */
static struct broker_keyring *ring_with_a_key(void)
{
    CLEANUP(broker_records_deinit) struct broker_records made = { .items = NULL };
    static const char bytes[KEYS_SECRET_BYTES] = "a secret of thirty-two bytes...";
    struct secret *secret = secret_new(sv_of(bytes, sizeof(bytes)));
    const struct secret *const secrets[] = { secret };
    struct broker_keyring *ring = broker_keyring_new(secrets, 1);
    bool old = false;

    broker_records_init(&made);
    CHECK(broker_keyring_make(ring, true, &made) == ERR_OK);
    CHECK(broker_keyring_take(ring, &made.items[0], &old, NULL) == ERR_OK && !old);
    secret_free(&secret);
    return ring;
}

/* Bytes that nobody sealed. */
static void planted(struct sv bytes)
{
    static struct broker_keyring *ring;
    CLEANUP(buf_deinit) struct buf copy = { 0 };
    struct broker_record record = { .type = SV("t"), .id = SV("i"), .data_type = SV("d") };
    bool old = false;

    ring = ring != NULL ? ring : ring_with_a_key();
    buf_init(&copy, bytes.n + 1);
    buf_add_sv(&copy, bytes);
    record.data = buf_sv(&copy);
    CHECK(broker_keyring_open(ring, &record) != ERR_OK);
    record.type = SV(BROKER_TYPE_KEY);
    record.id = sv_head(bytes, MIN(bytes.n, (size_t)8));
    record.data = sv_from_at(bytes, record.id.n);
    CHECK(broker_keyring_take(ring, &record, &old, NULL) != ERR_OK);
}

/* What was sealed, with some of its bytes changed: it opens if none was. */
static void changed(struct sv mask)
{
    static struct broker_keyring *ring;
    CLEANUP(buf_deinit) struct buf sealed = { 0 };
    struct broker_record record = {
        .type = SV("t"), .id = SV("i"), .data_type = SV("d"), .data = SV("what was written")
    };
    const struct sv written = record.data;
    bool same = true;
    size_t i = 0;

    ring = ring != NULL ? ring : ring_with_a_key();
    buf_init(&sealed, BROKER_DATA_MAX);
    CHECK(broker_keyring_seal(ring, &record, &sealed) == ERR_OK);
    for (i = 0; i < sealed.n && i < mask.n; i++) {
        sealed.p[i] = (char)(sealed.p[i] ^ mask.p[i]);
        same = same && mask.p[i] == 0;
    }
    record.data = buf_sv(&sealed);
    if (broker_keyring_open(ring, &record) == ERR_OK) {
        CHECK(same && sv_eq(record.data, written));
    } else {
        CHECK(!same);
    }
}

/* A column: its length in one byte, 255 for NULL; then its bytes. */
static void set_column(PGresult *result, int row, int at, struct sv *bytes)
{
    size_t n = bytes->n == 0 ? 0 : (unsigned char)bytes->p[0];
    CLEANUP(mem_free) char *copy = NULL;

    *bytes = sv_from_at(*bytes, MIN(bytes->n, (size_t)1));
    if (n == 255) {
        CHECK(PQsetvalue(result, row, at, NULL, -1) != 0);
        return;
    }
    n = MIN(n, bytes->n);
    copy = mem_alloc(n + 1);
    memcpy(copy, n == 0 ? "" : bytes->p, n);
    CHECK(PQsetvalue(result, row, at, copy, (int)n) != 0);
    *bytes = sv_from_at(*bytes, n);
}

static void rows(struct sv bytes)
{
    CLEANUP(broker_records_deinit) struct broker_records out = { .items = NULL };
    PGresult *result = PQmakeEmptyPGresult(NULL, PGRES_TUPLES_OK);
    PGresAttDesc columns[COLUMNS] = { { .name = NULL } };
    char name[] = "c";
    int row = 0;
    int at = 0;

    for (at = 0; at < COLUMNS; at++) {
        columns[at] = (PGresAttDesc){ .name = name, .format = 1 };
    }
    CHECK(result != NULL && PQsetResultAttrs(result, COLUMNS, columns) != 0);
    broker_records_init(&out);
    for (row = 0; row < ROWS_MAX && bytes.n > 0; row++) {
        struct broker_record record;

        for (at = 0; at < COLUMNS; at++) {
            set_column(result, row, at, &bytes);
        }
        broker_pg_record(result, row, &record);
        if (broker_records_fit(&out, &record, ROWS_MAX)) {
            Databroker__Record message;

            broker_records_add(&out, &record);
            broker_wire_record(&out.arena, &out.items[out.count - 1], &message);
            (void)broker_record_end_us(&out.items[out.count - 1]);
        }
    }
    PQclear(result);
}

/* NOLINTNEXTLINE(readability-identifier-naming): libFuzzer names it */
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (size == 0) {
        return 0;
    }
    const struct sv rest = sv_of(data + 1, size - 1);

    switch (data[0] % 3) {
    case 0:
        planted(rest);
        break;
    case 1:
        changed(rest);
        break;
    default:
        rows(rest);
        break;
    }
    return 0;
}
