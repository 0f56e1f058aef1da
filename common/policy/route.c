/* The policy of a route of config.yaml. */
#include "common/policy/central.h"
#include "common/policy/compiled.h"
#include "common/policy/scan.h"

static enum err read_flag(struct policy_scan *scan, const json_t *route, const char *key,
                          bool *flag_out)
{
    const json_t *value = json_object_get(route, key);

    *flag_out = json_is_true(value);
    if (value == NULL || json_is_boolean(value)) {
        return ERR_OK;
    }
    policy_scan_member(scan, route, key);
    return policy_scan_fail(scan, POLICY_FAULT_ROUTE, "\"%s\" is true or false", key);
}

static enum err check_list(struct policy_scan *scan, const json_t *route, const char *key,
                           const json_t **list_out)
{
    const json_t *list = json_object_get(route, key);

    *list_out = json_is_null(list) ? NULL : list;
    if (*list_out == NULL || json_is_array(list)) {
        return ERR_OK;
    }
    policy_scan_member(scan, route, key);
    return policy_scan_fail(scan, POLICY_FAULT_ROUTE, "\"%s\" takes a list of text", key);
}

enum err policy_source_of_route(const json_t *route, const struct yaml_doc *doc,
                                struct policy_source *source_out, struct diag *d)
{
    struct policy_scan scan = { .doc = doc, .d = d };
    struct policy_source src = { .doc = doc,
                                 .route = route,
                                 .central = source_out->central,
                                 .mtls_default_deny = source_out->mtls_default_deny };
    const json_t *claims = json_object_get(route, "allowed_idp_claims");
    enum err err = read_flag(&scan, route, "allow_public_unauthenticated_access",
                             &src.allow_public_unauthenticated_access);

    if (err == ERR_OK) {
        err = read_flag(&scan, route, "allow_any_authenticated_user",
                        &src.allow_any_authenticated_user);
    }
    if (err == ERR_OK) {
        err = read_flag(&scan, route, "cors_allow_preflight", &src.cors_allow_preflight);
    }
    if (err == ERR_OK) {
        err = check_list(&scan, route, "allowed_domains", &src.allowed_domains);
    }
    if (err == ERR_OK) {
        err = check_list(&scan, route, "allowed_users", &src.allowed_users);
    }
    if (err == ERR_OK && json_object_get(route, "allowed_groups") != NULL) {
        policy_scan_member(&scan, route, "allowed_groups");
        err = policy_scan_fail(&scan, POLICY_FAULT_ROUTE,
                               "\"allowed_groups\" was removed; write policy: [{allow: {or: "
                               "[{groups: {has: …}}]}}]");
    }
    if (err != ERR_OK) {
        return err;
    }
    src.allowed_idp_claims = json_is_null(claims) ? NULL : claims;
    src.ppl = json_object_get(route, "policy");
    src.names = json_object_get(route, "policies");
    src.names = json_is_null(src.names) ? NULL : src.names;
    src.mcp_server = json_object_get(json_object_get(route, "mcp"), "server") != NULL;
    *source_out = src;
    return ERR_OK;
}

/* --- what the proxy can be asked ----------------------------------------------------------------- */

static const struct policy_saying *asking(const struct policy_side *side,
                                          enum policy_criterion kind)
{
    for (size_t i = 0; i < side->count; i++) {
        for (size_t k = 0; k < side->blocks[i].count; k++) {
            if (side->blocks[i].preds[k].kind == kind) {
                return &side->blocks[i].sayings[k];
            }
        }
    }
    return NULL;
}

/* Nobody reads bodies on the way to a verdict, so that a deny rule about tools would keep nobody out. */
static enum err want_answerable(const struct policy_source *source, const struct policy *policy,
                                enum policy_fault *fault_out, struct diag *d)
{
    struct policy_scan scan = { .doc = source->doc, .d = d };
    const struct policy_saying *at = NULL;

    if ((policy_asks_of_request(policy) >> (unsigned)POLICY_CRITERION_MCP_TOOL & 1U) == 0) {
        return ERR_OK;
    }
    at = asking(&policy->allow, POLICY_CRITERION_MCP_TOOL);
    at = at != NULL ? at : asking(&policy->deny, POLICY_CRITERION_MCP_TOOL);
    if (at != NULL) {
        scan.at = at->at;
    } else { /* it stands in a central policy */
        policy_scan_member(&scan, source->route, source->names != NULL ? "policies" : "from");
    }
    if (fault_out != NULL) {
        *fault_out = POLICY_FAULT_ROUTE;
    }
    return policy_scan_fail(&scan, POLICY_FAULT_ROUTE,
                            "\"mcp_tool\" cannot be asked of a route: Postern does not read which "
                            "tool a request calls, and the rule would never hold");
}

static enum err compile_answerable(const struct policy_source *source, struct policy **policy_out,
                                   enum policy_fault *fault_out, struct diag *d)
{
    CLEANUP(policy_unref) struct policy *policy = NULL;
    enum err err = policy_compile(source, &policy, fault_out, d);

    if (err == ERR_OK) {
        err = want_answerable(source, policy, fault_out, d);
    }
    if (err != ERR_OK) {
        return err;
    }
    *policy_out = TAKE(policy);
    return ERR_OK;
}

enum err policy_compile_route(const json_t *route, const struct yaml_doc *doc,
                              const struct policy_source *base, struct policy **policy_out,
                              enum policy_fault *fault_out, struct diag *d)
{
    struct policy_source source = *base;
    enum err err = policy_source_of_route(route, doc, &source, d);

    if (err != ERR_OK) {
        if (fault_out != NULL) {
            *fault_out = POLICY_FAULT_ROUTE;
        }
        return err;
    }
    return compile_answerable(&source, policy_out, fault_out, d);
}

static bool is_named(const json_t *names, struct sv name)
{
    const json_t *one = names;
    size_t n = json_is_array(names) ? json_array_size(names) : names != NULL ? 1 : 0;

    for (size_t i = 0; i < n; i++) {
        one = json_is_array(names) ? json_array_get(names, i) : names;
        if (json_is_string(one) &&
            sv_eq(name, sv_of(json_string_value(one), json_string_length(one)))) {
            return true;
        }
    }
    return false;
}

/* Whether a central policy that applies to the route is to become another. */
static bool has_central_shadow(const struct policy_source *src)
{
    for (size_t i = 0; i < policy_central_count(src->central); i++) {
        const struct policy_central_item *item = policy_central_at(src->central, i);

        if (item->has_shadow &&
            (item->enforced || (item->fallback && policy_source_is_silent(src)) ||
             is_named(src->names, item->name))) {
            return true;
        }
    }
    return false;
}

/* The route with its own shadow in place of its rules. */
static struct policy_source own_shadow(const json_t *route, const struct yaml_doc *doc,
                                       const struct policy_source *base)
{
    const json_t *mcp = json_object_get(json_object_get(route, "mcp"), "server");

    return (struct policy_source){ .doc = doc,
                                   .route = route,
                                   .ppl = json_object_get(route, "shadow_policy"),
                                   .central = base->central,
                                   .mcp_server = mcp != NULL,
                                   .mtls_default_deny = base->mtls_default_deny };
}

enum err policy_compile_shadow(const json_t *route, const struct yaml_doc *doc,
                               const struct policy_source *base, struct policy **policy_out,
                               enum policy_fault *fault_out, struct diag *d)
{
    struct policy_source source = own_shadow(route, doc, base);

    *policy_out = NULL;
    if (source.ppl == NULL) {
        source = *base;
        if (policy_source_of_route(route, doc, &source, NULL) != ERR_OK ||
            !has_central_shadow(&source)) {
            return ERR_OK; /* what is wrong with the route itself is said about what counts */
        }
    }
    source.shadow = true;
    return compile_answerable(&source, policy_out, fault_out, d);
}
