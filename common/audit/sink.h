/* audit_sink: where lines of the audit go. Used by the writer's thread alone, but for audit_sink_check.
 *
 * What "written" means, and what is lost when:
 *   stdout    write(2) took it: survives our end, whatever it is. What reads the pipe must keep it
 *   file      the same, or with audit.fsync fdatasync(2) returned: survives the loss of power, too
 *   syslog    the local daemon's socket took it; nothing is known about what it does with it
 *   journald  likewise
 *   otlp      the collector said 200. Nobody waits for that: a line counts once it waits in memory,
 *             and those are lost when we end by force */
#pragma once

#include "common/audit/chain.h"
#include "common/base.h"
#include "common/config/config.h"
#include "common/diag.h"
#include "common/sv.h"

struct audit_sink;

/* What opening found. */
struct audit_place {
    bool is_new; /* nothing of ours stands before: a chain writes its opening line */
    struct sv
        last; /* the last whole line of what stands there, borrowed until the next call; or empty */
};

struct audit_sink_ops {
    /* Makes it ready for one more batch: opens, turns over to the next file where it is time. Where
     * nothing changed *place_out is all zero. On an error d has a sentence. */
    enum err (*open)(struct audit_sink *sink, struct audit_place *place_out, struct diag *d);
    /* Writes lines; *done_out: so many bytes need not be written again, also on an error. */
    enum err (*write)(struct audit_sink *sink, struct sv lines, size_t *done_out, struct diag *d);
    void (*close)(struct audit_sink *sink); /* frees it */
    bool confirms;                          /* written is soon: somebody may wait for it */
    bool is_remote;                         /* its absence is no reason not to start */
    int64_t retry_max_ms;
};

struct audit_sink {
    const struct audit_sink_ops *ops;
};

/* config: a reference is kept where needed. Opens nothing yet. */
struct audit_sink *audit_sink_new(const struct config *config);
void audit_sink_close(struct audit_sink **sink);
/* Whether the settings can work as things are now; any thread. ERR_IO and a sentence. */
MUST_CHECK enum err audit_sink_check(const struct config *config, struct diag *d);

/* What several sinks need: writes all; like the operation. */
MUST_CHECK enum err audit_write_fd(int fd, struct sv lines, size_t *done_out, struct diag *d);

struct audit_sink *audit_stdout_new(const struct config *config);
struct audit_sink *audit_syslog_new(const struct config *config); /* journald, too */
struct audit_sink *audit_otlp_new(const struct config *config);
struct audit_sink *audit_file_new(const struct config *config);
/* Appends the file's name. */
void audit_file_name(const struct config *config, struct buf *out);
