/* The audit: where its lines go and how. */
#include <string.h>

#include "common/config/reader.h"

#define A(member) offsetof(struct config_audit, member)

static const struct config_choice choices_sink[] = { { "stdout", CONFIG_AUDIT_STDOUT },
                                                     { "file", CONFIG_AUDIT_FILE },
                                                     { NULL, 0 } };
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
      .doc = "Where lines go: standard output, or a file for each part in `folder`." },
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
};

const struct config_rows config_rows_audit = { .v = audit_rows,
                                               .n = ARRAY_LEN(audit_rows),
                                               .what = "setting of audit",
                                               .env = "audit_" };

static bool is_given(const struct config_reader *r, const char *name)
{
    for (size_t i = 0; i < ARRAY_LEN(audit_rows); i++) {
        if (strcmp(audit_rows[i].name, name) == 0) {
            return r->audit_given[i];
        }
    }
    CHECK(false);
    return false;
}

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
        if (!is_used && is_given(r, names[i])) {
            config_error(r, r->audit_place, "audit.%s: it belongs to sink: %s", names[i], sink);
        }
    }
}

void config_check_audit(struct config_reader *r)
{
    static const char *const of_file[] = { "folder",      "group_readable",  "fsync",
                                           "rotate_size", "rotate_interval", "keep",
                                           NULL };
    struct config_audit *audit = &r->c->audit;

    check_belongs(r, audit->sink == CONFIG_AUDIT_FILE, "file", of_file);
    if (audit->sink != CONFIG_AUDIT_FILE) {
        return;
    }
    if (audit->folder.n == 0) {
        config_error(r, r->audit_place,
                     "audit.folder is missing: sink: file needs to know where, for example "
                     "folder: /var/log/postern");
        return;
    }
    audit->folder = config_path(r, audit->folder);
}

bool config_audit_same(const struct config_audit *a, const struct config_audit *b)
{
    return a->sink == b->sink && a->required == b->required && a->chain == b->chain &&
           sv_eq(a->folder, b->folder) && a->group_readable == b->group_readable &&
           a->fsync == b->fsync && a->rotate_mib == b->rotate_mib && a->rotate_ms == b->rotate_ms &&
           a->keep == b->keep;
}
