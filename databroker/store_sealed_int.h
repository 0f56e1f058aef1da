/* The inside of the sealed store, shared by store_sealed*.c only. It keeps nothing itself: data is sealed
 * on its way to the store beneath and opened on its way back.
 * Threads: what the callers of a store may use; the keeper is a thread of its own (store_sealed_keep.c). */
#pragma once

#include <pthread.h>

#include "common/log.h"
#include "databroker/keyring.h"
#include "databroker/store.h"

struct broker_store {
    const struct broker_store_ops *ops; /* beneath */
    struct broker_store *in;
    struct broker_keyring *ring;
    int64_t keep_ms;
    int64_t grace_ms;
    int64_t refreshed_ms; /* atomic: when the keys were last read; monotonic */

    pthread_mutex_t reading; /* one reads the keys at a time */
    pthread_t thread;
    bool running;
    pthread_mutex_t mutex; /* of what is below */
    pthread_cond_t wake;
    bool stopping;
    bool wanted; /* a look at the keys now */
    struct log_limit noise;

    /* the keeper's own */
    uint32_t newest;     /* as of its last look */
    int64_t since_ms;    /* it has been the newest since */
    uint32_t swept_with; /* every record was re-sealed with it once */
};

/* store_sealed_keep.c. Reads the keys of the store; ERR_CRYPTO: one does not open. */
MUST_CHECK enum err broker_sealed_refresh(struct broker_store *store, struct diag *d);
/* Writes a key's record and takes it in. */
MUST_CHECK enum err broker_sealed_put_key(struct broker_store *store, struct broker_records *key);
void broker_sealed_keeper_start(struct broker_store *store);
void broker_sealed_keeper_stop(struct broker_store *store);
void broker_sealed_keeper_wake(struct broker_store *store);
