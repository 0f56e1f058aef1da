/* config_rows: one row a key: what it holds, its bounds, where it goes, what the manual says. The
 * reader, the checks and docs/configuration.md all come from these tables. Private to
 * common/config/. Constants; any thread. */
#pragma once

#include "common/base.h"
#include "common/sv.h"

enum config_type {
    CFG_UNSUPPORTED = 0, /* a key of Pomerium that is not built yet: an error that says so */
    CFG_REMOVED, /* a key that Pomerium removed or that makes no sense here; doc says what to do */
    CFG_IGNORED, /* taken for compatibility, without effect */
    CFG_BOOL,
    CFG_NUMBER,      /* uint16_t */
    CFG_COUNT,       /* uint32_t */
    CFG_DURATION,    /* int64_t, milliseconds */
    CFG_ENUM,        /* one of choices; an enum */
    CFG_TEXT,        /* struct sv; min and max are bytes */
    CFG_PATTERN,     /* struct pattern *: matches a part */
    CFG_FILE,        /* struct sv: absolute name of a file that must be readable; watched */
    CFG_PEM,         /* struct sv: certificates, in place as PEM or base64 of it, or with _file */
    CFG_CRL,         /* struct sv: lists of revoked certificates, in the same ways */
    CFG_SECRET_KEY,  /* struct secret *: 32 bytes as base64 */
    CFG_SECRET_TEXT, /* struct secret * */
    CFG_SECRET_PEM,  /* struct secret *: PEM, or base64 of it */
    CFG_STRINGS,
    CFG_CIDRS,  /* struct config_cidrs */
    CFG_TOKENS, /* strings that are HTTP tokens: header names, upgrade names */
    CFG_PAIRS,
    CFG_HEADERS, /* pairs whose names are header names and whose values fit in one */
    CFG_CLAIM_HEADERS,
    CFG_ORIGIN, /* struct config_url, http or https without path, or unix: where flags say so */
    CFG_LINK,   /* struct sv: absolute http(s) URL */
    CFG_LISTEN, /* struct sv: host:port, :port, unix:/path */
    CFG_TARGET, /* struct config_target */
    CFG_TARGETS,
    CFG_OBJECT /* has a reader of its own; shape says what the manual tells */
};

enum {
    CFG_RELOAD = 1,        /* a change takes effect without a restart */
    CFG_HAS_FILE = 2,      /* <name>_file names a file with the value */
    CFG_UNIX = 4,          /* ORIGIN: unix: too */
    CFG_REQUIRED = 8,      /* must be there */
    CFG_OURS = 16,         /* not a key of Pomerium */
    CFG_ONLY_PROXY = 32,   /* the file behind it is opened by the proxy alone */
    CFG_ONLY_AUTHN = 64,   /* … by authenticate alone */
    CFG_PLURAL = 128,      /* <name>s is the same key */
    CFG_MAY_BE_OFF = 256,  /* LISTEN: the word off is no address */
    CFG_ONLY_ACME = 512,   /* … by acme alone */
    CFG_TUNNEL = 1024,     /* of a route: has a meaning on a tcp route, too */
    CFG_ONLY_AUDIT = 2048, /* the file behind it is opened by those who write an audit alone */
    CFG_ONLY_BROKER = 4096 /* … by the databroker alone */
};

struct config_choice {
    const char *name;
    int value;
};

struct config_reader;
struct config_value;

/* Reads a value of its own shape into base (struct config or struct config_route); reports. */
typedef void (*config_read_fn)(struct config_reader *r, const struct config_value *v, void *base);

struct config_row {
    const char *name;
    enum config_type type;
    unsigned flags;
    size_t offset; /* of the slot in struct config or struct config_route; SIZE_MAX: check only */
    int64_t min;
    int64_t max;
    int64_t def;
    const char
        *def_text; /* default as if written in the file; not for BOOL, NUMBER, DURATION, ENUM */
    const char *def_shown; /* what the manual says instead */
    const struct config_choice *choices;
    config_read_fn read; /* OBJECT */
    const char *doc;     /* one line of the manual, in Markdown */
};

struct config_rows {
    const struct config_row *v;
    size_t n;
    const char *what; /* "setting", "setting of a route" */
    const char *env;  /* what stands before their names in the environment; NULL: nothing */
};

/* For tables: a known name that is refused with a sentence, and milliseconds. */
#define UNSUPPORTED(n)                       \
    {                                        \
        .name = (n), .type = CFG_UNSUPPORTED \
    }

#define SECOND 1000LL
#define MINUTE (60 * SECOND)
#define HOUR   (60 * MINUTE)
#define DAY    (24 * HOUR)

#define CONFIG_ROWS(table, name)                            \
    {                                                       \
        .v = (table), .n = ARRAY_LEN(table), .what = (name) \
    }

extern const struct config_rows config_rows_global;
extern const struct config_rows config_rows_route;
extern const struct config_rows config_rows_redirect;
extern const struct config_rows config_rows_response;
extern const struct config_rows config_rows_cors;
extern const struct config_rows config_rows_header_rewrite;
extern const struct config_rows config_rows_mtls;
extern const struct config_rows config_rows_issuer;
extern const struct config_rows config_rows_named_policy;
extern const struct config_rows config_rows_source; /* in external_data.c */
extern const struct config_rows config_rows_audit;  /* in audit.c; base: struct config_audit */

/* Of a route's cluster, in cluster.c. Bases: struct config_health_check (also the three kinds), struct
 * config_outlier, struct config_limits, struct config_cluster. */
extern const struct config_rows config_rows_health_check;
extern const struct config_rows config_rows_http_check;
extern const struct config_rows config_rows_tcp_check;
extern const struct config_rows config_rows_grpc_check;
extern const struct config_rows config_rows_outlier;
extern const struct config_rows config_rows_limits;
extern const struct config_rows config_rows_least_request;
extern const struct config_rows config_rows_ring_hash;
extern const struct config_rows config_rows_maglev;

/* The row of name, also for name_file and names; NULL: none. *is_file_out: it is the _file form. */
const struct config_row *config_rows_find(const struct config_rows *rows, struct sv name,
                                          bool *is_file_out);
/* Where the row of name is, which the table has; and of given, one bool a row, its own. */
size_t config_rows_index(const struct config_rows *rows, const char *name);
bool config_rows_given(const struct config_rows *rows, const bool *given, const char *name);
/* The name of the table nearest to a wrong one; NULL: nothing is near. */
const char *config_rows_nearest(const struct config_rows *rows, struct sv name);
