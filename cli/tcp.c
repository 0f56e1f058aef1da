/* postern tcp: a local address, or standard input and output, that leads through a tunnel. */
#include <arpa/inet.h>
#include <errno.h>
#include <getopt.h>
#include <netinet/in.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "cli/command.h"
#include "cli/file.h"
#include "cli/tunnel_login.h"
#include "common/listen.h"
#include "common/mem.h"
#include "common/secret.h"

enum { TUNNELS_MAX = 256 };

static const char tcp_help[] =
    "usage: postern tcp HOST:PORT [--listen ADDRESS]\n"
    "       postern tcp tcp+https://PROXY[:PORT]/HOST:PORT [--listen ADDRESS]\n\n"
    "Opens a tunnel through the proxy for every connection to ADDRESS, after a login in the\n"
    "browser where one is needed. The login is kept for the next time.\n"
    "  --listen ADDRESS    host:port to take connections at (127.0.0.1 and a free port); - is\n"
    "                      standard input and output, as for ssh -o ProxyCommand\n"
    "  --proxy-url URL     the proxy, where it is not https://HOST\n"
    "  --ca FILE           certificates to trust in place of the system's, as PEM\n"
    "  --client-cert FILE, --client-key FILE\n"
    "                      a certificate of yours, for proxies that ask for one, as PEM\n"
    "  --browser-cmd CMD   program that opens the address of the login (xdg-open); '' starts none,\n"
    "                      the address is printed always\n"
    "  --token-file FILE   a token instead of a login; $POSTERN_TUNNEL_TOKEN does as well\n";

/* What all tunnels of the command share. */
struct tunnels {
    struct cli_tunnel_way way;
    struct cli_tunnel_login login;
    struct cli_tunnel_files files;
    const char *token_file;
    pthread_mutex_t mu;  /* of what follows: one login at a time, all others wait for it */
    char *token;         /* NULL: none yet */
    unsigned generation; /* of token */
    bool given;          /* token came from outside: no login takes its place */
    unsigned n;          /* open or opening */
};

struct connection {
    struct tunnels *tunnels;
    int in;
    int out;
};

/* ---- the token ------------------------------------------------------------------------------- */

static void drop_token(struct tunnels *t)
{
    if (t->token != NULL) {
        secret_wipe(t->token, strlen(t->token));
        mem_free(&t->token);
    }
}

static void set_token(struct tunnels *t, char *token)
{
    drop_token(t);
    token[strcspn(token, "\r\n")] = '\0';
    t->token = token;
    t->generation++;
}

/* A file is read each time: somebody else may renew it. */
static enum err load_given(struct tunnels *t, struct diag *d)
{
    const char *text =
        getenv("POSTERN_TUNNEL_TOKEN"); /* NOLINT(concurrency-mt-unsafe): read only */
    char *token = NULL;

    if (t->token_file != NULL) {
        enum err err = cli_file_read(t->token_file, CLI_TOKEN_MAX, &token, d);

        if (err != ERR_OK) {
            return err;
        }
    } else if (text != NULL && text[0] != '\0') {
        token = mem_strdup(text);
    }
    if (token != NULL) {
        t->given = true;
        set_token(t, token);
    }
    return ERR_OK;
}

static enum err log_in(struct tunnels *t, struct diag *d)
{
    char *token = NULL;
    enum err err = cli_tunnel_login(&t->login, &token, d);

    if (err == ERR_OK) {
        set_token(t, token);
        cli_tunnel_keep(&t->way, t->token);
    }
    return err;
}

/* Before a first try: what there is, maybe nothing. */
static enum err first_token(struct tunnels *t, struct diag *d)
{
    enum err err = load_given(t, d);

    if (err == ERR_OK && t->token == NULL) {
        char *kept = cli_tunnel_kept(&t->way);

        if (kept != NULL) {
            set_token(t, kept);
        }
    }
    return err;
}

/* The one of generation was refused: a new one, unless another thread has got it already. */
static enum err next_token(struct tunnels *t, unsigned generation, struct diag *d)
{
    if (t->given) {
        diag_set(d,
                 "the token is not accepted: its session has ended, or it is for another tunnel");
        return ERR_INVALID;
    }
    if (generation != t->generation) {
        return ERR_OK;
    }
    drop_token(t);
    cli_tunnel_forget(&t->way);
    return log_in(t, d);
}

/* ---- one connection --------------------------------------------------------------------------- */

static enum err try_once(struct tunnels *t, bool again, unsigned *generation,
                         struct cli_tunnel **tunnel_out, struct diag *d)
{
    char *token = NULL;
    enum err err = ERR_OK;

    (void)pthread_mutex_lock(&t->mu);
    err = again ? next_token(t, *generation, d) : first_token(t, d);
    *generation = t->generation;
    token = mem_strdup(t->token == NULL ? "" : t->token);
    (void)pthread_mutex_unlock(&t->mu);
    err = err != ERR_OK ? err : cli_tunnel_open(&t->way, token, tunnel_out, d);
    secret_wipe(token, strlen(token));
    mem_free(&token);
    return err;
}

/* Once again with a new token: a second refusal is the answer. */
static enum err open_tunnel(struct tunnels *t, struct cli_tunnel **tunnel_out, struct diag *d)
{
    unsigned generation = 0;
    struct diag first = { .line = 0 };
    enum err err = try_once(t, false, &generation, tunnel_out, &first);

    if (err == ERR_DENIED) {
        return try_once(t, true, &generation, tunnel_out, d);
    }
    *d = first;
    return err;
}

static enum err carry(struct tunnels *t, int in, int out)
{
    struct cli_tunnel *tunnel = NULL;
    struct diag d = { .line = 0 };
    char line[DIAG_LINE];
    enum err err = open_tunnel(t, &tunnel, &d);

    if (err != ERR_OK) {
        (void)cli_fail(0, "%s", diag_format(&d, line));
        (void)close(in);
        if (out != in) {
            (void)close(out);
        }
        return err;
    }
    err = cli_tunnel_run(tunnel, in, out);
    if (err != ERR_OK) {
        (void)cli_fail(0, "a tunnel to %s was cut", t->way.authority);
    }
    cli_tunnel_free(&tunnel);
    return err;
}

static void *connection_main(void *arg)
{
    struct connection *c = arg;

    (void)carry(c->tunnels, c->in, c->out);
    (void)__atomic_sub_fetch(&c->tunnels->n, 1, __ATOMIC_RELAXED);
    mem_free(&c);
    return NULL;
}

static void start(struct tunnels *t, int fd)
{
    struct connection *c = NULL;
    pthread_t thread;

    if (__atomic_add_fetch(&t->n, 1, __ATOMIC_RELAXED) > TUNNELS_MAX) {
        (void)__atomic_sub_fetch(&t->n, 1, __ATOMIC_RELAXED);
        (void)cli_fail(0, "more than %d connections at once: one is refused", TUNNELS_MAX);
        (void)close(fd);
        return;
    }
    c = MEM_NEW(struct connection);
    *c = (struct connection){ .tunnels = t, .in = fd, .out = fd };
    if (pthread_create(&thread, NULL, connection_main, c) != 0) {
        (void)__atomic_sub_fetch(&t->n, 1, __ATOMIC_RELAXED);
        (void)close(fd);
        mem_free(&c);
        return;
    }
    (void)pthread_detach(thread);
}

/* ---- the command ------------------------------------------------------------------------------ */

static void tell_address(int listener, const struct tunnels *t)
{
    struct sockaddr_storage at = { 0 };
    socklen_t size = sizeof(at);
    char text[INET6_ADDRSTRLEN] = "";

    if (getsockname(listener, (struct sockaddr *)&at, &size) != 0) {
        return;
    }
    if (at.ss_family == AF_INET) {
        const struct sockaddr_in *v4 = (const struct sockaddr_in *)(const void *)&at;

        (void)printf("%s:%u leads to %s\n", inet_ntop(AF_INET, &v4->sin_addr, text, sizeof(text)),
                     ntohs(v4->sin_port), t->way.authority);
    } else if (at.ss_family == AF_INET6) {
        const struct sockaddr_in6 *v6 = (const struct sockaddr_in6 *)(const void *)&at;

        (void)printf("[%s]:%u leads to %s\n",
                     inet_ntop(AF_INET6, &v6->sin6_addr, text, sizeof(text)), ntohs(v6->sin6_port),
                     t->way.authority);
    } else {
        (void)printf("connections lead to %s\n", t->way.authority);
    }
    (void)fflush(stdout);
}

static int serve(struct tunnels *t, const char *address)
{
    struct diag d = { .line = 0 };
    char line[DIAG_LINE];
    int listener = -1;

    if (listen_open(sv_from(address), &listener, &d) != ERR_OK) {
        return cli_fail(1, "%s", diag_format(&d, line));
    }
    tell_address(listener, t);
    for (;;) {
        struct pollfd p = { .fd = listener, .events = POLLIN };
        int fd = -1;

        (void)poll(&p, 1, -1);
        fd = accept4(listener, NULL, NULL, SOCK_CLOEXEC);
        if (fd >= 0) {
            start(t, fd);
        } else if (errno == EMFILE || errno == ENFILE) {
            (void)poll(NULL, 0, 100);
        }
    }
}

static bool read_options(struct tunnels *t, int argc, char **argv, const char **listen_out,
                         const char **proxy_out)
{
    static const struct option options[] = { { "listen", required_argument, NULL, 'l' },
                                             { "proxy-url", required_argument, NULL, 'p' },
                                             { "pomerium-url", required_argument, NULL, 'p' },
                                             { "ca", required_argument, NULL, 'a' },
                                             { "ca-cert", required_argument, NULL, 'a' },
                                             { "client-cert", required_argument, NULL, 'c' },
                                             { "client-key", required_argument, NULL, 'k' },
                                             { "browser-cmd", required_argument, NULL, 'b' },
                                             { "token-file", required_argument, NULL, 't' },
                                             { "help", no_argument, NULL, 'h' },
                                             { 0 } };
    int option = 0;

    /* NOLINTNEXTLINE(concurrency-mt-unsafe): no other thread yet */
    while ((option = getopt_long(argc, argv, "", options, NULL)) != -1) {
        switch (option) {
        case 'l':
            *listen_out = optarg;
            break;
        case 'p':
            *proxy_out = optarg;
            break;
        case 'a':
            t->files.ca = optarg;
            break;
        case 'c':
            t->files.cert = optarg;
            break;
        case 'k':
            t->files.key = optarg;
            break;
        case 'b':
            t->login.browser = optarg;
            break;
        case 't':
            t->token_file = optarg;
            break;
        default:
            return false;
        }
    }
    return optind == argc - 1;
}

int cli_tcp_main(int argc, char **argv)
{
    static struct tunnels t = { .mu = PTHREAD_MUTEX_INITIALIZER };
    struct diag d = { .line = 0 };
    char line[DIAG_LINE];
    const char *listen = "127.0.0.1:0";
    const char *proxy = NULL;

    if (argc == 2 && strcmp(argv[1], "--help") == 0) {
        (void)fputs(tcp_help, stdout);
        return 0;
    }
    if (!read_options(&t, argc, argv, &listen, &proxy)) {
        (void)fputs(tcp_help, stderr);
        return 2;
    }
    if (cli_tunnel_way(argv[optind], proxy, &t.way, &d) != ERR_OK) {
        return cli_fail(2, "%s", diag_format(&d, line));
    }
    if (cli_tunnel_trust(&t.way, &t.files, &d) != ERR_OK) {
        return cli_fail(1, "%s", diag_format(&d, line));
    }
    (void)signal(SIGPIPE, SIG_IGN);
    (void)signal(SIGCHLD, SIG_IGN); /* browsers are nobody's to wait for */
    t.login.way = &t.way;
    if (strcmp(listen, "-") != 0) {
        return serve(&t, listen);
    }
    return carry(&t, STDIN_FILENO, STDOUT_FILENO) == ERR_OK ? 0 : 1;
}
