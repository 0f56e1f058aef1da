#include "proxy/login.h"

#include <stdio.h>
#include <string.h>

#include <openssl/sha.h>

#include "common/b64.h"
#include "common/clock.h"
#include "common/crypto/link.h"
#include "common/http/accept.h"
#include "common/http/form.h"
#include "common/http/sign_in.h"
#include "common/mem.h"
#include "proxy/forward.h"
#include "proxy/reply.h"

enum {
    RANDOM_BYTES = 16,
    RANDOM_TEXT = 22,
    ROUNDS_MAX = 3,
    WINDOW_S = 60,
    COOKIE_LIFE_S = 600,
    HANDLES_MAX = 4,
    URL_MAX_N = 16384,
    REDEEM_WAIT_MS = 6000
};

struct login_cookie {
    char random[RANDOM_TEXT + 1];
    uint64_t rounds;
    uint64_t since_s;
};

/* host[:port] as the browser's address bar shows it. */
static struct sv shown_host(const struct proxy_exchange *x)
{
    return x->req.authority;
}

struct sv proxy_login_tunnel_holder(struct proxy_exchange *x, struct sv authority)
{
    const struct sv mark = SV(HANDLE_TCP);
    char *p = arena_alloc(&x->arena, mark.n + authority.n);

    memcpy(p, mark.p, mark.n);
    memcpy(p + mark.n, authority.p, authority.n);
    return sv_of(p, mark.n + authority.n);
}

struct sv proxy_login_holder(struct proxy_exchange *x)
{
    return x->head.method == HTTP_CONNECT ? proxy_login_tunnel_holder(x, x->req.authority)
                                          : shown_host(x);
}

void proxy_login_identify(struct proxy_exchange *x)
{
    struct sv values[HANDLES_MAX];
    size_t n = 0;
    size_t i = 0;

    x->handle_valid = false;
    if (x->head.method == HTTP_CONNECT) {
        return; /* no browser comes here: its cookies are for requests */
    }
    n = http_cookie_find(&x->head, sv_from(x->snapshot->cookies.session), values, HANDLES_MAX);
    for (i = 0; i < MIN(n, (size_t)HANDLES_MAX) && !x->handle_valid; i++) {
        x->handle_valid =
            proxy_handles_open(x->worker->handles, values[i], shown_host(x), &x->handle) == ERR_OK;
    }
}

/* ---- the login cookie ------------------------------------------------------------------------ */

static void new_cookie(struct login_cookie *cookie)
{
    CLEANUP(buf_deinit) struct buf text = { 0 };
    unsigned char bytes[RANDOM_BYTES];

    rand_bytes(bytes, sizeof(bytes));
    buf_init(&text, 64);
    b64_url_add(&text, sv_of(bytes, sizeof(bytes)));
    (void)snprintf(cookie->random, sizeof(cookie->random), "%s", buf_cstr(&text));
    cookie->rounds = 0;
    cookie->since_s = (uint64_t)clock_wall_s();
}

/* The browser's; false: it has none, or none of ours. */
static bool read_cookie(const struct proxy_exchange *x, struct login_cookie *cookie)
{
    struct sv value = { 0 };
    struct sv random = { 0 };
    struct sv rounds = { 0 };

    if (http_cookie_find(&x->head, sv_from(x->snapshot->cookies.login), &value, 1) != 1) {
        return false;
    }
    random = sv_cut(&value, '.');
    rounds = sv_cut(&value, '.');
    if (random.n != RANDOM_TEXT || sv_u64(rounds, 1000, &cookie->rounds) != ERR_OK ||
        sv_u64(value, INT64_MAX, &cookie->since_s) != ERR_OK) {
        return false;
    }
    memcpy(cookie->random, random.p, RANDOM_TEXT);
    cookie->random[RANDOM_TEXT] = '\0';
    return true;
}

static void binding_of(const struct login_cookie *cookie, unsigned char out[SHA256_DIGEST_LENGTH])
{
    (void)SHA256((const unsigned char *)cookie->random, RANDOM_TEXT, out);
}

/* False: no cookie can hold that. */
static bool add_cookie(struct proxy_exchange *x, struct proxy_fields *fields, const char *name,
                       struct sv value, int64_t life_s)
{
    CLEANUP(buf_deinit) struct buf text = { 0 };
    const struct config *c = x->snapshot->config;

    static const enum http_same_site same_site[] = {
        [CONFIG_SAME_SITE_LAX] = HTTP_SAME_SITE_LAX,
        [CONFIG_SAME_SITE_STRICT] = HTTP_SAME_SITE_STRICT,
        [CONFIG_SAME_SITE_NONE] = HTTP_SAME_SITE_NONE,
    };
    struct http_set_cookie cookie = { .name = sv_from(name),
                                      .value = value,
                                      .max_age_s = life_s,
                                      /* The login cookie comes back by a link from elsewhere. */
                                      .same_site = name == x->snapshot->cookies.login
                                                       ? HTTP_SAME_SITE_LAX
                                                       : same_site[c->cookie_same_site],
                                      .script_readable = !c->cookie_http_only };

    buf_init(&text, HTTP_SET_COOKIE_MAX);
    if (http_set_cookie_add(&text, &cookie) != ERR_OK) {
        return false;
    }
    proxy_fields_add(fields, SV("Set-Cookie"), arena_sv(&x->arena, buf_sv(&text)));
    return true;
}

static bool add_login_cookie(struct proxy_exchange *x, struct proxy_fields *fields,
                             const struct login_cookie *cookie)
{
    char value[64];

    (void)snprintf(value, sizeof(value), "%s.%llu.%llu", cookie->random,
                   (unsigned long long)cookie->rounds, (unsigned long long)cookie->since_s);
    return add_cookie(x, fields, x->snapshot->cookies.login, sv_from(value), COOKIE_LIFE_S);
}

/* ---- to authenticate ------------------------------------------------------------------------- */

/* Also behind something else that does TLS: browsers never see us without it. */
static const char scheme[] = "https://";

/* 302 to authenticate's sign_in; back is where the person wanted to go. */
static void redirect_to_login(struct proxy_exchange *x, struct sv back, uint64_t attempt,
                              const struct login_cookie *cookie, bool fresh)
{
    CLEANUP(buf_deinit) struct buf url = { 0 };
    CLEANUP(buf_deinit) struct buf binding = { 0 };
    struct proxy_fields fields = { .n = 0 };
    unsigned char digest[SHA256_DIGEST_LENGTH];
    char number[8];

    buf_init(&url, URL_MAX_N);
    buf_init(&binding, 64);
    binding_of(cookie, digest);
    b64_url_add(&binding, sv_of(digest, sizeof(digest)));
    (void)snprintf(number, sizeof(number), "%u", (unsigned)MIN(attempt, 99));
    buf_add_sv(&url, x->snapshot->config->authenticate_service_url.text);
    buf_add_str(&url, "/.pomerium/sign_in?");
    http_form_add(&url, SV("pomerium_redirect_uri"), back);
    http_form_add(&url, SV("pomerium_binding"), buf_sv(&binding));
    http_form_add(&url, SV("pomerium_attempt"), sv_from(number));
    if (fresh) {
        http_form_add(&url, SV(HTTP_SIGN_IN_FRESH), SV("true"));
    }
    if (!add_login_cookie(x, &fields, cookie) ||
        link_sign(x->snapshot->config->keys, &url) != ERR_OK) {
        proxy_reply_fault(x, 414, "address-too-long");
        return;
    }
    proxy_reply_redirect(x, 302, buf_sv(&url), &fields);
}

/* A session that was just made is not accepted: again and again is a loop, not a login. */
static bool loops(struct proxy_exchange *x, struct login_cookie *cookie)
{
    uint64_t now = (uint64_t)clock_wall_s();

    if (!x->handle_valid || clock_wall_s() - x->handle.issued_at_s > WINDOW_S) {
        return false;
    }
    if (now - MIN(cookie->since_s, now) > WINDOW_S) {
        cookie->rounds = 0;
        cookie->since_s = now;
    }
    cookie->rounds++;
    return cookie->rounds > ROUNDS_MAX;
}

/* Sends the browser to log in, and then back. */
static void begin(struct proxy_exchange *x, struct sv back, bool fresh)
{
    struct login_cookie cookie;

    if (!read_cookie(x, &cookie)) {
        new_cookie(&cookie);
    }
    if (loops(x, &cookie)) {
        proxy_reply_fault(x, 403, fresh ? "login-not-fresh" : "store-miss");
        return;
    }
    redirect_to_login(x, back, 1, &cookie, fresh);
}

void proxy_login_needed(struct proxy_exchange *x)
{
    CLEANUP(buf_deinit) struct buf back = { 0 };

    if (x->by_token || x->snapshot->authenticate.cluster == NULL ||
        http_accept_client(&x->head) != HTTP_CLIENT_NAVIGATION ||
        (x->head.method != HTTP_GET && x->head.method != HTTP_HEAD)) {
        proxy_reply_login_needed(x);
        return;
    }
    buf_init(&back, URL_MAX_N);
    http_sign_in_add_back(&back, &x->req);
    begin(x, buf_sv(&back), x->wants_fresh);
}

void proxy_login_sign_in(struct proxy_exchange *x)
{
    struct sv back = { 0 };
    struct sv fresh = { 0 };

    if (x->head.method != HTTP_GET && x->head.method != HTTP_HEAD) {
        proxy_reply_fault(x, 405, "method-not-allowed");
    } else if (x->snapshot->authenticate.cluster == NULL) {
        proxy_reply_fault(x, 404, "no-login-configured");
    } else if (http_form_get(x->req.query, SV(HTTP_SIGN_IN_BACK), &x->arena, &back) != ERR_OK ||
               !http_sign_in_is_back(back, shown_host(x))) {
        proxy_reply_fault(x, 400, "bad-redirect");
    } else {
        proxy_login_identify(x);
        begin(x, back,
              http_form_get(x->req.query, SV(HTTP_SIGN_IN_FRESH), &x->arena, &fresh) == ERR_OK &&
                  fresh.n != 0);
    }
}

/* ---- back from authenticate ------------------------------------------------------------------ */

static uint64_t attempt_of(struct proxy_exchange *x)
{
    struct sv text = { 0 };
    uint64_t attempt = 1;

    if (http_form_get(x->req.query, SV("pomerium_attempt"), &x->arena, &text) != ERR_OK ||
        sv_u64(text, 99, &attempt) != ERR_OK) {
        return 1;
    }
    return attempt;
}

static void home(struct proxy_exchange *x, struct buf *url)
{
    buf_init(url, URL_MAX_N);
    buf_add_str(url, scheme);
    buf_add_sv(url, shown_host(x));
    buf_add_char(url, '/');
}

/* The code did not come back to the browser that began: begin again, at most three times. */
static void begin_again(struct proxy_exchange *x, struct sv back)
{
    struct login_cookie cookie;
    uint64_t attempt = attempt_of(x) + 1;
    CLEANUP(buf_deinit) struct buf url = { 0 };

    if (attempt > ROUNDS_MAX) {
        proxy_reply_fault(x, 403, "cookie-not-returned");
        return;
    }
    if (!read_cookie(x, &cookie)) {
        new_cookie(&cookie);
    }
    home(x, &url);
    redirect_to_login(x, back.n != 0 ? back : buf_sv(&url), attempt, &cookie, false);
}

void proxy_login_callback(struct proxy_exchange *x)
{
    struct login_cookie cookie;
    struct proxy_redeem *redeem = NULL;
    struct sv code = { 0 };

    if (x->head.method != HTTP_GET ||
        http_form_get(x->req.query, SV("pomerium_code"), &x->arena, &code) != ERR_OK ||
        code.n == 0) {
        proxy_reply_fault(x, 400, "bad-callback");
        return;
    }
    if (!read_cookie(x, &cookie)) {
        memset(&cookie, 0, sizeof(cookie)); /* fits no code; authenticate tells where to go again */
    }
    redeem = MEM_NEW(struct proxy_redeem);
    redeem->worker = x->worker;
    redeem->exchange = x;
    redeem->code = mem_svdup(code);
    redeem->host = mem_svdup(shown_host(x));
    binding_of(&cookie, redeem->binding);
    x->redeem = redeem;
    x->phase = PROXY_CHECK;
    x->deadline_ms = clock_mono_ms() + REDEEM_WAIT_MS;
    proxy_app_redeem(x->worker->app, redeem);
}

bool proxy_login_make_handle(struct proxy_exchange *x, const struct proxy_redeem *redeem,
                             struct sv holder, struct buf *out)
{
    struct handle handle = { .record_version = redeem->record_version,
                             .issued_at_s = clock_wall_s() };

    (void)snprintf(handle.session, sizeof(handle.session), "%s", redeem->session);
    (void)snprintf(handle.idp_id, sizeof(handle.idp_id), "%s", redeem->idp_id);
    return proxy_handles_make(x->worker->handles, &handle, holder, out) == ERR_OK;
}

static void let_in(struct proxy_exchange *x, const struct proxy_redeem *redeem)
{
    CLEANUP(buf_deinit) struct buf text = { 0 };
    struct proxy_fields fields = { .n = 0 };

    buf_init(&text, HANDLE_TEXT_MAX);
    if (!proxy_login_make_handle(x, redeem, shown_host(x), &text)) {
        proxy_reply_fault(x, 500, "internal-error");
        return;
    }
    if (!add_cookie(x, &fields, x->snapshot->cookies.session, buf_sv(&text),
                    x->snapshot->config->cookie_expire_ms / 1000)) {
        proxy_reply_fault(x, 500, "internal-error");
        return;
    }
    proxy_reply_redirect(x, 302, sv_from(redeem->redirect_uri), &fields);
}

void proxy_login_redeemed(struct proxy_exchange *x, const struct proxy_redeem *redeem)
{
    struct sv back = sv_from(redeem->redirect_uri);

    x->redeem = NULL;
    if (redeem->status == RPC_OK && http_sign_in_is_back(back, shown_host(x))) {
        if (redeem->session[0] != '\0') {
            let_in(x, redeem);
        } else {
            begin_again(x, back);
        }
    } else if (redeem->status == RPC_UNAUTHENTICATED || redeem->status == RPC_OK ||
               redeem->status == RPC_INVALID_ARGUMENT) {
        CLEANUP(buf_deinit) struct buf url = { 0 };

        /* Used, too old or not ours. Who is logged in already goes on to the start page. */
        proxy_login_identify(x);
        if (x->handle_valid) {
            home(x, &url);
            proxy_reply_redirect(x, 302, buf_sv(&url), NULL);
        } else {
            begin_again(x, (struct sv){ 0 });
        }
    } else {
        proxy_reply_fault(x, 503, "authenticate-unavailable");
    }
}

/* ---- out ------------------------------------------------------------------------------------- */

void proxy_login_sign_out(struct proxy_exchange *x)
{
    CLEANUP(buf_deinit) struct buf url = { 0 };
    struct proxy_fields fields = { .n = 0 };
    struct sv site = http_head_value(&x->head, HTTP_H_SEC_FETCH_SITE);
    bool foreign = sv_ieq(site, SV("cross-site"));

    if (x->head.method != HTTP_GET && x->head.method != HTTP_POST) {
        proxy_reply_fault(x, 405, "method-not-allowed");
        return;
    }
    if (x->snapshot->authenticate.cluster == NULL) {
        proxy_reply_fault(x, 404, "no-login-configured");
        return;
    }
    buf_init(&url, URL_MAX_N);
    buf_add_sv(&url, x->snapshot->config->authenticate_service_url.text);
    buf_add_str(&url, "/.pomerium/sign_out");
    /* A foreign page may send people here, but not sign them out: authenticate asks them first. */
    if (!foreign) {
        (void)add_cookie(x, &fields, x->snapshot->cookies.session, SV("x"), -1);
        proxy_login_identify(x);
        if (x->handle_valid) {
            buf_add_char(&url, '?');
            http_form_add(&url, SV("pomerium_session"), sv_from(x->handle.session));
        }
        if (link_sign(x->snapshot->config->keys, &url) != ERR_OK) {
            proxy_reply_fault(x, 500, "internal-error");
            return;
        }
    }
    proxy_reply_redirect(x, 302, buf_sv(&url), &fields);
}
