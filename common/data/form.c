#include "common/data/form.h"

#include <string.h>

#include "common/mem.h"

static const char *const names[] = {
    [DATA_KEY_NONE] = "",
    [DATA_KEY_USER] = "user_id",
    [DATA_KEY_EMAIL] = "email",
    [DATA_KEY_SESSION] = "session_id",
};

const char *data_key_name(enum data_key key)
{
    return names[key];
}

enum data_key data_key_parse(struct sv name)
{
    for (size_t i = DATA_KEY_USER; i < ARRAY_LEN(names); i++) {
        if (sv_eq(name, sv_from(names[i]))) {
            return (enum data_key)i;
        }
    }
    return DATA_KEY_NONE;
}

static bool is_name_char(char c)
{
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '.' ||
           c == '_' || c == '-' || c == '/';
}

bool data_type_is_external(struct sv type)
{
    static const char *const taken[] = { "googleapis.com", "pomerium.io", "pomerium.com",
                                         "postern.io" };
    size_t slash = sv_find(type, '/');

    if (type.n > DATA_TYPE_MAX || slash == SIZE_MAX || slash == 0 || slash + 1 == type.n) {
        return false;
    }
    for (size_t i = 0; i < type.n; i++) {
        if (!is_name_char(type.p[i])) {
            return false;
        }
    }
    struct sv domain = sv_head(type, slash);
    bool is_taken = sv_find(domain, '.') == SIZE_MAX;

    for (size_t i = 0; i < ARRAY_LEN(taken); i++) {
        struct sv one = sv_from(taken[i]);

        is_taken = is_taken || sv_ieq(domain, one) ||
                   (domain.n > one.n && domain.p[domain.n - one.n - 1] == '.' &&
                    sv_ieq(sv_from_at(domain, domain.n - one.n), one));
    }
    return !is_taken;
}

bool data_type_is_set(struct sv type)
{
    return sv_eq(type, SV(DATA_DIRECTORY_TYPE)) || data_type_is_external(type);
}

struct sv data_row_id(struct sv generation, enum data_key kind, struct sv key,
                      char room[DATA_ID_MAX])
{
    if (key.n == 0 || key.n > DATA_KEY_MAX || generation.n == 0 ||
        generation.n > DATA_GENERATION_MAX) {
        return (struct sv){ 0 };
    }
    memcpy(room, generation.p, generation.n);
    room[generation.n] = '/';
    for (size_t i = 0; i < key.n; i++) {
        char c = key.p[i];

        room[generation.n + 1 + i] =
            kind == DATA_KEY_EMAIL && c >= 'A' && c <= 'Z' ? (char)(c - 'A' + 'a') : c;
    }
    return sv_of(room, generation.n + 1 + key.n);
}

uint8_t *data_set_pack(const struct data_member *members, size_t n, size_t *size_out)
{
    Google__Protobuf__Struct m = GOOGLE__PROTOBUF__STRUCT__INIT;
    Google__Protobuf__Struct__FieldsEntry entries[DATA_MEMBERS_MAX];
    Google__Protobuf__Value values[DATA_MEMBERS_MAX];
    Google__Protobuf__Struct__FieldsEntry *list[DATA_MEMBERS_MAX];

    CHECK(n <= DATA_MEMBERS_MAX);
    for (size_t i = 0; i < n; i++) {
        entries[i] =
            (Google__Protobuf__Struct__FieldsEntry)GOOGLE__PROTOBUF__STRUCT__FIELDS_ENTRY__INIT;
        values[i] = (Google__Protobuf__Value)GOOGLE__PROTOBUF__VALUE__INIT;
        entries[i].key = base_unconst(members[i].name);
        entries[i].value = &values[i];
        if (members[i].text != NULL) {
            values[i].kind_case = GOOGLE__PROTOBUF__VALUE__KIND_STRING_VALUE;
            values[i].string_value = base_unconst(members[i].text);
        } else {
            values[i].kind_case = GOOGLE__PROTOBUF__VALUE__KIND_NUMBER_VALUE;
            values[i].number_value = (double)members[i].number;
        }
        list[i] = &entries[i];
    }
    m.n_fields = n;
    m.fields = list;
    uint8_t *bytes = mem_alloc(google__protobuf__struct__get_packed_size(&m) + 1);

    *size_out = google__protobuf__struct__pack(&m, bytes);
    return bytes;
}

static const Google__Protobuf__Value *member(const Google__Protobuf__Struct *set, const char *name,
                                             Google__Protobuf__Value__KindCase kind)
{
    for (size_t i = 0; i < set->n_fields; i++) {
        const Google__Protobuf__Value *v = set->fields[i]->value;

        if (strcmp(set->fields[i]->key, name) == 0 && v != NULL && v->kind_case == kind) {
            return v;
        }
    }
    return NULL;
}

const char *data_set_text(const Google__Protobuf__Struct *set, const char *name)
{
    const Google__Protobuf__Value *v =
        member(set, name, GOOGLE__PROTOBUF__VALUE__KIND_STRING_VALUE);

    return v == NULL ? "" : v->string_value;
}

int64_t data_set_number(const Google__Protobuf__Struct *set, const char *name)
{
    const Google__Protobuf__Value *v =
        member(set, name, GOOGLE__PROTOBUF__VALUE__KIND_NUMBER_VALUE);
    bool is_whole = v != NULL && v->number_value >= 0 && v->number_value < 9007199254740992.0;

    return is_whole ? (int64_t)v->number_value : 0;
}
