/* audit: whole lines from one thread to a place that keeps them. Lines gather with their maker and are
 * handed over once a batch; a thread of its own chains and writes them, so that a disk that stands
 * still delays nobody who does not wait for it. A line that cannot be written is kept and tried again,
 * at most AUDIT_MAX bytes wait; what comes beyond is lost, counted, and told on standard error
 * (audit.lost).
 *
 * Each line has a number, 1, 2, …; audit_written says up to which they are written: what that means
 * depends on the sink (sink.h). One thread makes the lines; what is marked "any thread" may be
 * called by others, too. */
#pragma once

#include "common/audit/sink.h"
#include "common/base.h"
#include "common/buf.h"
#include "common/config/config.h"
#include "common/diag.h"

enum {
    AUDIT_MAX = 16 * 1024 * 1024, /* that wait; as much again may be in the writer's hands */
    AUDIT_LINE_MAX = 256 * 1024,  /* no line is longer; so much room is made sure of */
    AUDIT_GATHER_MS = 5
};

struct audit;

struct audit_opts {
    const struct config *config; /* its audit settings and keys; a reference is kept */
    /* Lines that somebody waits for were written, or writing begins to fail: on the writer's thread,
     * without a lock held. NULL: nobody wants to know. */
    void (*on_news)(void *arg);
    void *arg;
    /* Writing begins to fail, or works again; on the writer's thread. NULL: nobody wants to know. */
    void (*on_works)(void *arg, bool works);
    void *works_arg;
};

/* Opens the sink. ERR_IO, ERR_INVALID, ERR_EXISTS and a sentence: it cannot be had. */
MUST_CHECK enum err audit_new(const struct audit_opts *opts, struct audit **audit_out,
                              struct diag *d);
/* Writes what waits, tries once where writing fails, then ends the thread. */
void audit_free(struct audit **audit);
/* Other settings, from the next write on; what waits goes to the new sink. Any thread.
 * ERR_IO, ERR_INVALID and a sentence: nothing has changed. */
MUST_CHECK enum err audit_set(struct audit *audit, const struct config *config, struct diag *d);

/* Where the next line is appended, with its line break; then audit_added tells its number. */
struct buf *audit_line(struct audit *audit);
uint64_t audit_added(struct audit *audit);
/* The number of the newest line that was added. */
uint64_t audit_made(const struct audit *audit);
/* Hands the added lines over. urgent: somebody waits for them. False: there was no room, they are
 * lost and will never count as written. */
bool audit_flush(struct audit *audit, bool urgent);

/* Whether a line that is added now will find room, and writing does not fail. Costs two reads. */
bool audit_works(const struct audit *audit);
/* Whether waiting for audit_written makes sense; else a line counts once it is handed over. */
bool audit_confirms(const struct audit *audit);
/* The newest line that is written, with all before it but lost ones. Any thread. */
uint64_t audit_written(const struct audit *audit);
/* Lines lost since the start. Any thread. */
uint64_t audit_lost(const struct audit *audit);
