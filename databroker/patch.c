/* Patch: reads, merges what the mask names, and writes if nobody else wrote meanwhile; else again. */
#include "common/clock.h"
#include "databroker/access.h"
#include "databroker/mask.h"
#include "databroker/service_int.h"

/* A try is lost only where another writer won: so many in a row, and somebody writes in a loop. */
enum { PATCH_TRIES = 64 };

struct patch_call {
    struct broker_mask mask;
    unsigned tries;
};

static struct patch_call *call_of(const struct broker_op *op)
{
    return op->own;
}

/* Merges one record of the request into the stored one, to out. Absent records are left out. */
static enum err patch_one(struct broker_op *op, const struct broker_record *given)
{
    CLEANUP(broker_records_deinit) struct broker_records stored = { .items = NULL };
    CLEANUP(buf_deinit) struct buf merged = { 0 };
    struct broker_record record = { .version = 0 };
    enum err err = ERR_OK;

    broker_records_init(&stored);
    buf_init(&merged, BROKER_DATA_MAX);
    err = op->service->ops->get(op->service->store, given->type, given->id,
                                clock_mono_ms() + BROKER_READ_MS, &stored);
    if (err != ERR_OK) {
        return err == ERR_NOT_FOUND ? ERR_OK : err;
    }
    record = stored.items[0];
    if (!sv_eq(record.data_type, given->data_type)) {
        diag_set(&op->d, "the stored record is of another type");
        return ERR_INVALID;
    }
    err = broker_mask_apply(&call_of(op)->mask, record.data, given->data, &merged);
    if (err == ERR_INVALID) {
        diag_set(&op->d, "the data, as given or as stored, is not what its type says");
    }
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

    call_of(op)->tries++;
    if (op->err == ERR_ABORTED && call_of(op)->tries < PATCH_TRIES) {
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
    return broker_mask_init(&call_of(op)->mask, op->in.items[0].data_type,
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
    op->own = arena_zalloc(&op->arena, sizeof(struct patch_call));
    op->err = patch_check(op, in);
    if (op->err == ERR_OK) {
        op->err = broker_may_put(op, "patch");
    }
    if (op->err != ERR_OK) {
        broker_op_fail(op);
        return;
    }
    broker_op_read(op, read_patch, write_patch);
}
