/* reply: what one CheckStream carries back: who it is stands there once, in the identity block or, where
 * an answer names none, in the answer. */
#include "authorize/reply.h"

#include "common/mem.h"
#include "common/rpc/scan.h"
#include "test/support/cmocka.h"

static struct authz_person ann = { .n_text = { [AUTHZ_PERSON_ID] = 3, [AUTHZ_PERSON_EMAIL] = 15 },
                                   .bytes = "ann\0\0ann@example.com\0\0" };
static struct authz_session session = { .n_id = 1, .id = "s", .person = &ann };
static const struct authz_identity identity = { .serial = 7,
                                                .user = { "ann", 3 },
                                                .email = { "ann@example.com", 15 } };

static Postern__ReplyBatch *sent(struct authz_replies *replies)
{
    ProtobufCMessage *m = NULL;
    struct sv message = authz_replies_next(replies);

    assert_int_equal(rpc_unpack(&postern__reply_batch__descriptor, message, NULL, &m), ERR_OK);
    authz_replies_sent(replies, message.n);
    return (Postern__ReplyBatch *)(void *)m;
}

static void assert_reply(const Postern__ReplyItem *item, uint64_t id, uint64_t block,
                         const char *user, const char *email)
{
    assert_int_equal(item->item_case, POSTERN__REPLY_ITEM__ITEM_REPLY);
    assert_int_equal(item->reply->id, id);
    assert_int_equal(item->reply->block, block);
    assert_string_equal(item->reply->user, user);
    assert_string_equal(item->reply->email, email);
}

static void who_it_is_stands_in_the_block_or_else_in_the_answer(void **state)
{
    struct authz_outcome told = {
        .decision = AUTHZ_ALLOW, .session = &session, .effective = &session, .identity = &identity
    };
    struct authz_outcome plain = told;
    struct authz_replies replies;
    Postern__ReplyBatch *batch = NULL;

    (void)state;
    plain.identity = NULL;
    authz_replies_init(&replies);
    authz_replies_add(&replies, 1, &told);
    authz_replies_add(&replies, 2, &told);
    authz_replies_add(&replies, 3, &plain);
    batch = sent(&replies);
    assert_int_equal(batch->n_items, 4);
    assert_int_equal(batch->items[0]->item_case, POSTERN__REPLY_ITEM__ITEM_BLOCK);
    assert_int_equal(batch->items[0]->block->number, 1);
    assert_string_equal(batch->items[0]->block->user, "ann");
    assert_string_equal(batch->items[0]->block->email, "ann@example.com");
    assert_reply(batch->items[1], 1, 1, "", "");
    assert_reply(batch->items[2], 2, 1, "", "");
    assert_reply(batch->items[3], 3, 0, "ann", "ann@example.com");
    protobuf_c_message_free_unpacked(&batch->base, NULL);
    authz_replies_deinit(&replies);
}

static void an_answer_of_its_own_says_who_it_is(void **state)
{
    const struct authz_outcome told = {
        .decision = AUTHZ_ALLOW, .session = &session, .effective = &session, .identity = &identity
    };
    struct authz_reply_room room;
    Postern__Reply reply;

    (void)state;
    authz_reply_fill(&reply, &room, 1, &told);
    assert_string_equal(reply.user, "ann");
    assert_string_equal(reply.email, "ann@example.com");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(who_it_is_stands_in_the_block_or_else_in_the_answer),
        cmocka_unit_test(an_answer_of_its_own_says_who_it_is),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
