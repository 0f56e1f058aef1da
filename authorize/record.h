/* authz_record: what the records of sessions, users and directory users say, read off the wire: a
 * start reads millions of them, and to unpack one would cost more than all else. What rpc_scan refuses
 * is refused. Of a field or a submessage that comes twice the later one counts. Everything read is
 * borrowed from the bytes. */
#pragma once

#include "common/base.h"
#include "common/sv.h"

enum { AUTHZ_CLAIMS_MAX = 1024 };

/* One entry of a map of claims. */
struct authz_claim_entry {
    struct sv name;
    struct sv values; /* google.protobuf.ListValue on the wire */
};

struct authz_session_record {
    struct sv user_id;
    struct sv issuer;
    struct sv access_token;
    struct sv id_token;
    struct sv impersonates;
    bool ends;
    int64_t expires_at_s;
    int64_t issued_at_s;
    bool has_authenticated_at;
    int64_t authenticated_at_s;
    size_t n_claims;
    struct authz_claim_entry claims[AUTHZ_CLAIMS_MAX];
    uint64_t
        digest; /* over what policies, headers and open connections depend on: not the provider's
                        tokens and not the time of last use, which change all the time */
};

struct authz_user_record {
    struct sv name;
    struct sv email;
    struct sv groups_error;
    size_t n_claims;
    struct authz_claim_entry claims[AUTHZ_CLAIMS_MAX];
};

/* A google.protobuf.Struct. */
struct authz_directory_record {
    struct sv email;
    struct sv name;
    struct sv groups; /* google.protobuf.ListValue on the wire; texts count, other values do not */
    size_t n_groups;  /* values of any kind */
};

/* ERR_INVALID; ERR_LIMIT: more claims than AUTHZ_CLAIMS_MAX. */
MUST_CHECK enum err authz_session_read(struct sv bytes, struct authz_session_record *record_out);
MUST_CHECK enum err authz_user_read(struct sv bytes, struct authz_user_record *record_out);
MUST_CHECK enum err authz_directory_read(struct sv bytes,
                                         struct authz_directory_record *record_out);

enum authz_value_kind {
    AUTHZ_VALUE_OTHER = 0, /* an object, a list, or nothing */
    AUTHZ_VALUE_NULL,
    AUTHZ_VALUE_BOOL,
    AUTHZ_VALUE_NUMBER,
    AUTHZ_VALUE_TEXT
};

struct authz_value {
    enum authz_value_kind kind;
    bool flag;
    double number;
    struct sv text;
};

/* The next value of a ListValue; *left becomes what is behind it. False at the end, and then what was
 * invalid is told by *err, which the caller sets to ERR_OK first. */
bool authz_value_next(struct sv *left, struct authz_value *value_out, enum err *err);
