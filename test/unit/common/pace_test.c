/* pace: a thread that has to wait stops being batch work, but never in a crowd, nor for long in vain. */
#include "common/pace.h"

#include <pthread.h>
#include <sched.h>
#include <unistd.h>

#include "test/support/cmocka.h"

static const uint64_t long_ns = 4000000;

static void note(struct pace *p, bool crowd, unsigned times)
{
    for (unsigned i = 0; i < times; i++) {
        pace_note(p, crowd);
    }
}

/* Each test on a thread of its own, which is batch work as in a daemon. */
static void *on_thread(void *test)
{
    const struct sched_param none = { 0 };

    assert_int_equal(sched_setscheduler(0, SCHED_BATCH, &none), 0);
    (*(void (**)(void))test)();
    return NULL;
}

static void run(void (*test)(void))
{
    pthread_t thread;

    assert_int_equal(pthread_create(&thread, NULL, on_thread, &test), 0);
    assert_int_equal(pthread_join(thread, NULL), 0);
}

/* As if it had waited so long for each of ten slices since the last look. */
static void wait_for(struct pace *p, uint64_t ns)
{
    pace_judge(p, p->wait_ns + 10 * ns, p->slices + 10);
}

/* Without a crowd for long enough; how long this thread really waited decides nothing here. */
static void calm(struct pace *p)
{
    p->calm = 2 * PACE_LOOK;
    assert_int_equal(sched_getscheduler(0), SCHED_BATCH);
}

static void waits(void)
{
    struct pace p = { 0 };

    calm(&p);
    wait_for(&p, PACE_WAIT_NS - 1);
    assert_int_equal(sched_getscheduler(0), SCHED_BATCH);
    for (unsigned respite = PACE_RESPITE_MIN; respite <= PACE_RESPITE_MAX; respite *= 2) {
        wait_for(&p, long_ns);
        assert_int_equal(sched_getscheduler(0), SCHED_OTHER);
        note(&p, false, respite - 1);
        assert_int_equal(sched_getscheduler(0), SCHED_OTHER);
        note(&p, false, 1);
        assert_int_equal(sched_getscheduler(0), SCHED_BATCH);
        calm(&p);
    }
    wait_for(&p, long_ns);
    note(&p, false, PACE_RESPITE_MAX);
    calm(&p);
    wait_for(&p, 0);
    wait_for(&p, long_ns);
    assert_int_equal(p.respite, PACE_RESPITE_MIN);
}

static void a_thread_that_has_to_wait_is_no_batch_work_for_a_while(void **state)
{
    (void)state;
    run(waits);
}

static void crowds(void)
{
    struct pace p = { 0 };

    calm(&p);
    note(&p, true, 1000);
    wait_for(&p, long_ns); /* that is how a crowd gathers */
    assert_int_equal(sched_getscheduler(0), SCHED_BATCH);
    note(&p, false, PACE_LOOK);
    wait_for(&p, long_ns); /* of the crowd's time */
    assert_int_equal(sched_getscheduler(0), SCHED_BATCH);
    calm(&p);
    wait_for(&p, long_ns);
    assert_int_equal(sched_getscheduler(0), SCHED_OTHER);
    for (int i = 0; i < 100; i++) {
        note(&p, true, PACE_LOOK - 1);
        note(&p, false, 1);
        assert_int_equal(sched_getscheduler(0), SCHED_OTHER);
    }
    note(&p, true, PACE_LOOK);
    assert_int_equal(sched_getscheduler(0), SCHED_BATCH);
}

static void a_crowd_is_always_batch_work(void **state)
{
    (void)state;
    run(crowds);
}

static void idles(void)
{
    const struct sched_param none = { 0 };
    struct pace p = { 0 };

    calm(&p);
    assert_int_equal(sched_setscheduler(0, SCHED_IDLE, &none), 0);
    wait_for(&p, long_ns);
    assert_int_equal(sched_getscheduler(0), SCHED_IDLE);
    note(&p, true, 1000);
    assert_int_equal(sched_getscheduler(0), SCHED_IDLE);
}

static void a_policy_that_somebody_set_stays(void **state)
{
    (void)state;
    run(idles);
}

static void looks(void)
{
    struct pace p = { 0 };
    uint64_t slices = 0;

    note(&p, false, PACE_LOOK);
    slices = p.slices;
    assert_true(slices > 0 || access("/proc/thread-self/schedstat", R_OK) != 0);
    (void)usleep(1000);
    note(&p, false, PACE_LOOK);
    assert_true(p.slices > slices || slices == 0); /* not what it told before */
    pace_deinit(&p);
    pace_deinit(&p);
}

static void what_the_kernel_tells_of_waits_is_read(void **state)
{
    (void)state;
    run(looks);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_thread_that_has_to_wait_is_no_batch_work_for_a_while),
        cmocka_unit_test(a_crowd_is_always_batch_work),
        cmocka_unit_test(a_policy_that_somebody_set_stays),
        cmocka_unit_test(what_the_kernel_tells_of_waits_is_read),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
