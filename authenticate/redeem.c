#include "authenticate/redeem.h"

#include <openssl/evp.h>

#include "authenticate.pb-c.h"

#include "authenticate/app.h"
#include "authenticate/flow.h"
#include "authenticate/proof.h"
#include "common/b64.h"
#include "common/clock.h"
#include "common/log.h"
#include "common/mem.h"
#include "common/secret.h"

enum { LEASE_S = AUTHN_CODE_LIFE_S * 2, BINDING_SIZE = 32 };

struct redemption {
    struct list node;
    struct rpc_pending *lease;
    struct rpc_call *call;
    struct arena arena;
    struct authn_code code;
};

static void redemption_free(struct redemption *r)
{
    list_remove(&r->node);
    arena_deinit(&r->arena);
    mem_free(&r);
}

static void refuse(struct redemption *r, enum rpc_status status, const char *why)
{
    log_info("code.refused", KV_STR("why", why), KV_SV("session", r->code.session));
    rpc_call_fail(r->call, status, why);
    redemption_free(r);
}

/* The code is ours, but is good for nothing here: the proxy may begin again, to the same place. */
static void begin_again(struct redemption *r, const char *why)
{
    Postern__RedeemResponse answer;

    log_info("code.refused", KV_STR("why", why), KV_SV("session", r->code.session));
    postern__redeem_response__init(&answer);
    answer.redirect_uri = arena_str(&r->arena, r->code.redirect_uri);
    rpc_call_reply(r->call, &answer.base);
    redemption_free(r);
}

static void on_lease(void *arg, enum rpc_status status, const char *text,
                     const ProtobufCMessage *response)
{
    struct redemption *r = arg;
    Postern__RedeemResponse answer;

    (void)response;
    r->lease = NULL;
    if (status == RPC_ALREADY_EXISTS) {
        begin_again(r, "used");
        return;
    }
    if (status != RPC_OK) {
        log_warn("store.unavailable", KV_I64("status", status), KV_STR("text", text));
        refuse(r, RPC_UNAVAILABLE, "store unavailable");
        return;
    }
    postern__redeem_response__init(&answer);
    answer.session = arena_str(&r->arena, r->code.session);
    answer.record_version = r->code.record_version;
    answer.idp_id = arena_str(&r->arena, r->code.idp_id);
    answer.redirect_uri = arena_str(&r->arena, r->code.redirect_uri);
    answer.expires_at_s = r->code.session_expires_at_s;
    rpc_call_reply(r->call, &answer.base);
    redemption_free(r);
}

static bool binding_fits(const struct authn_code *code, const ProtobufCBinaryData *given)
{
    unsigned char own[64];
    size_t n = 0;

    return given->len == BINDING_SIZE && b64_decoded_max(code->binding.n) <= sizeof own &&
           b64_decode(code->binding, own, sizeof own, &n) == ERR_OK && n == BINDING_SIZE &&
           secret_same(sv_of(own, n), sv_of(given->data, given->len));
}

static void lease_name(struct buf *name, struct sv id)
{
    unsigned char digest[32];

    CHECK(EVP_Digest(id.p, id.n, digest, NULL, EVP_sha256(), NULL) == 1);
    buf_add_str(name, "login-code/");
    hex_add(name, sv_of(digest, sizeof digest));
}

static void on_redeem(struct rpc_call *call, const ProtobufCMessage *request, void *arg)
{
    const Postern__RedeemRequest *redeem = (const Postern__RedeemRequest *)(const void *)request;
    struct authn *app = arg;
    struct redemption *r = MEM_NEW(struct redemption);
    CLEANUP(buf_deinit) struct buf name;
    enum err err = ERR_OK;

    r->call = call;
    list_push_back(&app->redemptions, &r->node);
    arena_init(&r->arena);
    buf_init(&name, 128);
    err = authn_code_open(app->codes, sv_from(redeem->code), clock_wall_s(), &r->arena, &r->code);
    if (err != ERR_OK && err != ERR_EXPIRED) {
        refuse(r, RPC_UNAUTHENTICATED, "not a code of ours");
        return;
    }
    if (!sv_eq(r->code.host, sv_from(redeem->host))) {
        refuse(r, RPC_UNAUTHENTICATED, "code of another host");
        return;
    }
    if (err == ERR_EXPIRED) {
        begin_again(r, "too old");
        return;
    }
    if (!binding_fits(&r->code, &redeem->binding)) {
        begin_again(r, "of another browser"); /* and the code stays unused */
        return;
    }
    lease_name(&name, r->code.id);
    r->lease = authn_store_lease(app->store, buf_cstr(&name), LEASE_S, on_lease, r);
}

void authn_redeem_cancel(struct authn *app)
{
    while (!list_empty(&app->redemptions)) {
        struct redemption *r = LIST_ENTRY(app->redemptions.next, struct redemption, node);

        rpc_pending_cancel(&r->lease);
        refuse(r, RPC_UNAVAILABLE, "stopping");
    }
}

const struct rpc_method authn_redeem_methods[] = {
    { .path = "/postern.Login/Redeem",
      .roles = BIT(RPC_PROXY),
      .request = &postern__redeem_request__descriptor,
      .handler = on_redeem },
    { .path = "/postern.Login/Token",
      .roles = BIT(RPC_PROXY) | BIT(RPC_AUTHORIZE), /* for others' proxies */
      .request = &postern__token_request__descriptor,
      .handler = authn_proof_on_token },
};
const size_t authn_redeem_n_methods = ARRAY_LEN(authn_redeem_methods);
