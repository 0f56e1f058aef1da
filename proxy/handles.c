#include "proxy/handles.h"

#include "common/map.h"
#include "common/mem.h"
#include "common/secret.h"

enum { SLOTS = 512, HOST_MAX = 270, KEY_MAX = HOST_MAX + 1 + HANDLE_TEXT_MAX };

struct slot {
    uint64_t hash;
    size_t n; /* 0: empty */
    char key[KEY_MAX];
    struct handle handle;
};

struct proxy_handles {
    struct sealer *sealer;
    struct slot slots[SLOTS];
};

struct proxy_handles *proxy_handles_new(const struct keys *keys)
{
    struct proxy_handles *h = MEM_NEW(struct proxy_handles);

    h->sealer = sealer_new(keys, KEYS_HANDLE);
    return h;
}

void proxy_handles_free(struct proxy_handles **handles)
{
    struct proxy_handles *h = TAKE(*handles);

    if (h == NULL) {
        return;
    }
    sealer_free(&h->sealer);
    secret_wipe(h->slots, sizeof(h->slots));
    mem_free(&h);
}

enum err proxy_handles_open(struct proxy_handles *handles, struct sv text, struct sv host,
                            struct handle *handle_out)
{
    char room[KEY_MAX];
    struct buf key = { .p = room, .cap = sizeof(room), .max = sizeof(room) - 1 };
    struct slot *slot = NULL;
    uint64_t hash = 0;
    enum err err = ERR_OK;

    buf_add_sv(&key, host);
    buf_add_char(&key, '\0');
    buf_add_sv(&key, text);
    if (key.err != ERR_OK) {
        return handle_open(handles->sealer, text, host, handle_out);
    }
    hash = map_hash(buf_sv(&key));
    slot = &handles->slots[hash % SLOTS];
    /* The keyed hash is compared first: how long the texts agree cannot be measured by guesses. */
    if (slot->n != 0 && slot->hash == hash && sv_eq(buf_sv(&key), sv_of(slot->key, slot->n))) {
        *handle_out = slot->handle;
        return ERR_OK;
    }
    err = handle_open(handles->sealer, text, host, handle_out);
    if (err == ERR_OK) {
        slot->hash = hash;
        slot->n = key.n;
        slot->handle = *handle_out;
        memcpy(slot->key, key.p, key.n);
    }
    return err;
}

enum err proxy_handles_make(struct proxy_handles *handles, const struct handle *handle,
                            struct sv host, struct buf *out)
{
    return handle_make(handles->sealer, handle, host, out);
}
