#include "databroker/search.h"

#include "common/clock.h"

static char lower(char c)
{
    return c >= 'A' && c <= 'Z' ? (char)(c + ('a' - 'A')) : c;
}

/* needle is lower case and not empty. */
static bool contains(struct sv hay, struct sv needle)
{
    size_t i = 0;

    for (i = 0; i + needle.n <= hay.n; i++) {
        size_t k = 0;

        while (k < needle.n && lower(hay.p[i + k]) == needle.p[k]) {
            k++;
        }
        if (k == needle.n) {
            return true;
        }
    }
    return false;
}

/* Strings stand in protobuf's bytes as they are: looking there finds a text in any field. */
bool broker_search_has_text(const struct broker_record *record, struct sv text)
{
    char room[BROKER_NAME_MAX];
    struct sv needle = sv_of(room, text.n);

    CHECK(text.n <= sizeof(room));
    for (size_t i = 0; i < text.n; i++) {
        room[i] = lower(text.p[i]);
    }
    return text.n == 0 || contains(record->id, needle) || contains(record->data, needle);
}

static enum err look_at(const struct broker_search *search, const struct broker_records *page,
                        struct broker_records *out)
{
    enum err err = ERR_OK;

    for (size_t i = 0; i < page->count && err == ERR_OK; i++) {
        const struct broker_record *record = &page->items[i];
        bool match = false;

        if (record->deleted_us == 0) {
            err = search->match(record, search->arg, &match);
        }
        if (err == ERR_OK && match) {
            broker_records_match(out, record, search->offset, search->limit);
        }
    }
    return err;
}

/* How far a search has come. */
struct place {
    struct arena texts;
    struct broker_record after;
    size_t id;     /* the first that is not read yet */
    size_t single; /* so many of the next ids are read one by one: together they fill a page */
};

static enum err read_ids(const struct broker_store_ops *ops, struct broker_store *store,
                         const struct broker_search *search, struct place *at,
                         struct broker_records *page)
{
    size_t rest = search->id_count - at->id;
    size_t n = at->single > 0 ? 1 : MIN(rest, (size_t)BROKER_QUERY_IDS);
    const struct broker_query query = { .type = search->type,
                                        .ids = search->ids + at->id,
                                        .id_count = n,
                                        .limit = BROKER_BATCH_RECORDS };
    enum err err = ops->query(store, &query, search->deadline_ms, page);

    if (err == ERR_OK && page->more && n > 1) {
        at->single = n;
        page->count = 0;
        return ERR_OK;
    }
    at->id += n;
    at->single -= MIN(at->single, n);
    page->more = at->id < search->id_count;
    return err;
}

static enum err read_type(const struct broker_store_ops *ops, struct broker_store *store,
                          const struct broker_search *search, struct place *at,
                          struct broker_records *page)
{
    const struct broker_record *last = NULL;
    enum err err = ops->page(store, search->type, &at->after, search->deadline_ms, page);

    page->more = page->more && page->count > 0;
    if (page->more) {
        last = &page->items[page->count - 1];
        arena_reset(&at->texts);
        at->after = (struct broker_record){ .type = arena_sv(&at->texts, last->type),
                                            .id = arena_sv(&at->texts, last->id),
                                            .place = last->place };
    }
    return err;
}

static enum err search_on(const struct broker_store_ops *ops, struct broker_store *store,
                          const struct broker_search *search, struct place *at,
                          struct broker_records *out)
{
    bool more = true;
    enum err err = ERR_OK;

    while (more && err == ERR_OK) {
        CLEANUP(broker_records_deinit) struct broker_records page = { .items = NULL };

        broker_records_init(&page);
        if (clock_mono_ms() > search->deadline_ms) {
            return ERR_TIMEOUT;
        }
        err = search->ids != NULL ? read_ids(ops, store, search, at, &page)
                                  : read_type(ops, store, search, at, &page);
        if (err != ERR_OK) {
            return err;
        }
        if (out->server_version == 0) {
            out->server_version = page.server_version;
            out->latest_version = page.latest_version;
        }
        more = page.more;
        err =
            out->server_version == page.server_version ? look_at(search, &page, out) : ERR_ABORTED;
    }
    return err;
}

enum err broker_search(const struct broker_store_ops *ops, struct broker_store *store,
                       const struct broker_search *search, struct broker_records *out)
{
    struct place at = { .after = { .type = search->type, .id = SV("") } };
    enum err err = ERR_OK;

    arena_init(&at.texts);
    err = search_on(ops, store, search, &at, out);
    arena_deinit(&at.texts);
    return err;
}
