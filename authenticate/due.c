#include "authenticate/due.h"

#include <string.h>

#include "common/map.h"
#include "common/mem.h"

enum { TAKEN = SIZE_MAX, ROOM_FIRST = 64 };

struct due_entry {
    int64_t at_ms;
    uint64_t version;
    size_t place; /* in the heap; TAKEN */
    unsigned failures;
    size_t n;
    char id[];
};

struct authn_due {
    struct map *by_id;
    struct due_entry **heap;
    size_t n;
    size_t room;
};

/* --- the heap ------------------------------------------------------------------------------------- */

static void put_at(struct authn_due *due, size_t place, struct due_entry *e)
{
    due->heap[place] = e;
    e->place = place;
}

static void sift_up(struct authn_due *due, struct due_entry *e)
{
    size_t place = e->place;

    while (place > 0 && due->heap[(place - 1) / 2]->at_ms > e->at_ms) {
        put_at(due, place, due->heap[(place - 1) / 2]);
        place = (place - 1) / 2;
    }
    put_at(due, place, e);
}

static void sift_down(struct authn_due *due, struct due_entry *e)
{
    size_t place = e->place;

    for (;;) {
        size_t child = 2 * place + 1;

        if (child + 1 < due->n && due->heap[child + 1]->at_ms < due->heap[child]->at_ms) {
            child++;
        }
        if (child >= due->n || due->heap[child]->at_ms >= e->at_ms) {
            break;
        }
        put_at(due, place, due->heap[child]);
        place = child;
    }
    put_at(due, place, e);
}

static void heap_add(struct authn_due *due, struct due_entry *e)
{
    if (due->n == due->room) {
        size_t room = due->room == 0 ? ROOM_FIRST : due->room * 2;
        struct due_entry **more = mem_array(room, sizeof(struct due_entry *));

        for (size_t i = 0; i < due->n; i++) {
            more[i] = due->heap[i];
        }
        mem_free(&due->heap);
        due->heap = more;
        due->room = room;
    }
    e->place = due->n++;
    sift_up(due, e);
}

static void heap_remove(struct authn_due *due, struct due_entry *e)
{
    struct due_entry *last = due->heap[--due->n];

    if (last != e) {
        put_at(due, e->place, last);
        sift_down(due, last);
        sift_up(due, last);
    }
    e->place = TAKEN;
}

/* --- sessions ------------------------------------------------------------------------------------- */

struct authn_due *authn_due_new(void)
{
    struct authn_due *due = MEM_NEW(struct authn_due);

    due->by_id = map_new();
    return due;
}

static void free_entry(struct sv key, void *value, void *arg)
{
    struct due_entry *e = value;

    (void)key;
    (void)arg;
    mem_free(&e);
}

void authn_due_free(struct authn_due **due)
{
    if (*due == NULL) {
        return;
    }
    map_each((*due)->by_id, free_entry, NULL);
    map_free(&(*due)->by_id);
    mem_free(&(*due)->heap);
    mem_free(due);
}

size_t authn_due_count(const struct authn_due *due)
{
    return map_count(due->by_id);
}

enum err authn_due_set(struct authn_due *due, struct sv id, uint64_t version, int64_t at_ms)
{
    struct due_entry *e = map_get(due->by_id, id);

    if (e == NULL) {
        if (map_count(due->by_id) >= AUTHN_DUE_MAX) {
            return ERR_LIMIT;
        }
        e = mem_alloc(sizeof *e + id.n);
        *e = (struct due_entry){ .at_ms = at_ms, .version = version, .n = id.n };
        if (id.n != 0) {
            memcpy(e->id, id.p, id.n);
        }
        (void)map_set(due->by_id, id, e);
        heap_add(due, e);
        return ERR_OK;
    }
    if (version < e->version) {
        return ERR_OK;
    }
    e->version = version;
    e->at_ms = at_ms;
    if (e->place != TAKEN) {
        sift_down(due, e);
        sift_up(due, e);
    }
    return ERR_OK;
}

void authn_due_drop(struct authn_due *due, struct sv id)
{
    struct due_entry *e = map_take(due->by_id, id);

    if (e != NULL && e->place != TAKEN) {
        heap_remove(due, e);
    }
    mem_free(&e);
}

int64_t authn_due_next_ms(const struct authn_due *due)
{
    return due->n == 0 ? INT64_MAX : due->heap[0]->at_ms;
}

bool authn_due_take(struct authn_due *due, int64_t now_ms, struct sv *id_out)
{
    struct due_entry *e = due->n == 0 ? NULL : due->heap[0];

    if (e == NULL || e->at_ms > now_ms) {
        return false;
    }
    heap_remove(due, e);
    *id_out = sv_of(e->id, e->n);
    return true;
}

void authn_due_put_back(struct authn_due *due, struct sv id, int64_t not_before_ms)
{
    struct due_entry *e = map_get(due->by_id, id);

    if (e != NULL && e->place == TAKEN) {
        e->at_ms = MAX(e->at_ms, not_before_ms);
        heap_add(due, e);
    }
}

unsigned authn_due_failed(struct authn_due *due, struct sv id)
{
    struct due_entry *e = map_get(due->by_id, id);

    return e == NULL ? 0 : ++e->failures;
}

void authn_due_worked(struct authn_due *due, struct sv id)
{
    struct due_entry *e = map_get(due->by_id, id);

    if (e != NULL) {
        e->failures = 0;
    }
}

/* --- when ----------------------------------------------------------------------------------------- */

static int64_t ms_of(const Google__Protobuf__Timestamp *t)
{
    const int64_t most = INT64_MAX / 4000;

    return t == NULL ? 0 : MIN(MAX(t->seconds, 0), most) * 1000;
}

bool authn_due_window(const Session__Session *session, int64_t written_ms, int64_t *from_ms_out,
                      int64_t *span_ms_out)
{
    const Session__OAuthToken *oauth = session->oauth_token;
    const Session__IDToken *id = session->id_token;
    int64_t end_ms = oauth == NULL ? 0 : ms_of(oauth->expires_at);
    int64_t id_end_ms = id == NULL ? 0 : ms_of(id->expires_at);
    int64_t ahead_ms = 0;

    if (oauth == NULL || oauth->refresh_token[0] == '\0' || session->refresh_disabled) {
        return false;
    }
    if (id_end_ms != 0 && (end_ms == 0 || id_end_ms < end_ms)) {
        end_ms = id_end_ms;
    }
    if (end_ms == 0) {
        return false; /* nothing says that it would ever be needed */
    }
    ahead_ms = MIN(MAX(end_ms - written_ms, 0) / 5, (int64_t)AUTHN_DUE_AHEAD_MS);
    *from_ms_out = MAX(end_ms - 2 * ahead_ms, written_ms + AUTHN_DUE_REST_MS);
    *span_ms_out = ahead_ms;
    return true;
}
