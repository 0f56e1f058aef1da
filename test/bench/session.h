/* session: what a login leaves in a databroker, put there by one of its gRPC clients. */
#pragma once

#include "common/rpc/client.h"

#define BENCH_SESSION "type.googleapis.com/session.Session"
#define BENCH_BROKER  "/databroker.DataBrokerService/"

/* A databroker's client, as authenticate is one. The shared secret comes from SHARED_SECRET. */
struct bench_client;

/* Ends the program where the secret is none. */
struct bench_client *bench_client_new(const char *target);
void bench_client_free(struct bench_client **client);
struct rpc *bench_client_rpc(const struct bench_client *client);
struct rpc_client *bench_client_calls(const struct bench_client *client);

/* Puts a session of some 600 bytes. response: a PutResponse. */
void bench_session_put(const struct bench_client *client, const char *id, rpc_done_fn done,
                       void *arg);
/* Ends the program, with a sentence, unless status is RPC_OK. */
void bench_must(enum rpc_status status, const char *text);
