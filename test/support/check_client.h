/* check_client: a blocking CheckStream client on gRPC core, standing in for a proxy in tests and
 * measurements. One thread at a time. */
#pragma once

#include "authorize.pb-c.h"

#include "common/base.h"
#include "common/rpc/identity.h"
#include "common/sv.h"

struct check_client;

struct check_client *check_client_new(const char *target, const struct rpc_identity *identity);
void check_client_free(struct check_client **client);
void check_client_send(struct check_client *client, const Postern__CheckBatch *batch);
void check_client_send_bytes(struct check_client *client, struct sv bytes);
/* The next message, for the caller to free; NULL: the stream ended, or none within timeout_ms. */
Postern__ReplyBatch *check_client_receive(struct check_client *client, int64_t timeout_ms);
/* Whether the stream has ended by the server's word. */
bool check_client_ended(const struct check_client *client);
