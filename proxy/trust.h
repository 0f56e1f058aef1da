/* proxy_trust: what makes a visitor's certificate trusted: CAs, lists of revoked certificates over
 * the whole chain, use, depth, names. Nothing is taken from the handshake but certificates: a
 * verdict can be had, and had again, at any time. Immutable, refcounted; any thread. */
#pragma once

#include <openssl/ssl.h>

#include "common/base.h"
#include "common/config/config.h"
#include "common/diag.h"

enum { PROXY_TRUST_DEPTH_MAX = 16 };

struct proxy_trust;

struct proxy_trust_verdict {
    bool trusted;
    const char *why; /* not trusted: a constant for the log */
    int64_t until_s; /* wall clock: by then a certificate or a list has ended, or ask again */
};

/* ca: PEM. lists, depth and names are mtls's. ERR_INVALID with the reason in d. */
MUST_CHECK enum err proxy_trust_new(const struct config_mtls *mtls, struct sv ca,
                                    struct proxy_trust **trust_out, struct diag *d);
struct proxy_trust *proxy_trust_ref(struct proxy_trust *trust);
void proxy_trust_unref(struct proxy_trust **trust);
/* leaf: what the client showed, chain: what it sent along, in any order, may be NULL. */
void proxy_trust_judge(const struct proxy_trust *trust, X509 *leaf, STACK_OF(X509) * chain,
                       struct proxy_trust_verdict *verdict_out);
/* Adds the CAs' names to names, which a server sends to help the client choose. */
void proxy_trust_add_names(const struct proxy_trust *trust, STACK_OF(X509_NAME) * names);
