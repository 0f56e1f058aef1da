#include <string.h>

#include "common/buf.h"
#include "common/config/reader.h"

static const char *type_name(const struct config_row *row)
{
    static const char *const names[] = {
        [CFG_BOOL] = "true or false",
        [CFG_NUMBER] = "number",
        [CFG_COUNT] = "number",
        [CFG_DURATION] = "time",
        [CFG_ENUM] = "choice",
        [CFG_TEXT] = "text",
        [CFG_PATTERN] = "pattern",
        [CFG_FILE] = "file",
        [CFG_PEM] = "PEM",
        [CFG_CRL] = "PEM",
        [CFG_SECRET_KEY] = "secret",
        [CFG_SECRET_TEXT] = "secret",
        [CFG_SECRET_PEM] = "secret",
        [CFG_STRINGS] = "list",
        [CFG_CIDRS] = "list",
        [CFG_TOKENS] = "list",
        [CFG_PAIRS] = "map",
        [CFG_HEADERS] = "map",
        [CFG_CLAIM_HEADERS] = "list or map",
        [CFG_ORIGIN] = "URL",
        [CFG_LINK] = "URL",
        [CFG_LISTEN] = "address",
        [CFG_TARGET] = "address",
        [CFG_TARGETS] = "address or list",
        [CFG_OBJECT] = "see right",
    };

    return row->type < ARRAY_LEN(names) && names[row->type] != NULL ? names[row->type] : "any";
}

static void add_duration(struct buf *b, int64_t ms)
{
    if (ms == 0) {
        buf_add_str(b, "0");
    } else if (ms % 3600000 == 0) {
        buf_printf(b, "%lldh", (long long)(ms / 3600000));
    } else if (ms % 60000 == 0) {
        buf_printf(b, "%lldm", (long long)(ms / 60000));
    } else if (ms % 1000 == 0) {
        buf_printf(b, "%llds", (long long)(ms / 1000));
    } else {
        buf_printf(b, "%lldms", (long long)ms);
    }
}

static void add_default(struct buf *b, const struct config_row *row)
{
    if (row->def_shown != NULL) {
        buf_add_str(b, row->def_shown);
    } else if (row->def_text != NULL) {
        buf_printf(b, "`%s`", row->def_text);
    } else if (row->type == CFG_BOOL) {
        buf_add_str(b, row->def != 0 ? "`true`" : "`false`");
    } else if (row->type == CFG_COUNT || (row->type == CFG_NUMBER && row->def != 0)) {
        buf_printf(b, "`%lld`", (long long)row->def);
    } else if (row->type == CFG_DURATION) {
        buf_add_str(b, "`");
        add_duration(b, row->def);
        buf_add_str(b, "`");
    } else if (row->type == CFG_ENUM) {
        for (const struct config_choice *c = row->choices; c->name != NULL; c++) {
            if (c->value == (int)row->def) {
                buf_printf(b, "`%s`", c->name);
            }
        }
    } else if ((row->flags & CFG_REQUIRED) != 0) {
        buf_add_str(b, "needed");
    }
}

static void add_row(struct buf *b, const struct config_row *row)
{
    bool choices = row->type == CFG_ENUM;

    buf_printf(b, "| `%s`%s%s%s | %s | ", row->name,
               (row->flags & CFG_HAS_FILE) != 0 ? ", `_file`" : "",
               (row->flags & CFG_PLURAL) != 0 ? ", `…s`" : "",
               (row->flags & CFG_OURS) != 0 ? " ¹" : "", type_name(row));
    add_default(b, row);
    buf_printf(b, " | %s", row->doc == NULL ? "" : row->doc);
    if (choices) {
        buf_add_str(b, " One of");
        for (const struct config_choice *c = row->choices; c->name != NULL; c++) {
            buf_printf(b, "%s `%s`", c == row->choices ? "" : ",", c->name);
        }
        buf_add_str(b, ".");
    }
    if (row->type == CFG_DURATION) {
        buf_add_str(b, " From ");
        add_duration(b, row->min);
        buf_add_str(b, " to ");
        add_duration(b, row->max);
        buf_add_str(b, ".");
    }
    buf_add_str(b, " |\n");
}

static void add_table(struct buf *b, const struct config_rows *rows)
{
    buf_add_str(b, "| setting | holds | default | meaning |\n|---|---|---|---|\n");
    for (size_t i = 0; i < rows->n; i++) {
        if (rows->v[i].type >= CFG_IGNORED) {
            add_row(b, &rows->v[i]);
        }
    }
}

static void add_names(struct buf *b, const struct config_rows *rows, enum config_type type)
{
    bool first = true;

    for (size_t i = 0; i < rows->n; i++) {
        if (rows->v[i].type != type) {
            continue;
        }
        buf_printf(b, "%s`%s`", first ? "" : ", ", rows->v[i].name);
        first = false;
    }
    buf_add_str(b, ".\n");
}

static void add_restart(struct buf *b)
{
    bool first = true;

    for (size_t i = 0; i < config_rows_global.n; i++) {
        const struct config_row *row = &config_rows_global.v[i];

        if (row->type > CFG_IGNORED && (row->flags & CFG_RELOAD) == 0) {
            buf_printf(b, "%s`%s`", first ? "" : ", ", row->name);
            first = false;
        }
    }
    buf_add_str(b, ".\n");
}

/* What a tcp route may have; all else is about requests. */
static void add_tunnel(struct buf *b)
{
    bool first = true;

    for (size_t i = 0; i < config_rows_route.n; i++) {
        const struct config_row *row = &config_rows_route.v[i];

        if ((row->flags & CFG_TUNNEL) != 0) {
            buf_printf(b, "%s`%s`", first ? "" : ", ", row->name);
            first = false;
        }
    }
    buf_add_str(b, ".\n");
}

static const char intro[] =
    "# Configuration\n\n"
    "<!-- Made by `postern docs config`; a test keeps it so. -->\n\n"
    "All parts read the same `config.yaml` (`--config FILE` or `POSTERN_CONFIG`), in YAML or JSON, "
    "with Pomerium's names.\n"
    "`postern validate` checks it and names every mistake with its line and column.\n\n"
    "```yaml\n"
    "shared_secret_file: /etc/postern/shared_secret\n"
    "address: :443\n"
    "certificates:\n"
    "  - cert: /etc/postern/tls.crt\n"
    "    key: /etc/postern/tls.key\n"
    "authenticate_service_url: https://login.example.com\n"
    "idp_provider: oidc\n"
    "idp_provider_url: https://idp.example.com\n"
    "idp_client_id: postern\n"
    "idp_client_secret_file: /etc/postern/client_secret\n"
    "routes:\n"
    "  - from: https://wiki.example.com\n"
    "    to: http://10.0.0.7:3000\n"
    "    policy:\n"
    "      - allow:\n"
    "          or:\n"
    "            - domain: {is: example.com}\n"
    "```\n\n"
    "- **Environment.** Every global setting may come from the environment, which wins: the name in "
    "upper case\n"
    "  (`LOG_LEVEL`), also with `POSTERN_` before it. Lists are separated by commas or written as "
    "JSON; `ROUTES` is base64\n"
    "  of YAML or JSON.\n"
    "- **Files.** A setting marked `_file` may be read from a file: `shared_secret_file: PATH`, "
    "`SHARED_SECRET_FILE=PATH`.\n"
    "  Relative names count from the folder of the configuration file.\n"
    "- **Times** have a unit: `300ms`, `30s`, `5m`, `1h30m`.\n"
    "- **Changes** are seen within about a second, in the file and in every file it names, however "
    "it is replaced. A file\n"
    "  with a mistake changes nothing: the last good one stays and the log says `config.rejected` "
    "with the place. A mistake\n"
    "  inside a `policy` closes its own route only (503, `policy-invalid`), one in a named policy the "
    "routes that it applies to.\n"
    "- **Mistakes.** An unknown setting is an error, never ignored.\n"
    "- **Rotating the shared secret.** Set the new one as `shared_secret` and the old one as "
    "`shared_secret_previous`, restart\n"
    "  the parts one after the other, and take the old one out after `cookie_expire`.\n\n"
    "## Global settings\n\n";

static void add_cluster(struct buf *b)
{
    static const struct {
        const char *title;
        const struct config_rows *rows;
    } tables[] = {
        { "### One of `health_checks`", &config_rows_health_check },
        { "### `http_health_check`", &config_rows_http_check },
        { "### `tcp_health_check`", &config_rows_tcp_check },
        { "### `grpc_health_check`", &config_rows_grpc_check },
        { "### `outlier_detection`", &config_rows_outlier },
        { "### `circuit_breaker_thresholds`", &config_rows_limits },
    };

    for (size_t i = 0; i < ARRAY_LEN(tables); i++) {
        buf_printf(b, "\n%s\n\n", tables[i].title);
        add_table(b, tables[i].rows);
    }
}

void config_docs(struct buf *out)
{
    buf_add_str(out, intro);
    add_table(out, &config_rows_global);
    buf_add_str(out,
                "\n¹ not a setting of Pomerium.\n\nThese take effect at a restart, all others at "
                "once: ");
    add_restart(out);
    buf_add_str(
        out, "\n## Settings of a route\n\n"
             "A route has `from` and one of `to`, `redirect` and `response`. Routes are tried in "
             "the order of the file.\n\n");
    add_table(out, &config_rows_route);
    buf_add_str(out, "\nA tcp route ([tunnels.md](tunnels.md)) may have these, and no others: ");
    add_tunnel(out);
    add_cluster(out);
    buf_add_str(out, "\n### `cors` of a route\n\n");
    add_table(out, &config_rows_cors);
    buf_add_str(out, "\n## One of `policies`\n\n");
    add_table(out, &config_rows_named_policy);
    buf_add_str(out, "\n## One of `identity_providers`\n\n");
    add_table(out, &config_rows_issuer);
    buf_add_str(out, "\n## One of `external_data`\n\nIts name is the type of its rows, such as "
                     "`acme.example/posture`. What it does: "
                     "[external-data.md](external-data.md#fetched).\n\n");
    add_table(out, &config_rows_source);
    buf_add_str(out, "\n## downstream_mtls\n\nIn the environment `DOWNSTREAM_MTLS_CA` and so on. "
                     "What it does: [tls.md](tls.md).\n\n");
    add_table(out, &config_rows_mtls);
    buf_add_str(out, "\n## audit\n\nIn the environment `AUDIT_SINK` and so on. What it does: "
                     "[audit.md](audit.md). Read by authorize and the databroker.\n\n");
    add_table(out, &config_rows_audit);
    buf_add_str(out, "\n## Not here yet\n\nThese settings of Pomerium are known and refused with a "
                     "sentence that says so.\n\nGlobal: ");
    add_names(out, &config_rows_global, CFG_UNSUPPORTED);
    buf_add_str(out, "\nOf a route: ");
    add_names(out, &config_rows_route, CFG_UNSUPPORTED);
    buf_add_str(out, "\nThese have no meaning here: ");
    add_names(out, &config_rows_global, CFG_REMOVED);
}
