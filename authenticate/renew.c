#include "authenticate/renew.h"

#include "authenticate/due.h"
#include "authenticate/grant.h"
#include "authenticate/graph.h"
#include "authenticate/oidc.h"
#include "authenticate/provider.h"
#include "authenticate/request.h"
#include "authenticate/watch.h"
#include "common/clock.h"
#include "common/crypto/jose.h"
#include "common/http/form.h"
#include "common/log.h"
#include "common/mem.h"
#include "common/rand.h"
#include "common/secret.h"

enum {
    AT_ONCE_MAX = 16, /* renewals; one where the provider did not answer the last time */
    LOOK_MS = 30000,  /* the wall clock may have jumped meanwhile */
    LEASE_S = 40,
    REDEEM_MS = 15000,         /* for the provider's answer */
    LEASE_SPARE_MS = 18000,    /* for groups that are elsewhere, and for writing what it said */
    SECOND_LOOK_MS = 2000,     /* another owner may be about to write */
    WRITE_AGAIN_MS = 250,      /* the first time; doubled to … */
    WRITE_AGAIN_MAX_MS = 1000, /* … below SECOND_LOOK_MS */
    AGAIN_MIN_MS = 5000,       /* of one session */
    AGAIN_MAX_MS = 300000,
    PAUSE_MIN_MS = 1000, /* of all, when the provider does not answer */
    PAUSE_MAX_MS = 60000,
    OTHERS_MS = 5000 /* somebody else is at it */
};

struct authn_renewer {
    struct authn *app;
    struct authn_due *due;
    struct authn_watch *watch;
    struct event *timer;
    struct list open; /* renewal.node */
    size_t n_open;
    unsigned failures; /* of the provider in a row, whichever the session */
    int64_t pause_until_ms;
    bool stopping;
    void (*idle)(void *arg);
    void *idle_arg;
};

enum step { WRITE_REFRESH_TOKEN = 0, WRITE_GROUPS, WRITE_USER, WRITE_SESSION };

struct renewal {
    struct list node;
    struct authn_waiter waiter;
    struct authn_renewer *renewer;
    struct authn *app;
    struct config *config; /* this renewal's; referenced */
    struct arena arena;
    struct sv id;
    char *lease_name;
    struct sv lease_id; /* "" none is held */
    int64_t leased_at_ms;
    Session__Session *session; /* as it was read */
    struct buf used;           /* the refresh token that was redeemed */
    struct authn_tokens fresh;
    json_t *claims; /* of the verified ID token, with userinfo; NULL: there is none */
    struct authn_graph *graph;
    struct sv groups_error; /* why the claims have not all groups: those that are known stay */
    bool whole;             /* they are all that can be known; else what is known stays */
    bool looked_again;
    enum step step;
    unsigned write_tries;
    int64_t access_expires_at_s;
    void (*then)(struct renewal *r); /* when the timer fires */
    struct event *timer;
    struct rpc_pending *call;
    struct fetch *fetch;
};

/* --- waiting -------------------------------------------------------------------------------------- */

static struct timeval tv_of(int64_t ms)
{
    return (struct timeval){ .tv_sec = ms / 1000, .tv_usec = (ms % 1000) * 1000 };
}

/* Doubled with each failure, and never the same for two. */
static int64_t backoff(int64_t first_ms, int64_t last_ms, unsigned failures)
{
    int64_t ms = first_ms;

    for (unsigned i = 1; i < failures && ms < last_ms; i++) {
        ms *= 2;
    }
    ms = MIN(ms, last_ms);
    return ms / 2 + (int64_t)rand_below((uint64_t)(ms / 2) + 1);
}

static void on_timer(evutil_socket_t fd, short what, void *arg)
{
    struct renewal *r = arg;

    (void)fd;
    (void)what;
    r->then(r);
}

static void later(struct renewal *r, int64_t ms, void (*then)(struct renewal *r))
{
    const struct timeval tv = tv_of(ms);

    r->then = then;
    (void)event_add(r->timer, &tv);
}

/* Whose turn is it? Asked in another turn of the loop: what is started may end at once. */
static void look_soon(struct authn_renewer *renewer)
{
    const struct timeval now = { .tv_sec = 0 };

    (void)event_add(renewer->timer, &now);
}

/* --- the end of one ------------------------------------------------------------------------------- */

static void renewal_free(struct renewal *r)
{
    struct authn_renewer *renewer = r->renewer;

    list_remove(&r->node);
    list_remove(&r->waiter.node);
    renewer->n_open--;
    fetch_cancel(&r->fetch);
    authn_graph_cancel(&r->graph);
    rpc_pending_cancel(&r->call);
    event_free(r->timer);
    json_decref(r->claims);
    if (r->used.p != NULL) {
        secret_wipe(r->used.p, r->used.n);
    }
    buf_deinit(&r->used);
    mem_free(&r->lease_name);
    config_unref(&r->config);
    arena_deinit(&r->arena);
    mem_free(&r);
}

static void leave(struct renewal *r)
{
    struct authn_renewer *renewer = r->renewer;

    renewal_free(r);
    look_soon(renewer);
}

static void on_released(void *arg, enum rpc_status status, const char *text,
                        const ProtobufCMessage *response)
{
    struct renewal *r = arg;

    (void)status; /* it ends by itself, too */
    (void)text;
    (void)response;
    r->call = NULL;
    leave(r);
}

static void release(struct renewal *r)
{
    if (r->lease_id.n == 0) {
        leave(r);
        return;
    }
    r->call = authn_store_release(r->app->store, r->lease_name, r->lease_id, on_released, r);
}

static void done(struct renewal *r, int64_t wait_ms)
{
    authn_due_put_back(r->renewer->due, r->id, clock_wall_ms() + wait_ms);
    release(r);
}

/* There is nothing to refresh any more. */
static void over(struct renewal *r)
{
    authn_due_drop(r->renewer->due, r->id);
    release(r);
}

static void again(struct renewal *r, const char *what, const char *why)
{
    unsigned failures = authn_due_failed(r->renewer->due, r->id);
    int64_t wait_ms = backoff(AGAIN_MIN_MS, AGAIN_MAX_MS, failures);

    log_warn("session.not_refreshed", KV_SV("session", r->id), KV_STR("what", what),
             KV_STR("why", why), KV_U64("failures", failures), KV_I64("retry_ms", wait_ms));
    done(r, wait_ms);
}

/* The provider itself is away: nobody else need be sent there at once. */
static void provider_away(struct renewal *r, const char *why)
{
    struct authn_renewer *renewer = r->renewer;

    renewer->failures++;
    renewer->pause_until_ms =
        clock_mono_ms() + backoff(PAUSE_MIN_MS, PAUSE_MAX_MS, renewer->failures);
    again(r, "the provider does not answer", why);
}

static void on_ended(void *arg, enum rpc_status status, const char *text,
                     const ProtobufCMessage *response)
{
    struct renewal *r = arg;

    (void)response;
    r->call = NULL;
    if (status != RPC_OK) {
        again(r, "the session could not be ended", text);
        return;
    }
    over(r);
}

static void end_session(struct renewal *r, const char *why)
{
    log_info("session.ended", KV_SV("session", r->id), KV_STR("user", r->session->user_id),
             KV_STR("why", why));
    r->call = authn_store_end(r->app->store, r->session, clock_wall_s(), on_ended, r);
}

/* --- writing -------------------------------------------------------------------------------------- */

static void verify(struct renewal *r);
static void write_step(struct renewal *r);

static void on_written(void *arg, enum rpc_status status, const char *text,
                       const ProtobufCMessage *response)
{
    struct renewal *r = arg;
    bool of_session = r->step == WRITE_REFRESH_TOKEN || r->step == WRITE_SESSION;

    r->call = NULL;
    if (status != RPC_OK && (status == RPC_INVALID_ARGUMENT || status == RPC_PERMISSION_DENIED ||
                             r->session->expires_at->seconds <= clock_wall_s())) {
        again(r, "the databroker does not take it", text);
        return;
    }
    if (status != RPC_OK) {
        r->write_tries++;
        log_warn("store.unavailable", KV_I64("status", status), KV_STR("text", text));
        later(r, backoff(WRITE_AGAIN_MS, WRITE_AGAIN_MAX_MS, r->write_tries), write_step);
        return;
    }
    r->write_tries = 0;
    if (of_session && authn_store_renew_missed(response)) {
        over(r); /* signed out, or revoked, meanwhile */
        return;
    }
    switch (r->step) {
    case WRITE_REFRESH_TOKEN:
        verify(r);
        break;
    case WRITE_GROUPS:
    case WRITE_USER:
        r->step++;
        write_step(r);
        break;
    case WRITE_SESSION:
        authn_due_worked(r->renewer->due, r->id);
        log_info("session.refreshed", KV_SV("session", r->id), KV_STR("user", r->session->user_id),
                 KV_BOOL("claims", r->whole));
        done(r, AUTHN_DUE_REST_MS);
        break;
    }
}

static void write_step(struct renewal *r)
{
    static struct rpc_pending *(*const steps[])(
        struct authn_store *, const struct authn_store_renewal *, rpc_done_fn, void *) = {
        [WRITE_REFRESH_TOKEN] = authn_store_renew_refresh_token,
        [WRITE_GROUPS] = authn_store_renew_groups,
        [WRITE_USER] = authn_store_renew_user,
        [WRITE_SESSION] = authn_store_renew_session,
    };
    struct authn_identity who = { .user_id = SV("") };
    struct authn_claims_notes notes = { .cut = false };
    const struct authn_store_renewal renewal = { .session = r->session,
                                                 .who = &who,
                                                 .rest = r->app->rest };

    if (r->claims != NULL && r->step != WRITE_REFRESH_TOKEN) {
        authn_claims_identity(r->claims, &r->arena, &who, &notes);
    }
    if (!r->whole) {
        json_decref(who.claims);
        who.claims = NULL;
    }
    if (r->step == WRITE_GROUPS && r->groups_error.n != 0) {
        r->step = WRITE_USER;
    }
    who.groups_error = r->groups_error;
    who.user_id = sv_from(r->session->user_id);
    who.id_token = r->claims == NULL ? SV("") : r->fresh.id_token;
    who.access_token = r->fresh.access_token;
    who.refresh_token = r->fresh.refresh_token.n > 0 ? r->fresh.refresh_token : buf_sv(&r->used);
    who.access_expires_at_s = r->access_expires_at_s;
    r->call = steps[r->step](r->app->store, &renewal, on_written, r);
    authn_identity_deinit(&who);
}

static void write_all(struct renewal *r)
{
    r->step = r->whole ? WRITE_GROUPS : WRITE_SESSION;
    write_step(r);
}

/* --- groups that are elsewhere -------------------------------------------------------------------- */

static void on_groups(void *arg, const char *why)
{
    struct renewal *r = arg;

    r->graph = NULL;
    if (why[0] != '\0') {
        log_warn("session.groups_incomplete", KV_SV("session", r->id), KV_STR("why", why));
        r->groups_error = arena_sv(&r->arena, sv_from(why));
        authn_claims_keep_groups(r->claims, r->session);
    }
    write_all(r);
}

static void groups(struct renewal *r)
{
    const struct authn_graph_ask ask = { .fetcher = r->app->fetcher,
                                         .config = r->config,
                                         .claims = r->claims,
                                         .access_token = r->fresh.access_token,
                                         .done = on_groups,
                                         .arg = r };
    const char *why = r->whole ? authn_graph_start(&ask, &r->graph) : "";

    if (why != NULL) {
        on_groups(r, why);
    }
}

/* --- what the provider says about the person ------------------------------------------------------ */

static void on_userinfo(void *arg, const struct fetch_answer *answer)
{
    struct renewal *r = arg;
    struct diag d = { .line = 0 };
    enum err err = answer->err;

    r->fetch = NULL;
    if (err == ERR_OK && answer->status >= 500) {
        err = ERR_UNAVAILABLE;
    } else if (err == ERR_OK && answer->status == 200) {
        err = authn_userinfo_merge(r->claims, answer->body, &d);
    } else if (err == ERR_OK && !authn_claims_cover(r->claims, r->session)) {
        /* With the login it may have been the same; then the ID token alone tells all there is. */
        err = ERR_NOT_FOUND;
        diag_set(&d, "userinfo is refused, and the ID token tells less than the login did");
    }
    if (err == ERR_DENIED) {
        end_session(r, d.text);
        return;
    }
    r->whole = err == ERR_OK;
    if (!r->whole) { /* half of the claims must not replace all of them */
        log_warn("session.claims_not_refreshed", KV_SV("session", r->id),
                 KV_STR("why", d.text[0] != '\0' ? d.text : answer->text),
                 KV_I64("status", answer->status));
    }
    groups(r);
}

static void userinfo(struct renewal *r)
{
    const struct authn_provider *p =
        r->app->oidc == NULL ? NULL : authn_oidc_provider(r->app->oidc);

    if (p == NULL) {
        again(r, "userinfo", "the configuration changed");
        return;
    }
    r->fetch = authn_userinfo_start(r->app->fetcher, p, r->fresh.access_token, on_userinfo, r);
    if (r->fetch == NULL) {
        r->whole = true;
        groups(r);
    }
}

static void claims_check(struct renewal *r)
{
    struct authn_id_expected expected = { .issuer = sv_from(r->session->id_token->issuer),
                                          .client_id = r->config->idp_client_id,
                                          .subject = sv_from(r->session->id_token->subject),
                                          .now_s = clock_wall_s() };
    struct diag d = { .line = 0 };
    enum err err = authn_id_check(r->claims, &expected, &d);

    if (err == ERR_ABORTED) {
        end_session(r, d.text);
    } else if (err != ERR_OK) {
        again(r, "the refreshed ID token", d.text);
    } else {
        userinfo(r);
    }
}

/* With or without the provider's new keys those at hand decide. */
static void verify_again(struct authn_waiter *waiter, enum err err)
{
    (void)err;
    verify(CONTAINER_OF(waiter, struct renewal, waiter));
}

static void verify(struct renewal *r)
{
    const struct jose_keys *keys = r->app->oidc == NULL ? NULL : authn_oidc_keys(r->app->oidc);
    char kid[JOSE_KID_MAX + 1] = "";
    bool new_keys_may_help = false;
    struct diag d = { .line = 0 };
    enum err err = ERR_OK;

    if (r->fresh.id_token.n == 0) {
        write_all(r); /* OpenID Connect Core §12.2: what is known of the person stays */
        return;
    }
    if (keys == NULL) {
        again(r, "the refreshed ID token", "the provider's keys are not known");
        return;
    }
    err = authn_id_open(keys, r->fresh.id_token, &r->claims, &new_keys_may_help, &d);
    if (new_keys_may_help && !r->looked_again && jose_token_kid(r->fresh.id_token, kid) == ERR_OK) {
        r->looked_again = true;
        r->waiter.next = verify_again;
        authn_oidc_refresh(r->app->oidc, &r->waiter, sv_from(kid));
        return;
    }
    if (err != ERR_OK) {
        again(r, "the refreshed ID token", d.text);
        return;
    }
    claims_check(r);
}

/* --- redeeming ------------------------------------------------------------------------------------ */

static enum err read_token(struct renewal *r, const Session__Session *session, struct buf *out)
{
    return session->oauth_token == NULL
               ? ERR_NOT_FOUND
               : seal_open(r->app->rest, sv_from(session->oauth_token->refresh_token), r->id, out);
}

static void on_second_look(void *arg, enum rpc_status status, const char *text,
                           const ProtobufCMessage *response)
{
    struct renewal *r = arg;
    CLEANUP(buf_deinit) struct buf token;
    Session__Session *session = NULL;
    uint64_t version = 0;
    enum err err =
        authn_store_session(status, response, clock_wall_s(), &r->arena, &session, &version);

    r->call = NULL;
    buf_init(&token, AUTHN_PROVIDER_BYTES_MAX);
    if (err == ERR_NOT_FOUND) {
        over(r);
    } else if (err != ERR_OK) {
        again(r, "the databroker does not answer", text);
    } else if (read_token(r, session, &token) != ERR_OK ||
               secret_same(buf_sv(&token), buf_sv(&r->used))) {
        r->session = session;
        end_session(r, "the provider takes its refresh token no more (invalid_grant)");
    } else {
        done(r, OTHERS_MS); /* another owner redeemed it: theirs is the one that counts */
    }
    if (token.p != NULL) {
        secret_wipe(token.p, token.n);
    }
}

static void second_look(struct renewal *r)
{
    r->call = authn_store_get(r->app->store, AUTHN_TYPE_SESSION, r->id, on_second_look, r);
}

static void answer_refused(struct renewal *r, const struct fetch_answer *answer)
{
    enum authn_grant_fault fault = authn_grant_fault(answer->status, answer->body);

    if (fault != AUTHN_GRANT_LATER) {
        r->renewer->failures = 0;
    }
    switch (fault) {
    case AUTHN_GRANT_LATER:
        provider_away(r, "it answers with an error");
        break;
    case AUTHN_GRANT_OVER:
        later(r, SECOND_LOOK_MS, second_look);
        break;
    case AUTHN_GRANT_CLIENT:
        again(r, "the token endpoint refuses us", "check idp_client_id and idp_client_secret");
        break;
    }
}

static void on_tokens(void *arg, const struct fetch_answer *answer)
{
    struct renewal *r = arg;
    struct diag d = { .line = 0 };

    r->fetch = NULL;
    if (answer->err != ERR_OK) {
        provider_away(r, answer->text);
        return;
    }
    if (answer->status != 200) {
        answer_refused(r, answer);
        return;
    }
    r->renewer->failures = 0;
    if (authn_tokens_parse_refreshed(answer->body, &r->arena, &r->fresh, &d) != ERR_OK) {
        again(r, "the token endpoint", d.text);
        return;
    }
    r->access_expires_at_s = r->fresh.expires_in_s > 0 ? clock_wall_s() + r->fresh.expires_in_s : 0;
    if (r->fresh.refresh_token.n > 0 && !secret_same(r->fresh.refresh_token, buf_sv(&r->used))) {
        r->step = WRITE_REFRESH_TOKEN;
        write_step(r);
        return;
    }
    verify(r);
}

static void redeem(struct renewal *r)
{
    const struct authn_provider *p =
        r->app->oidc == NULL ? NULL : authn_oidc_provider(r->app->oidc);
    CLEANUP(buf_deinit) struct buf form;

    if (p == NULL || r->renewer->stopping ||
        clock_mono_ms() - r->leased_at_ms > LEASE_S * 1000 - REDEEM_MS - LEASE_SPARE_MS) {
        done(r, OTHERS_MS);
        return;
    }
    buf_init(&form, AUTHN_PROVIDER_BYTES_MAX);
    http_form_add(&form, SV("grant_type"), SV("refresh_token"));
    http_form_add(&form, SV("refresh_token"), buf_sv(&r->used));
    r->fetch = authn_grant_start(
        r->app->fetcher,
        &(struct authn_grant){
            .provider = p, .config = r->config, .form = &form, .timeout_ms = REDEEM_MS },
        on_tokens, r);
}

/* --- the lease, and the record under it ----------------------------------------------------------- */

static bool is_ours(const struct authn *app, const Session__Session *session)
{
    return app->oidc != NULL && sv_eq(sv_from(session->idp_id), sv_from(app->idp_id)) &&
           session->id_token != NULL && session->id_token->subject[0] != '\0';
}

static void on_read(void *arg, enum rpc_status status, const char *text,
                    const ProtobufCMessage *response)
{
    struct renewal *r = arg;
    int64_t from_ms = 0;
    int64_t span_ms = 0;
    uint64_t version = 0;
    enum err err =
        authn_store_session(status, response, clock_wall_s(), &r->arena, &r->session, &version);

    r->call = NULL;
    if (err == ERR_UNAVAILABLE) {
        again(r, "the databroker does not answer", text);
        return;
    }
    if (err != ERR_OK || !is_ours(r->app, r->session) ||
        !authn_due_window(r->session, authn_store_written_ms(status, response), &from_ms,
                          &span_ms)) {
        over(r);
        return;
    }
    if (from_ms > clock_wall_ms()) { /* another authenticate was quicker */
        authn_due_worked(r->renewer->due, r->id);
        done(r, from_ms + (int64_t)rand_below((uint64_t)span_ms + 1) - clock_wall_ms());
        return;
    }
    if (read_token(r, r->session, &r->used) != ERR_OK) {
        log_warn("session.token_unreadable", KV_SV("session", r->id),
                 KV_STR("why", "it was sealed under a shared secret that is not known any more"));
        over(r);
        return;
    }
    redeem(r);
}

static void on_lease(void *arg, enum rpc_status status, const char *text,
                     const ProtobufCMessage *response)
{
    struct renewal *r = arg;

    r->call = NULL;
    if (status == RPC_ALREADY_EXISTS) {
        done(r, OTHERS_MS + (int64_t)rand_below(OTHERS_MS));
        return;
    }
    if (status != RPC_OK) {
        again(r, "the databroker does not answer", text);
        return;
    }
    r->lease_id = authn_store_lease_id(response, &r->arena);
    r->call = authn_store_get(r->app->store, AUTHN_TYPE_SESSION, r->id, on_read, r);
}

static void lease(struct renewal *r)
{
    CLEANUP(buf_deinit) struct buf name;

    buf_init(&name, 1024);
    buf_add_str(&name, "session-refresh/");
    buf_add_sv(&name, r->id);
    r->lease_name = mem_svdup(buf_sv(&name));
    r->leased_at_ms = clock_mono_ms();
    r->call = authn_store_lease(r->app->store, r->lease_name, LEASE_S, on_lease, r);
}

static void provider_known(struct authn_waiter *waiter, enum err err)
{
    struct renewal *r = CONTAINER_OF(waiter, struct renewal, waiter);

    if (err != ERR_OK || r->app->oidc == NULL) {
        provider_away(r, "its discovery document cannot be had");
        return;
    }
    lease(r);
}

static void start(struct authn_renewer *renewer, struct sv id)
{
    struct renewal *r = MEM_NEW(struct renewal);

    r->renewer = renewer;
    r->app = renewer->app;
    r->config = config_ref(renewer->app->config);
    arena_init(&r->arena);
    buf_init(&r->used, AUTHN_PROVIDER_BYTES_MAX);
    list_init(&r->waiter.node);
    list_push_back(&renewer->open, &r->node);
    renewer->n_open++;
    r->id = arena_sv(&r->arena, id);
    r->timer = event_new(loop_base(r->app->loop), -1, 0, on_timer, r);
    CHECK(r->timer != NULL);
    if (r->app->oidc == NULL) {
        over(r);
    } else if (authn_oidc_provider(r->app->oidc) == NULL) {
        r->waiter.next = provider_known;
        authn_oidc_refresh(r->app->oidc, &r->waiter, SV(""));
    } else {
        lease(r);
    }
}

/* --- whose turn it is ----------------------------------------------------------------------------- */

static void look(struct authn_renewer *renewer)
{
    int64_t wait_ms = LOOK_MS;
    size_t room = renewer->failures > 0 ? 1 : AT_ONCE_MAX;
    int64_t pause_ms = renewer->pause_until_ms - clock_mono_ms();
    struct timeval tv;
    struct sv id;

    if (renewer->stopping) {
        if (renewer->n_open == 0 && renewer->idle != NULL) {
            void (*idle)(void *arg) = TAKE(renewer->idle);

            idle(renewer->idle_arg);
        }
        return;
    }
    if (pause_ms <= 0 && renewer->n_open < room &&
        authn_due_take(renewer->due, clock_wall_ms(), &id)) {
        start(renewer, id);
        wait_ms = 0; /* for the next one */
    } else if (renewer->n_open < room) {
        wait_ms = authn_due_next_ms(renewer->due) - clock_wall_ms();
        wait_ms = MIN(MAX(wait_ms, pause_ms), (int64_t)LOOK_MS);
    }
    tv = tv_of(MAX(wait_ms, 0));
    (void)event_add(renewer->timer, &tv);
}

static void on_look_due(evutil_socket_t fd, short what, void *arg)
{
    (void)fd;
    (void)what;
    look(arg);
}

static void tell_too_many(const struct authn_renewer *renewer)
{
    static struct log_limit limit;

    if (log_limit_pass(&limit, 1)) {
        log_error("sessions.too_many", KV_U64("count", authn_due_count(renewer->due)),
                  KV_STR("why", "the tokens of more sessions than these are not refreshed here"));
    }
}

static void on_session(void *arg, const Session__Session *session, uint64_t version,
                       int64_t written_ms)
{
    struct authn_renewer *renewer = arg;
    struct sv id = sv_from(session->id);
    int64_t first_ms = authn_due_next_ms(renewer->due);
    int64_t from_ms = 0;
    int64_t span_ms = 0;

    if (session->expires_at == NULL || !is_ours(renewer->app, session) ||
        !authn_due_window(session, written_ms, &from_ms, &span_ms) ||
        from_ms / 1000 >= session->expires_at->seconds) {
        authn_due_drop(renewer->due, id);
        return;
    }
    from_ms += (int64_t)rand_below((uint64_t)span_ms + 1);
    if (authn_due_set(renewer->due, id, version, from_ms) != ERR_OK) {
        tell_too_many(renewer);
        return;
    }
    if (from_ms < first_ms) {
        look_soon(renewer);
    }
}

static void on_session_end(void *arg, struct sv id)
{
    struct authn_renewer *renewer = arg;

    authn_due_drop(renewer->due, id);
}

struct authn_renewer *authn_renewer_new(struct authn *app)
{
    static const struct authn_watch_ops ops = { .on_session = on_session,
                                                .on_end = on_session_end };
    struct authn_renewer *renewer = MEM_NEW(struct authn_renewer);

    renewer->app = app;
    renewer->due = authn_due_new();
    list_init(&renewer->open);
    renewer->timer = event_new(loop_base(app->loop), -1, 0, on_look_due, renewer);
    CHECK(renewer->timer != NULL);
    renewer->watch = authn_watch_new(app->loop, app->store, &ops, renewer);
    return renewer;
}

void authn_renewer_look_again(struct authn_renewer *renewer)
{
    authn_watch_again(renewer->watch);
}

void authn_renewer_stop(struct authn_renewer *renewer, void (*idle)(void *arg), void *arg)
{
    renewer->stopping = true;
    renewer->idle = idle;
    renewer->idle_arg = arg;
    look_soon(renewer);
}

void authn_renewer_free(struct authn_renewer **renewer)
{
    struct list *it = NULL;
    struct list *tmp = NULL;

    if (*renewer == NULL) {
        return;
    }
    LIST_FOREACH_SAFE(it, tmp, &(*renewer)->open) {
        renewal_free(LIST_ENTRY(it, struct renewal, node));
    }
    authn_watch_free(&(*renewer)->watch);
    event_free((*renewer)->timer);
    authn_due_free(&(*renewer)->due);
    mem_free(renewer);
}
