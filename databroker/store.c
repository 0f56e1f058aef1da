#include "databroker/store.h"

#include <pthread.h>

struct waiter {
    pthread_mutex_t mutex;
    pthread_cond_t cond;
    bool done;
};

static void on_done(struct broker_write *w)
{
    struct waiter *waiter = w->arg;

    (void)pthread_mutex_lock(&waiter->mutex);
    waiter->done = true;
    (void)pthread_cond_signal(&waiter->cond);
    (void)pthread_mutex_unlock(&waiter->mutex);
}

enum err broker_store_write(const struct broker_store_ops *ops, struct broker_store *store,
                            struct broker_write *w)
{
    struct waiter waiter = { .mutex = PTHREAD_MUTEX_INITIALIZER, .cond = PTHREAD_COND_INITIALIZER };
    enum err err = ERR_OK;

    w->done = on_done;
    w->arg = &waiter;
    err = ops->submit(store, w);
    if (err != ERR_OK) {
        return err;
    }
    (void)pthread_mutex_lock(&waiter.mutex);
    while (!waiter.done) {
        (void)pthread_cond_wait(&waiter.cond, &waiter.mutex);
    }
    (void)pthread_mutex_unlock(&waiter.mutex);
    return w->err;
}
