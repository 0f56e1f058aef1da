#include "authenticate/throttle.h"

#include <arpa/inet.h>
#include <string.h>

#include "common/list.h"
#include "common/map.h"
#include "common/mem.h"

enum { KEY_MAX = 320 };

struct entry {
    struct list node; /* least recently used first */
    uint32_t failures;
    uint32_t open; /* attempts under way */
    int64_t until_ms;
    int64_t last_ms;
    size_t key_n;
    char key[KEY_MAX];
};

struct table {
    struct map *map;
    struct list order;
    uint32_t free_failures;
    uint32_t open_max;
};

struct authn_throttle {
    struct table accounts;
    struct table addresses;
};

static void table_init(struct table *t, uint32_t free_failures, uint32_t open_max)
{
    t->map = map_new();
    t->free_failures = free_failures;
    t->open_max = open_max;
    list_init(&t->order);
}

static void entry_drop(struct table *t, struct entry *e)
{
    (void)map_take(t->map, sv_of(e->key, e->key_n));
    list_remove(&e->node);
    mem_free(&e);
}

static void table_deinit(struct table *t)
{
    while (!list_empty(&t->order)) {
        entry_drop(t, LIST_ENTRY(t->order.next, struct entry, node));
    }
    map_free(&t->map);
}

struct authn_throttle *authn_throttle_new(void)
{
    struct authn_throttle *throttle = MEM_NEW(struct authn_throttle);

    table_init(&throttle->accounts, AUTHN_THROTTLE_ACCOUNT_FREE, AUTHN_THROTTLE_ACCOUNT_OPEN);
    table_init(&throttle->addresses, AUTHN_THROTTLE_ADDRESS_FREE, AUTHN_THROTTLE_ADDRESS_OPEN);
    return throttle;
}

void authn_throttle_free(struct authn_throttle **throttle)
{
    if (*throttle != NULL) {
        table_deinit(&(*throttle)->accounts);
        table_deinit(&(*throttle)->addresses);
    }
    mem_free(throttle);
}

/* Makes room by dropping the oldest entry that nobody waits for; false where all wait. */
static bool make_room(struct table *t, int64_t now_ms)
{
    struct list *it = NULL;

    if (map_count(t->map) < AUTHN_THROTTLE_MAX) {
        return true;
    }
    LIST_FOREACH(it, &t->order) {
        struct entry *e = LIST_ENTRY(it, struct entry, node);

        if (e->until_ms <= now_ms && e->open == 0) {
            entry_drop(t, e);
            return true;
        }
    }
    return false;
}

static struct entry *entry_get(struct table *t, struct sv key, int64_t now_ms)
{
    struct entry *e = NULL;

    if (key.n > KEY_MAX) {
        key = sv_head(key, KEY_MAX);
    }
    e = map_get(t->map, key);
    if (e == NULL && make_room(t, now_ms)) {
        e = MEM_NEW(struct entry);
        memcpy(e->key, key.p, key.n);
        e->key_n = key.n;
        (void)map_set(t->map, key, e);
        list_push_back(&t->order, &e->node);
    }
    if (e != NULL && now_ms - e->last_ms > AUTHN_THROTTLE_FORGET_MS) {
        e->failures = 0;
    }
    return e;
}

static int64_t wait_of(const struct table *t, const struct entry *e, int64_t now_ms)
{
    if (e == NULL) {
        return AUTHN_THROTTLE_LAST_MS;
    }
    if (e->until_ms > now_ms) {
        return e->until_ms - now_ms;
    }
    return e->open < (e->failures < t->free_failures ? t->open_max : 1) ? 0
                                                                        : AUTHN_THROTTLE_FIRST_MS;
}

static void begin(struct table *t, struct entry *e, int64_t now_ms)
{
    e->open++;
    e->last_ms = now_ms;
    list_remove(&e->node);
    list_push_back(&t->order, &e->node);
}

static void count_failure(const struct table *t, struct entry *e, int64_t now_ms)
{
    int64_t wait = AUTHN_THROTTLE_FIRST_MS;

    e->failures += e->failures < UINT32_MAX ? 1U : 0U;
    e->last_ms = now_ms;
    if (e->failures < t->free_failures) {
        return;
    }
    for (uint32_t i = t->free_failures; i < e->failures && wait < AUTHN_THROTTLE_LAST_MS; i++) {
        wait *= 2;
    }
    e->until_ms = now_ms + MIN(wait, AUTHN_THROTTLE_LAST_MS);
}

/* An IPv6 customer has a /64 at least. */
static struct sv address_key(struct sv address, char room[INET6_ADDRSTRLEN])
{
    struct in6_addr v6;

    if (address.n >= INET6_ADDRSTRLEN) {
        return sv_head(address, INET6_ADDRSTRLEN - 1);
    }
    if (address.n > 0) {
        memcpy(room, address.p, address.n);
    }
    room[address.n] = '\0';
    if (inet_pton(AF_INET6, room, &v6) != 1 || IN6_IS_ADDR_V4MAPPED(&v6)) {
        return address;
    }
    memset(&v6.s6_addr[8], 0, 8);
    CHECK(inet_ntop(AF_INET6, &v6, room, INET6_ADDRSTRLEN) != NULL);
    return sv_from(room);
}

int64_t authn_throttle_begin(struct authn_throttle *throttle, struct sv account, struct sv address,
                             int64_t now_ms)
{
    char room[INET6_ADDRSTRLEN];
    struct entry *by_address = entry_get(&throttle->addresses, address_key(address, room), now_ms);
    struct entry *by_account = NULL;
    int64_t wait = wait_of(&throttle->addresses, by_address, now_ms);

    if (wait > 0) {
        return wait; /* before the account's table is touched: one address cannot fill it */
    }
    by_account = entry_get(&throttle->accounts, account, now_ms);
    wait = wait_of(&throttle->accounts, by_account, now_ms);
    if (wait == 0) {
        begin(&throttle->addresses, by_address, now_ms);
        begin(&throttle->accounts, by_account, now_ms);
    }
    return wait;
}

/* The one of an attempt that began: it is not dropped while that is under way. */
static struct entry *end(struct table *t, struct sv key)
{
    struct entry *e = map_get(t->map, key.n > KEY_MAX ? sv_head(key, KEY_MAX) : key);

    CHECK(e != NULL && e->open > 0);
    e->open--;
    return e;
}

void authn_throttle_end(struct authn_throttle *throttle, struct sv account, struct sv address,
                        enum authn_attempt how, int64_t now_ms)
{
    char room[INET6_ADDRSTRLEN];
    struct entry *by_account = end(&throttle->accounts, account);
    struct entry *by_address = end(&throttle->addresses, address_key(address, room));

    if (how == AUTHN_ATTEMPT_FAILED) {
        count_failure(&throttle->accounts, by_account, now_ms);
        count_failure(&throttle->addresses, by_address, now_ms);
    } else if (how == AUTHN_ATTEMPT_SUCCEEDED) {
        by_account->failures = 0;
        by_account->until_ms = 0;
    }
    if (by_account->failures == 0 && by_account->open == 0) {
        entry_drop(&throttle->accounts, by_account);
    }
    if (by_address->failures == 0 && by_address->open == 0) {
        entry_drop(&throttle->addresses, by_address);
    }
}
