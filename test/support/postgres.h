/* postgres: a PostgreSQL server of the test's own, in a new folder, reached by a unix socket there; as
 * root it runs as the user postgres. It ends with the test program, whatever becomes of that. Every
 * function fails the test where something goes wrong. */
#pragma once

#include <sys/types.h>

struct postgres {
    char folder[64];
    char target[128]; /* the connection string of an ordinary role that owns its database */
    pid_t pid;        /* 0: not running */
};

void postgres_start(struct postgres *pg);
void postgres_stop(struct postgres *pg); /* and removes the folder */
void postgres_signal(struct postgres *pg, int signal);
void postgres_wait(struct postgres *pg);    /* after a signal that ends it */
void postgres_restart(struct postgres *pg); /* it does not run */
/* As the superuser, in our database. */
void postgres_sql(struct postgres *pg, const char *text);
