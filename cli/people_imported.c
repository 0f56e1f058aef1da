#include "cli/people_imported.h"

#include <stdio.h>
#include <string.h>

#include "google/protobuf/struct.pb-c.h"

#include "cli/import_store.h"
#include "common/map.h"
#include "common/mem.h"
#include "common/rpc/scan.h"

struct people_imported {
    enum data_key key;
    char generation[DATA_GENERATION_MAX + 1];
    struct map *rows; /* by id */
};

struct row {
    json_t *groups; /* a list */
    bool is_told;
};

static void row_free(struct row *row)
{
    if (row != NULL) {
        json_decref(row->groups);
        mem_free(&row);
    }
}

static void drop(struct sv key, void *value, void *arg)
{
    (void)key;
    (void)arg;
    row_free(value);
}

void people_imported_free(struct people_imported **imported)
{
    struct people_imported *im = TAKE(*imported);

    if (im != NULL) {
        map_each(im->rows, drop, NULL);
        map_free(&im->rows);
        mem_free(&im);
    }
}

static const Google__Protobuf__Struct *unpack(struct sv data, ProtobufCMessage **m)
{
    return rpc_unpack(&google__protobuf__struct__descriptor, data, NULL, m) == ERR_OK
               ? (const Google__Protobuf__Struct *)(const void *)*m
               : NULL;
}

/* What is in force; NULL: nothing, or it failed and *err_out is not ERR_OK. */
static struct people_imported *set_of(const struct cli_broker *broker, enum err *err_out)
{
    enum rpc_status status = RPC_OK;
    Databroker__GetResponse *got =
        cli_broker_get(broker, DATA_DIRECTORY_TYPE, DATA_SET_ID, &status);
    const Google__Protobuf__Any *any =
        got == NULL || got->record == NULL ? NULL : got->record->data;
    ProtobufCMessage *m = NULL;
    const Google__Protobuf__Struct *fields =
        any == NULL ? NULL : unpack(sv_of(any->value.data, any->value.len), &m);
    struct people_imported *im = NULL;

    *err_out = status == RPC_OK || status == RPC_NOT_FOUND ? ERR_OK : ERR_UNAVAILABLE;
    if (fields != NULL) {
        im = MEM_NEW(struct people_imported);
        im->key = data_key_parse(sv_from(data_set_text(fields, "key")));
        im->rows = map_new();
        (void)snprintf(im->generation, sizeof(im->generation), "%s",
                       data_set_text(fields, "generation"));
    }
    if (m != NULL) {
        protobuf_c_message_free_unpacked(m, NULL);
    }
    if (got != NULL) {
        protobuf_c_message_free_unpacked(&got->base, NULL);
    }
    return im;
}

static json_t *groups_of(const Google__Protobuf__Struct *row)
{
    json_t *list = json_array();

    for (size_t i = 0; i < row->n_fields; i++) {
        const Google__Protobuf__Value *v = row->fields[i]->value;
        bool is_groups = strcmp(row->fields[i]->key, "group_ids") == 0 && v != NULL &&
                         v->kind_case == GOOGLE__PROTOBUF__VALUE__KIND_LIST_VALUE;

        for (size_t k = 0; is_groups && k < v->list_value->n_values; k++) {
            const Google__Protobuf__Value *one = v->list_value->values[k];

            if (one->kind_case == GOOGLE__PROTOBUF__VALUE__KIND_STRING_VALUE) {
                (void)json_array_append_new(list, json_string(one->string_value));
            }
        }
    }
    return list;
}

static void take(struct sv id, struct sv data, void *arg)
{
    struct people_imported *im = arg;
    size_t n = strlen(im->generation);
    ProtobufCMessage *m = NULL;

    if (n == 0 || !sv_starts(id, sv_of(im->generation, n)) || id.n <= n || id.p[n] != '/') {
        return;
    }
    const Google__Protobuf__Struct *row = unpack(data, &m);

    if (row != NULL) {
        struct row *kept = MEM_NEW(struct row);

        kept->groups = groups_of(row);
        row_free(map_set(im->rows, id, kept));
        protobuf_c_message_free_unpacked(m, NULL);
    }
}

enum err people_imported_load(const struct cli_broker *broker,
                              struct people_imported **imported_out)
{
    enum err err = ERR_OK;
    CLEANUP(people_imported_free) struct people_imported *im = set_of(broker, &err);
    struct import_store place = { .broker = broker };
    const struct data_store store = import_store_of(&place);
    struct diag d = { .line = 0 };

    if (im != NULL) {
        err = store.read(store.arg, DATA_DIRECTORY_TYPE, take, im, &d);
    }
    if (err == ERR_OK) {
        *imported_out = TAKE(im);
    }
    return err == ERR_OK ? ERR_OK : ERR_UNAVAILABLE;
}

static struct sv text_of(const json_t *person, const char *name)
{
    const json_t *v = json_object_get(person, name);

    return sv_of(json_string_value(v), json_string_length(v));
}

void people_imported_apply(struct people_imported *im, json_t *person)
{
    struct sv email = text_of(person, "directory_email");
    struct sv key = im->key == DATA_KEY_USER ? text_of(person, "user")
                    : email.n != 0           ? email
                                             : text_of(person, "email");
    char room[DATA_ID_MAX];
    struct sv id = data_row_id(sv_from(im->generation), im->key, key, room);
    struct row *row = id.n == 0 ? NULL : map_get(im->rows, id);

    (void)json_object_del(person, "groups");
    if (row != NULL) {
        row->is_told = true;
        (void)json_object_set(person, "groups", row->groups);
    }
}

struct telling {
    const struct people_imported *imported;
    cli_person_fn fn;
    void *arg;
    bool is_over;
};

static void tell(struct sv id, void *value, void *arg)
{
    struct telling *t = arg;
    const struct row *row = value;
    struct sv key = sv_from_at(id, strlen(t->imported->generation) + 1);

    if (row->is_told || t->is_over) {
        return;
    }
    json_t *person = json_object();

    (void)json_object_set_new(person, t->imported->key == DATA_KEY_USER ? "user" : "email",
                              json_stringn(key.p, key.n));
    (void)json_object_set(person, "groups", row->groups);
    t->is_over = !t->fn(person, t->arg);
    json_decref(person);
}

void people_imported_rest(const struct people_imported *im, cli_person_fn fn, void *arg)
{
    struct telling t = { .imported = im, .fn = fn, .arg = arg };

    map_each(im->rows, tell, &t);
}
