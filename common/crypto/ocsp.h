/* ocsp: a response about one of our certificates (RFC 6960), read from a file that something else
 * keeps fresh, so that the proxy can staple it. Pure functions; any thread. */
#pragma once

#include "common/base.h"
#include "common/crypto/keypair.h"
#include "common/diag.h"
#include "common/sv.h"

enum { OCSP_FILE_MAX = 64 * 1024 };

struct ocsp_times {
    int64_t from_s; /* thisUpdate */
    int64_t ends_s; /* nextUpdate; a response without one is not taken */
};

/* Whether der says, signed by the issuer in pair's chain or by who it appointed, that pair's leaf is
 * good. The times are for the caller to compare with its clock.
 * ERR_INVALID: no such response. ERR_DENIED: it says revoked, or that it does not know. */
MUST_CHECK enum err ocsp_read(struct sv der, const struct keypair *pair,
                              struct ocsp_times *times_out, struct diag *d);
