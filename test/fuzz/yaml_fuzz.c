#include <stddef.h>
#include <stdint.h>

#include "common/yaml.h"

/* NOLINTNEXTLINE(readability-identifier-naming): libFuzzer names it */
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* Asks for the place of every member and item, as error messages do. */
static size_t walk(const struct yaml_doc *doc, json_t *node, size_t budget)
{
    const char *key = NULL;
    json_t *value = NULL;
    size_t i = 0;

    if (budget == 0) {
        return 0;
    }
    budget--;
    json_object_foreach(node, key, value)
    {
        CHECK(yaml_member_pos(doc, node, key).line > 0);
        budget = walk(doc, value, budget);
    }
    json_array_foreach(node, i, value)
    {
        CHECK(yaml_item_pos(doc, node, i).line > 0);
        budget = walk(doc, value, budget);
    }
    return budget;
}

/* NOLINTNEXTLINE(readability-identifier-naming): libFuzzer names it */
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct yaml_doc *doc = NULL;
    struct diag d = { 0 };
    enum err err = yaml_parse(sv_of(data, size), "fuzz", &doc, &d);

    CHECK((err == ERR_OK) == (doc != NULL));
    CHECK((err == ERR_OK) == (d.text[0] == '\0'));
    if (doc != NULL) {
        (void)walk(doc, yaml_root(doc), 2000);
    }
    yaml_doc_free(&doc);
    return 0;
}
