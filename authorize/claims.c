#include "authorize/claims.h"

#include "common/mem.h"

struct authz_claims {
    size_t n;
    size_t n_values;
    struct policy_claim *items;
    struct policy_scalar *values;
};

static struct policy_scalar scalar_of(struct authz_texts *texts, const Google__Protobuf__Value *v)
{
    struct policy_scalar out = { .kind = POLICY_KIND_OTHER };

    switch (v->kind_case) {
    case GOOGLE__PROTOBUF__VALUE__KIND_STRING_VALUE:
        out.kind = POLICY_KIND_STRING;
        out.text = authz_text_take(texts, sv_from(v->string_value));
        break;
    case GOOGLE__PROTOBUF__VALUE__KIND_NUMBER_VALUE:
        out.kind = POLICY_KIND_NUMBER;
        out.number = v->number_value;
        break;
    case GOOGLE__PROTOBUF__VALUE__KIND_BOOL_VALUE:
        out.kind = POLICY_KIND_BOOL;
        out.flag = v->bool_value != 0;
        break;
    case GOOGLE__PROTOBUF__VALUE__KIND_NULL_VALUE:
        out.kind = POLICY_KIND_NULL;
        break;
    case GOOGLE__PROTOBUF__VALUE__KIND_STRUCT_VALUE:
    case GOOGLE__PROTOBUF__VALUE__KIND_LIST_VALUE:
    case GOOGLE__PROTOBUF__VALUE__KIND__NOT_SET:
    case _GOOGLE__PROTOBUF__VALUE__KIND__CASE_IS_INT_SIZE:
        break;
    }
    return out;
}

static size_t count_values(const struct authz_claim_entry *entries, size_t n)
{
    size_t sum = 0;

    for (size_t i = 0; i < n; i++) {
        sum += entries[i].values != NULL ? entries[i].values->n_values : 0;
    }
    return sum;
}

enum err authz_claims_new(struct authz_texts *texts, const struct authz_claim_entry *entries,
                          size_t n, struct authz_claims **claims_out)
{
    size_t total = count_values(entries, n);

    if (n > AUTHZ_CLAIMS_MAX || total > AUTHZ_CLAIM_VALUES_MAX) {
        return ERR_LIMIT;
    }
    if (n == 0) {
        *claims_out = NULL;
        return ERR_OK;
    }
    struct authz_claims *claims = MEM_NEW(struct authz_claims);

    claims->items = mem_array(n, sizeof(*claims->items));
    claims->values = mem_array(total + 1, sizeof(*claims->values));
    /* Backwards: readers take the first of a name, and on the wire the last one counts. */
    for (size_t i = n; i > 0; i--) {
        const Google__Protobuf__ListValue *list = entries[i - 1].values;
        struct policy_claim *item = &claims->items[claims->n++];

        item->name = authz_text_take(texts, sv_from(entries[i - 1].name));
        item->values = claims->values + claims->n_values;
        item->count = list != NULL ? list->n_values : 0;
        for (size_t k = 0; k < item->count; k++) {
            claims->values[claims->n_values++] = scalar_of(texts, list->values[k]);
        }
    }
    *claims_out = claims;
    return ERR_OK;
}

void authz_claims_free(struct authz_texts *texts, struct authz_claims **claims)
{
    struct authz_claims *c = TAKE(*claims);

    if (c == NULL) {
        return;
    }
    for (size_t i = 0; i < c->n; i++) {
        authz_text_drop(texts, &c->items[i].name);
    }
    for (size_t i = 0; i < c->n_values; i++) {
        authz_text_drop(texts, &c->values[i].text);
    }
    mem_free(&c->items);
    mem_free(&c->values);
    mem_free(&c);
}

struct policy_claims authz_claims_view(const struct authz_claims *claims)
{
    if (claims == NULL) {
        return (struct policy_claims){ .items = NULL };
    }
    return (struct policy_claims){ .items = claims->items, .count = claims->n };
}

const struct policy_claim *authz_claims_get(const struct authz_claims *claims, struct sv name)
{
    for (size_t i = 0; claims != NULL && i < claims->n; i++) {
        if (sv_eq(claims->items[i].name.s, name)) {
            return &claims->items[i];
        }
    }
    return NULL;
}
