/* broker_pg_sql: the SQL of the PostgreSQL store: its statements and how its tables came to be. Constants.
 * Only store_pg*.c include this. */
#pragma once

#include "databroker/store_pg_conn.h"

struct broker_pg_statement {
    const char *text;
    const char *kinds; /* of its parameters: 't', 'b', 'i' */
};

extern const struct broker_pg_statement broker_pg_statements[BROKER_PG_COUNT];

/* What leads from one schema to the next. */
struct broker_pg_step {
    const char *const *texts;
    size_t count;
};

extern const struct broker_pg_step broker_pg_steps[];
extern const size_t broker_pg_step_count;
