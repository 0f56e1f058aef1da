/* The keeper of the keys: one thread that reads the keys anew (another databroker may have made one),
 * makes a new one when the newest is old, re-seals in small batches what other keys sealed, and drops
 * those keys when a whole pass over records and change log has found none of theirs.
 *
 * Between a new key and the drop of the one before lies a grace: another databroker writes with the old
 * one until it has read the new one, and writes nothing at all when it has not read for half of that. */
#include <signal.h>
#include <time.h>

#include "common/clock.h"
#include "common/log.h"
#include "common/mem.h"
#include "databroker/store_sealed_int.h"

enum {
    READ_MS = 10000,
    BATCH = 100,  /* records of one write */
    PAUSE_MS = 5, /* between two: others want the writer, too */
    KEY_DAYS = 30 /* a random nonce of 96 bits is good for 2^32 records */
};

/* ---- keys ------------------------------------------------------------------------------------- */

static enum err write_records(struct broker_store *store, enum broker_write_kind kind,
                              struct broker_records *records)
{
    struct broker_write w = { .kind = kind, .records = records };

    return broker_store_write(store->ops, store->in, &w);
}

enum err broker_sealed_put_key(struct broker_store *store, struct broker_records *key)
{
    bool old = false;
    enum err err = ERR_OK;

    (void)pthread_mutex_lock(&store->reading); /* who reads now would not find it, and forget it */
    err = write_records(store, BROKER_WRITE_PUT, key);
    if (err == ERR_OK) {
        err = broker_keyring_take(store->ring, &key->items[0], &old, NULL);
    }
    (void)pthread_mutex_unlock(&store->reading);
    if (err == ERR_OK) {
        log_info("store.key-made", KV_SV("key", key->items[0].id));
    }
    return err;
}

/* Keys that an earlier secret wrapped get the present one. */
static enum err rewrap(struct broker_store *store, struct sv id)
{
    CLEANUP(broker_records_deinit) struct broker_records key = { .items = NULL };
    struct broker_keys keys = { .count = 0 };
    enum err err = ERR_OK;

    broker_records_init(&key);
    broker_keyring_look(store->ring, &keys);
    err = broker_keyring_rewrap(store->ring, broker_key_id(id), keys.all_sealed, &key);
    if (err == ERR_OK) {
        err = write_records(store, BROKER_WRITE_PUT, &key);
    }
    if (err == ERR_OK) {
        log_info("store.key-rewrapped", KV_SV("key", id));
    }
    return err;
}

static bool is_there(const struct broker_records *page, uint32_t id)
{
    for (size_t i = 0; i < page->count; i++) {
        if (broker_key_id(page->items[i].id) == id) {
            return true;
        }
    }
    return false;
}

/* Forgets the keys that another databroker has dropped. */
static void forget(struct broker_store *store, const struct broker_records *page)
{
    struct broker_keys keys = { .count = 0 };

    broker_keyring_look(store->ring, &keys);
    for (size_t i = 0; i < keys.count; i++) {
        if (!is_there(page, keys.ids[i])) {
            broker_keyring_drop(store->ring, keys.ids[i]);
        }
    }
}

static enum err read_keys(struct broker_store *store, struct diag *d)
{
    CLEANUP(broker_records_deinit) struct broker_records page = { .items = NULL };
    const struct broker_record start = { .type = SV(BROKER_TYPE_KEY), .id = SV("") };
    bool old[BROKER_KEYS_MAX] = { false };
    enum err err = ERR_OK;

    broker_records_init(&page);
    err = store->ops->page(store->in, start.type, &start, clock_mono_ms() + READ_MS, &page);
    if (err == ERR_OK && page.count > BROKER_KEYS_MAX) {
        err = ERR_LIMIT;
    }
    if (err != ERR_OK) {
        diag_set(d, "the store's data keys cannot be read: %s", err_name(err));
        return err;
    }
    for (size_t i = 0; i < page.count; i++) {
        err = broker_keyring_take(store->ring, &page.items[i], &old[i], d);
        if (err != ERR_OK) {
            return err;
        }
    }
    forget(store, &page);
    for (size_t i = 0; i < page.count && err == ERR_OK; i++) {
        err = old[i] ? rewrap(store, page.items[i].id) : ERR_OK;
    }
    if (err == ERR_OK) {
        __atomic_store_n(&store->refreshed_ms, clock_mono_ms(), __ATOMIC_RELAXED);
    }
    return err;
}

enum err broker_sealed_refresh(struct broker_store *store, struct diag *d)
{
    enum err err = ERR_OK;

    (void)pthread_mutex_lock(&store->reading);
    err = read_keys(store, d);
    (void)pthread_mutex_unlock(&store->reading);
    return err;
}

/* ---- a pass ----------------------------------------------------------------------------------- */

struct pass {
    struct broker_store *store;
    uint32_t newest;
    uint64_t resealed;
    int64_t refreshed_ms;
    struct broker_records batch;
};

/* False: the store closes. */
static bool pause_ms(struct broker_store *store, int64_t ms, bool until_wanted)
{
    int64_t at = clock_mono_ms() + ms;
    struct timespec until = { .tv_sec = at / 1000, .tv_nsec = at % 1000 * 1000000 };
    bool go_on = false;
    int rc = 0;

    (void)pthread_mutex_lock(&store->mutex);
    while (!store->stopping && !(until_wanted && store->wanted) && rc == 0) {
        rc = pthread_cond_timedwait(&store->wake, &store->mutex, &until);
    }
    if (until_wanted) {
        store->wanted = false;
    }
    go_on = !store->stopping;
    (void)pthread_mutex_unlock(&store->mutex);
    return go_on;
}

static enum err write_batch(struct pass *pass)
{
    enum err err = ERR_OK;

    if (pass->batch.count == 0) {
        return ERR_OK;
    }
    err = write_records(pass->store, BROKER_WRITE_REPLACE, &pass->batch);
    pass->resealed += err == ERR_OK ? pass->batch.count : 0;
    broker_records_deinit(&pass->batch);
    broker_records_init(&pass->batch);
    if (err == ERR_OK && !pause_ms(pass->store, PAUSE_MS, false)) {
        err = ERR_CANCELLED;
    }
    if (err == ERR_OK && clock_mono_ms() - pass->refreshed_ms > pass->store->keep_ms) {
        err = broker_sealed_refresh(pass->store,
                                    NULL); /* a pass may last longer than keys are fresh */
        pass->refreshed_ms = clock_mono_ms();
    }
    return err;
}

/* A record that does not open is left as it is: what it is was said when it was read. */
static enum err reseal_one(struct pass *pass, struct broker_record *record, struct buf *sealed)
{
    enum err err = ERR_OK;

    if (record->deleted_us != 0 || sv_eq(record->type, SV(BROKER_TYPE_KEY)) ||
        broker_sealed_with(record->data) == pass->newest ||
        broker_keyring_open(pass->store->ring, record) != ERR_OK) {
        return ERR_OK;
    }
    buf_reset(sealed);
    err = broker_keyring_seal(pass->store->ring, record, sealed);
    if (err == ERR_OK) {
        record->data = buf_sv(sealed);
        broker_records_add(&pass->batch, record);
    }
    return err == ERR_OK && pass->batch.count >= BATCH ? write_batch(pass) : err;
}

static enum err reseal_page(struct pass *pass, struct broker_records *page)
{
    CLEANUP(buf_deinit) struct buf sealed = { 0 };
    enum err err = ERR_OK;

    buf_init(&sealed, BROKER_DATA_MAX + BROKER_SEAL_OVERHEAD);
    for (size_t i = 0; i < page->count && err == ERR_OK; i++) {
        err = reseal_one(pass, &page->items[i], &sealed);
    }
    return err == ERR_OK ? write_batch(pass) : err;
}

static enum err pass_records(struct pass *pass)
{
    CLEANUP(arena_deinit) struct arena texts = { 0 };
    struct broker_store *store = pass->store;
    struct broker_record after = { .type = SV(""), .id = SV("") };
    bool more = true;
    enum err err = ERR_OK;

    arena_init(&texts);
    while (more && err == ERR_OK) {
        CLEANUP(broker_records_deinit) struct broker_records page = { .items = NULL };

        broker_records_init(&page);
        err = store->ops->page(store->in, SV(""), &after, clock_mono_ms() + READ_MS, &page);
        more = err == ERR_OK && page.more && page.count > 0;
        if (more) {
            arena_reset(&texts);
            after.type = arena_sv(&texts, page.items[page.count - 1].type);
            after.id = arena_sv(&texts, page.items[page.count - 1].id);
            after.place = page.items[page.count - 1].place;
        }
        if (err == ERR_OK) {
            err = reseal_page(pass, &page);
        }
    }
    return err;
}

static enum err pass_changes(struct pass *pass)
{
    struct broker_store *store = pass->store;
    struct broker_info info = { 0 };
    uint64_t at = 0;
    bool more = true;
    enum err err = store->ops->info(store->in, clock_mono_ms() + READ_MS, &info);

    at = info.earliest_version == 0 ? 0 : info.earliest_version - 1;
    while (more && err == ERR_OK) {
        CLEANUP(broker_records_deinit) struct broker_records page = { .items = NULL };

        broker_records_init(&page);
        err = store->ops->changes(store->in, info.server_version, at, SV(""),
                                  clock_mono_ms() + READ_MS, &page);
        at = page.position;
        more = err == ERR_OK && page.more;
        if (err == ERR_OK) {
            err = reseal_page(pass, &page);
        }
    }
    return err;
}

/* ---- the keeper ------------------------------------------------------------------------------- */

static enum err drop_keys(struct broker_store *store, const struct broker_keys *keys)
{
    CLEANUP(broker_records_deinit) struct broker_records list = { .items = NULL };
    enum err err = ERR_OK;

    broker_records_init(&list);
    for (size_t i = 0; i < keys->count; i++) {
        char id[BROKER_KEY_ID_SIZE];
        struct broker_record record = { .type = SV(BROKER_TYPE_KEY), .deleted_us = 1 };

        if (keys->ids[i] != keys->newest) {
            broker_key_text(keys->ids[i], id);
            record.id = sv_from(id);
            broker_records_add(&list, &record);
        }
    }
    if (!keys->all_sealed) { /* from now on plain data is believed no more */
        err = broker_keyring_rewrap(store->ring, keys->newest, true, &list);
    }
    if (err == ERR_OK && list.count > 0) {
        err = write_records(store, BROKER_WRITE_PUT, &list);
    }
    if (err == ERR_OK) {
        log_info("store.keys-dropped", KV_U64("keys", keys->count - 1));
        err = broker_sealed_refresh(store, NULL);
    }
    return err;
}

/* Re-seals once as soon as there is a new key, and again after the grace, for what was written with the
 * old one meanwhile. */
static enum err reseal(struct broker_store *store, const struct broker_keys *keys)
{
    struct pass pass = { .store = store, .newest = keys->newest, .refreshed_ms = clock_mono_ms() };
    bool may_drop = clock_mono_ms() - store->since_ms >= store->grace_ms;
    enum err err = ERR_OK;

    if (store->swept_with == keys->newest && !may_drop) {
        return ERR_OK;
    }
    broker_records_init(&pass.batch);
    err = pass_records(&pass);
    if (err == ERR_OK) {
        err = pass_changes(&pass);
    }
    broker_records_deinit(&pass.batch);
    if (pass.resealed > 0) {
        log_info("store.resealed", KV_U64("records", pass.resealed));
    }
    if (err != ERR_OK) {
        return err;
    }
    store->swept_with = keys->newest;
    return may_drop ? drop_keys(store, keys) : ERR_OK;
}

static enum err look(struct broker_store *store)
{
    static const int64_t age_us = KEY_DAYS * INT64_C(86400) * 1000000;
    struct broker_keys keys = { .count = 0 };
    char made[BROKER_KEY_ID_SIZE];
    enum err err = broker_sealed_refresh(store, NULL);

    broker_keyring_look(store->ring, &keys);
    if (err == ERR_OK && keys.all_sealed && keys.count == 1 &&
        clock_wall_us() - keys.made_us > age_us) {
        err = broker_store_sealed.rotate(store, made);
        broker_keyring_look(store->ring, &keys);
    }
    if (keys.newest != store->newest) {
        store->newest = keys.newest;
        store->since_ms = clock_mono_ms();
    }
    if (err == ERR_OK && (keys.count > 1 || !keys.all_sealed)) {
        err = reseal(store, &keys);
    }
    return err;
}

static void tell(enum err err)
{
    if (err != ERR_OK && err != ERR_CANCELLED) {
        log_warn("store.keys-not-kept", KV_ERR(err));
    }
}

static void *keeper_main(void *arg)
{
    struct broker_store *store = arg;

    do {
        tell(look(store));
    } while (pause_ms(store, store->keep_ms, true));
    return NULL;
}

void broker_sealed_keeper_start(struct broker_store *store)
{
    sigset_t all;
    sigset_t before;

    (void)sigfillset(&all); /* signals are the loop thread's */
    (void)pthread_sigmask(SIG_BLOCK, &all, &before);
    CHECK(pthread_create(&store->thread, NULL, keeper_main, store) == 0);
    (void)pthread_sigmask(SIG_SETMASK, &before, NULL);
    store->running = true;
}

void broker_sealed_keeper_wake(struct broker_store *store)
{
    (void)pthread_mutex_lock(&store->mutex);
    store->wanted = true;
    (void)pthread_cond_signal(&store->wake);
    (void)pthread_mutex_unlock(&store->mutex);
}

void broker_sealed_keeper_stop(struct broker_store *store)
{
    if (!store->running) {
        return;
    }
    (void)pthread_mutex_lock(&store->mutex);
    store->stopping = true;
    (void)pthread_cond_signal(&store->wake);
    (void)pthread_mutex_unlock(&store->mutex);
    (void)pthread_join(store->thread, NULL);
    store->running = false;
}
