#include "common/rpc/client.h"

#include <stdio.h>
#include <string.h>

#include <grpc/grpc_security.h>
#include <grpc/support/alloc.h>
#include <grpc/support/time.h>

#include "common/buf.h"
#include "common/clock.h"
#include "common/mem.h"
#include "common/rpc/core.h"
#include "common/rpc/proof.h"
#include "common/rpc/scan.h"
#include "common/rpc/server.h"
#include "common/secret.h"

enum { NAME_ROOM = 64, TOKEN_ROOM = 512 };

struct rpc_client {
    struct rpc *rpc;
    grpc_channel *channel;
    char *target;
    enum rpc_role server;
    const struct rpc_identity *identity;
    char *ca_pem;
    char *token;      /* "Bearer …" or NULL */
    bool is_unix;     /* no TLS; identity is shown by a proof */
    bool is_lame;     /* the channel refuses: the socket may be somebody else's */
    int64_t issued_s; /* when the channel's certificate was made */
};

struct rpc_pending {
    struct rpc_client *client;
    grpc_call *call;
    bool cancelled; /* the owner is gone: no callback */
    bool follows;
    unsigned ops;
    struct rpc_op start_op; /* all of a unary call; the first half of a stream */
    struct rpc_op read_op;
    struct rpc_op status_op;
    grpc_metadata_array head;
    grpc_metadata_array trailer;
    grpc_metadata auth;
    grpc_byte_buffer *out;
    grpc_byte_buffer *in;
    grpc_status_code status;
    grpc_slice details;
    const ProtobufCMessageDescriptor *response;
    rpc_done_fn done;
    const struct rpc_follow_ops *ops_of;
    void *arg;
};

/* ---- channel --------------------------------------------------------------------------------- */

static grpc_channel_credentials *credentials(const struct rpc_client *c)
{
    grpc_ssl_pem_key_cert_pair pair = { 0 };
    grpc_channel_credentials *creds = NULL;
    char *cert = NULL;
    char *key = NULL;

    if (c->is_unix) {
        return grpc_insecure_credentials_create();
    }
    if (c->identity == NULL) {
        return grpc_ssl_credentials_create_ex(c->ca_pem, NULL, NULL, NULL);
    }
    rpc_identity_issue(c->identity, RPC_CERT_LIFE_S, &cert, &key);
    pair = (grpc_ssl_pem_key_cert_pair){ .private_key = key, .cert_chain = cert };
    creds = grpc_ssl_credentials_create_ex(rpc_identity_ca_pem(c->identity), &pair, NULL, NULL);
    secret_wipe(key, strlen(key));
    mem_free(&key);
    mem_free(&cert);
    return creds;
}

static grpc_channel *connect_channel(const struct rpc_client *c)
{
    char name[NAME_ROOM];
    char name_key[] = GRPC_SSL_TARGET_NAME_OVERRIDE_ARG;
    char initial[] = GRPC_ARG_INITIAL_RECONNECT_BACKOFF_MS;
    char least[] = GRPC_ARG_MIN_RECONNECT_BACKOFF_MS;
    char most[] = GRPC_ARG_MAX_RECONNECT_BACKOFF_MS;
    char proxy[] = GRPC_ARG_ENABLE_HTTP_PROXY;
    char in_max[] = GRPC_ARG_MAX_RECEIVE_MESSAGE_LENGTH;
    char ping[] = GRPC_ARG_KEEPALIVE_TIME_MS;
    char ping_wait[] = GRPC_ARG_KEEPALIVE_TIMEOUT_MS;
    char ping_idle[] = GRPC_ARG_KEEPALIVE_PERMIT_WITHOUT_CALLS;
    char ping_data[] = GRPC_ARG_HTTP2_MAX_PINGS_WITHOUT_DATA;
    char codings[] = GRPC_COMPRESSION_CHANNEL_ENABLED_ALGORITHMS_BITSET;
    char retries[] = GRPC_ARG_ENABLE_RETRIES;
    grpc_arg args[] = {
        { .type = GRPC_ARG_STRING, .key = name_key, .value.string = name },
        { .type = GRPC_ARG_INTEGER, .key = initial, .value.integer = 100 },
        { .type = GRPC_ARG_INTEGER, .key = least, .value.integer = 2000 },
        { .type = GRPC_ARG_INTEGER, .key = most, .value.integer = 1000 },
        { .type = GRPC_ARG_INTEGER, .key = proxy, .value.integer = 0 },
        { .type = GRPC_ARG_INTEGER, .key = in_max, .value.integer = RPC_MESSAGE_MAX },
        { .type = GRPC_ARG_INTEGER, .key = ping, .value.integer = 10000 },
        { .type = GRPC_ARG_INTEGER, .key = ping_wait, .value.integer = 5000 },
        { .type = GRPC_ARG_INTEGER, .key = ping_idle, .value.integer = 1 },
        { .type = GRPC_ARG_INTEGER, .key = ping_data, .value.integer = 0 },
        { .type = GRPC_ARG_INTEGER, .key = codings, .value.integer = BIT(GRPC_COMPRESS_NONE) },
        { .type = GRPC_ARG_INTEGER, .key = retries, .value.integer = 0 },
    };
    grpc_channel_args list = { .num_args = ARRAY_LEN(args), .args = args };
    grpc_channel_credentials *creds = credentials(c);
    grpc_channel *channel = NULL;

    (void)snprintf(name, sizeof(name), "%s.postern.internal", rpc_role_name(c->server));
    channel = grpc_channel_create(c->target, creds, &list);
    grpc_channel_credentials_release(creds);
    CHECK(channel != NULL);
    return channel;
}

/* A channel keeps its certificate: make a new one long before that ends. Open calls keep the old
 * channel alive until they are over. */
static void renew(struct rpc_client *c)
{
    struct diag d = { .line = 0 };
    bool is_lame = c->is_unix && rpc_unix_check(rpc_unix_path(sv_from(c->target)), &d) != ERR_OK;

    if (c->channel != NULL && c->is_lame == is_lame &&
        (c->is_unix || c->identity == NULL || !rpc_identity_due(c->issued_s))) {
        return;
    }
    if (c->channel != NULL) {
        grpc_channel_destroy(c->channel);
    }
    c->channel = is_lame
                     ? grpc_lame_client_channel_create(c->target, GRPC_STATUS_UNAVAILABLE, d.text)
                     : connect_channel(c);
    c->is_lame = is_lame;
    c->issued_s = clock_wall_s();
}

static void client_init(struct rpc_client *c, const struct rpc_client_opts *opts)
{
    struct sv target = sv_from(opts->target);
    struct sv https = SV("https://");
    struct sv http = SV("http://"); /* Pomerium's files have it; TLS all the same */

    c->is_unix = rpc_unix_path(target).n > 0;
    CHECK(opts->identity != NULL || opts->ca_pem != NULL || c->is_unix);
    if (sv_starts(target, https) || sv_starts(target, http)) {
        target = sv_from_at(target, sv_starts(target, https) ? https.n : http.n);
        target = sv_head(target, target.n - (sv_ends(target, SV("/")) ? 1 : 0));
    }
    c->target = mem_svdup(target);
    c->server = opts->server;
    c->identity = opts->identity;
    c->ca_pem = opts->ca_pem == NULL ? NULL : mem_strdup(opts->ca_pem);
    if (opts->token != NULL) {
        char room[TOKEN_ROOM];

        (void)snprintf(room, sizeof(room), "Bearer %s", opts->token);
        c->token = mem_strdup(room);
        secret_wipe(room, sizeof(room));
    }
}

static void client_deinit(struct rpc_client *c)
{
    if (c->channel != NULL) {
        grpc_channel_destroy(c->channel);
    }
    if (c->token != NULL) {
        secret_wipe(c->token, strlen(c->token));
    }
    mem_free(&c->token);
    mem_free(&c->ca_pem);
    mem_free(&c->target);
}

struct rpc_client *rpc_client_new(struct rpc *rpc, const struct rpc_client_opts *opts)
{
    struct rpc_client *c = MEM_NEW(struct rpc_client);

    c->rpc = rpc;
    client_init(c, opts);
    return c;
}

void rpc_client_free(struct rpc_client **client)
{
    struct rpc_client *c = TAKE(*client);

    if (c != NULL) {
        client_deinit(c);
        mem_free(&c);
    }
}

/* ---- calls ----------------------------------------------------------------------------------- */

static grpc_byte_buffer *pack(const ProtobufCMessage *request)
{
    size_t size = protobuf_c_message_get_packed_size(request);
    grpc_slice slice = grpc_slice_malloc(size);
    grpc_byte_buffer *out = NULL;

    (void)protobuf_c_message_pack(request, GRPC_SLICE_START_PTR(slice));
    out = grpc_raw_byte_buffer_create(&slice, 1);
    grpc_slice_unref(slice);
    return out;
}

static grpc_call *create_call(struct rpc_client *c, grpc_completion_queue *cq, const char *path,
                              int64_t timeout_ms)
{
    gpr_timespec deadline = gpr_inf_future(GPR_CLOCK_MONOTONIC);
    grpc_slice method = grpc_slice_from_copied_string(path);
    grpc_call *call = NULL;

    renew(c);
    if (timeout_ms > 0) {
        deadline = gpr_time_add(gpr_now(GPR_CLOCK_MONOTONIC),
                                gpr_time_from_millis(timeout_ms, GPR_TIMESPAN));
    }
    call = grpc_channel_create_call(c->channel, NULL, GRPC_PROPAGATE_DEFAULTS, cq, method, NULL,
                                    deadline, NULL);
    grpc_slice_unref(method);
    CHECK(call != NULL);
    return call;
}

static struct rpc_pending *pending_new(struct rpc_client *c)
{
    struct rpc_pending *p = MEM_NEW(struct rpc_pending);

    p->client = c;
    p->details = grpc_empty_slice();
    grpc_metadata_array_init(&p->head);
    grpc_metadata_array_init(&p->trailer);
    return p;
}

static void pending_free(struct rpc_pending *p)
{
    grpc_call_unref(p->call);
    grpc_metadata_array_destroy(&p->head);
    grpc_metadata_array_destroy(&p->trailer);
    grpc_slice_unref(p->details);
    if (p->auth.value.refcount != NULL || GRPC_SLICE_LENGTH(p->auth.value) != 0) {
        grpc_slice_unref(p->auth.value);
    }
    if (p->out != NULL) {
        grpc_byte_buffer_destroy(p->out);
    }
    if (p->in != NULL) {
        grpc_byte_buffer_destroy(p->in);
    }
    mem_free(&p);
}

/* Who calls, as metadata; false: the certificate says it, or nobody does. */
static bool show(const struct rpc_client *c, grpc_metadata *auth)
{
    char proof[RPC_PROOF_SIZE];

    if (c->token == NULL && (!c->is_unix || c->identity == NULL)) {
        return false;
    }
    auth->key = grpc_slice_from_static_string("authorization");
    if (c->token != NULL) {
        auth->value = grpc_slice_from_copied_string(c->token);
    } else {
        rpc_proof_make(c->identity, c->server, proof);
        auth->value = grpc_slice_from_copied_string(proof);
        secret_wipe(proof, sizeof(proof));
    }
    return true;
}

/* The ops that send: metadata with the token or proof, the request, the end. */
static size_t sending_ops(struct rpc_pending *p, grpc_op *ops)
{
    size_t n = 0;

    ops[n] = (grpc_op){ .op = GRPC_OP_SEND_INITIAL_METADATA,
                        .flags = GRPC_INITIAL_METADATA_WAIT_FOR_READY |
                                 GRPC_INITIAL_METADATA_WAIT_FOR_READY_EXPLICITLY_SET };
    if (show(p->client, &p->auth)) {
        ops[n].data.send_initial_metadata.count = 1;
        ops[n].data.send_initial_metadata.metadata = &p->auth;
    }
    n++;
    ops[n++] = (grpc_op){ .op = GRPC_OP_SEND_MESSAGE, .data.send_message.send_message = p->out };
    ops[n++] = (grpc_op){ .op = GRPC_OP_SEND_CLOSE_FROM_CLIENT };
    ops[n++] = (grpc_op){ .op = GRPC_OP_RECV_INITIAL_METADATA,
                          .data.recv_initial_metadata.recv_initial_metadata = &p->head };
    return n;
}

static grpc_op status_op(struct rpc_pending *p)
{
    return (grpc_op){ .op = GRPC_OP_RECV_STATUS_ON_CLIENT,
                      .data.recv_status_on_client = { .trailing_metadata = &p->trailer,
                                                      .status = &p->status,
                                                      .status_details = &p->details } };
}

static enum rpc_status pending_status(const struct rpc_pending *p)
{
    return (int)p->status <= (int)RPC_UNAUTHENTICATED ? (enum rpc_status)p->status : RPC_UNKNOWN;
}

static void details_text(const struct rpc_pending *p, char text[RPC_TEXT_MAX])
{
    size_t n = MIN(GRPC_SLICE_LENGTH(p->details), (size_t)RPC_TEXT_MAX - 1);

    memcpy(text, GRPC_SLICE_START_PTR(p->details), n);
    text[n] = '\0';
}

static enum rpc_status unpack_answer(struct rpc_pending *p, ProtobufCMessage **message_out)
{
    char *room = NULL;
    enum err err = ERR_INVALID;

    if (p->in != NULL) {
        err = rpc_unpack(p->response, rpc_message_bytes(p->in, &room), NULL, message_out);
        mem_free(&room);
    }
    return err == ERR_OK ? RPC_OK : RPC_INTERNAL;
}

static void on_unary_done(struct rpc_op *op)
{
    struct rpc_pending *p = CONTAINER_OF(op, struct rpc_pending, start_op);
    enum rpc_status status = pending_status(p);
    ProtobufCMessage *message = NULL;
    char text[RPC_TEXT_MAX];

    details_text(p, text);
    if (status == RPC_OK) {
        status = unpack_answer(p, &message);
    }
    if (!p->cancelled) {
        p->done(p->arg, status, text, message);
    }
    if (message != NULL) {
        protobuf_c_message_free_unpacked(message, NULL);
    }
    pending_free(p);
}

/* NOLINTNEXTLINE(readability-function-size): what, how long and whom to tell are one call */
struct rpc_pending *rpc_client_call(struct rpc_client *client, const char *path,
                                    const ProtobufCMessage *request,
                                    const ProtobufCMessageDescriptor *response, int64_t timeout_ms,
                                    rpc_done_fn done, void *arg)
{
    struct rpc_pending *p = pending_new(client);
    grpc_op ops[6];
    size_t n = 0;

    p->call = create_call(client, rpc_cq(client->rpc), path, timeout_ms);
    p->response = response;
    p->done = done;
    p->arg = arg;
    p->out = pack(request);
    n = sending_ops(p, ops);
    ops[n++] = (grpc_op){ .op = GRPC_OP_RECV_MESSAGE, .data.recv_message.recv_message = &p->in };
    ops[n++] = status_op(p);
    p->start_op.done = on_unary_done;
    rpc_start(p->call, ops, n, &p->start_op);
    return p;
}

/* ---- streams --------------------------------------------------------------------------------- */

static void follow_read(struct rpc_pending *p);

static void follow_op_back(struct rpc_pending *p)
{
    char text[RPC_TEXT_MAX];

    p->ops--;
    if (p->ops != 0) {
        return;
    }
    details_text(p, text);
    if (!p->cancelled) {
        p->ops_of->on_end(p->arg, pending_status(p), text);
    }
    pending_free(p);
}

static void on_follow_read(struct rpc_op *op)
{
    struct rpc_pending *p = CONTAINER_OF(op, struct rpc_pending, read_op);
    grpc_byte_buffer *in = p->in;

    p->in = NULL;
    if (op->ok && in != NULL) {
        char *room = NULL;
        struct sv bytes = rpc_message_bytes(in, &room);

        if (!p->cancelled) {
            p->ops_of->on_message(p->arg, bytes);
        }
        mem_free(&room);
        grpc_byte_buffer_destroy(in);
        if (!p->cancelled) {
            follow_read(p);
        }
    }
    follow_op_back(p);
}

/* Not of one that was cancelled: its queue may be shutting down, and takes no more. */
static void follow_read(struct rpc_pending *p)
{
    grpc_op op = { .op = GRPC_OP_RECV_MESSAGE, .data.recv_message.recv_message = &p->in };

    p->read_op.done = on_follow_read;
    p->ops++;
    rpc_start(p->call, &op, 1, &p->read_op);
}

static void on_follow_start(struct rpc_op *op)
{
    struct rpc_pending *p = CONTAINER_OF(op, struct rpc_pending, start_op);

    if (op->ok && !p->cancelled) {
        follow_read(p);
    }
    follow_op_back(p);
}

static void on_follow_status(struct rpc_op *op)
{
    follow_op_back(CONTAINER_OF(op, struct rpc_pending, status_op));
}

struct rpc_pending *rpc_client_follow(struct rpc_client *client, const char *path,
                                      const ProtobufCMessage *request,
                                      const struct rpc_follow_ops *ops_of, void *arg)
{
    struct rpc_pending *p = pending_new(client);
    grpc_op ops[5];
    grpc_op end = status_op(p);
    size_t n = 0;

    p->follows = true;
    p->call = create_call(client, rpc_cq(client->rpc), path, 0);
    p->ops_of = ops_of;
    p->arg = arg;
    p->out = pack(request);
    n = sending_ops(p, ops);
    p->start_op.done = on_follow_start;
    p->status_op.done = on_follow_status;
    p->ops = 2;
    rpc_start(p->call, &end, 1, &p->status_op);
    rpc_start(p->call, ops, n, &p->start_op);
    return p;
}

void rpc_pending_cancel(struct rpc_pending **pending)
{
    struct rpc_pending *p = TAKE(*pending);

    if (p != NULL) {
        p->cancelled = true;
        grpc_call_cancel(p->call, NULL);
    }
}

/* ---- blocking -------------------------------------------------------------------------------- */

static void wait_one(struct rpc_client *c, struct rpc_pending *p, grpc_completion_queue *cq,
                     const char *path, int64_t timeout_ms)
{
    grpc_op ops[6];
    size_t n = 0;

    p->call = create_call(c, cq, path, timeout_ms);
    n = sending_ops(p, ops);
    ops[n++] = (grpc_op){ .op = GRPC_OP_RECV_MESSAGE, .data.recv_message.recv_message = &p->in };
    ops[n++] = status_op(p);
    rpc_start(p->call, ops, n, &p->start_op);
    (void)grpc_completion_queue_pluck(cq, &p->start_op, gpr_inf_future(GPR_CLOCK_REALTIME), NULL);
}

/* NOLINTNEXTLINE(readability-function-size): what, how long and whom to tell are one call */
enum rpc_status rpc_call_wait(const struct rpc_client_opts *opts, const char *path,
                              const ProtobufCMessage *request,
                              const ProtobufCMessageDescriptor *response, int64_t timeout_ms,
                              ProtobufCMessage **response_out, char text[RPC_TEXT_MAX])
{
    struct rpc_client client = { .rpc = NULL };
    struct rpc_pending *p = NULL;
    grpc_completion_queue *cq = NULL;
    enum rpc_status status = RPC_UNKNOWN;

    rpc_core_up();
    cq = grpc_completion_queue_create_for_pluck(NULL);
    client_init(&client, opts);
    p = pending_new(&client);
    p->response = response;
    p->out = pack(request);
    wait_one(&client, p, cq, path, timeout_ms);
    details_text(p, text);
    status = pending_status(p);
    if (status == RPC_OK) {
        status = unpack_answer(p, response_out);
    }
    pending_free(p);
    client_deinit(&client);
    grpc_completion_queue_shutdown(cq);
    grpc_completion_queue_destroy(cq);
    rpc_core_down();
    return status;
}
