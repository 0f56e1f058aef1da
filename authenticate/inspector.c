#include "authenticate/inspector.h"

#include <string.h>

#include <openssl/evp.h>

#include "authenticate/oidc.h"
#include "authenticate/provider.h"
#include "common/clock.h"
#include "common/http/form.h"
#include "common/log.h"
#include "common/mem.h"
#include "common/secret.h"

enum {
    SLOTS = 1024,
    KEEP_BAD_MS = 30000,
    OPEN_MAX = 32,
    OPEN_NEW_MAX = 24, /* the rest is for tokens that held before */
    WINDOW_MS = 1000,
    TIMEOUT_MS = 4000, /* a proxy waits six seconds */
    ANSWER_MAX = 16384 /* one that is remembered */
};

/* The hash of a token: nobody finds another text for it, so that comparing it tells nothing. */
struct sum {
    unsigned char v[32];
};

struct good {
    struct sum sum;
    int64_t until_ms;
    json_t *claims; /* NULL: empty */
};

struct bad {
    struct sum sum;
    int64_t until_ms; /* 0: empty */
};

struct question {
    struct list node; /* authn_inspector.open */
    struct list askers;
    struct authn_inspector *inspector;
    struct fetch *fetch;
    struct sum sum;
    bool introspects; /* else it is userinfo that was asked */
};

struct authn_inspector {
    struct authn *app;
    struct fetcher *fetcher; /* of its own: logins do not wait behind tokens */
    struct list open;
    size_t n_open;
    int64_t window_ms; /* when this second began */
    unsigned n_new;    /* of new tokens in it */
    struct good good[SLOTS];
    struct bad bad[SLOTS];
};

struct authn_inspector *authn_inspector_new(struct authn *app)
{
    struct authn_inspector *i = MEM_NEW(struct authn_inspector);

    i->app = app;
    i->fetcher = fetcher_new(app->loop, app->config->idp_ca_file.p);
    fetcher_set_max(i->fetcher, OPEN_MAX);
    list_init(&i->open);
    return i;
}

/* --- what is remembered --------------------------------------------------------------------------- */

static struct sum sum_of(struct sv token)
{
    struct sum sum;

    CHECK(EVP_Digest(token.p, token.n, sum.v, NULL, EVP_sha256(), NULL) == 1);
    return sum;
}

static size_t place_of(const struct sum *sum)
{
    uint32_t n = 0;

    memcpy(&n, sum->v, sizeof n);
    return n % SLOTS;
}

static bool same(const struct sum *a, const struct sum *b)
{
    return memcmp(a, b, sizeof *a) == 0;
}

/* NULL: it never held, or was forgotten. */
static struct good *good_of(struct authn_inspector *i, const struct sum *sum)
{
    struct good *g = &i->good[place_of(sum)];

    return g->claims != NULL && same(&g->sum, sum) ? g : NULL;
}

static bool is_bad(const struct authn_inspector *i, const struct sum *sum)
{
    const struct bad *b = &i->bad[place_of(sum)];

    return b->until_ms > clock_mono_ms() && same(&b->sum, sum);
}

static void remember_good(struct authn_inspector *i, const struct sum *sum, json_t *claims)
{
    struct good *g = &i->good[place_of(sum)];

    json_decref(g->claims);
    *g = (struct good){ .sum = *sum,
                        .until_ms = clock_mono_ms() + AUTHN_INSPECT_KEEP_MS,
                        .claims = json_incref(claims) };
}

static void remember_bad(struct authn_inspector *i, const struct sum *sum)
{
    struct good *g = good_of(i, sum);

    if (g != NULL) {
        json_decref(g->claims);
        *g = (struct good){ .claims = NULL };
    }
    i->bad[place_of(sum)] = (struct bad){ .sum = *sum, .until_ms = clock_mono_ms() + KEEP_BAD_MS };
}

/* --- answers -------------------------------------------------------------------------------------- */

/* Whoever asks again from within finds the question gone. */
static void tell_all(struct question *q, enum err err, const json_t *claims, const char *why)
{
    list_remove(&q->node);
    q->inspector->n_open--;
    while (!list_empty(&q->askers)) {
        struct authn_asker *asker = LIST_ENTRY(q->askers.next, struct authn_asker, node);

        list_remove(&asker->node);
        asker->told(asker, err, claims, why);
    }
    mem_free(&q);
}

void authn_inspector_free(struct authn_inspector **inspector)
{
    struct authn_inspector *i = TAKE(*inspector);

    if (i == NULL) {
        return;
    }
    while (!list_empty(&i->open)) {
        struct question *q = LIST_ENTRY(i->open.next, struct question, node);

        fetch_cancel(&q->fetch);
        tell_all(q, ERR_UNAVAILABLE, NULL, "the configuration changed");
    }
    for (size_t k = 0; k < SLOTS; k++) {
        json_decref(i->good[k].claims);
    }
    fetcher_free(&i->fetcher);
    mem_free(&i);
}

static enum err no_answer(const struct question *q, struct diag *d)
{
    static struct log_limit limit;

    if (log_limit_pass(&limit, 1)) {
        log_warn("token.not_verified",
                 KV_STR("asked", q->introspects ? "introspection" : "userinfo"),
                 KV_STR("why", d->text));
    }
    return ERR_UNAVAILABLE;
}

/* RFC 7662 §2.2, §2.3: a token that does not hold is an answer of status 200, too; 401 means us. At
 * userinfo both words are about the token (RFC 6750 §3.1). */
static enum err read_answer(const struct question *q, const struct fetch_answer *answer,
                            json_t **claims_out, struct diag *d)
{
    const struct authn_provider *p = authn_oidc_provider(q->inspector->app->oidc);
    enum err err = ERR_OK;

    if (answer->err != ERR_OK) {
        diag_set(d, "%s", answer->text);
        return no_answer(q, d);
    }
    if (!q->introspects && (answer->status == 401 || answer->status == 403)) {
        diag_set(d, "the provider's userinfo refuses it");
        return ERR_DENIED;
    }
    if (answer->status != 200) {
        diag_set(d, "status %ld%s", answer->status,
                 answer->status == 401 ? ": may this client ask?" : "");
        return no_answer(q, d);
    }
    if (answer->body.n > ANSWER_MAX) {
        diag_set(d, "an answer of more than %d bytes", ANSWER_MAX);
        return no_answer(q, d);
    }
    err = q->introspects ? authn_introspection_read(answer->body, p->issuer, claims_out, d)
                         : authn_userinfo_read(answer->body, p->issuer, claims_out, d);
    return err == ERR_OK || err == ERR_DENIED ? err : no_answer(q, d);
}

static void on_answer(void *arg, const struct fetch_answer *answer)
{
    struct question *q = arg;
    struct diag d = { .line = 0 };
    json_t *claims = NULL;
    enum err err = read_answer(q, answer, &claims, &d);

    q->fetch = NULL;
    if (err == ERR_OK) {
        remember_good(q->inspector, &q->sum, claims);
    } else if (err == ERR_DENIED) {
        remember_bad(q->inspector, &q->sum);
    }
    tell_all(q, err, claims, d.text);
    json_decref(claims);
}

/* --- questions ------------------------------------------------------------------------------------ */

static void introspect(struct question *q, const struct authn_provider *p, struct sv token)
{
    CLEANUP(buf_deinit) struct buf form;
    CLEANUP(buf_deinit) struct buf authorization;
    struct fetch_request request = { .url = p->introspection_endpoint.p, .timeout_ms = TIMEOUT_MS };

    buf_init(&form, 65536);
    buf_init(&authorization, 32768);
    http_form_add(&form, SV("token"), token);
    http_form_add(&form, SV("token_type_hint"), SV("access_token"));
    authn_oidc_prove(q->inspector->app->config, p->introspection_secret_in_body, &form,
                     &authorization);
    request.authorization = authorization.n == 0 ? NULL : buf_cstr(&authorization);
    request.body = buf_sv(&form);
    q->fetch = fetch_start(q->inspector->fetcher, &request, on_answer, q);
    secret_wipe(form.p, form.n);
    if (authorization.p != NULL) {
        secret_wipe(authorization.p, authorization.n);
    }
}

static void ask_userinfo(struct question *q, const struct authn_provider *p, struct sv token)
{
    CLEANUP(buf_deinit) struct buf authorization;
    struct fetch_request request = { .url = p->userinfo_endpoint.p, .timeout_ms = TIMEOUT_MS };

    buf_init(&authorization, AUTHN_OPAQUE_MAX + 16);
    buf_add_str(&authorization, "Bearer ");
    buf_add_sv(&authorization, token);
    request.authorization = buf_cstr(&authorization);
    q->fetch = fetch_start(q->inspector->fetcher, &request, on_answer, q);
    secret_wipe(authorization.p, authorization.n);
}

/* Whether there is room for one more; it is counted. */
static bool may_ask(struct authn_inspector *i, bool held_before)
{
    int64_t now_ms = clock_mono_ms();

    if (held_before) {
        return i->n_open < OPEN_MAX;
    }
    if (now_ms - i->window_ms >= WINDOW_MS) {
        i->window_ms = now_ms;
        i->n_new = 0;
    }
    if (i->n_open >= OPEN_NEW_MAX || i->n_new >= AUTHN_INSPECT_NEW_MAX) {
        return false;
    }
    i->n_new++;
    return true;
}

static struct question *question_of(const struct authn_inspector *i, const struct sum *sum)
{
    struct list *it = NULL;

    LIST_FOREACH(it, &i->open) {
        struct question *q = LIST_ENTRY(it, struct question, node);

        if (same(&q->sum, sum)) {
            return q;
        }
    }
    return NULL;
}

static struct question *question_new(struct authn_inspector *i, const struct sum *sum,
                                     struct sv token)
{
    const struct authn_provider *p = authn_oidc_provider(i->app->oidc);
    struct question *q = MEM_NEW(struct question);

    q->inspector = i;
    q->sum = *sum;
    q->introspects = p->introspection_endpoint.n != 0;
    list_init(&q->askers);
    list_push_back(&i->open, &q->node);
    i->n_open++;
    if (q->introspects) {
        introspect(q, p, token);
    } else {
        ask_userinfo(q, p, token);
    }
    return q;
}

/* RFC 6750 §2.1, b64token. */
static bool is_token(struct sv token)
{
    size_t n = token.n;

    while (n > 0 && token.p[n - 1] == '=') {
        n--;
    }
    for (size_t i = 0; i < n; i++) {
        char c = token.p[i];

        if (!((c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') ||
              c == '-' || c == '.' || c == '_' || c == '~' || c == '+' || c == '/')) {
            return false;
        }
    }
    return n != 0 && token.n <= AUTHN_OPAQUE_MAX;
}

void authn_inspector_ask(struct authn_inspector *i, struct sv token, struct authn_asker *asker)
{
    const struct authn_provider *p = authn_oidc_provider(i->app->oidc);
    const struct sum sum = sum_of(token);
    const struct good *known = good_of(i, &sum);
    struct question *q = question_of(i, &sum);

    if (known != NULL && known->until_ms > clock_mono_ms()) {
        asker->told(asker, ERR_OK, known->claims, "");
    } else if (!is_token(token)) {
        asker->told(asker, ERR_DENIED, NULL, "no provider makes such a token");
    } else if (is_bad(i, &sum)) {
        asker->told(asker, ERR_DENIED, NULL, "the provider said so a moment ago");
    } else if (p->introspection_endpoint.n == 0 && p->userinfo_endpoint.n == 0) {
        asker->told(asker, ERR_DENIED, NULL, "the provider verifies no tokens for others");
    } else if (q == NULL && !may_ask(i, known != NULL)) {
        asker->told(asker, ERR_LIMIT, NULL, "the provider is asked about too many tokens");
    } else {
        q = q == NULL ? question_new(i, &sum, token) : q;
        list_push_back(&q->askers, &asker->node);
    }
}
