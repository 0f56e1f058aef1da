#include "common/config/reader.h"
#include "common/mem.h"

static bool wants_keys(const struct config_reader *r)
{
    return r->opts->part == CONFIG_PART_PROXY || r->opts->part == CONFIG_PART_NONE;
}

static bool read_pem_member(struct config_reader *r, const struct config_value *v, struct sv *name,
                            struct sv *text_out)
{
    return config_want_text(r, v, name) &&
           (!wants_keys(r) || config_read_file(r, v, *name, (size_t)1024 * 1024, text_out));
}

/* One {cert, key}. */
static bool read_one(struct config_reader *r, const struct config_value *item,
                     struct config_certificate *out)
{
    struct config_value cert = { 0 };
    struct config_value key = { 0 };
    struct sv name = { 0 };
    struct sv key_text = { 0 };
    void *it = NULL;

    for (it = json_object_iter(item->json); it != NULL;
         it = json_object_iter_next(item->json, it)) {
        struct config_value v =
            config_member(item, json_object_iter_key(it), json_object_iter_value(it));
        struct sv known = sv_from(v.key);

        if (sv_eq(known, SV("cert")) || sv_eq(known, SV("cert_file"))) {
            cert = v;
        } else if (sv_eq(known, SV("key")) || sv_eq(known, SV("key_file"))) {
            key = v;
        } else {
            config_error(r, v.place,
                         "unknown setting of a certificate \"%s\"; there are \"cert\" and "
                         "\"key\"",
                         v.key);
        }
    }
    if (cert.json == NULL || key.json == NULL) {
        config_error(r, item->place,
                     "a certificate is a mapping with \"cert\" and \"key\", two files");
        return false;
    }
    if (!read_pem_member(r, &cert, &name, &out->cert_pem)) {
        return false;
    }
    out->cert_file = config_path(r, name);
    if (!read_pem_member(r, &key, &name, &key_text)) {
        return false;
    }
    if (!wants_keys(r)) {
        return true;
    }
    if (!config_pem_certs(r, &cert, out->cert_pem) ||
        !config_pem_pair(r, &cert, out->cert_pem, key_text)) {
        return false;
    }
    out->key_pem = secret_new(key_text);
    return true;
}

void config_read_certificates(struct config_reader *r, const struct config_value *v, void *base)
{
    struct config *c = base;
    size_t n = json_array_size(v->json);

    if (!json_is_array(v->json) || n > CONFIG_LIST_MAX) {
        config_error(r, v->place, "%s: expected a list of mappings with \"cert\" and \"key\"",
                     v->key);
        return;
    }
    c->certificates = arena_zalloc(&r->box->arena, (n + 1) * sizeof(struct config_certificate));
    for (size_t i = 0; i < n; i++) {
        struct config_value item = config_item(v, i);

        if (read_one(r, &item, &c->certificates[c->n_certificates])) {
            c->n_certificates++;
        }
    }
}
