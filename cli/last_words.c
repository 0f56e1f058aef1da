#include "cli/last_words.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <jansson.h>

#include "cli/command.h"
#include "common/mem.h"
#include "common/sv.h"

enum { TAIL_MAX = 65536 };

/* The part of the file that counts, for mem_free. NULL: there is none. */
static char *read_tail(const char *log, off_t from, size_t *n_out)
{
    int fd = open(log, O_RDONLY | O_CLOEXEC);
    struct stat at = { 0 };
    char *text = NULL;
    ssize_t n = 0;

    if (fd < 0) {
        return NULL;
    }
    if (fstat(fd, &at) == 0 && at.st_size > from) {
        from = MAX(from, at.st_size - TAIL_MAX);
        text = mem_alloc(TAIL_MAX);
        n = pread(fd, text, TAIL_MAX, from);
    }
    (void)close(fd);
    *n_out = n > 0 ? (size_t)n : 0;
    return text;
}

static bool sentence_of(const json_t *line, struct buf *out)
{
    static const char *const names[] = { "why", "reason", "cause", "event" };
    const char *level = json_string_value(json_object_get(line, "level"));

    if (level == NULL || !sv_eq(sv_from(level), SV("error"))) {
        return false;
    }
    for (size_t i = 0; i < ARRAY_LEN(names); i++) {
        const char *text = json_string_value(json_object_get(line, names[i]));

        if (text != NULL && text[0] != '\0') {
            buf_reset(out);
            buf_add_str(out, text);
            return true;
        }
    }
    return false;
}

static bool words_of(struct sv line, struct buf *out)
{
    json_t *json = NULL;
    size_t colon = 0;
    bool found = false;

    if (sv_starts(line, SV("postern-"))) {
        colon = sv_find(line, ':');
        if (colon == SIZE_MAX) {
            return false;
        }
        buf_reset(out);
        buf_add_sv(out, sv_trim(sv_from_at(line, colon + 1)));
        return true;
    }
    if (!sv_starts(line, SV("{"))) {
        return false;
    }
    json = json_loadb(line.p, line.n, 0, NULL);
    found = sentence_of(json, out);
    json_decref(json);
    return found;
}

bool cli_last_words(const char *log, off_t from, struct buf *out)
{
    CLEANUP(buf_deinit) struct buf words = { 0 };
    size_t n = 0;
    char *text = read_tail(log, from, &n);
    struct sv rest = sv_of(text, n);
    bool found = false;

    buf_init(&words, TAIL_MAX + 1);
    while (rest.p != NULL) {
        found = words_of(sv_cut(&rest, '\n'), &words) || found;
    }
    if (found) {
        buf_add_str(out, cli_tame(base_unconst(buf_cstr(&words))));
    }
    mem_free(&text);
    return found;
}
