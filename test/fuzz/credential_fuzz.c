/* What a stranger shows as proof: a handle in a cookie, a token, a proof of a part, a signed link, a
 * value of Authorization. Nothing is taken that we did not make, and what we make is taken, but not
 * for another host. */
#include "common/b64.h"
#include "common/crypto/handle.h"
#include "common/crypto/link.h"
#include "common/crypto/service_jwt.h"
#include "common/crypto/token.h"
#include "common/http/credential.h"
#include "common/rpc/proof.h"
#include "common/secret.h"
#include "test/fuzz/http_must.h"

/* NOLINTNEXTLINE(readability-identifier-naming): libFuzzer names it */
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static struct keys *keys_of(struct sv bytes)
{
    struct secret *secret = secret_new(bytes);
    const struct secret *list[] = { secret };
    struct keys *made = NULL;

    CHECK(keys_new(list, 1, &made) == ERR_OK);
    secret_free(&secret);
    return made;
}

static struct keys *keys(void)
{
    static struct keys *made;

    if (made == NULL) {
        made = keys_of(SV("0123456789abcdef0123456789abcdef"));
    }
    return made;
}

static struct keys *other_keys(void)
{
    static struct keys *made;

    if (made == NULL) {
        made = keys_of(SV("fedcba9876543210fedcba9876543210"));
    }
    return made;
}

static const struct rpc_identity *server(void)
{
    static struct rpc_identity *made;

    if (made == NULL) {
        made = rpc_identity_new(keys(), RPC_AUTHORIZE);
    }
    return made;
}

static struct sealer *handles(void)
{
    static struct sealer *made;

    if (made == NULL) {
        made = sealer_new(keys(), KEYS_HANDLE);
    }
    return made;
}

/* The host is foreign, too: it comes from the request. */
static void check_handle(struct sv text)
{
    struct handle handle = { .session = "s-1", .idp_id = "idp", .record_version = text.n };
    struct handle back;
    struct buf made;

    must(handle_open(handles(), text, SV("app.example"), &back) != ERR_OK);
    buf_init(&made, (size_t)HANDLE_TEXT_MAX * 2);
    if (handle_make(handles(), &handle, text, &made) == ERR_OK) {
        must(handle_open(handles(), buf_sv(&made), text, &back) == ERR_OK);
        must(back.record_version == text.n);
        must(sv_eq(sv_from(back.session), SV("s-1")) && sv_eq(sv_from(back.idp_id), SV("idp")));
        must(handle_open(handles(), buf_sv(&made), SV("another.example"), &back) != ERR_OK ||
             sv_eq(text, SV("another.example")));
    }
    buf_deinit(&made);
}

static void check_link(struct sv text)
{
    struct buf url;

    must(link_verify(keys(), text) != ERR_OK);
    buf_init(&url, LINK_MAX);
    buf_add_sv(&url, text);
    if (link_sign(keys(), &url) == ERR_OK && sv_find(text, '#') == SIZE_MAX) {
        must(link_verify(keys(), buf_sv(&url)) == ERR_OK);
        url.p[text.n / 2] ^= 1;
        must(link_verify(keys(), buf_sv(&url)) != ERR_OK);
    }
    buf_deinit(&url);
}

/* Signed it is looked into, whatever it is. */
static void check_service_jwt(struct sv text)
{
    unsigned char mac[KEYS_MAC_BYTES];
    struct buf jwt;

    must(service_jwt_verify(keys(), text) != ERR_OK);
    buf_init(&jwt, (size_t)SERVICE_JWT_MAX * 2);
    buf_add_sv(&jwt, text);
    keys_root_mac(keys(), 0, text, mac);
    buf_add_str(&jwt, ".");
    b64_url_add(&jwt, sv_of(mac, sizeof(mac)));
    if (jwt.err == ERR_OK && service_jwt_verify(keys(), buf_sv(&jwt)) == ERR_OK) {
        must(sv_find(text, '.') != SIZE_MAX &&
             service_jwt_verify(other_keys(), buf_sv(&jwt)) == ERR_CRYPTO);
    }
    buf_deinit(&jwt);
}

/* What is not ours stays the application's; what is ours stays ours where every Bearer is. */
static void check_authorization(struct sv text)
{
    struct arena arena;
    struct sv token = { 0 };

    arena_init(&arena);
    if (http_credential_read(text, false, &arena, &token)) {
        must(token.n <= text.n);
        must(http_credential_read(text, true, &arena, NULL));
        must(sv_istarts(text, SV("Pomerium")) || sv_istarts(text, SV("Bearer")) ||
             sv_istarts(text, SV("Basic")));
    }
    arena_deinit(&arena);
}

/* NOLINTNEXTLINE(readability-identifier-naming): libFuzzer names it */
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct sv text = sv_of(data, size);
    struct token token;

    check_handle(text);
    check_link(text);
    check_authorization(text);
    check_service_jwt(text);
    must(token_verify(keys(), text, &token) != ERR_OK);
    must(rpc_proof_check(server(), text) == RPC_NOBODY);
    return 0;
}
