/* loop: one thread with one event_base; owner of all mutable state made on it.
 * libevent's thread support is switched on by loop_new. */
#pragma once

#include <event2/event.h>

#include "common/base.h"

struct loop;

struct loop *loop_new(void);
/* The same without libevent's locks, for data paths: nothing but loop_post and loop_stop may touch it
 * from another thread. */
struct loop *loop_new_private(void);
void loop_free(struct loop **loop);
struct event_base *loop_base(struct loop *loop);
/* Runs until loop_stop. The calling thread becomes the loop's thread. */
typedef void (*loop_fn)(void *arg);
void loop_run(struct loop *loop);
/* One write can carry what many callbacks gathered: the first of them calls loop_gather, and flush
 * runs once when nothing else is ready, before the loop would wait; after 8 turns at the latest.
 * Set the hook before loop_run. Loop thread only. */
void loop_on_flush(struct loop *loop, loop_fn flush, void *arg);
void loop_gather(struct loop *loop);
/* Nobody else is at work, so nothing more is to be expected: what is gathered leaves with this turn. */
void loop_hurry(struct loop *loop);
/* Work that can wait, because what it is done for takes more than its share: late runs once at the end
 * of a turn for which loop_late was called, behind everything that is ready and the flush, which does
 * not wait for it. Set the hook before loop_run. Loop thread only. */
void loop_on_late(struct loop *loop, loop_fn late, void *arg);
void loop_late(struct loop *loop);
void loop_stop(struct loop *loop); /* any thread */
/* Runs fn on the loop's thread, in order; any thread. Lost if the loop never runs again. */
void loop_post(struct loop *loop, loop_fn fn, void *arg);
/* Runs fn at the end of this turn, when no callback is running: for freeing what a caller up
 * the stack may still touch. Loop thread only. */
void loop_defer(struct loop *loop, loop_fn fn, void *arg);
/* Calls fn every ms, first after ms; calls that are late come as one. fn may free it. By a descriptor: while libevent has
 * no time to watch, the loop waits without a timer of the kernel, whose start and end are a tenth of what
 * a wait costs. Loop thread, or before loop_run. */
struct loop_tick;
struct loop_tick *loop_tick_new(struct loop *loop, unsigned ms, loop_fn fn, void *arg);
void loop_tick_free(struct loop_tick **tick);
/* Raises an event in the next turn, for bytes of which no event tells any more: OpenSSL has read them
 * ahead, or the event is edge-triggered. This turn ends after the
 * callback: one that raises itself again and again holds up nobody. Loop thread only. */
void loop_raise(struct loop *loop, struct event *event);
bool loop_is_mine(const struct loop *loop);
#define LOOP_CHECK_THREAD(loop) CHECK(loop_is_mine(loop))
