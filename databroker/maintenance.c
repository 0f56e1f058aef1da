/* What an operator asks of the running databroker. */
#include "maintenance.pb-c.h"

#include "databroker/service_int.h"

static void answer_rotate(struct broker_op *op)
{
    Postern__RotateKeysResponse response = POSTERN__ROTATE_KEYS_RESPONSE__INIT;

    if (op->err != ERR_OK) {
        broker_op_fail(op);
        return;
    }
    response.key_id = base_unconst(op->id.p);
    broker_op_reply(op, &response.base);
}

static void rotated(struct broker_op *op)
{
    broker_audit_done(op, answer_rotate);
}

static void rotate(struct broker_op *op)
{
    char made[BROKER_KEY_ID_SIZE] = "";

    op->err = op->service->ops->rotate(op->service->store, made);
    if (op->err == ERR_LIMIT) {
        diag_set(
            &op->d,
            "there are %d data keys, which is the most: try again when the oldest are dropped, "
            "ten minutes after nothing needs them",
            BROKER_KEYS_MAX);
    }
    op->id = arena_sv(&op->arena, sv_from(made));
}

static void begin_rotate(struct broker_op *op)
{
    if (op->err != ERR_OK) { /* its audit line cannot be written */
        broker_op_fail(op);
        return;
    }
    broker_op_read(op, rotate, rotated);
}

void broker_on_rotate_keys(struct rpc_call *call, const ProtobufCMessage *request, void *arg)
{
    struct broker_op *op = broker_op_new(arg, call);

    (void)request;
    if (op == NULL) {
        return;
    }
    op->type = SV(BROKER_TYPE_KEY);
    op->action = "rotate-keys";
    if (op->service->ops->rotate == NULL) {
        op->err = ERR_UNSUPPORTED;
        diag_set(&op->d, "this store seals nothing");
    }
    broker_audit_asked(op, begin_rotate);
}
