/* The calls about leases: names that one caller holds for a time. */
#include "google/protobuf/empty.pb-c.h"

#include "databroker/access.h"
#include "databroker/service_int.h"

/* Copies what all three need; ERR_INVALID, ERR_LIMIT, ERR_DENIED. id NULL: none is needed. */
static enum err lease_read(struct broker_op *op, const char *name, const char *id)
{
    enum err err = ERR_OK;

    op->type = SV("lease");
    op->write.lease_name = arena_sv(&op->arena, sv_from(name));
    err = broker_name_check(op->write.lease_name, "name", &op->d);
    if (err == ERR_OK && id != NULL) {
        op->write.lease_id = arena_sv(&op->arena, sv_from(id));
        err = broker_name_check(op->write.lease_id, "id", &op->d);
    }
    if (err == ERR_OK) {
        err = broker_access_lease(op->role, op->write.lease_name, &op->d);
    }
    return err;
}

static void reply_acquire(struct broker_op *op)
{
    Databroker__AcquireLeaseResponse response = DATABROKER__ACQUIRE_LEASE_RESPONSE__INIT;

    if (op->err != ERR_OK) {
        broker_op_fail(op);
        return;
    }
    response.id = op->write.lease_id_out;
    broker_op_reply(op, &response.base);
}

void broker_on_acquire(struct rpc_call *call, const ProtobufCMessage *request, void *arg)
{
    const Databroker__AcquireLeaseRequest *in =
        (const Databroker__AcquireLeaseRequest *)(const void *)request;
    struct broker_op *op = broker_op_new(arg, call);

    if (op == NULL) {
        return;
    }
    op->err = lease_read(op, in->name, NULL);
    if (op->err == ERR_OK) {
        op->err =
            broker_wire_duration(in->duration, BROKER_LEASE_S_MAX, &op->write.lease_ms, &op->d);
    }
    if (op->err != ERR_OK) {
        broker_op_fail(op);
        return;
    }
    broker_op_write(op, BROKER_WRITE_LEASE_ACQUIRE, "acquire-lease", reply_acquire);
}

static void reply_empty(struct broker_op *op)
{
    Google__Protobuf__Empty response = GOOGLE__PROTOBUF__EMPTY__INIT;

    if (op->err != ERR_OK) {
        broker_op_fail(op);
        return;
    }
    broker_op_reply(op, &response.base);
}

void broker_on_renew(struct rpc_call *call, const ProtobufCMessage *request, void *arg)
{
    const Databroker__RenewLeaseRequest *in =
        (const Databroker__RenewLeaseRequest *)(const void *)request;
    struct broker_op *op = broker_op_new(arg, call);

    if (op == NULL) {
        return;
    }
    op->err = lease_read(op, in->name, in->id);
    if (op->err == ERR_OK) {
        op->err =
            broker_wire_duration(in->duration, BROKER_LEASE_S_MAX, &op->write.lease_ms, &op->d);
    }
    if (op->err != ERR_OK) {
        broker_op_fail(op);
        return;
    }
    broker_op_write(op, BROKER_WRITE_LEASE_RENEW, "renew-lease", reply_empty);
}

void broker_on_release(struct rpc_call *call, const ProtobufCMessage *request, void *arg)
{
    const Databroker__ReleaseLeaseRequest *in =
        (const Databroker__ReleaseLeaseRequest *)(const void *)request;
    struct broker_op *op = broker_op_new(arg, call);

    if (op == NULL) {
        return;
    }
    op->err = lease_read(op, in->name, in->id);
    if (op->err != ERR_OK) {
        broker_op_fail(op);
        return;
    }
    broker_op_write(op, BROKER_WRITE_LEASE_RELEASE, "release-lease", reply_empty);
}
