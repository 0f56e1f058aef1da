/* disk: preloaded into a daemon, a disk that does as it is told. Calls on files of the folder DISK_FOLDER
 * fail while the page DISK_CONTROL says so, and each that changes them is noted in the file DISK_LOG, from
 * which test/support/disk.py makes what a power loss at any moment would have left. */
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <time.h>
#include <unistd.h>

enum { FDS = 4096, NAME_ROOM = 64 };

/* What DISK_CONTROL holds, one for each of these. only: of which files, by the end of their names. */
enum what { READS = 0, WRITES, SYNCS, WHATS };

struct fault {
    int32_t error;    /* errno; 0: none */
    int32_t times;    /* how often; -1: until told otherwise */
    int32_t delay_ms; /* each takes so much longer */
    int32_t met;      /* how often it has struck */
    char only[16];
};

/* What DISK_LOG holds: this, the name within the folder, the bytes. */
enum op {
    OP_CREATE = 1,
    OP_WRITE,
    OP_TRUNCATE,
    OP_SYNC,
    OP_SYNC_FAILED,
    OP_SYNC_FOLDER,
    OP_UNLINK
};

struct entry {
    uint32_t op;
    uint32_t name_bytes;
    uint64_t offset;
    uint64_t bytes;
};

static struct fault none[WHATS];
static struct fault *faults = none;
static int log_fd = -1;
static char folder[PATH_MAX];
static char names[FDS][NAME_ROOM]; /* of open files of the folder; "/": the folder itself */
static pthread_mutex_t order = PTHREAD_MUTEX_INITIALIZER; /* what is noted happens in that order */

#define REAL(name, type) ((type)dlsym(RTLD_NEXT, name))

static __attribute__((constructor)) void start(void)
{
    /* NOLINTBEGIN(concurrency-mt-unsafe): there is one thread yet */
    const char *control = getenv("DISK_CONTROL");
    const char *file = getenv("DISK_LOG");
    const char *where = getenv("DISK_FOLDER");
    /* NOLINTEND(concurrency-mt-unsafe) */

    if (where != NULL) {
        (void)snprintf(folder, sizeof(folder), "%s/", where);
    }
    if (control != NULL) {
        int fd = open(control, O_RDWR | O_CLOEXEC);
        void *page = mmap(NULL, sizeof(none), PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);

        if (page == MAP_FAILED) {
            _exit(125);
        }
        faults = page;
        (void)close(fd);
    }
    if (file != NULL) {
        log_fd = open(file, O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC, 0600);
    }
}

/* The name within the folder, "/" for the folder; NULL: none of ours. */
static const char *name_of(const char *path)
{
    size_t n = strlen(folder);

    if (n == 0 || path == NULL || strncmp(path, folder, n - 1) != 0) {
        return NULL;
    }
    return path[n - 1] == '\0' ? "/" : path[n - 1] == '/' ? path + n : NULL;
}

static const char *name_of_fd(int fd)
{
    return fd >= 0 && fd < FDS && names[fd][0] != '\0' ? names[fd] : NULL;
}

static int ends_with(const char *name, const char *end)
{
    size_t n = strlen(name);
    size_t m = strlen(end);

    return n >= m && strcmp(name + n - m, end) == 0;
}

/* Whether this call is to fail; errno says with what. */
static int strikes(enum what what, const char *name)
{
    struct fault *f = &faults[what];
    int32_t times = 0;

    if (name == NULL || ends_with(name, "-shm") || !ends_with(name, f->only)) {
        return 0;
    }
    if (f->delay_ms > 0) {
        const struct timespec pause = { .tv_sec = f->delay_ms / 1000,
                                        .tv_nsec = f->delay_ms % 1000 * 1000000L };

        (void)nanosleep(&pause, NULL);
    }
    times = __atomic_load_n(&f->times, __ATOMIC_SEQ_CST);
    while (times > 0 && !__atomic_compare_exchange_n(&f->times, &times, times - 1, 0,
                                                     __ATOMIC_SEQ_CST, __ATOMIC_SEQ_CST)) {
    }
    if (times == 0) {
        return 0;
    }
    (void)__atomic_add_fetch(&f->met, 1, __ATOMIC_SEQ_CST);
    errno = f->error;
    return 1;
}

static void note(enum op op, const char *name, uint64_t offset, const void *bytes, size_t n)
{
    struct entry entry = {
        .op = op, .name_bytes = (uint32_t)strlen(name), .offset = offset, .bytes = n
    };

    union {
        const void *in;
        void *out;
    } given[2] = { { .in = name }, { .in = bytes } };
    const struct iovec parts[] = { { &entry, sizeof(entry) },
                                   { given[0].out, entry.name_bytes },
                                   { given[1].out, n } };
    int saved = errno;

    if (log_fd >= 0 && !ends_with(name, "-shm") && !ends_with(name, ".lock") &&
        writev(log_fd, parts, 3) != (ssize_t)(sizeof(entry) + entry.name_bytes + n)) {
        _exit(126);
    }
    errno = saved;
}

/* NOLINTBEGIN(readability-inconsistent-declaration-parameter-name): the C library's are its own */

static int opened(const char *path, int existed, int flags, int fd)
{
    const char *name = name_of(path);

    if (fd < 0 || fd >= FDS || name == NULL) {
        return fd;
    }
    (void)snprintf(names[fd], NAME_ROOM, "%s", name);
    if (!existed && (flags & O_CREAT) != 0) {
        note(OP_CREATE, name, 0, NULL, 0);
    }
    if ((flags & O_TRUNC) != 0) {
        note(OP_TRUNCATE, name, 0, NULL, 0);
    }
    return fd;
}

#define OPEN(function)                                                                      \
    int function(const char *path, int flags, ...)                                          \
    {                                                                                       \
        int existed = access(path, F_OK) == 0;                                              \
        va_list more;                                                                       \
        mode_t mode = 0;                                                                    \
                                                                                            \
        va_start(more, flags);                                                              \
        mode = (flags & O_CREAT) != 0 ? va_arg(more, mode_t) : 0;                           \
        va_end(more);                                                                       \
        return opened(path, existed, flags,                                                 \
                      REAL(#function, int (*)(const char *, int, ...))(path, flags, mode)); \
    }
OPEN(open)
OPEN(open64)

int close(int fd)
{
    if (fd >= 0 && fd < FDS) {
        names[fd][0] = '\0';
    }
    return REAL("close", int (*)(int))(fd);
}

static ssize_t written(int fd, const void *bytes, off_t offset, ssize_t n)
{
    if (n > 0 && name_of_fd(fd) != NULL) {
        note(OP_WRITE, name_of_fd(fd), (uint64_t)offset, bytes, (size_t)n);
    }
    return n;
}

#define PWRITE(function)                                                                          \
    ssize_t function(int fd, const void *bytes, size_t n, off_t offset)                           \
    {                                                                                             \
        ssize_t done = 0;                                                                         \
                                                                                                  \
        if (strikes(WRITES, name_of_fd(fd))) {                                                    \
            return -1;                                                                            \
        }                                                                                         \
        (void)pthread_mutex_lock(&order);                                                         \
        done = written(                                                                           \
            fd, bytes, offset,                                                                    \
            REAL(#function, ssize_t(*)(int, const void *, size_t, off_t))(fd, bytes, n, offset)); \
        (void)pthread_mutex_unlock(&order);                                                       \
        return done;                                                                              \
    }
PWRITE(pwrite)
PWRITE(pwrite64)

#define PREAD(function)                                                                    \
    ssize_t function(int fd, void *bytes, size_t n, off_t offset)                          \
    {                                                                                      \
        return strikes(READS, name_of_fd(fd))                                              \
                   ? -1                                                                    \
                   : REAL(#function, ssize_t(*)(int, void *, size_t, off_t))(fd, bytes, n, \
                                                                             offset);      \
    }
PREAD(pread)
PREAD(pread64)

#define FTRUNCATE(function)                                             \
    int function(int fd, off_t size)                                    \
    {                                                                   \
        int rc = -1;                                                    \
                                                                        \
        if (strikes(WRITES, name_of_fd(fd))) {                          \
            return -1;                                                  \
        }                                                               \
        (void)pthread_mutex_lock(&order);                               \
        rc = REAL(#function, int (*)(int, off_t))(fd, size);            \
        if (rc == 0 && name_of_fd(fd) != NULL) {                        \
            note(OP_TRUNCATE, name_of_fd(fd), (uint64_t)size, NULL, 0); \
        }                                                               \
        (void)pthread_mutex_unlock(&order);                             \
        return rc;                                                      \
    }
FTRUNCATE(ftruncate)
FTRUNCATE(ftruncate64)

/* What is written while it syncs is not promised: it comes after the entry, and before it, too, nothing may. */
static int sync_of(int fd, int (*real)(int))
{
    const char *name = name_of_fd(fd);
    int rc = -1;

    if (name == NULL) {
        return real(fd);
    }
    if (strikes(SYNCS, name)) {
        note(OP_SYNC_FAILED, name, 0, NULL, 0);
        return -1;
    }
    (void)pthread_mutex_lock(&order);
    rc = real(fd);
    note(rc != 0                  ? OP_SYNC_FAILED
         : strcmp(name, "/") == 0 ? OP_SYNC_FOLDER
                                  : OP_SYNC,
         name, 0, NULL, 0);
    (void)pthread_mutex_unlock(&order);
    return rc;
}

int fsync(int fd)
{
    return sync_of(fd, REAL("fsync", int (*)(int)));
}

int fdatasync(int fd)
{
    return sync_of(fd, REAL("fdatasync", int (*)(int)));
}

int unlink(const char *path)
{
    int rc = REAL("unlink", int (*)(const char *))(path);

    if (rc == 0 && name_of(path) != NULL) {
        note(OP_UNLINK, name_of(path), 0, NULL, 0);
    }
    return rc;
}

/* NOLINTEND(readability-inconsistent-declaration-parameter-name) */
