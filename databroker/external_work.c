#include "databroker/external_work.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "common/clock.h"
#include "common/mem.h"
#include "common/rpc/scan.h"
#include "databroker/service_int.h"

enum {
    LEASE_MS = 60000,
    LEASE_ROOM = sizeof(DATA_LEASE) + DATA_TYPE_MAX,
    STILL_S = 1, /* a file that was just written to may be half of one */
    CHUNK = 65536,
    TRIES = 30 /* to find a file that stands still */
};

static int64_t deadline(int64_t ms)
{
    return clock_mono_ms() + ms;
}

/* --- the type's lease, which imports hold, too -------------------------------------------------------- */

/* Where the rows of a type go, while its lease is held. */
struct place {
    struct broker_work *work;
    char lease[LEASE_ROOM];
    char lease_id[RAND_UUID_SIZE];
    int64_t kept_ms; /* when it was taken or renewed */
};

static enum err lease_write(struct place *p, enum broker_write_kind kind)
{
    const struct broker_service *service = p->work->service;
    struct broker_write write = { .kind = kind,
                                  .deadline_ms = deadline(BROKER_WRITE_MS),
                                  .lease_name = sv_from(p->lease),
                                  .lease_id = sv_from(p->lease_id),
                                  .lease_ms = LEASE_MS };
    int64_t now_ms = clock_mono_ms();
    enum err err = broker_store_write(service->ops, service->store, &write);

    if (err == ERR_OK && kind == BROKER_WRITE_LEASE_ACQUIRE) {
        (void)snprintf(p->lease_id, sizeof(p->lease_id), "%s", write.lease_id_out);
    }
    p->kept_ms = now_ms;
    return err;
}

static enum err lease_keep(struct place *p)
{
    return clock_mono_ms() - p->kept_ms < LEASE_MS / 3 ? ERR_OK
                                                       : lease_write(p, BROKER_WRITE_LEASE_RENEW);
}

/* --- the store ------------------------------------------------------------------------------------ */

static enum err read_all(void *arg, const char *type, data_record_fn each, void *each_arg,
                         struct diag *d)
{
    const struct place *place = arg;
    const struct broker_service *service = place->work->service;
    struct broker_record after = { .type = SV(""), .id = SV("") };
    char id[BROKER_NAME_MAX];
    enum err err = ERR_OK;
    bool more = true;

    while (err == ERR_OK && more) {
        struct broker_records page;

        broker_records_init(&page);
        err = service->ops->page(service->store, sv_from(type), &after, deadline(BROKER_READ_MS),
                                 &page);
        for (size_t i = 0; err == ERR_OK && i < page.count; i++) {
            each(page.items[i].id, page.items[i].data, each_arg);
        }
        more = page.more && page.count != 0;
        if (more) {
            struct sv last = page.items[page.count - 1].id;

            memcpy(id, last.p, last.n);
            after = (struct broker_record){ .type = sv_from(type), .id = sv_of(id, last.n) };
        }
        broker_records_deinit(&page);
    }
    if (err != ERR_OK) {
        diag_set(d, "%s", broker_err_text(err));
    }
    return err;
}

/* A write that a worker's thread waits for while the loop does it. */
struct put {
    struct broker_service *service;
    struct broker_records records;
    pthread_mutex_t mutex;
    pthread_cond_t cond;
    bool is_over;
    enum err err;
    struct diag *d;
};

static void put_end(struct put *p, enum err err)
{
    (void)pthread_mutex_lock(&p->mutex);
    p->err = err;
    p->is_over = true;
    (void)pthread_cond_signal(&p->cond);
    (void)pthread_mutex_unlock(&p->mutex);
}

static void put_over(struct broker_op *op)
{
    struct put *p = op->over_arg;

    if (op->err != ERR_OK) {
        diag_set(p->d, "%s", op->d.text[0] != '\0' ? op->d.text : broker_err_text(op->err));
    }
    put_end(p, op->err);
}

/* On the loop. */
static void put_begin(void *arg)
{
    struct put *p = arg;
    struct broker_op *op = broker_op_own(p->service, "external_data", put_over, p);

    if (op == NULL) {
        put_end(p, ERR_UNAVAILABLE);
        return;
    }
    op->in = p->records;
    broker_records_init(&p->records);
    op->write.records = &op->in;
    broker_op_write(op, BROKER_WRITE_PUT, "put", broker_op_over);
}

static void add_record(struct broker_records *list, const char *type,
                       const struct data_record *record)
{
    struct broker_record one = { .type = sv_from(type), .id = record->id };

    if (record->data.p == NULL) {
        one.deleted_us = clock_wall_us();
    } else {
        one.data_type = SV(DATA_STRUCT_TYPE);
        one.data = record->data;
    }
    broker_records_add(list, &one);
}

/* The service does not end while a worker is at work, and the loop bounds what its op waits for. */
static enum err put(void *arg, const char *type, const struct data_record *records, size_t n,
                    struct diag *d)
{
    struct diag own = { .line = 0 }; /* nobody asks why */
    struct place *place = arg;
    struct put p = { .service = place->work->service,
                     .mutex = PTHREAD_MUTEX_INITIALIZER,
                     .cond = PTHREAD_COND_INITIALIZER,
                     .d = d != NULL ? d : &own };

    enum err err = lease_keep(place);
    if (err != ERR_OK) {
        diag_set(p.d, "%s", broker_err_text(err));
        return err;
    }
    broker_records_init(&p.records);
    for (size_t i = 0; i < n; i++) {
        add_record(&p.records, type, &records[i]);
    }
    loop_post(p.service->loop, put_begin, &p);
    (void)pthread_mutex_lock(&p.mutex);
    while (!p.is_over) {
        (void)pthread_cond_wait(&p.cond, &p.mutex);
    }
    (void)pthread_mutex_unlock(&p.mutex);
    broker_records_deinit(&p.records);
    return p.err;
}

/* --- a file --------------------------------------------------------------------------------------- */

static struct broker_file_mark mark_of(const struct stat *st)
{
    return (struct broker_file_mark){
        .device = st->st_dev, .inode = st->st_ino, .size = st->st_size, .changed = st->st_mtim
    };
}

static bool same_mark(const struct broker_file_mark *a, const struct broker_file_mark *b)
{
    return a->device == b->device && a->inode == b->inode && a->size == b->size &&
           a->changed.tv_sec == b->changed.tv_sec && a->changed.tv_nsec == b->changed.tv_nsec;
}

static enum err file_failed(struct broker_work *w, int number)
{
    char room[128];

    diag_set(&w->d, "cannot read %s: %s", w->source->file.p,
             strerror_r(number, room, sizeof(room)));
    return ERR_IO;
}

static enum err file_bytes(struct broker_work *w, int fd)
{
    ssize_t n = 0;

    do {
        char *room = buf_room(&w->body, CHUNK);

        n = room == NULL ? 0 : read(fd, room, CHUNK);
        if (n > 0) {
            buf_grew(&w->body, (size_t)n);
        }
    } while (n > 0);
    return n < 0 ? file_failed(w, errno) : ERR_OK;
}

/* The file into body, unless it is as it was. ERR_AGAIN: somebody writes to it. */
static enum err file_read(struct broker_work *w, int fd)
{
    struct stat before;
    struct stat after;

    if (fstat(fd, &before) != 0) {
        return file_failed(w, errno);
    }
    if (!S_ISREG(before.st_mode) || before.st_size > DATA_BYTES_MAX) {
        diag_set(&w->d, "%s is %s", w->source->file.p,
                 S_ISREG(before.st_mode) ? "too large" : "no regular file");
        return ERR_INVALID;
    }
    const struct broker_file_mark mark = mark_of(&before);
    int64_t age_s = clock_wall_s() - before.st_mtim.tv_sec;

    w->is_same = w->version != 0 && same_mark(&mark, &w->mark);
    if (w->is_same) {
        return ERR_OK;
    }
    enum err err = age_s >= 0 && age_s <= STILL_S ? ERR_AGAIN : file_bytes(w, fd);

    if (err == ERR_OK && fstat(fd, &after) != 0) {
        err = file_failed(w, errno);
    }
    const struct broker_file_mark now = err == ERR_OK ? mark_of(&after) : mark;

    if (err == ERR_OK && (!same_mark(&mark, &now) || (off_t)w->body.n != mark.size)) {
        err = ERR_AGAIN;
    }
    if (err == ERR_AGAIN) {
        diag_set(&w->d, "%s is being written to all the time: replace it by a rename",
                 w->source->file.p);
    }
    if (err == ERR_OK) {
        w->mark = mark;
    }
    return err;
}

static enum err file_look(struct broker_work *w)
{
    int fd = open(w->source->file.p, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);

    if (fd < 0) {
        return file_failed(w, errno);
    }
    enum err err = file_read(w, fd);

    (void)close(fd);
    return err;
}

/* --- what is in force ------------------------------------------------------------------------------ */

/* Whether nobody has written records of the type since they were as found. */
static enum err check_same(struct broker_work *w)
{
    struct broker_records changes;

    broker_records_init(&changes);
    enum err err = w->service->ops->changes(w->service->store, w->server_version, w->version,
                                            w->source->type, deadline(BROKER_READ_MS), &changes);

    bool is_ours = !changes.more;

    for (size_t i = 0; i < changes.count; i++) {
        is_ours = is_ours && sv_eq(changes.items[i].id, SV(DATA_SOURCE_ID));
    }
    if (err == ERR_ABORTED || (err == ERR_OK && !is_ours)) {
        diag_set(&w->d, "others write the type all the time");
        err = ERR_AGAIN; /* it cannot be told any more, or is not so */
    }
    if (err == ERR_OK) {
        w->version = changes.latest_version;
    } else if (err != ERR_AGAIN) {
        diag_set(&w->d, "%s", broker_err_text(err));
    }
    broker_records_deinit(&changes);
    return err;
}

static enum err apply(struct broker_work *w, struct place *place)
{
    const struct config_source *s = w->source;
    const struct data_source source = { .name = s->file.n != 0 ? s->file.p : "the answer",
                                        .format = w->format,
                                        .key = (enum data_key)s->key,
                                        .key_field = s->id_field.p };
    const struct data_store store = { .read = read_all, .put = put, .arg = place };
    CLEANUP(data_rows_free) struct data_rows *rows = NULL;
    enum err err = data_rows_read(buf_sv(&w->body), &source, &rows, &w->d);

    if (err != ERR_OK) {
        return err;
    }
    const struct data_change change = {
        .type = s->type.p, .key = source.key, .rows = rows, .may_be_empty = s->allow_empty
    };

    err = data_set_apply(&store, &change, &w->counts, &w->d);
    if (err == ERR_DENIED) {
        diag_set(&w->d, "there are no rows, and %zu are in force: allow_empty would end them",
                 w->counts.removed);
    }
    return err;
}

/* Without it the next answer is read again, that is all. */
static void note_version(struct broker_work *w)
{
    struct broker_info info = { .latest_version = 0 };
    enum err err = w->service->ops->info(w->service->store, deadline(BROKER_READ_MS), &info);

    w->server_version = info.server_version;
    w->version = err == ERR_OK ? info.latest_version : 0;
}

/* The record "source", for who explains decisions: it says nothing that a decision reads, and has no
 * line in the audit. */
static void tell(struct broker_work *w)
{
    char error[DATA_ERROR_MAX + 1] = "";
    char line[DIAG_LINE];
    int64_t now_s = clock_wall_s();

    if (w->err != ERR_OK) {
        (void)snprintf(error, sizeof(error), "%.*s", DATA_ERROR_MAX, diag_format(&w->d, line));
    }
    for (char *c = error; *c != '\0'; c++) { /* it may quote the answer, and be cut */
        *c = *c < ' ' || *c > '~' ? '?' : *c;
    }
    if (strcmp(error, w->told) == 0 && w->told_s != 0 && now_s - w->told_s < BROKER_STATUS_S) {
        return;
    }
    const struct data_member members[] = { { .name = "checked", .number = w->checked_s },
                                           { .name = "error", .text = error } };
    size_t n = 0;
    CLEANUP(mem_free) uint8_t *bytes = data_set_pack(members, ARRAY_LEN(members), &n);
    struct data_record record = { .id = SV(DATA_SOURCE_ID), .data = sv_of(bytes, n) };
    struct broker_records list;

    broker_records_init(&list);
    add_record(&list, w->source->type.p, &record);
    struct broker_write write = { .kind = BROKER_WRITE_PUT,
                                  .deadline_ms = deadline(BROKER_WRITE_MS),
                                  .records = &list };

    if (broker_store_write(w->service->ops, w->service->store, &write) == ERR_OK) {
        w->told_s = now_s;
        (void)snprintf(w->told, sizeof(w->told), "%s", error);
    }
    broker_records_deinit(&list);
}

/* What the record "source" said before we began: a restart makes no facts younger or older. */
static void remember(struct broker_work *w)
{
    struct broker_records found;
    ProtobufCMessage *m = NULL;

    broker_records_init(&found);
    if (w->service->ops->get(w->service->store, w->source->type, SV(DATA_SOURCE_ID),
                             deadline(BROKER_READ_MS), &found) == ERR_OK &&
        rpc_unpack(&google__protobuf__struct__descriptor, found.items[0].data, NULL, &m) ==
            ERR_OK) {
        w->checked_s =
            data_set_number((const Google__Protobuf__Struct *)(const void *)m, "checked");
        protobuf_c_message_free_unpacked(m, NULL);
    }
    broker_records_deinit(&found);
}

static enum err with_lease(struct broker_work *w)
{
    struct place place = { .work = w };

    (void)snprintf(place.lease, sizeof(place.lease), "%s%s", DATA_LEASE, w->source->type.p);
    enum err err = lease_write(&place, BROKER_WRITE_LEASE_ACQUIRE);

    if (err != ERR_OK) {
        diag_set(&w->d, "%s",
                 err == ERR_EXISTS ? "an import of the type is under way" : broker_err_text(err));
        return err;
    }
    err = apply(w, &place);
    if (err == ERR_OK) {
        note_version(w);
    }
    (void)lease_write(&place, BROKER_WRITE_LEASE_RELEASE); /* else it ends by itself */
    return err;
}

static void look(struct broker_work *w)
{
    w->counts = (struct data_counts){ .added = 0 };
    if (w->err == ERR_OK && w->source->file.n != 0) {
        w->err = file_look(w);
    }
    if (w->err == ERR_OK) {
        w->err = w->is_same ? check_same(w) : with_lease(w);
        w->version = w->err == ERR_OK ? w->version : 0;
        w->checked_s = w->err == ERR_OK ? clock_wall_s() : w->checked_s;
    }
}

void broker_work_run(struct broker_work *w)
{
    if (w->told_s == 0) {
        remember(w);
    }
    look(w);
    w->tries = w->err == ERR_AGAIN ? w->tries + 1 : 0;
    if (w->err == ERR_AGAIN && w->tries < TRIES) {
        return;
    }
    w->err = w->err == ERR_AGAIN ? ERR_UNAVAILABLE : w->err;
    tell(w);
}
