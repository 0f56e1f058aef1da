#include "authenticate/flow.h"

#include <string.h>

#include <jansson.h>

#include "common/mem.h"
#include "common/secret.h"

static struct sv use_label(enum authn_flow_use use)
{
    switch (use) {
    case AUTHN_FLOW_PROVIDER:
        return SV("provider");
    case AUTHN_FLOW_FORM:
        return SV("form");
    case AUTHN_FLOW_SIGN_OUT:
        return SV("sign-out");
    case AUTHN_FLOW_PROGRAM:
        return SV("program");
    case AUTHN_FLOW_NONE:
        break;
    }
    return SV("none");
}

/* Takes the object. */
static enum err seal_object(struct sealer *sealer, struct sv aad, json_t *object, struct buf *out)
{
    char *text = object == NULL ? NULL : json_dumps(object, JSON_COMPACT);
    enum err err = ERR_INVALID; /* a text that is not UTF-8 makes no JSON */

    if (text != NULL && strlen(text) > AUTHN_FLOW_BYTES_MAX) {
        err = ERR_LIMIT;
    } else if (text != NULL && strstr(text, "\\u0000") == NULL) { /* opening refuses NUL, too */
        err = seal_make(sealer, sv_from(text), aad, out);
    }
    if (text != NULL) {
        secret_wipe(text, strlen(text));
    }
    mem_release(text); /* jansson's */
    json_decref(object);
    return err;
}

static enum err open_object(struct sealer *sealer, struct sv aad, struct sv text, json_t **out)
{
    CLEANUP(buf_deinit) struct buf plain;
    enum err err = ERR_OK;

    if (text.n > SEAL_MAX) {
        return ERR_CRYPTO;
    }
    buf_init(&plain, SEAL_MAX);
    err = seal_open(sealer, text, aad, &plain);
    if (err == ERR_OK) {
        *out = json_loadb(plain.p, plain.n, JSON_REJECT_DUPLICATES, NULL);
        secret_wipe(plain.p, plain.n);
        err = json_is_object(*out) ? ERR_OK : ERR_CRYPTO;
    }
    return err;
}

static struct sv member(const json_t *object, const char *name, struct arena *arena)
{
    const json_t *text = json_object_get(object, name);

    return arena_sv(arena, sv_of(json_string_value(text), json_string_length(text)));
}

static int64_t number(const json_t *object, const char *name)
{
    return json_integer_value(json_object_get(object, name));
}

/* json_pack's "%" needs a pointer, also for the empty text. */
#define TEXT(s) ((s).p == NULL ? "" : (s).p), (s).n

enum err authn_flow_seal(struct sealer *sealer, enum authn_flow_use use,
                         const struct authn_flow *flow, struct buf *out)
{
    json_t *object =
        json_pack("{s:s%,s:s%,s:s%,s:s%,s:s%,s:s%,s:b,s:I,s:I}", "r", TEXT(flow->redirect_uri), "b",
                  TEXT(flow->binding), "p", TEXT(flow->program), "c", TEXT(flow->browser), "n",
                  TEXT(flow->nonce), "v", TEXT(flow->verifier), "f", (int)flow->fresh, "a",
                  (json_int_t)flow->attempt, "t", (json_int_t)flow->issued_at_s);

    return seal_object(sealer, use_label(use), object, out);
}

enum err authn_flow_open(struct sealer *sealer, enum authn_flow_use use, struct sv text,
                         struct arena *arena, struct authn_flow *flow_out)
{
    json_t *object = NULL;
    enum err err = open_object(sealer, use_label(use), text, &object);

    if (err == ERR_OK) {
        *flow_out = (struct authn_flow){ .redirect_uri = member(object, "r", arena),
                                         .binding = member(object, "b", arena),
                                         .program = member(object, "p", arena),
                                         .browser = member(object, "c", arena),
                                         .nonce = member(object, "n", arena),
                                         .verifier = member(object, "v", arena),
                                         .fresh = json_is_true(json_object_get(object, "f")),
                                         .attempt = (uint64_t)number(object, "a"),
                                         .issued_at_s = number(object, "t") };
    }
    json_decref(object);
    return err;
}

enum err authn_code_seal(struct sealer *sealer, const struct authn_code *code, struct buf *out)
{
    json_t *object = json_pack(
        "{s:s%,s:s%,s:I,s:s%,s:s%,s:s%,s:s%,s:I,s:I}", "j", TEXT(code->id), "s",
        TEXT(code->session), "v", (json_int_t)code->record_version, "i", TEXT(code->idp_id), "r",
        TEXT(code->redirect_uri), "h", TEXT(code->host), "b", TEXT(code->binding), "e",
        (json_int_t)code->expires_at_s, "x", (json_int_t)code->session_expires_at_s);

    return seal_object(sealer, SV("code"), object, out);
}

enum err authn_code_open(struct sealer *sealer, struct sv text, int64_t now_s, struct arena *arena,
                         struct authn_code *code_out)
{
    json_t *object = NULL;
    enum err err = open_object(sealer, SV("code"), text, &object);

    if (err == ERR_OK) {
        *code_out = (struct authn_code){ .id = member(object, "j", arena),
                                         .session = member(object, "s", arena),
                                         .record_version = (uint64_t)number(object, "v"),
                                         .idp_id = member(object, "i", arena),
                                         .redirect_uri = member(object, "r", arena),
                                         .host = member(object, "h", arena),
                                         .binding = member(object, "b", arena),
                                         .expires_at_s = number(object, "e"),
                                         .session_expires_at_s = number(object, "x") };
        err = now_s >= code_out->expires_at_s ? ERR_EXPIRED : ERR_OK;
    }
    json_decref(object);
    return err;
}
