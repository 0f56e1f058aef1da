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

/* --- life ---------------------------------------------------------------------------------------- */

static struct config_stock *stock_new(void)
{
    struct config_stock *stock = MEM_NEW(struct config_stock);

    atomic_init(&stock->refs, 1);
    arena_init(&stock->arena);
    return stock;
}

static void stock_unref(struct config_stock **stock)
{
    struct config_stock *s = TAKE(*stock);

    if (s != NULL && atomic_fetch_sub(&s->refs, 1) == 1) {
        arena_deinit(&s->arena);
        mem_free(&s);
    }
}

/* before: whose routes will be taken over; NULL: nobody's. */
static struct config_box *box_new(const struct config_opts *opts, const struct config_box *before)
{
    struct config_box *box = MEM_NEW(struct config_box);
    size_t n = before == NULL ? 0 : before->n_stocks;

    atomic_init(&box->refs, 1);
    /* NOLINTNEXTLINE(bugprone-sizeof-expression): an array of pointers */
    box->stocks = mem_array(n + 1, sizeof(*box->stocks));
    for (size_t i = 0; i < n; i++) {
        box->stocks[i] = before->stocks[i];
        (void)atomic_fetch_add(&box->stocks[i]->refs, 1);
    }
    box->stocks[n] = stock_new();
    box->n_stocks = n + 1;
    box->env = opts->env;
    box->by_id = map_new();
    box->config.self = &box->config;
    box->config.part = opts->part;
    return box;
}

static struct arena *own_arena(struct config_box *box)
{
    return &box->stocks[box->n_stocks - 1]->arena;
}

static void docs_free(struct config_box *box)
{
    for (size_t i = 0; i < box->n_docs; i++) {
        yaml_doc_free(&box->docs[i]);
    }
    box->n_docs = 0;
}

static void box_free(struct config_box *box)
{
    struct config *c = &box->config;

    secret_free(&c->shared_secret);
    secret_free(&c->shared_secret_previous);
    secret_free(&c->databroker_encryption_key);
    secret_free(&c->databroker_encryption_key_previous);
    secret_free(&c->signing_key);
    secret_free(&c->idp_client_secret);
    secret_free(&c->certificate_key_pem);
    secret_free(&c->autocert_eab_mac_key);
    secret_free(&c->databroker_storage_connection_string);
    secret_free(&c->audit.otlp_headers);
    for (size_t i = 0; i < c->n_issuers; i++) {
        secret_free(&c->issuers[i].api_token);
    }
    for (size_t i = 0; i < c->n_certificates; i++) {
        keypair_unref(&c->certificates[i].pair);
    }
    for (size_t i = 0; i < c->n_sources; i++) {
        secret_free(&c->sources[i].headers);
    }
    for (size_t i = 0; i < c->n_routes; i++) {
        config_route_deinit(&c->routes[i]);
    }
    mem_free(&c->routes);
    keys_free(&c->keys);
    map_free(&box->by_id);
    docs_free(box);
    config_layout_free(&box->layout);
    for (size_t i = 0; i < box->n_stocks; i++) {
        stock_unref(&box->stocks[i]);
    }
    mem_free(&box->stocks);
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

/* What is wrong with a splice is for nobody's eyes: the file is read whole then. */
static void give_up_splice(struct config_reader *r)
{
    config_error(r, (struct config_place){ r->c->file.p, 0, 0 }, "it has to be read whole");
}

static void read_all(struct config_reader *r, struct sv text, bool has_file)
{
    bool *given = mem_array(config_rows_global.n, sizeof(bool));
    bool *env = mem_array(config_rows_global.n, sizeof(bool));
    const struct yaml_doc *doc = NULL;

    config_read_defaults(r, &config_rows_global, r->c);
    config_read_defaults(r, &config_rows_limits, &r->c->limits);
    config_read_defaults(r, &config_rows_mtls, &r->c->downstream_mtls);
    config_read_defaults(r, &config_rows_audit, &r->c->audit);
    config_read_env(r, &config_rows_global, r->c, given, env);
    config_read_mtls_env(r);
    config_read_audit_env(r);
    if (has_file) {
        struct config_place place = { r->c->file.p, 0, 0 };

        doc = config_document(r, text, r->c->file.p, place);
        r->document = doc;
        if (doc != NULL && r->splice != NULL && !config_splice_fits(r->splice, doc)) {
            give_up_splice(r);
            doc = NULL;
        }
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

    list->v = arena_zalloc(r->arena, (r->files->n + 1) * sizeof(struct sv));
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

/* text: NULL where there is no file. why: it could not be read; NULL: it was. splice: NULL: it is read
 * whole. */
struct source {
    const struct sv *text;
    const char *why;
    struct config_splice *splice;
};

static void read_source(struct config_reader *r, const struct source *from)
{
    if (from->why != NULL) {
        config_error(r, (struct config_place){ r->c->file.p, 0, 0 }, "cannot read it: %s",
                     from->why);
        return;
    }
    if (from->text == NULL) {
        read_all(r, SV(""), false);
        return;
    }
    CHECK(EVP_DigestUpdate(r->sum, from->text->p, from->text->n) == 1);
    read_all(r, r->splice == NULL ? *from->text : buf_sv(&r->splice->rest), true);
}

/* Policies depend on whether any route asks for certificates, relative names on where we are. */
static void compare(struct config_reader *r)
{
    const struct config *before = &r->splice->before->config;

    if (r->c->asks_client_cert != before->asks_client_cert ||
        !sv_eq(r->c->folder, before->folder)) {
        give_up_splice(r);
    }
}

/* The trees of the files are for policies, which others do not compile. */
static void drop_documents(struct config_box *box)
{
    struct config *c = &box->config;

    if (c->part == CONFIG_PART_NONE || c->part == CONFIG_PART_AUTHORIZE) {
        return;
    }
    for (size_t i = 0; i < c->n_routes; i++) {
        c->routes[i].json = NULL;
        c->routes[i].doc = NULL;
    }
    c->policies = NULL;
    c->policies_doc = NULL;
    docs_free(box);
}

static void freeze(struct config_reader *r, const struct source *from)
{
    struct config_box *box = r->box;

    if (from->text != NULL) {
        box->layout = config_layout_new(r, *from->text, r->document);
    }
    box->whole_bytes = r->splice == NULL ? own_arena(box)->total : r->splice->before->whole_bytes;
    drop_documents(box);
}

static void reader_deinit(struct config_reader *r)
{
    map_free(&r->pairs);
    mem_free(&r->route_given);
    mem_free(&r->again);
    mem_free(&r->taken);
}

static enum err read_once(const struct config_opts *opts, const struct source *from,
                          struct config **config_out, struct config_errors **errors_out,
                          struct config_files *files, char sum_out[17])
{
    struct config_box *box = box_new(opts, from->splice == NULL ? NULL : from->splice->before);
    struct config_reader r = { .opts = opts,
                               .box = box,
                               .c = &box->config,
                               .arena = own_arena(box),
                               .splice = from->splice,
                               .errors = config_errors_new(),
                               .files = files,
                               .sum = EVP_MD_CTX_new() };

    *errors_out = NULL;
    box->config.file = opts->file == NULL ? SV("") : config_keep(&r, sv_from(opts->file));
    CHECK(r.sum != NULL && EVP_DigestInit_ex(r.sum, EVP_sha256(), NULL) == 1);
    set_folder(&r);
    read_source(&r, from);
    if (r.splice != NULL) {
        compare(&r);
    }
    finish_sum(&r, sum_out);
    memcpy(box->config.checksum, sum_out, sizeof(box->config.checksum));
    keep_files(&r);
    if (config_errors_count(r.errors) != 0) {
        config_errors_sort(r.errors);
        *errors_out = r.errors;
        reader_deinit(&r);
        box_free(box);
        return from->why == NULL ? ERR_INVALID : ERR_IO;
    }
    freeze(&r, from);
    reader_deinit(&r);
    config_errors_free(&r.errors);
    *config_out = &box->config;
    return ERR_OK;
}

/* Whether routes may be taken over from the configuration before at all. Each splice leaves a little
 * behind that only a whole reading clears away. */
static bool may_splice(const struct config_opts *opts, const struct source *from)
{
    enum { SPARE_BYTES = 1024 * 1024 };
    const struct config_box *before = opts->previous == NULL ? NULL : box_of(opts->previous);
    size_t bytes = 0;

    if (before == NULL || from->why != NULL || opts->file == NULL ||
        before->config.part != opts->part || before->env != opts->env ||
        !sv_eq(before->config.file, sv_from(opts->file))) {
        return false;
    }
    for (size_t i = 0; i < before->n_stocks; i++) {
        bytes += before->stocks[i]->arena.total;
    }
    return bytes <= 2 * before->whole_bytes + SPARE_BYTES;
}

static bool load_spliced(const struct config_opts *opts, const struct source *from,
                         struct config **config_out, struct config_files *files, char sum_out[17])
{
    struct config_splice splice;
    struct source spliced = { .text = from->text, .splice = &splice };
    struct config_files opened = { 0 };
    struct config_errors *errors = NULL;
    bool done = false;

    if (from->text == NULL || !may_splice(opts, from)) {
        return false;
    }
    for (size_t i = 0; i < files->n; i++) {
        config_files_add(&opened, files->v[i]);
    }
    done = config_splice_plan(box_of(opts->previous), *from->text, &splice) &&
           read_once(opts, &spliced, config_out, &errors, &opened, sum_out) == ERR_OK;
    if (done) {
        config_files_deinit(files);
        *files = opened;
        opened = (struct config_files){ 0 };
    }
    config_errors_free(&errors);
    config_files_deinit(&opened);
    config_splice_deinit(&splice);
    return done;
}

static enum err load(const struct config_opts *opts, struct source from, struct config **config_out,
                     struct config_errors **errors_out, struct config_files *files,
                     char sum_out[17])
{
    *errors_out = NULL;
    if (load_spliced(opts, &from, config_out, files, sum_out)) {
        return ERR_OK;
    }
    return read_once(opts, &from, config_out, errors_out, files, sum_out);
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
        return load(opts, (struct source){ NULL, NULL, NULL }, config_out, errors_out, files,
                    sum_out);
    }
    config_files_add(files, opts->file);
    err = config_file_read(opts->file, CONFIG_FILE_MAX, &text, &why);
    bytes = buf_sv(&text);
    err = load(opts, (struct source){ &bytes, err == ERR_OK ? NULL : why, NULL }, config_out,
               errors_out, files, sum_out);
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
    enum err err =
        load(opts, (struct source){ &text, NULL, NULL }, config_out, errors_out, &files, sum);

    config_files_deinit(&files);
    return err;
}

/* --- looking up ---------------------------------------------------------------------------------- */

const struct config_route *config_route_by_id(const struct config *config, uint64_t id)
{
    return map_get(box_of(config)->by_id, sv_of(&id, sizeof(id)));
}

enum { NAMES_OF_ROUTE = 3 };

static struct sv name_of_route(const struct config_route *route, int way)
{
    switch (way) {
    case 0:
        return route->id_text;
    case 1:
        return route->name;
    default:
        return route->from;
    }
}

/* The first from place on that goes by name in this way. */
static const struct config_route *next_named(const struct config *config, size_t place, int way,
                                             struct sv name)
{
    for (size_t i = place; i < config->n_routes; i++) {
        if (sv_eq(name_of_route(&config->routes[i], way), name)) {
            return &config->routes[i];
        }
    }
    return NULL;
}

enum err config_route_named(const struct config *config, struct sv name,
                            const struct config_route **route_out, struct diag *d)
{
    const struct config_route *first = NULL;
    const struct config_route *second = NULL;
    int n = (int)MIN(name.n, (size_t)100);

    while (name.n > 0 && name.p[name.n - 1] == '/') {
        name.n--;
    }
    for (int way = 0; way < NAMES_OF_ROUTE && first == NULL && name.n != 0; way++) {
        first = next_named(config, 0, way, name);
        second = first == NULL ? NULL : next_named(config, first->index + 1, way, name);
    }
    if (first == NULL) {
        diag_set(d, "no route has the id, the name or the `from` \"%.*s\"", n,
                 name.p == NULL ? "" : name.p);
        return ERR_NOT_FOUND;
    }
    if (second != NULL) {
        diag_set(
            d,
            "several routes go by \"%.*s\", two of them with the ids %s (line %d) and %s (line "
            "%d): give the id",
            n, name.p, first->id_text.p, first->line, second->id_text.p, second->line);
        return ERR_INVALID;
    }
    *route_out = first;
    return ERR_OK;
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
