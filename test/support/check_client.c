#include "test/support/check_client.h"

#include <string.h>

#include <grpc/byte_buffer_reader.h>
#include <grpc/grpc.h>
#include <grpc/grpc_security.h>
#include <grpc/support/time.h>

#include "common/mem.h"
#include "common/rpc/proof.h"

enum tag { TAG_OPEN = 1, TAG_WRITE, TAG_READ, TAG_STATUS };

struct check_client {
    grpc_completion_queue *cq;
    grpc_channel *channel;
    grpc_call *call;
    grpc_metadata proof;
    grpc_metadata_array head;
    grpc_metadata_array tail;
    grpc_status_code status;
    grpc_slice details;
    grpc_byte_buffer *in;
    bool reading;
    bool got; /* in holds a message, or the end of them */
    bool writing;
    bool opening;
    bool ended;
    char tags[TAG_STATUS + 1]; /* their addresses are the tags */
};

static void start(struct check_client *c, const grpc_op *ops, size_t n, enum tag tag)
{
    CHECK(grpc_call_start_batch(c->call, ops, n, &c->tags[tag], NULL) == GRPC_CALL_OK);
}

/* Waits for one event; false: none in time. */
static bool turn(struct check_client *c, int64_t timeout_ms)
{
    gpr_timespec until =
        gpr_time_add(gpr_now(GPR_CLOCK_MONOTONIC), gpr_time_from_millis(timeout_ms, GPR_TIMESPAN));
    grpc_event ev = grpc_completion_queue_next(c->cq, until, NULL);

    if (ev.type != GRPC_OP_COMPLETE) {
        return false;
    }
    switch ((enum tag)((char *)ev.tag - c->tags)) {
    case TAG_OPEN:
        c->opening = false;
        break;
    case TAG_WRITE:
        c->writing = false;
        break;
    case TAG_READ:
        c->reading = false;
        c->got = true;
        break;
    case TAG_STATUS:
        c->ended = true;
        break;
    }
    return true;
}

/* An authorize of a test is on a unix socket. */
static void open_call(struct check_client *c, const char *target,
                      const struct rpc_identity *identity)
{
    grpc_channel_credentials *creds = grpc_insecure_credentials_create();
    char own[] = GRPC_ARG_USE_LOCAL_SUBCHANNEL_POOL; /* as proxies: a connection of its own */
    grpc_arg arg = { .type = GRPC_ARG_INTEGER, .key = own, .value.integer = 1 };
    grpc_channel_args args = { .num_args = 1, .args = &arg };
    char proof[RPC_PROOF_SIZE];

    rpc_proof_make(identity, RPC_AUTHORIZE, proof);
    c->proof.key = grpc_slice_from_static_string("authorization");
    c->proof.value = grpc_slice_from_copied_string(proof);
    c->channel = grpc_channel_create(target, creds, &args);
    grpc_channel_credentials_release(creds);
    c->call =
        grpc_channel_create_call(c->channel, NULL, GRPC_PROPAGATE_DEFAULTS, c->cq,
                                 grpc_slice_from_static_string("/postern.Authorize/CheckStream"),
                                 NULL, gpr_inf_future(GPR_CLOCK_REALTIME), NULL);
}

struct check_client *check_client_new(const char *target, const struct rpc_identity *identity)
{
    struct check_client *c = MEM_NEW(struct check_client);

    grpc_init();
    c->cq = grpc_completion_queue_create_for_next(NULL);
    open_call(c, target, identity);
    grpc_metadata_array_init(&c->head);
    grpc_metadata_array_init(&c->tail);
    grpc_op open[] = {
        { .op = GRPC_OP_SEND_INITIAL_METADATA,
          .flags = GRPC_INITIAL_METADATA_WAIT_FOR_READY,
          .data.send_initial_metadata = { .count = 1, .metadata = &c->proof } },
        { .op = GRPC_OP_RECV_INITIAL_METADATA,
          .data.recv_initial_metadata.recv_initial_metadata = &c->head },
    };
    grpc_op status = { .op = GRPC_OP_RECV_STATUS_ON_CLIENT,
                       .data.recv_status_on_client = { .trailing_metadata = &c->tail,
                                                       .status = &c->status,
                                                       .status_details = &c->details } };
    c->opening = true;
    start(c, open, 2, TAG_OPEN);
    start(c, &status, 1, TAG_STATUS);
    return c;
}

void check_client_send_bytes(struct check_client *c, struct sv bytes)
{
    grpc_slice slice = grpc_slice_from_copied_buffer(bytes.p, bytes.n);
    grpc_byte_buffer *out = grpc_raw_byte_buffer_create(&slice, 1);
    grpc_op op = { .op = GRPC_OP_SEND_MESSAGE, .data.send_message.send_message = out };

    while (c->opening && !c->ended) {
        (void)turn(c, 1000);
    }
    c->writing = true;
    start(c, &op, 1, TAG_WRITE);
    while (c->writing) {
        (void)turn(c, 1000);
    }
    grpc_byte_buffer_destroy(out);
    grpc_slice_unref(slice);
}

void check_client_send(struct check_client *c, const Postern__CheckBatch *batch)
{
    size_t n = protobuf_c_message_get_packed_size(&batch->base);
    uint8_t *bytes = mem_alloc(n + 1);

    (void)protobuf_c_message_pack(&batch->base, bytes);
    check_client_send_bytes(c, sv_of(bytes, n));
    mem_free(&bytes);
}

Postern__ReplyBatch *check_client_receive(struct check_client *c, int64_t timeout_ms)
{
    Postern__ReplyBatch *batch = NULL;

    if (!c->reading && !c->got) {
        grpc_op op = { .op = GRPC_OP_RECV_MESSAGE, .data.recv_message.recv_message = &c->in };

        c->reading = true;
        start(c, &op, 1, TAG_READ);
    }
    while (!c->got && turn(c, timeout_ms)) {
    }
    if (!c->got) {
        return NULL;
    }
    c->got = false;
    if (c->in == NULL) {
        while (!c->ended && turn(c, timeout_ms)) {
        }
        return NULL;
    }
    grpc_byte_buffer_reader reader;

    CHECK(grpc_byte_buffer_reader_init(&reader, c->in) == 1);
    grpc_slice all = grpc_byte_buffer_reader_readall(&reader);

    batch = postern__reply_batch__unpack(NULL, GRPC_SLICE_LENGTH(all), GRPC_SLICE_START_PTR(all));
    grpc_slice_unref(all);
    grpc_byte_buffer_reader_destroy(&reader);
    grpc_byte_buffer_destroy(c->in);
    c->in = NULL;
    return batch;
}

bool check_client_ended(const struct check_client *c)
{
    return c->ended;
}

void check_client_free(struct check_client **client)
{
    struct check_client *c = TAKE(*client);

    if (c == NULL) {
        return;
    }
    grpc_call_cancel(c->call, NULL);
    while ((!c->ended || c->reading || c->opening) && turn(c, 5000)) {
    }
    if (c->in != NULL) {
        grpc_byte_buffer_destroy(c->in);
    }
    grpc_slice_unref(c->proof.value);
    grpc_call_unref(c->call);
    grpc_channel_destroy(c->channel);
    grpc_metadata_array_destroy(&c->head);
    grpc_metadata_array_destroy(&c->tail);
    grpc_slice_unref(c->details);
    grpc_completion_queue_shutdown(c->cq);
    while (grpc_completion_queue_next(c->cq, gpr_inf_future(GPR_CLOCK_REALTIME), NULL).type !=
           GRPC_QUEUE_SHUTDOWN) {
    }
    grpc_completion_queue_destroy(c->cq);
    mem_free(&c);
    grpc_shutdown();
}
