/* Query: a page of the records of a type, of those that match, and how many there are. */
#include "common/clock.h"
#include "databroker/access.h"
#include "databroker/filter.h"
#include "databroker/search.h"
#include "databroker/service_int.h"

struct query_call {
    struct broker_query query; /* without ids */
    struct sv text;
    const struct broker_filter *filter; /* NULL: none */
    const struct sv *ids;               /* NULL: any; else those that filter asks for */
    size_t id_count;
    int64_t deadline_ms;
};

struct query_look {
    const struct query_call *call;
    struct broker_filter_run run;
};

static struct query_call *call_of(const struct broker_op *op)
{
    return op->own;
}

static enum err is_meant(const struct broker_record *record, void *arg, bool *match_out)
{
    struct query_look *look = arg;
    const struct query_call *call = look->call;

    *match_out = broker_search_has_text(record, call->text);
    return *match_out && call->filter != NULL
               ? broker_filter_match(call->filter, record, &look->run, match_out)
               : ERR_OK;
}

static void read_all(struct broker_op *op)
{
    op->err = op->service->ops->query(op->service->store, &call_of(op)->query,
                                      clock_mono_ms() + BROKER_READ_MS, &op->out);
}

static void read_some(struct broker_op *op)
{
    const struct query_call *call = call_of(op);
    struct query_look look = { .call = call };
    struct broker_search search = { .type = call->query.type,
                                    .ids = call->ids,
                                    .id_count = call->id_count,
                                    .match = is_meant,
                                    .arg = &look,
                                    .offset = call->query.offset,
                                    .limit = call->query.limit,
                                    .deadline_ms = call->deadline_ms };

    broker_filter_run_init(&look.run, call->deadline_ms, &op->d);
    op->err = broker_search(op->service->ops, op->service->store, &search, &op->out);
    if (op->err == ERR_TIMEOUT) {
        diag_set(&op->d, "too many records to look at: ask for ids, or for a type with less");
    }
    broker_filter_run_deinit(&look.run);
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

static enum err window_read(struct broker_op *op, const Databroker__QueryRequest *in)
{
    struct broker_query *query = &call_of(op)->query;

    if (in->offset < 0 || in->limit < 0) {
        diag_set(&op->d, "offset and limit are not negative");
        return ERR_INVALID;
    }
    query->offset = (uint64_t)in->offset;
    query->limit = in->limit == 0 || in->limit > BROKER_BATCH_RECORDS ? BROKER_BATCH_RECORDS
                                                                      : (size_t)in->limit;
    return ERR_OK;
}

static enum err query_read(struct broker_op *op, const Databroker__QueryRequest *in)
{
    struct query_call *call = call_of(op);
    enum err err = ERR_OK;

    call->query.type = arena_sv(&op->arena, sv_from(in->type));
    call->text = arena_sv(&op->arena, sv_from(in->query));
    if (call->query.type.n > 0) {
        err = broker_name_check(call->query.type, "type", &op->d);
    }
    if (err == ERR_OK && call->text.n > 0) {
        err = broker_name_check(call->text, "query", &op->d);
    }
    if (err == ERR_OK) {
        err = window_read(op, in);
    }
    if (err == ERR_OK) {
        err = broker_access_read(op->role, call->query.type, &op->d);
    }
    if (err == ERR_OK && in->filter != NULL && in->filter->n_fields > 0) {
        err = broker_filter_read(in->filter, &op->arena, &call->filter, &op->d);
    }
    return err;
}

/* What reads some ids goes with all other reads, what looks at a whole type (a page: to count it) behind its
 * like. */
static void query_run(struct broker_op *op)
{
    struct query_call *call = call_of(op);

    if (call->query.type.n > 0 && call->text.n == 0 && call->filter == NULL) {
        broker_op_search(op, read_all, reply_query);
        return;
    }
    if (call->query.type.n > 0 && call->filter != NULL &&
        broker_filter_ids(call->filter, &op->arena, &call->ids, &call->id_count)) {
        call->deadline_ms = clock_mono_ms() + BROKER_READ_MS;
        broker_op_read(op, read_some, reply_query);
        return;
    }
    call->deadline_ms = clock_mono_ms() + BROKER_SEARCH_MS;
    broker_op_search(op, read_some, reply_query);
}

void broker_on_query(struct rpc_call *call, const ProtobufCMessage *request, void *arg)
{
    const Databroker__QueryRequest *in = (const Databroker__QueryRequest *)(const void *)request;
    struct broker_op *op = broker_op_new(arg, call);

    if (op == NULL) {
        return;
    }
    op->own = arena_zalloc(&op->arena, sizeof(struct query_call));
    op->err = query_read(op, in);
    if (op->err != ERR_OK) {
        broker_op_fail(op);
        return;
    }
    query_run(op);
}
