#include "proxy/timer.h"

void proxy_wheel_init(struct proxy_wheel *wheel, int64_t now_ms)
{
    size_t i = 0;

    for (i = 0; i < PROXY_WHEEL_SLOTS; i++) {
        list_init(&wheel->slots[i]);
    }
    wheel->tick = now_ms / PROXY_TICK_MS;
}

static struct list *slot_of(struct proxy_wheel *wheel, int64_t tick)
{
    return &wheel->slots[(uint64_t)tick % PROXY_WHEEL_SLOTS];
}

static void run_slot(struct proxy_wheel *wheel, int64_t tick, int64_t now_ms)
{
    struct list *slot = slot_of(wheel, tick);
    struct list due;

    /* Taken out first: what a timer sets anew must not be met again in this round. */
    list_init(&due);
    while (!list_empty(slot)) {
        struct list *node = slot->next;

        list_remove(node);
        list_push_back(&due, node);
    }
    while (!list_empty(&due)) {
        struct proxy_timer *t = LIST_ENTRY(due.next, struct proxy_timer, node);

        list_remove(&t->node);
        if (t->due_ms > now_ms) {
            list_push_back(slot, &t->node); /* a later round of the wheel */
        } else {
            t->fire(t);
        }
    }
}

void proxy_wheel_run(struct proxy_wheel *wheel, int64_t now_ms)
{
    int64_t last = now_ms / PROXY_TICK_MS;

    if (last - wheel->tick > PROXY_WHEEL_SLOTS) {
        wheel->tick = last - PROXY_WHEEL_SLOTS; /* once round sees every slot */
    }
    while (wheel->tick < last) {
        wheel->tick++;
        run_slot(wheel, wheel->tick, now_ms);
    }
}

void proxy_timer_init(struct proxy_timer *timer, proxy_timer_fn fire)
{
    list_init(&timer->node);
    timer->fire = fire;
    timer->due_ms = 0;
}

void proxy_timer_set(struct proxy_wheel *wheel, struct proxy_timer *timer, int64_t due_ms)
{
    int64_t tick = due_ms / PROXY_TICK_MS + 1;

    if (tick <= wheel->tick) {
        tick = wheel->tick + 1;
    }
    list_remove(&timer->node);
    timer->due_ms = due_ms;
    list_push_back(slot_of(wheel, tick), &timer->node);
}

void proxy_timer_clear(struct proxy_timer *timer)
{
    list_remove(&timer->node);
}
