/* Files of a directory: whatever they are, they are people with keys of their own and groups that policies
 * can tell apart, or there are none. LDIF opens no other file. */
#include <string.h>

#include "cli/directory.h"

/* NOLINTNEXTLINE(readability-identifier-naming): libFuzzer names it */
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void check_rows(const struct data_rows *rows, const struct directory_counts *counts)
{
    CHECK(rows->count == counts->people && rows->weight == counts->memberships);
    for (size_t i = 0; i < rows->count; i++) {
        const struct data_row *row = &rows->items[i];

        CHECK(row->key[0] != '\0' && strlen(row->key) <= DATA_KEY_MAX &&
              row->n <= DIRECTORY_ROW_MAX);
        CHECK(i == 0 || strcmp(row[-1].key, row->key) < 0);
    }
}

/* The first byte says as what the rest is read. */
/* NOLINTNEXTLINE(readability-identifier-naming): libFuzzer names it */
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (size == 0) {
        return 0;
    }
    const struct directory_opts opts = { .key =
                                             (data[0] & 4U) != 0 ? DATA_KEY_USER : DATA_KEY_EMAIL,
                                         .by = 1U << (data[0] / 8U % 4U) | data[0] >> 5U };
    struct directory *directory = directory_new(&opts);
    struct data_rows *rows = NULL;
    struct directory_counts counts = { .people = 0 };
    struct diag d = { 0 };
    enum err err = directory_read(directory, "fuzz", (enum directory_format)((data[0] & 3U) % 3),
                                  sv_of(data + 1, size - 1), &d);

    CHECK((err == ERR_OK) == (d.text[0] == '\0'));
    if (err == ERR_OK) {
        err = directory_rows(directory, &rows, &counts, &d);
        CHECK((err == ERR_OK) == (rows != NULL) && (err == ERR_OK) == (d.text[0] == '\0'));
    }
    if (rows != NULL) {
        check_rows(rows, &counts);
    }
    data_rows_free(&rows);
    directory_free(&directory);
    return 0;
}
