#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <openssl/evp.h>

#include "common/config/file.h"
#include "common/config/reader.h"
#include "common/mem.h"

static struct config_box *box_of(const struct config *config)
{
    return CONTAINER_OF(config->self, struct config_box, config);
}

static void box_free(struct config_box *box)
{
    struct config *c = &box->config;

    secret_free(&c->shared_secret);
    secret_free(&c->shared_secret_previous);
    secret_free(&c->signing_key);
    secret_free(&c->idp_client_secret);
    secret_free(&c->certificate_key_pem);
    secret_free(&c->autocert_eab_mac_key);
    for (size_t i = 0; i < c->n_certificates; i++) {
        keypair_unref(&c->certificates[i].pair);
    }
    for (size_t i = 0; i < c->n_routes; i++) {
        secret_free(&c->routes[i].tls_client_key);
        keypair_unref(&c->routes[i].client_pair);
    }
    for (size_t i = 0; i < c->n_routes; i++) {
        pattern_unref(&c->routes[i].regex);
        pattern_unref(&c->routes[i].rewrite);
        pattern_unref(&c->routes[i].host_rewrite_path);
        secret_free(&c->routes[i].kubernetes_token);
    }
    keys_free(&c->keys);
    map_free(&box->by_id);
    for (size_t i = 0; i < box->n_docs; i++) {
        yaml_doc_free(&box->docs[i]);
    }
    arena_deinit(&box->arena);
    mem_free(&box);
}

struct config *config_ref(const struct config *config)
{
    struct config_box *box = box_of(config);

    (void)atomic_fetch_add(&box->refs, 1);
    return &box->config;
}

void config_unref(struct config **config)
{
    struct config *c = TAKE(*config);

    if (c != NULL && atomic_fetch_sub(&box_of(c)->refs, 1) == 1) {
        box_free(box_of(c));
    }
}

const char *config_part_name(enum config_part part)
{
    static const char *const names[] = { "postern",   "proxy",      "authenticate",
                                         "authorize", "databroker", "acme" };

    return names[part];
}

/* --- reading ------------------------------------------------------------------------------------- */

/* The folder that relative names count from: the one of the file as it was named, not of what a
 * symbolic link leads to. */
static void set_folder(struct config_reader *r)
{
    char here[PATH_MAX] = "/";
    struct sv file = sv_from(r->opts->file);
    size_t slash = sv_rfind(file, '/');
    struct sv folder = slash == SIZE_MAX ? SV("") : sv_head(file, slash);
    struct buf b;

    if (getcwd(here, sizeof(here)) == NULL) {
        here[0] = '\0';
    }
    buf_init(&b, 2 * (size_t)PATH_MAX);
    if (slash != 0 && !sv_starts(folder, SV("/"))) {
        buf_add_str(&b, here);
        if (folder.n != 0 && !sv_eq(folder, SV("."))) {
            buf_add_char(&b, '/');
            buf_add_sv(&b, folder);
        }
    } else {
        buf_add_sv(&b, folder);
    }
    r->c->folder = config_keep(r, buf_sv(&b));
    buf_deinit(&b);
}

static void read_all(struct config_reader *r, struct sv text, bool has_file)
{
    bool *given = mem_array(config_rows_global.n, sizeof(bool));
    bool *env = mem_array(config_rows_global.n, sizeof(bool));
    const struct yaml_doc *doc = NULL;

    config_read_defaults(r, &config_rows_global, r->c);
    config_read_defaults(r, &config_rows_limits, &r->c->limits);
    config_read_defaults(r, &config_rows_mtls, &r->c->downstream_mtls);
    config_read_env(r, &config_rows_global, r->c, given, env);
    config_read_mtls_env(r);
    if (has_file) {
        struct config_place place = { r->c->file.p, 0, 0 };

        doc = config_document(r, text, r->c->file.p, place);
        if (doc != NULL && !yaml_is_empty(doc)) {
            struct config_value root = { yaml_root(doc), doc, { r->c->file.p, 1, 1 }, "file" };

            config_read_object(r, &config_rows_global, &root, r->c, given, env);
        }
    }
    if (!has_file || doc != NULL) {
        config_finish_routes(r);
        config_check(r, given);
    }
    mem_free(&given);
    mem_free(&env);
}

static void keep_files(struct config_reader *r)
{
    struct config_strings *list = &r->c->files;

    list->v = arena_zalloc(&r->box->arena, (r->files->n + 1) * sizeof(struct sv));
    for (size_t i = 0; i < r->files->n; i++) {
        list->v[list->n++] = config_keep(r, sv_from(r->files->v[i]));
    }
}

static void finish_sum(struct config_reader *r, char sum_out[17])
{
    uint8_t sum[EVP_MAX_MD_SIZE];

    CHECK(EVP_DigestFinal_ex(r->sum, sum, NULL) == 1);
    EVP_MD_CTX_free(r->sum);
    for (size_t i = 0; i < 8; i++) {
        (void)snprintf(sum_out + 2 * i, 3, "%02x", sum[i]);
    }
}

/* text: NULL where there is no file. why: it could not be read; NULL: it was. */
struct source {
    const struct sv *text;
    const char *why;
};

static void sum_text(struct config_reader *r, const struct sv *text)
{
    if (text != NULL) {
        CHECK(EVP_DigestUpdate(r->sum, text->p, text->n) == 1);
    }
}

static enum err load(const struct config_opts *opts, struct source from, struct config **config_out,
                     struct config_errors **errors_out, struct config_files *files,
                     char sum_out[17])
{
    struct config_box *box = MEM_NEW(struct config_box);
    struct config_reader r = { .opts = opts,
                               .box = box,
                               .c = &box->config,
                               .errors = config_errors_new(),
                               .files = files,
                               .sum = EVP_MD_CTX_new() };

    *errors_out = NULL;
    atomic_init(&box->refs, 1);
    arena_init(&box->arena);
    box->by_id = map_new();
    box->config.self = &box->config;
    box->config.part = opts->part;
    box->config.file = opts->file == NULL ? SV("") : config_keep(&r, sv_from(opts->file));
    CHECK(r.sum != NULL && EVP_DigestInit_ex(r.sum, EVP_sha256(), NULL) == 1);
    set_folder(&r);
    if (from.why != NULL) {
        config_error(&r, (struct config_place){ box->config.file.p, 0, 0 }, "cannot read it: %s",
                     from.why);
    } else {
        sum_text(&r, from.text);
        read_all(&r, from.text == NULL ? SV("") : *from.text, from.text != NULL);
    }
    map_free(&r.pairs);
    finish_sum(&r, sum_out);
    memcpy(box->config.checksum, sum_out, sizeof(box->config.checksum));
    keep_files(&r);
    if (config_errors_count(r.errors) != 0) {
        config_errors_sort(r.errors);
        *errors_out = r.errors;
        box_free(box);
        return from.why == NULL ? ERR_INVALID : ERR_IO;
    }
    config_errors_free(&r.errors);
    *config_out = &box->config;
    return ERR_OK;
}

enum err config_load_tracked(const struct config_opts *opts, struct config **config_out,
                             struct config_errors **errors_out, struct config_files *files,
                             char sum_out[17])
{
    struct buf text;
    struct sv bytes = { 0 };
    const char *why = NULL;
    enum err err = ERR_OK;

    if (opts->file == NULL) {
        return load(opts, (struct source){ NULL, NULL }, config_out, errors_out, files, sum_out);
    }
    config_files_add(files, opts->file);
    err = config_file_read(opts->file, CONFIG_FILE_MAX, &text, &why);
    bytes = buf_sv(&text);
    err = load(opts, (struct source){ &bytes, err == ERR_OK ? NULL : why }, config_out, errors_out,
               files, sum_out);
    if (text.p != NULL) {
        secret_wipe(text.p, text.n);
    }
    buf_deinit(&text);
    return err;
}

enum err config_load(const struct config_opts *opts, struct config **config_out,
                     struct config_errors **errors_out)
{
    struct config_files files = { 0 };
    char sum[17];
    enum err err = config_load_tracked(opts, config_out, errors_out, &files, sum);

    config_files_deinit(&files);
    return err;
}

enum err config_parse(struct sv text, const struct config_opts *opts, struct config **config_out,
                      struct config_errors **errors_out)
{
    struct config_files files = { 0 };
    char sum[17];
    enum err err = load(opts, (struct source){ &text, NULL }, config_out, errors_out, &files, sum);

    config_files_deinit(&files);
    return err;
}

/* --- looking up ---------------------------------------------------------------------------------- */

const struct config_route *config_route_by_id(const struct config *config, uint64_t id)
{
    return map_get(box_of(config)->by_id, sv_of(&id, sizeof(id)));
}

bool config_has_host(const struct config *config, struct sv host, uint16_t port)
{
    const struct config_url *authn = &config->authenticate_service_url;

    if (authn->scheme != CONFIG_SCHEME_NONE && sv_eq(authn->host, host) && authn->port == port) {
        return true;
    }
    for (size_t i = 0; i < config->n_routes; i++) {
        const struct config_route *route = &config->routes[i];

        if ((route->port == 0 || route->port == port) && config_route_has_host(route, host)) {
            return true;
        }
    }
    return false;
}
