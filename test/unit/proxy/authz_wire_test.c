/* authz_wire: what we write, protobuf-c reads; what protobuf-c writes, we read; and nothing cut off or
 * mistyped is taken. */
#include "proxy/authz_wire.h"

#include <string.h>

#include "common/arena.h"
#include "common/rpc/scan.h"
#include "test/support/cmocka.h"

static ProtobufCBinaryData bytes_of(struct sv s)
{
    return (ProtobufCBinaryData){ .len = s.n, .data = base_unconst(s.p) };
}

static void assert_bytes(struct sv want, const ProtobufCBinaryData *got)
{
    assert_true(sv_eq(want, sv_of(got->data, got->len)));
}

static void a_check_arrives_as_it_was_asked(void **state)
{
    char session[] = "session";
    char idp[] = "idp";
    Postern__CheckRequest check = POSTERN__CHECK_REQUEST__INIT;
    Postern__ClientCertificate certificate = POSTERN__CLIENT_CERTIFICATE__INIT;
    Postern__RequestHeader header[] = { POSTERN__REQUEST_HEADER__INIT,
                                        POSTERN__REQUEST_HEADER__INIT };
    Postern__RequestHeader *headers[] = { &header[0], &header[1] };
    ProtobufCMessage *m = NULL;
    const Postern__CheckRequest *got = NULL;
    struct arena arena;
    struct buf out;

    (void)state;
    arena_init(&arena);
    buf_init(&out, 4096);
    check.id = UINT64_MAX;
    check.route = UINT64_C(0x8000000000000001);
    check.request_id = bytes_of(SV("r"));
    check.session = session;
    check.record_version = 300;
    check.idp_id = idp;
    check.method = bytes_of(SV("GET"));
    check.host = bytes_of(SV("h"));
    check.path = bytes_of(SV("/\xff\x00z"));
    check.client_ip = bytes_of(SV("\x7f\x00\x00\x01"));
    check.cors_preflight = 1;
    check.recheck = 1;
    check.internal = 1;
    check.query = bytes_of(SV("q"));
    certificate.trusted = 1;
    certificate.fingerprint = bytes_of(SV("f"));
    check.client_certificate = &certificate;
    certificate.subject = bytes_of(SV("CN=a"));
    header[0].name = bytes_of(SV("x-a"));
    header[0].state = POSTERN__REQUEST_HEADER__STATE__TOLD;
    header[0].value = bytes_of(SV("\xff"));
    header[1].name = bytes_of(SV("x-b"));
    header[1].state = POSTERN__REQUEST_HEADER__STATE__REPEATED;
    check.headers = headers;
    check.n_headers = ARRAY_LEN(headers);
    proxy_authz_wire_check(&out, &check);
    assert_int_equal(protobuf_c_message_get_packed_size(&check.base), out.n);
    assert_int_equal(rpc_unpack(&postern__check_request__descriptor, buf_sv(&out), &arena, &m),
                     ERR_OK);
    got = (const Postern__CheckRequest *)(const void *)m;
    assert_true(got->id == check.id && got->route == check.route && got->record_version == 300);
    assert_string_equal(got->session, session);
    assert_string_equal(got->idp_id, idp);
    assert_bytes(SV("/\xff\x00z"), &got->path);
    assert_bytes(SV("\x7f\x00\x00\x01"), &got->client_ip);
    assert_bytes(SV("q"), &got->query);
    assert_true(got->client_certificate->trusted);
    assert_bytes(SV("f"), &got->client_certificate->fingerprint);
    assert_bytes(SV("CN=a"), &got->client_certificate->subject);
    assert_int_equal(got->n_headers, 2);
    assert_bytes(SV("x-a"), &got->headers[0]->name);
    assert_bytes(SV("\xff"), &got->headers[0]->value);
    assert_int_equal(got->headers[1]->state, POSTERN__REQUEST_HEADER__STATE__REPEATED);
    assert_true(got->cors_preflight && got->recheck && got->internal);
    assert_int_equal(got->base.n_unknown_fields, 0);
    buf_deinit(&out);
    arena_deinit(&arena);
}

static size_t pack_reply(uint8_t *room)
{
    char user[] = "ann";
    char email[] = "ann@example.com";
    uint32_t reasons[] = { 3, 59 };
    Postern__Reply reply = POSTERN__REPLY__INIT;

    reply.id = 77;
    reply.decision = POSTERN__DECISION__ALLOW;
    reply.status = 450;
    reply.n_reasons = 2;
    reply.reasons = reasons;
    reply.block = 9;
    reply.valid_until_s = 1800000000;
    reply.user = user;
    reply.email = email;
    return protobuf_c_message_pack(&reply.base, room);
}

static void a_reply_is_read_whole_or_not_at_all(void **state)
{
    uint8_t room[256];
    size_t n = pack_reply(room);
    struct proxy_authz_reply got;

    (void)state;
    assert_int_equal(proxy_authz_wire_reply(sv_of(room, n), &got), ERR_OK);
    assert_int_equal(got.id, 77);
    assert_int_equal(got.decision, POSTERN__DECISION__ALLOW);
    assert_int_equal(got.status, 450);
    assert_int_equal(got.n_reasons, 2);
    assert_int_equal(got.reasons[1], 59);
    assert_int_equal(got.block, 9);
    assert_int_equal(got.valid_until_s, 1800000000);
    assert_true(sv_eq(got.user, SV("ann")) && sv_eq(got.email, SV("ann@example.com")));
    for (size_t cut = 0; cut < n; cut++) { /* between two fields it is a shorter reply */
        if (proxy_authz_wire_reply(sv_of(room, cut), &got) == ERR_OK) {
            ProtobufCMessage *m = NULL;

            assert_int_equal(rpc_unpack(&postern__reply__descriptor, sv_of(room, cut), NULL, &m),
                             ERR_OK);
            protobuf_c_message_free_unpacked(m, NULL);
        }
    }
}

static void a_broken_reply_is_refused(void **state)
{
    static const struct sv rows[] = {
        { "\x08", 1 },                                              /* no value */
        { "\x0a\x01x", 3 },                                         /* id as text */
        { "\x09xxxxxxxx", 9 },                                      /* id as fixed64 */
        { "\x38\x01", 2 },                                          /* user as a number */
        { "\x3a\x02x", 3 },                                         /* user is cut off */
        { "\x3a\x01\x00", 3 },                                      /* NUL in text */
        { "\x3a\x01\xff", 3 },                                      /* no UTF-8 */
        { "\x22\x01\x80", 3 },                                      /* a packed number is cut off */
        { "\x25xxxx", 5 },                                          /* reasons as fixed32 */
        { "\x0b", 1 },                                              /* a group */
        { "\x00\x01", 2 },                                          /* field 0 */
        { "\x08\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01", 12 }, /* 11 bytes of varint */
        { "\x08\xff\xff\xff\xff\xff\xff\xff\xff\xff\x02", 11 },     /* 65 bits */
        { "\x3a\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01", 11 },     /* longer than all memory */
    };
    struct proxy_authz_reply got;

    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
        if (proxy_authz_wire_reply(rows[i], &got) != ERR_INVALID) {
            fail_msg("row %zu was taken", i);
        }
    }
}

/* Long texts are looked at eight bytes at a time. */
static void a_text_is_refused_wherever_it_is_none(void **state)
{
    struct proxy_authz_reply got;

    (void)state;
    for (size_t n = 1; n < 40; n++) {
        for (size_t at = 0; at < n; at++) {
            char bytes[42] = { 0x3a, (char)n };

            memset(bytes + 2, '~', n);
            bytes[2 + at] = '\0';
            assert_int_equal(proxy_authz_wire_reply(sv_of(bytes, 2 + n), &got), ERR_INVALID);
            bytes[2 + at] = (char)0x80;
            assert_int_equal(proxy_authz_wire_reply(sv_of(bytes, 2 + n), &got), ERR_INVALID);
            bytes[2 + at] = '\x01';
            assert_int_equal(proxy_authz_wire_reply(sv_of(bytes, 2 + n), &got), ERR_OK);
            if (at > 0) {
                memcpy(bytes + 1 + at, "\xc3\xa4", 2);
                assert_int_equal(proxy_authz_wire_reply(sv_of(bytes, 2 + n), &got), ERR_OK);
                assert_true(sv_eq(got.user, sv_of(bytes + 2, n)));
            }
        }
    }
}

static void more_reasons_than_there_are_is_no_reply(void **state)
{
    char packed[2 + PROXY_AUTHZ_REASONS_MAX + 1] = { 0x22, PROXY_AUTHZ_REASONS_MAX };
    struct proxy_authz_reply got;

    (void)state;
    assert_int_equal(proxy_authz_wire_reply(sv_of(packed, 2 + PROXY_AUTHZ_REASONS_MAX), &got),
                     ERR_OK);
    assert_int_equal(got.n_reasons, PROXY_AUTHZ_REASONS_MAX);
    packed[1]++;
    assert_int_equal(proxy_authz_wire_reply(sv_of(packed, sizeof(packed)), &got), ERR_INVALID);
}

static void every_field_of_the_messages_is_known_here(void **state)
{
    (void)state;
    /* A new one wants its line in proxy/authz_wire.c, and authorize/question.c or reply.c. */
    assert_int_equal(postern__check_request__descriptor.n_fields, 16);
    assert_int_equal(postern__reply__descriptor.n_fields, 8);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_check_arrives_as_it_was_asked),
        cmocka_unit_test(a_reply_is_read_whole_or_not_at_all),
        cmocka_unit_test(every_field_of_the_messages_is_known_here),
        cmocka_unit_test(a_broken_reply_is_refused),
        cmocka_unit_test(a_text_is_refused_wherever_it_is_none),
        cmocka_unit_test(more_reasons_than_there_are_is_no_reply),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
