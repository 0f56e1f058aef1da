#include "databroker/access.h"

#include "common/data/form.h"

static const struct sv own_type = { BROKER_TYPE_KEY, sizeof(BROKER_TYPE_KEY) - 1 };

static bool admin_sees(struct sv type)
{
    return sv_eq(type, SV(BROKER_TYPE_SESSION)) || sv_eq(type, SV(BROKER_TYPE_USER)) ||
           sv_eq(type, SV(BROKER_TYPE_ACCESS)) || sv_eq(type, SV(BROKER_TYPE_DIRECTORY_USER)) ||
           sv_eq(type, SV("type.googleapis.com/" BROKER_TYPE_DIRECTORY_USER));
}

static bool is_directory(struct sv type)
{
    size_t slash = sv_starts(type, SV("type.googleapis.com/")) ? 20 : 0;
    struct sv name = sv_from_at(type, slash);

    return sv_eq(name, SV(BROKER_TYPE_DIRECTORY_USER)) ||
           sv_eq(name, SV(BROKER_TYPE_DIRECTORY_GROUP));
}

enum err broker_access_read(enum rpc_role role, struct sv type, struct diag *d)
{
    if (role == RPC_NOBODY) {
        diag_set(d, "nobody may read records");
        return ERR_DENIED;
    }
    if (sv_eq(type, own_type)) {
        diag_set(d, "records of the store itself are for nobody to read");
        return ERR_DENIED;
    }
    if (role == RPC_TOKEN_SESSION_ADMIN && !admin_sees(type)) {
        diag_set(d, "a session-admin reads sessions, users and directory users only");
        return ERR_DENIED;
    }
    if (role == RPC_TOKEN_RECORD_WRITER && !data_type_is_external(type)) {
        diag_set(d, "a record-writer reads external data only");
        return ERR_DENIED;
    }
    if (role == RPC_TOKEN_DIRECTORY_WRITER && !is_directory(type)) {
        diag_set(d, "a directory-writer reads directory users and groups only");
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
    return ERR_OK;
}

static bool may_put(enum rpc_role role, const struct broker_record *record)
{
    switch (role) {
    case RPC_AUTHENTICATE:
    case RPC_CLI:
        return true;
    case RPC_TOKEN_SESSION_ADMIN:
        return record->deleted_us != 0 && sv_eq(record->type, SV(BROKER_TYPE_SESSION));
    case RPC_TOKEN_RECORD_WRITER:
        return data_type_is_external(record->type);
    case RPC_AUTHORIZE:
        return sv_eq(record->type, SV(BROKER_TYPE_ACCESS));
    case RPC_TOKEN_DIRECTORY_WRITER:
        return is_directory(record->type);
    case RPC_NOBODY:
    case RPC_PROXY:
    case RPC_DATABROKER:
    case RPC_TOKEN_READER:
    case RPC_TOKEN_CHECKER:
        break;
    }
    return false;
}

/* Also where there are no records. */
static bool may_put_some(enum rpc_role role)
{
    return role == RPC_AUTHENTICATE || role == RPC_AUTHORIZE || role == RPC_CLI ||
           role == RPC_TOKEN_SESSION_ADMIN || role == RPC_TOKEN_RECORD_WRITER ||
           role == RPC_TOKEN_DIRECTORY_WRITER;
}

enum err broker_access_put(enum rpc_role role, const struct broker_records *records, struct diag *d)
{
    if (!may_put_some(role)) {
        diag_set(d, "the caller's role may not write records");
        return ERR_DENIED;
    }
    for (size_t i = 0; i < records->count; i++) {
        if (sv_eq(records->items[i].type, own_type)) {
            diag_set(d, "records of the store itself are for nobody to write");
            return ERR_DENIED;
        }
        if (!may_put(role, &records->items[i])) {
            diag_set(
                d, role == RPC_TOKEN_RECORD_WRITER ? "a record-writer may only write external data"
                   : role == RPC_TOKEN_DIRECTORY_WRITER
                       ? "a directory-writer may only write directory users and groups"
                   : role == RPC_AUTHORIZE ? "an authorize may only write when sessions were used"
                                           : "a session-admin may only delete sessions");
            return ERR_DENIED;
        }
    }
    return ERR_OK;
}
