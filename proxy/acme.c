#include "proxy/acme.h"

#include <dirent.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <openssl/err.h>
#include <openssl/pem.h>

#include "common/buf.h"
#include "common/job.h"
#include "common/map.h"
#include "common/mem.h"
#include "common/secret.h"

enum {
    FILE_MAX = 16384,
    TOKEN_MAX = 128,
    NAME_MAX_BYTES = 260,
    ALPN_SIZE = 13,
    STAND_IN_S = 365 * 86400
};

static const char http_prefix[] = "/.well-known/acme-challenge/";
/* RFC 8737 §3: the only protocol that the client offers, as a whole list. */
static const unsigned char acme_alpn[ALPN_SIZE] = "\x00\x0b\x0a"
                                                  "acme-tls/1";

struct proxy_acme {
    struct map *answers;  /* token → key authorization */
    struct map *contexts; /* host → SSL_CTX */
    size_t n;
    uint64_t mark; /* of all that was found: equal tables have the same */
    int refs;      /* atomic */
};

/* ---- the table ------------------------------------------------------------------------------- */

static void free_text(struct sv key, void *value, void *arg)
{
    (void)key;
    (void)arg;
    mem_free(&value);
}

static void free_ctx(struct sv key, void *value, void *arg)
{
    (void)key;
    (void)arg;
    SSL_CTX_free(value);
}

struct proxy_acme *proxy_acme_ref(struct proxy_acme *acme)
{
    (void)__atomic_add_fetch(&acme->refs, 1, __ATOMIC_RELAXED);
    return acme;
}

void proxy_acme_unref(struct proxy_acme **acme)
{
    struct proxy_acme *a = TAKE(*acme);

    if (a == NULL || __atomic_sub_fetch(&a->refs, 1, __ATOMIC_ACQ_REL) != 0) {
        return;
    }
    map_each(a->answers, free_text, NULL);
    map_each(a->contexts, free_ctx, NULL);
    map_free(&a->answers);
    map_free(&a->contexts);
    mem_free(&a);
}

/* base64url, which is all that RFC 8555 §8.3 allows; so no path and no field can be made of it. */
static bool is_token(struct sv s)
{
    for (size_t i = 0; i < s.n; i++) {
        char c = s.p[i];

        if (!((c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') ||
              c == '-' || c == '_')) {
            return false;
        }
    }
    return s.n != 0 && s.n <= TOKEN_MAX;
}

struct sv proxy_acme_answer(const struct proxy_acme *acme, struct sv path)
{
    struct sv prefix = SV(http_prefix);

    if (acme == NULL || !sv_starts(path, prefix)) {
        return (struct sv){ 0 };
    }
    return sv_from(map_get(acme->answers, sv_from_at(path, prefix.n)));
}

/* ---- challenge certificates ------------------------------------------------------------------ */

static int on_alpn(SSL *ssl, const unsigned char **out, unsigned char *out_n,
                   const unsigned char *in, unsigned in_n, void *arg)
{
    (void)ssl;
    (void)arg;
    if (in_n != ALPN_SIZE - 2 || memcmp(in, acme_alpn + 2, in_n) != 0) {
        return SSL_TLSEXT_ERR_ALERT_FATAL;
    }
    *out = in + 1;
    *out_n = ALPN_SIZE - 3;
    return SSL_TLSEXT_ERR_OK;
}

/* The types are OpenSSL's. NOLINTNEXTLINE(readability-non-const-parameter) */
static int keep_context(SSL *ssl, int *alert, void *arg)
{
    (void)ssl;
    (void)alert;
    (void)arg;
    return SSL_TLSEXT_ERR_OK;
}

static SSL_CTX *context_of(struct sv pem)
{
    SSL_CTX *ctx = SSL_CTX_new(TLS_server_method());
    BIO *cert_bio = BIO_new_mem_buf(pem.p, (int)pem.n);
    BIO *key_bio = BIO_new_mem_buf(pem.p, (int)pem.n);
    X509 *cert = PEM_read_bio_X509(cert_bio, NULL, NULL, NULL);
    EVP_PKEY *key = PEM_read_bio_PrivateKey(key_bio, NULL, NULL, base_unconst(""));

    CHECK(ctx != NULL && SSL_CTX_set_min_proto_version(ctx, TLS1_2_VERSION) == 1);
    if (cert == NULL || key == NULL || SSL_CTX_use_certificate(ctx, cert) != 1 ||
        SSL_CTX_use_PrivateKey(ctx, key) != 1) {
        SSL_CTX_free(ctx);
        ctx = NULL;
    } else {
        (void)SSL_CTX_set_tlsext_servername_callback(ctx, keep_context);
        SSL_CTX_set_alpn_select_cb(ctx, on_alpn, NULL);
    }
    ERR_clear_error();
    X509_free(cert);
    EVP_PKEY_free(key);
    BIO_free(cert_bio);
    BIO_free(key_bio);
    return ctx;
}

/* RFC 6066 §3, with the one name that RFC 8737 §3 wants; { NULL, 0 }: anything else. */
static struct sv hello_name(SSL *ssl)
{
    const unsigned char *p = NULL;
    size_t n = 0;

    if (SSL_client_hello_get0_ext(ssl, TLSEXT_TYPE_server_name, &p, &n) != 1 || n <= 5 ||
        (size_t)(p[0] << 8 | p[1]) != n - 2 || p[2] != TLSEXT_NAMETYPE_host_name ||
        (size_t)(p[3] << 8 | p[4]) != n - 5) {
        return (struct sv){ 0 };
    }
    return sv_of(p + 5, n - 5);
}

static int slot_index;
static pthread_once_t slot_once = PTHREAD_ONCE_INIT;

static void make_slot(void)
{
    slot_index = SSL_get_ex_new_index(0, NULL, NULL, NULL, NULL);
    CHECK(slot_index >= 0);
}

static int on_hello(SSL *ssl, int *alert, void *arg)
{
    struct proxy_acme *const *slot = SSL_get_ex_data(ssl, slot_index);
    const struct proxy_acme *acme = slot == NULL ? NULL : *slot;
    const unsigned char *p = NULL;
    size_t n = 0;
    char lower[NAME_MAX_BYTES];
    struct sv name = { 0 };
    SSL_CTX *ctx = NULL;

    (void)arg;
    if (SSL_client_hello_get0_ext(ssl, TLSEXT_TYPE_application_layer_protocol_negotiation, &p,
                                  &n) != 1 ||
        n != ALPN_SIZE || memcmp(p, acme_alpn, n) != 0) {
        return SSL_CLIENT_HELLO_SUCCESS;
    }
    name = hello_name(ssl);
    if (acme != NULL && name.n < sizeof(lower)) {
        for (size_t i = 0; i < name.n; i++) {
            lower[i] = (char)(name.p[i] >= 'A' && name.p[i] <= 'Z' ? name.p[i] | 0x20 : name.p[i]);
        }
        ctx = map_get(acme->contexts, sv_of(lower, name.n));
    }
    if (ctx == NULL || SSL_set_SSL_CTX(ssl, ctx) == NULL) {
        *alert = SSL_AD_UNRECOGNIZED_NAME;
        return SSL_CLIENT_HELLO_ERROR;
    }
    /* Whatever visitors have to show; and no session of a challenge may become one of the site. */
    SSL_set_verify(ssl, SSL_VERIFY_NONE, NULL);
    (void)SSL_set_options(ssl, SSL_OP_NO_TICKET);
    (void)SSL_set_num_tickets(ssl, 0);
    return SSL_CLIENT_HELLO_SUCCESS;
}

void proxy_acme_listen(SSL_CTX *ctx)
{
    (void)pthread_once(&slot_once, make_slot);
    SSL_CTX_set_client_hello_cb(ctx, on_hello, NULL);
}

void proxy_acme_attach(SSL *ssl, struct proxy_acme *const *slot)
{
    (void)pthread_once(&slot_once, make_slot);
    CHECK(SSL_set_ex_data(ssl, slot_index, base_unconst(slot)) == 1);
}

bool proxy_acme_was_challenge(const SSL *ssl)
{
    const unsigned char *p = NULL;
    unsigned n = 0;

    SSL_get0_alpn_selected(ssl, &p, &n);
    return n == ALPN_SIZE - 3 && memcmp(p, acme_alpn + 3, n) == 0;
}

/* ---- reading --------------------------------------------------------------------------------- */

/* A small regular file as a whole; false: it is not (whole) there. */
static bool read_small(int folder, const char *name, char room[FILE_MAX], struct sv *text_out)
{
    int fd = openat(folder, name, O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK);
    struct stat st;
    ssize_t n = -1;

    if (fd < 0) {
        return false;
    }
    if (fstat(fd, &st) == 0 && S_ISREG(st.st_mode) && st.st_size > 0 && st.st_size <= FILE_MAX) {
        n = read(fd, room, FILE_MAX);
    }
    (void)close(fd);
    *text_out = sv_of(room, n < 0 ? 0 : (size_t)n);
    return n > 0 && n == st.st_size;
}

typedef void (*found_fn)(struct proxy_acme *acme, struct sv name, struct sv text);

static void add_answer(struct proxy_acme *acme, struct sv name, struct sv text)
{
    /* TOKEN "." thumbprint, nothing that could be a second line. */
    struct sv rest = text;

    if (is_token(name) && sv_eq(sv_cut(&rest, '.'), name) && is_token(rest) &&
        map_get(acme->answers, name) == NULL) {
        (void)map_set(acme->answers, name, mem_svdup(text));
    }
}

static void add_context(struct proxy_acme *acme, struct sv name, struct sv text)
{
    SSL_CTX *ctx = NULL;

    if (!sv_ends(name, SV(".pem")) || map_get(acme->contexts, name) != NULL) {
        return;
    }
    ctx = context_of(text);
    if (ctx != NULL) {
        (void)map_set(acme->contexts, sv_head(name, name.n - 4), ctx);
    }
}

static void read_kind(struct proxy_acme *acme, struct sv folder, const char *kind, found_fn found)
{
    CLEANUP(buf_deinit) struct buf path = { 0 };
    const struct dirent *entry = NULL;
    DIR *dir = NULL;
    char room[FILE_MAX];
    struct sv text = { 0 };

    buf_init(&path, 8192);
    buf_add_sv(&path, folder);
    buf_printf(&path, "/challenges/%s", kind);
    dir = opendir(buf_cstr(&path));
    if (dir == NULL) {
        return;
    }
    /* NOLINTNEXTLINE(concurrency-mt-unsafe): the stream is this thread's alone */
    for (entry = readdir(dir); entry != NULL; entry = readdir(dir)) {
        if (entry->d_name[0] == '.' || acme->n == PROXY_ACME_OPEN_MAX ||
            !read_small(dirfd(dir), entry->d_name, room, &text)) {
            continue;
        }
        acme->n++;
        acme->mark += map_hash(sv_from(entry->d_name)) ^ map_hash(text); /* in any order */
        found(acme, sv_from(entry->d_name), text);
    }
    secret_wipe(room, sizeof(room));
    (void)closedir(dir);
}

struct proxy_acme *proxy_acme_read(struct sv folder)
{
    struct proxy_acme *acme = MEM_NEW(struct proxy_acme);

    acme->refs = 1;
    acme->answers = map_new();
    acme->contexts = map_new();
    if (folder.n != 0) {
        read_kind(acme, folder, "http-01", add_answer);
        read_kind(acme, folder, "tls-alpn-01", add_context);
    }
    return acme;
}

/* ---- looking --------------------------------------------------------------------------------- */

struct look {
    struct proxy_acme_watch *watch;
    char *folder;
    struct proxy_acme *found;
};

struct proxy_acme_watch {
    struct job_pool *jobs;
    struct event *timer;
    proxy_acme_fn changed;
    void *arg;
    char *folder; /* "": none */
    bool looking;
    bool over;     /* freed while a look was under way, which frees the rest */
    uint64_t mark; /* of what was handed over last; 0: nothing open */
};

static void watch_drop(struct proxy_acme_watch *w)
{
    mem_free(&w->folder);
    mem_free(&w);
}

static void run_look(void *arg)
{
    struct look *look = arg;

    look->found = proxy_acme_read(sv_from(look->folder));
}

static void look_done(void *arg)
{
    struct look *look = arg;
    struct proxy_acme_watch *w = look->watch;

    w->looking = false;
    if (w->over) {
        watch_drop(w);
    } else if (look->found->mark != w->mark && strcmp(look->folder, w->folder) == 0) {
        w->mark = look->found->mark;
        w->changed(look->found, w->arg);
    }
    proxy_acme_unref(&look->found);
    mem_free(&look->folder);
    mem_free(&look);
}

static void on_timer(evutil_socket_t fd, short what, void *arg)
{
    struct proxy_acme_watch *w = arg;
    struct look *look = NULL;

    (void)fd;
    (void)what;
    if (w->looking || (w->folder[0] == '\0' && w->mark == 0)) {
        return;
    }
    look = MEM_NEW(struct look);
    look->watch = w;
    look->folder = mem_strdup(w->folder);
    w->looking = job_submit(w->jobs, run_look, look_done, look) == ERR_OK;
    if (!w->looking) {
        mem_free(&look->folder);
        mem_free(&look);
    }
}

struct proxy_acme_watch *proxy_acme_watch_new(struct loop *loop, proxy_acme_fn changed, void *arg)
{
    struct proxy_acme_watch *w = MEM_NEW(struct proxy_acme_watch);
    struct timeval every = { 0, PROXY_ACME_LOOK_MS * 1000L };

    w->jobs = job_pool_new(loop, 1, 1);
    w->folder = mem_strdup("");
    w->changed = changed;
    w->arg = arg;
    w->timer = event_new(loop_base(loop), -1, EV_PERSIST, on_timer, w);
    CHECK(w->timer != NULL && event_add(w->timer, &every) == 0);
    return w;
}

void proxy_acme_watch_free(struct proxy_acme_watch **watch)
{
    struct proxy_acme_watch *w = TAKE(*watch);

    if (w == NULL) {
        return;
    }
    job_pool_free(&w->jobs);
    event_free(w->timer);
    w->over = w->looking;
    if (!w->over) {
        watch_drop(w);
    }
}

void proxy_acme_watch_set(struct proxy_acme_watch *watch, struct sv folder)
{
    mem_free(&watch->folder);
    watch->folder = mem_svdup(folder);
}
