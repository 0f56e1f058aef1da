#include "cli/supervise.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "common/clock.h"

enum { DELAY_FIRST_MS = 100, DELAY_MAX_MS = 5000, STEADY_MS = 10000 };

static sigset_t signals(void)
{
    sigset_t set;

    (void)sigemptyset(&set);
    (void)sigaddset(&set, SIGINT);
    (void)sigaddset(&set, SIGTERM);
    (void)sigaddset(&set, SIGHUP);
    (void)sigaddset(&set, SIGCHLD);
    return set;
}

void cli_supervise_signals(void)
{
    sigset_t set = signals();

    /* NOLINTNEXTLINE(concurrency-mt-unsafe): the process has one thread */
    (void)sigprocmask(SIG_BLOCK, &set, NULL);
}

/* Between fork and exec: only what is async-signal-safe, and setenv, which is fine in a process
 * that has one thread. */
NORETURN static void run_child(const struct cli_child *child, int log, pid_t parent)
{
    sigset_t set = signals();
    size_t i = 0;

    (void)prctl(PR_SET_PDEATHSIG, SIGTERM);
    if (getppid() != parent) {
        _exit(1); /* the parent died in between */
    }
    (void)setpgid(0, 0); /* Ctrl-C is the parent's alone: it ends us in order */
    /* NOLINTNEXTLINE(concurrency-mt-unsafe): the process has one thread */
    (void)sigprocmask(SIG_UNBLOCK, &set, NULL);
    if (log >= 0) {
        (void)dup2(log, STDOUT_FILENO);
        (void)dup2(log, STDERR_FILENO);
    }
    for (i = 0; child->env[i] != NULL; i++) {
        char pair[4096];
        char *value = NULL;

        (void)snprintf(pair, sizeof(pair), "%s", child->env[i]);
        value = strchr(pair, '=');
        if (value != NULL) {
            *value = '\0';
            (void)setenv(pair, value + 1, 1); /* NOLINT(concurrency-mt-unsafe) */
        }
    }
    (void)execv(child->argv[0], base_unconst(child->argv));
    _exit(127);
}

enum err cli_child_start(struct cli_child *child, struct diag *d)
{
    pid_t parent = getpid();
    int log = -1;
    pid_t pid = 0;

    if (access(child->argv[0], X_OK) != 0) {
        diag_set(d, "%s is not there or not a program; is the build complete?", child->argv[0]);
        return ERR_IO;
    }
    if (child->log != NULL) {
        log = open(child->log, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
        if (log < 0) {
            diag_set(d, "cannot write the log %s", child->log);
            return ERR_IO;
        }
    }
    (void)fflush(NULL);
    pid = fork();
    if (pid == 0) {
        run_child(child, log, parent);
    }
    if (log >= 0) {
        (void)close(log);
    }
    if (pid < 0) {
        diag_set(d, "cannot start %s: no process to be had", child->name);
        return ERR_IO;
    }
    child->pid = pid;
    child->started_ms = clock_mono_ms();
    child->start_again_ms = 0;
    return ERR_OK;
}

static void note_end(struct cli_child *child, int status)
{
    int64_t now = clock_mono_ms();
    bool steady = now - child->started_ms >= STEADY_MS;

    child->pid = 0;
    child->delay_ms =
        steady || child->delay_ms == 0 ? DELAY_FIRST_MS : MIN(child->delay_ms * 2, DELAY_MAX_MS);
    child->start_again_ms = now + child->delay_ms;
    if (!child->once_ready) {
        child->ends++;
        return;
    }
    if (WIFSIGNALED(status)) {
        (void)fprintf(stderr, "%s ended by signal %d; starting it again\n", child->name,
                      WTERMSIG(status));
    } else {
        (void)fprintf(stderr, "%s ended with code %d; starting it again%s%s\n", child->name,
                      WEXITSTATUS(status), child->log == NULL ? "" : ", see ",
                      child->log == NULL ? "" : child->log);
    }
}

static void reap(struct cli_child *children, size_t n)
{
    int status = 0;
    pid_t pid = 0;

    while ((pid = waitpid(-1, &status, WNOHANG)) > 0) {
        size_t i = 0;

        for (i = 0; i < n; i++) {
            if (children[i].pid == pid) {
                note_end(&children[i], status);
            }
        }
    }
}

static void start_due(struct cli_child *children, size_t n)
{
    size_t i = 0;

    for (i = 0; i < n; i++) {
        struct cli_child *c = &children[i];

        if (c->pid == 0 && c->start_again_ms != 0 && clock_mono_ms() >= c->start_again_ms) {
            struct diag d = { .line = 0 };

            if (cli_child_start(c, &d) != ERR_OK) {
                (void)fprintf(stderr, "%s\n", d.text);
                c->start_again_ms = clock_mono_ms() + DELAY_MAX_MS;
            }
        }
    }
}

/* Until the next child is due, at most wait_ms. */
static int64_t patience(const struct cli_child *children, size_t n, int64_t wait_ms)
{
    int64_t now = clock_mono_ms();
    size_t i = 0;

    for (i = 0; i < n; i++) {
        if (children[i].pid == 0 && children[i].start_again_ms != 0) {
            wait_ms = MIN(wait_ms, MAX(children[i].start_again_ms - now, 1));
        }
    }
    return wait_ms;
}

bool cli_supervise_turn(struct cli_child *children, size_t n, int64_t wait_ms)
{
    sigset_t set = signals();
    int64_t ms = patience(children, n, wait_ms);
    struct timespec timeout = { .tv_sec = ms / 1000, .tv_nsec = ms % 1000 * 1000000 };
    int sig = sigtimedwait(&set, NULL, &timeout);
    size_t i = 0;

    if (sig == SIGINT || sig == SIGTERM) {
        return true;
    }
    if (sig == SIGHUP) {
        for (i = 0; i < n; i++) {
            if (children[i].pid > 0) {
                (void)kill(children[i].pid, SIGHUP);
            }
        }
    }
    reap(children, n);
    start_due(children, n);
    return false;
}

static bool ended(struct cli_child *child)
{
    int status = 0;

    if (child->pid > 0 && waitpid(child->pid, &status, WNOHANG) == child->pid) {
        child->pid = 0;
    }
    return child->pid <= 0;
}

static void stop_one(struct cli_child *child, int64_t grace_ms)
{
    int64_t until = clock_mono_ms() + grace_ms;
    struct timespec tick = { .tv_nsec = 10000000 };

    if (ended(child)) {
        return;
    }
    (void)kill(child->pid, SIGTERM);
    while (!ended(child) && clock_mono_ms() < until) {
        (void)nanosleep(&tick, NULL);
    }
    if (!ended(child)) {
        int status = 0;

        (void)fprintf(stderr, "%s did not end in time and was killed\n", child->name);
        (void)kill(child->pid, SIGKILL);
        (void)waitpid(child->pid, &status, 0);
        child->pid = 0;
    }
}

void cli_supervise_stop(struct cli_child *children, size_t n, int64_t grace_ms)
{
    size_t i = 0;

    for (i = 0; i < n; i++) {
        stop_one(&children[i], grace_ms);
    }
}
