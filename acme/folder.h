/* acme_folder: autocert_dir.
 *
 *   lock                            held by the postern-acme that orders, and by its client
 *   accounts/SERVER/                key and address of our account
 *   certificates/SERVER/HOST.pem    chain and key; the proxies read them
 *   challenges/http-01/TOKEN        open challenges; the proxies answer them
 *   challenges/tls-alpn-01/HOST.pem
 *   notes/SERVER/HOST.json          failures since the last certificate
 *
 * Folders are 0700, files 0600. Blocks; one thread. */
#pragma once

#include "common/base.h"
#include "common/buf.h"
#include "common/config/config.h"
#include "common/diag.h"

/* Makes the folders and takes the lock. *lock_out: a descriptor, the caller's to close.
 * ERR_EXISTS: another one holds it. ERR_IO with a sentence. */
MUST_CHECK enum err acme_folder_open(const struct config *config, int *lock_out, struct diag *d);
/* autocert_dir/kind/SERVER. */
void acme_folder_path(const struct config *config, const char *kind, struct buf *out);

struct acme_dates {
    int64_t not_before_s;
    int64_t not_after_s;
};

/* Of the certificate for host; ERR_NOT_FOUND, or ERR_INVALID: it cannot be used. */
MUST_CHECK enum err acme_folder_dates(const struct config *config, const char *host,
                                      struct acme_dates *dates_out);

struct acme_note {
    unsigned failures;
    int64_t again_at_s;
};

/* All zero: there is none, or none that makes sense. */
struct acme_note acme_folder_note(const struct config *config, const char *host);
/* failures 0 takes the note away. ERR_IO: it is not written. */
MUST_CHECK enum err acme_folder_set_note(const struct config *config, const char *host,
                                         struct acme_note note);
