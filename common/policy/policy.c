#include "common/policy/policy.h"

#include <string.h>

#include "common/buf.h"
#include "common/map.h"
#include "common/mem.h"
#include "common/policy/central.h"
#include "common/policy/compiled.h"

enum { CLAIM_DEPTH_MAX = 16 };

const char *policy_fault_name(enum policy_fault fault)
{
    static const char *const names[] = {
        [POLICY_FAULT_NONE] = "none",
        [POLICY_FAULT_YAML] = "yaml",
        [POLICY_FAULT_SHAPE] = "shape",
        [POLICY_FAULT_UNKNOWN_CRITERION] = "unknown-criterion",
        [POLICY_FAULT_OPERATOR] = "operator",
        [POLICY_FAULT_DATA] = "data",
        [POLICY_FAULT_ROUTE] = "route",
        [POLICY_FAULT_COMPILE] = "compile",
    };

    return (unsigned)fault < ARRAY_LEN(names) ? names[fault] : "none";
}

/* --- while compiling ----------------------------------------------------------------------------- */

struct build_block {
    bool deny;
    enum policy_combine combine;
    struct policy_pred *preds;
    struct policy_saying *sayings;
    size_t count;
    size_t cap;
    struct map *seen; /* kind and claim to the index of a predicate */
};

struct build {
    struct policy_scan scan;
    struct policy *policy;
    bool shadow; /* central policies are what they are to become */
    struct build_block *blocks;
    size_t count;
    size_t cap;
};

static struct build_block *add_block(struct build *b, bool deny, enum policy_combine combine)
{
    struct build_block *block = NULL;

    if (b->count == b->cap) {
        b->cap = b->cap == 0 ? 4 : b->cap * 2;
        b->blocks = mem_realloc(b->blocks, b->cap, sizeof(*b->blocks));
    }
    block = &b->blocks[b->count++];
    *block = (struct build_block){ .deny = deny, .combine = combine };
    /* `or` over members of one criterion, and `not`, which is "none of them", are one membership
     * test with the reasons of one. `and` and `nor` ask each member for itself. */
    if (combine == POLICY_OR || combine == POLICY_NOT) {
        block->seen = map_new();
    }
    return block;
}

static void build_deinit(struct build *b)
{
    size_t i = 0;
    size_t j = 0;

    for (i = 0; i < b->count; i++) {
        for (j = 0; j < b->blocks[i].count; j++) {
            policy_pred_finish(&b->blocks[i].preds[j], b->scan.arena);
        }
        mem_free(&b->blocks[i].preds);
        mem_free(&b->blocks[i].sayings);
        map_free(&b->blocks[i].seen);
    }
    mem_free(&b->blocks);
}

static int on_json_text(const char *text, size_t n, void *arg)
{
    struct buf *out = arg;

    buf_add(out, text, MIN(n, POLICY_SAYING_MAX - out->n));
    return out->n < POLICY_SAYING_MAX ? 0 : -1; /* nobody reads ten thousand names */
}

/* The data of a criterion as text. */
static struct policy_saying saying_of(struct arena *arena, const struct policy_tree_item *item,
                                      struct yaml_pos at)
{
    struct policy_saying saying = { .name = arena_str(arena, sv_from(item->name)), .at = at };
    CLEANUP(buf_deinit) struct buf text;

    buf_init(&text, POLICY_SAYING_MAX);
    if (json_is_string(item->data)) {
        size_t n = json_string_length(item->data);

        saying.cut = n > POLICY_SAYING_MAX;
        buf_add(&text, json_string_value(item->data), MIN(n, (size_t)POLICY_SAYING_MAX));
    } else if (item->data != NULL) {
        saying.cut = json_dump_callback(item->data, on_json_text, &text,
                                        JSON_COMPACT | JSON_ENCODE_ANY) != 0;
    }
    while (saying.cut && !sv_is_utf8(buf_sv(&text))) {
        text.n--;
    }
    saying.text = arena_sv(arena, buf_sv(&text));
    return saying;
}

/* into is said of another member, too. */
static void saying_join(struct arena *arena, struct policy_saying *into,
                        const struct policy_saying *more)
{
    CLEANUP(buf_deinit) struct buf text;

    buf_init(&text, POLICY_SAYING_MAX);
    if (into->others == 0 && !into->cut && !more->cut) {
        buf_add_sv(&text, into->text);
        buf_add_str(&text, ", ");
        buf_add_sv(&text, more->text);
    }
    if (text.n == 0 || text.err != ERR_OK) {
        into->others++;
        return;
    }
    into->text = arena_sv(arena, buf_sv(&text));
}

/* The index of the predicate of this block that takes the data of such another one; NONE. */
enum { NONE = -1 };

static ptrdiff_t find_mergeable(struct build_block *block, const struct policy_pred *pred,
                                struct arena *arena)
{
    CLEANUP(buf_deinit) struct buf key;
    size_t *index = NULL;

    buf_init(&key, SIZE_MAX / 2);
    if (block->seen == NULL || !policy_pred_merges(pred)) {
        return NONE;
    }
    buf_add_u64(&key, (uint64_t)pred->kind);
    buf_add_char(&key, '/');
    buf_add_sv(&key, pred->claim.s);
    index = map_get(block->seen, buf_sv(&key));
    if (index != NULL) {
        return (ptrdiff_t)*index;
    }
    index = arena_alloc(arena, sizeof(*index));
    *index = block->count;
    (void)map_set(block->seen, buf_sv(&key), index);
    return NONE;
}

static enum err add_pred(struct build *b, struct build_block *block,
                         const struct policy_tree_item *item)
{
    struct policy_pred pred;
    struct policy_saying saying;
    ptrdiff_t same = NONE;
    enum err err = policy_pred_compile(&b->scan, item, &pred);

    if (err != ERR_OK) {
        policy_pred_finish(&pred, b->scan.arena);
        return err;
    }
    saying = saying_of(b->scan.arena, item, item->at);
    same = find_mergeable(block, &pred, b->scan.arena);
    if (same != NONE) {
        policy_pred_merge(&block->preds[same], &pred);
        policy_pred_finish(&pred, b->scan.arena);
        saying_join(b->scan.arena, &block->sayings[same], &saying);
        return ERR_OK;
    }
    if (block->count == block->cap) {
        block->cap = block->cap == 0 ? 4 : block->cap * 2;
        block->preds = mem_realloc(block->preds, block->cap, sizeof(*block->preds));
        block->sayings = mem_realloc(block->sayings, block->cap, sizeof(*block->sayings));
    }
    CHECK(block->preds != NULL);
    block->preds[block->count] = pred;
    block->sayings[block->count++] = saying;
    return ERR_OK;
}

/* --- the route's short forms: one `allow: or:` --------------------------------------------------- */

static enum err add_short(struct build *b, struct build_block *block, const char *name,
                          const json_t *data)
{
    const struct policy_tree_item item = { .name = name, .data = data, .at = b->scan.at };
    enum err err = policy_scan_count(&b->scan, 1);

    return err != ERR_OK ? err : add_pred(b, block, &item);
}

static enum err add_list(struct build *b, struct build_block *block, const json_t *list,
                         const char *first, const char *second)
{
    enum err err = ERR_OK;
    size_t i = 0;

    if (list != NULL && !json_is_array(list)) {
        return policy_scan_fail(&b->scan, POLICY_FAULT_ROUTE, "this key takes a list of text");
    }
    for (i = 0; i < json_array_size(list) && err == ERR_OK; i++) {
        const json_t *text = json_array_get(list, i);

        policy_scan_item(&b->scan, list, i);
        if (!json_is_string(text)) {
            return policy_scan_fail(&b->scan, POLICY_FAULT_ROUTE, "this key takes a list of text");
        }
        err = add_short(b, block, first, text);
        if (err == ERR_OK && second != NULL) {
            err = add_short(b, block, second, text);
        }
    }
    return err;
}

/* {groups: [a], address: {city: [b]}}: the leaves are lists or single values. prefix is "claim/",
 * or "claim/address." inside. */
static enum err add_claims(struct build *b, struct build_block *block, const json_t *claims,
                           struct sv prefix, unsigned depth)
{
    const char *key = NULL;
    json_t *value = NULL;
    enum err err = ERR_OK;
    size_t i = 0;

    if (!json_is_object(claims) || depth > CLAIM_DEPTH_MAX) {
        return policy_scan_fail(&b->scan, POLICY_FAULT_ROUTE,
                                "allowed_idp_claims takes an object: {groups: [admins]}");
    }
    json_object_foreach(policy_scan_tree(claims), key, value)
    {
        CLEANUP(buf_deinit) struct buf name;

        buf_init(&name, SIZE_MAX / 2);
        buf_add_sv(&name, prefix);
        buf_add_str(&name, key);
        policy_scan_member(&b->scan, claims, key);
        if (json_is_object(value)) {
            buf_add_char(&name, '.');
            err = add_claims(b, block, value, buf_sv(&name), depth + 1);
        } else if (!json_is_array(value)) {
            err = add_short(b, block, buf_cstr(&name), value);
        }
        for (i = 0; i < json_array_size(value) && err == ERR_OK; i++) {
            err = add_short(b, block, buf_cstr(&name), json_array_get(value, i));
        }
        if (err != ERR_OK) {
            return err;
        }
    }
    return ERR_OK;
}

static enum err check_route(struct policy_scan *scan, const struct policy_source *src)
{
    bool names = json_array_size(src->allowed_domains) + json_array_size(src->allowed_users) != 0;

    if (src->allow_public_unauthenticated_access && (src->allow_any_authenticated_user || names)) {
        return policy_scan_fail(scan, POLICY_FAULT_ROUTE,
                                "allow_public_unauthenticated_access cannot stand beside "
                                "allow_any_authenticated_user, allowed_domains or allowed_users");
    }
    if (src->allow_any_authenticated_user && names) {
        return policy_scan_fail(scan, POLICY_FAULT_ROUTE,
                                "allow_any_authenticated_user cannot stand beside allowed_domains "
                                "or allowed_users");
    }
    return ERR_OK;
}

static enum err add_route(struct build *b, const struct policy_source *src)
{
    struct build_block *block = NULL;
    enum err err = check_route(&b->scan, src);

    if (err != ERR_OK) {
        return err;
    }
    block = add_block(b, false, POLICY_OR);
    if (src->allow_public_unauthenticated_access) {
        err = add_short(b, block, "accept", NULL);
    }
    if (err == ERR_OK && src->cors_allow_preflight) {
        err = add_short(b, block, "cors_preflight", NULL);
    }
    if (err == ERR_OK && src->allow_any_authenticated_user) {
        err = add_short(b, block, "authenticated_user", NULL);
    }
    if (err == ERR_OK) {
        err = add_list(b, block, src->allowed_domains, "domain", NULL);
    }
    if (err == ERR_OK && src->allowed_idp_claims != NULL) {
        err = add_claims(b, block, src->allowed_idp_claims, SV("claim/"), 0);
    }
    if (err == ERR_OK) {
        err = add_list(b, block, src->allowed_users, "user", "email");
    }
    return err;
}

/* --- what a policy needs to know ------------------------------------------------------------------ */

struct needs {
    struct sv headers[POLICY_HEADERS_MAX + 1];
    size_t n;
    int64_t age_ms;
};

static void need_header(struct needs *needs, struct sv name)
{
    size_t i = 0;

    while (i < needs->n && !sv_eq(needs->headers[i], name)) {
        i++;
    }
    if (i == needs->n && i < ARRAY_LEN(needs->headers)) {
        needs->headers[needs->n++] = name;
    }
}

static void need_age(struct needs *needs, int64_t age_ms)
{
    if (age_ms != 0 && (needs->age_ms == 0 || age_ms < needs->age_ms)) {
        needs->age_ms = age_ms;
    }
}

static void add_side_needs(const struct policy_side *side, struct needs *needs)
{
    size_t i = 0;
    size_t j = 0;

    for (i = 0; i < side->count; i++) {
        for (j = 0; j < side->blocks[i].count; j++) {
            const struct policy_pred *p = &side->blocks[i].preds[j];

            need_age(needs, p->age_ms);
            if (p->kind == POLICY_CRITERION_HEADER) {
                need_header(needs, p->claim.s);
            }
        }
    }
}

static enum err add_needs(struct build *b)
{
    struct policy *policy = b->policy;
    struct needs needs = { .n = 0 };
    struct sv *kept = NULL;
    size_t i = 0;
    size_t j = 0;

    add_side_needs(&policy->allow, &needs);
    add_side_needs(&policy->deny, &needs);
    for (i = 0; i < policy->n_parts; i++) {
        need_age(&needs, policy->parts[i]->age_ms);
        for (j = 0; j < policy->parts[i]->n_headers; j++) {
            need_header(&needs, policy->parts[i]->headers[j]);
        }
    }
    if (needs.n > POLICY_HEADERS_MAX) {
        return policy_scan_fail(&b->scan, POLICY_FAULT_DATA, "more than %d headers are asked for",
                                POLICY_HEADERS_MAX);
    }
    kept = arena_zalloc(b->scan.arena, (needs.n + 1) * sizeof(*kept));
    for (i = 0; i < needs.n; i++) {
        kept[i] = needs.headers[i]; /* of this arena, or of a part's */
    }
    policy->headers = kept;
    policy->n_headers = needs.n;
    policy->age_ms = needs.age_ms;
    return ERR_OK;
}

const struct sv *policy_headers(const struct policy *policy, size_t *n_out)
{
    *n_out = policy->n_headers;
    return policy->headers;
}

int64_t policy_auth_age_ms(const struct policy *policy)
{
    return policy->age_ms;
}

/* --- central policies ---------------------------------------------------------------------------- */

static bool has_part(const struct policy *policy, const struct policy *part)
{
    size_t i = 0;

    while (i < policy->n_parts && policy->parts[i] != part) {
        i++;
    }
    return i < policy->n_parts;
}

static enum err add_part(struct build *b, const struct policy_central_item *item)
{
    const struct policy_central_rules *rules =
        b->shadow && item->has_shadow ? &item->shadow : &item->rules;

    if (rules->fault != POLICY_FAULT_NONE) {
        return policy_scan_fail(&b->scan, rules->fault, "the %s \"%.*s\" has a mistake of its own",
                                item->enforced ? "enforced policy" : "policy", SV_ARG(item->name));
    }
    if (rules->policy != NULL && !has_part(b->policy, rules->policy)) {
        b->policy->parts[b->policy->n_parts++] = policy_ref(rules->policy);
    }
    return ERR_OK;
}

static enum err add_name(struct build *b, const struct policy_central *central, const json_t *text)
{
    struct sv name = sv_of(json_string_value(text), json_string_length(text));
    const struct policy_central_item *item = policy_central_find(central, name);
    const char *near = policy_central_nearest(central, name);

    if (!json_is_string(text)) {
        return policy_scan_fail(&b->scan, POLICY_FAULT_ROUTE, "\"policies\" takes names");
    }
    if (item != NULL) {
        return add_part(b, item);
    }
    return policy_scan_fail(&b->scan, POLICY_FAULT_ROUTE, "there is no policy \"%.64s\"%s%s%s",
                            json_string_value(text),
                            near == NULL ? "; \"policies\" at the top of the file gives them names"
                                         : ", did you mean \"",
                            near == NULL ? "" : near, near == NULL ? "" : "\"?");
}

static enum err add_named(struct build *b, const struct policy_source *src)
{
    enum err err = ERR_OK;
    size_t i = 0;

    policy_scan_member(&b->scan, src->route, "policies");
    if (src->names != NULL && !json_is_array(src->names)) {
        return add_name(b, src->central, src->names);
    }
    for (i = 0; i < json_array_size(src->names) && err == ERR_OK; i++) {
        policy_scan_item(&b->scan, src->names, i);
        err = add_name(b, src->central, json_array_get(src->names, i));
    }
    return err;
}

bool policy_source_is_silent(const struct policy_source *src)
{
    return src->ppl == NULL && src->names == NULL && src->allowed_domains == NULL &&
           src->allowed_users == NULL && src->allowed_idp_claims == NULL &&
           !src->allow_public_unauthenticated_access && !src->allow_any_authenticated_user;
}

/* What the route names, or the defaults where it says nothing; and what is enforced. */
static enum err add_central(struct build *b, const struct policy_source *src)
{
    size_t count = policy_central_count(src->central);
    enum err err = ERR_OK;
    size_t i = 0;

    /* NOLINTNEXTLINE(bugprone-sizeof-expression): an array of pointers */
    b->policy->parts = arena_zalloc(b->scan.arena, (count + 1) * sizeof(*b->policy->parts));
    err = add_named(b, src);
    for (i = 0; i < count && err == ERR_OK; i++) {
        const struct policy_central_item *item = policy_central_at(src->central, i);

        if (item->enforced || (item->fallback && policy_source_is_silent(src))) {
            err = add_part(b, item);
        }
    }
    return err;
}

/* --- all together -------------------------------------------------------------------------------- */

static enum err add_tree(struct build *b, const json_t *ppl)
{
    CLEANUP(policy_tree_deinit) struct policy_tree tree = { 0 };
    enum err err = policy_tree_read(&b->scan, ppl, &tree);
    size_t i = 0;
    size_t j = 0;

    for (i = 0; err == ERR_OK && i < tree.count; i++) {
        struct build_block *block = add_block(b, tree.blocks[i].deny, tree.blocks[i].combine);

        if (b->policy->enforced && !block->deny) {
            b->scan.at = tree.blocks[i].items[0].at;
            err = policy_scan_fail(&b->scan, POLICY_FAULT_SHAPE,
                                   "an enforced policy holds deny rules alone: \"allow\" would "
                                   "let people into every route");
        }
        for (j = 0; err == ERR_OK && j < tree.blocks[i].count; j++) {
            err = add_pred(b, block, &tree.blocks[i].items[j]);
        }
    }
    return err;
}

static struct policy_side freeze_side(struct build *b, bool deny)
{
    struct policy_block *blocks =
        arena_alloc(b->scan.arena, MAX(b->count, (size_t)1) * sizeof(*blocks));
    struct policy_side side = { .blocks = blocks };
    size_t i = 0;
    size_t j = 0;

    for (i = 0; i < b->count; i++) {
        struct build_block *from = &b->blocks[i];
        struct policy_pred *preds = NULL;
        struct policy_saying *sayings = NULL;

        if (from->deny != deny || from->count == 0) {
            continue;
        }
        preds = arena_alloc(b->scan.arena, from->count * sizeof(*preds));
        sayings = arena_alloc(b->scan.arena, from->count * sizeof(*sayings));
        memcpy(sayings, from->sayings, from->count * sizeof(*sayings));
        for (j = 0; j < from->count; j++) {
            policy_pred_finish(&from->preds[j], b->scan.arena);
            preds[j] = from->preds[j];
        }
        blocks[side.count++] = (struct policy_block){
            .combine = from->combine, .preds = preds, .sayings = sayings, .count = from->count
        };
        from->count = 0; /* what it gathered is the arena's now */
    }
    return side;
}

static enum err build(struct build *b, const struct policy_source *src)
{
    enum err err = add_route(b, src);

    if (err == ERR_OK && src->ppl != NULL) {
        err = add_tree(b, src->ppl);
    }
    if (err == ERR_OK && src->mtls_default_deny) {
        err = add_short(b, add_block(b, true, POLICY_OR), "invalid_client_certificate", NULL);
    }
    if (err == ERR_OK) {
        err = add_central(b, src);
    }
    if (err == ERR_OK) {
        b->policy->allow = freeze_side(b, false);
        b->policy->deny = freeze_side(b, true);
        err = add_needs(b);
    }
    return err;
}

enum err policy_compile(const struct policy_source *source, struct policy **policy_out,
                        enum policy_fault *fault_out, struct diag *d)
{
    CLEANUP(policy_unref) struct policy *policy = MEM_NEW(struct policy);
    struct build b = { .policy = policy, .shadow = source->shadow };
    enum err err = ERR_OK;

    atomic_init(&policy->refs, 1);
    arena_init(&policy->arena);
    policy->name = arena_sv(&policy->arena, source->name);
    policy->mcp_server = source->mcp_server;
    policy->enforced = source->enforced;
    b.scan = (struct policy_scan){ .doc = source->doc, .d = d, .arena = &policy->arena };
    err = build(&b, source);
    build_deinit(&b);
    if (fault_out != NULL) {
        *fault_out = b.scan.fault;
    }
    if (err != ERR_OK) {
        return err;
    }
    *policy_out = TAKE(policy);
    return ERR_OK;
}

static enum err fail_text(struct policy_scan *scan, enum err err, enum policy_fault *fault_out)
{
    if (fault_out != NULL) {
        *fault_out = scan->fault;
    }
    return err;
}

enum err policy_compile_text(struct sv text, const char *file, const struct policy_source *base,
                             struct policy **policy_out, enum policy_fault *fault_out,
                             struct diag *d)
{
    CLEANUP(yaml_doc_free) struct yaml_doc *doc = NULL;
    struct policy_source source = base == NULL ? (struct policy_source){ 0 } : *base;
    struct policy_scan scan = { .d = d };
    enum err err = yaml_parse(text, file, &doc, d);

    if (err != ERR_OK) {
        scan.fault = err == ERR_UNSUPPORTED ? POLICY_FAULT_SHAPE : POLICY_FAULT_YAML;
        return fail_text(&scan, err == ERR_LIMIT ? ERR_LIMIT : ERR_INVALID, fault_out);
    }
    scan.doc = doc;
    if (yaml_is_empty(doc)) {
        err = policy_scan_fail(&scan, POLICY_FAULT_YAML, "the policy is empty");
        return fail_text(&scan, err, fault_out);
    }
    source.doc = doc;
    source.ppl = yaml_root(doc);
    return policy_compile(&source, policy_out, fault_out, d);
}

struct policy *policy_ref(struct policy *policy)
{
    (void)atomic_fetch_add_explicit(&policy->refs, 1, memory_order_relaxed);
    return policy;
}

void policy_unref(struct policy **policy)
{
    struct policy *p = TAKE(*policy);
    size_t i = 0;

    if (p != NULL && atomic_fetch_sub_explicit(&p->refs, 1, memory_order_acq_rel) == 1) {
        for (i = 0; i < p->n_parts; i++) {
            policy_unref(&p->parts[i]); /* one level: parts have none */
        }
        arena_deinit(&p->arena);
        policy_unref(&p->of);
        mem_free(&p);
    }
}
