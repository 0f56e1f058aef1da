/* Rows of external data, from a file or another server: whatever they are, they are rows with keys of
 * their own or there are none. */
#include <string.h>

#include "common/data/rows.h"

/* NOLINTNEXTLINE(readability-identifier-naming): libFuzzer names it */
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* The first byte says as what the rest is read. */
/* NOLINTNEXTLINE(readability-identifier-naming): libFuzzer names it */
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (size == 0) {
        return 0;
    }
    const struct data_source source = { .name = "fuzz",
                                        .format = (data[0] & 1U) != 0 ? DATA_CSV : DATA_JSON,
                                        .key = (enum data_key)(1 + data[0] / 2 % 3),
                                        .key_field = (data[0] & 64U) != 0 ? "k" : NULL };
    struct data_rows *rows = NULL;
    struct diag d = { 0 };
    enum err err = data_rows_read(sv_of(data + 1, size - 1), &source, &rows, &d);

    CHECK((err == ERR_OK) == (rows != NULL));
    CHECK((err == ERR_OK) == (d.text[0] == '\0'));
    for (size_t i = 0; rows != NULL && i < rows->count; i++) {
        const struct data_row *row = &rows->items[i];

        CHECK(row->key[0] != '\0' && strlen(row->key) <= DATA_KEY_MAX && row->n <= DATA_ROW_MAX);
        CHECK(i == 0 || strcmp(row[-1].key, row->key) < 0);
    }
    data_rows_free(&rows);
    return 0;
}
