#include "common/http/sign_in.h"

#include "common/http/form.h"

static const char scheme[] = "https://";

void http_sign_in_add_back(struct buf *out, const struct http_request *req)
{
    buf_add_str(out, scheme);
    buf_add_sv(out, req->authority);
    buf_add_sv(out, req->path);
    if (req->has_query) {
        buf_add_char(out, '?');
        buf_add_sv(out, req->query);
    }
}

void http_sign_in_add(struct buf *out, const struct http_request *req)
{
    CLEANUP(buf_deinit) struct buf back = { 0 };

    buf_init(&back, out->max);
    http_sign_in_add_back(&back, req);
    buf_add_str(out, scheme);
    buf_add_sv(out, req->authority);
    buf_add_str(out, HTTP_SIGN_IN_PATH "?");
    http_form_add(out, SV(HTTP_SIGN_IN_BACK), buf_sv(&back));
    if (back.err != ERR_OK) {
        out->err = back.err;
    }
}

bool http_sign_in_is_back(struct sv url, struct sv authority)
{
    struct sv prefix = sv_from(scheme);

    if (!sv_starts(url, prefix)) {
        return false;
    }
    url = sv_from_at(url, prefix.n);
    return sv_starts(url, authority) &&
           (url.n == authority.n || sv_starts(sv_from_at(url, authority.n), SV("/")));
}
