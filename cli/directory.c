#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cli/directory_int.h"
#include "common/mem.h"

struct directory *directory_new(const struct directory_opts *opts)
{
    struct directory *dir = MEM_NEW(struct directory);

    dir->opts = opts;
    arena_init(&dir->arena);
    dir->person_of = map_new();
    dir->group_of = map_new();
    return dir;
}

void directory_free(struct directory **directory)
{
    struct directory *dir = TAKE(*directory);

    if (dir != NULL) {
        map_free(&dir->person_of);
        map_free(&dir->group_of);
        mem_free(&dir->people);
        mem_free(&dir->groups);
        mem_free(&dir->links);
        arena_deinit(&dir->arena);
        mem_free(&dir);
    }
}

enum err directory_wrong(struct directory *dir, const struct directory_place *place,
                         const char *fmt, ...)
{
    char text[DIAG_TEXT];
    va_list ap;

    va_start(ap, fmt);
    (void)vsnprintf(text, sizeof(text), fmt, ap);
    va_end(ap);
    diag_at(dir->d, place->file, (int)place->at.line, 0);
    if (place->at.line == 0 && place->at.row != 0) {
        diag_set(dir->d, "row %zu: %s", place->at.row, text);
    } else {
        diag_set(dir->d, "%s", text);
    }
    return ERR_INVALID;
}

enum err directory_text(struct directory *dir, const struct directory_place *place,
                        const char *what, struct sv text, const char **text_out)
{
    if (text.n > DATA_TEXT_MAX || !sv_is_plain(text) || !sv_is_utf8(text)) {
        return directory_wrong(dir, place,
                               "%s is no text of up to %d bytes without control characters", what,
                               DATA_TEXT_MAX);
    }
    *text_out = text.n == 0 ? NULL : arena_str(&dir->arena, text);
    return ERR_OK;
}

/* --- what files tell ------------------------------------------------------------------------------ */

static enum err too_many(struct directory *dir, const struct directory_place *place,
                         const char *what, size_t max)
{
    (void)directory_wrong(dir, place, "more than %zu %s", max, what);
    return ERR_LIMIT;
}

/* The list with room for one more. */
static void *grown(void *list, size_t n, size_t *room, size_t size)
{
    if (n < *room) {
        return list;
    }
    *room = MAX(*room * 2, (size_t)64);
    return mem_realloc(list, *room, size);
}

enum err directory_add_person(struct directory *dir, const struct directory_person *person,
                              uint32_t *n_out)
{
    if (dir->n_people == DATA_ROWS_MAX) {
        return too_many(dir, &person->place, "people", DATA_ROWS_MAX);
    }
    dir->people = grown(dir->people, dir->n_people, &dir->people_room, sizeof(*dir->people));
    dir->people[dir->n_people] = *person;
    *n_out = (uint32_t)dir->n_people++;
    return ERR_OK;
}

size_t directory_number(const struct map *names, const char *name)
{
    const uint32_t *n = map_get(names, sv_from(name));

    return n == NULL ? SIZE_MAX : *n;
}

static void name_set(struct directory *dir, struct map *names, const char *name, size_t number)
{
    uint32_t *n = arena_alloc(&dir->arena, sizeof(*n));

    *n = (uint32_t)number;
    (void)map_set(names, sv_from(name), n);
}

enum err directory_add_group(struct directory *dir, const struct directory_group *group,
                             const char *name)
{
    if (dir->n_groups == DIRECTORY_GROUPS_MAX) {
        return too_many(dir, &group->place, "groups", DIRECTORY_GROUPS_MAX);
    }
    if (map_get(dir->group_of, sv_from(name)) != NULL) {
        return directory_wrong(dir, &group->place, "the group %.200s is there twice", name);
    }
    dir->groups = grown(dir->groups, dir->n_groups, &dir->groups_room, sizeof(*dir->groups));
    name_set(dir, dir->group_of, name, dir->n_groups);
    dir->groups[dir->n_groups++] = *group;
    return ERR_OK;
}

enum err directory_name_person(struct directory *dir, const char *name, uint32_t person,
                               const struct directory_place *place)
{
    if (map_get(dir->person_of, sv_from(name)) != NULL) {
        return directory_wrong(dir, place, "%.200s is there twice", name + 1);
    }
    name_set(dir, dir->person_of, name, person);
    return ERR_OK;
}

enum err directory_add_link(struct directory *dir, const struct directory_link *link)
{
    if (dir->n_links == DIRECTORY_LINKS_MAX) {
        return too_many(dir, &link->place, "memberships", DIRECTORY_LINKS_MAX);
    }
    dir->links = grown(dir->links, dir->n_links, &dir->links_room, sizeof(*dir->links));
    dir->links[dir->n_links++] = *link;
    return ERR_OK;
}

enum err directory_read(struct directory *dir, const char *name, enum directory_format format,
                        struct sv text, struct diag *d)
{
    static enum err (*const readers[])(struct directory *, const char *, struct sv) = {
        [DIRECTORY_JSON] = directory_json_read,
        [DIRECTORY_CSV] = directory_csv_read,
        [DIRECTORY_LDIF] = directory_ldif_read,
    };

    dir->d = d;
    if (text.n > DIRECTORY_BYTES_MAX) {
        diag_at(d, name, 0, 0);
        diag_set(d, "larger than %d bytes", DIRECTORY_BYTES_MAX);
        return ERR_LIMIT;
    }
    return readers[format](dir, name, text);
}
