/* acme_order: one run of the ACME client (client.py), a program of its own, for one name. Its order,
 * secrets included, travels in an anonymous file that is its standard input; it sees nothing of our
 * environment but how to reach the server, and it holds our lock as long as it lives. One thread. */
#pragma once

#include "common/base.h"
#include "common/config/config.h"
#include "common/diag.h"
#include "common/loop.h"

#include "acme/plan.h"

struct acme_order;

struct acme_outcome {
    enum acme_result result;
    char text[512]; /* why there is no certificate; "" */
};

typedef void (*acme_order_fn)(const struct acme_outcome *outcome, void *arg);

struct acme_order_opts {
    struct loop *loop;
    const char *program;
    const struct config *config; /* borrowed for the call */
    const char *host;
    const char *challenge; /* "http-01", "tls-alpn-01" */
    int lock;
    acme_order_fn done; /* once; the order is the owner's to free, there too */
    void *arg;
};

/* ERR_IO: it cannot be started. */
MUST_CHECK enum err acme_order_new(const struct acme_order_opts *opts,
                                   struct acme_order **order_out, struct diag *d);
/* Asks it to end; done follows. */
void acme_order_stop(struct acme_order *order);
/* Ends the client if it still runs; done is not called any more. */
void acme_order_free(struct acme_order **order);
