/* All that files told of people and groups, put together: a row for each person. Memberships are pairs of
 * numbers, sorted: the groups of one person, or those that one group is in, stand together. */
#include <stdlib.h>
#include <string.h>

#include "cli/directory_int.h"
#include "common/mem.h"

struct pair {
    uint32_t from; /* a person, or a group that is a member */
    uint32_t group;
};

struct pairs {
    struct pair *items;
    size_t n;
};

struct work {
    struct directory *dir;
    struct data_rows *rows;
    const char **labels; /* DIRECTORY_BY_COUNT of each group: what policies call it, or NULL */
    struct pairs people;
    struct pairs groups;
    uint32_t *seen;  /* by group: number of the person and 1 who was found to be in it last */
    uint32_t *found; /* groups of one person */
    size_t n_found;
};

static int by_from(const void *a, const void *b)
{
    const struct pair *left = a;
    const struct pair *right = b;

    return (left->from > right->from) - (left->from < right->from);
}

static void pairs_sort(struct pairs *pairs)
{
    if (pairs->n != 0) {
        qsort(pairs->items, pairs->n, sizeof(*pairs->items), by_from);
    }
}

/* The first of those of from. */
static size_t pairs_of(const struct pairs *pairs, uint32_t from)
{
    size_t low = 0;
    size_t high = pairs->n;

    while (low < high) {
        size_t middle = low + (high - low) / 2;

        if (pairs->items[middle].from < from) {
            low = middle + 1;
        } else {
            high = middle;
        }
    }
    return low;
}

/* --- groups ---------------------------------------------------------------------------------------- */

static const char *label_of(const struct directory_group *group, enum directory_by by)
{
    switch (by) {
    case DIRECTORY_BY_NAME:
        return group->name;
    case DIRECTORY_BY_EMAIL:
        return group->email;
    case DIRECTORY_BY_DN:
        return group->dn;
    case DIRECTORY_BY_ID:
    case DIRECTORY_BY_COUNT:
        break;
    }
    return group->id;
}

const char *directory_by_name(enum directory_by by)
{
    static const char *const names[] = { "id", "name", "email", "dn" };

    return names[by];
}

bool directory_by_parse(struct sv text, unsigned *by_out)
{
    *by_out = 0;
    while (text.p != NULL) {
        struct sv name = sv_cut(&text, ',');
        unsigned by = 0;

        while (by < DIRECTORY_BY_COUNT &&
               !sv_eq(name, sv_from(directory_by_name((enum directory_by)by)))) {
            by++;
        }
        if (by == DIRECTORY_BY_COUNT) {
            return false;
        }
        *by_out |= 1U << by;
    }
    return *by_out != 0;
}

/* Two groups with one name, of whatever kind, would let the people of one in where the other was meant. */
static enum err label_one(struct work *w, size_t n, struct map *taken)
{
    const struct directory_group *group = &w->dir->groups[n];
    unsigned wanted = w->dir->opts->by;
    size_t labels = 0;

    for (unsigned by = 0; by < DIRECTORY_BY_COUNT; by++) {
        const char *label =
            (wanted & 1U << by) == 0 ? NULL : label_of(group, (enum directory_by)by);
        const struct directory_group *other =
            label == NULL ? NULL : map_set(taken, sv_from(label), base_unconst(group));

        if (other != NULL && other != group) {
            return directory_wrong(w->dir, &group->place,
                                   "another group is called %.200s, too: let policies call groups "
                                   "by something else (--group-by)",
                                   label);
        }
        labels += label != NULL ? 1 : 0;
        w->labels[n * DIRECTORY_BY_COUNT + by] = other == NULL ? label : NULL; /* each once */
    }
    return labels != 0
               ? ERR_OK
               : directory_wrong(w->dir, &group->place,
                                 "a group has no %s, which policies shall call it by",
                                 directory_by_name((enum directory_by)__builtin_ctz(wanted)));
}

static enum err label_all(struct work *w)
{
    struct map *taken = map_new();
    enum err err = ERR_OK;

    w->labels = mem_array((w->dir->n_groups + 1) * DIRECTORY_BY_COUNT,
                          sizeof(char *)); /* NOLINT(bugprone-sizeof-expression) */
    for (size_t i = 0; i < w->dir->n_groups && err == ERR_OK; i++) {
        err = label_one(w, i, taken);
    }
    map_free(&taken);
    return err;
}

/* A group that nothing but memberships tells of. */
static enum err group_told(struct directory *dir, const struct directory_link *link)
{
    const struct directory_group group = { .id = link->id,
                                           .name = link->id,
                                           .dn = link->member != NULL ? link->group : NULL,
                                           .place = link->place };

    if (link->id == NULL) {
        return directory_wrong(dir, &link->place, "the group %.200s is not among the groups",
                               link->group);
    }
    return directory_add_group(dir, &group, link->group);
}

static enum err pair_up(struct work *w)
{
    struct directory *dir = w->dir;
    enum err err = ERR_OK;

    w->people.items = mem_array(dir->n_links + 1, sizeof(struct pair));
    w->groups.items = mem_array(dir->n_links + 1, sizeof(struct pair));
    for (size_t i = 0; i < dir->n_links && err == ERR_OK; i++) {
        const struct directory_link *link = &dir->links[i];
        size_t person = link->person != DIRECTORY_NOBODY
                            ? link->person
                            : directory_number(dir->person_of, link->member);
        size_t child = SIZE_MAX;

        if (directory_number(dir->group_of, link->group) == SIZE_MAX) {
            err = group_told(dir, link);
        }
        if (err != ERR_OK) {
            break;
        }
        struct pair pair = { .group = (uint32_t)directory_number(dir->group_of, link->group) };

        if (person == SIZE_MAX && link->member[0] == 'd') {
            child = directory_number(dir->group_of, link->member + 1);
        }
        pair.from = (uint32_t)(person != SIZE_MAX ? person : child);
        if (person != SIZE_MAX) {
            w->people.items[w->people.n++] = pair;
        } else if (child != SIZE_MAX) {
            w->groups.items[w->groups.n++] = pair;
        } else {
            dir->counts.strangers++;
        }
    }
    pairs_sort(&w->people);
    pairs_sort(&w->groups);
    return err;
}

/* --- rows ------------------------------------------------------------------------------------------ */

static void find(struct work *w, uint32_t person, uint32_t group)
{
    if (w->seen[group] != person + 1) {
        w->seen[group] = person + 1;
        w->found[w->n_found++] = group;
    }
}

/* The groups of a person, and those that these are in; each once, whatever circle they make. */
static void find_all(struct work *w, uint32_t person)
{
    w->n_found = 0;
    for (size_t i = pairs_of(&w->people, person);
         i < w->people.n && w->people.items[i].from == person; i++) {
        find(w, person, w->people.items[i].group);
    }
    for (size_t k = 0; k < w->n_found; k++) {
        uint32_t child = w->found[k];

        for (size_t i = pairs_of(&w->groups, child);
             i < w->groups.n && w->groups.items[i].from == child; i++) {
            find(w, person, w->groups.items[i].group);
        }
    }
}

static int by_text(const void *a, const void *b)
{
    const char *const *left = a;
    const char *const *right = b;

    return strcmp(*left, *right);
}

/* Sorted: the same groups are the same row, in whatever order files tell them. */
static json_t *groups_json(const struct work *w)
{
    const char **texts = mem_array(w->n_found * DIRECTORY_BY_COUNT + 1,
                                   sizeof(char *)); /* NOLINT(bugprone-sizeof-expression) */
    json_t *list = json_array();
    size_t n = 0;

    for (size_t i = 0; i < w->n_found; i++) {
        for (size_t by = 0; by < DIRECTORY_BY_COUNT; by++) {
            const char *label = w->labels[w->found[i] * (size_t)DIRECTORY_BY_COUNT + by];

            texts[n] = label;
            n += label != NULL ? 1 : 0;
        }
    }
    if (n != 0) {
        qsort(texts, n, sizeof(char *), by_text); /* NOLINT(bugprone-sizeof-expression) */
    }
    for (size_t i = 0; i < n; i++) {
        (void)json_array_append_new(list, json_string(texts[i]));
    }
    mem_free(&texts);
    return list;
}

static void set_text(json_t *row, const char *name, const char *text)
{
    if (text != NULL) {
        (void)json_object_set_new(row, name, json_string(text));
    }
}

static enum err row_add(struct work *w, uint32_t n)
{
    const struct directory_person *person = &w->dir->people[n];
    enum data_key key = w->dir->opts->key;
    const struct data_source source = { .name = person->place.file,
                                        .key = key,
                                        .values_max = DIRECTORY_OF_ONE_MAX,
                                        .row_max = DIRECTORY_ROW_MAX };
    struct data_reader reader = { .source = &source, .rows = w->rows, .d = w->dir->d };
    json_t *row = json_object();

    find_all(w, n);
    set_text(row, "email", person->email);
    set_text(row, "name", person->name);
    if (key == DATA_KEY_USER) {
        set_text(row, data_key_name(key), person->id);
    }
    (void)json_object_set_new(row, "group_ids", groups_json(w));
    enum err err = data_row_take(&reader, row, person->place.at);

    w->dir->counts.memberships += w->n_found;
    json_decref(row);
    return err;
}

static enum err make(struct work *w)
{
    struct directory *dir = w->dir;
    const struct data_source source = { .name = "all files together", .key = dir->opts->key };
    struct data_reader reader = { .source = &source, .rows = w->rows, .d = dir->d };
    enum err err = pair_up(w);

    err = err == ERR_OK ? label_all(w) : err;
    w->seen = mem_array(dir->n_groups + 1, sizeof(*w->seen));
    w->found = mem_array(dir->n_groups + 1, sizeof(*w->found));
    for (uint32_t i = 0; i < dir->n_people && err == ERR_OK; i++) {
        err = row_add(w, i);
    }
    w->rows->weight = dir->counts.memberships;
    return err == ERR_OK ? data_rows_check(&reader) : err;
}

enum err directory_rows(struct directory *dir, struct data_rows **rows_out,
                        struct directory_counts *counts_out, struct diag *d)
{
    CLEANUP(data_rows_free) struct data_rows *rows = MEM_NEW(struct data_rows);
    struct work w = { .dir = dir, .rows = rows };

    dir->d = d;
    enum err err = make(&w);

    dir->counts.people = dir->n_people;
    dir->counts.groups = dir->n_groups;
    *counts_out = dir->counts;
    mem_free(&w.labels);
    mem_free(&w.people.items);
    mem_free(&w.groups.items);
    mem_free(&w.seen);
    mem_free(&w.found);
    if (err == ERR_OK) {
        *rows_out = TAKE(rows);
    }
    return err;
}
