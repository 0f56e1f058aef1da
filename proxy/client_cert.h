/* proxy_client_cert: the certificate that a client showed in its handshake: facts read once a
 * connection, verdicts kept for as long as they are good. A snapshot with other CAs or lists brings
 * other trusts, so what a reload revokes is seen at the next request. Owned by its connection. */
#pragma once

#include <openssl/ssl.h>

#include "authorize.pb-c.h"

#include "common/arena.h"
#include "common/base.h"
#include "proxy/trust.h"

struct proxy_client_cert;

/* NULL: none was shown. After the handshake. */
struct proxy_client_cert *proxy_client_cert_new(const SSL *ssl);
void proxy_client_cert_free(struct proxy_client_cert **cert);
/* What a check says about it where trust applies; NULL: no CA does, nothing is trusted then.
 * Borrowed: until the next call. A verdict that is new and bad is logged; peer: who. */
Postern__ClientCertificate *proxy_client_cert_for(struct proxy_client_cert *cert,
                                                  struct proxy_trust *trust, const char *peer);

/* What headers to upstreams may say of it; names separated by commas. */
struct proxy_client_cert_texts {
    struct sv fingerprint; /* SHA-256, lower-case hexadecimal */
    struct sv san_dns;
    struct sv san_email;
};

/* All empty where trust does not accept it; they live in arena. */
void proxy_client_cert_texts(struct proxy_client_cert *cert, struct proxy_trust *trust,
                             const char *peer, struct arena *arena,
                             struct proxy_client_cert_texts *texts_out);
