/* broker_access: what a caller may do beyond which methods its role may call (the table in
 * service.c). A session-admin token sees sessions, users and directory users, and writes nothing
 * but the end of a session; an authorize writes when sessions were used; a directory-writer token sees
 * and writes directory users and groups, a config-writer token Pomerium's records of configuration, a
 * record-writer token external data (common/data/form.h) and holds leases of that. Pure functions; any
 * thread. */
#pragma once

#include "common/base.h"
#include "common/diag.h"
#include "common/rpc/identity.h"
#include "common/sv.h"
#include "databroker/record.h"

#define BROKER_TYPE_SESSION         "type.googleapis.com/session.Session"
#define BROKER_TYPE_USER            "type.googleapis.com/user.User"
#define BROKER_TYPE_ACCESS          "postern.io/SessionAccess"
#define BROKER_TYPE_DIRECTORY_USER  "pomerium.io/DirectoryUser"
#define BROKER_TYPE_DIRECTORY_GROUP "pomerium.io/DirectoryGroup"

/* One of ours; false: somebody, with a token or the command line. */
bool broker_access_is_daemon(enum rpc_role role);
/* ERR_DENIED; type "": all types. */
MUST_CHECK enum err broker_access_read(enum rpc_role role, struct sv type, struct diag *d);
MUST_CHECK enum err broker_access_lease(enum rpc_role role, struct sv name, struct diag *d);
/* Options of a type: they say when its records are deleted. */
MUST_CHECK enum err broker_access_options(struct sv type, struct diag *d);
MUST_CHECK enum err broker_access_put(enum rpc_role role, const struct broker_records *records,
                                      struct diag *d);
