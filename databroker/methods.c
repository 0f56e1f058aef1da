/* The calls that read and write records and options. */
#include "google/protobuf/empty.pb-c.h"

#include "common/clock.h"
#include "common/mem.h"
#include "common/rpc/scan.h"
#include "databroker/access.h"
#include "databroker/service_int.h"

enum { OPTIONS_FIELDS_MAX = 64 };

static const int64_t ttl_max_s = INT64_C(10) * 366 * 86400;

static int64_t read_deadline(void)
{
    return clock_mono_ms() + BROKER_READ_MS;
}

/* ---- Get ------------------------------------------------------------------------------------- */

static void read_get(struct broker_op *op)
{
    op->err =
        op->service->ops->get(op->service->store, op->type, op->id, read_deadline(), &op->out);
}

static void reply_get(struct broker_op *op)
{
    Databroker__GetResponse response = DATABROKER__GET_RESPONSE__INIT;
    Databroker__Record record;

    if (op->err != ERR_OK) {
        broker_op_fail(op);
        return;
    }
    broker_wire_record(&op->arena, &op->out.items[0], &record);
    response.record = &record;
    broker_op_reply(op, &response.base);
}

void broker_on_get(struct rpc_call *call, const ProtobufCMessage *request, void *arg)
{
    const Databroker__GetRequest *in = (const Databroker__GetRequest *)(const void *)request;
    struct broker_op *op = broker_op_new(arg, call);

    if (op == NULL) {
        return;
    }
    op->type = arena_sv(&op->arena, sv_from(in->type));
    op->id = arena_sv(&op->arena, sv_from(in->id));
    op->err = broker_name_check(op->type, "type", &op->d);
    if (op->err == ERR_OK) {
        op->err = broker_name_check(op->id, "id", &op->d);
    }
    if (op->err == ERR_OK) {
        op->err = broker_access_read(op->role, op->type, &op->d);
    }
    if (op->err != ERR_OK) {
        broker_op_fail(op);
        return;
    }
    broker_op_read(op, read_get, reply_get);
}

/* ---- Put ------------------------------------------------------------------------------------- */

enum err broker_may_put(struct broker_op *op, const char *action)
{
    op->err = broker_access_put(op->role, &op->in, &op->d);
    if (op->err != ERR_OK) {
        broker_audit_refused(op, action, &op->in);
    }
    return op->err;
}

static void answer_put(struct broker_op *op)
{
    Databroker__PutResponse response = DATABROKER__PUT_RESPONSE__INIT;

    response.server_version = op->write.server_version_out;
    response.records = broker_wire_records(&op->arena, &op->in);
    response.n_records = op->in.count;
    broker_op_reply(op, &response.base);
}

static void reply_put(struct broker_op *op)
{
    if (op->err != ERR_OK) {
        broker_op_fail(op);
        return;
    }
    broker_tokens_written(op->service, &op->in);
    op->reply = answer_put;
    broker_confirm_wait(op);
}

void broker_on_put(struct rpc_call *call, const ProtobufCMessage *request, void *arg)
{
    const Databroker__PutRequest *in = (const Databroker__PutRequest *)(const void *)request;
    struct broker_op *op = broker_op_new(arg, call);

    if (op == NULL) {
        return;
    }
    op->err = broker_wire_read_all(in->records, in->n_records, &op->in, &op->d);
    if (op->err == ERR_OK) {
        op->err = broker_may_put(op, "put");
    }
    if (op->err != ERR_OK) {
        broker_op_fail(op);
        return;
    }
    op->write.records = &op->in;
    broker_op_write(op, BROKER_WRITE_PUT, "put", reply_put);
}

/* ---- types, options, the server itself ------------------------------------------------------- */

static void read_types(struct broker_op *op)
{
    op->err = op->service->ops->types(op->service->store, read_deadline(), &op->out);
}

static void reply_types(struct broker_op *op)
{
    Databroker__ListTypesResponse response = DATABROKER__LIST_TYPES_RESPONSE__INIT;
    size_t i = 0;

    if (op->err != ERR_OK) {
        broker_op_fail(op);
        return;
    }
    response.types = arena_alloc(&op->arena, op->out.count * sizeof(char *));
    response.n_types = op->out.count;
    for (i = 0; i < op->out.count; i++) {
        response.types[i] = broker_wire_text(&op->arena, op->out.items[i].type);
    }
    broker_op_reply(op, &response.base);
}

void broker_on_list_types(struct rpc_call *call, const ProtobufCMessage *request, void *arg)
{
    struct broker_op *op = broker_op_new(arg, call);

    (void)request;
    if (op != NULL) {
        broker_op_read(op, read_types, reply_types);
    }
}

static void read_options(struct broker_op *op)
{
    op->err = op->service->ops->options(op->service->store, op->type, read_deadline(), &op->out);
}

static void reply_get_options(struct broker_op *op)
{
    Databroker__GetOptionsResponse response = DATABROKER__GET_OPTIONS_RESPONSE__INIT;
    Databroker__Options none = DATABROKER__OPTIONS__INIT;

    if (op->err != ERR_OK) {
        broker_op_fail(op);
        return;
    }
    response.options = &none;
    if (op->out.count > 0) {
        response.options = broker_wire_options(&op->arena, op->out.items[0].data);
    }
    broker_op_reply(op, &response.base);
}

void broker_on_get_options(struct rpc_call *call, const ProtobufCMessage *request, void *arg)
{
    const Databroker__GetOptionsRequest *in =
        (const Databroker__GetOptionsRequest *)(const void *)request;
    struct broker_op *op = broker_op_new(arg, call);

    if (op == NULL) {
        return;
    }
    op->type = arena_sv(&op->arena, sv_from(in->type));
    op->err = broker_name_check(op->type, "type", &op->d);
    if (op->err != ERR_OK) {
        broker_op_fail(op);
        return;
    }
    broker_op_read(op, read_options, reply_get_options);
}

static void reply_set_options(struct broker_op *op)
{
    Databroker__SetOptionsResponse response = DATABROKER__SET_OPTIONS_RESPONSE__INIT;

    if (op->write.err == ERR_OK) { /* even where it is not audited */
        op->service->options_generation++;
        broker_sync_wake(op->service);
    }
    if (op->err != ERR_OK) {
        broker_op_fail(op);
        return;
    }
    response.options = broker_wire_options(&op->arena, op->write.options.bytes);
    broker_op_reply(op, &response.base);
}

static enum err options_check(struct broker_op *op, const Databroker__SetOptionsRequest *in)
{
    struct broker_options *options = &op->write.options;
    size_t size = 0;
    uint8_t *bytes = NULL;
    enum err err = broker_name_check(op->type, "type", &op->d);

    if (err == ERR_OK) {
        err = broker_access_options(op->type, &op->d);
    }
    if (err != ERR_OK || in->options == NULL) {
        return err;
    }
    size = databroker__options__get_packed_size(in->options);
    if (size > BROKER_OPTIONS_MAX || in->options->n_indexable_fields > OPTIONS_FIELDS_MAX) {
        diag_set(&op->d, "the options are too large");
        return ERR_LIMIT;
    }
    if (in->options->ttl != NULL) {
        err = broker_wire_duration(in->options->ttl, ttl_max_s, &options->ttl_ms, &op->d);
    }
    if (in->options->has_capacity_case == DATABROKER__OPTIONS__HAS_CAPACITY_CAPACITY) {
        options->capacity = in->options->capacity;
    }
    bytes = arena_alloc(&op->arena, size);
    (void)databroker__options__pack(in->options, bytes);
    options->bytes = sv_of(bytes, size);
    return err;
}

void broker_on_set_options(struct rpc_call *call, const ProtobufCMessage *request, void *arg)
{
    const Databroker__SetOptionsRequest *in =
        (const Databroker__SetOptionsRequest *)(const void *)request;
    struct broker_op *op = broker_op_new(arg, call);

    if (op == NULL) {
        return;
    }
    op->type = arena_sv(&op->arena, sv_from(in->type));
    op->write.options.type = op->type;
    op->err = options_check(op, in);
    if (op->err != ERR_OK) {
        broker_op_fail(op);
        return;
    }
    broker_op_write(op, BROKER_WRITE_OPTIONS, "set-options", reply_set_options);
}

static void read_info(struct broker_op *op)
{
    op->err = op->service->ops->info(op->service->store, read_deadline(), &op->info);
}

static void reply_info(struct broker_op *op)
{
    Databroker__ServerInfoResponse response = DATABROKER__SERVER_INFO_RESPONSE__INIT;

    if (op->err != ERR_OK) {
        broker_op_fail(op);
        return;
    }
    response.server_version = op->info.server_version;
    response.earliest_record_version = op->info.earliest_version;
    response.latest_record_version = op->info.latest_version;
    broker_op_reply(op, &response.base);
}

void broker_on_server_info(struct rpc_call *call, const ProtobufCMessage *request, void *arg)
{
    struct broker_op *op = broker_op_new(arg, call);

    (void)request;
    if (op != NULL) {
        broker_op_read(op, read_info, reply_info);
    }
}

static void reply_checkpoint(struct broker_op *op)
{
    Databroker__GetCheckpointResponse response = DATABROKER__GET_CHECKPOINT_RESPONSE__INIT;
    Databroker__Checkpoint checkpoint = DATABROKER__CHECKPOINT__INIT;

    if (op->err != ERR_OK) {
        broker_op_fail(op);
        return;
    }
    checkpoint.server_version = op->info.server_version;
    checkpoint.record_version = op->info.latest_version;
    response.checkpoint = &checkpoint;
    response.is_leader = true; /* each of several takes writes */
    broker_op_reply(op, &response.base);
}

void broker_on_get_checkpoint(struct rpc_call *call, const ProtobufCMessage *request, void *arg)
{
    struct broker_op *op = broker_op_new(arg, call);

    (void)request;
    if (op != NULL) {
        broker_op_read(op, read_info, reply_checkpoint);
    }
}

static void reply_clear(struct broker_op *op)
{
    Databroker__ClearResponse response = DATABROKER__CLEAR_RESPONSE__INIT;

    if (op->err != ERR_OK) {
        broker_op_fail(op);
        return;
    }
    response.old_server_version = op->write.old_server_version_out;
    response.new_server_version = op->write.server_version_out;
    broker_op_reply(op, &response.base);
}

void broker_on_clear(struct rpc_call *call, const ProtobufCMessage *request, void *arg)
{
    struct broker_op *op = broker_op_new(arg, call);

    (void)request;
    if (op != NULL) {
        broker_op_write(op, BROKER_WRITE_CLEAR, "clear", reply_clear);
    }
}
