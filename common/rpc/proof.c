#include "common/rpc/proof.h"

#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <openssl/evp.h>
#include <openssl/hmac.h>

#include "common/b64.h"
#include "common/buf.h"
#include "common/clock.h"
#include "common/mem.h"
#include "common/secret.h"

enum { VERSION = 1, BODY = 12, MAC = 32, WIRE = BODY + MAC, LEEWAY_S = 60 };

static void mac_of(const struct keys *keys, size_t slot, const unsigned char body[BODY],
                   unsigned char mac[MAC])
{
    unsigned char key[MAC];
    unsigned n = 0;

    keys_derive(keys, slot, KEYS_PROOF, key, sizeof(key));
    CHECK(HMAC(EVP_sha256(), key, sizeof(key), body, BODY, mac, &n) != NULL && n == MAC);
    secret_wipe(key, sizeof(key));
}

void rpc_proof_make(const struct rpc_identity *caller, enum rpc_role server,
                    char out[RPC_PROOF_SIZE])
{
    const struct keys *keys = rpc_identity_keys(caller);
    uint64_t end = (uint64_t)clock_wall_s() + RPC_PROOF_LIFE_S;
    unsigned char wire[WIRE] = { VERSION, keys_id(keys, 0),
                                 (unsigned char)rpc_identity_role(caller), (unsigned char)server };
    struct buf text;

    for (size_t i = BODY; i > 4; i--) {
        wire[i - 1] = (unsigned char)(end & 0xffU);
        end >>= 8U;
    }
    mac_of(keys, 0, wire, wire + BODY);
    buf_init(&text, RPC_PROOF_SIZE);
    buf_add_str(&text, RPC_PROOF_SCHEME);
    b64_url_add(&text, sv_of(wire, sizeof(wire)));
    CHECK(text.err == ERR_OK && text.n < RPC_PROOF_SIZE);
    memcpy(out, buf_cstr(&text), text.n + 1);
    secret_wipe(text.p, text.n);
    secret_wipe(wire, sizeof(wire));
    buf_deinit(&text);
}

static bool made_by_us(const struct keys *keys, const unsigned char wire[WIRE])
{
    size_t slot = keys_slot_of(keys, wire[1], 0);
    unsigned char mac[MAC];
    bool fits = false;

    for (; slot != SIZE_MAX; slot = keys_slot_of(keys, wire[1], slot + 1)) {
        mac_of(keys, slot, wire, mac);
        fits = secret_same(sv_of(mac, MAC), sv_of(wire + BODY, MAC)) || fits;
    }
    return fits;
}

enum rpc_role rpc_proof_check(const struct rpc_identity *server, struct sv text)
{
    unsigned char wire[RPC_PROOF_SIZE];
    struct sv scheme = SV(RPC_PROOF_SCHEME);
    int64_t now = clock_wall_s();
    uint64_t end = 0;
    size_t n = 0;

    if (text.n >= RPC_PROOF_SIZE || !sv_starts(text, scheme) ||
        b64_decode(sv_from_at(text, scheme.n), wire, sizeof(wire), &n) != ERR_OK || n != WIRE ||
        wire[0] != VERSION || !made_by_us(rpc_identity_keys(server), wire)) {
        return RPC_NOBODY;
    }
    for (size_t i = 4; i < BODY; i++) {
        end = end << 8U | wire[i];
    }
    if (wire[3] != (unsigned char)rpc_identity_role(server) || (int64_t)end + LEEWAY_S < now ||
        (int64_t)end > now + RPC_PROOF_LIFE_S + LEEWAY_S || wire[2] < RPC_PROXY ||
        wire[2] > RPC_CLI) {
        return RPC_NOBODY;
    }
    return (enum rpc_role)wire[2];
}

struct sv rpc_unix_path(struct sv address)
{
    struct sv prefix = SV("unix:");

    return sv_starts(address, prefix) ? sv_from_at(address, prefix.n) : (struct sv){ 0 };
}

bool rpc_direct_path(struct sv path, char out[RPC_UNIX_PATH_SIZE])
{
    int n = snprintf(out, RPC_UNIX_PATH_SIZE, "%.*s.direct", SV_ARG(path));

    return n > 0 && n < RPC_UNIX_PATH_SIZE;
}

static bool is_ours(const struct stat *st)
{
    return st->st_uid == geteuid() || st->st_uid == 0;
}

/* folder: absolute, without links. */
static enum err check_folders(char *folder, struct diag *d)
{
    struct stat st;
    bool last = true;

    for (;;) {
        char *slash = strrchr(folder, '/');
        const char *name = *folder == '\0' ? "/" : folder;

        if (stat(name, &st) != 0) {
            diag_set(d, "%s cannot be looked at", name);
            return ERR_IO;
        }
        if (!is_ours(&st) ||
            ((st.st_mode & (S_IWGRP | S_IWOTH)) != 0 && (last || (st.st_mode & S_ISVTX) == 0))) {
            diag_set(d,
                     "others may write to %s: put the socket into a folder of its owner alone "
                     "(chmod 0700)",
                     name);
            return ERR_DENIED;
        }
        if (*folder == '\0' || slash == NULL) {
            return ERR_OK;
        }
        *slash = '\0';
        last = false;
    }
}

enum err rpc_unix_check(struct sv path, struct diag *d)
{
    char *text = mem_svdup(path);
    char *slash = strrchr(text, '/');
    char folder[PATH_MAX];
    struct stat st;
    enum err err = ERR_OK;

    if (lstat(text, &st) == 0 && !(S_ISSOCK(st.st_mode) && is_ours(&st))) {
        diag_set(d, "%s is somebody else's, or no socket", text);
        err = ERR_DENIED;
    }
    if (slash != NULL) {
        slash[slash == text ? 1 : 0] = '\0';
    }
    if (err == ERR_OK && realpath(slash == NULL ? "." : text, folder) == NULL) {
        diag_set(d, "there is no folder %s", slash == NULL ? "." : text);
        err = ERR_IO;
    }
    mem_free(&text);
    return err == ERR_OK ? check_folders(folder, d) : err;
}
