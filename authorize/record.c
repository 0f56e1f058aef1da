#include "authorize/record.h"

#include <stddef.h>
#include <string.h>

#include "google/protobuf/struct.pb-c.h"

#include "common/map.h"
#include "common/rpc/scan.h"
#include "common/rpc/wire.h"

/* A fault inside of w's field is a fault of w. */
static void take_fault(struct rpc_wire *w, const struct rpc_wire *inner)
{
    if (inner->err != ERR_OK) {
        rpc_wire_refuse(w);
    }
}

/* The text of a field that is read by nobody is looked at as well. */
static void check_text(struct rpc_wire *w, const struct rpc_wire_field *f)
{
    (void)rpc_wire_text(w, f);
}

static int64_t read_time(struct rpc_wire *w, const struct rpc_wire_field *f)
{
    struct rpc_wire inner = rpc_wire_of(rpc_wire_bytes(w, f));
    struct rpc_wire_field part;
    int64_t seconds = 0;

    while (rpc_wire_next(&inner, &part)) {
        if (part.number == 1) {
            seconds = (int64_t)rpc_wire_number(&inner, &part);
        } else if (part.number == 2) {
            (void)rpc_wire_number(&inner, &part);
        }
    }
    take_fault(w, &inner);
    return seconds;
}

/* --- values ----------------------------------------------------------------------------------- */

/* What equals nothing is still looked through. */
static void check_nested(struct rpc_wire *w, const struct rpc_wire_field *f)
{
    const ProtobufCMessageDescriptor *type = f->number == 5
                                                 ? &google__protobuf__struct__descriptor
                                                 : &google__protobuf__list_value__descriptor;

    if (rpc_scan(type, rpc_wire_bytes(w, f)) != ERR_OK) {
        rpc_wire_refuse(w);
    }
}

static void read_kind(struct rpc_wire *w, const struct rpc_wire_field *f, struct authz_value *out)
{
    uint64_t bits = 0;

    switch (f->number) {
    case 1:
        (void)rpc_wire_number(w, f);
        *out = (struct authz_value){ .kind = AUTHZ_VALUE_NULL };
        break;
    case 2:
        bits = rpc_wire_fixed(w, f);
        *out = (struct authz_value){ .kind = AUTHZ_VALUE_NUMBER };
        memcpy(&out->number, &bits, sizeof(bits));
        break;
    case 3:
        *out = (struct authz_value){ .kind = AUTHZ_VALUE_TEXT, .text = rpc_wire_text(w, f) };
        break;
    case 4:
        *out = (struct authz_value){ .kind = AUTHZ_VALUE_BOOL, .flag = rpc_wire_number(w, f) != 0 };
        break;
    case 5:
    case 6:
        check_nested(w, f);
        *out = (struct authz_value){ .kind = AUTHZ_VALUE_OTHER };
        break;
    default:
        break;
    }
}

static void read_value(struct rpc_wire *w, const struct rpc_wire_field *f, struct authz_value *out)
{
    struct rpc_wire inner = rpc_wire_of(rpc_wire_bytes(w, f));
    struct rpc_wire_field part;

    *out = (struct authz_value){ .kind = AUTHZ_VALUE_OTHER };
    while (rpc_wire_next(&inner, &part)) {
        read_kind(&inner, &part, out);
    }
    take_fault(w, &inner);
}

bool authz_value_next(struct sv *left, struct authz_value *value_out, enum err *err)
{
    struct rpc_wire w = rpc_wire_of(*left);
    struct rpc_wire_field f;
    bool found = false;

    while (!found && rpc_wire_next(&w, &f)) {
        if (f.number == 1) {
            read_value(&w, &f, value_out);
            found = w.err == ERR_OK;
        }
    }
    *left = sv_of(w.p, (size_t)(w.end - w.p));
    *err = w.err;
    return found && w.err == ERR_OK;
}

/* --- claims ----------------------------------------------------------------------------------- */

static void read_claim(struct rpc_wire *w, const struct rpc_wire_field *f,
                       struct authz_claim_entry *claims, size_t *n)
{
    struct rpc_wire inner = rpc_wire_of(rpc_wire_bytes(w, f));
    struct rpc_wire_field part;
    struct authz_claim_entry entry = { .name = SV("") };

    while (rpc_wire_next(&inner, &part)) {
        if (part.number == 1) {
            entry.name = rpc_wire_text(&inner, &part);
        } else if (part.number == 2) {
            entry.values = rpc_wire_bytes(&inner, &part);
        }
    }
    take_fault(w, &inner);
    if (*n < AUTHZ_CLAIMS_MAX) {
        claims[*n] = entry;
    }
    ++*n; /* too many are found at the end */
}

static enum err outcome_of(const struct rpc_wire *w, size_t n_claims)
{
    return w->err != ERR_OK ? w->err : n_claims > AUTHZ_CLAIMS_MAX ? ERR_LIMIT : ERR_OK;
}

/* --- sessions --------------------------------------------------------------------------------- */

/* Over fields, raw and in their order. */
static uint64_t digest_add(uint64_t digest, struct sv field)
{
    return digest * UINT64_C(0x9e3779b97f4a7c15) + map_hash(field);
}

static void read_id_token(struct rpc_wire *w, const struct rpc_wire_field *f,
                          struct authz_session_record *out)
{
    struct rpc_wire inner = rpc_wire_of(rpc_wire_bytes(w, f));
    struct rpc_wire_field part;

    while (rpc_wire_next(&inner, &part)) {
        switch (part.number) {
        case 1:
            out->issuer = rpc_wire_text(&inner, &part);
            break;
        case 2:
            check_text(&inner, &part);
            break;
        case 3:
        case 4:
            (void)read_time(&inner, &part);
            break;
        case 5:
            out->id_token = rpc_wire_text(&inner, &part);
            break;
        default:
            break;
        }
    }
    take_fault(w, &inner);
}

static void read_oauth_token(struct rpc_wire *w, const struct rpc_wire_field *f,
                             struct authz_session_record *out)
{
    struct rpc_wire inner = rpc_wire_of(rpc_wire_bytes(w, f));
    struct rpc_wire_field part;

    while (rpc_wire_next(&inner, &part)) {
        switch (part.number) {
        case 1:
            out->access_token = rpc_wire_text(&inner, &part);
            break;
        case 2:
        case 4:
            check_text(&inner, &part);
            break;
        case 3:
            (void)read_time(&inner, &part);
            break;
        default:
            break;
        }
    }
    take_fault(w, &inner);
}

/* True: the field counts for the digest. */
static bool read_session_field(struct rpc_wire *w, const struct rpc_wire_field *f,
                               struct authz_session_record *out)
{
    switch (f->number) {
    case 1:
    case 2:
    case 10:
    case 20:
        check_text(w, f);
        return true;
    case 3:
        out->user_id = rpc_wire_text(w, f);
        return true;
    case 4:
        out->ends = true;
        out->expires_at_s = read_time(w, f);
        return true;
    case 6:
        read_id_token(w, f, out);
        return false; /* but for the issuer, which a policy may ask for */
    case 7:
        read_oauth_token(w, f, out);
        return false;
    case 9:
        read_claim(w, f, out->claims, &out->n_claims);
        return true;
    case 14:
        out->issued_at_s = read_time(w, f);
        return true;
    case 15:
        out->impersonates = rpc_wire_text(w, f);
        return true;
    case 18:
        (void)read_time(w, f);
        return false;
    case 19:
        (void)rpc_wire_number(w, f);
        return true;
    case 1001:
        out->has_authenticated_at = true;
        out->authenticated_at_s = read_time(w, f);
        return true;
    default:
        return false;
    }
}

enum err authz_session_read(struct sv bytes, struct authz_session_record *out)
{
    struct rpc_wire w = rpc_wire_of(bytes);
    struct rpc_wire_field f;
    const unsigned char *from = w.p;
    uint64_t digest = 0;

    memset(out, 0, offsetof(struct authz_session_record, claims));
    while (rpc_wire_next(&w, &f)) {
        if (read_session_field(&w, &f, out)) {
            digest = digest_add(digest, sv_of(from, (size_t)(w.p - from)));
        }
        from = w.p;
    }
    out->digest = digest_add(digest, out->issuer);
    return outcome_of(&w, out->n_claims);
}

/* --- users ------------------------------------------------------------------------------------ */

enum err authz_user_read(struct sv bytes, struct authz_user_record *out)
{
    struct rpc_wire w = rpc_wire_of(bytes);
    struct rpc_wire_field f;

    memset(out, 0, offsetof(struct authz_user_record, claims));
    while (rpc_wire_next(&w, &f)) {
        switch (f.number) {
        case 1:
        case 2:
        case 10:
            check_text(&w, &f);
            break;
        case 3:
            out->name = rpc_wire_text(&w, &f);
            break;
        case 4:
            out->email = rpc_wire_text(&w, &f);
            break;
        case 9:
            read_claim(&w, &f, out->claims, &out->n_claims);
            break;
        case 1001:
            out->groups_error = rpc_wire_text(&w, &f);
            break;
        default:
            break;
        }
    }
    return outcome_of(&w, out->n_claims);
}

/* --- directory users -------------------------------------------------------------------------- */

static void read_list(struct rpc_wire *w, struct sv value, struct authz_directory_record *out)
{
    struct rpc_wire inner = rpc_wire_of(value);
    struct rpc_wire_field part;
    struct authz_value one;
    enum err err = ERR_OK;

    out->groups = SV("");
    out->n_groups = 0;
    while (rpc_wire_next(&inner, &part)) { /* of the kinds that it has the last one counts */
        out->groups = part.number == 6 ? rpc_wire_bytes(&inner, &part) : SV("");
    }
    take_fault(w, &inner);
    for (struct sv left = out->groups; authz_value_next(&left, &one, &err);) {
        out->n_groups++;
    }
    if (err != ERR_OK) {
        rpc_wire_refuse(w);
    }
}

static struct sv text_of(const struct rpc_wire_field *value, struct rpc_wire *w)
{
    struct authz_value v;

    read_value(w, value, &v);
    return v.kind == AUTHZ_VALUE_TEXT ? v.text : SV("");
}

static void read_field(struct rpc_wire *w, const struct rpc_wire_field *f,
                       struct authz_directory_record *out)
{
    struct rpc_wire inner = rpc_wire_of(rpc_wire_bytes(w, f));
    struct rpc_wire_field part;
    struct rpc_wire_field value = { .number = 2, .type = RPC_WIRE_BYTES };
    struct sv key = SV("");

    while (rpc_wire_next(&inner, &part)) {
        if (part.number == 1) {
            key = rpc_wire_text(&inner, &part);
        } else if (part.number == 2) {
            value.bytes = rpc_wire_bytes(&inner, &part);
        }
    }
    take_fault(w, &inner);
    if (sv_eq(key, SV("group_ids"))) {
        read_list(w, value.bytes, out);
    } else if (sv_eq(key, SV("email"))) {
        out->email = text_of(&value, w);
    } else if (sv_eq(key, SV("display_name"))) {
        out->name = text_of(&value, w);
    } else {
        (void)text_of(&value, w);
    }
}

enum err authz_directory_read(struct sv bytes, struct authz_directory_record *out)
{
    struct rpc_wire w = rpc_wire_of(bytes);
    struct rpc_wire_field f;

    *out = (struct authz_directory_record){ .n_groups = 0 };
    while (rpc_wire_next(&w, &f)) {
        if (f.number == 1) {
            read_field(&w, &f, out);
        }
    }
    return outcome_of(&w, 0);
}
