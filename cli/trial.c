#include "cli/trial.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "cli/certificate.h"
#include "cli/command.h"
#include "cli/file.h"
#include "common/b64.h"
#include "common/buf.h"
#include "common/mem.h"
#include "common/rand.h"
#include "common/secret.h"

enum { SECRET_BYTES = 32, SOCKET_PATH_MAX = 80, TEXT_ROOM = 16384, PASSWORD_ROOM = 24 };

static const struct {
    const char *email;
    const char *name;
    const char *groups;
} accounts[] = {
    { "admin@example.com", "Ada Admin", "[admins, staff]" },
    { "user@example.com", "Uli User", "[staff]" },
};

static const char config_text[] =
    "# Postern's trial. Save this file and the change is in force; nothing is dropped.\n"
    "# `postern validate %1$s/config.yaml` tells what is wrong with it, with line and column.\n"
    "\n"
    "# --- routes: who may go where, first match wins for each host\n"
    "routes:\n"
    "  # everyone who is logged in\n"
    "  - from: https://demo.localhost\n"
    "    to: %2$s\n"
    "    allow_websockets: true\n"
    "    pass_identity_headers: true\n"
    "    policy:\n"
    "      - allow:\n"
    "          and:\n"
    "            - authenticated_user: true\n"
    "\n"
    "  # one group\n"
    "  - from: https://admin.localhost\n"
    "    to: %2$s\n"
    "    pass_identity_headers: true\n"
    "    policy:\n"
    "      - allow:\n"
    "          and:\n"
    "            - groups: { has: admins }\n"
    "\n"
    "  # everybody, without a login\n"
    "  - from: https://public.localhost\n"
    "    to: %2$s\n"
    "    allow_public_unauthenticated_access: true\n"
    "\n"
    "# --- logins: accounts from a file; idp_provider: oidc asks your company's provider instead\n"
    "idp_provider: local\n"
    "idp_local_users_file: %1$s/users.yaml\n"
    "authenticate_service_url: https://authenticate.localhost:8443 # the port follows `postern up "
    "--port`\n"
    "\n"
    "# --- the listener; `postern up --port` says where\n"
    "certificates:\n"
    "  - cert: %1$s/server.pem\n"
    "    key: %1$s/server-key.pem\n"
    "jwt_claims_headers:\n"
    "  X-Pomerium-Claim-Email: email\n"
    "  X-Pomerium-Claim-Groups: groups\n"
    "\n"
    "# --- how the four parts find each other\n"
    "shared_secret_file: %1$s/shared-secret\n"
    "databroker_service_url: unix:%1$s/sock/databroker.sock\n"
    "authorize_service_url: unix:%1$s/sock/authorize.sock\n"
    "authenticate_internal_service_url: unix:%1$s/sock/authenticate-http.sock\n"
    "authenticate_grpc_url: unix:%1$s/sock/authenticate.sock\n"
    "databroker_storage_type: sqlite\n"
    "databroker_storage_connection_string: %1$s/databroker.sqlite\n";

const char *cli_trial_path(const struct cli_trial *t, const char *name, char room[TRIAL_PATH])
{
    (void)snprintf(room, TRIAL_PATH, "%s/%s", t->folder, name);
    return room;
}

static enum err make_folder(const char *path, struct diag *d)
{
    char room[128];

    if (mkdir(path, 0700) != 0 && errno != EEXIST) {
        diag_set(d, "cannot make the folder %s: %s", path, strerror_r(errno, room, sizeof(room)));
        return ERR_IO;
    }
    return ERR_OK;
}

static enum err make_secret(const struct cli_trial *t, struct diag *d)
{
    char path[TRIAL_PATH];
    char bytes[SECRET_BYTES];
    struct buf text;
    enum err err = ERR_OK;

    if (cli_file_exists(cli_trial_path(t, "shared-secret", path))) {
        return ERR_OK;
    }
    rand_bytes(bytes, sizeof(bytes));
    buf_init(&text, 128);
    b64_std_add(&text, sv_of(bytes, sizeof(bytes)));
    buf_add_char(&text, '\n');
    err = cli_file_write(path, buf_sv(&text), 0600, d);
    secret_wipe(bytes, sizeof(bytes));
    secret_wipe(text.p, text.n);
    buf_deinit(&text);
    return err;
}

/* Eight syllables of 80: about 50 bits, and people can type them. */
static void make_password(char room[PASSWORD_ROOM])
{
    static const char first[] = "bdfgklmnprstvwxz";
    static const char second[] = "aeiou";
    size_t n = 0;
    int i = 0;

    for (i = 0; i < 8; i++) {
        if (i != 0 && i % 2 == 0) {
            room[n++] = '-';
        }
        room[n++] = first[rand_below(sizeof(first) - 1)];
        room[n++] = second[rand_below(sizeof(second) - 1)];
    }
    room[n] = '\0';
}

static enum err make_accounts(const struct cli_trial *t, struct diag *d)
{
    char path[TRIAL_PATH];
    struct buf users;
    struct buf passwords;
    enum err err = ERR_OK;
    size_t i = 0;

    if (cli_file_exists(cli_trial_path(t, "users.yaml", path))) {
        return ERR_OK;
    }
    buf_init(&users, TEXT_ROOM);
    buf_init(&passwords, TEXT_ROOM);
    buf_add_str(&users,
                "# Accounts of idp_provider: local. Hashes come from `postern hash-password`.\n");
    for (i = 0; i < ARRAY_LEN(accounts); i++) {
        char password[PASSWORD_ROOM];

        make_password(password);
        buf_printf(&users, "- email: %s\n  name: %s\n  groups: %s\n  password: \"",
                   accounts[i].email, accounts[i].name, accounts[i].groups);
        err = cli_hash_password(password, &users);
        buf_add_str(&users, "\"\n");
        buf_printf(&passwords, "  %-20s %s\n", accounts[i].email, password);
        secret_wipe(password, sizeof(password));
    }
    if (err != ERR_OK) {
        diag_set(d, "this system's libcrypt knows no yescrypt");
    } else {
        char other[TRIAL_PATH];

        err = cli_file_write(cli_trial_path(t, "accounts.txt", other), buf_sv(&passwords), 0600, d);
        err = err != ERR_OK ? err : cli_file_write(path, buf_sv(&users), 0600, d);
    }
    secret_wipe(passwords.p, passwords.n);
    buf_deinit(&passwords);
    buf_deinit(&users);
    return err;
}

static enum err make_config(const struct cli_trial *t, struct diag *d)
{
    char path[TRIAL_PATH];
    struct buf text;
    enum err err = ERR_OK;

    if (cli_file_exists(cli_trial_path(t, "config.yaml", path))) {
        return ERR_OK;
    }
    buf_init(&text, TEXT_ROOM);
    buf_printf(&text, config_text, t->folder, t->upstream);
    err = cli_file_write(path, buf_sv(&text), 0600, d);
    buf_deinit(&text);
    return err;
}

static enum err resolve(struct cli_trial *t, const char *folder, struct diag *d)
{
    char *absolute = realpath(folder, NULL);
    enum err err = ERR_OK;

    if (absolute == NULL) {
        diag_set(d, "cannot find the folder %s", folder);
        return ERR_IO;
    }
    if (strlen(absolute) > SOCKET_PATH_MAX) {
        diag_set(d, "the folder's path is longer than %d bytes, too long for sockets in it: %s",
                 SOCKET_PATH_MAX, absolute);
        err = ERR_LIMIT;
    } else if (strpbrk(absolute, "#:\"'{}[],&*!|>%@` ") != NULL) {
        diag_set(d, "the folder's path holds a character that its configuration could not: %s",
                 absolute);
        err = ERR_INVALID;
    } else {
        (void)snprintf(t->folder, sizeof(t->folder), "%s", absolute);
        if (t->upstream[0] == '\0') {
            (void)snprintf(t->upstream, sizeof(t->upstream), "unix://%s/sock/demo.sock", absolute);
        }
    }
    mem_release(absolute);
    return err;
}

enum err cli_trial_prepare(struct cli_trial *t, const char *folder, struct diag *d)
{
    static enum err (*const steps[])(const struct cli_trial *,
                                     struct diag *) = { make_secret, cli_certificates_make,
                                                        make_accounts, make_config };

    char path[TRIAL_PATH];
    enum err err = make_folder(folder, d);
    size_t i = 0;

    err = err != ERR_OK ? err : resolve(t, folder, d);
    err = err != ERR_OK ? err : make_folder(cli_trial_path(t, "sock", path), d);
    err = err != ERR_OK ? err : make_folder(cli_trial_path(t, "log", path), d);
    for (i = 0; i < ARRAY_LEN(steps) && err == ERR_OK; i++) {
        err = steps[i](t, d);
    }
    return err;
}
