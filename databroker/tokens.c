/* Tokens with a role: which are revoked, and when each was last used. The revoked ones are in memory, so
 * that no call waits for the store; what another databroker revoked is read every BROKER_PROBE_MS. */
#include "token.pb-c.h"

#include "common/clock.h"
#include "common/crypto/token.h"
#include "common/log.h"
#include "common/map.h"
#include "common/mem.h"
#include "databroker/service_int.h"

enum {
    START_MS = 60000,
    FLUSH_MS = 60000, /* between two writes of last uses */
    FLUSH_MAX = 100,  /* records of one */
    USED_MAX = 10000  /* tokens that are remembered */
};

struct use {
    const char *role; /* a constant */
    int64_t expires_at_s;
    int64_t last_s;
    bool is_new; /* not written yet */
};

struct broker_tokens {
    struct map *revoked; /* id -> itself, a constant */
    struct map *used;    /* id -> struct use */
    struct map *read;    /* the job's */
    enum err read_err;
    bool reading;
    bool changed; /* something was revoked here since the job began */
    bool writing;
    int64_t flush_at_ms;
    struct broker_write write;
    struct broker_records records;
};

static char present;

static enum err read_page(struct broker_service *service, struct sv *after, struct arena *texts,
                          struct map *into, bool *more_out)
{
    CLEANUP(broker_records_deinit) struct broker_records page = { .items = NULL };
    const struct broker_record from = { .type = SV(BROKER_TYPE_TOKEN_REVOKED), .id = *after };
    enum err err = ERR_OK;

    broker_records_init(&page);
    err = service->ops->page(service->store, from.type, &from, clock_mono_ms() + START_MS, &page);
    for (size_t i = 0; i < page.count; i++) {
        if (page.items[i].deleted_us == 0) {
            (void)map_set(into, page.items[i].id, &present);
        }
    }
    *more_out = err == ERR_OK && page.more && page.count > 0;
    if (*more_out) {
        *after = arena_sv(texts, page.items[page.count - 1].id);
    }
    return err;
}

/* Any thread. */
static enum err read_revoked(struct broker_service *service, struct map *into)
{
    CLEANUP(arena_deinit) struct arena texts = { 0 };
    struct sv after = SV("");
    bool more = true;
    enum err err = ERR_OK;

    arena_init(&texts);
    while (more && err == ERR_OK) {
        err = read_page(service, &after, &texts, into, &more);
    }
    return err;
}

static void run_read(void *arg)
{
    struct broker_service *service = arg;

    service->tokens->read_err = read_revoked(service, service->tokens->read);
}

/* What a revoked token has opened here ends. */
static void drop(struct broker_service *service, struct sv id)
{
    broker_sync_drop(service, id);
    broker_registry_drop(service->registry, id);
}

/* Revoked at another databroker since the last look. */
static void drop_new(struct sv id, void *value, void *arg)
{
    struct broker_service *service = arg;

    (void)value;
    if (map_get(service->tokens->revoked, id) == NULL) {
        drop(service, id);
    }
}

static void read_done(void *arg)
{
    struct broker_service *service = arg;
    struct broker_tokens *t = service->tokens;

    t->reading = false;
    if (t->read_err == ERR_OK && !t->changed) {
        struct map *before = t->revoked;

        map_each(t->read, drop_new, service);
        t->revoked = TAKE(t->read);
        map_free(&before);
    }
    map_free(&t->read);
    broker_service_call_over(service);
}

static void start_read(struct broker_service *service)
{
    struct broker_tokens *t = service->tokens;

    if (t->reading) {
        return;
    }
    t->changed = false;
    t->read = map_new();
    if (job_submit(service->pool, run_read, read_done, service) != ERR_OK) {
        map_free(&t->read);
        return;
    }
    t->reading = true;
    service->open_calls++;
}

/* ---- last use --------------------------------------------------------------------------------- */

static void add_use(struct sv id, void *value, void *arg)
{
    struct broker_tokens *t = arg;
    struct use *use = value;
    Postern__TokenState state = POSTERN__TOKEN_STATE__INIT;
    Google__Protobuf__Timestamp expires = GOOGLE__PROTOBUF__TIMESTAMP__INIT;
    Google__Protobuf__Timestamp last = GOOGLE__PROTOBUF__TIMESTAMP__INIT;
    uint8_t bytes[256];
    struct broker_record record = { .type = SV(BROKER_TYPE_TOKEN_USED),
                                    .id = id,
                                    .data_type = SV(BROKER_DATA_TOKEN_STATE) };

    if (!use->is_new || t->records.count == FLUSH_MAX) {
        return;
    }
    use->is_new = false;
    expires.seconds = use->expires_at_s;
    last.seconds = use->last_s;
    state.role = base_unconst(use->role);
    state.expires_at = &expires;
    state.last_used_at = &last;
    CHECK(postern__token_state__get_packed_size(&state) <= sizeof(bytes));
    record.data = sv_of(bytes, postern__token_state__pack(&state, bytes));
    record.ends_us = broker_record_end_us(&record);
    broker_records_add(&t->records, &record);
}

static void flushed(void *arg)
{
    struct broker_service *service = arg;
    struct broker_tokens *t = service->tokens;

    t->writing = false;
    if (t->write.err != ERR_OK) {
        log_warn("token.use-not-kept", KV_ERR(t->write.err));
    }
    broker_service_call_over(service);
}

static void on_flushed(struct broker_write *w)
{
    struct broker_service *service = w->arg;

    loop_post(service->loop, flushed, service);
}

static void flush(struct broker_service *service)
{
    struct broker_tokens *t = service->tokens;

    if (t->writing || clock_mono_ms() < t->flush_at_ms) {
        return;
    }
    broker_records_deinit(&t->records);
    broker_records_init(&t->records);
    map_each(t->used, add_use, t);
    t->flush_at_ms = clock_mono_ms() + (t->records.count == FLUSH_MAX ? 0 : FLUSH_MS);
    if (t->records.count == 0) {
        return;
    }
    t->write = (struct broker_write){ .kind = BROKER_WRITE_PUT,
                                      .deadline_ms = clock_mono_ms() + BROKER_WRITE_MS,
                                      .records = &t->records,
                                      .done = on_flushed,
                                      .arg = service };
    if (service->ops->submit(service->store, &t->write) == ERR_OK) {
        t->writing = true;
        service->open_calls++;
    }
}

static void note_use(struct broker_tokens *t, const struct token *token)
{
    struct use *use = map_get(t->used, sv_from(token->id));

    if (use == NULL) {
        if (map_count(t->used) >= USED_MAX) {
            return;
        }
        use = MEM_NEW(struct use);
        (void)map_set(t->used, sv_from(token->id), use);
        t->flush_at_ms = 0; /* the first use of all is written soon */
    }
    use->role = token_role_name(token->role);
    use->expires_at_s = token->expires_at_s;
    use->last_s = clock_wall_s();
    use->is_new = true;
}

/* ---- what the others call --------------------------------------------------------------------- */

bool broker_token_fits(void *arg, const struct token *token)
{
    struct broker_service *service = arg;

    if (map_get(service->tokens->revoked, sv_from(token->id)) != NULL) {
        return false;
    }
    note_use(service->tokens, token);
    return true;
}

void broker_tokens_written(struct broker_service *service, const struct broker_records *records)
{
    for (size_t i = 0; i < records->count; i++) {
        const struct broker_record *record = &records->items[i];

        if (sv_eq(record->type, SV(BROKER_TYPE_TOKEN_REVOKED)) && record->deleted_us == 0) {
            (void)map_set(service->tokens->revoked, record->id, &present);
            service->tokens->changed = true;
            drop(service, record->id);
        }
    }
}

void broker_tokens_tick(struct broker_service *service)
{
    start_read(service);
    flush(service);
}

enum err broker_tokens_init(struct broker_service *service, struct diag *d)
{
    struct broker_tokens *t = MEM_NEW(struct broker_tokens);
    enum err err = ERR_OK;

    t->revoked = map_new();
    t->used = map_new();
    broker_records_init(&t->records);
    service->tokens = t;
    err = read_revoked(service, t->revoked);
    if (err != ERR_OK) { /* a revoked token must not come back because nobody could look */
        diag_set(d, "the revoked tokens cannot be read: %s", err_name(err));
        broker_tokens_deinit(service);
    }
    return err;
}

static void free_use(struct sv key, void *value, void *arg)
{
    (void)key;
    (void)arg;
    mem_free(&value);
}

void broker_tokens_deinit(struct broker_service *service)
{
    struct broker_tokens *t = TAKE(service->tokens);

    map_free(&t->revoked);
    map_each(t->used, free_use, NULL);
    map_free(&t->used);
    broker_records_deinit(&t->records);
    mem_free(&t);
}
