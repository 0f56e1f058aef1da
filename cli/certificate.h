/* certificate: the trial's own certificate authority and the certificate of its hosts. */
#pragma once

#include "cli/trial.h"
#include "common/base.h"
#include "common/config/config.h"
#include "common/diag.h"

/* Makes ca.pem and ca-key.pem once, server.pem and server-key.pem when missing or within 30 days of
 * their end. ERR_IO, ERR_CRYPTO (the files are no certificate or do not fit). */
MUST_CHECK enum err cli_certificates_make(const struct cli_trial *t, struct diag *d);
/* Issues server.pem again when a route's host below localhost is not in it. The proxy sees the new file.
 * Errors as above. */
MUST_CHECK enum err cli_certificates_cover(const struct cli_trial *t, const struct config *config,
                                           struct diag *d);
