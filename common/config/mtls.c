/* Certificates of visitors: downstream_mtls, and the CAs that routes have of their own. */
#include <string.h>

#include "common/config/reader.h"
#include "common/config/rows.h"
#include "common/pattern.h"

#define M(member) offsetof(struct config_mtls, member)

static const struct config_choice choices_enforcement[] = {
    { "policy_with_default_deny", CONFIG_MTLS_DEFAULT_DENY },
    { "policy", CONFIG_MTLS_POLICY },
    { "reject_connection", CONFIG_MTLS_REJECT },
    { NULL, 0 }
};

static const struct config_row mtls_rows[] = {
    { "ca", CFG_PEM, CFG_HAS_FILE | CFG_ONLY_PROXY, M(ca),
      .doc = "The CAs (PEM, or base64 of it) whose certificates are trusted." },
    { "crl", CFG_CRL, CFG_HAS_FILE | CFG_ONLY_PROXY, M(crl),
      .doc = "Lists of revoked certificates (PEM, or base64 of it). Where it is set, every CA of a "
             "chain needs its list, and a list that has expired trusts nobody." },
    { "enforcement", CFG_ENUM, 0, M(enforcement), .choices = choices_enforcement,
      .doc = "Without a trusted certificate: every route refuses (495), only what a policy says "
             "counts, or no connection comes about." },
    { "match_subject_alt_names", CFG_OBJECT, 0, SIZE_MAX, .read = config_read_sans,
      .doc = "List of one of `dns`, `email`, `ip_address`, `uri`, `user_principal_name` and a "
             "regular expression over the whole name: a certificate needs one that fits." },
    { "max_verify_depth", CFG_NUMBER, 0, M(max_verify_depth), 0, 16, 1,
      .doc = "How many certificates may stand above the visitor's; 0 is as many as we take, 16." },
};

const struct config_rows config_rows_mtls = { .v = mtls_rows,
                                              .n = ARRAY_LEN(mtls_rows),
                                              .what = "setting of downstream_mtls",
                                              .env = "downstream_mtls_" };

void config_read_mtls_env(struct config_reader *r)
{
    CHECK(config_rows_mtls.n <= CONFIG_MTLS_ROWS);
    config_read_env(r, &config_rows_mtls, &r->c->downstream_mtls, r->mtls_given, r->mtls_env);
}

void config_read_mtls(struct config_reader *r, const struct config_value *v, void *base)
{
    struct config *c = base;

    config_read_object(r, &config_rows_mtls, v, &c->downstream_mtls, r->mtls_given, r->mtls_env);
}

/* --- match_subject_alt_names --------------------------------------------------------------------- */

static bool compiles(struct config_reader *r, const struct config_value *v, struct sv text)
{
    struct pattern *pattern = NULL;
    struct diag d = { .line = 0 };

    if (pattern_new(text, PATTERN_WHOLE, &pattern, &d) != ERR_OK) {
        config_error(r, v->place, "%s: %s", v->key, d.text);
        return false;
    }
    pattern_unref(&pattern);
    return true;
}

/* One {kind: pattern}. */
static bool read_san(struct config_reader *r, const struct config_value *item,
                     struct config_san *out)
{
    static const struct {
        const char *name;
        enum config_san_kind kind;
    } kinds[] = { { "dns", CONFIG_SAN_DNS },
                  { "email", CONFIG_SAN_EMAIL },
                  { "ip_address", CONFIG_SAN_IP },
                  { "uri", CONFIG_SAN_URI },
                  { "user_principal_name", CONFIG_SAN_UPN } };

    void *it = json_object_iter(item->json);
    struct config_value v = *item;
    struct sv text = { 0 };

    if (json_object_size(item->json) != 1) {
        config_error(r, item->place, "%s: each is a mapping of one kind of name to a pattern",
                     item->key);
        return false;
    }
    v = config_member(item, json_object_iter_key(it), json_object_iter_value(it));
    for (size_t i = 0; i < ARRAY_LEN(kinds); i++) {
        if (strcmp(v.key, kinds[i].name) == 0) {
            out->kind = kinds[i].kind;
            if (!config_want_text(r, &v, &text)) {
                return false;
            }
            if (text.n == 0 || text.n > 1024) {
                config_error(r, v.place, "%s: expected 1 to 1024 characters", v.key);
                return false;
            }
            out->pattern = config_keep(r, text);
            return compiles(r, &v, out->pattern);
        }
    }
    config_error(r, v.place,
                 "unknown kind of name \"%s\"; there are dns, email, ip_address, uri and "
                 "user_principal_name",
                 v.key);
    return false;
}

void config_read_sans(struct config_reader *r, const struct config_value *v, void *base)
{
    struct config_mtls *mtls = base;
    size_t n = json_array_size(v->json);

    if (!json_is_array(v->json) || n > CONFIG_LIST_MAX) {
        config_error(r, v->place, "%s: expected a list", v->key);
        return;
    }
    mtls->names = arena_zalloc(r->arena, (n + 1) * sizeof(struct config_san));
    for (size_t i = 0; i < n; i++) {
        struct config_value item = config_item(v, i);

        if (read_san(r, &item, &mtls->names[mtls->n_names])) {
            mtls->n_names++;
        }
    }
}

/* --- together ------------------------------------------------------------------------------------ */

static void check_lists(struct config_reader *r, struct config_place place, struct sv cas)
{
    const struct config_mtls *mtls = &r->c->downstream_mtls;
    const char *missing = NULL;

    if (mtls->crl.n == 0 || cas.n == 0) {
        return;
    }
    missing = config_pem_unlisted(r, cas, mtls->crl);
    if (missing != NULL) {
        config_error(r, place,
                     "downstream_mtls.crl: it has no list of %.200s, so no certificate that comes "
                     "from there could be trusted; add the list, or take that CA out",
                     missing);
    }
}

void config_check_mtls(struct config_reader *r)
{
    struct config *c = r->c;
    struct config_mtls *mtls = &c->downstream_mtls;
    struct config_place whole = { c->file.n != 0 ? c->file.p : "environment", 0, 0 };
    bool anything = false;

    mtls->has_ca = config_rows_given(&config_rows_mtls, r->mtls_given, "ca");
    c->asks_client_cert = mtls->has_ca;
    check_lists(r, whole, mtls->ca);
    for (size_t i = 0; i < c->n_routes; i++) {
        const struct config_route *route = &c->routes[i];

        c->asks_client_cert = c->asks_client_cert || route->has_client_ca;
        check_lists(r, (struct config_place){ route->file, route->line, route->column },
                    route->client_ca);
    }
    for (size_t i = 0; i < config_rows_mtls.n; i++) {
        anything = anything || r->mtls_given[i];
    }
    if (anything && !c->asks_client_cert) {
        config_error(r, whole,
                     "downstream_mtls: it says nothing without \"ca\" or \"ca_file\": no "
                     "certificate would be asked for");
    }
    if (mtls->enforcement == CONFIG_MTLS_REJECT && !mtls->has_ca && c->asks_client_cert) {
        config_error(r, whole,
                     "downstream_mtls: enforcement reject_connection needs \"ca\" or \"ca_file\": "
                     "which route a connection is for is not known before it stands");
    }
    if (c->asks_client_cert && c->insecure_server) {
        config_error(r, whole,
                     "client certificates need TLS on our side: they cannot be had with "
                     "insecure_server");
    }
}
