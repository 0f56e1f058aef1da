#include "cli/file.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "common/mem.h"

enum { PATH_ROOM = 4096, CHUNK = 16384 };

static const char *why(int number, char room[128])
{
    return strerror_r(number, room, 128);
}

enum err cli_file_take(const char *path, struct buf *out, struct diag *d)
{
    char room[128];
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    ssize_t n = 0;

    if (fd < 0) {
        diag_set(d, "cannot read %s: %s", path, why(errno, room));
        return ERR_IO;
    }
    do {
        char chunk[CHUNK];

        n = read(fd, chunk, sizeof(chunk));
        if (n > 0) {
            buf_add(out, chunk, (size_t)n);
        }
    } while (n > 0 && out->err == ERR_OK);
    (void)close(fd);
    if (n < 0) {
        diag_set(d, "cannot read %s: %s", path, why(errno, room));
        return ERR_IO;
    }
    if (out->err != ERR_OK) {
        diag_set(d, "%s is larger than %zu bytes", path, out->max);
    }
    return out->err;
}

enum err cli_file_read(const char *path, size_t max, char **text_out, struct diag *d)
{
    CLEANUP(buf_deinit) struct buf text = { 0 };

    buf_init(&text, max);
    enum err err = cli_file_take(path, &text, d);

    if (err == ERR_OK) {
        *text_out = buf_take(&text);
    }
    return err;
}

static bool write_all(int fd, struct sv text)
{
    while (text.n > 0) {
        ssize_t n = write(fd, text.p, text.n);

        if (n <= 0) {
            return false;
        }
        text = sv_from_at(text, (size_t)n);
    }
    return fsync(fd) == 0;
}

enum err cli_file_write(const char *path, struct sv text, unsigned mode, struct diag *d)
{
    char beside[PATH_ROOM];
    char room[128];
    int fd = -1;
    bool written = false;

    (void)snprintf(beside, sizeof(beside), "%s.new", path);
    fd = open(beside, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, mode);
    if (fd >= 0) {
        written = fchmod(fd, mode) == 0 && write_all(fd, text);
        written = close(fd) == 0 && written;
    }
    if (!written || rename(beside, path) != 0) {
        diag_set(d, "cannot write %s: %s", path, why(errno, room));
        (void)unlink(beside);
        return ERR_IO;
    }
    return ERR_OK;
}

bool cli_file_exists(const char *path)
{
    return access(path, F_OK) == 0;
}
