/* postern whoami: asks a proxy who we are to it, and how it found our address. */
#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <jansson.h>

#include "cli/command.h"
#include "cli/file.h"
#include "common/fetch.h"
#include "common/loop.h"
#include "common/mem.h"
#include "common/secret.h"

enum { COOKIE_MAX = 8192, STEPS_MAX = 64 };

static const char whoami_help[] =
    "usage: postern whoami URL [--ca FILE] [--cookie-file FILE]\n\n"
    "Asks the proxy that serves URL, the address of a route, who you are to it: the user, the\n"
    "address that policies and logs see, and step by step how that address was found.\n"
    "  --ca FILE           certificates to trust in place of the system's, as PEM\n"
    "  --cookie-file FILE  the cookie of a session, as a browser sends it to that host:\n"
    "                      __Host-_pomerium=…; $POSTERN_COOKIE does as well\n";

struct asked {
    struct loop *loop;
    const char *url;
    int code;
};

static void print(const char *text)
{
    CLEANUP(mem_free) char *copy = mem_strdup(text);

    (void)fputs(cli_tame(copy), stdout);
}

static const char *text_of(const json_t *object, const char *key)
{
    const char *text = json_string_value(json_object_get(object, key));

    return text == NULL ? "" : text;
}

static void print_fact(const char *name, const json_t *answer, const char *key)
{
    if (text_of(answer, key)[0] != '\0') {
        (void)printf("%-8s ", name);
        print(text_of(answer, key));
        (void)putchar('\n');
    }
}

static void print_answer(const json_t *answer)
{
    const json_t *steps = json_object_get(answer, "steps");
    size_t n = MIN(json_array_size(steps), (size_t)STEPS_MAX);
    size_t i = 0;

    print_fact("user", answer, "user");
    print_fact("e-mail", answer, "email");
    print_fact("address", answer, "address");
    print_fact("came by", answer, "scheme");
    (void)puts("\nHow the address was found:");
    for (i = 0; i < n; i++) {
        const json_t *step = json_array_get(steps, i);

        (void)printf("%3zu. ", i + 1);
        print(text_of(step, "title"));
        (void)fputs(": ", stdout);
        print(text_of(step, "address"));
        (void)fputs(", ", stdout);
        print(text_of(step, "meaning"));
        (void)putchar('\n');
    }
    if (text_of(answer, "remark")[0] != '\0') {
        print(text_of(answer, "remark"));
        (void)putchar('\n');
    }
}

static int judge(const struct asked *asked, const struct fetch_answer *answer)
{
    json_t *json = NULL;

    if (answer->err == ERR_CRYPTO) {
        return cli_fail(1,
                        "the certificate of %s is not trusted (--ca names another authority): %s",
                        asked->url, answer->text);
    }
    if (answer->err != ERR_OK) {
        return cli_fail(1, "%s does not answer: %s", asked->url, answer->text);
    }
    if (answer->status == 401) {
        return cli_fail(1, "nobody is logged in there; log in with a browser and hand over its "
                           "cookie with --cookie-file");
    }
    json = json_loadb(answer->body.p, answer->body.n, 0, NULL);
    if (answer->status != 200 || !json_is_array(json_object_get(json, "steps"))) {
        const char *code = text_of(json, "code");
        int failed = cli_fail(1,
                              "%s answered with status %ld%s%.64s; is it the address of a route "
                              "behind Postern?",
                              asked->url, answer->status, code[0] == '\0' ? "" : " ", code);

        json_decref(json);
        return failed;
    }
    print_answer(json);
    json_decref(json);
    return 0;
}

static void on_answer(void *arg, const struct fetch_answer *answer)
{
    struct asked *asked = arg;

    asked->code = judge(asked, answer);
    loop_stop(asked->loop);
}

/* scheme://host[:port] of url with the page's path; "" if it is no such address. */
static char *page_of(const char *url)
{
    struct sv text = sv_from(url);
    size_t host = sv_search(text, SV("://"));
    size_t end = 0;
    struct buf page;

    if (host == SIZE_MAX) {
        return mem_strdup("");
    }
    end = host + 3;
    while (end < text.n && strchr("/?#", text.p[end]) == NULL) {
        end++;
    }
    buf_init(&page, FETCH_BODY_MAX);
    buf_add_sv(&page, sv_head(text, end));
    buf_add_str(&page, "/.pomerium/whoami");
    return buf_take(&page);
}

static int ask(const char *url, const char *ca_file, const char *cookie)
{
    struct asked asked = { .loop = loop_new(), .url = url, .code = 1 };
    struct fetcher *fetcher = fetcher_new(asked.loop, ca_file);
    char *page = page_of(url);
    const struct fetch_request request = { .url = page, .cookie = cookie };

    (void)fetch_start(fetcher, &request, on_answer, &asked);
    loop_run(asked.loop);
    fetcher_free(&fetcher);
    loop_free(&asked.loop);
    mem_free(&page);
    return asked.code;
}

/* From the file, else the environment; NULL with *code_out 0: there is none. */
static char *read_cookie(const char *file, int *code_out)
{
    struct diag d = { .line = 0 };
    char line[DIAG_LINE];
    char *text = NULL;

    *code_out = 0;
    if (file == NULL) {
        const char *given =
            getenv("POSTERN_COOKIE"); /* NOLINT(concurrency-mt-unsafe): one thread */

        text = given == NULL ? NULL : mem_strdup(given);
    } else if (cli_file_read(file, COOKIE_MAX, &text, &d) != ERR_OK) {
        *code_out = cli_fail(1, "%s", diag_format(&d, line));
        return NULL;
    }
    if (text != NULL) {
        text[strcspn(text, "\r\n")] = '\0';
    }
    return text;
}

int cli_whoami_main(int argc, char **argv)
{
    static const struct option options[] = { { "ca", required_argument, NULL, 'a' },
                                             { "cookie-file", required_argument, NULL, 'f' },
                                             { "help", no_argument, NULL, 'h' },
                                             { 0 } };
    const char *ca_file = NULL;
    const char *cookie_file = NULL;
    char *cookie = NULL;
    int option = 0;
    int code = 0;

    /* NOLINTNEXTLINE(concurrency-mt-unsafe): no other thread yet */
    while ((option = getopt_long(argc, argv, "", options, NULL)) != -1) {
        if (option == 'a') {
            ca_file = optarg;
        } else if (option == 'f') {
            cookie_file = optarg;
        } else {
            (void)fputs(whoami_help, option == 'h' ? stdout : stderr);
            return option == 'h' ? 0 : 2;
        }
    }
    if (argc - optind != 1) {
        (void)fputs(whoami_help, stderr);
        return 2;
    }
    cookie = read_cookie(cookie_file, &code);
    if (code == 0 && cookie != NULL && sv_istarts(sv_from(argv[optind]), SV("http://"))) {
        code = cli_fail(2, "%s is not https: a cookie is sent over nothing else", argv[optind]);
    } else if (code == 0) {
        code = ask(argv[optind], ca_file, cookie);
    }
    if (cookie != NULL) {
        secret_wipe(cookie, strlen(cookie));
    }
    mem_free(&cookie);
    return code;
}
