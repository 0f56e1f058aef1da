/* JSON by jansson, and CSV by the reader of common/data, which makes an object of each row. */
#include <string.h>

#include "cli/directory_int.h"

enum err directory_member(struct directory *dir, const struct directory_place *place,
                          const json_t *object, const char *member, const char **text_out)
{
    const json_t *v = json_object_get(object, member);

    *text_out = NULL;
    if (v == NULL || json_is_null(v)) {
        return ERR_OK;
    }
    if (!json_is_string(v)) {
        return directory_wrong(dir, place, "%s is no text", member);
    }
    return directory_text(dir, place, member, sv_of(json_string_value(v), json_string_length(v)),
                          text_out);
}

enum err directory_user(struct directory *dir, const struct directory_place *place,
                        const json_t *object, uint32_t *n_out)
{
    const char *id = dir->opts->id_field != NULL ? dir->opts->id_field : "id";
    bool by_email = dir->opts->key == DATA_KEY_EMAIL;
    struct directory_person person = { .place = *place };
    enum err err = directory_member(dir, place, object, id, &person.id);

    err = err == ERR_OK ? directory_member(dir, place, object, "email", &person.email) : err;
    err = err == ERR_OK ? directory_member(dir, place, object, "name", &person.name) : err;
    if (err == ERR_OK && (by_email ? person.email : person.id) == NULL) {
        err = directory_wrong(dir, place, "there is no %s, which says whose row it is",
                              by_email ? "email" : id);
    }
    return err == ERR_OK ? directory_add_person(dir, &person, n_out) : err;
}

/* --- JSON ----------------------------------------------------------------------------------------- */

static enum err take_membership(struct directory *dir, const struct directory_place *place,
                                uint32_t person, const json_t *group, bool told)
{
    struct directory_link link = { .person = person, .place = *place };

    if (!json_is_string(group) || json_string_length(group) == 0) {
        return directory_wrong(dir, place, "groups is no list of texts");
    }
    enum err err =
        directory_text(dir, place, "a group",
                       sv_of(json_string_value(group), json_string_length(group)), &link.group);

    link.id = told ? NULL : link.group;
    return err == ERR_OK ? directory_add_link(dir, &link) : err;
}

static enum err take_user(struct directory *dir, const struct directory_place *place,
                          const json_t *user, bool told)
{
    const json_t *groups = json_object_get(user, "groups");
    uint32_t person = 0;

    if (!json_is_object(user) ||
        (groups != NULL && !json_is_array(groups) && !json_is_null(groups))) {
        return directory_wrong(dir, place,
                               json_is_object(user) ? "groups is no list of texts"
                                                    : "a user is no JSON object");
    }
    enum err err = directory_user(dir, place, user, &person);

    for (size_t i = 0; i < json_array_size(groups) && err == ERR_OK; i++) {
        err = take_membership(dir, place, person, json_array_get(groups, i), told);
    }
    return err;
}

static enum err take_group(struct directory *dir, const struct directory_place *place,
                           const json_t *object)
{
    struct directory_group group = { .place = *place };

    if (!json_is_object(object)) {
        return directory_wrong(dir, place, "a group is no JSON object");
    }
    enum err err = directory_member(dir, place, object, "id", &group.id);

    err = err == ERR_OK ? directory_member(dir, place, object, "name", &group.name) : err;
    err = err == ERR_OK ? directory_member(dir, place, object, "email", &group.email) : err;
    if (err == ERR_OK && group.id == NULL) {
        err = directory_wrong(dir, place, "a group has no id, by which users name it");
    }
    return err == ERR_OK ? directory_add_group(dir, &group, group.id) : err;
}

static enum err take_root(struct directory *dir, const char *name, const json_t *root)
{
    const json_t *users = json_is_array(root) ? root : json_object_get(root, "users");
    const json_t *groups = json_object_get(root, "groups");
    struct directory_place place = { .file = name };
    enum err err = ERR_OK;

    if (!json_is_array(users) || (groups != NULL && !json_is_array(groups))) {
        return directory_wrong(dir, &place,
                               "neither a JSON list of users nor an object with the "
                               "lists \"users\" and \"groups\"");
    }
    for (size_t i = 0; i < json_array_size(groups) && err == ERR_OK; i++) {
        place.at.row = i + 1;
        err = take_group(dir, &place, json_array_get(groups, i));
    }
    for (size_t i = 0; i < json_array_size(users) && err == ERR_OK; i++) {
        place.at.row = i + 1;
        err = take_user(dir, &place, json_array_get(users, i), groups != NULL);
    }
    return err;
}

enum err directory_json_read(struct directory *dir, const char *name, struct sv text)
{
    json_error_t error;
    json_t *root = json_loadb(text.n == 0 ? "" : text.p, text.n, JSON_REJECT_DUPLICATES, &error);

    if (root == NULL) {
        diag_at(dir->d, name, error.line, error.column);
        diag_set(dir->d, "no JSON: %s", error.text);
        return ERR_INVALID;
    }
    enum err err = take_root(dir, name, root);

    json_decref(root);
    return err;
}

/* --- CSV ------------------------------------------------------------------------------------------ */

struct csv_reader {
    struct data_reader reader;
    struct directory *dir;
    const char *name;
};

static struct sv trimmed(struct sv s)
{
    while (s.n > 0 && s.p[0] == ' ') {
        s = sv_from_at(s, 1);
    }
    while (s.n > 0 && s.p[s.n - 1] == ' ') {
        s.n--;
    }
    return s;
}

static enum err take_groups(struct directory *dir, const struct directory_place *place,
                            uint32_t person, struct sv list)
{
    enum err err = ERR_OK;

    while (list.n > 0 && err == ERR_OK) {
        size_t end = MIN(sv_find(list, ';'), list.n);
        struct directory_link link = { .person = person, .place = *place };

        err = directory_text(dir, place, "a group", trimmed(sv_head(list, end)), &link.group);
        link.id = link.group;
        if (err == ERR_OK && link.group != NULL) {
            err = directory_add_link(dir, &link);
        }
        list = sv_from_at(list, MIN(end + 1, list.n));
    }
    return err;
}

static enum err take_row(struct data_reader *reader, const json_t *row, struct data_place at)
{
    struct csv_reader *csv = CONTAINER_OF(reader, struct csv_reader, reader);
    const struct directory_place place = { .file = csv->name, .at = at };
    const json_t *groups = json_object_get(row, "groups");
    uint32_t person = 0;
    enum err err = directory_user(csv->dir, &place, row, &person);

    if (err != ERR_OK || groups == NULL) {
        return err;
    }
    if (!json_is_string(groups)) {
        return directory_wrong(csv->dir, &place, "groups is no text");
    }
    return take_groups(csv->dir, &place, person,
                       sv_of(json_string_value(groups), json_string_length(groups)));
}

enum err directory_csv_read(struct directory *dir, const char *name, struct sv text)
{
    const struct data_source source = { .name = name };
    struct csv_reader csv = { .reader = { .source = &source, .take = take_row, .d = dir->d },
                              .dir = dir,
                              .name = name };

    return data_csv_read(&csv.reader, text);
}
