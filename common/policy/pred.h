/* policy_pred: one criterion with its data, ready to be asked. Lives in the policy's arena.
 * Internal to common/policy. What there is: docs/policy.md, Criteria. */
#pragma once

#include <jansson.h>

#include "common/base.h"
#include "common/cidr.h"
#include "common/policy/match.h"
#include "common/policy/scan.h"
#include "common/policy/tree.h"
#include "common/policy/when.h"

enum policy_criterion {
    POLICY_CRITERION_REJECT = 0,
    POLICY_CRITERION_ACCEPT,
    POLICY_CRITERION_AUTHENTICATED_USER,
    POLICY_CRITERION_USER,
    POLICY_CRITERION_EMAIL,
    POLICY_CRITERION_DOMAIN,
    POLICY_CRITERION_GROUPS,
    POLICY_CRITERION_CLAIM,
    POLICY_CRITERION_HTTP_METHOD,
    POLICY_CRITERION_HTTP_PATH,
    POLICY_CRITERION_CORS_PREFLIGHT,
    POLICY_CRITERION_SOURCE_IP,
    POLICY_CRITERION_CLIENT_CERTIFICATE,
    POLICY_CRITERION_INVALID_CLIENT_CERTIFICATE,
    POLICY_CRITERION_DEVICE,
    POLICY_CRITERION_MCP_TOOL,
    POLICY_CRITERION_SSH_PUBLICKEY,
    POLICY_CRITERION_SSH_CA,
    POLICY_CRITERION_SSH_USERNAME,
    POLICY_CRITERION_SSH_USERNAME_MATCHES_EMAIL,
    POLICY_CRITERION_SSH_USERNAME_MATCHES_CLAIM,
    POLICY_CRITERION_DATE,
    POLICY_CRITERION_DAY_OF_WEEK,
    POLICY_CRITERION_TIME_OF_DAY,
    POLICY_CRITERION_RECORD,
    POLICY_CRITERION_IDP,
    POLICY_CRITERION_HOST,
    POLICY_CRITERION_AUTH_AGE,
    POLICY_CRITERION_HEADER,
    POLICY_CRITERION_COUNT
};

/* A list of 32-byte digests; asked: the key stood there, so that an empty list matches nothing. */
struct policy_digests {
    bool asked;
    uint8_t (*items)[32];
    size_t count;
};

struct policy_cert_match {
    struct policy_digests fingerprint;
    struct policy_digests spki;
    bool san_asked[3]; /* e-mail, DNS, URI */
    struct policy_match san[3];
    bool name_asked[2]; /* issuer, subject */
    struct policy_match name[2];
};

struct policy_device_match {
    struct sv type;
    bool id_asked;
    struct sv id;
    bool approved_asked;
    bool approved;
};

enum policy_compare { POLICY_LT = 0, POLICY_LE, POLICY_EQ, POLICY_GE, POLICY_GT };

struct policy_number_test {
    enum policy_compare compare;
    double number;
};

struct policy_record_match {
    struct sv type;
    struct sv field; /* "" = the record itself */
    bool exists_asked;
    bool exists;
    struct policy_number_test *numbers;
    size_t number_count;
    struct policy_test *tests;
    size_t test_count;
};

struct policy_pred {
    enum policy_criterion kind;
    bool identity; /* asks who it is: without a session false with user-unauthenticated */
    enum policy_reason yes;
    enum policy_reason no;
    struct policy_match match; /* matchers over one text or list; SSH keys by wire bytes */
    struct policy_text claim;  /* claim, ssh_username_matches_claim; header: its name */
    int64_t age_ms;            /* auth_age */
    struct cidr *cidrs;        /* source_ip; of mem_* until policy_pred_finish */
    size_t cidr_count;
    const struct policy_when *when;
    const struct policy_cert_match *cert;
    const struct policy_device_match *device;
    const struct policy_record_match *record;
};

/* ERR_INVALID with the fault. The predicate is the caller's to finish in any case. */
MUST_CHECK enum err policy_pred_compile(struct policy_scan *scan,
                                        const struct policy_tree_item *item,
                                        struct policy_pred *pred_out);
/* Whether `or` over both is the same as one predicate with the data of both. */
bool policy_pred_merges(const struct policy_pred *a);
/* Adds from's data to into's; both of one kind and claim, both mergeable. */
void policy_pred_merge(struct policy_pred *into, const struct policy_pred *from);
/* Moves what was gathered into the arena. */
void policy_pred_finish(struct policy_pred *pred, struct arena *arena);
