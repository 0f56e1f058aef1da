/* proxy_authz_link: one CheckStream to one authorize: a gRPC stream over HTTP/2, spoken with nghttp2
 * on the worker's own loop; opened again after a fault, 50 ms to 1 s apart. It carries bytes; which
 * check they belong to is its owner's. Owned by one worker.
 *
 *   DOWN --connect--> CONNECTING --> HANDSHAKE --> UP --any fault--> DOWN (again after a pause)
 *                         +------ unix socket ---->+      (no TLS there: rpc/proof.h)
 *
 * Wire: proto/authorize.proto; gRPC framing: 5 bytes in front of a message. */
#pragma once

#include "common/base.h"
#include "common/loop.h"
#include "common/rpc/identity.h"
#include "common/sv.h"
#include "proxy/authz_wire.h"
#include "proxy/dial.h"
#include "proxy/identity.h"

struct proxy_authz_link;

/* Hooks must neither send on a link nor free one: they ask for the next flush. */
struct proxy_authz_link_opts {
    struct loop *loop;
    const struct rpc_identity *identity;
    const struct proxy_sockaddr *address; /* copied */
    void (*on_up)(void *arg, bool up);
    void (*on_reply)(void *arg, const struct proxy_authz_reply *reply);
    /* These sessions, or all, must be checked again. */
    void (*on_changed)(void *arg, const struct sv *sessions, size_t n, bool all);
    /* A message was taken in: what waited for it may go. */
    void (*on_answered)(void *arg);
    void *arg;
};

struct proxy_authz_link *proxy_authz_link_new(const struct proxy_authz_link_opts *opts);
void proxy_authz_link_free(struct proxy_authz_link **link); /* on_up is not called any more */
bool proxy_authz_link_is_up(const struct proxy_authz_link *link);
/* Up, and the last message has left us. */
bool proxy_authz_link_can_send(const struct proxy_authz_link *link);
/* Since when no message has come back though one was sent; 0: all is answered. Monotonic. */
int64_t proxy_authz_link_silent_since_us(const struct proxy_authz_link *link);
/* When it last said anything, be it the answer to a ping: an idle link asks for one every 6 s, and is
 * lost without. */
int64_t proxy_authz_link_heard_ms(const struct proxy_authz_link *link);
/* When the last message left. */
int64_t proxy_authz_link_sent_at_us(const struct proxy_authz_link *link);
/* One message; it can_send. The link may be down afterwards. */
void proxy_authz_link_send(struct proxy_authz_link *link, struct sv message);
/* Reads, if it is up, before an event tells that there is something. The link may be down afterwards. */
void proxy_authz_link_look(struct proxy_authz_link *link);
/* Gives the stream up; it is opened again. */
void proxy_authz_link_drop(struct proxy_authz_link *link, const char *why);
/* Within on_reply: one reference to the identity of that number. NULL: it is not there, which is a
 * fault of the stream. */
struct proxy_identity *proxy_authz_link_identity(struct proxy_authz_link *link, uint64_t number);
void proxy_authz_link_tick(struct proxy_authz_link *link, int64_t now_ms);
