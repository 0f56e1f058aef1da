#include "authorize/hold.h"

#include <string.h>

#include "common/mem.h"

void authz_hold_init(struct authz_hold *hold)
{
    list_init(&hold->list);
    hold->n = 0;
}

struct authz_held *authz_hold_add(struct authz_hold *hold, struct sv bytes)
{
    struct authz_held *h = mem_zalloc(sizeof(*h) + bytes.n);

    h->n = bytes.n;
    if (bytes.n != 0) {
        memcpy(h->bytes, bytes.p, bytes.n);
    }
    list_push_back(&hold->list, &h->in_hold);
    hold->n++;
    return h;
}

struct authz_held *authz_hold_due(const struct authz_hold *hold, uint64_t written, bool failing,
                                  int64_t now_ms)
{
    struct list *it;

    LIST_FOREACH(it, &hold->list) {
        struct authz_held *h = LIST_ENTRY(it, struct authz_held, in_hold);
        bool is_due = failing || h->line <= written || now_ms - h->since_ms >= AUTHZ_HOLD_MS;

        return is_due ? h : NULL; /* lines and times only grow */
    }
    return NULL;
}

void authz_held_free(struct authz_hold *hold, struct authz_held **held)
{
    struct authz_held *h = TAKE(*held);

    list_remove(&h->in_hold);
    hold->n--;
    mem_free(&h);
}

void authz_hold_forget(struct authz_hold *hold, const void *stream)
{
    struct list *it;
    struct list *tmp;

    LIST_FOREACH_SAFE(it, tmp, &hold->list) {
        struct authz_held *h = LIST_ENTRY(it, struct authz_held, in_hold);

        if (h->stream == stream) {
            authz_held_free(hold, &h);
        }
    }
}
