/* A store whose data is sealed, over another store. What it tells about a record that does not open
 * (moved to another id, changed, sealed with a key that is gone) is that it was deleted: a replica drops
 * it, a session in it is no session. */
#include <string.h>

#include "common/clock.h"
#include "common/log.h"
#include "common/mem.h"
#include "databroker/store_sealed_int.h"

enum {
    START_MS = 60000,
    WRITE_MS = 10000,
    STALE_KEYS_MS =
        300000, /* half the grace: who has not looked for so long may use a dropped key */
    KEEP_MS = 60000,
    GRACE_MS = 600000,
    NOISE_PER_S = 5
};

/* ---- reading ---------------------------------------------------------------------------------- */

static void tell_corrupt(struct broker_store *store, const struct broker_record *record,
                         enum err err)
{
    bool loud = false;

    (void)pthread_mutex_lock(&store->mutex);
    loud = log_limit_pass(&store->noise, NOISE_PER_S);
    (void)pthread_mutex_unlock(&store->mutex);
    if (loud) {
        log_error("store.record-corrupt", KV_SV("type", record->type), KV_SV("id", record->id),
                  KV_U64("version", record->version),
                  KV_STR("cause", err == ERR_NOT_FOUND ? "sealed with a key that is not there"
                                  : broker_sealed_with(record->data) == 0
                                      ? "not sealed"
                                      : "its bytes are not this record's"));
    }
}

/* *fine_out: it opened. An error is the store's: it must not look like a record that is none. */
static enum err open_one(struct broker_store *store, struct broker_record *record, bool *fine_out)
{
    enum err opened = broker_keyring_open(store->ring, record);
    enum err err = ERR_OK;

    if (opened == ERR_NOT_FOUND) { /* another databroker has made a key */
        err = broker_sealed_refresh(store, NULL);
        opened = broker_keyring_open(store->ring, record);
    }
    if (err == ERR_OK && opened != ERR_OK) {
        tell_corrupt(store, record, opened);
    }
    *fine_out = opened == ERR_OK;
    return err;
}

/* Opens what was read behind the first from records, and takes the store's own out. */
static enum err open_list(struct broker_store *store, struct broker_records *list, size_t from)
{
    size_t kept = from;

    for (size_t i = from; i < list->count; i++) {
        struct broker_record record = list->items[i];
        bool fine = true;
        enum err err = ERR_OK;

        if (sv_eq(record.type, SV(BROKER_TYPE_KEY))) {
            continue;
        }
        if (record.deleted_us == 0) {
            err = open_one(store, &record, &fine);
        }
        if (err != ERR_OK) {
            list->count = from; /* nothing that is still sealed goes up */
            return err;
        }
        if (!fine) {
            record.data = SV("");
            record.deleted_us = MAX(record.modified_us, (int64_t)1);
        }
        list->items[kept] = record;
        kept++;
    }
    list->count = kept;
    return ERR_OK;
}

static void drop_deleted(struct broker_records *list, size_t from)
{
    size_t kept = from;

    for (size_t i = from; i < list->count; i++) {
        if (list->items[i].deleted_us == 0) {
            list->items[kept] = list->items[i];
            kept++;
        }
    }
    list->count = kept;
}

static enum err sealed_get(struct broker_store *store, struct sv type, struct sv id,
                           int64_t deadline_ms, struct broker_records *out)
{
    size_t before = out->count;
    enum err err = store->ops->get(store->in, type, id, deadline_ms, out);

    if (err == ERR_OK) {
        err = open_list(store, out, before);
    }
    drop_deleted(out, before);
    return err == ERR_OK && out->count == before ? ERR_NOT_FOUND : err;
}

static enum err sealed_query(struct broker_store *store, const struct broker_query *query,
                             int64_t deadline_ms, struct broker_records *out)
{
    size_t before = out->count;
    enum err err = store->ops->query(store->in, query, deadline_ms, out);

    if (err == ERR_OK) {
        err = open_list(store, out, before);
    }
    drop_deleted(out, before);
    return err;
}

/* A page that holds keys only is no page: the next one is read, behind them. */
static enum err sealed_page(struct broker_store *store, struct sv type,
                            const struct broker_record *after, int64_t deadline_ms,
                            struct broker_records *out)
{
    CLEANUP(arena_deinit) struct arena texts = { 0 };
    struct broker_record from = *after;
    size_t before = out->count;
    bool again = true;
    enum err err = ERR_OK;

    arena_init(&texts);
    while (again) {
        err = store->ops->page(store->in, type, &from, deadline_ms, out);
        if (err != ERR_OK || out->count == before) {
            return err;
        }
        from.type = arena_sv(&texts, out->items[out->count - 1].type);
        from.id = arena_sv(&texts, out->items[out->count - 1].id);
        from.place = out->items[out->count - 1].place;
        err = open_list(store, out, before);
        again = err == ERR_OK && out->count == before && out->more;
        out->more = out->more && !again;
    }
    return err;
}

static enum err sealed_changes(struct broker_store *store, uint64_t server_version, uint64_t after,
                               struct sv type, int64_t deadline_ms, struct broker_records *out)
{
    size_t before = out->count;
    enum err err = store->ops->changes(store->in, server_version, after, type, deadline_ms, out);

    return err == ERR_OK ? open_list(store, out, before) : err;
}

static enum err sealed_types(struct broker_store *store, int64_t deadline_ms,
                             struct broker_records *out)
{
    size_t kept = out->count;
    size_t i = out->count;
    enum err err = store->ops->types(store->in, deadline_ms, out);

    for (; i < out->count; i++) {
        if (!sv_eq(out->items[i].type, SV(BROKER_TYPE_KEY))) {
            out->items[kept] = out->items[i];
            kept++;
        }
    }
    out->count = kept;
    return err;
}

static enum err sealed_options(struct broker_store *store, struct sv type, int64_t deadline_ms,
                               struct broker_records *out)
{
    return store->ops->options(store->in, type, deadline_ms, out);
}

static enum err sealed_info(struct broker_store *store, int64_t deadline_ms,
                            struct broker_info *info_out)
{
    return store->ops->info(store->in, deadline_ms, info_out);
}

static enum err sealed_peers(struct broker_store *store, int64_t deadline_ms,
                             struct broker_peers *peers_out)
{
    if (store->ops->peers == NULL) {
        *peers_out = (struct broker_peers){ .confirmed = UINT64_MAX };
        return ERR_OK;
    }
    return store->ops->peers(store->in, deadline_ms, peers_out);
}

/* ---- writing ---------------------------------------------------------------------------------- */

/* A write on its way: what the caller gave stays as it is, a sealed copy goes down. */
struct sealed_write {
    struct broker_write write;
    struct broker_write *given;
    struct broker_records records;
};

static void sealed_write_free(struct sealed_write **write)
{
    struct sealed_write *w = TAKE(*write);

    if (w != NULL) {
        broker_records_deinit(&w->records);
        mem_free(&w);
    }
}

/* On the thread of the writer beneath. */
static void on_written(struct broker_write *write)
{
    struct sealed_write *w = write->arg;
    struct broker_write *given = w->given;

    given->err = write->err;
    given->server_version_out = write->server_version_out;
    for (size_t i = 0; i < w->records.count; i++) {
        struct broker_record *out = &given->records->items[i];

        out->version = w->records.items[i].version;
        out->modified_us = w->records.items[i].modified_us;
        out->deleted_us = w->records.items[i].deleted_us;
        out->data = out->deleted_us != 0 ? SV("") : out->data;
    }
    sealed_write_free(&w);
    given->done(given);
}

static enum err seal_records(struct broker_store *store, const struct broker_records *in,
                             struct broker_records *out)
{
    CLEANUP(buf_deinit) struct buf sealed = { 0 };

    buf_init(&sealed, BROKER_DATA_MAX + BROKER_SEAL_OVERHEAD);
    for (size_t i = 0; i < in->count; i++) {
        struct broker_record record = in->items[i];

        buf_reset(&sealed);
        if (record.deleted_us == 0) {
            enum err err = broker_keyring_seal(store->ring, &record, &sealed);

            if (err != ERR_OK) {
                return err;
            }
        }
        record.data = buf_sv(&sealed);
        broker_records_add(out, &record);
    }
    return ERR_OK;
}

static enum err sealed_submit(struct broker_store *store, struct broker_write *given)
{
    CLEANUP(sealed_write_free) struct sealed_write *w = NULL;
    enum err err = ERR_OK;

    if (given->kind != BROKER_WRITE_PUT) {
        return store->ops->submit(store->in, given);
    }
    if (clock_mono_ms() - __atomic_load_n(&store->refreshed_ms, __ATOMIC_RELAXED) > STALE_KEYS_MS) {
        broker_sealed_keeper_wake(store);
        return ERR_UNAVAILABLE;
    }
    w = MEM_NEW(struct sealed_write);
    broker_records_init(&w->records);
    w->given = given;
    w->write = *given;
    w->write.records = &w->records;
    w->write.done = on_written;
    w->write.arg = w;
    err = seal_records(store, given->records, &w->records);
    if (err == ERR_OK) {
        err = store->ops->submit(store->in, &w->write);
    }
    if (err == ERR_OK) {
        w = NULL; /* the writer's; it may be gone by now */
    }
    return err;
}

/* ---- life ------------------------------------------------------------------------------------- */

static void sealed_close(struct broker_store **store)
{
    struct broker_store *s = TAKE(*store);

    if (s == NULL) {
        return;
    }
    broker_sealed_keeper_stop(s);
    if (s->in != NULL) {
        s->ops->close(&s->in);
    }
    broker_keyring_free(&s->ring);
    (void)pthread_cond_destroy(&s->wake);
    (void)pthread_mutex_destroy(&s->mutex);
    (void)pthread_mutex_destroy(&s->reading);
    mem_free(&s);
}

static struct broker_store *sealed_new(const struct broker_store_opts *opts)
{
    struct broker_store *store = MEM_NEW(struct broker_store);
    pthread_condattr_t attr;

    store->ops = opts->beneath;
    store->ring = broker_keyring_new(opts->secrets, opts->n_secrets);
    store->keep_ms = opts->keep_ms == 0 ? KEEP_MS : opts->keep_ms;
    store->grace_ms = opts->grace_ms == 0 ? GRACE_MS : opts->grace_ms;
    (void)pthread_condattr_init(&attr);
    (void)pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
    (void)pthread_mutex_init(&store->mutex, NULL);
    (void)pthread_mutex_init(&store->reading, NULL);
    (void)pthread_cond_init(&store->wake, &attr);
    (void)pthread_condattr_destroy(&attr);
    return store;
}

/* The first key of a store. One with records that were never sealed believes plain data until all of it
 * is sealed; one with sealed records and no key has lost it. */
static enum err first_key(struct broker_store *store, struct diag *d)
{
    CLEANUP(broker_records_deinit) struct broker_records page = { .items = NULL };
    CLEANUP(broker_records_deinit) struct broker_records key = { .items = NULL };
    const struct broker_record start = { .type = SV("") };
    enum err err = ERR_OK;

    broker_records_init(&page);
    broker_records_init(&key);
    err = store->ops->page(store->in, SV(""), &start, clock_mono_ms() + START_MS, &page);
    for (size_t i = 0; i < page.count && err == ERR_OK; i++) {
        if (broker_sealed_with(page.items[i].data) != 0) {
            diag_set(d, "the store's records are sealed, but its data keys are gone: restore it "
                        "from a backup");
            return ERR_INVALID;
        }
    }
    if (err == ERR_OK) {
        err = broker_keyring_make(store->ring, page.count == 0, &key);
    }
    if (err == ERR_OK) {
        err = broker_sealed_put_key(store, &key);
    }
    if (err != ERR_OK) {
        diag_set(d, "the store's first data key cannot be written: %s", err_name(err));
    }
    return err;
}

static enum err sealed_open(const struct broker_store_opts *opts, struct broker_store **store_out,
                            struct diag *d)
{
    CLEANUP(sealed_close) struct broker_store *store = sealed_new(opts);
    struct broker_keys keys = { .count = 0 };
    enum err err = store->ops->open(opts, &store->in, d);

    if (err == ERR_OK) {
        err = broker_sealed_refresh(store, d);
    }
    if (err == ERR_OK) {
        broker_keyring_look(store->ring, &keys);
        err = keys.count == 0 ? first_key(store, d) : ERR_OK;
    }
    if (err != ERR_OK) {
        return err;
    }
    broker_sealed_keeper_start(store);
    *store_out = TAKE(store);
    return ERR_OK;
}

static enum err sealed_rotate(struct broker_store *store, char key_out[BROKER_KEY_ID_SIZE])
{
    CLEANUP(broker_records_deinit) struct broker_records key = { .items = NULL };
    struct broker_keys keys = { .count = 0 };
    enum err err = broker_sealed_refresh(store, NULL);

    broker_records_init(&key);
    broker_keyring_look(store->ring, &keys);
    if (err == ERR_OK) {
        err = broker_keyring_make(store->ring, keys.all_sealed, &key);
    }
    if (err == ERR_OK) {
        err = broker_sealed_put_key(store, &key);
    }
    if (err == ERR_OK) {
        (void)memcpy(key_out, key.items[0].id.p, BROKER_KEY_ID_SIZE - 1);
        key_out[BROKER_KEY_ID_SIZE - 1] = '\0';
        broker_sealed_keeper_wake(store);
    }
    return err;
}

const struct broker_store_ops broker_store_sealed = {
    .name = "sealed",
    .open = sealed_open,
    .close = sealed_close,
    .submit = sealed_submit,
    .get = sealed_get,
    .query = sealed_query,
    .page = sealed_page,
    .changes = sealed_changes,
    .types = sealed_types,
    .options = sealed_options,
    .info = sealed_info,
    .peers = sealed_peers,
    .rotate = sealed_rotate,
};
