/* job: a small pool of threads for work that blocks: files, password hashing, getaddrinfo.
 * run sees only its job; done runs on the submitting loop's thread. */
#pragma once

#include "common/base.h"
#include "common/loop.h"

struct job_pool;

typedef void (*job_fn)(void *arg);

/* threads: 1..64. max_waiting bounds the queue. */
struct job_pool *job_pool_new(struct loop *loop, unsigned threads, size_t max_waiting);
/* Waits for running jobs; jobs that wait are run, too: every submitted job gets its done, unless
 * the loop is no longer run. */
void job_pool_free(struct job_pool **pool);
/* ERR_LIMIT: the queue is full, nothing was taken. done may be NULL. */
MUST_CHECK enum err job_submit(struct job_pool *pool, job_fn run, job_fn done, void *arg);
