/* config_watch: follows the configuration file and every file it names, and hands over each new
 * state exactly once. It looks twice a second at inode, size, times and, where those differ, at the
 * contents: a rename over the file, a swapped symbolic link (Kubernetes) and truncate-then-write all
 * count, a touched file with the old bytes does not. A change is read when it has stood still for
 * one look. What does not pass the checks is logged as config.rejected with its places, and the last
 * good configuration stays. Beyond 2000 files it looks less often: every 5 s at 20,000.
 * Runs on its loop's thread; the reading of files does, too: they are small and local. */
#pragma once

#include "common/base.h"
#include "common/config/config.h"
#include "common/diag.h"
#include "common/loop.h"

struct config_watch;

/* Takes a configuration into use; keeps a reference (config_ref) of what it needs. On an error d has the
 * reason, nothing has changed, and the watcher goes on with the old one. */
typedef enum err (*config_apply_fn)(const struct config *config, struct diag *d, void *arg);

/* current: what was loaded with opts already; referenced. opts->file and env outlive the watch. */
struct config_watch *config_watch_new(struct loop *loop, const struct config_opts *opts,
                                      const struct config *current, config_apply_fn apply,
                                      void *arg);
void config_watch_free(struct config_watch **watch);
/* Looks at once, without waiting for the file to stand still (SIGHUP). */
void config_watch_now(struct config_watch *watch);
/* The last good configuration; borrowed until the next turn. */
const struct config *config_watch_current(const struct config_watch *watch);

struct config_watch_state {
    uint64_t generation;    /* 1 at the start, +1 with every configuration that was applied */
    uint64_t rejected;      /* how many were not */
    int64_t applied_at_ms;  /* wall time */
    bool last_was_rejected; /* what lies on disk now is not what is used */
};

void config_watch_state(const struct config_watch *watch, struct config_watch_state *state_out);
