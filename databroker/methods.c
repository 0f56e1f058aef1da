/* The calls that read and write records and options. */
#include "google/protobuf/empty.pb-c.h"

#include "common/clock.h"
#include "common/mem.h"
#include "common/rpc/scan.h"
#include "databroker/access.h"
#include "databroker/search.h"
#include "databroker/service_int.h"

/* A Patch loses a try only where another one won: so many in a row, and somebody writes in a loop. */
enum { PATCH_TRIES = 64, OPTIONS_FIELDS_MAX = 64 };

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

/* ---- Query ----------------------------------------------------------------------------------- */

static bool has_text(const struct broker_record *record, const void *arg)
{
    const struct sv *text = arg;

    return broker_search_has_text(record, *text);
}

static void read_query(struct broker_op *op)
{
    const struct broker_search search = { .type = op->query.type,
                                          .match = has_text,
                                          .arg = &op->text,
                                          .offset = op->query.offset,
                                          .limit = op->query.limit };

    op->err = op->text.n == 0 ? op->service->ops->query(op->service->store, &op->query,
                                                        read_deadline(), &op->out)
                              : broker_search(op->service->ops, op->service->store, &search,
                                              read_deadline(), &op->out);
}

static void reply_query(struct broker_op *op)
{
    Databroker__QueryResponse response = DATABROKER__QUERY_RESPONSE__INIT;

    if (op->err != ERR_OK) {
        broker_op_fail(op);
        return;
    }
    response.records = broker_wire_records(&op->arena, &op->out);
    response.n_records = op->out.count;
    response.total_count = (int64_t)op->out.total;
    response.server_version = op->out.server_version;
    response.record_version = op->out.latest_version;
    broker_op_reply(op, &response.base);
}

static enum err query_filter(struct broker_op *op, const Google__Protobuf__Struct *filter)
{
    size_t i = 0;
    enum err err = broker_wire_filter(filter, op->ids, &op->query.id_count, &op->d);

    for (i = 0; i < op->query.id_count; i++) {
        op->ids[i] = arena_sv(&op->arena, op->ids[i]);
    }
    op->query.ids = op->ids;
    if (err == ERR_OK && op->text.n > 0) {
        diag_set(&op->d, "query and filter together are not supported");
        err = ERR_UNSUPPORTED;
    }
    return err;
}

static enum err query_read(struct broker_op *op, const Databroker__QueryRequest *in)
{
    enum err err = ERR_OK;

    op->query.type = arena_sv(&op->arena, sv_from(in->type));
    op->text = arena_sv(&op->arena, sv_from(in->query));
    err = broker_name_check(op->query.type, "type", &op->d);
    if (err == ERR_OK && op->text.n > 0) {
        err = broker_name_check(op->text, "query", &op->d);
    }
    if (err == ERR_OK && (in->offset < 0 || in->limit < 0)) {
        diag_set(&op->d, "offset and limit are not negative");
        err = ERR_INVALID;
    }
    if (err != ERR_OK) {
        return err;
    }
    op->query.offset = (uint64_t)in->offset;
    op->query.limit = in->limit == 0 || in->limit > BROKER_BATCH_RECORDS ? BROKER_BATCH_RECORDS
                                                                         : (size_t)in->limit;
    return in->filter != NULL && in->filter->n_fields > 0 ? query_filter(op, in->filter) : ERR_OK;
}

void broker_on_query(struct rpc_call *call, const ProtobufCMessage *request, void *arg)
{
    const Databroker__QueryRequest *in = (const Databroker__QueryRequest *)(const void *)request;
    struct broker_op *op = broker_op_new(arg, call);

    if (op == NULL) {
        return;
    }
    op->err = query_read(op, in);
    if (op->err == ERR_OK) {
        op->err = broker_access_read(op->role, op->query.type, &op->d);
    }
    if (op->err != ERR_OK) {
        broker_op_fail(op);
        return;
    }
    broker_op_read(op, read_query, reply_query);
}

/* ---- Put ------------------------------------------------------------------------------------- */

static enum err may_put(struct broker_op *op, const char *action)
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
        op->err = may_put(op, "put");
    }
    if (op->err != ERR_OK) {
        broker_op_fail(op);
        return;
    }
    op->write.records = &op->in;
    broker_op_write(op, BROKER_WRITE_PUT, "put", reply_put);
}

/* ---- Patch: read, merge, write if nobody else wrote meanwhile, else again -------------------- */

/* Merges one record of the request into the stored one, to out. Absent records are left out. */
static enum err patch_one(struct broker_op *op, const struct broker_record *given)
{
    CLEANUP(broker_records_deinit) struct broker_records stored = { .items = NULL };
    CLEANUP(buf_deinit) struct buf merged = { 0 };
    struct broker_record record = { .version = 0 };
    enum err err = ERR_OK;

    broker_records_init(&stored);
    buf_init(&merged, BROKER_DATA_MAX);
    err =
        op->service->ops->get(op->service->store, given->type, given->id, read_deadline(), &stored);
    if (err != ERR_OK) {
        return err == ERR_NOT_FOUND ? ERR_OK : err;
    }
    record = stored.items[0];
    if (!sv_eq(record.data_type, given->data_type)) {
        diag_set(&op->d, "the stored record is of another type");
        return ERR_INVALID;
    }
    err = broker_patch_apply(&op->patch, record.data, given->data, &merged);
    if (err == ERR_OK) {
        record.if_version = record.version;
        record.data = buf_sv(&merged);
        broker_records_add(&op->out, &record);
    }
    return err;
}

static void read_patch(struct broker_op *op)
{
    size_t i = 0;

    op->err = ERR_OK;
    for (i = 0; i < op->in.count && op->err == ERR_OK; i++) {
        op->err = patch_one(op, &op->in.items[i]);
    }
}

static void write_patch(struct broker_op *op);

static void reply_patch(struct broker_op *op)
{
    Databroker__PatchResponse response = DATABROKER__PATCH_RESPONSE__INIT;

    op->tries++;
    if (op->err == ERR_ABORTED && op->tries < PATCH_TRIES) {
        broker_records_deinit(&op->out);
        broker_records_init(&op->out);
        broker_op_read(op, read_patch, write_patch);
        return;
    }
    if (op->err == ERR_ABORTED) {
        diag_set(&op->d, "others write this record all the time");
        broker_audit_done(op, broker_op_fail);
        return;
    }
    if (op->err != ERR_OK) {
        broker_op_fail(op);
        return;
    }
    response.server_version =
        op->out.count > 0 ? op->write.server_version_out : op->out.server_version;
    response.records = broker_wire_records(&op->arena, &op->out);
    response.n_records = op->out.count;
    broker_op_reply(op, &response.base);
}

static void write_patch(struct broker_op *op)
{
    if (op->err != ERR_OK) {
        broker_op_fail(op);
        return;
    }
    op->write.records = &op->out;
    broker_op_write(op, BROKER_WRITE_PUT, "patch", reply_patch);
}

/* All records of one call have one type of data: the mask means the same for each. */
static enum err patch_check(struct broker_op *op, const Databroker__PatchRequest *in)
{
    size_t i = 0;
    enum err err = broker_wire_read_all(in->records, in->n_records, &op->in, &op->d);

    for (i = 0; i < op->in.count && err == ERR_OK; i++) {
        if (op->in.items[i].deleted_us != 0 ||
            !sv_eq(op->in.items[i].data_type, op->in.items[0].data_type)) {
            diag_set(&op->d, "Patch takes records of one type, and no deletions");
            err = ERR_INVALID;
        }
    }
    if (err == ERR_OK && op->in.count == 0) {
        diag_set(&op->d, "no records");
        err = ERR_INVALID;
    }
    if (err != ERR_OK) {
        return err;
    }
    return broker_patch_init(&op->patch, op->in.items[0].data_type,
                             in->field_mask == NULL ? NULL : in->field_mask->paths,
                             in->field_mask == NULL ? 0 : in->field_mask->n_paths, &op->d);
}

void broker_on_patch(struct rpc_call *call, const ProtobufCMessage *request, void *arg)
{
    const Databroker__PatchRequest *in = (const Databroker__PatchRequest *)(const void *)request;
    struct broker_op *op = broker_op_new(arg, call);

    if (op == NULL) {
        return;
    }
    op->err = patch_check(op, in);
    if (op->err == ERR_OK) {
        op->err = may_put(op, "patch");
    }
    if (op->err != ERR_OK) {
        broker_op_fail(op);
        return;
    }
    broker_op_read(op, read_patch, write_patch);
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
