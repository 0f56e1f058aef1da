#include "proxy/identity.h"

#include <string.h>

#include "common/authz_block.h"
#include "common/http/name.h"
#include "common/mem.h"

void proxy_identity_unref(struct proxy_identity **identity)
{
    struct proxy_identity *id = TAKE(*identity);

    if (id != NULL && --id->refs == 0) {
        mem_free(&id);
    }
}

/* One allocation: struct, headers, texts. */
static struct proxy_identity *identity_of(const Postern__IdentityBlock *block)
{
    size_t text = 0;
    size_t i = 0;
    struct proxy_identity *id = NULL;
    char *at = NULL;

    for (i = 0; i < block->n_headers; i++) {
        text += strlen(block->headers[i]->name) + block->headers[i]->value.len;
    }
    if (block->n_headers > AUTHZ_BLOCK_HEADERS_MAX || text > AUTHZ_BLOCK_MAX) {
        return NULL;
    }
    id = mem_alloc(sizeof(*id) + block->n_headers * sizeof(*id->headers) + text);
    id->refs = 1;
    id->n = block->n_headers;
    id->headers = (struct proxy_identity_header *)(void *)(id + 1);
    at = (char *)(id->headers + id->n);
    for (i = 0; i < id->n; i++) {
        const Postern__IdentityBlock__Header *h = block->headers[i];

        id->headers[i].name = sv_of(at, strlen(h->name));
        memcpy(at, h->name, id->headers[i].name.n);
        at += id->headers[i].name.n;
        id->headers[i].value = sv_of(at, h->value.len);
        if (h->value.len != 0) {
            memcpy(at, h->value.data, h->value.len);
        }
        at += h->value.len;
    }
    return id;
}

/* Authorize makes these from claims, which strangers can shape: a line of ours has one end. */
static bool is_clean(const struct proxy_identity *id)
{
    size_t i = 0;
    size_t k = 0;

    for (i = 0; i < id->n; i++) {
        if (!http_is_token(id->headers[i].name)) {
            return false;
        }
        for (k = 0; k < id->headers[i].value.n; k++) {
            unsigned char c = (unsigned char)id->headers[i].value.p[k];

            if (c == '\r' || c == '\n' || c == '\0') {
                return false;
            }
        }
    }
    return true;
}

bool proxy_identity_put(struct proxy_identity_table *table, const Postern__IdentityBlock *block)
{
    size_t slot = authz_block_slot(block->number);
    struct proxy_identity *id = identity_of(block);

    if (block->number == 0 || id == NULL || !is_clean(id)) {
        proxy_identity_unref(&id);
        return false;
    }
    proxy_identity_unref(&table->slots[slot].identity);
    table->slots[slot].number = block->number;
    table->slots[slot].identity = id;
    return true;
}

struct proxy_identity *proxy_identity_get(struct proxy_identity_table *table, uint64_t number)
{
    size_t slot = authz_block_slot(number);

    if (number == 0 || table->slots[slot].number != number) {
        return NULL;
    }
    table->slots[slot].identity->refs++;
    return table->slots[slot].identity;
}

void proxy_identity_clear(struct proxy_identity_table *table)
{
    size_t i = 0;

    for (i = 0; i < AUTHZ_BLOCK_SLOTS; i++) {
        table->slots[i].number = 0;
        proxy_identity_unref(&table->slots[i].identity);
    }
}
