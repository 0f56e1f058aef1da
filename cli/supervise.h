/* supervise: starts programs, starts them again when they end, ends them in order. One thread. */
#pragma once

#include <sys/types.h>

#include "common/base.h"
#include "common/diag.h"

enum { CHILDREN_MAX = 8, CHILD_ARGS = 8, CHILD_ENV = 8 };

struct cli_child {
    const char *name;             /* its log is log/<name>.log */
    const char *argv[CHILD_ARGS]; /* argv[0]: the program's path; NULL-terminated */
    const char *env[CHILD_ENV];   /* NAME=value, over the inherited; NULL-terminated */
    const char *log;              /* file; NULL: our own output */
    /* supervise's own */
    pid_t pid;
    int64_t started_ms;
    int64_t start_again_ms;
    int64_t delay_ms;
    unsigned ends; /* before it was ready */
    bool once_ready;
};

/* SIGINT, SIGTERM, SIGCHLD are blocked from now on and taken by cli_supervise_turn. */
void cli_supervise_signals(void);
/* ERR_IO: it cannot be started. */
MUST_CHECK enum err cli_child_start(struct cli_child *child, struct diag *d);
/* Waits up to wait_ms for a signal; starts again what ended (with growing delay, 100 ms to 5 s).
 * The end of one that was ready is told at once; of one that was not, by whoever waits for it.
 * True: SIGINT or SIGTERM came. */
bool cli_supervise_turn(struct cli_child *children, size_t n, int64_t wait_ms);
/* SIGTERM one after the other in their order, each given grace_ms, then SIGKILL. */
void cli_supervise_stop(struct cli_child *children, size_t n, int64_t grace_ms);
