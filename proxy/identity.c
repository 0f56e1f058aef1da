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

static size_t text_of(Postern__IdentityBlock__Header *const *v, size_t n)
{
    size_t text = 0;
    size_t i = 0;

    for (i = 0; i < n; i++) {
        text += strlen(v[i]->name) + v[i]->value.len;
    }
    return text;
}

static char *copy(struct proxy_identity_header *out, Postern__IdentityBlock__Header *const *v,
                  size_t n, char *at)
{
    size_t i = 0;

    for (i = 0; i < n; i++) {
        out[i].name = sv_of(at, strlen(v[i]->name));
        memcpy(at, v[i]->name, out[i].name.n);
        at += out[i].name.n;
        out[i].value = sv_of(at, v[i]->value.len);
        if (v[i]->value.len != 0) {
            memcpy(at, v[i]->value.data, v[i]->value.len);
        }
        at += v[i]->value.len;
    }
    return at;
}

static struct sv copy_text(struct sv text, char **at)
{
    struct sv mine = sv_of(*at, text.n);

    if (text.n != 0) {
        memcpy(*at, text.p, text.n);
    }
    *at += text.n;
    return mine;
}

/* One allocation: struct, headers, facts, texts. */
static struct proxy_identity *identity_of(const Postern__IdentityBlock *block)
{
    size_t n = block->n_headers + block->n_facts;
    struct sv user = sv_from(block->user);
    struct sv email = sv_from(block->email);
    size_t text = user.n + email.n;
    struct proxy_identity *id = NULL;
    char *at = NULL;

    if (block->n_headers > AUTHZ_BLOCK_HEADERS_MAX || block->n_facts > AUTHZ_BLOCK_FACTS_MAX) {
        return NULL;
    }
    text += text_of(block->headers, block->n_headers) + text_of(block->facts, block->n_facts);
    if (text > AUTHZ_BLOCK_MAX) {
        return NULL;
    }
    id = mem_alloc(sizeof(*id) + n * sizeof(*id->headers) + text);
    id->refs = 1;
    id->n = block->n_headers;
    id->headers = (struct proxy_identity_header *)(void *)(id + 1);
    id->n_facts = block->n_facts;
    id->facts = id->headers + id->n;
    at = copy(id->headers, block->headers, id->n, (char *)(id->headers + n));
    at = copy(id->facts, block->facts, id->n_facts, at);
    id->user = copy_text(user, &at);
    id->email = copy_text(email, &at);
    return id;
}

struct sv proxy_identity_fact(const struct proxy_identity *identity, struct sv name, size_t i)
{
    size_t k = 0;

    for (k = 0; identity != NULL && k < identity->n_facts; k++) {
        if (sv_eq(identity->facts[k].name, name) && i-- == 0) {
            return identity->facts[k].value;
        }
    }
    return (struct sv){ 0 };
}

/* Names that are names, values that cannot end a line; facts stand behind the headers. */
static bool is_clean(const struct proxy_identity *id)
{
    size_t i = 0;
    size_t k = 0;

    for (i = 0; i < id->n + id->n_facts; i++) {
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
