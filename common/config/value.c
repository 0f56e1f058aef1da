#include <string.h>

#include "common/b64.h"
#include "common/config/reader.h"
#include "common/crypto/keys.h"
#include "common/duration.h"
#include "common/http/name.h"
#include "common/mem.h"

#define SLOT(type, base, row) ((type *)(void *)((char *)(base) + (row)->offset))

enum { NUMBER_TEXT = 24 };

bool config_want_text(struct config_reader *r, const struct config_value *v, struct sv *text_out)
{
    if (json_is_string(v->json)) {
        *text_out = sv_of(json_string_value(v->json), json_string_length(v->json));
    } else if (json_is_integer(v->json)) {
        char digits[NUMBER_TEXT];
        int n =
            snprintf(digits, sizeof(digits), "%" JSON_INTEGER_FORMAT, json_integer_value(v->json));

        *text_out = config_keep(r, sv_of(digits, (size_t)n));
    } else {
        config_error(r, v->place, "%s: expected a text", v->key);
        return false;
    }
    for (size_t i = 0; i < text_out->n; i++) {
        if (text_out->p[i] == '\0') {
            config_error(r, v->place, "%s: a text must not hold NUL", v->key);
            return false;
        }
    }
    return true;
}

/* --- plain values ---------------------------------------------------------------------------- */

static bool read_bool(struct config_reader *r, const struct config_value *v, bool *slot)
{
    struct sv text = { 0 };

    if (json_is_boolean(v->json)) {
        *slot = json_is_true(v->json);
        return true;
    }
    if (json_is_string(v->json)) {
        text = sv_of(json_string_value(v->json), json_string_length(v->json));
        if (sv_ieq(text, SV("true")) || sv_eq(text, SV("1"))) {
            *slot = true;
            return true;
        }
        if (sv_ieq(text, SV("false")) || sv_eq(text, SV("0"))) {
            *slot = false;
            return true;
        }
    }
    config_error(r, v->place, "%s: expected true or false", v->key);
    return false;
}

static bool read_whole(struct config_reader *r, const struct config_row *row,
                       const struct config_value *v, int64_t *n_out)
{
    int64_t n = -1;
    uint64_t u = 0;

    if (json_is_integer(v->json)) {
        n = json_integer_value(v->json);
    } else if (json_is_string(v->json) &&
               sv_u64(sv_of(json_string_value(v->json), json_string_length(v->json)), UINT32_MAX,
                      &u) == ERR_OK) {
        n = (int64_t)u;
    }
    if (n < row->min || n > row->max) {
        config_error(r, v->place, "%s: expected a number from %lld to %lld", v->key,
                     (long long)row->min, (long long)row->max);
        return false;
    }
    *n_out = n;
    return true;
}

static bool read_number(struct config_reader *r, const struct config_row *row,
                        const struct config_value *v, void *base)
{
    int64_t n = 0;

    if (!read_whole(r, row, v, &n)) {
        return false;
    }
    if (row->type == CFG_COUNT) {
        *SLOT(uint32_t, base, row) = (uint32_t)n;
    } else {
        *SLOT(uint16_t, base, row) = (uint16_t)n;
    }
    return true;
}

static const char *duration_text(int64_t ms, char out[NUMBER_TEXT])
{
    if (ms % 3600000 == 0 && ms != 0) {
        (void)snprintf(out, NUMBER_TEXT, "%lldh", (long long)(ms / 3600000));
    } else if (ms % 60000 == 0 && ms != 0) {
        (void)snprintf(out, NUMBER_TEXT, "%lldm", (long long)(ms / 60000));
    } else if (ms % 1000 == 0) {
        (void)snprintf(out, NUMBER_TEXT, "%llds", (long long)(ms / 1000));
    } else {
        (void)snprintf(out, NUMBER_TEXT, "%lldms", (long long)ms);
    }
    return out;
}

static bool read_duration(struct config_reader *r, const struct config_row *row,
                          const struct config_value *v, int64_t *slot)
{
    char least[NUMBER_TEXT];
    char most[NUMBER_TEXT];
    int64_t ms = 0;
    bool zero = json_is_integer(v->json) && json_integer_value(v->json) == 0;

    if (!zero && (!json_is_string(v->json) ||
                  duration_parse(sv_of(json_string_value(v->json), json_string_length(v->json)),
                                 &ms) != ERR_OK)) {
        config_error(r, v->place, "%s: expected a time with its unit, such as 30s, 5m or 1h30m",
                     v->key);
        return false;
    }
    if (ms < row->min || ms > row->max) {
        config_error(r, v->place, "%s: expected a time from %s to %s", v->key,
                     duration_text(row->min, least), duration_text(row->max, most));
        return false;
    }
    *slot = ms;
    return true;
}

static bool read_choice(struct config_reader *r, const struct config_row *row,
                        const struct config_value *v, int *slot)
{
    struct sv text = { 0 };
    struct buf names;

    if (!config_want_text(r, v, &text)) {
        return false;
    }
    for (const struct config_choice *c = row->choices; c->name != NULL; c++) {
        if (sv_ieq(text, sv_from(c->name))) {
            *slot = c->value;
            return true;
        }
    }
    buf_init(&names, 512);
    for (const struct config_choice *c = row->choices; c->name != NULL; c++) {
        buf_printf(&names, "%s%s", names.n == 0 ? "" : (c[1].name == NULL ? " or " : ", "),
                   c->name);
    }
    config_error(r, v->place, "%s: expected %s", v->key, buf_cstr(&names));
    buf_deinit(&names);
    return false;
}

bool config_read_pattern(struct config_reader *r, const struct config_value *v,
                         enum pattern_extent extent, struct pattern **slot)
{
    struct sv text = { 0 };
    struct diag d = { 0 };

    pattern_unref(slot);
    if (!config_want_text(r, v, &text)) {
        return false;
    }
    if (pattern_new(text, extent, slot, &d) != ERR_OK) {
        config_error(r, v->place, "%s: %s", v->key, d.text);
        return false;
    }
    return true;
}

static bool read_text(struct config_reader *r, const struct config_row *row,
                      const struct config_value *v, struct sv *slot)
{
    struct sv text = { 0 };

    if (!config_want_text(r, v, &text)) {
        return false;
    }
    if ((int64_t)text.n < row->min || (int64_t)text.n > row->max) {
        config_error(r, v->place, "%s: expected %lld to %lld characters", v->key,
                     (long long)row->min, (long long)row->max);
        return false;
    }
    *slot = config_keep(r, text);
    return true;
}

/* --- secrets and certificates ------------------------------------------------------------------ */

static bool set_secret(const struct config_row *row, struct secret *secret, void *base)
{
    if (row->offset == SIZE_MAX) {
        secret_free(&secret);
    } else {
        secret_free(SLOT(struct secret *, base, row));
        *SLOT(struct secret *, base, row) = secret;
    }
    return true;
}

static bool read_secret(struct config_reader *r, const struct config_row *row,
                        const struct config_value *v, void *base)
{
    struct sv text = { 0 };
    struct secret *secret = NULL;

    if (!config_want_text(r, v, &text)) {
        return false;
    }
    if (row->type == CFG_SECRET_KEY) {
        if (secret_from_b64(text, &secret) != ERR_OK ||
            secret_bytes(secret).n != KEYS_SECRET_BYTES) {
            secret_free(&secret);
            config_error(r, v->place,
                         "%s: expected %d bytes as base64; make them with: head -c32 /dev/urandom "
                         "| base64",
                         v->key, KEYS_SECRET_BYTES);
            return false;
        }
        return set_secret(row, secret, base);
    }
    if (row->type == CFG_SECRET_PEM) {
        text = config_pem_text(r, text);
        if (text.p == NULL) {
            config_error(r, v->place, "%s: expected a key as PEM, or base64 of that", v->key);
            return false;
        }
    }
    if (text.n == 0 || text.n > 65536) {
        config_error(r, v->place, "%s: it is empty or too long", v->key);
        return false;
    }
    return set_secret(row, secret_new(text), base);
}

/* CFG_PEM and CFG_CRL. */
static bool read_pem(struct config_reader *r, const struct config_row *row,
                     const struct config_value *v, void *base)
{
    struct sv text = { 0 };

    if (!config_want_text(r, v, &text)) {
        return false;
    }
    text = config_pem_text(r, text);
    if (text.p == NULL) {
        config_error(r, v->place, "%s: expected %s as PEM, or base64 of that", v->key,
                     row->type == CFG_CRL ? "lists of revoked certificates" : "certificates");
        return false;
    }
    if (row->type == CFG_CRL ? !config_pem_crls(r, v, text) : !config_pem_certs(r, v, text)) {
        return false;
    }
    if (row->offset != SIZE_MAX) {
        *SLOT(struct sv, base, row) = text;
    }
    return true;
}

static bool read_file_name(struct config_reader *r, const struct config_row *row,
                           const struct config_value *v, struct sv *slot)
{
    struct sv name = { 0 };
    struct sv text = { 0 };

    if (!config_want_text(r, v, &name)) {
        return false;
    }
    *slot = config_path(r, name);
    return config_is_others(r, row) || config_read_file(r, v, name, CONFIG_FILE_MAX, &text);
}

/* --- lists ----------------------------------------------------------------------------------- */

bool config_is_header_name(struct sv s)
{
    for (size_t i = 0; i < s.n; i++) {
        char c = s.p[i];

        if (c <= 0x20 || c >= 0x7f || strchr("\"(),/:;<=>?@[\\]{}", c) != NULL) {
            return false;
        }
    }
    return s.n != 0;
}

bool config_is_free_header(struct config_reader *r, const struct config_value *v, struct sv name)
{
    enum http_name id = http_name_id(name);

    if ((http_name_class(id) & HTTP_C_HOP) == 0 && id != HTTP_H_CONTENT_LENGTH) {
        return true;
    }
    config_error(r, v->place,
                 "%s: %.*s says where a message ends or belongs to the connection: it is set for "
                 "each message anew",
                 v->key, (int)MIN(name.n, (size_t)64), name.p);
    return false;
}

static bool is_upgrade(struct sv s)
{
    struct sv rest = s;
    struct sv name = sv_cut(&rest, '/');

    return config_is_header_name(name) && (rest.p == NULL || config_is_header_name(rest));
}

bool config_is_header_value(struct sv s)
{
    for (size_t i = 0; i < s.n; i++) {
        unsigned char c = (unsigned char)s.p[i];

        if ((c < 0x20 && c != '\t') || c == 0x7f) {
            return false;
        }
    }
    return true;
}

static bool read_strings(struct config_reader *r, const struct config_row *row,
                         const struct config_value *v, struct config_strings *slot)
{
    struct config_strings list = { 0 };
    bool single = json_is_string(v->json);

    if (!single && !json_is_array(v->json)) {
        config_error(r, v->place, "%s: expected a list", v->key);
        return false;
    }
    list.n = single ? 1 : json_array_size(v->json);
    if (list.n > CONFIG_LIST_MAX) {
        config_error(r, v->place, "%s: more than %d", v->key, CONFIG_LIST_MAX);
        return false;
    }
    list.v = arena_zalloc(r->arena, (list.n + 1) * sizeof(struct sv));
    for (size_t i = 0; i < list.n; i++) {
        struct config_value item = single ? *v : config_item(v, i);

        if (!config_want_text(r, &item, &list.v[i])) {
            return false;
        }
        if (row->type == CFG_TOKENS && !is_upgrade(list.v[i])) {
            config_error(r, item.place, "%s: a name with a character that it may not hold", v->key);
            return false;
        }
        list.v[i] = config_keep(r, list.v[i]);
    }
    *slot = list.n == 0 ? (struct config_strings){ 0 } : list;
    return true;
}

static bool read_cidrs(struct config_reader *r, const struct config_row *row,
                       const struct config_value *v, struct config_cidrs *slot)
{
    struct config_strings texts = { 0 };
    struct config_cidrs list = { 0 };

    if (!read_strings(r, row, v, &texts)) {
        return false;
    }
    list.v = arena_zalloc(r->arena, (texts.n + 1) * sizeof(struct cidr));
    for (size_t i = 0; i < texts.n; i++) {
        if (sv_eq(texts.v[i], SV("unix:"))) {
            list.unix_peers = true;
        } else if (cidr_parse(texts.v[i], &list.v[list.n]) == ERR_OK) {
            list.n++;
        } else {
            struct config_value item = json_is_string(v->json) ? *v : config_item(v, i);

            config_error(r, item.place,
                         "%s: \"%s\" is no address, no range like 10.0.0.0/8 and not unix:", v->key,
                         texts.v[i].p);
            return false;
        }
    }
    *slot = list;
    return true;
}

static bool is_header(struct config_reader *r, const struct config_row *row,
                      const struct config_value *v, const struct config_pair *p)
{
    if (!config_is_header_name(p->name)) {
        config_error(r, v->place, "%s: this is no header name", v->key);
        return false;
    }
    if (row->type == CFG_HEADERS && !config_is_header_value(p->value)) {
        config_error(r, v->place, "%s: a header's value is one line of text", v->key);
        return false;
    }
    return config_is_free_header(r, v, p->name);
}

static bool read_pairs(struct config_reader *r, const struct config_row *row,
                       const struct config_value *v, struct config_pairs *slot)
{
    struct config_pairs list = { 0 };
    void *it = NULL;
    size_t n = json_object_size(v->json);

    if (!json_is_object(v->json) || n > CONFIG_LIST_MAX) {
        config_error(r, v->place, "%s: expected a mapping of names to texts", v->key);
        return false;
    }
    list.v = arena_zalloc(r->arena, (n + 1) * sizeof(struct config_pair));
    for (it = json_object_iter(v->json); it != NULL; it = json_object_iter_next(v->json, it)) {
        struct config_pair *p = &list.v[list.n];
        struct config_value item =
            config_member(v, json_object_iter_key(it), json_object_iter_value(it));

        if (json_is_boolean(item.json)) {
            p->value = json_is_true(item.json) ? SV("true") : SV("false");
        } else if (!config_want_text(r, &item, &p->value)) {
            return false;
        }
        p->name = config_keep(r, sv_from(item.key));
        p->value = config_keep(r, p->value);
        item.key = v->key;
        if (row->type != CFG_PAIRS && !is_header(r, row, &item, p)) {
            return false;
        }
        list.n++;
    }
    *slot = list.n == 0 ? (struct config_pairs){ 0 } : list;
    return true;
}

/* email -> X-Pomerium-Claim-Email; family_name -> X-Pomerium-Claim-Family-Name. */
static struct sv claim_header(struct config_reader *r, struct sv claim)
{
    struct buf b;
    struct sv kept = { 0 };
    bool first = true;

    buf_init(&b, 1024);
    buf_add_str(&b, "X-Pomerium-Claim-");
    for (size_t i = 0; i < claim.n; i++) {
        char c = claim.p[i];

        c = (c == '_' || c == '/' || c == '.') ? '-' : c;
        c = (char)(first && c >= 'a' && c <= 'z' ? c - 'a' + 'A' : c);
        first = c == '-';
        buf_add_char(&b, c);
    }
    kept = config_keep(r, buf_sv(&b));
    buf_deinit(&b);
    return kept;
}

static bool read_claim_headers(struct config_reader *r, const struct config_row *row,
                               const struct config_value *v, struct config_pairs *slot)
{
    struct config_strings claims = { 0 };
    struct config_value list = *v;
    json_t *own = NULL;
    bool ok = false;

    if (json_is_object(v->json)) {
        return read_pairs(r, row, v, slot);
    }
    if (json_is_string(v->json)) {
        struct sv rest = sv_of(json_string_value(v->json), json_string_length(v->json));

        own = json_array();
        while (rest.p != NULL) {
            struct sv one = sv_trim(sv_cut(&rest, ','));

            if (one.n != 0) {
                (void)json_array_append_new(own, json_stringn(one.p, one.n));
            }
        }
        list.json = own;
        list.doc = NULL;
    }
    ok = read_strings(r, row, &list, &claims);
    json_decref(own);
    if (!ok) {
        return false;
    }
    slot->n = claims.n;
    slot->v = claims.n == 0 ? NULL : arena_zalloc(r->arena, claims.n * sizeof(struct config_pair));
    for (size_t i = 0; i < claims.n; i++) {
        slot->v[i].name = claim_header(r, claims.v[i]);
        slot->v[i].value = claims.v[i];
        if (!config_is_header_name(slot->v[i].name)) {
            config_error(r, v->place,
                         "%s: this claim makes no header name; use the form HEADER: claim", v->key);
            return false;
        }
    }
    return true;
}

/* --- addresses ------------------------------------------------------------------------------- */

static bool read_targets(struct config_reader *r, const struct config_value *v,
                         struct config_targets *slot)
{
    bool single = json_is_string(v->json);
    size_t n = single ? 1 : json_array_size(v->json);
    struct config_targets list = { 0 };

    if (n == 0 || n > CONFIG_LIST_MAX) {
        config_error(r, v->place, "%s: expected an address or a list of addresses", v->key);
        return false;
    }
    list.v = arena_zalloc(r->arena, n * sizeof(struct config_target));
    for (size_t i = 0; i < n; i++) {
        struct config_value item = single ? *v : config_item(v, i);
        struct sv text = { 0 };

        if (!config_want_text(r, &item, &text) ||
            !config_read_target(r, &item, text, &list.v[list.n])) {
            return false;
        }
        list.n++;
    }
    *slot = list;
    return true;
}

static bool read_address(struct config_reader *r, const struct config_row *row,
                         const struct config_value *v, void *base)
{
    struct sv text = { 0 };

    if (!config_want_text(r, v, &text)) {
        return false;
    }
    if (row->type == CFG_LISTEN) {
        if ((row->flags & CFG_MAY_BE_OFF) != 0 && sv_eq(text, SV("off"))) {
            *SLOT(struct sv, base, row) = config_keep(r, text);
            return true;
        }
        return config_read_listen(r, v, text, SLOT(struct sv, base, row));
    }
    if (row->type == CFG_TARGET) {
        return config_read_target(r, v, text, SLOT(struct config_target, base, row));
    }
    if (row->type == CFG_ORIGIN) {
        return config_read_origin(r, v, text, (row->flags & CFG_UNIX) != 0,
                                  SLOT(struct config_url, base, row));
    }
    if (!config_check_link(r, v, text)) {
        return false;
    }
    *SLOT(struct sv, base, row) = config_keep(r, text);
    return true;
}

/* --- all of them ------------------------------------------------------------------------------- */

bool config_read_value(struct config_reader *r, const struct config_row *row,
                       const struct config_value *v, void *base)
{
    struct config_strings strings = { 0 };
    struct sv text = { 0 };

    switch (row->type) {
    case CFG_BOOL:
        return read_bool(r, v, SLOT(bool, base, row));
    case CFG_NUMBER:
    case CFG_COUNT:
        return read_number(r, row, v, base);
    case CFG_DURATION:
        return read_duration(r, row, v, SLOT(int64_t, base, row));
    case CFG_ENUM:
        return read_choice(r, row, v, SLOT(int, base, row));
    case CFG_TEXT:
        return read_text(r, row, v, row->offset == SIZE_MAX ? &text : SLOT(struct sv, base, row));
    case CFG_PATTERN:
        return config_read_pattern(r, v, PATTERN_PART, SLOT(struct pattern *, base, row));
    case CFG_FILE:
        return read_file_name(r, row, v, SLOT(struct sv, base, row));
    case CFG_PEM:
    case CFG_CRL:
        return read_pem(r, row, v, base);
    case CFG_SECRET_KEY:
    case CFG_SECRET_TEXT:
    case CFG_SECRET_PEM:
        return read_secret(r, row, v, base);
    case CFG_STRINGS:
    case CFG_TOKENS:
        return read_strings(
            r, row, v, row->offset == SIZE_MAX ? &strings : SLOT(struct config_strings, base, row));
    case CFG_CIDRS:
        return read_cidrs(r, row, v, SLOT(struct config_cidrs, base, row));
    case CFG_PAIRS:
    case CFG_HEADERS:
        return read_pairs(r, row, v, SLOT(struct config_pairs, base, row));
    case CFG_CLAIM_HEADERS:
        return read_claim_headers(r, row, v, SLOT(struct config_pairs, base, row));
    case CFG_ORIGIN:
    case CFG_LINK:
    case CFG_LISTEN:
    case CFG_TARGET:
        return read_address(r, row, v, base);
    case CFG_TARGETS:
        return read_targets(r, v, SLOT(struct config_targets, base, row));
    case CFG_OBJECT:
        if (row->read != NULL) {
            row->read(r, v, base);
        }
        return true;
    case CFG_UNSUPPORTED:
    case CFG_REMOVED:
    case CFG_IGNORED:
        break;
    }
    return true;
}
