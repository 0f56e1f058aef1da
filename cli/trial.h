/* trial: the folder in which `postern up` keeps everything: keys, certificates, accounts,
 * configuration, sockets, logs. Made on the first start, kept as it is afterwards.
 *
 *   config.yaml     routes and settings, for people to edit
 *   users.yaml      accounts with yescrypt hashes     accounts.txt   their passwords, for the trial
 *   shared-secret   root of all keys                  databroker.sqlite
 *   ca.pem ca-key.pem server.pem server-key.pem       sock/ log/ */
#pragma once

#include "common/base.h"
#include "common/diag.h"

enum { TRIAL_PATH = 1024 };

struct cli_trial {
    char folder[TRIAL_PATH];        /* absolute */
    char upstream[TRIAL_PATH + 32]; /* `to` of its routes; "": sock/demo.sock in the folder */
};

/* Makes what is missing. ERR_IO and others with one sentence in d. */
MUST_CHECK enum err cli_trial_prepare(struct cli_trial *t, const char *folder, struct diag *d);
/* folder/name into room; returns room. */
const char *cli_trial_path(const struct cli_trial *t, const char *name, char room[TRIAL_PATH]);
