/* config_reader: one pass over a configuration: where it stands, what was wrong so far, the memory it
 * fills. Private to common/config/. One thread. */
#pragma once

#include <stdatomic.h>

#include <openssl/types.h>

#include "common/arena.h"
#include "common/config/config.h"
#include "common/config/rows.h"
#include "common/config/splice.h"
#include "common/map.h"

enum { CONFIG_DOCS_MAX = 64, CONFIG_MTLS_ROWS = 8, CONFIG_AUDIT_ROWS = 24 };

/* What one reading brought in. Configurations that took routes over from it hold it, too. */
struct config_stock {
    atomic_uint refs;
    struct arena arena;
};

/* What a struct config is part of. */
struct config_box {
    struct config config;
    atomic_uint refs;
    struct config_stock **stocks; /* in which its texts lie; the last is its own */
    size_t n_stocks;
    size_t whole_bytes;           /* what a stock took when the file was last read whole */
    struct config_layout *layout; /* NULL: the next reading is whole */
    const char *const *env;       /* that was read */
    struct map *by_id;            /* 8 bytes of id to struct config_route */
    struct yaml_doc *docs[CONFIG_DOCS_MAX];
    size_t n_docs;
};

struct config_place {
    const char *file; /* lives as long as the reader's box */
    int line;
    int column;
};

struct config_value {
    json_t *json;               /* borrowed, not changed */
    const struct yaml_doc *doc; /* that json is of; NULL: of none */
    struct config_place place;
    const char *key; /* as written; for messages */
};

/* Files that were opened or should have been: what a watcher looks at. */
struct config_files {
    char **v;
    size_t n;
    size_t cap;
    size_t n_asked;    /* how often one was named */
    struct map *known; /* the same names */
};

void config_files_deinit(struct config_files *files);
void config_files_add(struct config_files *files, const char *name);

struct config_reader {
    const struct config_opts *opts;
    struct config_box *box;
    struct config *c;             /* of box */
    struct arena *arena;          /* of its own stock */
    struct config_splice *splice; /* NULL: the file is read whole */
    struct config_errors *errors;
    struct config_files *files;
    EVP_MD_CTX *sum;
    const struct yaml_doc *document;   /* of the file */
    const struct yaml_doc *routes_doc; /* that the routes are of */
    bool *route_given;                 /* one a route and row */
    bool *again;                       /* one a route: it says more than stands in its place */
    bool *taken;                       /* one a route: it was taken over, finished */
    bool mtls_given[CONFIG_MTLS_ROWS];
    bool mtls_env[CONFIG_MTLS_ROWS];
    bool audit_given[CONFIG_AUDIT_ROWS];
    bool audit_env[CONFIG_AUDIT_ROWS];
    struct config_place audit_place; /* of the block */
    struct map *pairs; /* of the previous configuration, by id; NULL: not looked at yet */
};

/* errors.c */
struct config_errors *config_errors_new(void);
void config_error(struct config_reader *r, struct config_place place, const char *fmt, ...)
    PRINTF_LIKE(3, 4);
void config_error_diag(struct config_reader *r, struct config_place place, const struct diag *d);
void config_errors_sort(struct config_errors *errors);

/* reader.c */
struct sv config_keep(struct config_reader *r, struct sv s);
/* Absolute and kept. */
struct sv config_path(struct config_reader *r, struct sv path);
/* The whole file, kept; false and reported otherwise. Adds it to the watched ones and the sum. */
bool config_read_file(struct config_reader *r, const struct config_value *v, struct sv path,
                      size_t max, struct sv *text_out);
/* The same for what is secret: the caller wipes and frees text (config_forget). */
bool config_read_secret_file(struct config_reader *r, const struct config_value *v, struct sv path,
                             size_t max, struct buf *text);
void config_forget(struct buf *text);
/* Parses a text as a document that lives as long as the reading, in some parts as the configuration;
 * NULL and reported. Gaps: of r->splice for its text, else none. */
const struct yaml_doc *config_document(struct config_reader *r, struct sv text, const char *file,
                                       struct config_place place);
struct config_value config_member(const struct config_value *object, const char *key, json_t *json);
struct config_value config_item(const struct config_value *array, size_t i);
/* Reads the members of an object by a table; given (one bool a row, may be NULL) says which were there.
 * Unknown keys are reported. env: keys that the environment overrides, one bool a row, or NULL. */
void config_read_object(struct config_reader *r, const struct config_rows *rows,
                        const struct config_value *object, void *base, bool *given,
                        const bool *env);
/* The file behind row is another part's to open. */
bool config_is_others(const struct config_reader *r, const struct config_row *row);
/* v names a file that holds the value of row. */
void config_read_file_value(struct config_reader *r, const struct config_row *row,
                            const struct config_value *v, void *base);
/* Writes the defaults of a table into base. */
void config_read_defaults(struct config_reader *r, const struct config_rows *rows, void *base);
/* Overrides from the environment; sets env and given of the rows that it found. */
void config_read_env(struct config_reader *r, const struct config_rows *rows, void *base,
                     bool *given, bool *env);
/* The value of NAME in opts->env; NULL: none, or empty. */
const char *config_env(const struct config_reader *r, const char *name);

/* value.c: one value into its slot; false and reported otherwise. */
bool config_read_value(struct config_reader *r, const struct config_row *row,
                       const struct config_value *v, void *base);
bool config_read_pattern(struct config_reader *r, const struct config_value *v,
                         enum pattern_extent extent, struct pattern **slot);
/* Whether a value can stand in a header. */
bool config_is_header_value(struct sv s);
bool config_is_header_name(struct sv s);
/* False: it frames messages or belongs to a connection, which is reported; v: who sets it. */
bool config_is_free_header(struct config_reader *r, const struct config_value *v, struct sv name);
bool config_want_text(struct config_reader *r, const struct config_value *v, struct sv *text_out);

/* net.c: addresses and URLs. */
bool config_read_origin(struct config_reader *r, const struct config_value *v, struct sv text,
                        bool unix_too, struct config_url *url_out);
bool config_read_upstream_url(struct config_reader *r, const struct config_value *v, struct sv text,
                              struct config_url *url_out);
bool config_check_link(struct config_reader *r, const struct config_value *v, struct sv text);
bool config_read_listen(struct config_reader *r, const struct config_value *v, struct sv text,
                        struct sv *listen_out);
bool config_read_target(struct config_reader *r, const struct config_value *v, struct sv text,
                        struct config_target *target_out);

/* What Postern itself sends may go there in the clear. */
bool config_is_of_this_machine(struct sv url);
/* headers: "Name=value,…", or NULL; reports. */
void config_check_headers(struct config_reader *r, struct config_place place, const char *name,
                          const struct secret *headers);

/* diff.c; either may be NULL. */
bool config_same_secret(const struct secret *a, const struct secret *b);

/* external_data.c */
void config_read_sources(struct config_reader *r, const struct config_value *v, void *base);

/* pem.c */
bool config_pem_certs(struct config_reader *r, const struct config_value *v, struct sv pem);
bool config_pem_crls(struct config_reader *r, const struct config_value *v, struct sv pem);
/* One reference, from the previous configuration if it had the same; NULL and reported. */
struct keypair *config_pem_pair(struct config_reader *r, const struct config_value *v,
                                struct sv cert, struct sv key);
/* The same without a report: d has the reason. */
struct keypair *config_pem_try_pair(struct config_reader *r, struct sv cert, struct sv key,
                                    struct diag *d);
/* A CA in cas without a list in crls, one line; NULL: each has its. Kept. */
const char *config_pem_unlisted(struct config_reader *r, struct sv cas, struct sv crls);
/* PEM as it is, or the PEM in a base64 text; {NULL, 0}: neither. Kept. */
struct sv config_pem_text(struct config_reader *r, struct sv text);

/* log_fields.c */
void config_read_access_fields(struct config_reader *r, const struct config_value *v, void *base);
void config_read_authorize_fields(struct config_reader *r, const struct config_value *v,
                                  void *base);

/* audit.c */
void config_read_audit(struct config_reader *r, const struct config_value *v, void *base);
void config_read_audit_env(struct config_reader *r);
void config_check_audit(struct config_reader *r);

/* mtls.c */
void config_read_mtls(struct config_reader *r, const struct config_value *v, void *base);
void config_read_sans(struct config_reader *r, const struct config_value *v, void *base);
void config_read_mtls_env(struct config_reader *r);
void config_check_mtls(struct config_reader *r);

/* policies.c */
void config_read_policies(struct config_reader *r, const struct config_value *v, void *base);
/* Which headers its policies ask for. */
void config_finish_policy_headers(struct config_reader *r, struct config_route *route);

/* certificates.c, autocert.c, route.c, tunnel.c, cluster.c, rewrite.c, template.c, cors.c, finish.c,
 * check.c */
void config_read_certificates(struct config_reader *r, const struct config_value *v, void *base);
void config_read_routes(struct config_reader *r, const struct config_value *v, void *base);
void config_read_from(struct config_reader *r, const struct config_value *v, void *base);
void config_read_to(struct config_reader *r, const struct config_value *v, void *base);
/* text: v's, with tcp+https:// and tcp:// in front. */
void config_read_tunnel_from(struct config_reader *r, const struct config_value *v, struct sv text,
                             struct config_route *route);
bool config_read_tunnel_to(struct config_reader *r, const struct config_value *v, struct sv text,
                           struct config_url *url_out);
/* v: the whole route: its kind, its upstreams and what is given fit together. */
void config_check_tunnel(struct config_reader *r, const struct config_value *v,
                         const struct config_route *route, const bool *given);
/* No two routes for one tunnel; ids are set. */
void config_check_tunnels(struct config_reader *r);
void config_read_redirect(struct config_reader *r, const struct config_value *v, void *base);
void config_read_response(struct config_reader *r, const struct config_value *v, void *base);
void config_read_header_rewrites(struct config_reader *r, const struct config_value *v, void *base);
void config_read_cors(struct config_reader *r, const struct config_value *v, void *base);
/* v: the whole route, whose members are read. */
void config_check_rewrites(struct config_reader *r, const struct config_value *v,
                           struct config_route *route);
void config_read_templates(struct config_reader *r, const struct config_value *v,
                           struct config_route *route);
void config_check_kubernetes(struct config_reader *r, const struct config_value *v,
                             const struct config_route *route);
void config_read_issuers(struct config_reader *r, const struct config_value *v, void *base);
/* What Authorization: Bearer is on the i-th route. */
void config_finish_bearer(struct config_reader *r, size_t i);
/* Refuses bounds of a session that are shorter than can be kept; 0: none. */
void config_finish_session(struct config_reader *r, struct config_place place, int64_t idle_ms,
                           int64_t age_ms);
void config_read_claims(struct config_reader *r, const struct config_value *v, void *base);
void config_read_least_request(struct config_reader *r, const struct config_value *v, void *base);
void config_read_ring_hash(struct config_reader *r, const struct config_value *v, void *base);
void config_read_maglev(struct config_reader *r, const struct config_value *v, void *base);
void config_read_health_checks(struct config_reader *r, const struct config_value *v, void *base);
void config_read_outlier(struct config_reader *r, const struct config_value *v, void *base);
void config_read_limits(struct config_reader *r, const struct config_value *v, void *base);
void config_read_global_limits(struct config_reader *r, const struct config_value *v, void *base);
void config_read_resolvers(struct config_reader *r, const struct config_value *v, void *base);
void config_cluster_defaults(struct config_reader *r, struct config_cluster *c);
/* Bounds that were not given: the global ones, then the defaults. */
void config_finish_limits(struct config_reader *r, struct config_route *route);
void config_read_renegotiation(struct config_reader *r, const struct config_value *v, void *base);
/* Routes in which something is left to free go here, too. */
void config_route_deinit(struct config_route *route);
/* Equal numbers are for equal things, in one process. */
uint64_t config_next_edition(void);
bool config_route_given(const struct config_reader *r, size_t route, const char *name);
void config_finish_routes(struct config_reader *r);
void config_check(struct config_reader *r, const bool *given);
/* Which names need a certificate from the ACME server; the proxy reads those that are there. */
void config_check_autocert(struct config_reader *r);

/* load.c: config_load, and what was opened on the way, also when it failed; sum_out: hexadecimal. */
MUST_CHECK enum err config_load_tracked(const struct config_opts *opts, struct config **config_out,
                                        struct config_errors **errors_out,
                                        struct config_files *files, char sum_out[17]);
