#include "common/policy/reason.h"

_Static_assert(POLICY_REASON_COUNT <= 128, "a set of reasons is one word");

static const char *const names[POLICY_REASON_COUNT] = {
    [POLICY_REASON_ACCEPT] = "accept",
    [POLICY_REASON_CLAIM_OK] = "claim-ok",
    [POLICY_REASON_CLAIM_UNAUTHORIZED] = "claim-unauthorized",
    [POLICY_REASON_CLIENT_CERTIFICATE_OK] = "client-certificate-ok",
    [POLICY_REASON_CLIENT_CERTIFICATE_UNAUTHORIZED] = "client-certificate-unauthorized",
    [POLICY_REASON_CLIENT_CERTIFICATE_REQUIRED] = "client-certificate-required",
    [POLICY_REASON_CORS_REQUEST] = "cors-request",
    [POLICY_REASON_DEVICE_OK] = "device-ok",
    [POLICY_REASON_DEVICE_UNAUTHENTICATED] = "device-unauthenticated",
    [POLICY_REASON_DEVICE_UNAUTHORIZED] = "device-unauthorized",
    [POLICY_REASON_DOMAIN_OK] = "domain-ok",
    [POLICY_REASON_DOMAIN_UNAUTHORIZED] = "domain-unauthorized",
    [POLICY_REASON_EMAIL_OK] = "email-ok",
    [POLICY_REASON_EMAIL_UNAUTHORIZED] = "email-unauthorized",
    [POLICY_REASON_GROUPS_OK] = "groups-ok",
    [POLICY_REASON_GROUPS_UNAUTHORIZED] = "groups-unauthorized",
    [POLICY_REASON_HTTP_METHOD_OK] = "http-method-ok",
    [POLICY_REASON_HTTP_METHOD_UNAUTHORIZED] = "http-method-unauthorized",
    [POLICY_REASON_HTTP_PATH_OK] = "http-path-ok",
    [POLICY_REASON_HTTP_PATH_UNAUTHORIZED] = "http-path-unauthorized",
    [POLICY_REASON_INVALID_CLIENT_CERTIFICATE] = "invalid-client-certificate",
    [POLICY_REASON_MCP_TOOL_MATCH] = "mcp-tool-match",
    [POLICY_REASON_MCP_NOT_A_TOOL_CALL] = "mcp-not-a-tool-call",
    [POLICY_REASON_MCP_TOOL_NO_MATCH] = "mcp-tool-no-match",
    [POLICY_REASON_NON_CORS_REQUEST] = "non-cors-request",
    [POLICY_REASON_NON_POMERIUM_ROUTE] = "non-pomerium-route",
    [POLICY_REASON_POMERIUM_ROUTE] = "pomerium-route",
    [POLICY_REASON_REJECT] = "reject",
    [POLICY_REASON_ROUTE_NOT_FOUND] = "route-not-found",
    [POLICY_REASON_SOURCE_IP_OK] = "source-ip-ok",
    [POLICY_REASON_SOURCE_IP_UNAUTHORIZED] = "source-ip-unauthorized",
    [POLICY_REASON_SSH_PUBLICKEY_OK] = "ssh-publickey-ok",
    [POLICY_REASON_SSH_PUBLICKEY_UNAUTHORIZED] = "ssh-publickey-unauthorized",
    [POLICY_REASON_SSH_USERNAME_OK] = "ssh-username-ok",
    [POLICY_REASON_SSH_USERNAME_UNAUTHORIZED] = "ssh-username-unauthorized",
    [POLICY_REASON_USER_OK] = "user-ok",
    [POLICY_REASON_USER_UNAUTHENTICATED] = "user-unauthenticated",
    [POLICY_REASON_USER_UNAUTHORIZED] = "user-unauthorized",
    [POLICY_REASON_VALID_CLIENT_CERTIFICATE] = "valid-client-certificate",
    [POLICY_REASON_DATE_OK] = "date-ok",
    [POLICY_REASON_DATE_UNAUTHORIZED] = "date-unauthorized",
    [POLICY_REASON_DAY_OF_WEEK_OK] = "day-of-week-ok",
    [POLICY_REASON_DAY_OF_WEEK_UNAUTHORIZED] = "day-of-week-unauthorized",
    [POLICY_REASON_TIME_OF_DAY_OK] = "time-of-day-ok",
    [POLICY_REASON_TIME_OF_DAY_UNAUTHORIZED] = "time-of-day-unauthorized",
    [POLICY_REASON_RECORD_OK] = "record-ok",
    [POLICY_REASON_RECORD_UNAUTHORIZED] = "record-unauthorized",
    [POLICY_REASON_POLICY_INVALID] = "policy-invalid",
    [POLICY_REASON_STORE_UNAVAILABLE] = "store-unavailable",
    [POLICY_REASON_ROUTE_UNKNOWN] = "route-unknown",
    [POLICY_REASON_SESSION_EXPIRED] = "session-expired",
    [POLICY_REASON_SESSION_REVOKED] = "session-revoked",
    [POLICY_REASON_SESSION_INVALID] = "session-invalid",
    [POLICY_REASON_AUTHORIZE_TIMEOUT] = "authorize-timeout",
    [POLICY_REASON_AUTHORIZE_UNAVAILABLE] = "authorize-unavailable",
    [POLICY_REASON_INTERNAL_ERROR] = "internal-error",
    [POLICY_REASON_REQUEST_INVALID] = "request-invalid",
    [POLICY_REASON_IDENTITY_TOO_LARGE] = "identity-too-large",
    [POLICY_REASON_IDENTITY_INVALID] = "identity-invalid",
    [POLICY_REASON_IDP_OK] = "idp-ok",
    [POLICY_REASON_IDP_UNAUTHORIZED] = "idp-unauthorized",
    [POLICY_REASON_HOST_OK] = "host-ok",
    [POLICY_REASON_HOST_UNAUTHORIZED] = "host-unauthorized",
    [POLICY_REASON_AUTH_AGE_OK] = "auth-age-ok",
    [POLICY_REASON_AUTH_AGE_EXCEEDED] = "auth-age-exceeded",
    [POLICY_REASON_HEADER_OK] = "header-ok",
    [POLICY_REASON_HEADER_UNAUTHORIZED] = "header-unauthorized",
    [POLICY_REASON_HEADER_REPEATED] = "header-repeated",
    [POLICY_REASON_HEADER_TOO_LARGE] = "header-too-large",
    [POLICY_REASON_HEADER_UNKNOWN] = "header-unknown",
    [POLICY_REASON_AUDIT_UNAVAILABLE] = "audit-unavailable",
    [POLICY_REASON_SESSION_IDLE] = "session-idle",
    [POLICY_REASON_SESSION_TOO_OLD] = "session-too-old",
    [POLICY_REASON_STORE_BEHIND] = "store-behind",
};

const char *policy_reason_name(enum policy_reason reason)
{
    if ((unsigned)reason >= POLICY_REASON_COUNT || names[reason] == NULL) {
        return "unknown";
    }
    return names[reason];
}

enum policy_reason policy_reason_of(struct sv name)
{
    size_t i = 0;

    for (i = 1; i < POLICY_REASON_COUNT; i++) {
        if (names[i] != NULL && sv_eq(name, sv_from(names[i]))) {
            return (enum policy_reason)i;
        }
    }
    return POLICY_REASON_NONE;
}

enum policy_reason policy_reason_next(policy_reason_set *set)
{
    uint64_t low = (uint64_t)*set;
    unsigned bit = 0;

    if (*set == 0) {
        return POLICY_REASON_NONE;
    }
    bit = low != 0 ? (unsigned)__builtin_ctzll(low)
                   : 64U + (unsigned)__builtin_ctzll((uint64_t)(*set >> 64U));
    *set &= *set - 1;
    return (enum policy_reason)bit;
}
