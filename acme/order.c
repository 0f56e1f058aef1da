#include "acme/order.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include <jansson.h>

#include "common/mem.h"
#include "common/secret.h"
#include "common/service.h"

#include "acme/folder.h"

enum { REPLY_MAX = 65536, ORDER_MAX = 4 * 1024 * 1024, TIMEOUT_S = 300, LOCK_FD = 3, ENV_MAX = 8 };

struct acme_order {
    acme_order_fn done;
    void *arg;
    pid_t pid;
    int fd; /* its standard output */
    struct event *readable;
    struct event *timeout;
    bool late;
    struct buf reply;
};

/* ---- the order ------------------------------------------------------------------------------- */

static void add_member(struct buf *b, const char *name, struct sv value)
{
    buf_printf(b, "%s\"%s\":", b->n == 1 ? "" : ",", name);
    buf_add_json(b, value);
}

static void add_folder(struct buf *b, const char *name, const struct config *c)
{
    CLEANUP(buf_deinit) struct buf path = { 0 };

    buf_init(&path, 8192);
    acme_folder_path(c, name, &path);
    buf_printf(b, ",\"%s\":", name);
    buf_add_json(b, buf_sv(&path));
}

static void write_order(const struct acme_order_opts *o, struct buf *b)
{
    const struct config *c = o->config;

    buf_add_char(b, '{');
    add_member(b, "directory", c->autocert_ca);
    add_member(b, "dir", c->autocert_dir);
    add_folder(b, "accounts", c);
    add_folder(b, "certificates", c);
    add_member(b, "host", sv_from(o->host));
    add_member(b, "type", sv_from(o->challenge));
    add_member(b, "email", c->autocert_email);
    add_member(b, "trusted_ca", c->autocert_trusted_ca);
    add_member(b, "eab_key_id", c->autocert_eab_key_id);
    if (c->autocert_eab_mac_key != NULL) {
        add_member(b, "eab_mac_key", secret_bytes(c->autocert_eab_mac_key));
    }
    buf_printf(b, ",\"agent\":\"postern/%s\"}", service_version);
}

/* Memory that has a descriptor and no name; -1: none to be had. */
static int order_file(const struct acme_order_opts *o)
{
    struct buf text;
    size_t done = 0;
    int fd = memfd_create("order", MFD_CLOEXEC);

    buf_init(&text, ORDER_MAX);
    write_order(o, &text);
    while (fd >= 0 && text.err == ERR_OK && done < text.n) {
        ssize_t n = write(fd, text.p + done, text.n - done);

        if (n <= 0) {
            break;
        }
        done += (size_t)n;
    }
    if (fd >= 0 && (text.err != ERR_OK || done < text.n || lseek(fd, 0, SEEK_SET) != 0)) {
        (void)close(fd);
        fd = -1;
    }
    if (text.p != NULL) {
        secret_wipe(text.p, text.n);
    }
    buf_deinit(&text);
    return fd;
}

/* ---- the outcome ----------------------------------------------------------------------------- */

static enum acme_result result_of(const char *name)
{
    static const struct {
        const char *name;
        enum acme_result result;
    } known[] = { { "issued", ACME_ISSUED }, { "limited", ACME_LIMITED }, { "busy", ACME_BUSY } };

    for (size_t i = 0; i < ARRAY_LEN(known); i++) {
        if (strcmp(known[i].name, name) == 0) {
            return known[i].result;
        }
    }
    return ACME_REFUSED;
}

static void read_reply(const struct acme_order *order, struct acme_outcome *out)
{
    json_t *root = json_loadb(order->reply.p == NULL ? "" : order->reply.p, order->reply.n,
                              JSON_REJECT_DUPLICATES, NULL);
    const char *result = "";
    const char *error = "";

    out->result = ACME_REFUSED;
    if (order->late) {
        (void)snprintf(out->text, sizeof(out->text), "the client took longer than %d s", TIMEOUT_S);
    } else if (json_unpack(root, "{s:s, s?s}", "result", &result, "error", &error) != 0) {
        (void)snprintf(out->text, sizeof(out->text),
                       "the client ended without an answer; is python3-acme installed?");
    } else {
        out->result = result_of(result);
        (void)snprintf(out->text, sizeof(out->text), "%s", error);
    }
    json_decref(root);
}

/* It has closed its output, or has to end: nothing that it does after this counts. */
static void end_client(struct acme_order *order)
{
    int status = 0;

    if (order->pid > 0) {
        (void)kill(order->pid, SIGKILL);
        while (waitpid(order->pid, &status, 0) < 0 && errno == EINTR) {
        }
        order->pid = 0;
    }
}

static void finish(struct acme_order *order)
{
    struct acme_outcome outcome = { .text = "" };

    (void)event_del(order->readable);
    (void)event_del(order->timeout);
    end_client(order);
    read_reply(order, &outcome);
    order->done(&outcome, order->arg);
} /* nothing after this: the order may be gone */

static void on_readable(evutil_socket_t fd, short what, void *arg)
{
    struct acme_order *order = arg;
    char room[4096];
    ssize_t n = read(fd, room, sizeof(room));

    (void)what;
    if (n < 0 && (errno == EAGAIN || errno == EINTR)) {
        return;
    }
    if (n > 0) {
        buf_add(&order->reply, room, (size_t)n);
    }
    if (n <= 0 || order->reply.err != ERR_OK) {
        finish(order);
    }
}

static void on_timeout(evutil_socket_t fd, short what, void *arg)
{
    struct acme_order *order = arg;

    (void)fd;
    (void)what;
    order->late = true;
    finish(order);
}

/* ---- life ------------------------------------------------------------------------------------ */

/* What the client may know of our environment, which holds secrets. */
static void pick_env(char *env[ENV_MAX])
{
    static const char *const names[] = { "PATH=",     "TZ=",          "HTTPS_PROXY=",
                                         "NO_PROXY=", "https_proxy=", "no_proxy=" };
    size_t n = 0;

    for (char **e = environ; *e != NULL; e++) {
        for (size_t i = 0; i < ARRAY_LEN(names) && n < ENV_MAX - 1; i++) {
            if (sv_starts(sv_from(*e), sv_from(names[i]))) {
                env[n++] = *e;
            }
        }
    }
    env[n] = NULL;
}

static int spawn(const struct acme_order_opts *o, int in, int out, pid_t *pid_out)
{
    char *argv[] = { base_unconst(o->program), NULL };
    char *env[ENV_MAX] = { NULL };
    posix_spawn_file_actions_t files;
    posix_spawnattr_t attr;
    sigset_t none;
    sigset_t all;
    int code = 0;

    (void)sigemptyset(&none);
    (void)sigfillset(&all);
    pick_env(env);
    CHECK(posix_spawn_file_actions_init(&files) == 0 && posix_spawnattr_init(&attr) == 0);
    CHECK(posix_spawn_file_actions_adddup2(&files, in, STDIN_FILENO) == 0 &&
          posix_spawn_file_actions_adddup2(&files, out, STDOUT_FILENO) == 0 &&
          posix_spawn_file_actions_adddup2(&files, o->lock, LOCK_FD) == 0);
    CHECK(posix_spawnattr_setsigmask(&attr, &none) == 0 &&
          posix_spawnattr_setsigdefault(&attr, &all) == 0 &&
          posix_spawnattr_setflags(&attr, POSIX_SPAWN_SETSIGMASK | POSIX_SPAWN_SETSIGDEF) == 0);
    code = posix_spawn(pid_out, o->program, &files, &attr, argv, env);
    (void)posix_spawn_file_actions_destroy(&files);
    (void)posix_spawnattr_destroy(&attr);
    return code;
}

static void watch(struct acme_order *order, struct loop *loop)
{
    struct timeval most = { .tv_sec = TIMEOUT_S };

    order->readable =
        event_new(loop_base(loop), order->fd, EV_READ | EV_PERSIST, on_readable, order);
    order->timeout = evtimer_new(loop_base(loop), on_timeout, order);
    CHECK(order->readable != NULL && order->timeout != NULL &&
          event_add(order->readable, NULL) == 0 && event_add(order->timeout, &most) == 0);
}

enum err acme_order_new(const struct acme_order_opts *opts, struct acme_order **order_out,
                        struct diag *d)
{
    struct acme_order *order = NULL;
    int ends[2] = { -1, -1 };
    int in = order_file(opts);
    pid_t pid = 0;
    int code = 0;
    char room[128];

    if (in < 0 || pipe2(ends, O_CLOEXEC | O_NONBLOCK) != 0) {
        diag_set(d, "no descriptor is to be had for the ACME client");
        if (in >= 0) {
            (void)close(in);
        }
        return ERR_IO;
    }
    code = spawn(opts, in, ends[1], &pid);
    (void)close(in);
    (void)close(ends[1]);
    if (code != 0) {
        (void)close(ends[0]);
        diag_set(d, "cannot start %s: %s", opts->program, strerror_r(code, room, sizeof(room)));
        return ERR_IO;
    }
    order = MEM_NEW(struct acme_order);
    order->done = opts->done;
    order->arg = opts->arg;
    order->pid = pid;
    order->fd = ends[0];
    buf_init(&order->reply, REPLY_MAX);
    watch(order, opts->loop);
    *order_out = order;
    return ERR_OK;
}

void acme_order_stop(struct acme_order *order)
{
    if (order->pid > 0) {
        (void)kill(order->pid, SIGTERM);
    }
}

void acme_order_free(struct acme_order **order)
{
    struct acme_order *o = TAKE(*order);

    if (o == NULL) {
        return;
    }
    end_client(o);
    event_free(o->readable);
    event_free(o->timeout);
    (void)close(o->fd);
    buf_deinit(&o->reply);
    mem_free(&o);
}
