/* authz_recent: the last decisions, for `postern explain REQUEST-ID`. Two rings of records of one
 * size: what was refused has a ring of its own, so that no crowd of allowed requests washes it away.
 * Adding one allocates nothing and copies a few hundred bytes; finding one looks through all. A
 * record holds no token, no cookie, no query.
 *
 * What policies asked of headers and the client's certificate is of any size and mostly not there: it
 * lies beside each ring, in one of bytes, and goes when others need the room. Values that may let
 * somebody in (config_header_is_secret) are not kept. The check thread's. */
#pragma once

#include "authorize.pb-c.h"

#include "authorize/check.h"
#include "common/base.h"

enum {
    AUTHZ_RECENT_MAX = 8192, /* of each ring */
    AUTHZ_RECENT_ID_MAX = 60,
    AUTHZ_RECENT_METHOD_MAX = 16,
    AUTHZ_RECENT_HOST_MAX = 64,
    AUTHZ_RECENT_PATH_MAX = 128,
    AUTHZ_RECENT_BYTES = 4 * 1024 * 1024, /* beside each ring */
    AUTHZ_RECENT_ASKED_MAX = 4096,        /* of one decision */
    AUTHZ_RECENT_VALUE_MAX = 512          /* of a header */
};

enum authz_past_flag {
    AUTHZ_PAST_INTERNAL = 1,
    AUTHZ_PAST_RECHECK = 2,
    AUTHZ_PAST_CORS = 4,
    AUTHZ_PAST_CERT = 8, /* a client certificate was shown */
    AUTHZ_PAST_CERT_TRUSTED = 16,
    AUTHZ_PAST_CUT = 32,   /* a text had no room and is cut */
    AUTHZ_PAST_ALLOW = 64, /* the allow side held, and the deny side */
    AUTHZ_PAST_DENY = 128
};

struct authz_past {
    int64_t wall_ms; /* 0: no record */
    uint64_t route;
    uint64_t edition; /* of the route */
    uint64_t facts;   /* authz_session_facts */
    uint64_t data_epoch;
    policy_reason_set reasons;
    policy_reason_set allow_reasons;
    policy_reason_set deny_reasons;
    uint64_t asked_at; /* where in its ring's bytes it lies */
    char checksum[16]; /* of the configuration */
    uint16_t status;
    uint16_t n_asked; /* 0: nothing was asked, or it was too much to keep */
    uint8_t decision; /* enum authz_decision */
    uint8_t flags;
    uint8_t n_request_id;
    uint8_t n_session;
    uint8_t n_method;
    uint8_t n_host;
    uint8_t n_path;
    uint8_t n_ip;
    uint8_t ip[16];
    char request_id[AUTHZ_RECENT_ID_MAX];
    char session[AUTHZ_RECENT_ID_MAX];
    char method[AUTHZ_RECENT_METHOD_MAX];
    char host[AUTHZ_RECENT_HOST_MAX];
    char path[AUTHZ_RECENT_PATH_MAX];
};

struct authz_recent;

struct authz_recent *authz_recent_new(void);
void authz_recent_free(struct authz_recent **recent);
void authz_recent_add(struct authz_recent *recent, const struct authz_facts *facts,
                      const Postern__CheckRequest *req, const struct authz_outcome *outcome);
/* The newest of that id; NULL: there is none any more. Valid until the next is added. */
const struct authz_past *authz_recent_find(const struct authz_recent *recent, struct sv request_id);
/* What policies asked of it, a postern.CheckRequest with headers and client_certificate alone; "": nothing,
 * or it is not kept any more. Valid as long as past. */
struct sv authz_recent_asked(const struct authz_recent *recent, const struct authz_past *past);
