/* LDIF (RFC 2849) by OpenLDAP's own reader of it, of which three functions are used: one unfolds a line, one
 * takes it apart, and those of DNs. Values by URL (`attr:< file:///…`), which it would open, are refused
 * before it sees them; its record reader, which follows `include:`, is not used. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <ldap.h>
#include <ldif.h>

#include "cli/directory_int.h"
#include "common/buf.h"
#include "common/mem.h"

enum { DN_MAX = 4096, FOLD = '\r' /* what is left of the end of a folded line */ };

/* One file while it is read. */
struct ldif {
    struct directory *dir;
    struct buf work;  /* the text, which ldif_getline cuts up */
    struct sv text;   /* the same, whole: for counting lines */
    const char *name; /* of the file */
    char *next;
    size_t counted; /* of text */
    size_t line;    /* at counted */
};

/* One entry while it is read. */
struct entry {
    struct directory_place place; /* its dn's */
    const char *dn;               /* as it is compared; NULL: there is none yet */
    const char *rdn;              /* the value of its first part */
    const char *id;
    const char *uid;
    const char *mail;
    const char *name;
    const char *cn;
    bool is_person;
    bool is_group;
    bool is_machine;
    size_t links; /* the number of links when it began */
};

/* --- lines ---------------------------------------------------------------------------------------- */

static struct directory_place place_of(struct ldif *ldif, const char *line)
{
    size_t at = (size_t)(line - ldif->work.p);

    for (; ldif->counted < at; ldif->counted++) {
        ldif->line += ldif->text.p[ldif->counted] == '\n' ? 1 : 0;
    }
    return (struct directory_place){ .file = ldif->name, .at = { .line = ldif->line } };
}

static bool is_bad(unsigned char c)
{
    return (c < ' ' && c != '\n' && c != '\t') || c == 0x7f;
}

/* The text with LF alone at the end of lines, and a NUL. */
static enum err copy(struct ldif *ldif, struct sv text)
{
    struct directory_place place = { .file = ldif->name, .at = { .line = 1 } };

    buf_init(&ldif->work, text.n + 2);
    for (size_t i = 0; i < text.n; i++) {
        bool is_cr = text.p[i] == '\r' && i + 1 < text.n && text.p[i + 1] == '\n';

        if (!is_cr && is_bad((unsigned char)text.p[i])) {
            return directory_wrong(ldif->dir, &place, "a control character in the text");
        }
        place.at.line += text.p[i] == '\n' ? 1 : 0;
        if (!is_cr) {
            buf_add_char(&ldif->work, text.p[i]);
        }
    }
    buf_add_char(&ldif->work, '\n');
    ldif->text = arena_sv(&ldif->dir->arena, buf_sv(&ldif->work));
    ldif->next = base_unconst(buf_cstr(&ldif->work));
    ldif->line = 1;
    return ERR_OK;
}

/* What stands behind the colon: '<' for a URL, ':' for base64. A fold before it, which leaves FOLD, hides it from
 * the library, but not from who reads RFC 2849: *is_folded_out. */
static char mark_of(const char *line, bool *is_folded_out)
{
    const char *mark = strchr(line, ':');

    *is_folded_out = mark != NULL && mark[1] == FOLD;
    for (mark = mark == NULL ? "" : mark + 1; *mark == FOLD; mark++) {
    }
    return *mark;
}

/* --- DNs ------------------------------------------------------------------------------------------ */

/* A DN as it is compared: one way of writing it, lower case; *rdn_out: the value of its first part, as it is
 * written. Both in the arena. */
static enum err dn_read(struct directory *dir, const struct directory_place *place, struct sv text,
                        const char **dn_out, const char **rdn_out)
{
    const struct berval value = { .bv_len = text.n, .bv_val = base_unconst(text.p) };
    LDAPDN dn = NULL;
    struct berval bytes = { .bv_len = 0 };
    enum err err = ERR_INVALID;

    if (text.n == 0 || text.n > DN_MAX ||
        ldap_bv2dn(base_unconst(&value), &dn, LDAP_DN_FORMAT_LDAPV3) != LDAP_SUCCESS ||
        dn == NULL) {
        return directory_wrong(dir, place,
                               "no distinguished name (RFC 4514) of up to %d bytes: "
                               "%.100s",
                               DN_MAX, text.n == 0 ? "" : text.p);
    }
    if (dn[0] != NULL && dn[0][0] != NULL && ldap_dn2bv(dn, &bytes, LDAP_DN_FORMAT_LDAPV3) == 0) {
        const struct berval *first = &dn[0][0]->la_value;
        char *low = arena_alloc(&dir->arena, bytes.bv_len + 1);

        for (size_t i = 0; i < bytes.bv_len; i++) {
            char c = bytes.bv_val[i];

            low[i] = c >= 'A' && c <= 'Z' ? (char)(c - 'A' + 'a') : c;
        }
        low[bytes.bv_len] = '\0';
        *dn_out = low;
        err = directory_text(dir, place, "the first part of a DN",
                             sv_of(first->bv_val, first->bv_len), rdn_out);
        ldap_memfree(bytes.bv_val);
    } else {
        err = directory_wrong(dir, place, "an empty distinguished name");
    }
    ldap_dnfree(dn);
    return err;
}

/* --- attributes ----------------------------------------------------------------------------------- */

/* A name of a person in memberships: "d" and a DN, "u" and a uid. */
static const char *name_of(struct directory *dir, char kind, const char *text)
{
    size_t n = strlen(text);
    char *name = arena_alloc(&dir->arena, n + 2);

    name[0] = kind;
    memcpy(name + 1, text, n + 1);
    return name;
}

typedef enum err (*attribute_fn)(struct directory *dir, struct entry *e,
                                 const struct directory_place *place, struct sv value);

static enum err on_class(struct directory *dir, struct entry *e,
                         const struct directory_place *place, struct sv value)
{
    static const char *const people[] = { "person",        "organizationalPerson",
                                          "inetOrgPerson", "posixAccount",
                                          "account",       "user" };
    static const char *const groups[] = { "groupOfNames", "groupOfUniqueNames", "groupOfMembers",
                                          "posixGroup", "group" };

    (void)dir;
    (void)place;
    for (size_t i = 0; i < ARRAY_LEN(people); i++) {
        e->is_person = e->is_person || sv_ieq(value, sv_from(people[i]));
    }
    for (size_t i = 0; i < ARRAY_LEN(groups); i++) {
        e->is_group = e->is_group || sv_ieq(value, sv_from(groups[i]));
    }
    e->is_machine = e->is_machine || sv_ieq(value, SV("computer"));
    return ERR_OK;
}

/* Of several values the first counts. */
static enum err first(struct directory *dir, const char **at, const char *what,
                      const struct directory_place *place, struct sv value)
{
    return *at != NULL ? ERR_OK : directory_text(dir, place, what, value, at);
}

static enum err on_uid(struct directory *dir, struct entry *e, const struct directory_place *place,
                       struct sv value)
{
    return first(dir, &e->uid, "uid", place, value);
}

static enum err on_mail(struct directory *dir, struct entry *e, const struct directory_place *place,
                        struct sv value)
{
    return first(dir, &e->mail, "mail", place, value);
}

static enum err on_name(struct directory *dir, struct entry *e, const struct directory_place *place,
                        struct sv value)
{
    return first(dir, &e->name, "displayName", place, value);
}

static enum err on_cn(struct directory *dir, struct entry *e, const struct directory_place *place,
                      struct sv value)
{
    return first(dir, &e->cn, "cn", place, value);
}

static enum err on_member(struct directory *dir, struct entry *e,
                          const struct directory_place *place, struct sv value)
{
    struct directory_link link = {
        .person = DIRECTORY_NOBODY, .group = e->dn, .id = e->rdn, .place = *place
    };
    const char *dn = NULL;
    const char *rdn = NULL;
    enum err err = dn_read(dir, place, value, &dn, &rdn);

    if (err == ERR_OK) {
        link.member = name_of(dir, 'd', dn);
        err = directory_add_link(dir, &link);
    }
    return err;
}

static enum err on_member_uid(struct directory *dir, struct entry *e,
                              const struct directory_place *place, struct sv value)
{
    struct directory_link link = {
        .person = DIRECTORY_NOBODY, .group = e->dn, .id = e->rdn, .place = *place
    };
    const char *uid = NULL;
    enum err err = directory_text(dir, place, "memberUid", value, &uid);

    if (err == ERR_OK && uid != NULL) {
        link.member = name_of(dir, 'u', uid);
        err = directory_add_link(dir, &link);
    }
    return err;
}

static enum err on_member_of(struct directory *dir, struct entry *e,
                             const struct directory_place *place, struct sv value)
{
    struct directory_link link = { .person = DIRECTORY_NOBODY,
                                   .member = name_of(dir, 'd', e->dn),
                                   .place = *place };
    enum err err = dn_read(dir, place, value, &link.group, &link.id);

    return err == ERR_OK ? directory_add_link(dir, &link) : err;
}

static enum err on_changetype(struct directory *dir, struct entry *e,
                              const struct directory_place *place, struct sv value)
{
    (void)e;
    (void)value;
    return directory_wrong(dir, place, "a change and no entry: export the entries themselves");
}

/* `member;range=0-1499`: Active Directory answered with a part of a large group. */
static enum err check_options(struct directory *dir, const struct directory_place *place,
                              struct sv attribute)
{
    size_t semicolon = sv_find(attribute, ';');
    struct sv options = semicolon == SIZE_MAX ? SV("") : sv_from_at(attribute, semicolon + 1);

    return options.n >= 6 && sv_ieq(sv_head(options, 6), SV("range="))
               ? directory_wrong(dir, place, "only a part of the values (%.*s): export all of them",
                                 (int)MIN(attribute.n, (size_t)64), attribute.p)
               : ERR_OK;
}

static enum err on_attribute(struct directory *dir, struct entry *e,
                             const struct directory_place *place, struct sv attribute,
                             struct sv value)
{
    static const struct {
        const char *name;
        attribute_fn fn;
    } attributes[] = { { "objectClass", on_class },
                       { "uid", on_uid },
                       { "mail", on_mail },
                       { "displayName", on_name },
                       { "cn", on_cn },
                       { "member", on_member },
                       { "uniqueMember", on_member },
                       { "memberUid", on_member_uid },
                       { "memberOf", on_member_of },
                       { "isMemberOf", on_member_of },
                       { "changetype", on_changetype } };

    const char *id = dir->opts->id_field != NULL ? dir->opts->id_field : "uid";
    enum err err = check_options(dir, place, attribute);

    if (err == ERR_OK && sv_ieq(attribute, sv_from(id))) {
        err = first(dir, &e->id, id, place, value);
    }
    for (size_t i = 0; i < ARRAY_LEN(attributes) && err == ERR_OK; i++) {
        if (sv_ieq(attribute, sv_from(attributes[i].name))) {
            err = attributes[i].fn(dir, e, place, value);
        }
    }
    return err;
}

/* --- entries -------------------------------------------------------------------------------------- */

static enum err end_group(struct directory *dir, const struct entry *e)
{
    const struct directory_group group = { .id = e->rdn,
                                           .name = e->name != NULL ? e->name : e->cn,
                                           .email = e->mail,
                                           .dn = e->dn,
                                           .place = e->place };

    return directory_add_group(dir, &group, e->dn);
}

static enum err end_person(struct directory *dir, const struct entry *e)
{
    const struct directory_person person = {
        .id = e->id, .email = e->mail, .name = e->name != NULL ? e->name : e->cn, .place = e->place
    };
    uint32_t n = 0;

    if ((dir->opts->key == DATA_KEY_EMAIL ? person.email : person.id) == NULL) {
        dir->counts.keyless++;
        dir->n_links = e->links;
        return ERR_OK;
    }
    enum err err = directory_add_person(dir, &person, &n);

    if (err == ERR_OK) {
        err = directory_name_person(dir, name_of(dir, 'd', e->dn), n, &e->place);
    }
    return err == ERR_OK && e->uid != NULL
               ? directory_name_person(dir, name_of(dir, 'u', e->uid), n, &e->place)
               : err;
}

static enum err end_entry(struct directory *dir, const struct entry *e)
{
    if (e->dn == NULL) {
        return ERR_OK;
    }
    if (e->is_group) {
        return end_group(dir, e);
    }
    if (e->is_person && !e->is_machine) {
        return end_person(dir, e);
    }
    dir->counts.others++;
    dir->n_links = e->links; /* what it is a member of is no person's */
    return ERR_OK;
}

static enum err take_line(struct ldif *ldif, struct entry *e, char *line)
{
    const struct directory_place place = place_of(ldif, line);
    struct berval attribute = { .bv_len = 0 };
    struct berval value = { .bv_len = 0 };
    int is_own = 0;
    enum err err = ERR_OK;

    bool is_folded = false;
    char mark = mark_of(line, &is_folded);

    if (mark == '<') {
        return directory_wrong(ldif->dir, &place, "a value that stands somewhere else (:<)");
    }
    if (mark == ':' && is_folded) {
        return directory_wrong(ldif->dir, &place, "a line that is folded between two colons");
    }
    if (strchr(line, ':') == NULL || line[0] == ':' ||
        ldif_parse_line2(line, &attribute, &value, &is_own) != 0) {
        return directory_wrong(ldif->dir, &place, "no \"attribute: value\"");
    }
    struct sv name = sv_of(attribute.bv_val, attribute.bv_len);
    struct sv text = sv_of(value.bv_val == NULL ? "" : value.bv_val, value.bv_len);

    if (e->dn == NULL && sv_ieq(name, SV("version"))) {
        err = sv_eq(text, SV("1")) ? ERR_OK
                                   : directory_wrong(ldif->dir, &place, "no LDIF of version 1");
    } else if (e->dn == NULL && sv_ieq(name, SV("dn"))) {
        e->place = place;
        e->links = ldif->dir->n_links;
        err = dn_read(ldif->dir, &place, text, &e->dn, &e->rdn);
    } else if (e->dn == NULL) {
        err = directory_wrong(ldif->dir, &place, "an entry that does not begin with its dn");
    } else {
        err = on_attribute(ldif->dir, e, &place, name, text);
    }
    if (is_own) {
        ber_memfree(value.bv_val);
    }
    return err;
}

enum err directory_ldif_read(struct directory *dir, const char *name, struct sv text)
{
    struct ldif ldif = { .dir = dir, .name = name };
    struct entry e = { .dn = NULL };
    enum err err = copy(&ldif, text);

    while (err == ERR_OK && ldif.next != NULL && *ldif.next != '\0') {
        char *line = ldif_getline(&ldif.next);

        if (line != NULL) {
            err = take_line(&ldif, &e, line);
        } else if (ldif.next != NULL && *ldif.next == '\n') {
            ldif.next++;
            err = end_entry(dir, &e);
            e = (struct entry){ .dn = NULL };
        }
    }
    err = err == ERR_OK ? end_entry(dir, &e) : err;
    buf_deinit(&ldif.work);
    return err;
}
