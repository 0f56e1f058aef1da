#include "common/config/reader.h"

#include <ctype.h>
#include <string.h>

#include <openssl/evp.h>

#include "common/config/file.h"
#include "common/mem.h"

enum { KEY_MAX = 128, VALUE_MAX = 1024 * 1024, CRL_MAX = 16 * 1024 * 1024 };

void config_files_add(struct config_files *files, const char *name)
{
    files->n_asked++;
    if (files->known == NULL) {
        files->known = map_new();
    }
    if (map_get(files->known, sv_from(name)) != NULL) {
        return;
    }
    if (files->n == files->cap) {
        files->cap = files->cap == 0 ? 16 : files->cap * 2;
        files->v = mem_realloc(files->v, files->cap, sizeof(char *));
    }
    files->v[files->n] = mem_strdup(name);
    (void)map_set(files->known, sv_from(name), files->v[files->n]);
    files->n++;
}

void config_files_deinit(struct config_files *files)
{
    for (size_t i = 0; i < files->n; i++) {
        mem_free(&files->v[i]);
    }
    mem_free(&files->v);
    map_free(&files->known);
    *files = (struct config_files){ 0 };
}

struct sv config_keep(struct config_reader *r, struct sv s)
{
    return arena_sv(r->arena, s);
}

struct sv config_path(struct config_reader *r, struct sv path)
{
    struct buf b;
    struct sv kept = { 0 };

    if (sv_starts(path, SV("/"))) {
        return config_keep(r, path);
    }
    buf_init(&b, SIZE_MAX / 2);
    buf_add_sv(&b, r->c->folder);
    buf_add_char(&b, '/');
    buf_add_sv(&b, path);
    kept = config_keep(r, buf_sv(&b));
    buf_deinit(&b);
    return kept;
}

void config_forget(struct buf *text)
{
    if (text->p != NULL) {
        secret_wipe(text->p, text->n);
    }
    buf_deinit(text);
}

bool config_read_secret_file(struct config_reader *r, const struct config_value *v, struct sv path,
                             size_t max, struct buf *text)
{
    struct sv absolute = config_path(r, path);
    const char *why = "";
    enum err err = config_file_read(absolute.p, max, text, &why);

    config_files_add(r->files, absolute.p);
    if (err != ERR_OK) {
        config_error(r, v->place, "%s: cannot read %s: %s", v->key, absolute.p, why);
        buf_deinit(text);
        return false;
    }
    CHECK(EVP_DigestUpdate(r->sum, absolute.p, absolute.n + 1) == 1);
    CHECK(EVP_DigestUpdate(r->sum, text->p, text->n) == 1);
    CHECK(EVP_DigestUpdate(r->sum, "", 1) == 1);
    return true;
}

bool config_read_file(struct config_reader *r, const struct config_value *v, struct sv path,
                      size_t max, struct sv *text_out)
{
    struct buf text;

    if (!config_read_secret_file(r, v, path, max, &text)) {
        return false;
    }
    *text_out = config_keep(r, buf_sv(&text));
    config_forget(&text);
    return true;
}

const struct yaml_doc *config_document(struct config_reader *r, struct sv text, const char *file,
                                       struct config_place place)
{
    const struct config_splice *s =
        r->splice != NULL && text.p == r->splice->rest.p ? r->splice : NULL;
    struct diag d = { 0 };
    struct yaml_doc *doc = NULL;

    if (r->box->n_docs == CONFIG_DOCS_MAX) {
        config_error(r, place, "there are too many documents");
        return NULL;
    }
    if (yaml_parse_gaps(text, file, s == NULL ? NULL : s->gaps, s == NULL ? 0 : s->n_gaps, &doc,
                        &d) != ERR_OK) {
        config_error_diag(r, place, &d);
        return NULL;
    }
    r->box->docs[r->box->n_docs++] = doc;
    return doc;
}

static void set_place(struct config_value *v, struct yaml_pos pos)
{
    if (pos.line != 0) {
        v->place.line = pos.line;
        v->place.column = pos.column;
    }
}

struct config_value config_member(const struct config_value *object, const char *key, json_t *json)
{
    struct config_value v = *object;

    v.json = json;
    v.key = key;
    if (object->doc != NULL) {
        set_place(&v, yaml_member_pos(object->doc, object->json, key));
    }
    return v;
}

struct config_value config_item(const struct config_value *array, size_t i)
{
    struct config_value v = *array;

    v.json = json_array_get(array->json, i);
    if (array->doc != NULL) {
        set_place(&v, yaml_item_pos(array->doc, array->json, i));
    }
    return v;
}

bool config_is_others(const struct config_reader *r, const struct config_row *row)
{
    static const struct {
        unsigned flag;
        enum config_part part;
    } owners[] = {
        { CFG_ONLY_PROXY, CONFIG_PART_PROXY },      { CFG_ONLY_AUTHN, CONFIG_PART_AUTHENTICATE },
        { CFG_ONLY_ACME, CONFIG_PART_ACME },        { CFG_ONLY_AUDIT, CONFIG_PART_AUTHORIZE },
        { CFG_ONLY_AUDIT, CONFIG_PART_DATABROKER }, { CFG_ONLY_BROKER, CONFIG_PART_DATABROKER }
    };

    bool owned = false;

    for (size_t i = 0; i < ARRAY_LEN(owners); i++) {
        if ((row->flags & owners[i].flag) != 0) {
            owned = true;
            if (r->opts->part == owners[i].part) {
                return false;
            }
        }
    }
    return owned && r->opts->part != CONFIG_PART_NONE;
}

/* A value that stands in a file of its own is taken as its text. */
void config_read_file_value(struct config_reader *r, const struct config_row *row,
                            const struct config_value *v, void *base)
{
    struct config_value inner = *v;
    struct sv name = { 0 };
    struct sv text = { 0 };
    json_t *json = NULL;

    if (!config_want_text(r, v, &name) || config_is_others(r, row) ||
        !config_read_file(r, v, name, row->type == CFG_CRL ? CRL_MAX : VALUE_MAX, &text)) {
        return;
    }
    text = sv_trim(text);
    while (text.n != 0 && (text.p[text.n - 1] == '\n' || text.p[text.n - 1] == '\r')) {
        text.n--;
    }
    json = json_stringn(text.p, text.n);
    if (json == NULL) {
        config_error(r, v->place, "%s: what the file holds is not UTF-8 text", v->key);
        return;
    }
    inner.json = json;
    inner.doc = NULL;
    (void)config_read_value(r, row, &inner, base);
    json_decref(json);
}

static void report_unknown(struct config_reader *r, const struct config_rows *rows,
                           const struct config_value *v)
{
    bool is_file = false;
    struct sv name = sv_from(v->key);
    const char *near = config_rows_nearest(rows, name);
    const struct config_rows *other =
        rows == &config_rows_global ? &config_rows_route : &config_rows_global;

    if (name.n > KEY_MAX) {
        name = sv_head(name, KEY_MAX);
    }
    if (config_rows_find(other, name, &is_file) != NULL) {
        config_error(r, v->place, "\"%.*s\" is a %s, not a %s", SV_ARG(name), other->what,
                     rows->what);
    } else if (near != NULL) {
        config_error(r, v->place, "unknown %s \"%.*s\"; did you mean \"%s\"?", rows->what,
                     SV_ARG(name), near);
    } else {
        config_error(r, v->place, "unknown %s \"%.*s\"", rows->what, SV_ARG(name));
    }
}

/* False: reported, or nothing to read. */
static bool row_is_readable(struct config_reader *r, const struct config_row *row,
                            const struct config_value *v)
{
    if (row->type == CFG_UNSUPPORTED) {
        config_error(r, v->place, "\"%s\" is a setting of Pomerium that Postern does not have yet",
                     v->key);
        return false;
    }
    if (row->type == CFG_REMOVED) {
        config_error(r, v->place, "\"%s\" does not exist here: %s", v->key, row->doc);
        return false;
    }
    return row->type != CFG_IGNORED;
}

static void read_member(struct config_reader *r, const struct config_rows *rows,
                        const struct config_value *v, void *base, bool *given, const bool *env)
{
    bool is_file = false;
    const struct config_row *row = config_rows_find(rows, sv_from(v->key), &is_file);
    size_t i = 0;

    if (row == NULL) {
        report_unknown(r, rows, v);
        return;
    }
    i = (size_t)(row - rows->v);
    if (!row_is_readable(r, row, v) || (env != NULL && env[i])) {
        return;
    }
    if (given != NULL && given[i]) {
        config_error(r, v->place, "\"%s\" is given twice, in two spellings", row->name);
        return;
    }
    if (json_is_null(v->json)) {
        return;
    }
    if (given != NULL) {
        given[i] = true;
    }
    if (is_file) {
        config_read_file_value(r, row, v, base);
    } else {
        (void)config_read_value(r, row, v, base);
    }
}

void config_read_object(struct config_reader *r, const struct config_rows *rows,
                        const struct config_value *object, void *base, bool *given, const bool *env)
{
    void *it = NULL;
    size_t index = 0;

    if (!json_is_object(object->json)) {
        config_error(r, object->place, "expected a mapping of settings");
        return;
    }
    for (it = json_object_iter(object->json); it != NULL;
         it = json_object_iter_next(object->json, it)) {
        struct config_value v = *object;

        v.json = json_object_iter_value(it);
        v.key = json_object_iter_key(it);
        if (object->doc != NULL) { /* jansson keeps the order of the file */
            set_place(&v, yaml_item_pos(object->doc, object->json, index++));
        }
        read_member(r, rows, &v, base, given, env);
    }
    for (size_t i = 0; given != NULL && i < rows->n; i++) {
        if ((rows->v[i].flags & CFG_REQUIRED) != 0 && !given[i]) {
            config_error(r, object->place, "\"%s\" is missing", rows->v[i].name);
        }
    }
}

void config_read_defaults(struct config_reader *r, const struct config_rows *rows, void *base)
{
    for (size_t i = 0; i < rows->n; i++) {
        const struct config_row *row = &rows->v[i];
        struct config_value v = { .key = row->name, .place = { .file = "default" } };
        json_t *json = NULL;

        if (row->offset == SIZE_MAX) {
            continue;
        }
        switch ((int)row->type) {
        case CFG_BOOL:
            *(bool *)((char *)base + row->offset) = row->def != 0;
            break;
        case CFG_NUMBER:
            *(uint16_t *)(void *)((char *)base + row->offset) = (uint16_t)row->def;
            break;
        case CFG_COUNT:
            *(uint32_t *)(void *)((char *)base + row->offset) = (uint32_t)row->def;
            break;
        case CFG_DURATION:
            *(int64_t *)(void *)((char *)base + row->offset) = row->def;
            break;
        case CFG_ENUM:
            *(int *)(void *)((char *)base + row->offset) = (int)row->def;
            break;
        default:
            if (row->def_text != NULL) {
                json = json_string(row->def_text);
                v.json = json;
                (void)config_read_value(r, row, &v, base);
                json_decref(json);
            }
            break;
        }
    }
}

const char *config_env(const struct config_reader *r, const char *name)
{
    size_t n = strlen(name);

    for (const char *const *e = r->opts->env; e != NULL && *e != NULL; e++) {
        if (strncmp(*e, name, n) == 0 && (*e)[n] == '=') {
            return (*e)[n + 1] == '\0' ? NULL : *e + n + 1;
        }
    }
    return NULL;
}
