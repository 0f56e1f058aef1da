/* config_source: external data that the databroker fetches, part of struct config; the rules of
 * config.h hold. */
#pragma once

#include "common/base.h"
#include "common/secret.h"
#include "common/sv.h"

enum config_data_format { CONFIG_DATA_AUTO = 0, CONFIG_DATA_JSON, CONFIG_DATA_CSV };

/* One of external_data: where the rows of a type come from (common/data/). */
struct config_source {
    struct sv type;
    struct sv url;      /* https, or http to this machine; of this and the next one is set */
    struct sv file;     /* absolute */
    int key;            /* an enum data_key of common/data/form.h: whom a row belongs to */
    struct sv id_field; /* not set: as the key is called */
    enum config_data_format format;
    struct secret *headers; /* "Name=value,…"; NULL: none, or another part */
    struct sv ca_file;      /* not set: the system's */
    struct sv client_cert_file;
    struct sv client_key_file;
    bool allow_insecure_tls;
    bool allow_empty; /* an answer without rows ends those in force */
    int64_t min_delay_ms;
    int64_t max_delay_ms;
    int64_t timeout_ms;
};

/* Whether two are the same in everything. */
bool config_source_same(const struct config_source *a, const struct config_source *b);
