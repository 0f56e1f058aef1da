/* authn_users: the accounts of idp_provider: local. A YAML list of {email, name, password, groups[]}
 * where password is a crypt(5) hash: yescrypt ($y$), scrypt ($7$), gost-yescrypt ($gy$) or bcrypt
 * ($2b$, $2y$, $2a$). Immutable and counted; ref and unref on the loop's thread, the rest on any.
 *
 * authn_users_verify takes the same steps for an unknown account as for a wrong password: it always
 * hashes once, with a setting out of the file. */
#pragma once

#include "common/base.h"
#include "common/diag.h"
#include "common/sv.h"

enum { AUTHN_USERS_MAX = 10000, AUTHN_USERS_BYTES_MAX = 4 * 1024 * 1024, AUTHN_EMAIL_MAX = 254 };

struct authn_users;

struct authn_user {
    struct sv email; /* lower case */
    struct sv name;
    struct sv password; /* the hash */
    struct sv *groups;
    size_t n_groups;
};

/* ERR_INVALID, ERR_LIMIT; d names file and line. */
MUST_CHECK enum err authn_users_parse(struct sv text, const char *file,
                                      struct authn_users **users_out, struct diag *d);
/* Reads the file. *users_out stays as it is where the contents are those of `current` (may be NULL)
 * and ERR_EXISTS is returned. ERR_IO. */
MUST_CHECK enum err authn_users_load(const char *file, const struct authn_users *current,
                                     struct authn_users **users_out, struct diag *d);
struct authn_users *authn_users_ref(struct authn_users *users);
void authn_users_unref(struct authn_users **users);
size_t authn_users_count(const struct authn_users *users);
/* Blocks for the time of one hash. email: canonical. NULL: unknown or wrong. */
const struct authn_user *authn_users_verify(const struct authn_users *users, struct sv email,
                                            struct sv password);

/* Lower case in place of out; ERR_INVALID: not an address of the form local@domain with one '@',
 * printable ASCII or UTF-8, no blanks, at most AUTHN_EMAIL_MAX bytes. */
MUST_CHECK enum err authn_email_canonical(struct sv text, char out[AUTHN_EMAIL_MAX + 1]);
