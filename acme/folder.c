#include "acme/folder.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include <jansson.h>
#include <openssl/err.h>
#include <openssl/pem.h>
#include <openssl/x509v3.h>

#include "common/mem.h"

enum { PATH_ROOM = 8192, FAILURES_MAX = 1000 };

static enum err io_fault(struct diag *d, const char *what, const char *path)
{
    char room[128];

    diag_set(d, "cannot %s %s: %s", what, path, strerror_r(errno, room, sizeof(room)));
    return ERR_IO;
}

static enum err make(const char *path, struct diag *d)
{
    if (mkdir(path, 0700) != 0 && errno != EEXIST) {
        return io_fault(d, "make the folder", path);
    }
    return ERR_OK;
}

void acme_folder_path(const struct config *config, const char *kind, struct buf *out)
{
    buf_add_sv(out, config->autocert_dir);
    buf_printf(out, "/%s/", kind);
    buf_add_sv(out, config->autocert_server);
}

static enum err make_kind(const struct config *config, const char *kind, struct diag *d)
{
    CLEANUP(buf_deinit) struct buf path = { 0 };
    enum err err = ERR_OK;

    buf_init(&path, PATH_ROOM);
    buf_add_sv(&path, config->autocert_dir);
    buf_printf(&path, "/%s", kind);
    err = make(buf_cstr(&path), d);
    buf_add_char(&path, '/');
    buf_add_sv(&path, config->autocert_server);
    return err != ERR_OK ? err : make(buf_cstr(&path), d);
}

enum err acme_folder_open(const struct config *config, int *lock_out, struct diag *d)
{
    static const char *const kinds[] = { "accounts", "certificates", "notes" };
    CLEANUP(buf_deinit) struct buf path = { 0 };
    enum err err = make(config->autocert_dir.p, d);
    int fd = -1;

    for (size_t i = 0; i < ARRAY_LEN(kinds) && err == ERR_OK; i++) {
        err = make_kind(config, kinds[i], d);
    }
    if (err != ERR_OK) {
        return err;
    }
    buf_init(&path, PATH_ROOM);
    buf_add_sv(&path, config->autocert_dir);
    buf_add_str(&path, "/lock");
    fd = open(buf_cstr(&path), O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);
    if (fd < 0) {
        return io_fault(d, "open", buf_cstr(&path));
    }
    if (flock(fd, LOCK_EX | LOCK_NB) != 0) {
        err = errno == EWOULDBLOCK ? ERR_EXISTS : io_fault(d, "lock", buf_cstr(&path));
        (void)close(fd);
        return err;
    }
    *lock_out = fd;
    return ERR_OK;
}

/* ---- certificates ---------------------------------------------------------------------------- */

static void file_of(const struct config *config, const char *kind, const char *host,
                    const char *suffix, struct buf *out)
{
    buf_init(out, PATH_ROOM);
    acme_folder_path(config, kind, out);
    buf_printf(out, "/%s%s", host, suffix);
}

static bool to_seconds(const ASN1_TIME *at, int64_t *s_out)
{
    ASN1_TIME *epoch = ASN1_TIME_set(NULL, 0);
    int days = 0;
    int seconds = 0;
    bool fine = epoch != NULL && ASN1_TIME_diff(&days, &seconds, epoch, at) == 1;

    ASN1_TIME_free(epoch);
    *s_out = (int64_t)days * 86400 + seconds;
    return fine;
}

enum err acme_folder_dates(const struct config *config, const char *host,
                           struct acme_dates *dates_out)
{
    CLEANUP(buf_deinit) struct buf path = { 0 };
    struct acme_dates dates = { 0 };
    FILE *file = NULL;
    X509 *cert = NULL;
    EVP_PKEY *key = NULL;
    bool fine = false;

    file_of(config, "certificates", host, ".pem", &path);
    file = fopen(buf_cstr(&path), "re");
    if (file == NULL) {
        return ERR_NOT_FOUND;
    }
    cert = PEM_read_X509(file, NULL, NULL, NULL);
    rewind(file);
    key = PEM_read_PrivateKey(file, NULL, NULL, base_unconst(""));
    fine = cert != NULL && key != NULL && X509_check_private_key(cert, key) == 1 &&
           X509_check_host(cert, host, 0, 0, NULL) == 1 &&
           to_seconds(X509_get0_notBefore(cert), &dates.not_before_s) &&
           to_seconds(X509_get0_notAfter(cert), &dates.not_after_s) &&
           dates.not_after_s > dates.not_before_s;
    ERR_clear_error();
    X509_free(cert);
    EVP_PKEY_free(key);
    (void)fclose(file); /* NOLINT(cert-err33-c): it was only read */
    if (!fine) {
        return ERR_INVALID;
    }
    *dates_out = dates;
    return ERR_OK;
}

/* ---- notes ----------------------------------------------------------------------------------- */

struct acme_note acme_folder_note(const struct config *config, const char *host)
{
    CLEANUP(buf_deinit) struct buf path = { 0 };
    struct acme_note note = { 0 };
    json_t *root = NULL;
    json_int_t failures = 0;
    json_int_t again = 0;

    file_of(config, "notes", host, ".json", &path);
    root = json_load_file(buf_cstr(&path), JSON_REJECT_DUPLICATES, NULL);
    if (root != NULL &&
        json_unpack(root, "{s:I, s:I}", "failures", &failures, "again_at", &again) == 0 &&
        failures > 0 && again > 0) {
        note.failures = (unsigned)MIN(failures, FAILURES_MAX);
        note.again_at_s = again;
    }
    json_decref(root);
    return note;
}

enum err acme_folder_set_note(const struct config *config, const char *host, struct acme_note note)
{
    CLEANUP(buf_deinit) struct buf path = { 0 };
    CLEANUP(buf_deinit) struct buf fresh = { 0 };
    char text[96];
    int n = snprintf(text, sizeof(text), "{\"failures\": %u, \"again_at\": %lld}\n", note.failures,
                     (long long)note.again_at_s);
    bool written = false;
    int fd = -1;

    file_of(config, "notes", host, ".json", &path);
    file_of(config, "notes", host, ".new", &fresh);
    if (note.failures == 0) {
        return unlink(buf_cstr(&path)) == 0 || errno == ENOENT ? ERR_OK : ERR_IO;
    }
    fd = open(buf_cstr(&fresh), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC | O_NOFOLLOW, 0600);
    if (fd < 0) {
        return ERR_IO;
    }
    written = write(fd, text, (size_t)n) == n;
    written = close(fd) == 0 && written;
    return written && rename(buf_cstr(&fresh), buf_cstr(&path)) == 0 ? ERR_OK : ERR_IO;
}
