#include "databroker/store_pg_conn.h"

#include <endian.h>
#include <poll.h>
#include <pthread.h>
#include <stdio.h>
#include <string.h>

#include "common/buf.h"
#include "common/clock.h"
#include "common/log.h"
#include "common/mem.h"
#include "databroker/store_pg_sql.h"

enum {
    ARGS_MAX = 8,
    PARAMS_MAX = 64, /* of a connection string, ours included */
    SETUP_MS = 5000, /* for the session's settings and the statements */
    NOISE_PER_S = 5,
    OID_BYTEA = 17, /* pg_type.dat; the same for all who speak the protocol */
    OID_BIGINT = 20,
    OID_TEXT = 25
};

/* Of all connections; only the rate of log lines depends on it. */
static struct log_limit noise;
static pthread_mutex_t noise_mutex = PTHREAD_MUTEX_INITIALIZER;

static bool may_log(void)
{
    bool may = false;

    (void)pthread_mutex_lock(&noise_mutex);
    may = log_limit_pass(&noise, NOISE_PER_S);
    (void)pthread_mutex_unlock(&noise_mutex);
    return may;
}

/* ---- what the server says -------------------------------------------------------------------- */

/* PostgreSQL's Appendix A; a class is the first two characters. */
static enum err err_of(const char *state)
{
    static const struct {
        const char *state;
        enum err err;
    } known[] = {
        { "40001", ERR_AGAIN },       /* serialization_failure */
        { "40P01", ERR_AGAIN },       /* deadlock_detected */
        { "40003", ERR_UNAVAILABLE }, /* statement_completion_unknown */
        { "57014", ERR_TIMEOUT },     /* query_canceled: statement_timeout */
        { "55P03", ERR_TIMEOUT },     /* lock_not_available: lock_timeout */
        { "25P03", ERR_UNAVAILABLE }, /* idle_in_transaction_session_timeout */
        { "25006", ERR_UNAVAILABLE }, /* read_only_sql_transaction: no longer the primary */
        { "53100", ERR_LIMIT },       /* disk_full */
        { "53", ERR_UNAVAILABLE },    /* other resources: too many connections, out of memory */
        { "57P", ERR_UNAVAILABLE },   /* shutdown, crash, starting up */
        { "08", ERR_UNAVAILABLE },    /* connection_exception */
        { "0A000", ERR_UNAVAILABLE }, /* a plan made before a migration: prepare again */
    };

    size_t i = 0;

    for (i = 0; state != NULL && i < ARRAY_LEN(known); i++) {
        if (strncmp(state, known[i].state, strlen(known[i].state)) == 0) {
            return known[i].err;
        }
    }
    return state == NULL ? ERR_UNAVAILABLE : ERR_IO;
}

/* Lost: what was asked may or may not happen yet; nobody will tell on this connection. */
static enum err lose(struct broker_pg_conn *conn, enum err err, const char *cause)
{
    if (!conn->lost && may_log()) {
        log_warn("store.connection-lost", KV_ERR(err), KV_STR("cause", cause));
    }
    conn->lost = true;
    conn->err = err;
    return err;
}

/* Only the first line of the message: a detail may show what was written. */
static enum err fail(struct broker_pg_conn *conn, const PGresult *result)
{
    const char *state = PQresultErrorField(result, PG_DIAG_SQLSTATE);
    const char *text = PQresultErrorField(result, PG_DIAG_MESSAGE_PRIMARY);
    enum err err = err_of(state);

    (void)snprintf(conn->why, sizeof(conn->why), "%s", text != NULL ? text : "");
    if (PQstatus(conn->pg) == CONNECTION_BAD || err == ERR_UNAVAILABLE) {
        return lose(conn, ERR_UNAVAILABLE, text != NULL ? text : "the server closed it");
    }
    conn->err = err;
    if (err != ERR_AGAIN && may_log()) {
        log_error("store.failed", KV_ERR(err), KV_STR("sqlstate", state),
                  KV_STR("cause", text != NULL ? text : ""));
    }
    return err;
}

/* A commit that could not be copied to the standby is acknowledged all the same, with a warning
 * (syncrep.c: "canceling wait for synchronous replication"). It is not where the operator wants it. */
static void on_notice(void *arg, const PGresult *result)
{
    struct broker_pg_conn *conn = arg;
    const char *severity = PQresultErrorField(result, PG_DIAG_SEVERITY_NONLOCALIZED);
    const char *state = PQresultErrorField(result, PG_DIAG_SQLSTATE);
    const char *text = PQresultErrorField(result, PG_DIAG_MESSAGE_PRIMARY);

    if (severity == NULL || state == NULL || strcmp(severity, "WARNING") != 0) {
        return;
    }
    if (strcmp(state, "01000") == 0 || strncmp(state, "57", 2) == 0) {
        conn->doubtful = true;
    }
    if (may_log()) {
        log_warn("store.warning", KV_STR("sqlstate", state),
                 KV_STR("cause", text != NULL ? text : ""));
    }
}

/* ---- the pipeline ---------------------------------------------------------------------------- */

void broker_pg_add_text(struct broker_pg_conn *conn, const char *sql)
{
    if (conn->err == ERR_OK &&
        PQsendQueryParams(conn->pg, sql, 0, NULL, NULL, NULL, NULL, 1) != 1) {
        (void)lose(conn, ERR_UNAVAILABLE, "it cannot be written to");
    }
}

void broker_pg_add_args(struct broker_pg_conn *conn, enum broker_pg_sql which,
                        const struct broker_pg_arg *args, size_t n)
{
    const char *kinds = broker_pg_statements[which].kinds;
    const char *values[ARGS_MAX] = { NULL };
    uint64_t numbers[ARGS_MAX] = { 0 };
    int lengths[ARGS_MAX] = { 0 };
    int formats[ARGS_MAX] = { 0 };
    char name[16];
    size_t i = 0;

    CHECK(n == strlen(kinds) && n <= ARGS_MAX);
    for (i = 0; i < n; i++) {
        CHECK(args[i].kind == kinds[i]);
        formats[i] = 1;
        if (kinds[i] == 'i') {
            numbers[i] = htobe64((uint64_t)args[i].number);
            values[i] = (const char *)&numbers[i];
            lengths[i] = sizeof(numbers[i]);
        } else {
            values[i] = args[i].bytes.n == 0 ? "" : args[i].bytes.p;
            lengths[i] = (int)args[i].bytes.n;
        }
    }
    (void)snprintf(name, sizeof(name), "s%d", (int)which);
    if (conn->err == ERR_OK &&
        PQsendQueryPrepared(conn->pg, name, (int)n, values, lengths, formats, 1) != 1) {
        (void)lose(conn, ERR_UNAVAILABLE, "it cannot be written to");
    }
}

void broker_pg_send(struct broker_pg_conn *conn)
{
    if (conn->lost) {
        return;
    }
    if (PQpipelineSync(conn->pg) != 1) {
        (void)lose(conn, ERR_UNAVAILABLE, "it cannot be written to");
        return;
    }
    conn->syncs++;
}

/* Sends and receives until there is something to read, or the deadline. */
static enum err await(struct broker_pg_conn *conn)
{
    for (;;) {
        int unsent = PQflush(conn->pg);
        struct pollfd fd = { .fd = PQsocket(conn->pg), .events = POLLIN };
        int64_t left_ms = conn->deadline_ms - clock_mono_ms();

        if (unsent < 0) {
            /* the server may have said why before it went */
            (void)PQconsumeInput(conn->pg);
        }
        if (PQisBusy(conn->pg) == 0) {
            return ERR_OK;
        }
        if (unsent < 0) {
            return lose(conn, ERR_UNAVAILABLE, "the server closed it");
        }
        if (left_ms <= 0) {
            return lose(conn, ERR_TIMEOUT, "the server does not answer in time");
        }
        fd.events |= unsent > 0 ? POLLOUT : 0;
        (void)poll(&fd, 1, (int)MIN(left_ms, (int64_t)60000));
        if ((fd.revents & ~POLLOUT) != 0 && PQconsumeInput(conn->pg) != 1) {
            return lose(conn, ERR_UNAVAILABLE, "the server closed it");
        }
    }
}

static void note_commit(struct broker_pg_conn *conn, PGresult *result)
{
    conn->committed = strcmp(PQcmdStatus(result), "COMMIT") == 0;
}

/* The next result of any kind; a NULL stands between two statements. */
static enum err read_result(struct broker_pg_conn *conn, PGresult **result_out)
{
    PGresult *result = NULL;
    int nulls = 0;

    while (result == NULL) {
        enum err err = await(conn);

        if (err != ERR_OK) {
            return err;
        }
        result = PQgetResult(conn->pg);
        nulls += result == NULL ? 1 : 0;
        if (nulls > 2) {
            return lose(conn, ERR_UNAVAILABLE, "fewer answers than questions");
        }
    }
    *result_out = result;
    return ERR_OK;
}

enum err broker_pg_next(struct broker_pg_conn *conn, PGresult **result_out)
{
    PGresult *result = NULL;
    enum err err = conn->err == ERR_OK ? read_result(conn, &result) : conn->err;

    *result_out = NULL;
    if (err != ERR_OK) {
        return err;
    }
    switch ((int)PQresultStatus(result)) {
    case PGRES_TUPLES_OK:
    case PGRES_COMMAND_OK:
        note_commit(conn, result);
        *result_out = result;
        return ERR_OK;
    case PGRES_FATAL_ERROR:
        err = fail(conn, result);
        break;
    default:
        err = lose(conn, ERR_UNAVAILABLE, "an answer that does not fit");
        break;
    }
    PQclear(result);
    return err;
}

enum err broker_pg_skip(struct broker_pg_conn *conn)
{
    PGresult *result = NULL;
    enum err err = broker_pg_next(conn, &result);

    PQclear(result);
    return err;
}

static enum err read_to_end(struct broker_pg_conn *conn)
{
    enum err err = ERR_OK;
    bool end = conn->syncs == 0;

    while (!end && !conn->lost) {
        PGresult *result = NULL;

        if (read_result(conn, &result) != ERR_OK) {
            break;
        }
        end = PQresultStatus(result) == PGRES_PIPELINE_SYNC;
        if (PQresultStatus(result) == PGRES_FATAL_ERROR) {
            enum err first = conn->err;

            err = fail(conn, result);
            conn->err = first != ERR_OK ? first : err;
        } else if (!end) {
            note_commit(conn, result);
        }
        PQclear(result);
    }
    err = conn->err;
    if (!conn->lost) {
        conn->syncs -= conn->syncs > 0 ? 1 : 0;
        conn->err = ERR_OK;
    }
    return err;
}

enum err broker_pg_finish(struct broker_pg_conn *conn)
{
    return read_to_end(conn);
}

enum err broker_pg_try(struct broker_pg_conn *conn, const char *sql, PGresult **result_out)
{
    PGresult *result = NULL;
    const char *state = NULL;
    enum err err = ERR_OK;

    *result_out = NULL;
    broker_pg_add_text(conn, sql);
    broker_pg_send(conn);
    err = conn->err == ERR_OK ? read_result(conn, &result) : conn->err;
    if (err != ERR_OK) {
        return err;
    }
    state = PQresultErrorField(result, PG_DIAG_SQLSTATE);
    if (PQresultStatus(result) != PGRES_FATAL_ERROR) {
        *result_out = TAKE(result);
    } else if (state == NULL || (strncmp(state, "0A", 2) != 0 && strncmp(state, "42", 2) != 0)) {
        (void)fail(conn, result);
    }
    PQclear(result);
    err = broker_pg_finish(conn);
    if (err != ERR_OK) {
        PQclear(TAKE(*result_out));
    }
    return err;
}

void broker_pg_rollback(struct broker_pg_conn *conn)
{
    broker_pg_send(conn); /* behind an error the server takes nothing up to here */
    while (!conn->lost && conn->syncs > 0) {
        (void)read_to_end(conn); /* what failed is known */
    }
    if (conn->lost || PQtransactionStatus(conn->pg) == PQTRANS_IDLE) {
        return;
    }
    broker_pg_add_text(conn, "ROLLBACK"); /* perhaps nothing is prepared yet */
    broker_pg_send(conn);
    if (read_to_end(conn) != ERR_OK) {
        (void)lose(conn, ERR_UNAVAILABLE, "its transaction cannot be ended");
    }
}

enum err broker_pg_listen(struct broker_pg_conn *conn, int64_t until_ms, int pid, bool *foreign_out)
{
    struct pollfd fd = { .fd = PQsocket(conn->pg), .events = POLLIN };
    int64_t left_ms = until_ms - clock_mono_ms();
    PGnotify *n = NULL;

    *foreign_out = false;
    if (left_ms > 0) {
        (void)poll(&fd, 1, (int)left_ms);
    }
    if (PQconsumeInput(conn->pg) != 1) {
        return lose(conn, ERR_UNAVAILABLE, "the server closed it");
    }
    for (n = PQnotifies(conn->pg); n != NULL; n = PQnotifies(conn->pg)) {
        *foreign_out = *foreign_out || n->be_pid != pid;
        PQfreemem(n);
    }
    return ERR_OK;
}

/* ---- connecting ------------------------------------------------------------------------------ */

static const struct {
    const char *key;
    const char *value;
} defaults[] = {
    { "connect_timeout", "3" }, /* for each address */
    { "target_session_attrs", "read-write" },
    { "tcp_user_timeout", "5000" },
    { "keepalives_idle", "10" },
    { "keepalives_interval", "3" },
    { "keepalives_count", "3" },
    { "fallback_application_name", "postern-databroker" },
};

static void free_options(PQconninfoOption **options)
{
    PQconninfoFree(*options);
}

static const char *value_of(const PQconninfoOption *options, const char *key)
{
    for (; options->keyword != NULL; options++) {
        if (strcmp(options->keyword, key) == 0) {
            return options->val;
        }
    }
    return NULL;
}

enum err broker_pg_where(const char *conninfo, struct sv *where_out, struct arena *arena,
                         struct diag *d)
{
    CLEANUP(free_options) PQconninfoOption *options = NULL;
    CLEANUP(buf_deinit) struct buf text = { 0 };
    char *why = NULL;
    const char *host = NULL;
    const char *name = NULL;

    options = PQconninfoParse(conninfo, &why);
    PQfreemem(why); /* it may repeat the password */
    if (options == NULL) {
        diag_set(d, "the connection string is none: expected postgres://user@host/database, or "
                    "host=… user=… dbname=…");
        return ERR_INVALID;
    }
    host = value_of(options, "host");
    name = value_of(options, "dbname");
    buf_init(&text, 4096);
    buf_printf(&text, "%s/%s", host != NULL ? host : "", name != NULL ? name : "");
    *where_out = arena_sv(arena, buf_sv(&text));
    return ERR_OK;
}

static bool is_local(struct sv host)
{
    return host.n == 0 || host.p[0] == '/' || host.p[0] == '@' || sv_eq(host, SV("localhost")) ||
           sv_starts(host, SV("127.")) || sv_eq(host, SV("::1"));
}

bool broker_pg_is_exposed(const char *conninfo)
{
    CLEANUP(free_options) PQconninfoOption *options = PQconninfoParse(conninfo, NULL);
    const char *mode = options == NULL ? NULL : value_of(options, "sslmode");
    const char *host = options == NULL ? NULL : value_of(options, "host");
    struct sv rest = sv_from(host == NULL ? "" : host);
    bool remote = false;

    while (rest.n > 0) {
        size_t comma = sv_find(rest, ',');
        size_t end = comma == SIZE_MAX ? rest.n : comma;

        remote = remote || !is_local(sv_head(rest, end));
        rest = sv_from_at(rest, comma == SIZE_MAX ? rest.n : end + 1);
    }
    return remote && (mode == NULL || strcmp(mode, "verify-full") != 0);
}

/* What the connection string leaves open gets our defaults. */
static PGconn *connect_with_defaults(const char *conninfo)
{
    CLEANUP(free_options) PQconninfoOption *options = PQconninfoParse(conninfo, NULL);
    const char *keys[PARAMS_MAX + 1] = { NULL };
    const char *values[PARAMS_MAX + 1] = { NULL };
    const PQconninfoOption *o = NULL;
    size_t n = 0;
    size_t i = 0;

    if (options == NULL) {
        return NULL;
    }
    for (i = 0; i < ARRAY_LEN(defaults); i++) {
        if (value_of(options, defaults[i].key) == NULL) {
            keys[n] = defaults[i].key;
            values[n] = defaults[i].value;
            n++;
        }
    }
    for (o = options; o->keyword != NULL && n < PARAMS_MAX - 1; o++) {
        if (o->val != NULL && strcmp(o->keyword, "client_encoding") != 0) {
            keys[n] = o->keyword;
            values[n] = o->val;
            n++;
        }
    }
    keys[n] = "client_encoding";
    values[n] = "UTF8";
    return PQconnectdbParams(keys, values, 0);
}

/* What is acknowledged is on disk, whatever the role's default says. */
static const char always_durable[] = "SELECT set_config('synchronous_commit', 'on', false) "
                                     "WHERE current_setting('synchronous_commit', true) = 'off'";

/* The server ends what we have given up, so that a row that we locked does not stay locked. */
static enum err set_session(struct broker_pg_conn *conn)
{
    static const char *const texts[] = {
        "SET statement_timeout = 5000",
        "SET lock_timeout = 4000",
        "SET idle_in_transaction_session_timeout = 8000",
        always_durable,
        "SELECT 1 WHERE current_setting('fsync', true) = 'off'",
    };

    PGresult *result = NULL;
    size_t i = 0;
    enum err err = ERR_OK;

    conn->deadline_ms = clock_mono_ms() + SETUP_MS;
    for (i = 0; i < ARRAY_LEN(texts); i++) {
        broker_pg_add_text(conn, texts[i]);
    }
    broker_pg_send(conn);
    for (i = 0; i + 1 < ARRAY_LEN(texts) && err == ERR_OK; i++) {
        err = broker_pg_skip(conn);
    }
    if (err == ERR_OK && broker_pg_next(conn, &result) == ERR_OK && PQntuples(result) > 0 &&
        may_log()) {
        log_warn("store.not-durable",
                 KV_STR("advice", "the server runs with fsync=off: a power loss loses sessions"));
    }
    PQclear(result);
    return broker_pg_finish(conn);
}

/* libpq's text may have several lines, one for each address. It names host, user and database. */
static void tell_why(const PGconn *pg, struct diag *d)
{
    struct sv text = sv_from(pg == NULL ? "no memory" : PQerrorMessage(pg));

    while (text.n > 0 && (text.p[text.n - 1] == '\n' || text.p[text.n - 1] == ' ')) {
        text.n--;
    }
    diag_set(d, "%.*s", SV_ARG(text));
}

enum err broker_pg_open(const char *conninfo, struct broker_pg_conn **conn_out, struct diag *d)
{
    CLEANUP(broker_pg_free) struct broker_pg_conn *conn = MEM_NEW(struct broker_pg_conn);
    const char *encoding = NULL;
    enum err err = ERR_OK;

    conn->pg = connect_with_defaults(conninfo);
    if (PQstatus(conn->pg) != CONNECTION_OK) {
        tell_why(conn->pg, d);
        return ERR_UNAVAILABLE;
    }
    encoding = PQparameterStatus(conn->pg, "server_encoding");
    if (encoding != NULL && strcmp(encoding, "UTF8") != 0) {
        diag_set(d, "the database's encoding is %s: make one with UTF8", encoding);
        return ERR_UNSUPPORTED;
    }
    (void)PQsetNoticeReceiver(conn->pg, on_notice, conn);
    if (PQsetnonblocking(conn->pg, 1) != 0 || PQenterPipelineMode(conn->pg) != 1) {
        tell_why(conn->pg, d);
        return ERR_UNAVAILABLE;
    }
    err = set_session(conn);
    if (err != ERR_OK) {
        diag_set(d, "the session's settings are refused");
        return ERR_UNAVAILABLE;
    }
    *conn_out = TAKE(conn);
    return ERR_OK;
}

enum err broker_pg_prepare(struct broker_pg_conn *conn, bool notify)
{
    size_t i = 0;

    conn->deadline_ms = clock_mono_ms() + SETUP_MS;
    for (i = 0; i < BROKER_PG_COUNT; i++) {
        const char *kinds = broker_pg_statements[i].kinds;
        Oid types[ARGS_MAX] = { 0 };
        char name[16];
        size_t k = 0;

        if (i == BROKER_PG_NOTIFY && !notify) {
            continue;
        }
        for (k = 0; kinds[k] != '\0'; k++) {
            types[k] = kinds[k] == 'i' ? OID_BIGINT : kinds[k] == 'b' ? OID_BYTEA : OID_TEXT;
        }
        (void)snprintf(name, sizeof(name), "s%zu", i);
        if (PQsendPrepare(conn->pg, name, broker_pg_statements[i].text, (int)k, types) != 1) {
            return lose(conn, ERR_UNAVAILABLE, "it cannot be written to");
        }
    }
    broker_pg_send(conn);
    return broker_pg_finish(conn);
}

void broker_pg_free(struct broker_pg_conn **conn)
{
    struct broker_pg_conn *c = TAKE(*conn);

    if (c != NULL) {
        PQfinish(c->pg);
        mem_free(&c);
    }
}

/* ---- columns --------------------------------------------------------------------------------- */

struct sv broker_pg_sv(const PGresult *result, int row, int at)
{
    return sv_of(PQgetvalue(result, row, at), (size_t)PQgetlength(result, row, at));
}

int64_t broker_pg_i64(const PGresult *result, int row, int at)
{
    return (int64_t)broker_pg_u64(result, row, at);
}

uint64_t broker_pg_u64(const PGresult *result, int row, int at)
{
    uint64_t v = 0;

    if (PQgetlength(result, row, at) != sizeof(v)) { /* never of a server that keeps our tables */
        return 0;
    }
    memcpy(&v, PQgetvalue(result, row, at), sizeof(v));
    return be64toh(v);
}

void broker_pg_record(const PGresult *result, int row, struct broker_record *record_out)
{
    *record_out = (struct broker_record){
        .version = broker_pg_u64(result, row, 0),
        .type = broker_pg_sv(result, row, 1),
        .id = broker_pg_sv(result, row, 2),
        .modified_us = broker_pg_i64(result, row, 3),
        .deleted_us = broker_pg_i64(result, row, 4),
        .data_type = broker_pg_sv(result, row, 5),
        .data = broker_pg_sv(result, row, 6),
    };
}
