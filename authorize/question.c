#include "authorize/question.h"

#include "common/authz_block.h"
#include "common/rpc/scan.h"
#include "common/rpc/wire.h"

static ProtobufCBinaryData bytes_of(struct rpc_wire *w, const struct rpc_wire_field *f)
{
    struct sv bytes = rpc_wire_bytes(w, f);

    return (ProtobufCBinaryData){ .len = bytes.n, .data = base_unconst(bytes.p) };
}

static char *text_of(struct rpc_wire *w, const struct rpc_wire_field *f, struct arena *arena)
{
    return arena_str(arena, rpc_wire_text(w, f));
}

/* Few requests have one: it is built. A second one, which protobuf would merge, is refused. */
static void take_certificate(struct rpc_wire *w, const struct rpc_wire_field *f,
                             struct arena *arena, Postern__CheckRequest *req)
{
    struct sv bytes = rpc_wire_bytes(w, f);
    ProtobufCMessage *m = NULL;

    if (req->client_certificate != NULL ||
        rpc_unpack(&postern__client_certificate__descriptor, bytes, arena, &m) != ERR_OK) {
        rpc_wire_refuse(w);
        return;
    }
    req->client_certificate = (Postern__ClientCertificate *)(void *)m;
}

/* Likewise few: only those that a policy asks for. */
static void take_header(struct rpc_wire *w, const struct rpc_wire_field *f, struct arena *arena,
                        Postern__CheckRequest *req)
{
    struct sv bytes = rpc_wire_bytes(w, f);
    ProtobufCMessage *m = NULL;

    if (req->n_headers == AUTHZ_HEADERS_MAX ||
        rpc_unpack(&postern__request_header__descriptor, bytes, arena, &m) != ERR_OK) {
        rpc_wire_refuse(w);
        return;
    }
    if (req->headers == NULL) {
        /* NOLINTNEXTLINE(bugprone-sizeof-expression): an array of pointers */
        req->headers = arena_alloc(arena, AUTHZ_HEADERS_MAX * sizeof(*req->headers));
    }
    req->headers[req->n_headers++] = (Postern__RequestHeader *)(void *)m;
}

/* The numbers are those of proto/authorize.proto. */
static void take_field(struct rpc_wire *w, const struct rpc_wire_field *f, struct arena *arena,
                       Postern__CheckRequest *req)
{
    switch (f->number) {
    case 1:
        req->id = rpc_wire_number(w, f);
        break;
    case 2:
        req->route = rpc_wire_fixed(w, f);
        break;
    case 3:
        req->request_id = bytes_of(w, f);
        break;
    case 4:
        req->session = text_of(w, f, arena);
        break;
    case 5:
        req->record_version = rpc_wire_number(w, f);
        break;
    case 6:
        req->idp_id = text_of(w, f, arena);
        break;
    case 7:
        req->method = bytes_of(w, f);
        break;
    case 8:
        req->host = bytes_of(w, f);
        break;
    case 9:
        req->path = bytes_of(w, f);
        break;
    case 10:
        req->client_ip = bytes_of(w, f);
        break;
    case 11:
        req->cors_preflight = rpc_wire_number(w, f) != 0;
        break;
    case 12:
        req->recheck = rpc_wire_number(w, f) != 0;
        break;
    case 13:
        req->internal = rpc_wire_number(w, f) != 0;
        break;
    case 14:
        req->query = bytes_of(w, f);
        break;
    case 15:
        take_certificate(w, f, arena, req);
        break;
    case 16:
        take_header(w, f, arena, req);
        break;
    default: /* a newer proxy's */
        break;
    }
}

enum err authz_question_read(struct sv bytes, struct arena *arena, Postern__CheckRequest *req_out)
{
    struct rpc_wire w = rpc_wire_of(bytes);
    struct rpc_wire_field f;

    *req_out = (Postern__CheckRequest)POSTERN__CHECK_REQUEST__INIT;
    while (rpc_wire_next(&w, &f)) {
        take_field(&w, &f, arena, req_out);
    }
    return w.err;
}

enum err authz_questions_read(struct rpc_wire *w, struct arena *arena,
                              Postern__CheckRequest *reqs_out, size_t max, size_t *n_out,
                              unsigned *place)
{
    enum { FIELD_CHECKS = 1, FIELD_PLACE = 2 };
    struct rpc_wire_field f;

    for (*n_out = 0; *n_out < max && rpc_wire_next(w, &f);) {
        if (f.number == FIELD_PLACE) {
            *place = (unsigned)rpc_wire_number(w, &f);
        }
        if (f.number != FIELD_CHECKS) {
            continue;
        }
        if (authz_question_read(rpc_wire_bytes(w, &f), arena, &reqs_out[*n_out]) != ERR_OK ||
            w->err != ERR_OK) {
            return ERR_INVALID;
        }
        ++*n_out;
    }
    return w->err;
}
