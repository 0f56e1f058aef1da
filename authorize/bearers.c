#include "authorize/bearers.h"

#include <string.h>

#include "common/list.h"
#include "common/mem.h"
#include "common/token_ask.h"
#include "common/token_memory.h"

enum { ASKINGS_MAX = 64, WAITING_MAX = 1024, TIMEOUT_MS = 5000 };

/* A token on its way to authenticate and back. */
struct asking {
    struct list in_bearers;
    struct list waiting; /* waiting.in_asking */
    struct authz_bearers *bearers;
    struct rpc_pending *pending;
    struct token_key key;
};

struct waiting {
    struct list in_asking;
    struct rpc_call *call;
    struct authz_foreign *foreign;
};

struct authz_bearers {
    struct authz_bearers_opts opts;
    struct rpc_client *client; /* NULL: no authenticate */
    struct token_memory *memory;
    struct list askings;
    size_t n_askings;
    size_t n_waiting;
    bool stopped;
};

struct authz_bearers *authz_bearers_new(const struct authz_bearers_opts *opts)
{
    struct authz_bearers *b = MEM_NEW(struct authz_bearers);

    b->opts = *opts;
    b->memory = token_memory_new();
    list_init(&b->askings);
    if (opts->authenticate != NULL) {
        b->client =
            rpc_client_new(opts->rpc, &(struct rpc_client_opts){ .target = opts->authenticate,
                                                                 .server = RPC_AUTHENTICATE,
                                                                 .identity = opts->identity });
    }
    return b;
}

void authz_bearers_free(struct authz_bearers **bearers)
{
    if (*bearers != NULL) {
        rpc_client_free(&(*bearers)->client);
        token_memory_free(&(*bearers)->memory);
    }
    mem_free(bearers);
}

static struct sv address_of(const struct authz_foreign *f)
{
    return sv_of(f->check.client_ip.data, f->check.client_ip.len);
}

/* ---- answers ---------------------------------------------------------------------------------- */

static void tell(struct authz_bearers *b, struct rpc_call *call, struct authz_foreign *f,
                 const struct token_answer *answer)
{
    authz_foreign_identified(f, answer);
    b->opts.on_known(b->opts.arg, call, f);
}

static void answered(struct asking *a, const struct token_answer *answer)
{
    struct authz_bearers *b = a->bearers;

    list_remove(&a->in_bearers); /* who comes now finds the answer, or asks anew */
    b->n_askings--;
    while (!list_empty(&a->waiting)) {
        struct waiting *w = LIST_ENTRY(a->waiting.next, struct waiting, in_asking);

        list_remove(&w->in_asking);
        b->n_waiting--;
        if (answer->status == RPC_UNAUTHENTICATED) {
            token_memory_note_miss(b->memory, address_of(w->foreign));
        }
        tell(b, w->call, w->foreign, answer);
        authz_foreign_unref(&w->foreign);
        mem_free(&w);
    }
    mem_free(&a);
}

static void on_asked(void *arg, enum rpc_status status, const char *text,
                     const ProtobufCMessage *response)
{
    struct asking *a = arg;
    const struct token_answer answer = token_answer_read(status, text, response);

    a->pending = NULL;
    if (answer.status == RPC_OK) {
        token_memory_keep(a->bearers->memory, &a->key, &answer.handle, answer.expires_at_s);
    } else if (answer.status == RPC_UNAUTHENTICATED) {
        token_memory_keep_bad(a->bearers->memory, &a->key, answer.code);
    }
    answered(a, &answer);
}

void authz_bearers_stop(struct authz_bearers *b)
{
    const struct token_answer nobody_knows = { .status = RPC_UNAVAILABLE };

    b->stopped = true;
    while (!list_empty(&b->askings)) {
        struct asking *a = LIST_ENTRY(b->askings.next, struct asking, in_bearers);

        rpc_pending_cancel(&a->pending);
        answered(a, &nobody_knows);
    }
}

/* ---- questions -------------------------------------------------------------------------------- */

static struct asking *asking_of(const struct authz_bearers *b, const struct token_key *key)
{
    struct list *it;

    LIST_FOREACH(it, &b->askings) {
        struct asking *a = LIST_ENTRY(it, struct asking, in_bearers);

        if (memcmp(&a->key, key, sizeof(*key)) == 0) {
            return a;
        }
    }
    return NULL;
}

static struct asking *asking_new(struct authz_bearers *b, const struct token_key *key)
{
    struct asking *a = MEM_NEW(struct asking);

    a->bearers = b;
    a->key = *key;
    list_init(&a->waiting);
    list_push_back(&b->askings, &a->in_bearers);
    b->n_askings++;
    return a;
}

static void wait_for(struct asking *a, struct rpc_call *call, struct authz_foreign *f)
{
    struct waiting *w = MEM_NEW(struct waiting);

    w->call = call;
    w->foreign = authz_foreign_ref(f);
    list_push_back(&a->waiting, &w->in_asking);
    a->bearers->n_waiting++;
}

/* What is known without asking. False: nothing. */
static bool recall(struct authz_bearers *b, const struct token_key *key,
                   struct token_answer *answer_out)
{
    const struct token_known *known = token_memory_recall(b->memory, key);

    if (known == NULL) {
        return false;
    }
    *answer_out =
        (struct token_answer){ .status = known->code == NULL ? RPC_OK : RPC_UNAUTHENTICATED,
                               .code = known->code,
                               .handle = known->handle };
    return true;
}

void authz_bearers_ask(struct authz_bearers *b, struct rpc_call *call, struct authz_foreign *f,
                       const struct config_route *route)
{
    const struct token_key key = token_memory_key(b->memory, f->token, route);
    struct token_answer answer = { .status = RPC_UNAVAILABLE };
    struct asking *a = asking_of(b, &key);

    if (recall(b, &key, &answer) || b->client == NULL || b->stopped) {
        tell(b, call, f, &answer);
    } else if (token_memory_misses_too_often(b->memory, address_of(f))) {
        authz_foreign_refuse(f, 429, "too-many-bad-tokens");
        b->opts.on_known(b->opts.arg, call, f);
    } else if (b->n_waiting >= WAITING_MAX || (a == NULL && b->n_askings >= ASKINGS_MAX)) {
        authz_foreign_refuse(f, 503, "too-many-tokens");
        b->opts.on_known(b->opts.arg, call, f);
    } else if (a != NULL) {
        wait_for(a, call, f);
    } else {
        a = asking_new(b, &key);
        wait_for(a, call, f);
        a->pending = token_ask(b->client, f->token, route->id, TIMEOUT_MS, on_asked, a);
    }
}
