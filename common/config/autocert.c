/* Certificates that postern-acme gets: which names need one, and reading those that are there. */
#include <string.h>

#include <openssl/err.h>
#include <openssl/evp.h>
#include <openssl/pem.h>
#include <openssl/x509v3.h>

#include "common/config/file.h"
#include "common/config/reader.h"
#include "common/crypto/stand_in.h"
#include "common/mem.h"

enum { HOST_MAX = 253, PEM_MAX = 1024 * 1024, SERVER_MAX = 200 };

static const char le_url[] = "https://acme-v02.api.letsencrypt.org/directory";
static const char le_staging_url[] = "https://acme-staging-v02.api.letsencrypt.org/directory";

static struct config_place whole(const struct config_reader *r)
{
    return (struct config_place){ r->c->file.n != 0 ? r->c->file.p : "environment", 0, 0 };
}

/* --- rules between the settings ------------------------------------------------------------------ */

/* Each server has its own folders: what staging issued is none of production's. */
static void set_folders(struct config_reader *r)
{
    struct config *c = r->c;
    struct sv server = sv_from_at(c->autocert_ca, sizeof("https://") - 1);
    struct buf name;

    buf_init(&name, SERVER_MAX);
    for (size_t i = 0; i < server.n && name.n < SERVER_MAX; i++) {
        char low =
            (char)(server.p[i] >= 'A' && server.p[i] <= 'Z' ? server.p[i] | 0x20 : server.p[i]);

        buf_add_char(&name, (low >= 'a' && low <= 'z') || (low >= '0' && low <= '9') ||
                                    (low == '.' && name.n != 0)
                                ? low
                                : '-');
    }
    c->autocert_server = config_keep(r, buf_sv(&name));
    buf_deinit(&name);
}

static void check_server(struct config_reader *r)
{
    struct config *c = r->c;

    if (c->autocert_use_staging && c->autocert_ca.n != 0) {
        config_error(r, whole(r),
                     "autocert_use_staging names Let's Encrypt's staging server and autocert_ca "
                     "another one; leave one out");
        return;
    }
    if (c->autocert_ca.n == 0) {
        c->autocert_ca = sv_from(c->autocert_use_staging ? le_staging_url : le_url);
    }
    if (!sv_istarts(c->autocert_ca, SV("https://"))) {
        config_error(r, whole(r), "autocert_ca: ACME is spoken over https only (RFC 8555 6.1)");
        return;
    }
    set_folders(r);
}

static void check_settings(struct config_reader *r)
{
    struct config *c = r->c;

    if (c->insecure_server) {
        config_error(r, whole(r),
                     "autocert gets certificates for TLS, and insecure_server serves without; "
                     "leave one out");
    }
    check_server(r);
    if (sv_search(c->autocert_dir, SV("://")) != SIZE_MAX) {
        config_error(r, whole(r),
                     "autocert_dir: only a folder; one that several machines share can be mounted");
    } else {
        c->autocert_dir = config_path(r, c->autocert_dir);
    }
}

/* --- which names --------------------------------------------------------------------------------- */

/* A name that HTTP-01 and TLS-ALPN-01 can prove: a DNS name in letters, digits and hyphens (RFC 1123),
 * with a dot, no address. It becomes a file's name, so nothing else may pass. */
static bool is_provable(struct sv host)
{
    size_t label = 0;
    bool digits = true; /* of the last label */

    for (size_t i = 0; i < host.n; i++) {
        char c = host.p[i];

        if (c == '.') {
            if (label == 0 || host.p[i - 1] == '-') {
                return false;
            }
            label = 0;
            digits = true;
            continue;
        }
        if (!((c >= 'a' && c <= 'z') || (c >= '0' && c <= '9') || (c == '-' && label != 0))) {
            return false;
        }
        digits = digits && c >= '0' && c <= '9';
        label++;
        if (label > 63) {
            return false;
        }
    }
    return label != 0 && !digits && host.n <= HOST_MAX && host.p[host.n - 1] != '-' &&
           sv_find(host, '.') != SIZE_MAX;
}

static void add_names_of(struct map *names, X509 *leaf)
{
    GENERAL_NAMES *list = X509_get_ext_d2i(leaf, NID_subject_alt_name, NULL, NULL);

    for (int i = 0; i < sk_GENERAL_NAME_num(list); i++) {
        const GENERAL_NAME *name = sk_GENERAL_NAME_value(list, i);

        if (name->type == GEN_DNS) {
            (void)map_set(names,
                          sv_of(ASN1_STRING_get0_data(name->d.dNSName),
                                (size_t)ASN1_STRING_length(name->d.dNSName)),
                          names);
        }
    }
    GENERAL_NAMES_free(list);
}

static void add_names_in(struct map *names, struct sv pem)
{
    BIO *bio = NULL;
    X509 *leaf = NULL;

    if (pem.n == 0) {
        return;
    }
    bio = BIO_new_mem_buf(pem.p, (int)pem.n);
    CHECK(bio != NULL);
    leaf = PEM_read_bio_X509(bio, NULL, NULL, NULL);
    if (leaf != NULL) {
        add_names_of(names, leaf);
    }
    ERR_clear_error();
    X509_free(leaf);
    BIO_free(bio);
}

/* By "*.parent". */
static bool is_covered_by_wildcard(const struct map *names, struct sv host)
{
    char wild[HOST_MAX + 2] = "*";
    size_t dot = sv_find(host, '.');

    if (dot == SIZE_MAX || host.n - dot >= sizeof(wild)) {
        return false;
    }
    memcpy(wild + 1, host.p + dot, host.n - dot);
    return map_get(names, sv_of(wild, host.n - dot + 1)) != NULL;
}

struct names {
    struct map *covered; /* by a configured certificate; with wildcards as they stand in it */
    struct map *seen;
};

static void want(struct config_reader *r, struct names *names, struct sv host, bool wildcard)
{
    struct config *c = r->c;

    if (host.n == 0 || map_get(names->seen, host) != NULL ||
        map_get(names->covered, host) != NULL ||
        (!wildcard && is_covered_by_wildcard(names->covered, host))) {
        return;
    }
    (void)map_set(names->seen, host, names);
    if (!wildcard && is_provable(host)) {
        c->autocert_hosts.v[c->autocert_hosts.n++] = host;
    } else {
        c->autocert_skipped.v[c->autocert_skipped.n++] = host;
    }
}

static void find_hosts(struct config_reader *r)
{
    struct config *c = r->c;
    struct names names = { .covered = map_new(), .seen = map_new() };
    size_t most = c->n_routes + 1;

    c->autocert_hosts.v = arena_zalloc(r->arena, most * sizeof(struct sv));
    c->autocert_skipped.v = arena_zalloc(r->arena, most * sizeof(struct sv));
    for (size_t i = 0; i < c->n_certificates; i++) {
        if (c->certificates[i].pair != NULL) {
            add_names_of(names.covered, keypair_leaf(c->certificates[i].pair));
        } else {
            add_names_in(names.covered, c->certificates[i].cert_pem);
        }
    }
    add_names_in(names.covered, c->certificate_pem); /* acme does not read its key */
    if (c->authenticate_service_url.scheme == CONFIG_SCHEME_HTTPS) {
        want(r, &names, c->authenticate_service_url.host, false);
    }
    for (size_t i = 0; i < c->n_routes; i++) {
        if (c->routes[i].from_https) {
            want(r, &names, c->routes[i].host, c->routes[i].wildcard);
        }
    }
    map_free(&names.covered);
    map_free(&names.seen);
}

/* --- what is there already ----------------------------------------------------------------------- */

/* Chain and key lie in one file, so that a rename replaces both at once. Damage is no mistake of the
 * configuration: postern-acme sees it too and gets another. */
static void take(struct config_reader *r, struct sv text, const char *name)
{
    struct config *c = r->c;
    size_t at = sv_search(text, SV("-----BEGIN PRIVATE KEY-----"));
    struct keypair *pair =
        at == SIZE_MAX ? NULL
                       : config_pem_try_pair(r, sv_head(text, at), sv_from_at(text, at), NULL);

    if (pair != NULL) {
        struct sv kept = config_keep(r, sv_from(name));

        c->certificates[c->n_certificates++] = (struct config_certificate){
            .file = kept.p, .cert_file = kept, .pair = pair, .automatic = true
        };
    }
}

static void read_one(struct config_reader *r, struct sv folder, struct sv host)
{
    const char *why = NULL;
    struct buf name;
    struct buf text;

    buf_init(&name, 8192);
    buf_add_sv(&name, folder);
    buf_add_char(&name, '/');
    buf_add_sv(&name, host);
    buf_add_str(&name, ".pem");
    if (config_file_read(buf_cstr(&name), PEM_MAX, &text, &why) == ERR_OK) {
        CHECK(EVP_DigestUpdate(r->sum, host.p, host.n + 1) == 1);
        CHECK(EVP_DigestUpdate(r->sum, text.p, text.n) == 1);
        take(r, buf_sv(&text), buf_cstr(&name));
    }
    if (text.p != NULL) {
        secret_wipe(text.p, text.n);
    }
    buf_deinit(&text);
    buf_deinit(&name);
}

/* The first certificate is shown to who names an unknown host, so the stand-in is it unless one is
 * configured: no visitor is shown another name's. */
static void stand_in(struct config_reader *r)
{
    struct config *c = r->c;
    const struct config *before = r->opts->previous;
    bool known = before != NULL && before->n_certificates != 0 && before->certificates[0].automatic;

    c->certificates[c->n_certificates++] =
        (struct config_certificate){ .file = c->file.p,
                                     .pair = known ? keypair_ref(before->certificates[0].pair)
                                                   : stand_in_new(),
                                     .automatic = true };
}

/* The watcher looks at the folder, not at each file: a rename into it changes its times. */
static void read_certificates(struct config_reader *r)
{
    struct config *c = r->c;
    struct config_certificate *all =
        arena_zalloc(r->arena, (c->n_certificates + c->autocert_hosts.n + 1) * sizeof(*all));
    struct buf folder;

    if (c->n_certificates != 0) {
        memcpy(all, c->certificates, c->n_certificates * sizeof(*all));
    }
    c->certificates = all;
    if (c->n_certificates == 0) {
        stand_in(r);
    }
    buf_init(&folder, 8192);
    buf_add_sv(&folder, c->autocert_dir);
    buf_add_str(&folder, "/certificates/");
    buf_add_sv(&folder, c->autocert_server);
    config_files_add(r->files, buf_cstr(&folder));
    for (size_t i = 0; i < c->autocert_hosts.n; i++) {
        read_one(r, buf_sv(&folder), c->autocert_hosts.v[i]);
    }
    buf_deinit(&folder);
}

void config_check_autocert(struct config_reader *r)
{
    if (r->c->autocert_must_staple) {
        config_error(
            r, whole(r),
            "autocert_must_staple: such a certificate stops to work when nobody staples an "
            "OCSP response, and Let's Encrypt has issued none since 2025; leave it out");
    }
    if (!r->c->autocert) {
        return;
    }
    check_settings(r);
    find_hosts(r);
    if (r->opts->part == CONFIG_PART_PROXY) {
        read_certificates(r);
    }
}
