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

static void look_at(const struct broker_search *search, const struct broker_records *page,
                    struct broker_records *out)
{
    for (size_t i = 0; i < page->count; i++) {
        const struct broker_record *record = &page->items[i];

        if (record->deleted_us == 0 && search->match(record, search->arg)) {
            broker_records_match(out, record, search->offset, search->limit);
        }
    }
}

enum err broker_search(const struct broker_store_ops *ops, struct broker_store *store,
                       const struct broker_search *search, int64_t deadline_ms,
                       struct broker_records *out)
{
    CLEANUP(arena_deinit) struct arena texts = { 0 };
    struct broker_record after = { .type = search->type, .id = SV("") };
    enum err err = ERR_OK;
    bool more = true;

    arena_init(&texts);
    while (more && err == ERR_OK) {
        CLEANUP(broker_records_deinit) struct broker_records page = { .items = NULL };

        broker_records_init(&page);
        err = clock_mono_ms() > deadline_ms
                  ? ERR_TIMEOUT
                  : ops->page(store, search->type, &after, deadline_ms, &page);
        if (err != ERR_OK) {
            break;
        }
        if (out->server_version == 0) {
            out->server_version = page.server_version;
            out->latest_version = page.latest_version;
        }
        err = out->server_version == page.server_version ? ERR_OK : ERR_ABORTED;
        look_at(search, &page, out);
        more = page.more && page.count > 0;
        if (more) {
            arena_reset(&texts);
            after.id = arena_sv(&texts, page.items[page.count - 1].id);
        }
    }
    return err;
}
