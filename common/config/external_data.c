/* The section `external_data`: where the rows of a type of external data are fetched from. */
#include <string.h>

#include "common/config/reader.h"
#include "common/data/form.h"

enum { SOURCES_MAX = 64, ROWS_MAX = 16 };

#define S(member) offsetof(struct config_source, member)

static const struct config_choice choices_key[] = { { "user_id", DATA_KEY_USER },
                                                    { "email", DATA_KEY_EMAIL },
                                                    { "session_id", DATA_KEY_SESSION },
                                                    { NULL, 0 } };
static const struct config_choice choices_format[] = { { "auto", CONFIG_DATA_AUTO },
                                                       { "json", CONFIG_DATA_JSON },
                                                       { "csv", CONFIG_DATA_CSV },
                                                       { NULL, 0 } };

static const struct config_row source_rows[] = {
    { "url", CFG_LINK, 0, S(url),
      .doc = "What is asked with GET. https; http only to this machine. Redirects are not "
             "followed, and addresses of the link (169.254.0.0/16, fe80::/10) not asked." },
    { "file", CFG_TEXT, 0, S(file), 1, 3000,
      .doc = "Or a file on the databroker's machine; replace it by a rename." },
    { "foreign_key", CFG_ENUM, CFG_REQUIRED, S(key), .choices = choices_key,
      .doc = "Whom a row belongs to." },
    { "id_field", CFG_TEXT, 0, S(id_field), 1, 64, .def_shown = "the name of the key",
      .doc = "The field of a row that holds it." },
    { "format", CFG_ENUM, 0, S(format), .choices = choices_format,
      .doc = "`auto`: as the answer's `Content-Type` or the file's name says." },
    { "headers", CFG_SECRET_TEXT, CFG_HAS_FILE | CFG_ONLY_BROKER, S(headers),
      .doc = "`url`: headers of the request, `Name=value,Name=value`, up to 16: what the server "
             "wants to know us by." },
    { "ca_file", CFG_FILE, CFG_ONLY_BROKER, S(ca_file), .def_shown = "the system's",
      .doc = "`url`: certificates (PEM) to verify the server with." },
    { "client_cert_file", CFG_FILE, CFG_ONLY_BROKER, S(client_cert_file),
      .doc = "`url`: our certificate (PEM), for a server that asks for one." },
    { "client_key_file", CFG_FILE, CFG_ONLY_BROKER, S(client_key_file), .doc = "Its key (PEM)." },
    { "allow_insecure_tls", CFG_BOOL, 0, S(allow_insecure_tls),
      .doc = "`url`: do not verify the server: whoever stands between decides what policies "
             "believe." },
    { "allow_empty", CFG_BOOL, 0, S(allow_empty),
      .doc = "No rows end those that are in force; else that counts as a mistake." },
    { "polling_min_delay", CFG_DURATION, 0, S(min_delay_ms), SECOND, DAY, MINUTE,
      .doc = "From one look to the next, a tenth more or less." },
    { "polling_max_delay", CFG_DURATION, 0, S(max_delay_ms), SECOND, DAY, HOUR,
      .doc = "After a failure the delay doubles, up to this." },
    { "timeout", CFG_DURATION, 0, S(timeout_ms), 100, 10 * MINUTE, 30 * SECOND,
      .doc = "`url`: for a whole answer." },
};

const struct config_rows config_rows_source = CONFIG_ROWS(source_rows, "setting of external_data");

static void check_url(struct config_reader *r, struct config_place place,
                      const struct config_source *s)
{
    if (!sv_istarts(s->url, SV("https://")) && !config_is_of_this_machine(s->url)) {
        config_error(r, place,
                     "external_data: url: policies decide by what comes from there: only https, or "
                     "http to this machine");
    }
    config_check_headers(r, place, "external_data: headers", s->headers);
}

/* A setting that says nothing is a mistake of the one who wrote it. */
static void check_file(struct config_reader *r, struct config_place place, const bool *given)
{
    static const char *const of_url[] = { "headers",         "ca_file", "client_cert_file",
                                          "client_key_file", "timeout", "allow_insecure_tls" };

    for (size_t i = 0; i < ARRAY_LEN(of_url); i++) {
        if (config_rows_given(&config_rows_source, given, of_url[i])) {
            config_error(r, place, "external_data: %s: it belongs to \"url\"", of_url[i]);
        }
    }
}

static void check_source(struct config_reader *r, const struct config_value *v,
                         struct config_source *s, const bool *given)
{
    if (!config_rows_given(&config_rows_source, given, "foreign_key")) {
        config_error(r, v->place,
                     "external_data: \"foreign_key\" is missing: user_id, email or session_id");
    }
    if (config_rows_given(&config_rows_source, given, "url") ==
        config_rows_given(&config_rows_source, given, "file")) {
        config_error(r, v->place, "external_data: one of \"url\" and \"file\" is needed");
    } else if (s->file.n != 0) {
        s->file = config_path(r, s->file);
        check_file(r, v->place, given);
    } else {
        check_url(r, v->place, s);
    }
    if (s->file.n != 0 && s->format == CONFIG_DATA_AUTO && !sv_ends(s->file, SV(".json")) &&
        !sv_ends(s->file, SV(".csv"))) {
        config_error(r, v->place,
                     "external_data: \"format\" is missing: json or csv, which the file's name "
                     "does not say");
    }
    if (config_rows_given(&config_rows_source, given, "client_cert_file") !=
        config_rows_given(&config_rows_source, given, "client_key_file")) {
        config_error(r, v->place,
                     "external_data: \"client_cert_file\" and \"client_key_file\" belong together");
    }
    if (s->max_delay_ms < s->min_delay_ms &&
        !config_rows_given(&config_rows_source, given, "polling_max_delay")) {
        s->max_delay_ms = s->min_delay_ms;
    }
    if (s->max_delay_ms < s->min_delay_ms) {
        config_error(r, v->place,
                     "external_data: polling_max_delay is shorter than polling_min_delay");
    }
}

static void read_source(struct config_reader *r, const struct config_value *v,
                        struct config_source *s)
{
    bool given[ROWS_MAX] = { false };

    CHECK(config_rows_source.n <= ARRAY_LEN(given));
    s->type = config_keep(r, sv_from(v->key));
    if (!data_type_is_external(s->type)) {
        config_error(r, v->place,
                     "external_data: \"%.130s\" is no type of rows: a domain of your own, a slash, "
                     "letters, digits and ._-/, up to %d bytes, as acme.example/posture",
                     v->key, DATA_TYPE_MAX);
    }
    config_read_defaults(r, &config_rows_source, s);
    config_read_object(r, &config_rows_source, v, s, given, NULL);
    if (json_is_object(v->json)) {
        check_source(r, v, s, given);
    }
}

void config_read_sources(struct config_reader *r, const struct config_value *v, void *base)
{
    struct config *c = base;
    size_t n = json_object_size(v->json);

    if (!json_is_object(v->json) || n > SOURCES_MAX) {
        config_error(r, v->place,
                     "external_data: expected up to %d types with settings each, as "
                     "acme.example/posture: {url: …, foreign_key: email}",
                     SOURCES_MAX);
        return;
    }
    c->sources = arena_zalloc(r->arena, (n + 1) * sizeof(*c->sources));
    for (void *it = json_object_iter(v->json); it != NULL;
         it = json_object_iter_next(v->json, it)) {
        struct config_value item =
            config_member(v, json_object_iter_key(it), json_object_iter_value(it));

        read_source(r, &item, &c->sources[c->n_sources++]);
    }
}

bool config_source_same(const struct config_source *a, const struct config_source *b)
{
    return sv_eq(a->type, b->type) && sv_eq(a->url, b->url) && sv_eq(a->file, b->file) &&
           a->key == b->key && sv_eq(a->id_field, b->id_field) && a->format == b->format &&
           config_same_secret(a->headers, b->headers) && sv_eq(a->ca_file, b->ca_file) &&
           sv_eq(a->client_cert_file, b->client_cert_file) &&
           sv_eq(a->client_key_file, b->client_key_file) &&
           a->allow_insecure_tls == b->allow_insecure_tls && a->allow_empty == b->allow_empty &&
           a->min_delay_ms == b->min_delay_ms && a->max_delay_ms == b->max_delay_ms &&
           a->timeout_ms == b->timeout_ms;
}
