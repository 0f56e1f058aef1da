/* postern audit: whether the chain of audit lines is whole. */
#include "common/audit/audit.h"

#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "cli/command.h"
#include "common/audit/verify.h"

static const char help_text[] =
    "usage: postern audit verify [options] FILE…\n\n"
    "Checks the chain of audit lines (audit.chain): whether any was changed, taken out, put in or\n"
    "moved. FILE: the oldest first, as in `x.log.2 x.log.1 x.log`; - is standard input. Lines of\n"
    "several parts may stand in one file. Prints what does not fit, and for each chain its head.\n\n"
    "  --head HEAD     a head that was printed once and noted down elsewhere: must be there again,\n"
    "                  so that no end can be cut off unseen; up to 64\n"
    "  --mixed         pass over other lines in between, as in the log of a container\n"
    "  --plain         chains of audit.chain: sha256, which need no secret\n"
    "  --config FILE   where shared_secret is\n\n"
    "Exit code: 0 whole, 1 something does not fit, 2 used wrongly.\n";

static void say(void *arg, const char *sentence)
{
    (void)arg;
    (void)printf("%s\n", sentence);
}

/* Gives the lines of text to verify; what is left of the last one stays in text. */
static void split(struct audit_verify *verify, const char *file, struct buf *text, uint64_t *number)
{
    struct sv rest = buf_sv(text);
    size_t end = sv_find(rest, '\n');

    for (; end != SIZE_MAX; end = sv_find(rest, '\n')) {
        audit_verify_line(verify, file, ++*number, sv_head(rest, end), true);
        rest = sv_from_at(rest, end + 1);
    }
    buf_drop_front(text, text->n - rest.n);
}

static int read_fd(struct audit_verify *verify, const char *file, int fd)
{
    CLEANUP(buf_deinit) struct buf text = { 0 };
    uint64_t number = 0;
    ssize_t n = 0;

    buf_init(&text, 4 * (size_t)AUDIT_LINE_MAX);
    do {
        char *room = buf_room(&text, AUDIT_LINE_MAX);

        if (room == NULL) {
            return cli_fail(1, "%s:%llu: the line is longer than any of ours", file,
                            (unsigned long long)number + 1);
        }
        n = read(fd, room, AUDIT_LINE_MAX);
        if (n < 0) {
            return cli_fail(1, "%s: %s", file, strerrordesc_np(errno));
        }
        buf_grew(&text, (size_t)n);
        split(verify, file, &text, &number);
    } while (n > 0);
    if (text.n != 0) {
        audit_verify_line(verify, file, number + 1, buf_sv(&text), false);
    }
    return 0;
}

static int read_file(struct audit_verify *verify, const char *file)
{
    bool is_input = strcmp(file, "-") == 0;
    int fd = is_input ? STDIN_FILENO : open(file, O_RDONLY | O_CLOEXEC);
    int code = 0;

    if (fd < 0) {
        return cli_fail(1, "%s: %s", file, strerrordesc_np(errno));
    }
    code = read_fd(verify, is_input ? "standard input" : file, fd);
    if (!is_input) {
        (void)close(fd);
    }
    return code;
}

static int conclude(struct audit_verify *verify)
{
    CLEANUP(buf_deinit) struct buf text = { 0 };
    bool whole = false;

    buf_init(&text, (size_t)1 << 20U);
    whole = audit_verify_end(verify, &text);
    (void)printf("%s%s\n", buf_cstr(&text), whole ? "whole" : "BROKEN");
    return whole ? 0 : 1;
}

struct verify_args {
    const char *config;
    const char *heads[AUDIT_HEADS_MAX];
    size_t n_heads;
    bool mixed;
    bool plain;
};

static int verify_files(const struct verify_args *args, char **files, int n)
{
    struct audit_verify_opts opts = { .mixed = args->mixed, .say = say };
    struct audit_verify *verify = NULL;
    struct config *config = NULL;
    int code = 0;

    if (!args->plain) {
        config = cli_config(args->config);
        if (config == NULL) {
            return 1;
        }
        opts.keys = config->keys;
    }
    verify = audit_verify_new(&opts);
    for (size_t i = 0; i < args->n_heads && code == 0; i++) {
        if (audit_verify_expect(verify, sv_from(args->heads[i])) != ERR_OK) {
            code = cli_fail(2, "--head '%s' is no CHAIN:NUMBER:SUM", args->heads[i]);
        }
    }
    for (int i = 0; i < n && code == 0; i++) {
        code = read_file(verify, files[i]);
    }
    code = code == 0 ? conclude(verify) : code;
    audit_verify_free(&verify);
    config_unref(&config);
    return code;
}

int cli_audit_main(int argc, char **argv)
{
    static const struct option options[] = {
        { "head", required_argument, NULL, 'e' }, { "mixed", no_argument, NULL, 'm' },
        { "plain", no_argument, NULL, 'p' },      { "config", required_argument, NULL, 'c' },
        { "help", no_argument, NULL, 'h' },       { 0 }
    };
    struct verify_args args = { .config = NULL };
    int option = 0;

    /* NOLINTNEXTLINE(concurrency-mt-unsafe): no other thread yet */
    while ((option = getopt_long(argc, argv, "", options, NULL)) != -1) {
        switch (option) {
        case 'e':
            if (args.n_heads == AUDIT_HEADS_MAX) {
                return cli_fail(2, "more than %d heads", AUDIT_HEADS_MAX);
            }
            args.heads[args.n_heads++] = optarg;
            break;
        case 'm':
            args.mixed = true;
            break;
        case 'p':
            args.plain = true;
            break;
        case 'c':
            args.config = optarg;
            break;
        default:
            (void)fputs(help_text, option == 'h' ? stdout : stderr);
            return option == 'h' ? 0 : 2;
        }
    }
    if (argc - optind < 2 || strcmp(argv[optind], "verify") != 0) {
        (void)fputs(help_text, stderr);
        return 2;
    }
    return verify_files(&args, argv + optind + 1, argc - optind - 1);
}
