/* The audit: where its lines go and how. */
#include <string.h>

#include "common/config/reader.h"

#define A(member) offsetof(struct config_audit, member)

static const struct config_choice choices_sink[] = {
    { "stdout", CONFIG_AUDIT_STDOUT }, { "file", CONFIG_AUDIT_FILE },
    { "syslog", CONFIG_AUDIT_SYSLOG }, { "journald", CONFIG_AUDIT_JOURNALD },
    { "otlp", CONFIG_AUDIT_OTLP },     { NULL, 0 }
};
static const struct config_choice choices_required[] = { { "denials", CONFIG_AUDIT_DENIALS },
                                                         { "all", CONFIG_AUDIT_ALL },
                                                         { "none", CONFIG_AUDIT_NONE },
                                                         { NULL, 0 } };
static const struct config_choice choices_chain[] = { { "off", CONFIG_AUDIT_CHAIN_OFF },
                                                      { "hmac", CONFIG_AUDIT_CHAIN_HMAC },
                                                      { "sha256", CONFIG_AUDIT_CHAIN_SHA256 },
                                                      { NULL, 0 } };

static const struct config_row audit_rows[] = {
    { "sink", CFG_ENUM, CFG_OURS, A(sink), .choices = choices_sink,
      .doc = "Where lines go: standard output, a `file` for each part in `folder`, this machine's "
             "`syslog` or `journald`, a collector of OpenTelemetry logs (`otlp`)." },
    { "required", CFG_ENUM, CFG_OURS, A(required), .choices = choices_required,
      .doc = "What is refused while its line cannot be written: `denials` (they become 503) and "
             "what administrators do; `all`: every request; `none`: lines are lost and counted." },
    { "chain", CFG_ENUM, CFG_OURS, A(chain), .choices = choices_chain,
      .doc = "Link every line to the one before, so that `postern audit verify` sees what was "
             "changed or taken out: `hmac` with a key of `shared_secret`, `sha256` without one." },
    { "folder", CFG_TEXT, CFG_OURS, A(folder), 1, 3000,
      .doc = "`file`: the folder of `authorize.audit.log` and `databroker.audit.log`. Two of a "
             "kind on one machine need each their own: `AUDIT_FOLDER`." },
    { "group_readable", CFG_BOOL, CFG_OURS, A(group_readable),
      .doc = "`file`: mode 0640 instead of 0600." },
    { "fsync", CFG_BOOL, CFG_OURS, A(fsync),
      .doc = "`file`: a line counts as written when the disk has it, not the kernel." },
    { "rotate_size", CFG_COUNT, CFG_OURS, A(rotate_mib), 0, 1048576, 0,
      .doc = "`file`: begin a new one at so many MiB; 0 is never." },
    { "rotate_interval", CFG_DURATION, CFG_OURS, A(rotate_ms), 0, 400LL * DAY, 0,
      .doc = "`file`: begin a new one after this time; 0 is never." },
    { "keep", CFG_COUNT, CFG_OURS, A(keep), 1, 10000, 10,
      .doc = "`file`: how many older ones stay, `….log.1` the youngest." },
    { "socket", CFG_TEXT, CFG_OURS, A(socket), 1, 107,
      .def_shown = "`/dev/log`, `/run/systemd/journal/socket`",
      .doc = "`syslog`, `journald`: the daemon's socket, for datagrams." },
    { "otlp_endpoint", CFG_LINK, CFG_OURS, A(otlp_endpoint),
      .doc = "`otlp`: the collector, `https://host:4318`; `/v1/logs` is added. http only to this "
             "machine." },
    { "otlp_headers", CFG_SECRET_TEXT, CFG_OURS | CFG_HAS_FILE | CFG_ONLY_AUDIT, A(otlp_headers),
      .doc = "`otlp`: headers for the collector, `Name=value,Name=value`, up to 16." },
    { "otlp_ca_file", CFG_FILE, CFG_OURS | CFG_ONLY_AUDIT, A(otlp_ca_file),
      .doc = "`otlp`: certificates (PEM) to verify the collector with, instead of the system's." },
    { "otlp_timeout", CFG_DURATION, CFG_OURS, A(otlp_timeout_ms), 100, 5 * MINUTE, 10 * SECOND,
      .doc = "`otlp`: for one request." },
};

const struct config_rows config_rows_audit = { .v = audit_rows,
                                               .n = ARRAY_LEN(audit_rows),
                                               .what = "setting of audit",
                                               .env = "audit_" };

void config_read_audit_env(struct config_reader *r)
{
    CHECK(ARRAY_LEN(audit_rows) <= CONFIG_AUDIT_ROWS);
    r->audit_place =
        (struct config_place){ r->c->file.n != 0 ? r->c->file.p : "environment", 0, 0 };
    config_read_env(r, &config_rows_audit, &r->c->audit, r->audit_given, r->audit_env);
}

void config_read_audit(struct config_reader *r, const struct config_value *v, void *base)
{
    struct config *c = base;

    r->audit_place = v->place;
    config_read_object(r, &config_rows_audit, v, &c->audit, r->audit_given, r->audit_env);
}

/* A setting that says nothing is a mistake of the one who wrote it. */
static void check_belongs(struct config_reader *r, bool is_used, const char *sink,
                          const char *const *names)
{
    for (size_t i = 0; names[i] != NULL; i++) {
        if (!is_used && config_rows_given(&config_rows_audit, r->audit_given, names[i])) {
            config_error(r, r->audit_place, "audit.%s: it belongs to sink: %s", names[i], sink);
        }
    }
}

static void check_otlp(struct config_reader *r)
{
    struct sv url = r->c->audit.otlp_endpoint;

    if (url.n == 0) {
        config_error(r, r->audit_place,
                     "audit.otlp_endpoint is missing: sink: otlp needs to know where, for example "
                     "otlp_endpoint: https://collector.example.com:4318");
    } else if (!sv_istarts(url, SV("https://")) && !config_is_of_this_machine(url)) {
        config_error(r, r->audit_place,
                     "audit.otlp_endpoint: lines tell who did what: only https, or http to a "
                     "collector on this machine");
    }
    config_check_headers(r, r->audit_place, "audit.otlp_headers", r->c->audit.otlp_headers);
}

static void check_file(struct config_reader *r)
{
    struct config_audit *audit = &r->c->audit;

    if (audit->folder.n == 0) {
        config_error(r, r->audit_place,
                     "audit.folder is missing: sink: file needs to know where, for example "
                     "folder: /var/log/postern");
        return;
    }
    audit->folder = config_path(r, audit->folder);
}

void config_check_audit(struct config_reader *r)
{
    static const char *const of_file[] = { "folder",      "group_readable",  "fsync",
                                           "rotate_size", "rotate_interval", "keep",
                                           NULL };
    static const char *const of_socket[] = { "socket", NULL };
    static const char *const of_otlp[] = { "otlp_endpoint", "otlp_headers", "otlp_ca_file",
                                           "otlp_timeout", NULL };
    struct config_audit *audit = &r->c->audit;
    bool is_socket = audit->sink == CONFIG_AUDIT_SYSLOG || audit->sink == CONFIG_AUDIT_JOURNALD;

    check_belongs(r, audit->sink == CONFIG_AUDIT_FILE, "file", of_file);
    check_belongs(r, is_socket, "syslog or journald", of_socket);
    check_belongs(r, audit->sink == CONFIG_AUDIT_OTLP, "otlp", of_otlp);
    if (audit->sink == CONFIG_AUDIT_FILE) {
        check_file(r);
    } else if (audit->sink == CONFIG_AUDIT_OTLP) {
        check_otlp(r);
    } else if (audit->socket.n != 0) {
        audit->socket = config_path(r, audit->socket);
    }
}

bool config_audit_same(const struct config_audit *a, const struct config_audit *b)
{
    return a->sink == b->sink && a->required == b->required && a->chain == b->chain &&
           sv_eq(a->folder, b->folder) && a->group_readable == b->group_readable &&
           a->fsync == b->fsync && a->rotate_mib == b->rotate_mib && a->rotate_ms == b->rotate_ms &&
           a->keep == b->keep && sv_eq(a->socket, b->socket) &&
           sv_eq(a->otlp_endpoint, b->otlp_endpoint) &&
           config_same_secret(a->otlp_headers, b->otlp_headers) &&
           sv_eq(a->otlp_ca_file, b->otlp_ca_file) && a->otlp_timeout_ms == b->otlp_timeout_ms;
}
