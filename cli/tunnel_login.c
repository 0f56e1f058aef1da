#include "cli/tunnel_login.h"

#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <poll.h>
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include <jansson.h>
#include <openssl/sha.h>

#include "cli/command.h"
#include "cli/file.h"
#include "common/arena.h"
#include "common/b64.h"
#include "common/clock.h"
#include "common/fetch.h"
#include "common/http/form.h"
#include "common/http/head.h"
#include "common/http/page.h"
#include "common/listen.h"
#include "common/mem.h"
#include "common/rand.h"
#include "common/secret.h"

enum {
    SECRET_BYTES = 32,
    PATH_BYTES = 12,
    WAIT_MS = 300000, /* as long as the address is good for */
    VISIT_MS = 3000,  /* for all that a visitor of our listener says */
    HEAD_MAX = 16384,
    FIELDS = 64,
    URL_MAX = 16384,
    NAME_MAX_LEN = 4096
};

/* ---- the token that is kept ------------------------------------------------------------------- */

/* False: this account has no place for it, or its name is too long. */
static bool kept_name(const struct cli_tunnel_way *way, char name[NAME_MAX_LEN], bool make)
{
    const char *cache =
        getenv("XDG_CACHE_HOME");      /* NOLINT(concurrency-mt-unsafe): nobody sets it */
    const char *home = getenv("HOME"); /* NOLINT(concurrency-mt-unsafe): likewise */
    CLEANUP(buf_deinit) struct buf key = { 0 };
    CLEANUP(buf_deinit) struct buf path = { 0 };
    unsigned char sum[SHA256_DIGEST_LENGTH];
    bool own = cache != NULL && cache[0] == '/';

    if (!own && (home == NULL || home[0] != '/')) {
        return false;
    }
    buf_init(&key, 1024);
    buf_init(&path, NAME_MAX_LEN - 1);
    cli_tunnel_proxy_url(way, &key);
    buf_printf(&key, " %s", way->authority);
    (void)SHA256((const unsigned char *)key.p, key.n, sum);
    buf_printf(&path, "%s%s", own ? cache : home, own ? "" : "/.cache");
    if (make) {
        (void)mkdir(buf_cstr(&path), 0700);
    }
    buf_add_str(&path, "/postern");
    if (make) {
        (void)mkdir(buf_cstr(&path), 0700);
    }
    buf_add_char(&path, '/');
    hex_add(&path, sv_of(sum, 16));
    buf_add_str(&path, ".token");
    if (path.err != ERR_OK) {
        return false;
    }
    memcpy(name, buf_cstr(&path), path.n + 1);
    return true;
}

char *cli_tunnel_kept(const struct cli_tunnel_way *way)
{
    char name[NAME_MAX_LEN];
    struct stat st;
    char *token = NULL;

    if (!kept_name(way, name, false) || lstat(name, &st) != 0) {
        return NULL;
    }
    if (!S_ISREG(st.st_mode) || st.st_uid != geteuid() || (st.st_mode & 077U) != 0) {
        (void)cli_fail(0, "%s is not yours alone: it is not used", name);
        return NULL;
    }
    return cli_file_read(name, CLI_TOKEN_MAX, &token, NULL) == ERR_OK ? token : NULL;
}

void cli_tunnel_keep(const struct cli_tunnel_way *way, const char *token)
{
    char name[NAME_MAX_LEN];
    char line[DIAG_LINE];
    struct diag d = { .line = 0 };

    if (kept_name(way, name, true) && cli_file_write(name, sv_from(token), 0600, &d) != ERR_OK) {
        (void)cli_fail(0, "the login is not kept for the next time: %s", diag_format(&d, line));
    }
}

void cli_tunnel_forget(const struct cli_tunnel_way *way)
{
    char name[NAME_MAX_LEN];

    if (kept_name(way, name, false)) {
        (void)unlink(name);
    }
}

/* ---- asking the proxy ------------------------------------------------------------------------- */

struct asked {
    struct loop *loop;
    char *text; /* of a 200; NULL: none */
    struct diag *d;
};

/* A refusal of the proxy's is JSON with a code. */
static void on_answer(void *arg, const struct fetch_answer *answer)
{
    struct asked *a = arg;

    if (answer->err == ERR_OK && answer->status == 200 && answer->body.n != 0 &&
        answer->body.n < URL_MAX && sv_find(answer->body, '\0') == SIZE_MAX) {
        a->text = mem_svdup(answer->body);
    } else if (answer->err == ERR_OK) {
        json_t *body = json_loadb(answer->body.p, answer->body.n, 0, NULL);
        const char *code = json_string_value(json_object_get(body, "code"));
        bool plain = code != NULL && code[strspn(code, "abcdefghijklmnopqrstuvwxyz-")] == '\0';

        diag_set(a->d, "the proxy refused the login: status %ld, %s", answer->status,
                 plain ? code : "without a reason");
        json_decref(body);
    } else {
        diag_set(a->d, "the proxy cannot be asked for a login: %s", answer->text);
    }
    loop_stop(a->loop);
}

static enum err ask(const struct cli_tunnel_login *login, const char *url, char **text_out,
                    struct diag *d)
{
    struct asked a = { .loop = loop_new(), .d = d };
    struct fetcher *fetcher = fetcher_new(a.loop, NULL);
    char address[CLI_TUNNEL_TEXT_MAX + 8];
    /* By the way that the tunnel goes: the same trust, and our certificate where there is one. */
    const struct fetch_via via = { .address = address, .tls = login->way->tls, .verify = true };
    const struct fetch_request request = { .url = url, .via = &via };

    (void)snprintf(address, sizeof(address), "%s:%u", login->way->host, login->way->port);
    (void)fetch_start(fetcher, &request, on_answer, &a);
    loop_run(a.loop);
    fetcher_free(&fetcher);
    loop_free(&a.loop);
    *text_out = a.text;
    return a.text == NULL ? ERR_UNAVAILABLE : ERR_OK;
}

/* ---- the browser ------------------------------------------------------------------------------ */

static void open_browser(const char *program, char *url)
{
    char name[NAME_MAX_LEN];
    char *argv[] = { name, url, NULL };
    posix_spawn_file_actions_t actions;
    pid_t pid = 0;
    int failed = 0;

    (void)snprintf(name, sizeof(name), "%s", program == NULL ? "xdg-open" : program);
    if (name[0] == '\0') {
        return;
    }
    CHECK(posix_spawn_file_actions_init(&actions) == 0);
    /* Standard input and output may be the tunnel. */
    CHECK(posix_spawn_file_actions_addopen(&actions, 0, "/dev/null", O_RDONLY, 0) == 0);
    CHECK(posix_spawn_file_actions_addopen(&actions, 1, "/dev/null", O_WRONLY, 0) == 0);
    CHECK(posix_spawn_file_actions_addopen(&actions, 2, "/dev/null", O_WRONLY, 0) == 0);
    failed = posix_spawnp(&pid, name, &actions, NULL, argv, environ);
    (void)posix_spawn_file_actions_destroy(&actions);
    if (failed != 0 && program != NULL) {
        (void)cli_fail(0, "%s cannot be started; open the address yourself", program);
    }
}

/* What is printed goes to a terminal, what is started gets it as an argument: https and no more. */
static bool is_plain_url(const char *url)
{
    if (strncmp(url, "https://", 8) != 0) {
        return false;
    }
    for (const char *p = url; *p != '\0'; p++) {
        if (*p <= ' ' || *p >= 0x7f) {
            return false;
        }
    }
    return true;
}

static void answer(int fd, const char *status, const char *title, const char *what)
{
    struct buf page;
    struct buf head;

    buf_init(&page, HTTP_PAGE_MAX);
    buf_init(&head, (size_t)HTTP_PAGE_MAX * 2);
    http_page_problem(
        &page, &(struct http_page_problem){ .title = sv_from(title), .what = sv_from(what) });
    buf_printf(&head,
               "HTTP/1.1 %s\r\nContent-Type: text/html; charset=utf-8\r\nContent-Length: "
               "%zu\r\nCache-Control: no-store\r\nReferrer-Policy: no-referrer\r\nConnection: "
               "close\r\n\r\n",
               status, page.n);
    buf_add_sv(&head, buf_sv(&page));
    (void)!write(fd, head.p, head.n);
    buf_deinit(&page);
    buf_deinit(&head);
}

/* Reads some of what a visitor says; 0: it has said enough, or too slowly. */
static size_t hear(int fd, char *room, size_t size, int64_t until_ms)
{
    struct pollfd p = { .fd = fd, .events = POLLIN };
    int64_t left_ms = until_ms - clock_mono_ms();
    ssize_t n = left_ms > 0 && poll(&p, 1, (int)left_ms) == 1 ? read(fd, room, size) : 0;

    return n > 0 ? (size_t)n : 0;
}

/* One request at our listener. The code, if it comes to the path that only the browser was told. */
static char *visit(int fd, const char *path)
{
    int64_t until_ms = clock_mono_ms() + VISIT_MS;
    struct http_field fields[FIELDS];
    struct http_head head;
    enum http_step step = HTTP_MORE;
    char bytes[HEAD_MAX];
    size_t n = 0;
    struct arena arena;
    struct sv query = { 0 };
    struct sv code = { 0 };
    char *kept = NULL;

    http_head_init(&head, HTTP_REQUEST, NULL, fields, FIELDS);
    while (step == HTTP_MORE && n < sizeof(bytes)) {
        size_t got = hear(fd, bytes + n, sizeof(bytes) - n, until_ms);

        if (got == 0) {
            return NULL;
        }
        n += got;
        step = http_head_parse(&head, sv_of(bytes, n));
    }
    arena_init(&arena);
    query = head.target;
    if (step == HTTP_DONE && head.method == HTTP_GET && sv_eq(sv_cut(&query, '?'), sv_from(path)) &&
        http_form_get(query, SV("pomerium_code"), &arena, &code) == ERR_OK && code.n != 0 &&
        sv_find(code, '\0') == SIZE_MAX) {
        kept = mem_svdup(code);
        answer(fd, "200 OK", "You are logged in", "You may close this page: the program goes on.");
    } else {
        answer(fd, "404 Not Found", "Nothing is here", "A program waits here for its login.");
    }
    arena_deinit(&arena);
    return kept;
}

static enum err wait_for_code(int listener, const char *path, char **code_out, struct diag *d)
{
    int64_t until_ms = clock_mono_ms() + WAIT_MS;

    while (*code_out == NULL) {
        struct pollfd p = { .fd = listener, .events = POLLIN };
        int64_t left_ms = until_ms - clock_mono_ms();
        int fd = -1;

        if (left_ms <= 0 || poll(&p, 1, (int)left_ms) == 0) {
            diag_set(d, "nobody logged in within five minutes");
            return ERR_TIMEOUT;
        }
        fd = accept4(listener, NULL, NULL, SOCK_CLOEXEC);
        if (fd >= 0) {
            *code_out = visit(fd, path);
            (void)close(fd);
        } else {
            (void)poll(NULL, 0, 100); /* no more descriptors, maybe: not at full speed */
        }
    }
    return ERR_OK;
}

/* ---- together ---------------------------------------------------------------------------------- */

struct attempt {
    int listener;
    char path[32];
    struct buf verifier;
    struct buf url;
};

static enum err begin(struct attempt *a, const struct cli_tunnel_login *login, struct diag *d)
{
    CLEANUP(buf_deinit) struct buf text = { 0 };
    struct sockaddr_in at = { 0 };
    socklen_t size = sizeof(at);
    unsigned char bytes[SECRET_BYTES];
    unsigned char sum[SHA256_DIGEST_LENGTH];

    if (listen_open(SV("127.0.0.1:0"), &a->listener, d) != ERR_OK ||
        getsockname(a->listener, (struct sockaddr *)&at, &size) != 0) {
        return ERR_IO;
    }
    buf_init(&text, URL_MAX);
    rand_bytes(bytes, PATH_BYTES);
    b64_url_add(&text, sv_of(bytes, PATH_BYTES));
    (void)snprintf(a->path, sizeof(a->path), "/%s", buf_cstr(&text));
    rand_bytes(bytes, sizeof(bytes));
    b64_url_add(&a->verifier, sv_of(bytes, sizeof(bytes)));
    secret_wipe(bytes, sizeof(bytes));
    (void)SHA256((const unsigned char *)a->verifier.p, a->verifier.n, sum);
    buf_reset(&text);
    buf_printf(&text, "http://127.0.0.1:%u%s", ntohs(at.sin_port), a->path);
    cli_tunnel_proxy_url(login->way, &a->url);
    buf_add_str(&a->url, "/.pomerium/api/v1/login?");
    http_form_add(&a->url, SV("pomerium_redirect_uri"), buf_sv(&text));
    buf_reset(&text);
    b64_url_add(&text, sv_of(sum, sizeof(sum)));
    http_form_add(&a->url, SV("pomerium_binding"), buf_sv(&text));
    http_form_add(&a->url, SV("pomerium_tunnel"), sv_from(login->way->authority));
    return a->url.err;
}

static enum err finish(struct attempt *a, const struct cli_tunnel_login *login, const char *code,
                       char **token_out, struct diag *d)
{
    buf_reset(&a->url);
    cli_tunnel_proxy_url(login->way, &a->url);
    buf_add_str(&a->url, "/.pomerium/api/v1/token?");
    http_form_add(&a->url, SV("pomerium_code"), sv_from(code));
    http_form_add(&a->url, SV("pomerium_verifier"), buf_sv(&a->verifier));
    http_form_add(&a->url, SV("pomerium_tunnel"), sv_from(login->way->authority));
    return a->url.err != ERR_OK ? a->url.err : ask(login, buf_cstr(&a->url), token_out, d);
}

static enum err through_the_browser(struct attempt *a, const struct cli_tunnel_login *login,
                                    char **token_out, struct diag *d)
{
    CLEANUP(mem_free) char *address = NULL;
    CLEANUP(mem_free) char *code = NULL;
    enum err err = begin(a, login, d);

    err = err != ERR_OK ? err : ask(login, buf_cstr(&a->url), &address, d);
    if (err != ERR_OK) {
        return err;
    }
    if (!is_plain_url(address)) {
        diag_set(d, "the proxy's answer is no address of a login");
        return ERR_INVALID;
    }
    (void)fprintf(stderr, "postern: to reach %s, log in at\n  %s\n", login->way->authority,
                  address);
    open_browser(login->browser, address);
    err = wait_for_code(a->listener, a->path, &code, d);
    err = err != ERR_OK ? err : finish(a, login, code, token_out, d);
    if (err == ERR_OK) {
        (void)fprintf(stderr, "postern: logged in\n");
    }
    return err;
}

enum err cli_tunnel_login(const struct cli_tunnel_login *login, char **token_out, struct diag *d)
{
    struct attempt a = { .listener = -1 };
    enum err err = ERR_OK;

    buf_init(&a.verifier, 128);
    buf_init(&a.url, URL_MAX);
    err = through_the_browser(&a, login, token_out, d);
    if (a.listener >= 0) {
        (void)close(a.listener);
    }
    buf_deinit(&a.verifier);
    buf_deinit(&a.url);
    return err;
}
