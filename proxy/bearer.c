#include "proxy/bearer.h"

#include <stdio.h>
#include <string.h>

#include <openssl/sha.h>

#include "common/clock.h"
#include "common/crypto/token.h"
#include "common/mem.h"
#include "common/secret.h"
#include "proxy/credential.h"
#include "proxy/login.h"
#include "proxy/reply.h"

enum { SLOTS = 1024, KEEP_MS = 60000 };

/* The hash of a token and of what it is good for: nobody finds another text for it, so that comparing
 * it tells nothing. */
struct key {
    unsigned char sum[SHA256_DIGEST_LENGTH];
};

struct slot {
    struct key key;
    int64_t until_ms; /* 0: empty */
    struct handle handle;
};

struct proxy_bearers {
    const struct keys *keys;
    struct slot slots[SLOTS];
};

struct proxy_bearers *proxy_bearers_new(const struct keys *keys)
{
    struct proxy_bearers *b = MEM_NEW(struct proxy_bearers);

    b->keys = keys;
    return b;
}

void proxy_bearers_free(struct proxy_bearers **bearers)
{
    mem_free(bearers);
}

/* ---- what was opened before ------------------------------------------------------------------- */

static struct key key_of(struct sv token)
{
    struct key key;

    (void)SHA256((const unsigned char *)token.p, token.n, key.sum);
    return key;
}

static struct slot *slot_of(struct proxy_bearers *b, const struct key *key)
{
    uint32_t n = 0;

    memcpy(&n, key->sum, sizeof(n));
    return &b->slots[n % SLOTS];
}

static bool recall(struct proxy_bearers *b, const struct key *key, struct handle *handle_out)
{
    const struct slot *slot = slot_of(b, key);

    if (slot->until_ms <= clock_coarse_ms() || memcmp(&slot->key, key, sizeof(*key)) != 0) {
        return false;
    }
    *handle_out = slot->handle;
    return true;
}

static void remember(struct proxy_bearers *b, const struct key *key, const struct handle *handle,
                     int64_t expires_at_s)
{
    int64_t left_ms = (expires_at_s - clock_wall_s()) * 1000;

    *slot_of(b, key) = (struct slot){ .key = *key,
                                      .until_ms = clock_coarse_ms() + MIN(left_ms, KEEP_MS),
                                      .handle = *handle };
}

/* ---- tokens ----------------------------------------------------------------------------------- */

static enum err open_account(struct proxy_bearers *b, struct sv text, struct handle *handle_out)
{
    const struct key key = key_of(text);
    struct token token = { .role = TOKEN_ROLE_NONE };
    enum err err = ERR_OK;

    if (recall(b, &key, handle_out)) {
        return ERR_OK;
    }
    err = token_verify(b->keys, text, &token);
    if (err != ERR_OK || token.role != TOKEN_ROLE_SERVICE_ACCOUNT) {
        return err == ERR_OK ? ERR_CRYPTO : err;
    }
    *handle_out = (struct handle){ .issued_at_s = clock_wall_s() };
    (void)snprintf(handle_out->session, sizeof(handle_out->session), TOKEN_ACCOUNT "%s", token.id);
    remember(b, &key, handle_out, token.expires_at_s);
    return ERR_OK;
}

static enum err open_token(struct proxy_exchange *x, struct sv text, struct handle *handle_out)
{
    if (sv_starts(text, SV("postern_"))) {
        return open_account(x->worker->bearers, text, handle_out);
    }
    return proxy_handles_open(x->worker->handles, text, proxy_login_holder(x), handle_out);
}

bool proxy_bearer_is_ours(struct proxy_exchange *x, const struct http_field *field)
{
    return field->id == HTTP_H_AUTHORIZATION &&
           proxy_credential_read(field->value, false, &x->arena, NULL);
}

/* False: the cookie says that somebody else is there. */
static bool agrees(const struct proxy_exchange *x, const struct handle *handle)
{
    return !x->handle_valid || strcmp(x->handle.session, handle->session) == 0;
}

bool proxy_bearer_identify(struct proxy_exchange *x)
{
    const struct proxy_credential shown = proxy_credential_find(&x->head, false, &x->arena);
    struct handle handle;
    enum err err = ERR_OK;

    proxy_login_identify(x);
    x->by_token = shown.shown;
    if (!shown.shown) {
        return true;
    }
    if (shown.differs) {
        proxy_reply_fault(x, 400, "credentials-differ");
        return false;
    }
    err = open_token(x, shown.token, &handle);
    if (err != ERR_OK) {
        proxy_reply_fault(x, 401, err == ERR_EXPIRED ? "token-expired" : "token-invalid");
        return false;
    }
    if (!agrees(x, &handle)) {
        proxy_reply_fault(x, 400, "credentials-differ");
        return false;
    }
    x->handle = handle;
    x->handle_valid = true;
    return true;
}
