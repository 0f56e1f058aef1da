#include "databroker/access.h"

static bool admin_sees(struct sv type)
{
    return sv_eq(type, SV(BROKER_TYPE_SESSION)) || sv_eq(type, SV(BROKER_TYPE_USER)) ||
           sv_eq(type, SV(BROKER_TYPE_DIRECTORY_USER)) ||
           sv_eq(type, SV("type.googleapis.com/" BROKER_TYPE_DIRECTORY_USER));
}

enum err broker_access_read(enum rpc_role role, struct sv type, struct diag *d)
{
    if (role == RPC_NOBODY) {
        diag_set(d, "nobody may read records");
        return ERR_DENIED;
    }
    if (role == RPC_TOKEN_SESSION_ADMIN && !admin_sees(type)) {
        diag_set(d, "a session-admin reads sessions, users and directory users only");
        return ERR_DENIED;
    }
    return ERR_OK;
}

enum err broker_access_put(enum rpc_role role, const struct broker_records *records, struct diag *d)
{
    size_t i = 0;

    if (role == RPC_AUTHENTICATE || role == RPC_CLI) {
        return ERR_OK;
    }
    for (i = 0; role == RPC_TOKEN_SESSION_ADMIN && i < records->count; i++) {
        if (records->items[i].deleted_us == 0 ||
            !sv_eq(records->items[i].type, SV(BROKER_TYPE_SESSION))) {
            diag_set(d, "a session-admin may only delete sessions");
            return ERR_DENIED;
        }
    }
    if (role != RPC_TOKEN_SESSION_ADMIN) {
        diag_set(d, "the caller's role may not write records");
        return ERR_DENIED;
    }
    return ERR_OK;
}
