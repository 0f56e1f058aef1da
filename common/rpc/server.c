#include "common/rpc/server.h"

#include <pthread.h>
#include <stdio.h>
#include <string.h>

#include <grpc/grpc_security.h>
#include <grpc/support/alloc.h>
#include <grpc/support/time.h>

#include "common/list.h"
#include "common/log.h"
#include "common/mem.h"
#include "common/rpc/call.h"
#include "common/rpc/core.h"
#include "common/rpc/direct.h"
#include "common/rpc/health.h"
#include "common/rpc/listen.h"
#include "common/rpc/proof.h"
#include "common/rpc/reflection.h"
#include "common/rpc/scan.h"

enum { ACCEPTS = 64, TEXT_MAX = 256, STRANGER_BYTES_MAX = 1024 };

struct rpc_server {
    struct rpc *rpc;
    grpc_server *server;
    struct rpc_server_opts opts;
    struct rpc_listen listen;
    struct rpc_direct *direct; /* NULL: there is none */
    struct list calls;         /* accepted, not closed */
    size_t n_calls;            /* of those */
    size_t pending;            /* accepts and calls that still have ops out */
    bool stopping;
    struct rpc_health health;
    struct rpc_reflection reflection;
    size_t n_strangers; /* open calls of methods that are open to anyone */
    struct rpc_gate gate;
    struct rpc_op shut_op;
    pthread_mutex_t mutex; /* over idle */
    pthread_cond_t idle_cond;
    bool idle;
};

enum call_state { CALL_WAITING = 0, CALL_READING, CALL_OPEN, CALL_ENDING, CALL_OVER };

/*  WAITING --accepted--> READING --request--> OPEN --reply, fail, finish--> ENDING --all ops back--> OVER
 *  (a refused call goes from WAITING to ENDING) */
struct core_call {
    struct rpc_call base;
    struct rpc_server *server;
    struct list in_calls;
    enum call_state state;
    grpc_call *call;
    grpc_call_details details;
    grpc_metadata_array metadata;
    const struct rpc_method *method;
    void *method_arg; /* for its handler */
    unsigned ops;     /* out with gRPC */
    struct rpc_op accept_op;
    struct rpc_op close_op;
    struct rpc_op read_op;
    struct rpc_op write_op;
    struct rpc_op end_op;
    int cancelled; /* gRPC writes it for close_op */
    grpc_byte_buffer *in;
    grpc_byte_buffer *out;
    bool sent_head;
    bool writing;
    bool reading_done; /* the client said its last */
    bool gone;         /* the client left */
    bool stranger;     /* of a method that is open to anyone: counted */
    bool finish_wanted;
    enum rpc_status finish_status;
    char finish_text[TEXT_MAX];
    const struct rpc_stream_ops *ops_of;
    void *arg;
};

static void accept_next(struct rpc_server *server);

/* ---- ends ------------------------------------------------------------------------------------ */

static void server_maybe_idle(struct rpc_server *server)
{
    if (server->stopping && server->pending == 0) {
        (void)pthread_mutex_lock(&server->mutex);
        server->idle = true;
        (void)pthread_cond_signal(&server->idle_cond);
        (void)pthread_mutex_unlock(&server->mutex);
    }
}

static void call_free(struct core_call *call)
{
    struct rpc_server *server = call->server;

    list_remove(&call->in_calls);
    if (call->call != NULL) {
        grpc_call_unref(call->call);
    }
    grpc_call_details_destroy(&call->details);
    grpc_metadata_array_destroy(&call->metadata);
    if (call->in != NULL) {
        grpc_byte_buffer_destroy(call->in);
    }
    if (call->out != NULL) {
        grpc_byte_buffer_destroy(call->out);
    }
    mem_free(&call);
    server->pending--;
    server_maybe_idle(server);
}

/* An op came back; after the last one of a call that is ending, tells its owner and frees it. */
static void call_op_back(struct core_call *call)
{
    call->ops--;
    if (call->state != CALL_ENDING || call->ops != 0) {
        return;
    }
    call->state = CALL_OVER;
    call->server->n_calls--;
    call->server->n_strangers -= call->stranger ? 1 : 0;
    if (call->ops_of != NULL && call->ops_of->on_closed != NULL) {
        call->ops_of->on_closed(call->arg);
    }
    call_free(call);
}

static size_t head_op(struct core_call *call, grpc_op *op)
{
    if (call->sent_head) {
        return 0;
    }
    call->sent_head = true;
    *op = (grpc_op){ .op = GRPC_OP_SEND_INITIAL_METADATA };
    return 1;
}

static void on_ended(struct rpc_op *op)
{
    struct core_call *call = CONTAINER_OF(op, struct core_call, end_op);

    if (!op->ok || (call->method != NULL && call->method->client_streams)) {
        grpc_call_cancel(call->call, NULL); /* or the read that is out would stay out */
    }
    call_op_back(call);
}

static struct core_call *core_of(struct rpc_call *call)
{
    return CONTAINER_OF(call, struct core_call, base);
}

static void core_end(struct rpc_call *base, enum rpc_status status, const char *text,
                     const struct sv *response)
{
    struct core_call *call = core_of(base);
    grpc_op ops[3];
    size_t n = 0;
    grpc_slice details = grpc_slice_from_copied_string(text == NULL ? "" : text);

    CHECK(call->state != CALL_ENDING && call->state != CALL_OVER);
    call->state = CALL_ENDING;
    n = head_op(call, &ops[0]);
    if (response != NULL) {
        call->out = rpc_message_of(*response);
        ops[n++] =
            (grpc_op){ .op = GRPC_OP_SEND_MESSAGE, .data.send_message.send_message = call->out };
    }
    ops[n++] = (grpc_op){ .op = GRPC_OP_SEND_STATUS_FROM_SERVER,
                          .data.send_status_from_server = { .status = (grpc_status_code)status,
                                                            .status_details = &details } };
    call->end_op.done = on_ended;
    call->ops++;
    rpc_start(call->call, ops, n, &call->end_op);
    grpc_slice_unref(details);
}

/* ---- streams --------------------------------------------------------------------------------- */

static void on_written(struct rpc_op *op)
{
    struct core_call *call = CONTAINER_OF(op, struct core_call, write_op);

    call->writing = false;
    if (call->out != NULL) {
        grpc_byte_buffer_destroy(call->out);
        call->out = NULL;
    }
    if (!op->ok) {
        call->gone = true;
    }
    if (call->finish_wanted && call->state == CALL_OPEN) {
        core_end(&call->base, call->finish_status, call->finish_text, NULL);
    } else if (call->state == CALL_OPEN && !call->gone && call->ops_of != NULL &&
               call->ops_of->on_writable != NULL) {
        call->ops_of->on_writable(call->arg);
    }
    call_op_back(call);
}

static bool core_can_send(const struct rpc_call *base)
{
    const struct core_call *call = core_of(base_unconst(base));

    return call->state == CALL_OPEN && !call->writing && !call->gone && !call->finish_wanted;
}

static void core_send(struct rpc_call *base, struct sv bytes)
{
    struct core_call *call = core_of(base);
    grpc_op ops[2];
    size_t n = 0;

    if (call->state == CALL_ENDING || call->gone || call->finish_wanted) {
        return; /* nobody listens any more; on_closed tells */
    }
    CHECK(core_can_send(base));
    n = head_op(call, &ops[0]);
    call->out = rpc_message_of(bytes);
    ops[n++] = (grpc_op){ .op = GRPC_OP_SEND_MESSAGE, .data.send_message.send_message = call->out };
    call->writing = true;
    call->write_op.done = on_written;
    call->ops++;
    rpc_start(call->call, ops, n, &call->write_op);
}

static void core_finish(struct rpc_call *base, enum rpc_status status, const char *text)
{
    struct core_call *call = core_of(base);

    if (call->state != CALL_OPEN || call->finish_wanted) {
        return;
    }
    if (!call->writing) {
        core_end(base, status, text, NULL);
        return;
    }
    call->finish_wanted = true;
    call->finish_status = status;
    (void)snprintf(call->finish_text, sizeof(call->finish_text), "%s", text == NULL ? "" : text);
}

static void core_stream(struct rpc_call *base, const struct rpc_stream_ops *ops, void *arg)
{
    struct core_call *call = core_of(base);

    call->ops_of = ops;
    call->arg = arg;
    if (call->gone) { /* before it became a stream: nobody has been told yet */
        core_finish(base, RPC_CANCELLED, "the caller left");
    }
}

static const struct rpc_carrier core_carrier = { .stream = core_stream,
                                                 .send = core_send,
                                                 .can_send = core_can_send,
                                                 .finish = core_finish,
                                                 .end = core_end };

static void read_next(struct core_call *call);

static void on_stream_read(struct rpc_op *op)
{
    struct core_call *call = CONTAINER_OF(op, struct core_call, read_op);

    if (op->ok && call->in != NULL && call->state == CALL_OPEN) {
        char *room = NULL;
        struct sv bytes = rpc_message_bytes(call->in, &room);

        call->ops_of->on_message(call->arg, bytes);
        mem_free(&room);
    } else if (call->in == NULL) {
        call->reading_done = true;
    }
    if (call->in != NULL) {
        grpc_byte_buffer_destroy(call->in);
        call->in = NULL;
    }
    if (call->state == CALL_OPEN && call->reading_done && call->ops_of->on_client_done != NULL) {
        call->ops_of->on_client_done(call->arg);
    } else if (call->state == CALL_OPEN && call->reading_done) {
        rpc_call_finish(&call->base, RPC_OK, NULL);
    } else if (call->state == CALL_OPEN) {
        read_next(call);
    }
    call_op_back(call);
}

static void read_next(struct core_call *call)
{
    grpc_op op = { .op = GRPC_OP_RECV_MESSAGE, .data.recv_message.recv_message = &call->in };

    call->read_op.done = on_stream_read;
    call->ops++;
    rpc_start(call->call, &op, 1, &call->read_op);
}

/* ---- requests -------------------------------------------------------------------------------- */

static void run_handler(struct core_call *call, struct sv bytes)
{
    ProtobufCMessage *request = NULL;
    enum err err = ERR_LIMIT;

    if (!call->stranger || bytes.n <= STRANGER_BYTES_MAX) {
        err = rpc_unpack(call->method->request, bytes, NULL, &request);
    }
    if (err != ERR_OK) {
        rpc_call_fail(&call->base, err == ERR_LIMIT ? RPC_RESOURCE_EXHAUSTED : RPC_INVALID_ARGUMENT,
                      "the request is no message of its type");
        return;
    }
    call->method->handler(&call->base, request, call->method_arg);
    protobuf_c_message_free_unpacked(request, NULL);
}

static void on_request_read(struct rpc_op *op)
{
    struct core_call *call = CONTAINER_OF(op, struct core_call, read_op);

    if (call->state == CALL_READING) {
        call->state = CALL_OPEN;
        if (call->gone) {
            rpc_call_fail(&call->base, RPC_CANCELLED, "the caller left");
        } else if (op->ok && call->in != NULL) {
            char *room = NULL;
            grpc_byte_buffer *in = call->in;
            struct sv bytes = rpc_message_bytes(in, &room);

            call->in = NULL;
            run_handler(call, bytes);
            mem_free(&room);
            grpc_byte_buffer_destroy(in);
        } else {
            rpc_call_fail(&call->base, RPC_INVALID_ARGUMENT, "the request is missing or too large");
        }
    }
    call_op_back(call);
}

static void on_client_closed(struct rpc_op *op)
{
    struct core_call *call = CONTAINER_OF(op, struct core_call, close_op);

    if (call->cancelled != 0) {
        call->gone = true;
        if (call->state == CALL_OPEN && call->ops_of != NULL) {
            rpc_call_finish(&call->base, RPC_CANCELLED, "the caller left");
        }
    }
    call_op_back(call);
}

static void start_call(struct core_call *call)
{
    grpc_op op = { .op = GRPC_OP_RECV_MESSAGE, .data.recv_message.recv_message = &call->in };

    if (call->method->client_streams) {
        grpc_op head = { .op = GRPC_OP_SEND_INITIAL_METADATA };

        call->state = CALL_OPEN;
        call->method->handler(&call->base, NULL, call->method_arg);
        if (call->state != CALL_OPEN) {
            return;
        }
        CHECK(call->ops_of != NULL && call->ops_of->on_message != NULL);
        call->sent_head = true;
        call->writing = true; /* the head counts as a write: on_writable follows it */
        call->write_op.done = on_written;
        call->ops++;
        rpc_start(call->call, &head, 1, &call->write_op);
        read_next(call);
        return;
    }
    call->state = CALL_READING;
    call->read_op.done = on_request_read;
    call->ops++;
    rpc_start(call->call, &op, 1, &call->read_op);
}

/* ---- who calls ------------------------------------------------------------------------------- */

static enum rpc_role role_by_certificate(grpc_call *call)
{
    grpc_auth_context *auth = grpc_call_auth_context(call);
    enum rpc_role role = RPC_NOBODY;

    if (auth != NULL && grpc_auth_context_peer_is_authenticated(auth) == 1) {
        grpc_auth_property_iterator it =
            grpc_auth_context_find_properties_by_name(auth, GRPC_PEER_SPIFFE_ID_PROPERTY_NAME);
        const grpc_auth_property *one = grpc_auth_property_iterator_next(&it);

        /* Two ids in one certificate name nobody. */
        if (one != NULL && grpc_auth_property_iterator_next(&it) == NULL) {
            role = rpc_role_of_spiffe(sv_of(one->value, one->value_length));
        }
    }
    grpc_auth_context_release(auth);
    return role;
}

static struct sv slice_sv(const grpc_slice *slice)
{
    return sv_of(GRPC_SLICE_START_PTR(*slice), GRPC_SLICE_LENGTH(*slice));
}

/* What stands in the metadata under key, once; *twice_out: more than once, and nothing is returned. */
static struct sv shown_in(const struct core_call *call, struct sv key, bool *twice_out)
{
    struct sv shown = { 0 };

    for (size_t i = 0; i < call->metadata.count; i++) {
        if (sv_eq(slice_sv(&call->metadata.metadata[i].key), key)) {
            if (shown.p != NULL) {
                *twice_out = true;
                return (struct sv){ 0 };
            }
            shown = slice_sv(&call->metadata.metadata[i].value);
        }
    }
    return shown;
}

static void identify(struct core_call *call)
{
    const struct rpc_identity *identity = call->server->opts.identity;
    bool is_tcp = call->server->listen.unix_path[0] == '\0';
    bool twice = false;
    struct rpc_shown shown = { .by = is_tcp ? "certificate" : "proof",
                               .authorization = shown_in(call, SV("authorization"), &twice),
                               .jwt = shown_in(call, SV("jwt"), &twice) };

    if (twice) { /* these would be two callers */
        shown.authorization = (struct sv){ 0 };
        shown.jwt = (struct sv){ 0 };
    }
    shown.certified =
        is_tcp ? role_by_certificate(call->call) : rpc_proof_check(identity, shown.authorization);
    rpc_call_identify(&call->base, &call->server->gate, &shown);
}

/* ---- accepting ------------------------------------------------------------------------------- */

static const struct rpc_method *find_in(const struct rpc_method *methods, size_t n, struct sv path)
{
    for (size_t i = 0; i < n; i++) {
        if (sv_eq(path, sv_from(methods[i].path))) {
            return &methods[i];
        }
    }
    return NULL;
}

/* Sets method and method_arg; method NULL: there is none. */
static void find_method(struct core_call *call, struct sv path)
{
    struct rpc_server *server = call->server;

    call->method_arg = server->opts.arg;
    call->method = find_in(server->opts.methods, server->opts.n_methods, path);
    if (call->method == NULL) {
        call->method_arg = &server->reflection;
        call->method = find_in(rpc_reflection_methods, RPC_REFLECTION_METHODS, path);
    }
    if (call->method == NULL) {
        call->method_arg = &server->health;
        call->method = find_in(rpc_health_methods, RPC_HEALTH_METHODS, path);
        call->stranger = call->method != NULL;
    }
}

static void admit(struct core_call *call)
{
    struct sv path = slice_sv(&call->details.method);
    enum rpc_status status = RPC_OK;
    const char *text = NULL;

    find_method(call, path);
    if (call->method == NULL) {
        rpc_call_fail(&call->base, RPC_UNIMPLEMENTED, "no such method");
        return;
    }
    call->server->n_strangers += call->stranger ? 1 : 0;
    if (call->server->n_calls > RPC_CALLS_MAX || call->server->n_strangers > RPC_STRANGERS_MAX) {
        rpc_call_fail(&call->base, RPC_RESOURCE_EXHAUSTED, "too many calls are open");
        return;
    }
    identify(call);
    status = call->stranger
                 ? RPC_OK
                 : rpc_call_permit(&call->base, &call->server->gate, call->method, &text);
    if (status != RPC_OK) {
        rpc_call_fail(&call->base, status, text);
        return;
    }
    start_call(call);
}

static void on_accepted(struct rpc_op *op)
{
    struct core_call *call = CONTAINER_OF(op, struct core_call, accept_op);
    struct rpc_server *server = call->server;
    grpc_op close = { .op = GRPC_OP_RECV_CLOSE_ON_SERVER,
                      .data.recv_close_on_server.cancelled = &call->cancelled };

    if (!op->ok) {
        call_free(call);
        return;
    }
    if (!server->stopping) {
        accept_next(server);
    }
    list_push_back(&server->calls, &call->in_calls);
    server->n_calls++;
    call->close_op.done = on_client_closed;
    call->ops = 2; /* this one and the watch for the client's end */
    rpc_start(call->call, &close, 1, &call->close_op);
    admit(call);
    call_op_back(call);
}

static void accept_next(struct rpc_server *server)
{
    struct core_call *call = MEM_NEW(struct core_call);

    call->base.carrier = &core_carrier;
    call->server = server;
    list_init(&call->in_calls);
    grpc_call_details_init(&call->details);
    grpc_metadata_array_init(&call->metadata);
    call->accept_op.done = on_accepted;
    server->pending++;
    rpc_give(&call->accept_op);
    CHECK(grpc_server_request_call(server->server, &call->call, &call->details, &call->metadata,
                                   rpc_cq(server->rpc), rpc_cq(server->rpc),
                                   &call->accept_op) == GRPC_CALL_OK);
}

static void start_accepting(void *arg)
{
    struct rpc_server *server = arg;
    int i = 0;

    for (i = 0; i < ACCEPTS; i++) {
        accept_next(server);
    }
    if (server->direct != NULL) {
        rpc_direct_start(server->direct);
    }
    server->pending--; /* this task itself */
}

static void server_destroy(struct rpc_server *server)
{
    grpc_server_destroy(server->server);
    rpc_listen_deinit(&server->listen);
    (void)pthread_mutex_destroy(&server->mutex);
    (void)pthread_cond_destroy(&server->idle_cond);
    mem_free(&server);
}

enum err rpc_server_new(struct rpc *rpc, const struct rpc_server_opts *opts,
                        struct rpc_server **server_out, struct diag *d)
{
    struct rpc_server *server = MEM_NEW(struct rpc_server);
    enum err err = ERR_OK;

    server->rpc = rpc;
    server->opts = *opts;
    server->gate.opts = &server->opts;
    rpc_listen_init(&server->listen, opts->identity, opts->direct != NULL);
    list_init(&server->calls);
    rpc_health_init(&server->health, opts->methods, opts->n_methods);
    server->reflection =
        (struct rpc_reflection){ .methods = opts->methods, .n_methods = opts->n_methods };
    (void)pthread_mutex_init(&server->mutex, NULL);
    (void)pthread_cond_init(&server->idle_cond, NULL);
    server->server = rpc_listen_server();
    grpc_server_register_completion_queue(server->server, rpc_cq(rpc), NULL);
    err = rpc_listen_bind(&server->listen, server->server, opts->address, d);
    if (err != ERR_OK) {
        server_destroy(server);
        return err;
    }
    if (server->listen.direct_fd >= 0) {
        server->direct = rpc_direct_new(rpc_loop(rpc), server->listen.direct_fd, &server->gate);
        server->listen.direct_fd = -1;
    }
    grpc_server_start(server->server);
    server->pending = 1;
    rpc_run(rpc, 0, start_accepting, server);
    *server_out = server;
    return ERR_OK;
}

int rpc_server_port(const struct rpc_server *server)
{
    return server->listen.port;
}

void rpc_server_set_serving(struct rpc_server *server, bool serving)
{
    rpc_health_set(&server->health, serving);
}

static void on_shut(struct rpc_op *op)
{
    struct rpc_server *server = CONTAINER_OF(op, struct rpc_server, shut_op);

    server->pending--;
    server_maybe_idle(server);
}

static void begin_shutdown(void *arg)
{
    struct rpc_server *server = arg;

    server->stopping = true;
    rpc_direct_free(&server->direct);
    server->pending++;
    server->shut_op.done = on_shut;
    rpc_give(&server->shut_op);
    grpc_server_shutdown_and_notify(server->server, rpc_cq(server->rpc), &server->shut_op);
    grpc_server_cancel_all_calls(server->server);
}

static bool server_is_idle(struct rpc_server *server)
{
    bool idle = false;

    (void)pthread_mutex_lock(&server->mutex);
    idle = server->idle;
    (void)pthread_mutex_unlock(&server->mutex);
    return idle;
}

void rpc_server_free(struct rpc_server **server)
{
    struct rpc_server *s = TAKE(*server);

    if (s == NULL) {
        return;
    }
    rpc_run(s->rpc, 0, begin_shutdown, s);
    if (rpc_loop(s->rpc) != NULL && loop_is_mine(rpc_loop(s->rpc))) {
        while (!server_is_idle(s)) {
            (void)event_base_loop(loop_base(rpc_loop(s->rpc)), EVLOOP_ONCE);
        }
    } else {
        (void)pthread_mutex_lock(&s->mutex);
        while (!s->idle) {
            (void)pthread_cond_wait(&s->idle_cond, &s->mutex);
        }
        (void)pthread_mutex_unlock(&s->mutex);
    }
    server_destroy(s);
}
