/* policy_input: the facts about one request that a policy may ask for. Everything is borrowed: the
 * caller fills it with pointers into its own stores (the replica's interned texts, the request) and
 * keeps those alive until policy_eval returns. Nothing is allocated or copied on the way. The zero
 * value is an anonymous visitor of whom nothing is known. */
#pragma once

#include "common/base.h"
#include "common/sv.h"

/* A text with its hash, so that comparing with a policy of 10,000 names is one probe. The owner
 * makes it once, when the text arrives (policy_text_of); hash 0 means "not computed". */
struct policy_text {
    struct sv s;
    uint64_t hash;
};

struct policy_text policy_text_of(struct sv s);
/* A text that lives for one request only: the hash is left out until somebody needs it. */
#define POLICY_TEXT(sv_) ((struct policy_text){ .s = (sv_), .hash = 0 })

enum policy_kind {
    POLICY_KIND_OTHER = 0, /* an object or a list: equals nothing */
    POLICY_KIND_NULL,
    POLICY_KIND_STRING,
    POLICY_KIND_NUMBER,
    POLICY_KIND_BOOL
};

/* One JSON scalar; equality is strict by kind: 5 is not "5". */
struct policy_scalar {
    enum policy_kind kind;
    bool flag;
    double number;
    struct policy_text text;
};

/* A claim's values are always a list; nested objects were flattened to dotted names. */
struct policy_claim {
    struct policy_text name;
    const struct policy_scalar *values;
    size_t count;
};

/* The claim of that name, NULL: there is none. What is returned stays until the next question. */
typedef const struct policy_claim *(*policy_claim_fn)(void *arg, struct sv name);

struct policy_claims {
    const struct policy_claim *items; /* any order; the first of a name counts */
    size_t count;
    policy_claim_fn
        find; /* not NULL: instead of items, for an owner that keeps them in another form */
    void *arg;
};

/* The ids of directory groups and their number. They stay until something else is asked for. */
typedef const struct policy_text *(*policy_groups_fn)(void *arg, size_t *n_out);

/* Facts of the certificate that the client presented, trusted or not. cert.h makes them from DER. */
struct policy_cert {
    uint8_t fingerprint[32]; /* SHA-256 of the DER */
    uint8_t spki[32];        /* SHA-256 of the subject public key info */
    const struct sv *san_email;
    size_t san_email_count;
    const struct sv *san_dns;
    size_t san_dns_count;
    const struct sv *san_uri;
    size_t san_uri_count;
    struct sv issuer;  /* as RFC 4514 writes names, in the form of openssl's -nameopt RFC2253 */
    struct sv subject; /* likewise */
};

/* What is known of a header that some policy asks for. Zero: nobody told. */
enum policy_header_state {
    POLICY_HEADER_UNKNOWN = 0,
    POLICY_HEADER_TOLD,
    POLICY_HEADER_REPEATED, /* the request has it more than once */
    POLICY_HEADER_TOO_LARGE,
    POLICY_HEADER_WITHHELD /* of a past request: it was told, and is not remembered */
};

enum {
    POLICY_HEADERS_MAX = 16, /* of one policy */
    POLICY_HEADER_NAME_MAX = 64,
    POLICY_HEADER_VALUE_MAX = 4096
};

struct policy_header {
    struct sv name; /* lower case */
    enum policy_header_state state;
    struct sv value; /* TOLD; "" where the request does not have it */
};

struct policy_ssh {
    struct sv username;  /* the login asked for */
    struct sv publickey; /* the offered key or certificate in wire form (RFC 4253 6.6) */
};

struct policy_mcp {
    struct sv method; /* JSON-RPC method, "" where the body is none */
    struct sv tool;   /* tools/call: params.name, "" if it could not be read */
};

/* A WebAuthn device of the session. */
struct policy_device {
    struct sv type;  /* the type it was registered for, "any" among them */
    struct sv id;    /* of the credential */
    bool credential; /* its credential record is there */
    bool enrolled;   /* its enrolment record is there */
    bool approved;
};

/* A record's field for the record criterion. */
struct policy_field {
    bool record;  /* the record is there */
    bool present; /* so is the field (true as well when no field was asked for) */
    const struct policy_scalar *values;
    size_t count;
};

/* The record of that type that belongs to this request, and its field ("" = none wanted). Must not
 * block. Leaves *field_out zero where there is none. */
typedef void (*policy_record_fn)(void *arg, struct sv type, struct sv field,
                                 struct policy_field *field_out);

struct policy_input {
    /* Who: all of it counts only if session is true, that is a record that lives now. */
    bool session;
    bool directory; /* a directory record exists: without it `groups` is never true */
    bool
        groups_missed; /* there should be one: whatever `groups` asks is held against the visitor */
    struct sv session_id;
    struct policy_text user_id;
    struct policy_text email;           /* of the user record */
    struct policy_text directory_email; /* wins over email when not empty */
    struct policy_text idp;             /* the provider's issuer, or "local"; "": not known */
    int64_t authenticated_ms;           /* when this person last logged in; 0: not known */
    struct policy_claims session_claims;
    struct policy_claims user_claims; /* win over the session's, name by name */
    const struct policy_text *groups; /* directory group ids */
    size_t group_count;
    policy_groups_fn find_groups; /* not NULL: instead of groups, where some policy asks for them */
    void *groups_arg;
    const struct policy_device *devices;
    size_t device_count;

    /* What. */
    struct sv method;
    struct sv host;      /* lower case, without port */
    struct sv path;      /* canonical, percent-decoded, without query */
    bool cors_preflight; /* OPTIONS with non-empty Origin and Access-Control-Request-Method */
    const struct policy_header *headers; /* those that policy_headers() names, and maybe more */
    size_t header_count;
    bool device_page; /* our own page for registering a device: stays open to who needs it */
    bool client_ip_known;
    uint8_t client_ip[16];        /* IPv4 as ::ffff:a.b.c.d */
    int64_t wall_ms;              /* now, since 1970-01-01T00:00:00Z */
    const struct policy_mcp *mcp; /* NULL: not a JSON-RPC request */
    const struct policy_ssh *ssh; /* NULL: not SSH */

    /* Client certificate. */
    bool client_ca; /* a CA for client certificates applies to the route */
    bool cert_presented;
    bool cert_trusted;              /* chain, use, names and revocation were all checked */
    const struct policy_cert *cert; /* NULL: none presented, or it could not be read */

    policy_record_fn
        record; /* NULL: without a session there is nobody to have one, else none is there */
    void *record_arg;
};
