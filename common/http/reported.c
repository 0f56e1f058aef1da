#include "common/http/reported.h"

enum http_fault http_reported_head(struct http_head *head, const struct http_reported *reported)
{
    head->http2 = true; /* without the fields and forms of one connection */
    head->method = http_method_id(reported->method);
    head->method_text = reported->method;
    head->target = reported->target;
    head->host = reported->authority;
    if (head->method == HTTP_CONNECT) {
        return HTTP_FAULT_METHOD_REFUSED;
    }
    if (!sv_starts(reported->target, SV("/"))) {
        return HTTP_FAULT_TARGET_FORM;
    }
    if (reported->target.n > HTTP_REPORTED_TARGET_MAX) {
        return HTTP_FAULT_TARGET_LONG;
    }
    return http_head_seal(head);
}

/* The same path, with everything kept that our rules would repair. */
static enum http_fault check_unrepaired(struct sv raw, struct sv path, struct arena *arena)
{
    static const struct http_canon_rules as_it_is = { .keep_dot_segments = true,
                                                      .keep_double_slashes = true,
                                                      .escaped_slashes = HTTP_SLASH_KEEP };
    struct sv kept = { 0 };
    enum http_fault fault = http_canon_path(raw, &as_it_is, arena, &kept, NULL);

    if (fault != HTTP_FAULT_NONE) {
        return fault;
    }
    if (sv_search(kept, SV("//")) != SIZE_MAX) {
        return HTTP_FAULT_PATH_DOUBLE_SLASH;
    }
    return sv_eq(kept, path) ? HTTP_FAULT_NONE : HTTP_FAULT_PATH_SLASH;
}

enum http_fault http_reported_canon(const struct http_head *head,
                                    const struct http_canon_rules *rules, struct arena *arena,
                                    struct http_request *req_out)
{
    struct http_request req = { .method = head->method };
    enum http_fault fault = http_canon_request(head, rules, arena, &req);
    struct sv raw = head->target;

    if (fault == HTTP_FAULT_NONE) {
        fault = check_unrepaired(sv_cut(&raw, '?'), req.path, arena);
    }
    if (fault == HTTP_FAULT_NONE) {
        *req_out = req;
    }
    return fault;
}
