#include "common/authz_headers.h"

#include "common/policy/input.h"

_Static_assert((int)CONFIG_POLICY_HEADERS_MAX + (int)CONFIG_LOG_HEADERS_MAX <=
                   (int)AUTHZ_HEADERS_MAX,
               "a check has room for what a route and the audit ask for");

static ProtobufCBinaryData bytes_of(struct sv s)
{
    return (ProtobufCBinaryData){ .len = s.n, .data = base_unconst(s.p) };
}

static void find_header(const struct http_head *head, struct sv name, Postern__RequestHeader *out)
{
    struct sv value = SV("");
    size_t n = 0;
    size_t i = 0;

    for (i = 0; i < head->n; i++) {
        if (sv_ieq(head->fields[i].name, name)) {
            value = head->fields[i].value;
            n++;
        }
    }
    *out = (Postern__RequestHeader)POSTERN__REQUEST_HEADER__INIT;
    out->name = bytes_of(name);
    if (n > 1) {
        out->state = POSTERN__REQUEST_HEADER__STATE__REPEATED;
    } else if (value.n > POLICY_HEADER_VALUE_MAX) {
        out->state = POSTERN__REQUEST_HEADER__STATE__TOO_LARGE;
    } else {
        out->state = POSTERN__REQUEST_HEADER__STATE__TOLD;
        out->value = bytes_of(value);
    }
}

void authz_headers_add_named(const struct http_head *head, const struct config_strings *names,
                             struct authz_headers *room, Postern__CheckRequest *check)
{
    for (size_t i = 0; i < names->n; i++) {
        size_t n = check->n_headers++;

        find_header(head, names->v[i], &room->v[n]);
        room->p[n] = &room->v[n];
    }
    check->headers = room->p;
}

void authz_headers_add(const struct http_head *head, const struct config_route *route,
                       struct authz_headers *room, Postern__CheckRequest *check)
{
    if (route != NULL) {
        authz_headers_add_named(head, &route->policy_headers, room, check);
    }
}
