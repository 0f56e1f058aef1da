/* broker: the databroker as the command line calls it, one blocking call after the other. As role
 * cli when the configuration with its secret can be read, else with a token:
 *   --token-file FILE or $POSTERN_TOKEN, --ca-file FILE (postern ca), --databroker TARGET */
#pragma once

#include "databroker.pb-c.h"
#include "session.pb-c.h"
#include "user.pb-c.h"

#include "common/base.h"
#include "common/config/config.h"
#include "common/rpc/client.h"

#define BROKER_TYPE_SESSION "type.googleapis.com/session.Session"
#define BROKER_TYPE_USER    "type.googleapis.com/user.User"
#define BROKER_TYPE_ACCESS  "postern.io/SessionAccess"
#define BROKER_TYPE_ACCOUNT "type.googleapis.com/user.ServiceAccount"

struct cli_broker {
    struct config *config;
    struct rpc_identity *identity;
    struct rpc_client_opts opts;
    char *ca_pem;
    char *token;
    const char *config_file;
    const char *token_file;
    const char *ca_file;
    const char *target;
};

/* Takes one of the options above; false: it is none of them. */
bool cli_broker_option(struct cli_broker *b, int option, const char *value);
/* For getopt_long; add to the command's own. */
#define CLI_BROKER_OPTIONS                                                                      \
    { "config", required_argument, NULL, 'c' }, { "token-file", required_argument, NULL, 't' }, \
        { "ca-file", required_argument, NULL, 'a' },                                            \
        { "databroker", required_argument, NULL, 'd' },                                         \
    {                                                                                           \
        "help", no_argument, NULL, 'h'                                                          \
    }

/* Prints why not and returns false. */
MUST_CHECK bool cli_broker_open(struct cli_broker *b);
void cli_broker_close(struct cli_broker *b);

/* One call; the caller frees the answer with protobuf_c_message_free_unpacked. NULL: it failed and was
 * said. */
ProtobufCMessage *cli_broker_call(const struct cli_broker *b, const char *path,
                                  const ProtobufCMessage *request,
                                  const ProtobufCMessageDescriptor *answer_type,
                                  int64_t timeout_ms);
/* Every record of a type; the caller frees with protobuf_c_message_free_unpacked. NULL: it failed
 * and was said. */
Databroker__QueryResponse *cli_broker_query(const struct cli_broker *b, const char *type,
                                            int64_t offset);
Databroker__GetResponse *cli_broker_get(const struct cli_broker *b, const char *type,
                                        const char *id, enum rpc_status *status_out);
/* Writes records; false: it failed and was said. */
bool cli_broker_put(const struct cli_broker *b, Databroker__Record *const *records, size_t n);

/* The lease of a name for CLI_BROKER_LEASE_S; false: it failed and was said, *busy_out where somebody
 * else holds it. keep makes it last as long again. */
enum { CLI_BROKER_LEASE_S = 60, CLI_BROKER_LEASE_ID = 64 };

bool cli_broker_lease(const struct cli_broker *b, const char *name, char id[CLI_BROKER_LEASE_ID],
                      bool *busy_out);
bool cli_broker_lease_keep(const struct cli_broker *b, const char *name, const char *id);
void cli_broker_lease_end(const struct cli_broker *b, const char *name, const char *id);
/* Writes the deletion of records of one type; false: it failed and was said. */
bool cli_broker_delete(const struct cli_broker *b, Databroker__Record *const *records, size_t n);
