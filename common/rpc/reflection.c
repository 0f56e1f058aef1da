#include "common/rpc/reflection.h"

#include <string.h>

#include "reflection.pb-c.h"

#include "common/list.h"
#include "common/mem.h"
#include "common/rpc/descriptors.h"
#include "common/rpc/health.h"
#include "common/rpc/scan.h"
#include "common/rpc/services.h"
#include "common/rpc/wire.h"

enum { FILES_MAX = 64, SERVICES_MAX = 16 };

/* ---- the files: numbers of google/protobuf/descriptor.proto ----------------------------------- */

enum { SET_FILE = 1, ANY_NAME = 1, FILE_PACKAGE = 2, FILE_DEPENDENCY = 3 };

struct files {
    struct sv v[FILES_MAX]; /* FileDescriptorProto each */
    size_t n;
};

static void files_init(struct files *files)
{
    struct rpc_wire w = rpc_wire_of(sv_of(rpc_descriptors, rpc_descriptors_size));
    struct rpc_wire_field f;

    files->n = 0;
    while (rpc_wire_next(&w, &f)) {
        CHECK(f.number == SET_FILE && files->n < FILES_MAX);
        files->v[files->n++] = rpc_wire_bytes(&w, &f);
    }
    CHECK(w.err == ERR_OK);
}

/* The first text of that number; "": there is none. */
static struct sv text_in(struct sv message, uint32_t number)
{
    struct rpc_wire w = rpc_wire_of(message);
    struct rpc_wire_field f;

    while (rpc_wire_next(&w, &f)) {
        if (f.number == number) {
            return rpc_wire_bytes(&w, &f);
        }
    }
    return SV("");
}

/* Where in a message those are that have a name, and what can be named inside of them. */
struct kind {
    uint32_t number; /* 0: the end */
    const struct kind *inside;
};

static const struct kind nothing[] = { { 0, NULL } };
static const struct kind of_service[] = { { 2, nothing }, { 0, NULL } };
static const struct kind of_message[3];
static const struct kind of_message[3] = { { 3, of_message }, { 4, nothing }, { 0, NULL } };
static const struct kind of_file[] = { { 4, of_message },
                                       { 5, nothing },
                                       { 6, of_service },
                                       { 0, NULL } };

/* path: "Service.Method", "Message.Inner"; every step uses up one of its names. */
static bool holds(struct sv message, const struct kind *kinds, struct sv path)
{
    struct rpc_wire w = rpc_wire_of(message);
    struct rpc_wire_field f;
    struct sv name = sv_cut(&path, '.');

    while (rpc_wire_next(&w, &f)) {
        const struct kind *k = kinds;

        while (k->number != 0 && k->number != f.number) {
            k++;
        }
        if (k->number != 0 && sv_eq(name, text_in(f.bytes, ANY_NAME)) &&
            (path.n == 0 || holds(f.bytes, k->inside, path))) {
            return true;
        }
    }
    return false;
}

/* SIZE_MAX: none. */
static size_t file_named(const struct files *files, struct sv name)
{
    for (size_t i = 0; i < files->n; i++) {
        if (sv_eq(name, text_in(files->v[i], ANY_NAME))) {
            return i;
        }
    }
    return SIZE_MAX;
}

static size_t file_with(const struct files *files, struct sv symbol)
{
    for (size_t i = 0; i < files->n; i++) {
        struct sv package = text_in(files->v[i], FILE_PACKAGE);
        struct sv rest = symbol;

        if (package.n != 0) {
            if (!sv_starts(symbol, package) || symbol.n <= package.n + 1 ||
                symbol.p[package.n] != '.') {
                continue;
            }
            rest = sv_from_at(symbol, package.n + 1);
        }
        if (holds(files->v[i], of_file, rest)) {
            return i;
        }
    }
    return SIZE_MAX;
}

/* The file and all that it needs, which stand in front of it. */
static size_t closure(const struct files *files, size_t at, ProtobufCBinaryData out[FILES_MAX])
{
    bool wanted[FILES_MAX] = { [0] = false };
    size_t n = 0;

    wanted[at] = true;
    for (size_t i = at + 1; i-- > 0;) {
        struct rpc_wire w = rpc_wire_of(files->v[i]);
        struct rpc_wire_field f;

        if (!wanted[i]) {
            continue;
        }
        out[n++] =
            (ProtobufCBinaryData){ .len = files->v[i].n, .data = base_unconst(files->v[i].p) };
        while (rpc_wire_next(&w, &f)) {
            size_t needed =
                f.number == FILE_DEPENDENCY ? file_named(files, rpc_wire_bytes(&w, &f)) : SIZE_MAX;

            if (needed < i) {
                wanted[needed] = true;
            }
        }
    }
    return n;
}

/* ---- one answer ------------------------------------------------------------------------------- */

struct reflector {
    const struct rpc_reflection *of;
    struct rpc_call *call;
    struct list waiting; /* requests that came while an answer was on its way */
    size_t n_waiting;
    bool client_done;
};

struct waiting {
    struct list in_reflector;
    size_t n;
    char bytes[];
};

static void send_answer(struct reflector *r,
                        const Grpc__Reflection__V1__ServerReflectionRequest *request,
                        Grpc__Reflection__V1__ServerReflectionResponse *response)
{
    size_t n = 0;
    uint8_t *bytes = NULL;

    response->valid_host = request->host;
    response->original_request = base_unconst(request);
    n = protobuf_c_message_get_packed_size(&response->base);
    bytes = mem_alloc(n + 1);
    (void)protobuf_c_message_pack(&response->base, bytes);
    rpc_call_send(r->call, sv_of(bytes, n));
    mem_free(&bytes);
}

static void send_error(struct reflector *r,
                       const Grpc__Reflection__V1__ServerReflectionRequest *request,
                       enum rpc_status status, const char *text)
{
    Grpc__Reflection__V1__ServerReflectionResponse response =
        GRPC__REFLECTION__V1__SERVER_REFLECTION_RESPONSE__INIT;
    Grpc__Reflection__V1__ErrorResponse error = GRPC__REFLECTION__V1__ERROR_RESPONSE__INIT;

    error.error_code = (int32_t)status;
    error.error_message = base_unconst(text);
    response.message_response_case =
        GRPC__REFLECTION__V1__SERVER_REFLECTION_RESPONSE__MESSAGE_RESPONSE_ERROR_RESPONSE;
    response.error_response = &error;
    send_answer(r, request, &response);
}

static void send_file(struct reflector *r,
                      const Grpc__Reflection__V1__ServerReflectionRequest *request,
                      const struct files *files, size_t at)
{
    Grpc__Reflection__V1__ServerReflectionResponse response =
        GRPC__REFLECTION__V1__SERVER_REFLECTION_RESPONSE__INIT;
    Grpc__Reflection__V1__FileDescriptorResponse found =
        GRPC__REFLECTION__V1__FILE_DESCRIPTOR_RESPONSE__INIT;
    ProtobufCBinaryData out[FILES_MAX];

    if (at == SIZE_MAX) {
        send_error(r, request, RPC_NOT_FOUND, "there is nothing of that name here");
        return;
    }
    found.n_file_descriptor_proto = closure(files, at, out);
    found.file_descriptor_proto = out;
    response.message_response_case =
        GRPC__REFLECTION__V1__SERVER_REFLECTION_RESPONSE__MESSAGE_RESPONSE_FILE_DESCRIPTOR_RESPONSE;
    response.file_descriptor_response = &found;
    send_answer(r, request, &response);
}

struct names {
    char *v[SERVICES_MAX];
    size_t n;
};

static void names_add(struct names *names, const struct rpc_method *methods, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        struct sv name = rpc_services_of(&methods[i]);

        CHECK(names->n < SERVICES_MAX);
        if (!rpc_services_has(methods, i, name)) {
            names->v[names->n++] = mem_svdup(name);
        }
    }
}

static void send_services(struct reflector *r,
                          const Grpc__Reflection__V1__ServerReflectionRequest *request)
{
    Grpc__Reflection__V1__ServerReflectionResponse response =
        GRPC__REFLECTION__V1__SERVER_REFLECTION_RESPONSE__INIT;
    Grpc__Reflection__V1__ListServiceResponse list =
        GRPC__REFLECTION__V1__LIST_SERVICE_RESPONSE__INIT;
    Grpc__Reflection__V1__ServiceResponse one[SERVICES_MAX];
    Grpc__Reflection__V1__ServiceResponse *all[SERVICES_MAX];
    struct names names = { .n = 0 };

    names_add(&names, r->of->methods, r->of->n_methods);
    names_add(&names, rpc_health_methods, RPC_HEALTH_METHODS);
    names_add(&names, rpc_reflection_methods, 1); /* the older name has no file of its own */
    for (size_t i = 0; i < names.n; i++) {
        one[i] =
            (Grpc__Reflection__V1__ServiceResponse)GRPC__REFLECTION__V1__SERVICE_RESPONSE__INIT;
        one[i].name = names.v[i];
        all[i] = &one[i];
    }
    list.n_service = names.n;
    list.service = all;
    response.message_response_case =
        GRPC__REFLECTION__V1__SERVER_REFLECTION_RESPONSE__MESSAGE_RESPONSE_LIST_SERVICES_RESPONSE;
    response.list_services_response = &list;
    send_answer(r, request, &response);
    for (size_t i = 0; i < names.n; i++) {
        mem_free(&names.v[i]);
    }
}

static void answer(struct reflector *r, const Grpc__Reflection__V1__ServerReflectionRequest *q)
{
    struct files files;

    files_init(&files);
    switch (q->message_request_case) {
    case GRPC__REFLECTION__V1__SERVER_REFLECTION_REQUEST__MESSAGE_REQUEST_LIST_SERVICES:
        send_services(r, q);
        return;
    case GRPC__REFLECTION__V1__SERVER_REFLECTION_REQUEST__MESSAGE_REQUEST_FILE_BY_FILENAME:
        send_file(r, q, &files, file_named(&files, sv_from(q->file_by_filename)));
        return;
    case GRPC__REFLECTION__V1__SERVER_REFLECTION_REQUEST__MESSAGE_REQUEST_FILE_CONTAINING_SYMBOL:
        send_file(r, q, &files, file_with(&files, sv_from(q->file_containing_symbol)));
        return;
    case GRPC__REFLECTION__V1__SERVER_REFLECTION_REQUEST__MESSAGE_REQUEST_FILE_CONTAINING_EXTENSION:
    case GRPC__REFLECTION__V1__SERVER_REFLECTION_REQUEST__MESSAGE_REQUEST_ALL_EXTENSION_NUMBERS_OF_TYPE:
        send_error(r, q, RPC_NOT_FOUND, "no message here has extensions");
        return;
    case GRPC__REFLECTION__V1__SERVER_REFLECTION_REQUEST__MESSAGE_REQUEST__NOT_SET:
    default:
        send_error(r, q, RPC_INVALID_ARGUMENT, "the request asks for nothing that is known");
        return;
    }
}

/* ---- the stream ------------------------------------------------------------------------------- */

static void take(struct reflector *r, struct sv bytes)
{
    ProtobufCMessage *m = NULL;

    if (rpc_unpack(&grpc__reflection__v1__server_reflection_request__descriptor, bytes, NULL, &m) !=
        ERR_OK) {
        rpc_call_finish(r->call, RPC_INVALID_ARGUMENT, "the request is no message of its type");
        return;
    }
    answer(r, (const void *)m);
    protobuf_c_message_free_unpacked(m, NULL);
}

static void go_on(struct reflector *r)
{
    while (r->n_waiting != 0 && rpc_call_can_send(r->call)) {
        struct waiting *w = LIST_ENTRY(r->waiting.next, struct waiting, in_reflector);

        list_remove(&w->in_reflector);
        r->n_waiting--;
        take(r, sv_of(w->bytes, w->n));
        mem_free(&w);
    }
    if (r->client_done && r->n_waiting == 0) {
        rpc_call_finish(r->call, RPC_OK, NULL); /* behind the last answer */
    }
}

static void on_message(void *arg, struct sv bytes)
{
    struct reflector *r = arg;
    struct waiting *w = NULL;

    if (bytes.n > RPC_REFLECTION_REQUEST_MAX || r->n_waiting == RPC_REFLECTION_QUEUE_MAX) {
        rpc_call_finish(r->call, RPC_RESOURCE_EXHAUSTED,
                        "the request is too large, or one of too many");
        return;
    }
    w = mem_alloc(sizeof(*w) + bytes.n);
    w->n = bytes.n;
    if (bytes.n != 0) {
        memcpy(w->bytes, bytes.p, bytes.n);
    }
    list_push_back(&r->waiting, &w->in_reflector);
    r->n_waiting++;
    go_on(r);
}

static void on_writable(void *arg)
{
    go_on(arg);
}

static void on_client_done(void *arg)
{
    struct reflector *r = arg;

    r->client_done = true;
    go_on(r);
}

static void on_closed(void *arg)
{
    struct reflector *r = arg;
    struct list *it = NULL;
    struct list *tmp = NULL;

    LIST_FOREACH_SAFE(it, tmp, &r->waiting) {
        struct waiting *w = LIST_ENTRY(it, struct waiting, in_reflector);

        mem_free(&w);
    }
    mem_free(&r);
}

static void reflect(struct rpc_call *call, const ProtobufCMessage *request, void *arg)
{
    static const struct rpc_stream_ops ops = { .on_message = on_message,
                                               .on_writable = on_writable,
                                               .on_client_done = on_client_done,
                                               .on_closed = on_closed };
    struct reflector *r = MEM_NEW(struct reflector);

    (void)request;
    r->of = arg;
    r->call = call;
    list_init(&r->waiting);
    rpc_call_stream(call, &ops, r);
}

const struct rpc_method rpc_reflection_methods[RPC_REFLECTION_METHODS] = {
    { .path = "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo",
      .roles = RPC_ANY_ROLE,
      .client_streams = true,
      .request = &grpc__reflection__v1__server_reflection_request__descriptor,
      .handler = reflect },
    { .path = "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo",
      .roles = RPC_ANY_ROLE,
      .client_streams = true,
      .request = &grpc__reflection__v1__server_reflection_request__descriptor,
      .handler = reflect },
};
