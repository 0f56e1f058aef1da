/* policy_reason: why a check ended as it did. The numbers are on the wire between authorize and the
 * proxy and never change; the names are Pomerium's where Pomerium has the reason. A set of reasons
 * is a 128-bit word with bit n for reason n. Pure functions; any thread. */
#pragma once

#include "common/base.h"
#include "common/sv.h"

enum policy_reason {
    POLICY_REASON_NONE = 0, /* never set */

    /* what criteria say */
    POLICY_REASON_ACCEPT = 1,
    POLICY_REASON_CLAIM_OK = 2,
    POLICY_REASON_CLAIM_UNAUTHORIZED = 3,
    POLICY_REASON_CLIENT_CERTIFICATE_OK = 4,
    POLICY_REASON_CLIENT_CERTIFICATE_UNAUTHORIZED = 5,
    POLICY_REASON_CLIENT_CERTIFICATE_REQUIRED = 6,
    POLICY_REASON_CORS_REQUEST = 7,
    POLICY_REASON_DEVICE_OK = 8,
    POLICY_REASON_DEVICE_UNAUTHENTICATED = 9,
    POLICY_REASON_DEVICE_UNAUTHORIZED = 10,
    POLICY_REASON_DOMAIN_OK = 11,
    POLICY_REASON_DOMAIN_UNAUTHORIZED = 12,
    POLICY_REASON_EMAIL_OK = 13,
    POLICY_REASON_EMAIL_UNAUTHORIZED = 14,
    POLICY_REASON_GROUPS_OK = 15,
    POLICY_REASON_GROUPS_UNAUTHORIZED = 16,
    POLICY_REASON_HTTP_METHOD_OK = 17,
    POLICY_REASON_HTTP_METHOD_UNAUTHORIZED = 18,
    POLICY_REASON_HTTP_PATH_OK = 19,
    POLICY_REASON_HTTP_PATH_UNAUTHORIZED = 20,
    POLICY_REASON_INVALID_CLIENT_CERTIFICATE = 21,
    POLICY_REASON_MCP_TOOL_MATCH = 22,
    POLICY_REASON_MCP_NOT_A_TOOL_CALL = 23,
    POLICY_REASON_MCP_TOOL_NO_MATCH = 24,
    POLICY_REASON_NON_CORS_REQUEST = 25,
    POLICY_REASON_NON_POMERIUM_ROUTE = 26,
    POLICY_REASON_POMERIUM_ROUTE = 27,
    POLICY_REASON_REJECT = 28,
    POLICY_REASON_ROUTE_NOT_FOUND = 29,
    POLICY_REASON_SOURCE_IP_OK = 30,
    POLICY_REASON_SOURCE_IP_UNAUTHORIZED = 31,
    POLICY_REASON_SSH_PUBLICKEY_OK = 32,
    POLICY_REASON_SSH_PUBLICKEY_UNAUTHORIZED = 33,
    POLICY_REASON_SSH_USERNAME_OK = 34,
    POLICY_REASON_SSH_USERNAME_UNAUTHORIZED = 35,
    POLICY_REASON_USER_OK = 36,
    POLICY_REASON_USER_UNAUTHENTICATED = 37,
    POLICY_REASON_USER_UNAUTHORIZED = 38,
    POLICY_REASON_VALID_CLIENT_CERTIFICATE = 39,
    POLICY_REASON_DATE_OK = 40,
    POLICY_REASON_DATE_UNAUTHORIZED = 41,
    POLICY_REASON_DAY_OF_WEEK_OK = 42,
    POLICY_REASON_DAY_OF_WEEK_UNAUTHORIZED = 43,
    POLICY_REASON_TIME_OF_DAY_OK = 44,
    POLICY_REASON_TIME_OF_DAY_UNAUTHORIZED = 45,
    POLICY_REASON_RECORD_OK = 46,
    POLICY_REASON_RECORD_UNAUTHORIZED = 47,

    /* why no policy could be asked */
    POLICY_REASON_POLICY_INVALID = 48,        /* the route's policy did not compile */
    POLICY_REASON_STORE_UNAVAILABLE = 49,     /* the replica is older than may be */
    POLICY_REASON_ROUTE_UNKNOWN = 50,         /* authorize has no route of that id */
    POLICY_REASON_SESSION_EXPIRED = 51,       /* with user-unauthenticated: there was one */
    POLICY_REASON_SESSION_REVOKED = 52,       /* likewise: the record is deleted */
    POLICY_REASON_SESSION_INVALID = 53,       /* a handle or token that is not ours */
    POLICY_REASON_AUTHORIZE_TIMEOUT = 54,     /* no answer within authorize_timeout */
    POLICY_REASON_AUTHORIZE_UNAVAILABLE = 55, /* no authorize to ask */
    POLICY_REASON_INTERNAL_ERROR = 56,
    POLICY_REASON_REQUEST_INVALID = 57,    /* the check itself breaks its rules */
    POLICY_REASON_IDENTITY_TOO_LARGE = 58, /* the identity headers exceed their bound */
    POLICY_REASON_IDENTITY_INVALID = 59,   /* a claim holds bytes that no header may carry */

    /* what criteria say, again */
    POLICY_REASON_IDP_OK = 60,
    POLICY_REASON_IDP_UNAUTHORIZED = 61,
    POLICY_REASON_HOST_OK = 62,
    POLICY_REASON_HOST_UNAUTHORIZED = 63,
    POLICY_REASON_AUTH_AGE_OK = 64,
    POLICY_REASON_AUTH_AGE_EXCEEDED = 65, /* with LOGIN: a new login leads in */
    POLICY_REASON_HEADER_OK = 66,
    POLICY_REASON_HEADER_UNAUTHORIZED = 67,
    POLICY_REASON_HEADER_REPEATED = 68,
    POLICY_REASON_HEADER_TOO_LARGE = 69,
    POLICY_REASON_HEADER_UNKNOWN = 70, /* who asks did not tell it */

    /* why no policy could be asked, again */
    POLICY_REASON_AUDIT_UNAVAILABLE = 71, /* its audit line cannot be written */
    POLICY_REASON_SESSION_IDLE = 72, /* with user-unauthenticated: it was not used for too long */
    POLICY_REASON_SESSION_TOO_OLD = 73, /* likewise: its login is too long ago for the route */
    POLICY_REASON_STORE_BEHIND = 74,    /* the replica is not there yet, or behind the session */
    POLICY_REASON_COUNT = 75            /* at most 128 */
};

/* NOLINTNEXTLINE(readability-identifier-naming): a number, which no tag can name */
__extension__ typedef unsigned __int128 policy_reason_set;

/* The bit of a reason in a set. */
#define POLICY_REASON_BIT(reason) ((policy_reason_set)1 << (unsigned)(reason))

/* With a LOGIN: there is a session, and only a login that asks the person again leads in. */
#define POLICY_REASONS_FRESH                              \
    (POLICY_REASON_BIT(POLICY_REASON_AUTH_AGE_EXCEEDED) | \
     POLICY_REASON_BIT(POLICY_REASON_SESSION_IDLE) |      \
     POLICY_REASON_BIT(POLICY_REASON_SESSION_TOO_OLD))

/* Stable lower-case name; "unknown" for a number that is no reason, never NULL. */
const char *policy_reason_name(enum policy_reason reason);
/* POLICY_REASON_NONE where there is no reason of that name. */
enum policy_reason policy_reason_of(struct sv name);

/* The lowest reason of the set, taken out of it; POLICY_REASON_NONE when it is empty:
 * while ((r = policy_reason_next(&set)) != POLICY_REASON_NONE) { … } */
enum policy_reason policy_reason_next(policy_reason_set *set);
