#include "common/config/file.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

enum err config_file_read(const char *path, size_t max, struct buf *out, const char **why_out)
{
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NOCTTY | O_NONBLOCK);
    struct stat st = { 0 };
    ssize_t n = 0;

    buf_init(out, max);
    if (fd < 0) {
        *why_out = strerrordesc_np(errno);
        return errno == ENOENT ? ERR_NOT_FOUND : ERR_IO;
    }
    if (fstat(fd, &st) != 0 || !S_ISREG(st.st_mode)) {
        *why_out = "it is not a file";
        (void)close(fd);
        return ERR_IO;
    }
    do {
        char *room = buf_room(out, 65536);
        char one = 0;

        if (room == NULL) { /* full: fine if this is the end */
            n = read(fd, &one, 1);
            break;
        }
        n = read(fd, room, 65536);
        if (n > 0) {
            buf_grew(out, (size_t)n);
        }
    } while (n > 0 || (n < 0 && errno == EINTR));
    *why_out = n < 0 ? strerrordesc_np(errno) : "it is too big";
    (void)close(fd);
    return n == 0 ? ERR_OK : (n < 0 ? ERR_IO : ERR_LIMIT);
}
