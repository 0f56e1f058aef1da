/* A check as a foreign proxy asks for it, and the answer to it: whatever the bytes say, what was refused is
 * answered with a denial, and every answer is a message that can be read. */
#include <string.h>

#include "authorize/foreign.h"
#include "common/mem.h"
#include "common/rpc/scan.h"
#include "test/fuzz/http_must.h"

static const char config_text[] =
    "insecure_server: true\n"
    "shared_secret: AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=\n"
    "authenticate_service_url: https://login.a.b\n"
    "idp_provider: local\nidp_local_users_file: /dev/null\n"
    "routes:\n"
    "  - {from: https://a.b, to: http://c, prefix: /open, allow_public_unauthenticated_access: true}\n"
    "  - {from: https://a.b, to: http://c, allow_any_authenticated_user: true}\n"
    "  - {from: 'https://*.c', to: http://c, allow_any_authenticated_user: true}\n";

static struct authz_front *front_once(void)
{
    static struct authz_front *front;
    const struct config_opts opts = { .file = "fuzz.yaml", .part = CONFIG_PART_AUTHORIZE };
    struct config *config = NULL;
    struct config_errors *errors = NULL;

    if (front == NULL) {
        must(config_parse(sv_from(config_text), &opts, &config, &errors) == ERR_OK);
        front = authz_front_new(config);
    }
    return front;
}

static void check_answer(struct authz_foreign *f, enum authz_decision decision)
{
    const struct authz_outcome outcome = { .decision = decision };
    ProtobufCMessage *m = NULL;
    const Envoy__Service__Auth__V3__CheckResponse *r = NULL;
    struct buf out;

    buf_init(&out, 1 << 24);
    authz_foreign_answer(f, &outcome, &out);
    must(rpc_unpack(&envoy__service__auth__v3__check_response__descriptor, buf_sv(&out), NULL,
                    &m) == ERR_OK);
    r = (const void *)m;
    must((r->status->code == 0) == (decision == AUTHZ_ALLOW));
    must((r->http_response_case ==
          ENVOY__SERVICE__AUTH__V3__CHECK_RESPONSE__HTTP_RESPONSE_OK_RESPONSE) ==
         (decision == AUTHZ_ALLOW));
    if (decision != AUTHZ_ALLOW) {
        must(r->denied_response->status->code >= 300);
    }
    protobuf_c_message_free_unpacked(m, NULL);
    buf_deinit(&out);
}

/* NOLINTNEXTLINE(readability-identifier-naming): libFuzzer names it */
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* NOLINTNEXTLINE(readability-identifier-naming): libFuzzer names it */
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    ProtobufCMessage *m = NULL;
    struct authz_foreign *f = NULL;

    if (rpc_unpack(&envoy__service__auth__v3__check_request__descriptor, sv_of(data, size), NULL,
                   &m) != ERR_OK) {
        return 0;
    }
    if (authz_foreign_new(front_once(), (const void *)m, &f) == ERR_OK) {
        must(f->status != 0 || (f->check.route != 0 && f->req.path.p[0] == '/'));
        must(sv_search(f->req.path, SV("/../")) == SIZE_MAX);
        for (enum authz_decision d = AUTHZ_DENY; d <= AUTHZ_UNAVAILABLE; d++) {
            if (f->status == 0 || d != AUTHZ_ALLOW) {
                check_answer(f, d);
            }
        }
    }
    authz_foreign_unref(&f);
    protobuf_c_message_free_unpacked(m, NULL);
    return 0;
}
