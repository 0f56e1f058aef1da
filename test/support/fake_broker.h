/* fake_broker: a databroker for tests of those who follow one: SyncLatest, Sync, Get and ServerInfo
 * over a list of records in memory, on a thread of its own. It can hold back its stream, forget its
 * past and become another server. All functions from the test's thread. */
#pragma once

#include "databroker.pb-c.h"

#include "common/base.h"
#include "common/rpc/identity.h"

struct fake_broker;

/* address: "unix:/path"; the identity has the databroker's role. */
struct fake_broker *fake_broker_new(const char *address, const struct rpc_identity *identity);
void fake_broker_free(struct fake_broker **broker);
/* Writes a record of that message; NULL: deletes it. Returns its version. */
uint64_t fake_broker_put(struct fake_broker *broker, const char *type, const char *id,
                         const ProtobufCMessage *data);
/* While held, changes are stored but not streamed; Get sees them. */
void fake_broker_hold(struct fake_broker *broker, bool held);
/* Ends every open Sync with ABORTED. */
void fake_broker_abort_streams(struct fake_broker *broker);
/* While refusing, every call fails with UNAVAILABLE and streams end. */
void fake_broker_refuse(struct fake_broker *broker, bool refuse);
unsigned fake_broker_snapshots(struct fake_broker *broker); /* SyncLatest calls so far */
unsigned fake_broker_gets(struct fake_broker *broker);      /* Get calls so far */
