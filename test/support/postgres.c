#include "test/support/postgres.h"

#include <fcntl.h>
#include <ftw.h>
#include <pwd.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "common/base.h"
#include "test/support/cmocka.h"

enum { ARGS_MAX = 16 };

static const char programs[] = "/usr/lib/postgresql/15/bin";

static const struct passwd *owner(void)
{
    const struct passwd *pw = getpwnam("postgres"); /* NOLINT(concurrency-mt-unsafe): set-up */

    assert_non_null(pw);
    return pw;
}

/* Runs one of PostgreSQL's programs as the server's user, its output in the folder's log. They look for one
 * another beside their own name, or along PATH if it has no folder: so it has. */
static pid_t spawn(const struct postgres *pg, const char *const *argv)
{
    uid_t uid = geteuid() == 0 ? owner()->pw_uid : geteuid();
    gid_t gid = geteuid() == 0 ? owner()->pw_gid : getegid();
    char log[96];
    char path[96];
    const char *full[ARGS_MAX] = { path };
    pid_t pid = 0;

    (void)snprintf(log, sizeof(log), "%s/log", pg->folder);
    (void)snprintf(path, sizeof(path), "%s/%s", programs, argv[0]);
    for (size_t i = 1; argv[i] != NULL; i++) {
        assert_true(i + 1 < ARGS_MAX);
        full[i] = argv[i];
    }
    pid = fork();
    assert_true(pid >= 0);
    if (pid == 0) {
        int fd = -1;

        if (setgid(gid) != 0 || setuid(uid) != 0 || chdir(pg->folder) != 0) {
            _exit(9);
        }
        fd = open(log, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
        if (fd < 0 || dup2(fd, STDOUT_FILENO) < 0 || dup2(fd, STDERR_FILENO) < 0) {
            _exit(9);
        }
        (void)prctl(PR_SET_PDEATHSIG, SIGQUIT); /* its immediate shutdown */
        (void)execv(path, base_unconst(full));
        _exit(9);
    }
    return pid;
}

static int run(const struct postgres *pg, const char *const *argv)
{
    int status = 0;
    pid_t pid = spawn(pg, argv);

    assert_int_equal(waitpid(pid, &status, 0), pid);
    return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
}

static int sql(const struct postgres *pg, const char *database, const char *text)
{
    const char *const argv[] = { "psql",   "-X",       "-q", "-v",       "ON_ERROR_STOP=1",
                                 "-h",     pg->folder, "-U", "postgres", "-d",
                                 database, "-c",       text, NULL };

    return run(pg, argv);
}

void postgres_restart(struct postgres *pg)
{
    /* A full disk queue of the machine's is not what is tested: fsync=off, also of a server that is killed. */
    const char *const argv[] = { "postgres",          "-D", "data",      "-k", pg->folder, "-c",
                                 "listen_addresses=", "-c", "fsync=off", NULL };
    int tries = 0;

    pg->pid = spawn(pg, argv);
    while (sql(pg, "postgres", "SELECT 1") != 0) {
        int status = 0;

        assert_true(tries < 1200);
        tries++;
        (void)usleep(50000);
        if (waitpid(pg->pid, &status, WNOHANG) == pg->pid) {
            pg->pid = spawn(pg, argv); /* children of the one before are not gone yet */
        }
    }
}

void postgres_start(struct postgres *pg)
{
    const char *const init[] = { "initdb", "-D", "data", "-U",         "postgres",  "-A",
                                 "trust",  "-E", "UTF8", "--locale=C", "--no-sync", NULL };

    *pg = (struct postgres){ .pid = 0 };
    (void)snprintf(pg->folder, sizeof(pg->folder), "/tmp/postern-pg-XXXXXX");
    assert_non_null(mkdtemp(pg->folder));
    if (geteuid() == 0) {
        assert_int_equal(chown(pg->folder, owner()->pw_uid, owner()->pw_gid), 0);
    }
    (void)snprintf(pg->target, sizeof(pg->target), "host=%s user=postern dbname=postern",
                   pg->folder);
    assert_int_equal(run(pg, init), 0);
    postgres_restart(pg);
    assert_int_equal(sql(pg, "postgres", "CREATE ROLE postern LOGIN"), 0);
    assert_int_equal(sql(pg, "postgres", "CREATE DATABASE postern OWNER postern"), 0);
}

void postgres_sql(struct postgres *pg, const char *text)
{
    assert_int_equal(sql(pg, "postern", text), 0);
}

void postgres_signal(struct postgres *pg, int signal)
{
    assert_int_equal(kill(pg->pid, signal), 0);
}

void postgres_wait(struct postgres *pg)
{
    int status = 0;

    assert_int_equal(waitpid(pg->pid, &status, 0), pg->pid);
    pg->pid = 0;
}

static int remove_one(const char *path, const struct stat *st, int kind, struct FTW *at)
{
    (void)st;
    (void)kind;
    (void)at;
    (void)remove(path);
    return 0;
}

void postgres_stop(struct postgres *pg)
{
    if (pg->pid != 0) {
        postgres_signal(pg, SIGQUIT);
        postgres_wait(pg);
    }
    /* NOLINTNEXTLINE(concurrency-mt-unsafe): nothing else runs any more */
    (void)nftw(pg->folder, remove_one, 16, FTW_DEPTH | FTW_PHYS);
}
