#include "cli/import_store.h"

#include <stdio.h>
#include <string.h>

#include "cli/command.h"
#include "common/clock.h"
#include "common/mem.h"

enum { LEASE_ROOM = sizeof(DATA_LEASE) + DATA_TYPE_MAX, RECORDS_MAX = 4 * DATA_ROWS_MAX };

static enum err read_all(void *arg, const char *type, data_record_fn each, void *each_arg,
                         struct diag *d)
{
    const struct import_store *store = arg;
    int64_t offset = 0;
    int64_t total = 0;

    do {
        Databroker__QueryResponse *page = cli_broker_query(store->broker, type, offset);

        if (page == NULL) {
            return ERR_IO;
        }
        for (size_t i = 0; i < page->n_records; i++) {
            const Databroker__Record *record = page->records[i];
            const Google__Protobuf__Any *any = record->data;

            each(sv_from(record->id), any == NULL ? SV("") : sv_of(any->value.data, any->value.len),
                 each_arg);
        }
        total = page->n_records == 0 ? 0 : page->total_count;
        offset += (int64_t)page->n_records;
        protobuf_c_message_free_unpacked(&page->base, NULL);
    } while (offset < total && offset <= RECORDS_MAX);
    if (offset < total) {
        diag_set(d, "there are %lld records of %s: they are not external data", (long long)total,
                 type);
        return ERR_LIMIT;
    }
    return ERR_OK;
}

/* Messages of the records of one put; what they say is borrowed. */
struct messages {
    Databroker__Record records[DATA_SET_BATCH];
    Google__Protobuf__Any data[DATA_SET_BATCH];
    Databroker__Record *list[DATA_SET_BATCH];
    char ids[DATA_SET_BATCH][DATA_ID_MAX + 1];
    Google__Protobuf__Timestamp now;
};

static void add(struct messages *m, size_t i, const char *type, const struct data_record *given)
{
    static char any_type[] = DATA_STRUCT_TYPE;
    Databroker__Record *record = &m->records[i];
    Google__Protobuf__Any *any = &m->data[i];

    *record = (Databroker__Record)DATABROKER__RECORD__INIT;
    *any = (Google__Protobuf__Any)GOOGLE__PROTOBUF__ANY__INIT;
    memcpy(m->ids[i], given->id.p, given->id.n);
    record->type = base_unconst(type);
    record->id = m->ids[i];
    if (given->data.p == NULL) {
        record->deleted_at = &m->now;
    } else {
        any->type_url = any_type;
        any->value.data = base_unconst(given->data.p);
        any->value.len = given->data.n;
        record->data = any;
    }
    m->list[i] = record;
}

static enum err put(void *arg, const char *type, const struct data_record *records, size_t n,
                    struct diag *d)
{
    const struct import_store *store = arg;
    CLEANUP(mem_free) struct messages *m = MEM_NEW(struct messages);
    char lease[LEASE_ROOM];

    (void)d;
    CHECK(n <= DATA_SET_BATCH && store->lease != NULL);
    m->now = (Google__Protobuf__Timestamp)GOOGLE__PROTOBUF__TIMESTAMP__INIT;
    m->now.seconds = clock_wall_s();
    for (size_t i = 0; i < n; i++) {
        add(m, i, type, &records[i]);
    }
    (void)snprintf(lease, sizeof(lease), "%s%s", DATA_LEASE, type);
    return cli_broker_lease_keep(store->broker, lease, store->lease) &&
                   cli_broker_put(store->broker, m->list, n)
               ? ERR_OK
               : ERR_IO;
}

struct data_store import_store_of(struct import_store *store)
{
    return (struct data_store){ .read = read_all, .put = put, .arg = store };
}

int import_with_lease(const struct cli_broker *b, const char *type, bool is_dry,
                      import_work_fn work, void *arg)
{
    char name[LEASE_ROOM];
    char id[CLI_BROKER_LEASE_ID];
    bool is_busy = false;

    if (is_dry) {
        return work(b, NULL, arg);
    }
    (void)snprintf(name, sizeof(name), "%s%s", DATA_LEASE, type);
    if (!cli_broker_lease(b, name, id, &is_busy)) {
        return is_busy ? cli_fail(1,
                                  "another import of %s is under way; one that was cut off is "
                                  "waited for %d seconds",
                                  type, CLI_BROKER_LEASE_S)
                       : 1;
    }
    int code = work(b, id, arg);

    cli_broker_lease_end(b, name, id);
    return code;
}
