#include "cli/people.h"

#include <string.h>

#include "google/protobuf/struct.pb-c.h"

#include "cli/file.h"
#include "cli/people_imported.h"
#include "common/mem.h"
#include "common/rpc/scan.h"
#include "common/yaml.h"

#define TYPE_DIRECTORY "pomerium.io/DirectoryUser"

enum { FILE_MAX = 64 << 20 };

/* --- the databroker ------------------------------------------------------------------------------ */

/* Records of one type by id. */
struct cursor {
    const struct cli_broker *broker;
    const char *type;
    Databroker__QueryResponse *page; /* NULL: none was read yet, or it failed */
    size_t index;
    int64_t offset; /* of the next page */
    bool failed;
};

static void cursor_free(struct cursor *c)
{
    if (c->page != NULL) {
        protobuf_c_message_free_unpacked(&c->page->base, NULL);
    }
    c->page = NULL;
}

/* NULL: there is no more, or it failed. */
static const Databroker__Record *cursor_peek(struct cursor *c)
{
    if (c->page != NULL && c->index < c->page->n_records) {
        return c->page->records[c->index];
    }
    if (c->failed || (c->page != NULL && c->offset >= c->page->total_count)) {
        return NULL;
    }
    cursor_free(c);
    c->page = cli_broker_query(c->broker, c->type, c->offset);
    c->index = 0;
    c->failed = c->page == NULL;
    if (c->failed || c->page->n_records == 0) {
        c->offset = INT64_MAX;
        return NULL;
    }
    c->offset += (int64_t)c->page->n_records;
    return c->page->records[0];
}

static json_t *scalar_json(const Google__Protobuf__Value *v)
{
    switch ((int)v->kind_case) {
    case GOOGLE__PROTOBUF__VALUE__KIND_STRING_VALUE:
        return json_string(v->string_value);
    case GOOGLE__PROTOBUF__VALUE__KIND_NUMBER_VALUE:
        return json_real(v->number_value);
    case GOOGLE__PROTOBUF__VALUE__KIND_BOOL_VALUE:
        return json_boolean(v->bool_value);
    case GOOGLE__PROTOBUF__VALUE__KIND_NULL_VALUE:
        return json_null();
    default: /* equals nothing, as in authorize */
        return json_object();
    }
}

static json_t *list_json(const Google__Protobuf__ListValue *list)
{
    json_t *out = json_array();

    for (size_t i = 0; list != NULL && i < list->n_values; i++) {
        (void)json_array_append_new(out, scalar_json(list->values[i]));
    }
    return out;
}

static void take_user(const Databroker__Record *record, json_t *person)
{
    ProtobufCMessage *m = NULL;
    const User__User *user = NULL;
    json_t *claims = NULL;

    if (record->data == NULL ||
        rpc_unpack(&user__user__descriptor,
                   sv_of(record->data->value.data, record->data->value.len), NULL, &m) != ERR_OK) {
        return;
    }
    user = (const User__User *)(const void *)m;
    claims = json_object();
    for (size_t i = 0; i < user->n_claims; i++) {
        (void)json_object_set_new(claims, user->claims[i]->key, list_json(user->claims[i]->value));
    }
    (void)json_object_set_new(person, "email", json_string(user->email));
    (void)json_object_set_new(person, "user_claims", claims);
    protobuf_c_message_free_unpacked(m, NULL);
}

static void take_directory(const Databroker__Record *record, json_t *person)
{
    ProtobufCMessage *m = NULL;
    const Google__Protobuf__Struct *user = NULL;

    if (record->data == NULL ||
        rpc_unpack(&google__protobuf__struct__descriptor,
                   sv_of(record->data->value.data, record->data->value.len), NULL, &m) != ERR_OK) {
        return;
    }
    user = (const Google__Protobuf__Struct *)(const void *)m;
    (void)json_object_set_new(person, "groups", json_array());
    for (size_t i = 0; i < user->n_fields; i++) {
        const Google__Protobuf__Value *v = user->fields[i]->value;

        if (strcmp(user->fields[i]->key, "group_ids") == 0 &&
            v->kind_case == GOOGLE__PROTOBUF__VALUE__KIND_LIST_VALUE) {
            (void)json_object_set_new(person, "groups", list_json(v->list_value));
        } else if (strcmp(user->fields[i]->key, "email") == 0 &&
                   v->kind_case == GOOGLE__PROTOBUF__VALUE__KIND_STRING_VALUE) {
            (void)json_object_set_new(person, "directory_email", json_string(v->string_value));
        }
    }
    protobuf_c_message_free_unpacked(m, NULL);
}

/* Who is told of everybody. */
struct audience {
    struct people_imported *imported; /* NULL: groups are those of directory records */
    cli_person_fn fn;
    void *arg;
};

/* Both come by id: those of one id are one person. */
static bool next_person(struct cursor *users, struct cursor *directory, const struct audience *to)
{
    const Databroker__Record *user = cursor_peek(users);
    const Databroker__Record *entry = users->failed ? NULL : cursor_peek(directory);
    int order = 0;
    json_t *person = NULL;
    bool more = false;

    if (user == NULL && entry == NULL) {
        return false;
    }
    if (user == NULL || entry == NULL) {
        order = user == NULL ? 1 : -1;
    } else {
        order = strcmp(user->id, entry->id);
    }
    person = json_object();
    (void)json_object_set_new(person, "user", json_string(order <= 0 ? user->id : entry->id));
    if (order <= 0) {
        take_user(user, person);
        users->index++;
    }
    if (order >= 0) {
        take_directory(entry, person);
        directory->index++;
    }
    if (to->imported != NULL) {
        people_imported_apply(to->imported, person);
    }
    more = to->fn(person, to->arg);
    json_decref(person);
    return more;
}

enum err cli_people_of_broker(const struct cli_broker *broker, cli_person_fn fn, void *arg)
{
    struct cursor users = { .broker = broker, .type = BROKER_TYPE_USER };
    struct cursor directory = { .broker = broker, .type = TYPE_DIRECTORY };
    CLEANUP(people_imported_free) struct people_imported *imported = NULL;
    bool more = true;

    if (people_imported_load(broker, &imported) != ERR_OK) {
        return ERR_UNAVAILABLE;
    }
    const struct audience to = { .imported = imported, .fn = fn, .arg = arg };

    while (more && !users.failed && !directory.failed) {
        more = next_person(&users, &directory, &to);
    }
    cursor_free(&users);
    cursor_free(&directory);
    if (!users.failed && !directory.failed && imported != NULL) {
        people_imported_rest(imported, fn, arg);
    }
    return users.failed || directory.failed ? ERR_UNAVAILABLE : ERR_OK;
}

/* --- a file -------------------------------------------------------------------------------------- */

/* An account of the local provider: what its login would tell. */
static json_t *account_json(const json_t *account)
{
    json_t *person = json_object();
    const char *email = json_string_value(json_object_get(account, "email"));
    const json_t *groups = json_object_get(account, "groups");
    CLEANUP(buf_deinit) struct buf id;

    buf_init(&id, 1024);
    buf_add_str(&id, "local/");
    buf_add_str(&id, email == NULL ? "" : email);
    (void)json_object_set_new(person, "user", json_string(buf_cstr(&id)));
    (void)json_object_set_new(person, "email", json_string(email == NULL ? "" : email));
    if (groups != NULL) {
        (void)json_object_set_new(person, "user_claims", json_pack("{s:O}", "groups", groups));
    }
    return person;
}

enum err cli_people_of_file(const char *path, cli_person_fn fn, void *arg, struct diag *d)
{
    CLEANUP(yaml_doc_free) struct yaml_doc *doc = NULL;
    char *text = NULL;
    const json_t *list = NULL;
    enum err err = cli_file_read(path, FILE_MAX, &text, d);
    bool more = true;

    if (err == ERR_OK) {
        err = yaml_parse(sv_from(text), path, &doc, d);
    }
    mem_free(&text);
    if (err != ERR_OK) {
        return err;
    }
    list = yaml_root(doc);
    if (!json_is_array(list)) {
        diag_set(d, "no list of users: start each with -");
        diag_at(d, path, 0, 0);
        return ERR_INVALID;
    }
    for (size_t i = 0; i < json_array_size(list) && more; i++) {
        json_t *entry = json_array_get(list, i);
        bool account = json_object_get(entry, "password") != NULL;
        json_t *person = account ? account_json(entry) : json_incref(entry);

        more = fn(person, arg);
        json_decref(person);
    }
    return ERR_OK;
}
