/* What is read after a change is what a whole reading would have given, in all that it says and in
 * what it refuses; and it is read by splicing where it should be. */
#include "common/config/splice.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "common/config/reader.h"
#include "common/mem.h"
#include "test/support/cmocka.h"
#include "test/support/config_same.h"

#define KEY "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8="
#define HEAD                                                                   \
    "shared_secret: " KEY "\ninsecure_server: true\n"                          \
    "authenticate_service_url: https://login.localhost\nidp_provider: local\n" \
    "idp_local_users_file: /dev/null\n"
#define TLS         "shared_secret: " KEY "\nauthenticate_service_url: https://login.localhost\n"
#define PLAIN(host) "  - from: https://" host "\n    to: http://c\n"
#define A           PLAIN("a.b")
#define B           PLAIN("b.b")
#define C           PLAIN("c.b")
#define D           PLAIN("d.b")
#define E           PLAIN("e.b")
#define F           PLAIN("f.b")
#define TAIL        "log_level: debug\n"

/* A configuration that is read again and again, each time also whole. */
struct series {
    struct config_opts opts;
    struct config *now;
    struct config_errors *errors; /* of the last attempt; NULL: it went well */
    size_t n_taken;               /* routes that were taken over in it */
};

static size_t count_taken(const struct config *before, const struct config *now)
{
    size_t n = 0;

    for (size_t i = 0; before != NULL && i < now->n_routes; i++) {
        const struct config_route *old = config_route_by_id(before, now->routes[i].id);

        n += old != NULL && old->edition == now->routes[i].edition ? 1 : 0;
    }
    return n;
}

/* True: it is in force now. */
static bool turn(struct series *s, struct sv text)
{
    struct config *fresh = NULL;
    struct config *whole = NULL;
    struct config_errors *whole_errors = NULL;
    enum err err = ERR_OK;

    config_errors_free(&s->errors);
    s->n_taken = 0;
    s->opts.file = "/etc/postern/c.yaml";
    s->opts.previous = NULL;
    err = config_parse(text, &s->opts, &whole, &whole_errors);
    s->opts.previous = s->now;
    assert_int_equal(config_parse(text, &s->opts, &fresh, &s->errors), err);
    if (!config_outcome_same(fresh, s->errors, whole, whole_errors)) {
        fail_msg("another outcome than of a whole reading:\n%.*s", SV_ARG(text));
    }
    config_unref(&whole);
    config_errors_free(&whole_errors);
    if (fresh == NULL) {
        return false;
    }
    s->n_taken = count_taken(s->now, fresh);
    config_unref(&s->now);
    s->now = fresh;
    return true;
}

static void reads(struct series *s, const char *text, size_t n_taken)
{
    if (!turn(s, sv_from(text))) {
        fail_msg("refused: %s", config_errors_text(s->errors, 0));
    }
    assert_int_equal(s->n_taken, n_taken);
}

static void refuses(struct series *s, const char *text, const char *error)
{
    assert_false(turn(s, sv_from(text)));
    if (strncmp(config_errors_text(s->errors, 0), error, strlen(error)) != 0) {
        fail_msg("%s", config_errors_text(s->errors, 0));
    }
}

static void end(struct series *s)
{
    config_unref(&s->now);
    config_errors_free(&s->errors);
}

/* ---- what is taken over ------------------------------------------------------------------------ */

static void a_change_in_one_route_leaves_the_others(void **state)
{
    struct series s = { .opts = { .part = CONFIG_PART_PROXY } };

    (void)state;
    reads(&s, HEAD "routes:\n" A B C D E F TAIL, 0);
    /* Read again: the first, the last, the changed one and its neighbours. */
    reads(&s, HEAD "routes:\n" A B C "  - from: https://d.b\n    to: http://other\n" E F TAIL, 1);
    assert_string_equal(s.now->routes[3].upstreams[0].url.text.p, "http://other");
    assert_string_equal(s.now->routes[1].from.p, "https://b.b");
    end(&s);
}

static void lines_of_routes_behind_a_change_move(void **state)
{
    struct series s = { .opts = { .part = CONFIG_PART_PROXY } };

    (void)state;
    reads(&s, HEAD "routes:\n" A B C D E F, 0);
    reads(&s, HEAD "routes:\n" A "# one\n# two\n\n" B C D E F, 3);
    assert_int_equal(s.now->routes[4].line, 6 + 4 * 2 + 3 + 1);
    reads(&s, HEAD "routes:\n" A B C D E F, 3);
    assert_int_equal(s.now->routes[4].line, 6 + 4 * 2 + 1);
    /* Each of the places is that of a whole reading, also for what comes after. */
    refuses(&s, HEAD "routes:\n" A "\n" B C D PLAIN("b.b") F,
            "/etc/postern/c.yaml:16:5: from and path are those of the route at line 10");
    end(&s);
}

static void routes_come_and_go(void **state)
{
    struct series s = { .opts = { .part = CONFIG_PART_PROXY } };

    (void)state;
    reads(&s, HEAD "routes:\n" A B C D E, 0);
    reads(&s, HEAD "routes:\n" A B C D E F, 2);
    reads(&s, HEAD "routes:\n" A B C E F, 1);
    assert_int_equal(s.now->n_routes, 5);
    reads(&s, HEAD "routes:\n" PLAIN("0.b") A B C E F, 2);
    assert_string_equal(s.now->routes[0].from.p, "https://0.b");
    reads(&s, HEAD "routes:\n" PLAIN("0.b"), 0);
    end(&s);
}

static void the_same_bytes_again_are_the_same(void **state)
{
    struct series s = { .opts = { .part = CONFIG_PART_PROXY } };

    (void)state;
    reads(&s, HEAD "routes:\n" A B C D E F TAIL, 0);
    reads(&s, HEAD "routes:\n" A B C D E F TAIL, 3);
    end(&s);
}

static void routes_of_another_indentation_are_found_too(void **state)
{
    struct series s = { .opts = { .part = CONFIG_PART_PROXY } };

    (void)state;
    reads(&s,
          HEAD "policy:\n- from: https://a.b\n  to: http://c\n- {from: https://b.b, to: http://c}\n"
               "-   from: https://c.b\n    to: http://c\n- from: https://d.b\n  to: http://c\n",
          0);
    reads(&s,
          HEAD "policy:\n- from: https://a.b\n  to: http://c\n- {from: https://b.b, to: http://c}\n"
               "-   from: https://c.b\n    to: http://c\n- from: https://d.b\n  to: http://d\n",
          1);
    end(&s);
}

/* ---- what must not be ------------------------------------------------------------------------- */

static void a_global_setting_reaches_every_route(void **state)
{
    struct series s = { .opts = { .part = CONFIG_PART_PROXY } };

    (void)state;
    reads(&s, HEAD "routes:\n" A B C D E F, 0);
    assert_false(s.now->routes[2].pass_identity_headers);
    reads(&s, HEAD "pass_identity_headers: true\nroutes:\n" A B C D E F, 0);
    assert_true(s.now->routes[2].pass_identity_headers);
    reads(&s, HEAD "routes:\n" A B C D E F, 0);
    reads(&s, HEAD "routes:\n" A B C D E F "pass_identity_headers: true\n", 0);
    assert_true(s.now->routes[2].pass_identity_headers);
    reads(&s, HEAD "routes:\n" A B C D E F "pass_identity_headers: false\n", 0);
    assert_false(s.now->routes[2].pass_identity_headers);
    /* One that stands in a route's text, from where it was. */
    reads(&s, HEAD "routes:\n" A B C D E F "log_level: debug\npass_identity_headers: true\n", 0);
    reads(&s,
          HEAD "routes:\n" A B C D E
               "  - from: https://f.b\n    to: http://c\n    description: |\n      x\n"
               "log_level: debug\npass_identity_headers: true\n",
          3);
    end(&s);
}

static void what_an_open_quote_swallows_is_gone(void **state)
{
    struct series s = { .opts = { .part = CONFIG_PART_PROXY } };

    (void)state;
    reads(&s, HEAD "routes:\n" A B "  - from: https://c.b\n    to: http://c\n    name: x\n" D E F,
          0);
    refuses(&s,
            HEAD "routes:\n" A B "  - from: https://c.b\n    to: http://c\n    name: \"x\n" D E F,
            "/etc/postern/c.yaml:20:1: not YAML");
    /* The quote ends in a route further down, which is now part of a text. */
    reads(&s,
          HEAD "routes:\n" A B "  - from: https://c.b\n    to: http://c\n    name: x\n" D
               "  - from: https://e.b\n    to: http://c\n    name: ab\n" F
               "  - from: https://g.b\n    to: http://c # \"\n" PLAIN("h.b") PLAIN("i.b"),
          2);
    reads(&s,
          HEAD "routes:\n" A B "  - from: https://c.b\n    to: http://c\n    name: \"x\n" D
               "  - from: https://e.b\n    to: http://c\n    name: ab\n" F
               "  - from: https://g.b\n    to: http://c # \"\n" PLAIN("h.b") PLAIN("i.b"),
          0);
    assert_int_equal(s.now->n_routes, 5);
    end(&s);
}

/* In the very route that shows where the parser stands, or in a setting behind all routes. */
static void what_a_closing_quote_ends_is_seen(void **state)
{
    const char d[] = "  - from: https://d.b\n    to: http://c # \"\n    prefix: /d\n";
    const char end_of_all[] = "pass_identity_headers: true # \"\nlog_level: debug\n";
    struct series s = { .opts = { .part = CONFIG_PART_PROXY } };
    char text[2048];

    (void)state;
    (void)snprintf(text, sizeof(text), HEAD "routes:\n" A B C "%s" E F "%s", d, end_of_all);
    reads(&s, text, 0);
    (void)snprintf(text, sizeof(text), HEAD "routes:\n" A B C "    name: \"x\n%s" E F "%s", d,
                   end_of_all);
    reads(&s, text, 0);
    assert_int_equal(s.now->n_routes, 5);
    (void)snprintf(text, sizeof(text), HEAD "routes:\n" A B C "%s" E F "%s", d, end_of_all);
    reads(&s, text, 0);
    assert_true(s.now->routes[1].pass_identity_headers);
    (void)snprintf(text, sizeof(text), HEAD "routes:\n" A B C "%s" E F "    name: \"x\n%s", d,
                   end_of_all);
    reads(&s, text, 0);
    assert_false(s.now->routes[1].pass_identity_headers);
    end(&s);
}

static void a_mistake_in_one_route_is_told_where_it_stands(void **state)
{
    struct series s = { .opts = { .part = CONFIG_PART_PROXY } };

    (void)state;
    reads(&s, HEAD "routes:\n" A B C D E F TAIL, 0);
    refuses(&s, HEAD "routes:\n" A "\n" B C "  - from: https://d.b\n    two: http://c\n" E F TAIL,
            "/etc/postern/c.yaml:14:5: a route has exactly one of");
    refuses(&s, HEAD "routes:\n" A B C "  - from: [https://d.b\n    to: http://c\n" E F TAIL,
            "/etc/postern/c.yaml:14:7: not YAML");
    refuses(&s, HEAD "routes:\n" A B C "    - from: https://d.b\n    to: http://c\n" E F TAIL,
            "/etc/postern/c.yaml:13:");
    refuses(&s, HEAD "routes:\n" A B C D "---\n" E F TAIL, "/etc/postern/c.yaml:15:");
    /* After a refusal the last good one is what counts. */
    reads(&s, HEAD "routes:\n" A B C D E PLAIN("g.b") TAIL, 3);
    end(&s);
}

static void two_routes_that_are_one_are_refused(void **state)
{
    struct series s = { .opts = { .part = CONFIG_PART_PROXY } };

    (void)state;
    reads(&s, HEAD "routes:\n" A B C D E F, 0);
    refuses(&s, HEAD "routes:\n" A B C D E F B,
            "/etc/postern/c.yaml:19:5: from and path are those of the route at line 9");
    refuses(&s, HEAD "routes:\n" A B C D D E F,
            "/etc/postern/c.yaml:15:5: from and path are those of the route at line 13");
    refuses(&s, HEAD "routes:\n" A B C D PLAIN("login.localhost") E F,
            "/etc/postern/c.yaml:15:5: this host is the one of authenticate_service_url");
    end(&s);
}

static void anchors_mean_what_they_say_now(void **state)
{
    struct series s = { .opts = { .part = CONFIG_PART_PROXY } };

    (void)state;
    reads(&s,
          HEAD "routes:\n" A B "  - from: https://c.b\n    to: &up http://one\n" D E
               "  - from: https://f.b\n    to: *up\n",
          0);
    reads(&s,
          HEAD "routes:\n" A B "  - from: https://c.b\n    to: &up http://two\n" D E
               "  - from: https://f.b\n    to: *up\n",
          0);
    assert_string_equal(s.now->routes[5].upstreams[0].url.text.p, "http://two");
    /* A name that is given twice, and no more; who speaks of it stands in neither place. */
    reads(&s,
          HEAD "routes:\n" A "  - from: https://b.b\n    to: &up http://one\n" PLAIN(
              "x.b") "  - from: https://c.b\n    to: &up http://two\n" D
                     "  - from: https://e.b\n    to: *up\n" F,
          0);
    reads(&s,
          HEAD "routes:\n" A "  - from: https://b.b\n    to: &up http://one\n" PLAIN(
              "x.b") "  - from: https://c.b\n    to: http://two\n" D
                     "  - from: https://e.b\n    to: *up\n" F,
          0);
    assert_string_equal(s.now->routes[5].upstreams[0].url.text.p, "http://one");
    reads(&s, HEAD "routes:\n" A B C D E F, 0);
    refuses(&s, HEAD "routes:\n" A B C D "  - from: https://e.b\n    to: *up\n" F,
            "/etc/postern/c.yaml:16:9: an alias names no finished anchor");
    reads(&s, HEAD "routes:\n" A B C "  - from: https://d.b\n    to: &up http://c\n" E F, 0);
    end(&s);
}

static void other_line_ends_are_read_whole(void **state)
{
    static const char *const ends[] = { "# x\r\n", "# x\r", "# \xc2\x85", "# \xe2\x80\xa8",
                                        "# \xe2\x80\xa9" };

    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(ends); i++) {
        struct series s = { .opts = { .part = CONFIG_PART_PROXY } };
        char text[2048];

        (void)snprintf(text, sizeof(text), HEAD "%sroutes:\n" A B C D E F, ends[i]);
        reads(&s, text, 0);
        (void)snprintf(text, sizeof(text), HEAD "%sroutes:\n" A B C D E F "    name: f\n", ends[i]);
        reads(&s, text, 0);
        reads(&s, HEAD "routes:\n" A B C D E F, 0);
        (void)snprintf(text, sizeof(text), HEAD "routes:\n" A B "%s" C D E F, ends[i]);
        reads(&s, text, 0);
        end(&s);
    }
}

static void routes_ask_for_certificates_together(void **state)
{
    struct series s = { .opts = { .part = CONFIG_PART_AUTHORIZE } };

    (void)state;
    reads(&s, TLS "routes:\n" A B C D E F, 0);
    reads(&s,
          TLS "routes:\n" A B C "  - from: https://d.b\n    to: http://c\n"
              "    tls_downstream_client_ca_file: /x\n" E F,
          0);
    assert_true(s.now->asks_client_cert);
    reads(&s, TLS "routes:\n" A B C D E F, 0);
    assert_false(s.now->asks_client_cert);
    end(&s);
}

static void put_file(const char *name, const char *text)
{
    FILE *f = fopen(name, "w");

    assert_non_null(f);
    assert_true(fputs(text, f) >= 0);
    assert_int_equal(fclose(f), 0);
}

static void what_stands_in_files_and_secrets_is_read_each_time(void **state)
{
    struct series s = { .opts = { .part = CONFIG_PART_PROXY } };
    char name[] = "/tmp/splice-XXXXXX";
    int fd = mkstemp(name);
    struct buf one;
    struct buf two;

    (void)state;
    assert_true(fd >= 0);
    (void)close(fd);
    buf_init(&one, 4096);
    buf_init(&two, 4096);
    buf_printf(&one,
               HEAD "routes:\n" A "  - from: https://b.b\n    to: https://c\n"
                    "    kubernetes_service_account_token_file: %s\n"
                    "  - from: https://c.b\n    to: https://c\n"
                    "    kubernetes_service_account_token: inplace\n" D E,
               name);
    buf_add_sv(&two, buf_sv(&one));
    buf_add_str(&one, F);
    buf_add_str(&two, PLAIN("g.b"));
    put_file(name, "first");
    reads(&s, buf_cstr(&one), 0);
    put_file(name, "second");
    reads(&s, buf_cstr(&two), 1);
    assert_string_equal(secret_bytes(s.now->routes[1].kubernetes_token).p, "second");
    assert_string_equal(secret_bytes(s.now->routes[2].kubernetes_token).p, "inplace");
    put_file(name, "");
    refuses(&s, buf_cstr(&one), "/etc/postern/c.yaml:11:5: kubernetes_service_account_token_file");
    (void)unlink(name);
    buf_deinit(&one);
    buf_deinit(&two);
    end(&s);
}

static void another_environment_is_read_whole(void **state)
{
    const char *const one[] = { "PASS_IDENTITY_HEADERS=true", NULL };
    const char *const two[] = { "PASS_IDENTITY_HEADERS=false", NULL };
    struct series s = { .opts = { .part = CONFIG_PART_PROXY, .env = one } };

    (void)state;
    reads(&s, HEAD "routes:\n" A B C D E F, 0);
    reads(&s, HEAD "routes:\n" A B C D E PLAIN("g.b"), 3);
    assert_true(s.now->routes[2].pass_identity_headers);
    s.opts.env = two;
    reads(&s, HEAD "routes:\n" A B C D E F, 0);
    assert_false(s.now->routes[2].pass_identity_headers);
    end(&s);
}

/* ---- many changes ----------------------------------------------------------------------------- */

static void what_changes_leave_behind_is_cleared_away(void **state)
{
    struct series s = { .opts = { .part = CONFIG_PART_PROXY } };
    size_t most = 0;
    size_t whole = 0;

    (void)state;
    for (int i = 0; i < 2000; i++) {
        char text[2048];
        const struct config_box *box = NULL;

        (void)snprintf(text, sizeof(text), HEAD "routes:\n" A B "    name: n%d\n" C D E F, i);
        assert_true(turn(&s, sv_from(text)));
        box = CONTAINER_OF(s.now->self, struct config_box, config);
        most = MAX(most, box->n_stocks);
        whole += box->n_stocks == 1 ? 1 : 0;
    }
    assert_in_range(whole, 2, 100);
    assert_in_range(most, 20, 1000);
    end(&s);
}

static uint64_t seed = 88172645463325252ULL;

static size_t below(size_t n)
{
    seed ^= seed << 13;
    seed ^= seed >> 7;
    seed ^= seed << 17;
    return (size_t)(seed % n);
}

/* Replaces the n bytes at `at` of a text. */
static void replace(struct buf *text, size_t at, size_t n, struct sv with)
{
    struct buf next;

    buf_init(&next, SIZE_MAX / 2);
    buf_add_sv(&next, sv_head(buf_sv(text), at));
    buf_add_sv(&next, with);
    buf_add_sv(&next, sv_from_at(buf_sv(text), at + n));
    buf_deinit(text);
    *text = next;
}

static size_t some_line(const struct buf *text)
{
    size_t at = below(text->n + 1);

    while (at > 0 && text->p[at - 1] != '\n') {
        at--;
    }
    return at;
}

/* What people do: a comment, an empty line, another route. */
static void edit(struct buf *text)
{
    static const char *const bits[] = { "# x\n", "\n", "    # \"\n", "        #\n" };
    char route[128];

    (void)snprintf(route, sizeof(route), PLAIN("h%zu.b"), below(1000));
    replace(text, some_line(text), 0,
            sv_from(below(2) == 0 ? route : bits[below(ARRAY_LEN(bits))]));
}

/* What means something to a parser of YAML. */
static struct sv some_words(void)
{
    static const char signs[] = "\"'[]{}:\t\r\n#%?-\xff";
    static const char *const words[] = { "|+\n",  ">\n",      "&a ",  "*a",   "---\n",
                                         "...\n", "\xc2\x85", "  - ", "<<: ", "  - - x\n" };
    static const char *const lines[] = { "policy: []\n",
                                         "pass_identity_headers: true\n",
                                         "    name: \"\n",
                                         "    description: |\n      x\n",
                                         "    prefix: /x\n",
                                         "    tls_downstream_client_ca: x\n",
                                         "  -\n" };
    static const char *const routes[] = { PLAIN("a.b"), PLAIN("x.b"), PLAIN("login.localhost") };

    switch (below(4)) {
    case 0:
        return sv_of(&signs[below(sizeof(signs) - 1)], 1);
    case 1:
        return sv_from(words[below(ARRAY_LEN(words))]);
    case 2:
        return sv_from(lines[below(ARRAY_LEN(lines))]);
    default:
        return sv_from(routes[below(ARRAY_LEN(routes))]);
    }
}

static void mutate(struct buf *text)
{
    size_t at = below(2) == 0 ? some_line(text) : below(text->n + 1);
    size_t n = below(3) == 0 ? below(MIN(text->n - at, (size_t)80) + 1) : 0;

    replace(text, at, n, some_words());
}

#define BASE_PLAIN HEAD "routes:\n" A B C D E F TAIL
#define BASE_QUOTES                                                                   \
    HEAD "routes:\n" A B C "  - from: https://d.b\n    to: http://c\n    name: 'x'\n" \
         "    description: |+\n      long\n\n" E F
#define FLAT(host) "- from: https://" host "\n  to: http://c\n"
#define BASE_FLAT  "routes:\n" FLAT("a.b") FLAT("b.b") FLAT("c.b") FLAT("d.b") FLAT("e.b") HEAD
#define BASE_GLOBALS                                                                     \
    HEAD "set_response_headers: {x-a: b}\njwt_groups_filter: [g]\nroutes:\n" A B C D E   \
         "  - from: https://f.b\n    to: http://c\n    set_response_headers: {x-c: d}\n" \
         "    jwt_groups_filter: [h]\n    regex: ^/x\n" TAIL

static void any_change_gives_what_a_whole_reading_gives(void **state)
{
    static const char *const bases[] = { BASE_PLAIN, BASE_QUOTES, BASE_FLAT, BASE_GLOBALS };
    size_t taken = 0;
    size_t good = 0;

    (void)state;
    for (size_t k = 0; k < ARRAY_LEN(bases) * 100; k++) {
        struct series s = { .opts = { .part = CONFIG_PART_AUTHORIZE } };
        struct buf text;

        buf_init(&text, SIZE_MAX / 2);
        buf_add_str(&text, bases[k % ARRAY_LEN(bases)]);
        assert_true(turn(&s, buf_sv(&text)));
        for (size_t i = 0; i < 40; i++) {
            struct buf tried;

            buf_init(&tried, SIZE_MAX / 2);
            buf_add_sv(&tried, buf_sv(&text));
            if (below(3) == 0) {
                mutate(&tried);
            } else {
                edit(&tried);
            }
            if (turn(&s, buf_sv(&tried))) {
                struct buf old = text;

                text = tried;
                tried = old;
                good++;
                taken += s.n_taken;
            }
            buf_deinit(&tried);
        }
        buf_deinit(&text);
        end(&s);
    }
    assert_true(good > 3000 && taken > 3000); /* it is this that is tried */
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_change_in_one_route_leaves_the_others),
        cmocka_unit_test(lines_of_routes_behind_a_change_move),
        cmocka_unit_test(routes_come_and_go),
        cmocka_unit_test(the_same_bytes_again_are_the_same),
        cmocka_unit_test(routes_of_another_indentation_are_found_too),
        cmocka_unit_test(a_global_setting_reaches_every_route),
        cmocka_unit_test(what_an_open_quote_swallows_is_gone),
        cmocka_unit_test(what_a_closing_quote_ends_is_seen),
        cmocka_unit_test(a_mistake_in_one_route_is_told_where_it_stands),
        cmocka_unit_test(two_routes_that_are_one_are_refused),
        cmocka_unit_test(anchors_mean_what_they_say_now),
        cmocka_unit_test(other_line_ends_are_read_whole),
        cmocka_unit_test(routes_ask_for_certificates_together),
        cmocka_unit_test(what_stands_in_files_and_secrets_is_read_each_time),
        cmocka_unit_test(another_environment_is_read_whole),
        cmocka_unit_test(what_changes_leave_behind_is_cleared_away),
        cmocka_unit_test(any_change_gives_what_a_whole_reading_gives),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
