#include "databroker/session_filter.h"

#include <string.h>

#include "user.pb-c.h"

#include "common/clock.h"
#include "common/rpc/scan.h"
#include "databroker/access.h"

enum { USERS_FIRST = 8 };

static struct broker_moment moment_of(const Google__Protobuf__Timestamp *t)
{
    return t == NULL ? (struct broker_moment){ .s = 0 }
                     : (struct broker_moment){ .s = t->seconds, .ns = t->nanos };
}

static bool is_earlier(struct broker_moment a, struct broker_moment b)
{
    return a.s < b.s || (a.s == b.s && a.ns < b.ns);
}

static enum err text_read(const char *text, const char *what, struct arena *arena,
                          struct sv *text_out, struct diag *d)
{
    if (text[0] == '\0') {
        *text_out = SV("");
        return ERR_OK;
    }
    *text_out = arena_sv(arena, sv_from(text));
    return broker_name_check(*text_out, what, d);
}

enum err broker_session_filter_read(const Postern__SessionFilter *message, struct arena *arena,
                                    struct broker_session_filter *filter_out, struct diag *d)
{
    struct broker_session_filter *f = filter_out;
    enum err err = ERR_OK;

    *f = (struct broker_session_filter){ .has_address = false };
    if (message == NULL) {
        return ERR_OK;
    }
    err = text_read(message->session_id, "filter.session_id", arena, &f->session_id, d);
    if (err == ERR_OK) {
        err = text_read(message->user, "filter.user", arena, &f->user, d);
    }
    if (err == ERR_OK) {
        err = text_read(message->idp_id, "filter.idp_id", arena, &f->idp_id, d);
    }
    if (err == ERR_OK) {
        err = text_read(message->provider_session_id, "filter.provider_session_id", arena,
                        &f->provider_session_id, d);
    }
    f->has_address = message->address[0] != '\0';
    if (err == ERR_OK && f->has_address &&
        cidr_parse(sv_from(message->address), &f->address) != ERR_OK) {
        diag_set(d, "filter.address is no IP address and no range such as 10.0.0.0/8");
        err = ERR_INVALID;
    }
    f->has_before = message->issued_before != NULL;
    f->before = moment_of(message->issued_before);
    f->has_after = message->issued_after != NULL;
    f->after = moment_of(message->issued_after);
    return err;
}

bool broker_session_filter_is_set(const struct broker_session_filter *filter)
{
    return filter->session_id.n + filter->user.n + filter->idp_id.n +
                   filter->provider_session_id.n >
               0 ||
           filter->has_address || filter->has_before || filter->has_after;
}

/* ---- people ----------------------------------------------------------------------------------- */

static bool is_person(const struct broker_record *record, struct sv user)
{
    CLEANUP(arena_deinit) struct arena arena = { 0 };
    ProtobufCMessage *m = NULL;

    arena_init(&arena);
    return sv_eq(record->id, user) ||
           (rpc_unpack(&user__user__descriptor, record->data, &arena, &m) == ERR_OK &&
            sv_ieq(sv_from(((const User__User *)(const void *)m)->email), user));
}

enum err broker_session_filter_person(struct broker_session_filter *filter,
                                      const struct broker_record *record, struct arena *arena)
{
    if (record->deleted_us != 0 || !is_person(record, filter->user)) {
        return ERR_OK;
    }
    if (filter->n_user_ids == BROKER_FILTER_USERS) {
        return ERR_LIMIT;
    }
    if (filter->n_user_ids == filter->room) {
        size_t room = MAX(filter->room * 2, (size_t)USERS_FIRST);
        struct sv *more = arena_alloc(arena, room * sizeof(*more));

        if (filter->n_user_ids != 0) {
            memcpy(more, filter->user_ids, filter->n_user_ids * sizeof(*more));
        }
        filter->user_ids = more;
        filter->room = room;
    }
    filter->user_ids[filter->n_user_ids] = arena_sv(arena, record->id);
    filter->n_user_ids++;
    return ERR_OK;
}

static bool is_meant(const struct broker_session_filter *f, struct sv user_id)
{
    size_t low = 0;
    size_t high = f->n_user_ids;

    if (f->user.n == 0 || sv_eq(f->user, user_id)) {
        return true;
    }
    while (low < high) {
        size_t middle = low + (high - low) / 2;
        int c = sv_cmp(f->user_ids[middle], user_id);

        if (c == 0) {
            return true;
        }
        low = c < 0 ? middle + 1 : low;
        high = c < 0 ? high : middle;
    }
    return false;
}

/* ---- sessions --------------------------------------------------------------------------------- */

static struct sv provider_session(const Session__Session *session)
{
    for (size_t i = 0; i < session->n_claims; i++) {
        const Google__Protobuf__ListValue *list = session->claims[i]->value;

        if (sv_eq(sv_from(session->claims[i]->key), SV("sid")) && list != NULL &&
            list->n_values == 1 &&
            list->values[0]->kind_case == GOOGLE__PROTOBUF__VALUE__KIND_STRING_VALUE) {
            return sv_from(list->values[0]->string_value);
        }
    }
    return SV("");
}

static bool is_from(const struct broker_session_filter *f, const char *address)
{
    uint8_t ip[16];

    return !f->has_address ||
           (cidr_ip_parse(sv_from(address), ip) == ERR_OK && cidr_holds(&f->address, ip));
}

static bool fits(const struct broker_session_filter *f, const Session__Session *s)
{
    struct broker_moment issued = moment_of(s->issued_at);

    return (f->idp_id.n == 0 || sv_eq(f->idp_id, sv_from(s->idp_id))) &&
           is_meant(f, sv_from(s->user_id)) &&
           (f->provider_session_id.n == 0 || sv_eq(f->provider_session_id, provider_session(s))) &&
           is_from(f, s->login_address) && (!f->has_before || is_earlier(issued, f->before)) &&
           (!f->has_after || is_earlier(f->after, issued));
}

const Session__Session *broker_session_fit(const struct broker_session_filter *filter,
                                           const struct broker_record *record, struct arena *arena)
{
    ProtobufCMessage *m = NULL;
    const Session__Session *session = NULL;

    if (record->deleted_us != 0 ||
        (filter->session_id.n != 0 && !sv_eq(filter->session_id, record->id)) ||
        rpc_unpack(&session__session__descriptor, record->data, arena, &m) != ERR_OK) {
        return NULL;
    }
    session = (const Session__Session *)(const void *)m;
    if (session->expires_at != NULL && session->expires_at->seconds <= clock_wall_s()) {
        return NULL;
    }
    return fits(filter, session) ? session : NULL;
}

Postern__SessionInfo *broker_session_info(const Session__Session *session, uint64_t version,
                                          struct arena *arena)
{
    Postern__SessionInfo *info = arena_alloc(arena, sizeof(*info));

    postern__session_info__init(info);
    info->id = session->id;
    info->user_id = session->user_id;
    info->idp_id = session->idp_id;
    info->provider_session_id = arena_str(arena, provider_session(session));
    info->address = session->login_address;
    info->issued_at = session->issued_at;
    info->authenticated_at = session->authenticated_at;
    info->expires_at = session->expires_at;
    info->record_version = version;
    return info;
}
