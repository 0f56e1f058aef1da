#include "proxy/refusal.h"

#include "common/b64.h"
#include "common/http/page.h"
#include "common/http/problem.h"

enum { TEXT_MAX = 8192, FRAME_HEAD = 5, FRAME_TRAILERS = 0x80, FRAME_END_STREAM = 0x02 };

/* mailto gets the request id as its subject: it is what whoever helps asks for first. */
static struct sv support_link(const struct proxy_refusal *r, struct arena *arena)
{
    CLEANUP(buf_deinit) struct buf url;

    buf_init(&url, TEXT_MAX);
    if (r->support.n == 0 || !sv_starts(r->support, SV("mailto:")) ||
        sv_find(r->support, '?') != SIZE_MAX) {
        return r->support;
    }
    buf_add_sv(&url, r->support);
    buf_add_str(&url, "?subject=Request%20");
    buf_add_urlenc(&url, r->request_id);
    return arena_sv(arena, buf_sv(&url));
}

/* Who is logged in, since it may be the wrong account. */
static struct sv what_happened(const struct proxy_refusal *r, struct sv what, struct arena *arena)
{
    CLEANUP(buf_deinit) struct buf text;

    buf_init(&text, TEXT_MAX);
    if (r->who.n == 0 || (r->status != 403 && r->status != 450)) {
        return what;
    }
    buf_add_str(&text, "You are logged in as ");
    buf_add_sv(&text, r->who);
    buf_add_str(&text, ". ");
    buf_add_sv(&text, what);
    return text.err == ERR_OK ? arena_sv(arena, buf_sv(&text)) : what;
}

static void page(const struct proxy_refusal *r, struct arena *arena, struct buf *body,
                 struct proxy_fields *fields)
{
    struct http_problem_words w = http_problem_words(r->status, r->code, r->allowed);
    bool denied = r->status == 403 || r->status == 450;
    bool other = denied && r->who.n != 0;

    http_page_problem(body, &(struct http_page_problem){
                                .title = sv_from(w.title),
                                .what = what_happened(r, sv_from(w.what), arena),
                                .todo = sv_from(w.todo),
                                .code = r->code,
                                .request_id = r->request_id,
                                .link = denied ? SV("/.pomerium/") : (struct sv){ 0 },
                                .link_text = SV("Who am I here?"),
                                .note = r->note,
                                .more = { { support_link(r, arena), SV("Ask for help") },
                                          { other ? SV("/.pomerium/sign_out") : (struct sv){ 0 },
                                            SV("Sign out, to log in as somebody else") } } });
    proxy_fields_add_page(fields, arena);
}

static struct http_problem problem_of(const struct proxy_refusal *r)
{
    return (struct http_problem){ .status = r->status,
                                  .code = r->code,
                                  .request_id = r->request_id,
                                  .login_url = r->login_url,
                                  .allowed = r->allowed };
}

/* ---- gRPC, gRPC-Web, Connect ----------------------------------------------------------------- */

struct rpc_code {
    unsigned number;
    const char *name; /* Connect's */
};

/* https://grpc.github.io/grpc/core/md_doc_http-grpc-status-mapping.html */
static struct rpc_code rpc_code_of(unsigned status)
{
    switch (status) {
    case 400:
        return (struct rpc_code){ 13, "internal" };
    case 401:
    case 495:
        return (struct rpc_code){ 16, "unauthenticated" };
    case 403:
    case 450:
        return (struct rpc_code){ 7, "permission_denied" };
    case 404:
        return (struct rpc_code){ 12, "unimplemented" };
    case 429:
    case 502:
    case 503:
    case 504:
        return (struct rpc_code){ 14, "unavailable" };
    default:
        return (struct rpc_code){ 2, "unknown" };
    }
}

static void add_frame(struct buf *body, unsigned flags, struct sv payload)
{
    const unsigned char head[FRAME_HEAD] = {
        (unsigned char)flags,
        (unsigned char)(payload.n >> 24U),
        (unsigned char)(payload.n >> 16U),
        (unsigned char)(payload.n >> 8U),
        (unsigned char)payload.n,
    };

    buf_add(body, head, sizeof(head));
    if (payload.p != NULL) {
        buf_add_sv(body, payload);
    }
}

/* Trailers-Only (PROTOCOL-HTTP2): the status stands in the head. gRPC-Web clients look for it there,
 * too, or in a frame of trailers. */
static void grpc(const struct proxy_refusal *r, struct arena *arena, struct buf *body,
                 struct proxy_fields *fields)
{
    CLEANUP(buf_deinit) struct buf text = { 0 };
    CLEANUP(buf_deinit) struct buf frame = { 0 };
    unsigned number = rpc_code_of(r->status).number;
    struct sv message = { 0 };

    buf_init(&text, TEXT_MAX);
    buf_init(&frame, TEXT_MAX);
    buf_add_urlenc(&text, r->code);
    message = arena_sv(arena, buf_sv(&text));
    buf_reset(&text);
    buf_add_u64(&text, number);
    proxy_fields_add(fields, SV("grpc-status"), arena_sv(arena, buf_sv(&text)));
    proxy_fields_add(fields, SV("grpc-message"), message);
    if (r->media == HTTP_MEDIA_GRPC) {
        return;
    }
    buf_reset(&text);
    buf_printf(&text, "grpc-status:%u\r\ngrpc-message:", number);
    buf_add_sv(&text, message);
    buf_add_str(&text, "\r\n");
    if (r->media == HTTP_MEDIA_GRPC_WEB) {
        add_frame(body, FRAME_TRAILERS, buf_sv(&text));
        return;
    }
    add_frame(&frame, FRAME_TRAILERS, buf_sv(&text));
    b64_std_add(body, buf_sv(&frame));
}

static void connect_error(const struct proxy_refusal *r, struct buf *out)
{
    const struct http_problem problem = problem_of(r);
    CLEANUP(buf_deinit) struct buf text = { 0 };

    buf_init(&text, TEXT_MAX);
    http_problem_sentence(&problem, &text);
    buf_printf(out, "{\"code\":\"%s\",\"message\":", rpc_code_of(r->status).name);
    buf_add_json(out, buf_sv(&text));
    buf_add_str(out, "}");
}

static void connect_stream(const struct proxy_refusal *r, struct buf *body)
{
    CLEANUP(buf_deinit) struct buf text = { 0 };

    buf_init(&text, TEXT_MAX);
    buf_add_str(&text, "{\"error\":");
    connect_error(r, &text);
    buf_add_str(&text, "}");
    add_frame(body, FRAME_END_STREAM, buf_sv(&text));
}

/* ---- all ------------------------------------------------------------------------------------- */

struct proxy_refusal_form proxy_refusal_write(const struct proxy_refusal *refusal,
                                              struct arena *arena, struct buf *body,
                                              struct proxy_fields *fields)
{
    const struct proxy_refusal *r = refusal;
    const struct http_problem problem = problem_of(r);
    struct proxy_refusal_form form = { .status = r->status, .type = SV("application/json") };

    proxy_fields_add(fields, SV("x-pomerium-intercepted-response"), SV("true"));
    if (r->media != HTTP_MEDIA_HTML) { /* pages say it themselves */
        proxy_fields_add(fields, SV("Cache-Control"), SV("no-store"));
    }
    switch (r->media) {
    case HTTP_MEDIA_JSON:
        http_problem_json(&problem, body);
        break;
    case HTTP_MEDIA_TEXT:
        form.type = SV("text/plain; charset=utf-8");
        http_problem_sentence(&problem, body);
        buf_add_char(body, '\n');
        break;
    case HTTP_MEDIA_MCP:
        http_problem_mcp(&problem, body);
        break;
    case HTTP_MEDIA_HTML:
        form.type = HTTP_PAGE_TYPE;
        page(r, arena, body, fields);
        break;
    case HTTP_MEDIA_KUBERNETES:
        http_problem_kubernetes(&problem, body);
        break;
    case HTTP_MEDIA_GRPC:
        form = (struct proxy_refusal_form){ 200, SV("application/grpc") };
        grpc(r, arena, body, fields);
        break;
    case HTTP_MEDIA_GRPC_WEB:
        form = (struct proxy_refusal_form){ 200, SV("application/grpc-web+proto") };
        grpc(r, arena, body, fields);
        break;
    case HTTP_MEDIA_GRPC_WEB_TEXT:
        form = (struct proxy_refusal_form){ 200, SV("application/grpc-web-text+proto") };
        grpc(r, arena, body, fields);
        break;
    case HTTP_MEDIA_CONNECT:
        connect_error(r, body);
        break;
    case HTTP_MEDIA_CONNECT_STREAM_JSON:
        form = (struct proxy_refusal_form){ 200, SV("application/connect+json") };
        connect_stream(r, body);
        break;
    case HTTP_MEDIA_CONNECT_STREAM:
        form = (struct proxy_refusal_form){ 200, SV("application/connect+proto") };
        connect_stream(r, body);
        break;
    }
    return form;
}
