/* postern up: all parts and the demo app on this machine, in the foreground. */
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include "cli/certificate.h"
#include "cli/command.h"
#include "cli/file.h"
#include "cli/last_words.h"
#include "cli/supervise.h"
#include "cli/trial.h"
#include "common/clock.h"
#include "common/mem.h"

enum { TURN_MS = 1000 };

enum { TEXT = 2 * TRIAL_PATH, READY_WAIT_MS = 30000, GRACE_MS = 7000, ACCOUNTS_MAX = 4096 };

/* A part that says what is wrong gets this long to find it right after all, and so many starts. */
enum { EXCUSE_WAIT_MS = 10000, STARTS_MAX = 6, WORDS_MAX = 4096 };

static const char help[] =
    "usage: postern up [--dir run] [--port 8443] [--verbose]\n\n"
    "Runs databroker, authorize, authenticate, proxy and a demo app until Ctrl-C, and where the\n"
    "configuration says autocert, postern-acme, which gets certificates.\n"
    "  --dir      where keys, accounts, configuration and sessions live; made on the first start\n"
    "  --port     port of https://demo.localhost\n"
    "  --verbose  logs on this terminal instead of DIR/log\n";

/* In the order in which they end: nobody is left asking one that is gone. Those before DEMO are
 * always wanted; ACME is started when autocert is first on. */
enum { PROXY, AUTHENTICATE, AUTHORIZE, DATABROKER, DEMO, ACME, N_CHILDREN };

static const char *const names[N_CHILDREN] = { "proxy",      "authenticate", "authorize",
                                               "databroker", "demo",         "acme" };

struct up {
    struct cli_trial trial;
    uint16_t port;
    bool verbose;
    char program[N_CHILDREN][PATH_MAX + 32];
    char config[TRIAL_PATH];
    char log[N_CHILDREN][TRIAL_PATH];
    off_t log_from[N_CHILDREN]; /* what is before it was said in an earlier run */
    char env[N_CHILDREN][CHILD_ENV][TEXT];
    char listen[TEXT];
    struct cli_child children[N_CHILDREN];
    struct stat seen; /* config.yaml when it was last looked at */
};

/* The sentence that a newcomer needs most. */
static enum err check_port(uint16_t port, struct diag *d)
{
    struct sockaddr_in at = { .sin_family = AF_INET,
                              .sin_port = htons(port),
                              .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    int on = 1;
    enum err err = ERR_OK;

    if (fd < 0) {
        diag_set(d, "no socket to be had");
        return ERR_IO;
    }
    (void)setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on));
    if (bind(fd, (const struct sockaddr *)&at, sizeof(at)) != 0) {
        if (errno == EACCES) {
            diag_set(d, "port %u needs root; take one above 1023 with PORT= or --port", port);
        } else {
            diag_set(d, "port %u is in use; take another one with PORT= or --port", port);
        }
        err = ERR_IO;
    }
    (void)close(fd);
    return err;
}

static enum err find_programs(struct up *up, struct diag *d)
{
    char self[PATH_MAX];
    ssize_t n = readlink("/proc/self/exe", self, sizeof(self) - 1);
    char *slash = NULL;
    int i = 0;

    if (n <= 0) {
        diag_set(d, "cannot find where the programs are (/proc is not there)");
        return ERR_IO;
    }
    self[n] = '\0';
    slash = strrchr(self, '/');
    *slash = '\0';
    for (i = 0; i < N_CHILDREN; i++) {
        (void)snprintf(up->program[i], sizeof(up->program[i]), "%s/postern-%s", self, names[i]);
    }
    (void)snprintf(up->program[DEMO], sizeof(up->program[DEMO]), "%s/postern", self);
    return ERR_OK;
}

static void set_env(struct up *up, int child, int slot, const char *key, const char *value)
{
    (void)snprintf(up->env[child][slot], TEXT, "%s=%s", key, value);
    up->children[child].env[slot] = up->env[child][slot];
}

static void describe_children(struct up *up)
{
    char value[TEXT];
    int i = 0;

    (void)cli_trial_path(&up->trial, "config.yaml", up->config);
    for (i = 0; i < N_CHILDREN; i++) {
        struct cli_child *c = &up->children[i];
        struct stat log = { 0 };
        char name[64];

        (void)snprintf(name, sizeof(name), "log/%s.log", names[i]);
        (void)cli_trial_path(&up->trial, name, up->log[i]);
        c->name = names[i];
        c->log = up->verbose ? NULL : up->log[i];
        up->log_from[i] = stat(up->log[i], &log) == 0 ? log.st_size : 0;
        c->argv[0] = up->program[i];
        c->argv[1] = i == DEMO ? "demo-app" : "--config";
        c->argv[2] = i == DEMO ? "--listen" : up->config;
        (void)snprintf(value, sizeof(value), "https://authenticate.localhost:%u", up->port);
        set_env(up, i, 0, "AUTHENTICATE_SERVICE_URL", value);
        (void)snprintf(value, sizeof(value), "127.0.0.1:%u", up->port);
        set_env(up, i, 1, "ADDRESS", value);
        (void)snprintf(value, sizeof(value), "unix:%s/sock/health-%s.sock", up->trial.folder,
                       names[i]);
        set_env(up, i, 2, "HEALTH_CHECK_ADDR", value);
        (void)snprintf(value, sizeof(value), "unix:%s/sock/%s.sock", up->trial.folder, names[i]);
        set_env(up, i, 3, "GRPC_ADDRESS", value);
    }
    (void)snprintf(up->listen, sizeof(up->listen), "unix:%s/sock/demo.sock", up->trial.folder);
    up->children[DEMO].argv[3] = up->listen;
}

static enum err start_all(struct up *up, struct diag *d)
{
    static const int order[] = { DATABROKER, AUTHORIZE, AUTHENTICATE, DEMO, PROXY };
    size_t i = 0;

    for (i = 0; i < ARRAY_LEN(order); i++) {
        enum err err = cli_child_start(&up->children[order[i]], d);

        if (err != ERR_OK) {
            return err;
        }
    }
    up->children[DEMO].once_ready = true; /* nobody waits for it */
    return ERR_OK;
}

static bool all_ready(struct up *up)
{
    bool ready = true;
    int i = 0;

    for (i = 0; i < DEMO; i++) {
        struct cli_child *c = &up->children[i];

        if (!c->once_ready) {
            c->once_ready =
                c->pid > 0 && cli_is_ready(up->env[i][2] + strlen("HEALTH_CHECK_ADDR="));
        }
        ready = ready && c->once_ready;
    }
    return ready;
}

static void print_ready(const struct up *up)
{
    char path[TRIAL_PATH];
    char *accounts = NULL;

    (void)printf("\nPostern is ready: https://demo.localhost:%u/\n\n", up->port);
    if (cli_file_read(cli_trial_path(&up->trial, "accounts.txt", path), ACCOUNTS_MAX, &accounts,
                      NULL) == ERR_OK) {
        (void)printf("Accounts (e-mail, password):\n%s\n", accounts);
        mem_free(&accounts);
    }
    (void)printf("Only group admins may open  https://admin.localhost:%u/\n"
                 "Everybody may open          https://public.localhost:%u/\n\n",
                 up->port, up->port);
    (void)printf(
        "To trust its certificates:  curl --cacert %s/ca.pem …, or import that file as an authority\n"
        "                            in your browser (it is valid for localhost names only)\n"
        "Routes and policies:        %s/config.yaml\n"
        "Logs:                       %s/log/\n"
        "Ctrl-C stops everything.\n",
        up->trial.folder, up->trial.folder, up->trial.folder);
    (void)fflush(stdout);
}

/* Why a part is not ready, in its own words where it has any. */
static void tell_late(const struct up *up, int child)
{
    const struct cli_child *c = &up->children[child];
    CLEANUP(buf_deinit) struct buf words = { 0 };

    buf_init(&words, WORDS_MAX);
    if (c->log != NULL && cli_last_words(up->log[child], up->log_from[child], &words)) {
        (void)cli_fail(1, "%s cannot start: %s", names[child], buf_cstr(&words));
    } else if (c->ends > 0) {
        (void)cli_fail(1, "%s ended %u times before it was ready%s%s", names[child], c->ends,
                       c->log == NULL ? "" : "; its log is ", c->log == NULL ? "" : c->log);
    } else {
        (void)cli_fail(1, "%s did not become ready within %d s%s%s", names[child],
                       READY_WAIT_MS / 1000, c->log == NULL ? "" : "; its log is ",
                       c->log == NULL ? "" : c->log);
    }
}

/* The part to give up for; those that others wait for come first. -1: none yet. */
static int hopeless(const struct up *up, int64_t since_ms)
{
    static const int order[] = { DATABROKER, AUTHORIZE, AUTHENTICATE, PROXY };
    int64_t waited_ms = clock_mono_ms() - since_ms;

    for (size_t i = 0; i < ARRAY_LEN(order); i++) {
        const struct cli_child *c = &up->children[order[i]];
        CLEANUP(buf_deinit) struct buf words = { 0 };

        buf_init(&words, WORDS_MAX);
        if (!c->once_ready &&
            (c->ends >= STARTS_MAX || waited_ms > READY_WAIT_MS ||
             (waited_ms > EXCUSE_WAIT_MS && c->log != NULL &&
              cli_last_words(up->log[order[i]], up->log_from[order[i]], &words)))) {
            return order[i];
        }
    }
    return -1;
}

/* False: it was interrupted or gave up. */
static bool wait_ready(struct up *up)
{
    int64_t since_ms = clock_mono_ms();

    while (!all_ready(up)) {
        int child = hopeless(up, since_ms);

        if (child >= 0) {
            tell_late(up, child);
            return false;
        }
        if (cli_supervise_turn(up->children, N_CHILDREN, 100)) {
            return false;
        }
    }
    return true;
}

/* Once it runs it stays: it does nothing while autocert is off. */
static void start_acme(struct up *up, const struct config *config)
{
    struct cli_child *acme = &up->children[ACME];
    struct diag d = { .line = 0 };

    if (!config->autocert || acme->started_ms != 0) {
        return;
    }
    acme->once_ready = true; /* nobody waits for it */
    if (cli_child_start(acme, &d) != ERR_OK) {
        (void)fprintf(stderr, "postern: no certificates from an ACME server: %s\n", d.text);
    }
}

/* A new route's host needs a place in the certificate, or one from an ACME server. Who just saved the
 * file looks here, not into the logs of those who serve. */
static void follow_config(struct up *up)
{
    struct config_opts opts = { .file = up->config, .env = (const char *const *)environ };
    struct config *config = NULL;
    struct config_errors *errors = NULL;
    struct diag d = { .line = 0 };
    struct stat now = { 0 };

    if (stat(up->config, &now) != 0 ||
        (now.st_ino == up->seen.st_ino && now.st_size == up->seen.st_size &&
         now.st_mtim.tv_sec == up->seen.st_mtim.tv_sec &&
         now.st_mtim.tv_nsec == up->seen.st_mtim.tv_nsec)) {
        return;
    }
    up->seen = now;
    if (config_load(&opts, &config, &errors) != ERR_OK) {
        cli_errors_tell(errors);
        (void)fputs("postern: the configuration before that stays in force\n", stderr);
    } else {
        start_acme(up, config);
        (void)cli_policies_tell(config);
        if (cli_certificates_cover(&up->trial, config, &d) != ERR_OK) {
            (void)fprintf(stderr, "postern: no certificate for a new host: %s\n", d.text);
        }
    }
    config_errors_free(&errors);
    config_unref(&config);
}

static int run(struct up *up)
{
    struct diag d = { .line = 0 };
    int code = 0;

    cli_supervise_signals();
    if (start_all(up, &d) != ERR_OK) {
        code = cli_fail(1, "%s", d.text);
    } else if (!wait_ready(up)) {
        code = 1;
    } else {
        print_ready(up);
        do {
            follow_config(up);
        } while (!cli_supervise_turn(up->children, N_CHILDREN, TURN_MS));
        (void)fputs("stopping\n", stderr);
    }
    cli_supervise_stop(up->children, N_CHILDREN, GRACE_MS);
    return code;
}

/* Two at once in one folder would take each other's sockets. Held until the process ends. */
static enum err lock_folder(const struct up *up, struct diag *d)
{
    char path[TRIAL_PATH];
    int fd = open(cli_trial_path(&up->trial, "lock", path), O_RDWR | O_CREAT | O_CLOEXEC, 0600);

    if (fd < 0) {
        diag_set(d, "cannot write in %s", up->trial.folder);
        return ERR_IO;
    }
    if (flock(fd, LOCK_EX | LOCK_NB) != 0) {
        (void)close(fd);
        diag_set(d, "another postern up already runs in %s", up->trial.folder);
        return ERR_EXISTS;
    }
    return ERR_OK;
}

static enum err prepare(struct up *up, const char *folder, struct diag *d)
{
    enum err err = check_port(up->port, d);

    err = err != ERR_OK ? err : find_programs(up, d);
    err = err != ERR_OK ? err : cli_trial_prepare(&up->trial, folder, d);
    err = err != ERR_OK ? err : lock_folder(up, d);
    return err;
}

static int start(const char *folder, uint16_t port, bool verbose)
{
    struct up *up = MEM_NEW(struct up);
    struct diag d = { .line = 0 };
    struct config *config = NULL;
    int code = 1;

    up->port = port;
    up->verbose = verbose;
    if (prepare(up, folder, &d) != ERR_OK) {
        (void)cli_fail(1, "%s", d.text);
    } else {
        describe_children(up);
        config = cli_config(up->config);
        if (config != NULL && cli_certificates_cover(&up->trial, config, &d) != ERR_OK) {
            (void)cli_fail(1, "%s", d.text);
            config_unref(&config);
        }
        if (config != NULL) {
            config_unref(&config);
            code = run(up);
        }
    }
    mem_free(&up);
    return code;
}

int cli_up_main(int argc, char **argv)
{
    static const struct option options[] = { { "dir", required_argument, NULL, 'd' },
                                             { "port", required_argument, NULL, 'p' },
                                             { "verbose", no_argument, NULL, 'v' },
                                             { "help", no_argument, NULL, 'h' },
                                             { 0 } };
    const char *folder = "run";
    uint64_t port = 8443;
    bool verbose = false;
    int option = 0;

    /* NOLINTNEXTLINE(concurrency-mt-unsafe): no other thread yet */
    while ((option = getopt_long(argc, argv, "", options, NULL)) != -1) {
        switch (option) {
        case 'd':
            folder = optarg;
            break;
        case 'p':
            if (sv_u64(sv_from(optarg), UINT16_MAX, &port) != ERR_OK || port == 0) {
                return cli_fail(2, "--port %s is no port (1 to 65535)", optarg);
            }
            break;
        case 'v':
            verbose = true;
            break;
        default:
            (void)fputs(help, option == 'h' ? stdout : stderr);
            return option == 'h' ? 0 : 2;
        }
    }
    if (optind != argc) {
        (void)fputs(help, stderr);
        return 2;
    }
    return start(folder, (uint16_t)port, verbose);
}
