#include "databroker/access.h"

#include "common/data/form.h"

static const struct sv own_type = { BROKER_TYPE_KEY, sizeof(BROKER_TYPE_KEY) - 1 };

/* ---- kinds of records ------------------------------------------------------------------------- */

/* Without the host that a type URL may begin with. */
static struct sv name_of(struct sv type)
{
    struct sv host = SV("type.googleapis.com/");

    return sv_starts(type, host) ? sv_from_at(type, host.n) : type;
}

static bool is_any(struct sv type)
{
    (void)type;
    return true;
}

static bool is_about_sessions(struct sv type)
{
    return sv_eq(type, SV(BROKER_TYPE_SESSION)) || sv_eq(type, SV(BROKER_TYPE_USER)) ||
           sv_eq(type, SV(BROKER_TYPE_ACCESS)) ||
           sv_eq(name_of(type), SV(BROKER_TYPE_DIRECTORY_USER));
}

static bool is_directory(struct sv type)
{
    struct sv name = name_of(type);

    return sv_eq(name, SV(BROKER_TYPE_DIRECTORY_USER)) ||
           sv_eq(name, SV(BROKER_TYPE_DIRECTORY_GROUP)) || sv_eq(type, SV(DATA_DIRECTORY_TYPE));
}

static bool is_config(struct sv type)
{
    static const char *const names[] = { "Config", "VersionedConfig", "Route",
                                         "Policy", "Settings",        "KeyPair" };
    struct sv package = SV("type.googleapis.com/pomerium.config.");

    for (size_t i = 0; i < ARRAY_LEN(names) && sv_starts(type, package); i++) {
        if (sv_eq(sv_from_at(type, package.n), sv_from(names[i]))) {
            return true;
        }
    }
    return false;
}

static bool is_use_of_session(struct sv type)
{
    return sv_eq(type, SV(BROKER_TYPE_ACCESS));
}

static bool is_session(struct sv type)
{
    return sv_eq(type, SV(BROKER_TYPE_SESSION));
}

/* ---- roles ------------------------------------------------------------------------------------ */

/* What a role may do with records; one without a row may do nothing with them. */
struct scope {
    bool (*reads)(struct sv type);
    bool (*writes)(struct sv type); /* NULL: none */
    const char *not_read;
    const char *not_written;
    enum rpc_role role;
    bool only_deletes;
};

static const struct scope scopes[] = {
    { .role = RPC_AUTHENTICATE, .reads = is_any, .writes = is_any },
    { .role = RPC_CLI, .reads = is_any, .writes = is_any },
    { .role = RPC_AUTHORIZE,
      .reads = is_any,
      .writes = is_use_of_session,
      .not_written = "an authorize may only write when sessions were used" },
    { .role = RPC_TOKEN_READER, .reads = is_any },
    { .role = RPC_TOKEN_SESSION_ADMIN,
      .reads = is_about_sessions,
      .writes = is_session,
      .only_deletes = true,
      .not_read = "a session-admin reads sessions, users and directory users only",
      .not_written = "a session-admin may only delete sessions" },
    { .role = RPC_TOKEN_RECORD_WRITER,
      .reads = data_type_is_external,
      .writes = data_type_is_external,
      .not_read = "a record-writer reads external data only",
      .not_written = "a record-writer may only write external data" },
    { .role = RPC_TOKEN_DIRECTORY_WRITER,
      .reads = is_directory,
      .writes = is_directory,
      .not_read = "a directory-writer reads directory users and groups only",
      .not_written = "a directory-writer may only write directory users and groups" },
    { .role = RPC_TOKEN_CONFIG_WRITER,
      .reads = is_config,
      .writes = is_config,
      .not_read = "a config-writer reads configuration only (pomerium.config.Route and its kin)",
      .not_written = "a config-writer may only write configuration (pomerium.config.Route and its "
                     "kin)" },
};

bool broker_access_is_daemon(enum rpc_role role)
{
    return role == RPC_PROXY || role == RPC_AUTHORIZE || role == RPC_AUTHENTICATE ||
           role == RPC_DATABROKER;
}

static const struct scope *scope_of(enum rpc_role role)
{
    for (size_t i = 0; i < ARRAY_LEN(scopes); i++) {
        if (scopes[i].role == role) {
            return &scopes[i];
        }
    }
    return NULL;
}

enum err broker_access_read(enum rpc_role role, struct sv type, struct diag *d)
{
    const struct scope *scope = scope_of(role);

    if (scope == NULL) {
        diag_set(d, "the caller's role may not read records");
        return ERR_DENIED;
    }
    if (sv_eq(type, own_type)) {
        diag_set(d, "records of the store itself are for nobody to read");
        return ERR_DENIED;
    }
    if (!scope->reads(type)) {
        diag_set(d, "%s", scope->not_read);
        return ERR_DENIED;
    }
    return ERR_OK;
}

enum err broker_access_options(struct sv type, struct diag *d)
{
    if (sv_eq(type, own_type)) {
        diag_set(d, "records of the store itself take no options");
        return ERR_DENIED;
    }
    return ERR_OK;
}

enum err broker_access_lease(enum rpc_role role, struct sv name, struct diag *d)
{
    if (role == RPC_TOKEN_RECORD_WRITER &&
        !(sv_starts(name, SV(DATA_LEASE)) &&
          data_type_is_external(sv_from_at(name, sizeof(DATA_LEASE) - 1)))) {
        diag_set(d, "a record-writer holds leases of external data only");
        return ERR_DENIED;
    }
    if (role == RPC_TOKEN_DIRECTORY_WRITER && !sv_eq(name, SV(DATA_LEASE DATA_DIRECTORY_TYPE))) {
        diag_set(d, "a directory-writer holds the lease of the directory only");
        return ERR_DENIED;
    }
    return ERR_OK;
}

/* Nobody who may write nothing sends no records either. */
enum err broker_access_put(enum rpc_role role, const struct broker_records *records, struct diag *d)
{
    const struct scope *scope = scope_of(role);

    if (scope == NULL || scope->writes == NULL) {
        diag_set(d, "the caller's role may not write records");
        return ERR_DENIED;
    }
    for (size_t i = 0; i < records->count; i++) {
        const struct broker_record *record = &records->items[i];

        if (sv_eq(record->type, own_type)) {
            diag_set(d, "records of the store itself are for nobody to write");
            return ERR_DENIED;
        }
        if (!scope->writes(record->type) || (scope->only_deletes && record->deleted_us == 0)) {
            diag_set(d, "%s", scope->not_written);
            return ERR_DENIED;
        }
    }
    return ERR_OK;
}
