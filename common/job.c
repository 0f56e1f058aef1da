#include "common/job.h"

#include <pthread.h>
#include <signal.h>

#include "common/mem.h"

enum { JOB_THREADS_MAX = 64 };

struct job {
    struct job *next;
    job_fn run;
    job_fn done;
    void *arg;
};

struct job_pool {
    struct loop *loop;
    pthread_mutex_t mutex;
    pthread_cond_t wake;
    struct job *first;
    struct job **tail;
    size_t waiting;
    size_t max_waiting;
    bool stopping;
    unsigned threads;
    pthread_t thread[JOB_THREADS_MAX];
};

static struct job *next_job(struct job_pool *pool)
{
    struct job *j = NULL;

    (void)pthread_mutex_lock(&pool->mutex);
    while (pool->first == NULL && !pool->stopping) {
        (void)pthread_cond_wait(&pool->wake, &pool->mutex);
    }
    j = pool->first;
    if (j != NULL) {
        pool->first = j->next;
        if (pool->first == NULL) {
            pool->tail = &pool->first;
        }
        pool->waiting--;
    }
    (void)pthread_mutex_unlock(&pool->mutex);
    return j;
}

static void *worker_main(void *arg)
{
    struct job_pool *pool = arg;
    struct job *j = NULL;

    while ((j = next_job(pool)) != NULL) {
        j->run(j->arg);
        if (j->done != NULL) {
            loop_post(pool->loop, j->done, j->arg);
        }
        mem_free(&j);
    }
    return NULL;
}

struct job_pool *job_pool_new(struct loop *loop, unsigned threads, size_t max_waiting)
{
    struct job_pool *pool = MEM_NEW(struct job_pool);
    sigset_t all;
    sigset_t before;
    unsigned i = 0;

    CHECK(threads >= 1 && threads <= JOB_THREADS_MAX);
    pool->loop = loop;
    pool->max_waiting = max_waiting;
    pool->threads = threads;
    pool->tail = &pool->first;
    (void)pthread_mutex_init(&pool->mutex, NULL);
    (void)pthread_cond_init(&pool->wake, NULL);
    (void)sigfillset(&all); /* signals are the loop thread's */
    (void)pthread_sigmask(SIG_BLOCK, &all, &before);
    for (i = 0; i < threads; i++) {
        CHECK(pthread_create(&pool->thread[i], NULL, worker_main, pool) == 0);
    }
    (void)pthread_sigmask(SIG_SETMASK, &before, NULL);
    return pool;
}

void job_pool_free(struct job_pool **pool)
{
    struct job_pool *p = TAKE(*pool);
    unsigned i = 0;

    if (p == NULL) {
        return;
    }
    (void)pthread_mutex_lock(&p->mutex);
    p->stopping = true;
    (void)pthread_cond_broadcast(&p->wake);
    (void)pthread_mutex_unlock(&p->mutex);
    for (i = 0; i < p->threads; i++) {
        (void)pthread_join(p->thread[i], NULL);
    }
    (void)pthread_mutex_destroy(&p->mutex);
    (void)pthread_cond_destroy(&p->wake);
    mem_free(&p);
}

enum err job_submit(struct job_pool *pool, job_fn run, job_fn done, void *arg)
{
    struct job *j = NULL;

    (void)pthread_mutex_lock(&pool->mutex);
    if (pool->waiting >= pool->max_waiting || pool->stopping) {
        (void)pthread_mutex_unlock(&pool->mutex);
        return ERR_LIMIT;
    }
    j = MEM_NEW(struct job);
    *j = (struct job){ .run = run, .done = done, .arg = arg };
    *pool->tail = j;
    pool->tail = &j->next;
    pool->waiting++;
    (void)pthread_cond_signal(&pool->wake);
    (void)pthread_mutex_unlock(&pool->mutex);
    return ERR_OK;
}
