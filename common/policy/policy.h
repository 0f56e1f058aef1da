/* policy: one route's policy, compiled. policy_compile turns the route's short allow forms and its
 * PPL tree into native predicates; policy_eval answers a request without allocating, locking or
 * I/O. A policy is immutable and refcounted; any thread. The language: docs/policy.md. */
#pragma once

#include <jansson.h>

#include "common/base.h"
#include "common/buf.h"
#include "common/diag.h"
#include "common/policy/input.h"
#include "common/policy/reason.h"
#include "common/sv.h"
#include "common/yaml.h"

/* --- the verdict ------------------------------------------------------------------------------ */

/* The first four are postern.Decision on the wire. */
enum policy_outcome {
    POLICY_DENY = 0,
    POLICY_ALLOW,
    POLICY_LOGIN,       /* nobody is logged in and the policy wants somebody, or, with
                           auth-age-exceeded, it is too long ago */
    POLICY_UNAVAILABLE, /* no verdict was possible; the reasons say why */
    POLICY_DEVICE       /* a device must be registered first; without such a page: a denial */
};

enum policy_flag {
    POLICY_FLAG_NO_REDIRECT = 1, /* LOGIN is always 401: a machine asks */
    POLICY_FLAG_MCP_ERROR = 2,   /* DENY is a JSON-RPC error -32602 inside a 200 */
    POLICY_FLAG_SSH_NEXT_KEY = 4 /* DENY is about this key only: the client may offer another */
};

/* The zero value denies. */
struct policy_verdict {
    enum policy_outcome outcome;
    uint16_t status; /* HTTP: 200 ALLOW, 302 LOGIN and DEVICE, 503 UNAVAILABLE; DENY: 403, 404, 450,
                        495, or 200 and 401 for MCP. policy_status says it for machines. */
    bool allow;      /* what the allow side gave, and the deny side */
    bool deny;
    uint32_t flags; /* enum policy_flag */
    policy_reason_set allow_reasons;
    policy_reason_set deny_reasons;
    policy_reason_set reasons; /* the set that decided, for the reply and the audit line */
    struct sv device_type;     /* DEVICE: which; lives as long as the policy */
};

/* v->reasons. */
policy_reason_set policy_reasons(const struct policy_verdict *v);
/* The status for this client: LOGIN and DEVICE are 302 for a navigation, 401 for anything else. */
int policy_status(const struct policy_verdict *v, bool navigates);

/* --- compile ---------------------------------------------------------------------------------- */

/* Which kind of mistake. */
enum policy_fault {
    POLICY_FAULT_NONE = 0,
    POLICY_FAULT_YAML,
    POLICY_FAULT_SHAPE,
    POLICY_FAULT_UNKNOWN_CRITERION,
    POLICY_FAULT_OPERATOR,
    POLICY_FAULT_DATA,
    POLICY_FAULT_ROUTE,
    POLICY_FAULT_COMPILE
};

const char *policy_fault_name(enum policy_fault fault); /* "unknown-criterion", …; never NULL */

struct policy_central; /* central.h */

/* What a policy is made from. All borrowed, read during policy_compile only. */
struct policy_source {
    const struct yaml_doc
        *doc;            /* that the trees below are part of, for places in errors; or NULL */
    const json_t *route; /* the object that they are members of, for places; or NULL */
    const json_t *ppl;   /* the route's `policy`; NULL: none */
    struct sv name;      /* of a central policy, for explanations; "": the route's own */
    const json_t *names; /* the route's `policies`: a name or a list, or NULL */
    const struct policy_central *central; /* where they are looked up; NULL: there are none */
    const json_t *allowed_domains;        /* list of text, or NULL */
    const json_t *allowed_users;          /* list of text: user ids or e-mail addresses, or NULL */
    const json_t *allowed_idp_claims;     /* object: name to list of values, or NULL */
    bool allow_public_unauthenticated_access;
    bool allow_any_authenticated_user;
    bool cors_allow_preflight;
    bool mcp_server;
    bool mtls_default_deny; /* a client CA exists and enforcement is not `policy` */
    bool enforced;          /* the policy is a central one for every route: deny rules alone */
    bool shadow;            /* central policies are what their `shadow_policy` says */
};

/* Reads the keys above out of a route of config.yaml; central and mtls_default_deny are left as they
 * are.
 * ERR_INVALID: a key of the wrong type (always POLICY_FAULT_ROUTE). */
MUST_CHECK enum err policy_source_of_route(const json_t *route, const struct yaml_doc *doc,
                                           struct policy_source *source_out, struct diag *d);

struct policy;

/* Criteria and list members of one policy: aliases make few bytes into many. */
enum { POLICY_ITEMS_MAX = 256 * 1024 };

/* One reference for the caller. ERR_INVALID: see *fault_out (may be NULL) and d (file:line:column
 * where source.doc is given). A route whose policy does not compile must be answered with
 * policy_verdict_unavailable(POLICY_REASON_POLICY_INVALID), and only that route. */
MUST_CHECK enum err policy_compile(const struct policy_source *source, struct policy **policy_out,
                                   enum policy_fault *fault_out, struct diag *d);
/* The same for a policy that stands alone as YAML or JSON text; base: the other members of the
 * source, or NULL; its doc and ppl are not used. ERR_INVALID, ERR_LIMIT (fault yaml). */
MUST_CHECK enum err policy_compile_text(struct sv text, const char *file,
                                        const struct policy_source *base,
                                        struct policy **policy_out, enum policy_fault *fault_out,
                                        struct diag *d);
/* Of a route of config.yaml: policy_source_of_route, then policy_compile. base: central and
 * mtls_default_deny. */
MUST_CHECK enum err policy_compile_route(const json_t *route, const struct yaml_doc *doc,
                                         const struct policy_source *base,
                                         struct policy **policy_out, enum policy_fault *fault_out,
                                         struct diag *d);
/* What the route would have if every `shadow_policy` counted: its own in place of its other rules (but
 * what holds on every route), those of central policies in place of theirs. *policy_out NULL: none
 * applies to it. */
MUST_CHECK enum err policy_compile_shadow(const json_t *route, const struct yaml_doc *doc,
                                          const struct policy_source *base,
                                          struct policy **policy_out, enum policy_fault *fault_out,
                                          struct diag *d);
/* What it asks of the request, the connection and the moment, not of who the visitor is: a bit for
 * each criterion, with a name. */
uint64_t policy_asks_of_request(const struct policy *policy);
const char *policy_criterion_name(unsigned bit);
/* Appends its rules that hold such criteria, as written: where two policies have the same, they hang on
 * the request in the same way. */
void policy_asks_text(const struct policy *policy, struct buf *out);
/* A policy for those who do not know some facts: where policy asks for criteria (such bits), this one takes the answer that is best (hopeful) or worst for the visitor. Both
 * of one outcome: it does not hang on them. One reference for the caller. */
struct policy *policy_suppose(struct policy *policy, uint64_t criteria, bool hopeful);
/* The headers that it asks for, lower case; *n_out 0: none. They live as long as the policy. */
const struct sv *policy_headers(const struct policy *policy, size_t *n_out);
/* The shortest age of a login that it asks about; 0: it asks about none. A verdict holds no longer. */
int64_t policy_auth_age_ms(const struct policy *policy);
struct policy *policy_ref(struct policy *policy);
void policy_unref(struct policy **policy);

/* --- evaluate --------------------------------------------------------------------------------- */

/* Fills *v_out. policy NULL: UNAVAILABLE with policy-invalid. */
void policy_eval(const struct policy *policy, const struct policy_input *in,
                 struct policy_verdict *v_out);
/* One of our own paths (/.pomerium/…), which no route's policy covers: ALLOW with pomerium-route, or
 * LOGIN if it needs a session and there is none. */
void policy_eval_internal(const struct policy_input *in, bool needs_session,
                          struct policy_verdict *v_out);
/* Verdicts without a policy. */
struct policy_verdict policy_verdict_unavailable(enum policy_reason reason); /* 503 */
struct policy_verdict policy_verdict_not_found(void);                        /* 404 */
/* Whether one of our own paths needs a session. */
bool policy_path_needs_session(struct sv path);
