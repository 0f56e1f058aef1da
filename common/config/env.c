#include <string.h>

#include <openssl/evp.h>

#include "common/b64.h"
#include "common/config/reader.h"
#include "common/mem.h"

enum { ENV_NAME = 160 };

/* "PREFIX" and the key in upper case and a suffix. */
static void env_name(char out[ENV_NAME], const char *prefix, const char *key, const char *suffix)
{
    size_t n = 0;
    const char *parts[] = { prefix, key, suffix };

    for (size_t i = 0; i < ARRAY_LEN(parts); i++) {
        for (const char *p = parts[i]; *p != '\0' && n < ENV_NAME - 1; p++) {
            out[n++] = (char)((*p >= 'a' && *p <= 'z') ? *p - 'a' + 'A' : *p);
        }
    }
    out[n] = '\0';
}

static bool is_structured(const struct config_row *row)
{
    return row->type == CFG_OBJECT || row->type == CFG_PAIRS || row->type == CFG_HEADERS ||
           row->type == CFG_CLAIM_HEADERS || row->type == CFG_STRINGS || row->type == CFG_TOKENS ||
           row->type == CFG_CIDRS || row->type == CFG_TARGETS;
}

static bool looks_like_json(const char *text)
{
    while (*text == ' ' || *text == '\n' || *text == '\t') {
        text++;
    }
    return *text == '[' || *text == '{';
}

/* Routes come as base64 of YAML or JSON, or as such a text itself. */
static const struct yaml_doc *object_document(struct config_reader *r, const char *text,
                                              struct config_place place)
{
    struct sv from = sv_from(text);
    size_t room = b64_decoded_max(from.n);
    char *bytes = mem_alloc(room + 1);
    size_t n = 0;
    const struct yaml_doc *doc = NULL;

    if (!looks_like_json(text) && b64_decode(from, bytes, room, &n) == ERR_OK) {
        from = sv_of(bytes, n);
    }
    doc = config_document(r, from, place.file, place);
    mem_free(&bytes);
    return doc;
}

static json_t *split(const char *text)
{
    struct sv rest = sv_from(text);
    json_t *list = json_array();

    while (rest.p != NULL) {
        struct sv one = sv_trim(sv_cut(&rest, ','));

        if (one.n != 0) {
            (void)json_array_append_new(list, json_stringn(one.p, one.n));
        }
    }
    return list;
}

static void read_text(struct config_reader *r, const struct config_row *row, const char *text,
                      struct config_value *v, void *base)
{
    json_t *own = NULL;

    if (row->type == CFG_OBJECT || (is_structured(row) && looks_like_json(text))) {
        v->doc = object_document(r, text, v->place);
        if (v->doc == NULL) {
            return;
        }
        v->json = yaml_root(v->doc);
        (void)config_read_value(r, row, v, base);
        return;
    }
    own = is_structured(row) && row->type != CFG_CLAIM_HEADERS ? split(text) : json_string(text);
    if (own == NULL) {
        config_error(r, v->place, "%s: not UTF-8 text", v->key);
        return;
    }
    v->json = own;
    (void)config_read_value(r, row, v, base);
    json_decref(own);
}

/* One spelling of one key; true if it is set. */
static bool try_name(struct config_reader *r, const struct config_row *row, const char *name,
                     bool is_file, void *base)
{
    const char *text = config_env(r, name);
    struct buf file;
    struct config_value v = { .key = row->name };

    if (text == NULL) {
        return false;
    }
    CHECK(EVP_DigestUpdate(r->sum, name, strlen(name) + 1) == 1);
    CHECK(EVP_DigestUpdate(r->sum, text, strlen(text) + 1) == 1);
    buf_init(&file, (size_t)ENV_NAME * 2);
    buf_printf(&file, "environment variable %s", name);
    v.place.file = config_keep(r, buf_sv(&file)).p;
    buf_deinit(&file);
    if (row->type == CFG_UNSUPPORTED || row->type == CFG_REMOVED || row->type == CFG_IGNORED) {
        return false; /* other programs' variables may go by such names */
    }
    if (is_file) {
        v.json = json_string(text);
        config_read_file_value(r, row, &v, base);
        json_decref(v.json);
    } else {
        read_text(r, row, text, &v, base);
    }
    return true;
}

void config_read_env(struct config_reader *r, const struct config_rows *rows, void *base,
                     bool *given, bool *env)
{
    static const char *const product[] = { "", "POSTERN_" };
    char prefixes[ARRAY_LEN(product)][ENV_NAME];

    for (size_t k = 0; k < ARRAY_LEN(product); k++) {
        env_name(prefixes[k], product[k], rows->env == NULL ? "" : rows->env, "");
    }

    for (size_t i = 0; i < rows->n; i++) {
        const struct config_row *row = &rows->v[i];

        for (size_t k = 0; k < ARRAY_LEN(prefixes) && !env[i]; k++) {
            char name[ENV_NAME];

            env_name(name, prefixes[k], row->name, "");
            env[i] = try_name(r, row, name, false, base);
            if (!env[i] && (row->flags & CFG_PLURAL) != 0) {
                env_name(name, prefixes[k], row->name, "s");
                env[i] = try_name(r, row, name, false, base);
            }
            if (!env[i] && (row->flags & CFG_HAS_FILE) != 0) {
                env_name(name, prefixes[k], row->name, "_file");
                env[i] = try_name(r, row, name, true, base);
            }
        }
        given[i] = given[i] || env[i];
    }
}
