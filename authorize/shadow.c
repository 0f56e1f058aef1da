#include "authorize/shadow.h"

#include "common/log.h"
#include "common/mem.h"

struct count {
    uint64_t asked;
    uint64_t would_allow;  /* what is not allowed now */
    uint64_t would_refuse; /* what is allowed now, by denying it or asking for a login */
    uint64_t otherwise;    /* refused now and then, another way */
};

struct authz_shadow {
    struct count *counts; /* by config_route.index */
    int64_t told_ms;      /* 0: nothing is counted yet */
};

struct authz_shadow *authz_shadow_new(const struct authz_rules *rules)
{
    struct authz_shadow *s = NULL;

    if (authz_rules_shadows(rules) == 0) {
        return NULL;
    }
    s = MEM_NEW(struct authz_shadow);
    s->counts = mem_array(authz_rules_config(rules)->n_routes + 1, sizeof(*s->counts));
    return s;
}

static void tell_route(const struct config_route *route, const struct count *count)
{
    if (count->would_allow + count->would_refuse + count->otherwise != 0) {
        log_warn("policy.shadow", KV_SV("route", route->from), KV_SV("route-id", route->id_text),
                 KV_U64("asked", count->asked), KV_U64("would-allow", count->would_allow),
                 KV_U64("would-refuse", count->would_refuse),
                 KV_U64("otherwise", count->otherwise));
    }
}

static void tell(struct authz_shadow *s, const struct authz_rules *rules)
{
    const struct config *config = authz_rules_config(rules);

    for (size_t i = 0; i < config->n_routes; i++) {
        tell_route(&config->routes[i], &s->counts[i]);
        s->counts[i] = (struct count){ .asked = 0 };
    }
}

void authz_shadow_free(struct authz_shadow **shadow, const struct authz_rules *rules)
{
    struct authz_shadow *s = TAKE(*shadow);

    if (s != NULL) {
        tell(s, rules);
        mem_free(&s->counts);
        mem_free(&s);
    }
}

void authz_shadow_note(struct authz_shadow *s, const struct authz_facts *facts,
                       const struct authz_outcome *o)
{
    struct count *count = &s->counts[o->route->index];

    count->asked++;
    if (o->shadow != o->decision) {
        count->would_allow += o->shadow == AUTHZ_ALLOW ? 1 : 0;
        count->would_refuse += o->decision == AUTHZ_ALLOW ? 1 : 0;
        count->otherwise += o->shadow != AUTHZ_ALLOW && o->decision != AUTHZ_ALLOW ? 1 : 0;
    }
    if (s->told_ms == 0) {
        s->told_ms = facts->mono_ms;
    } else if (facts->mono_ms - s->told_ms >= AUTHZ_SHADOW_TELL_MS) {
        tell(s, facts->rules);
        s->told_ms = facts->mono_ms;
    }
}
