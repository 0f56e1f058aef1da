#include "common/config/reader.h"
#include "common/crypto/ocsp.h"
#include "common/mem.h"

static bool wants_keys(const struct config_reader *r)
{
    return r->opts->part == CONFIG_PART_PROXY || r->opts->part == CONFIG_PART_NONE;
}

/* The members of one {cert, key, ocsp}; json NULL: not there. */
struct members {
    struct config_value cert;
    struct config_value key;
    struct config_value ocsp;
};

static void find_members(struct config_reader *r, const struct config_value *item,
                         struct members *out)
{
    void *it = NULL;

    for (it = json_object_iter(item->json); it != NULL;
         it = json_object_iter_next(item->json, it)) {
        struct config_value v =
            config_member(item, json_object_iter_key(it), json_object_iter_value(it));
        struct sv known = sv_from(v.key);

        if (sv_eq(known, SV("cert")) || sv_eq(known, SV("cert_file"))) {
            out->cert = v;
        } else if (sv_eq(known, SV("key")) || sv_eq(known, SV("key_file"))) {
            out->key = v;
        } else if (sv_eq(known, SV("ocsp")) || sv_eq(known, SV("ocsp_file"))) {
            out->ocsp = v;
        } else {
            config_error(r, v.place,
                         "unknown setting of a certificate \"%s\"; there are \"cert\", \"key\" and "
                         "\"ocsp\"",
                         v.key);
        }
    }
}

static struct keypair *read_pair(struct config_reader *r, const struct members *m, struct sv cert,
                                 struct sv key)
{
    struct sv cert_text = { 0 };
    struct buf key_text;
    struct keypair *pair = NULL;

    if (!config_read_file(r, &m->cert, cert, KEYPAIR_TEXT_MAX, &cert_text) ||
        !config_read_secret_file(r, &m->key, key, KEYPAIR_TEXT_MAX, &key_text)) {
        return NULL;
    }
    pair = config_pem_pair(r, &m->cert, cert_text, buf_sv(&key_text));
    config_forget(&key_text);
    return pair;
}

/* A response that does not say good is kept out, and said so where the certificate is used: it is
 * no mistake of the configuration. */
static void read_ocsp(struct config_reader *r, const struct config_value *v,
                      struct config_certificate *out)
{
    struct sv name = { 0 };
    struct sv der = { 0 };
    struct ocsp_times times = { 0 };
    struct diag d = { .line = 0 };
    enum err err = ERR_OK;

    if (!config_want_text(r, v, &name) || !config_read_file(r, v, name, OCSP_FILE_MAX, &der)) {
        return;
    }
    err = ocsp_read(der, out->pair, &times, &d);
    if (err == ERR_INVALID) {
        config_error(r, v->place, "%s: %s", v->key, d.text);
        return;
    }
    out->ocsp = err == ERR_OK ? der : SV("");
    out->ocsp_from_s = times.from_s;
    out->ocsp_ends_s = times.ends_s;
}

static bool read_one(struct config_reader *r, const struct config_value *item,
                     struct config_certificate *out)
{
    struct members m = { .cert = { .json = NULL } };
    struct sv cert = { 0 };
    struct sv key = { 0 };

    find_members(r, item, &m);
    if (m.cert.json == NULL || m.key.json == NULL) {
        config_error(r, item->place,
                     "a certificate is a mapping with \"cert\" and \"key\", two files");
        return false;
    }
    if (!config_want_text(r, &m.cert, &cert) || !config_want_text(r, &m.key, &key)) {
        return false;
    }
    out->file = m.cert.place.file;
    out->line = m.cert.place.line;
    out->column = m.cert.place.column;
    out->cert_file = config_path(r, cert);
    if (r->opts->part == CONFIG_PART_ACME) { /* what it covers needs no other */
        return config_read_file(r, &m.cert, cert, KEYPAIR_TEXT_MAX, &out->cert_pem) &&
               config_pem_certs(r, &m.cert, out->cert_pem);
    }
    if (!wants_keys(r)) {
        return true;
    }
    out->pair = read_pair(r, &m, cert, key);
    if (out->pair != NULL && m.ocsp.json != NULL) {
        read_ocsp(r, &m.ocsp, out);
    }
    return out->pair != NULL;
}

void config_read_certificates(struct config_reader *r, const struct config_value *v, void *base)
{
    struct config *c = base;
    size_t n = json_array_size(v->json);

    if (!json_is_array(v->json)) {
        config_error(r, v->place, "%s: expected a list of mappings with \"cert\" and \"key\"",
                     v->key);
        return;
    }
    if (n > CONFIG_CERTIFICATES_MAX) {
        config_error(r, v->place, "%s: more than %d", v->key, CONFIG_CERTIFICATES_MAX);
        return;
    }
    c->certificates = arena_zalloc(r->arena, (n + 1) * sizeof(struct config_certificate));
    for (size_t i = 0; i < n; i++) {
        struct config_value item = config_item(v, i);

        if (read_one(r, &item, &c->certificates[c->n_certificates])) {
            c->n_certificates++;
        }
    }
}
