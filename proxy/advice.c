#include "proxy/advice.h"

#include <event2/event.h>

#include "common/clock.h"
#include "common/log.h"
#include "common/mem.h"

enum { DAY_S = 86400 };

struct proxy_advice {
    struct event *daily;
    struct config *config; /* NULL: none yet */
};

static void say(const char *sentence, void *arg)
{
    (void)arg;
    log_warn("config.advice", KV_STR("advice", sentence));
}

static void on_day(evutil_socket_t fd, short what, void *arg)
{
    const struct proxy_advice *a = arg;

    (void)fd;
    (void)what;
    if (a->config != NULL) {
        config_advise(a->config, clock_wall_s(), say, NULL);
    }
}

struct proxy_advice *proxy_advice_new(struct loop *loop)
{
    struct proxy_advice *a = MEM_NEW(struct proxy_advice);
    struct timeval day = { .tv_sec = DAY_S };

    a->daily = event_new(loop_base(loop), -1, EV_PERSIST, on_day, a);
    CHECK(a->daily != NULL && event_add(a->daily, &day) == 0);
    return a;
}

void proxy_advice_free(struct proxy_advice **advice)
{
    struct proxy_advice *a = TAKE(*advice);

    if (a != NULL) {
        event_free(a->daily);
        config_unref(&a->config);
        mem_free(&a);
    }
}

void proxy_advice_set(struct proxy_advice *advice, const struct config *config)
{
    config_unref(&advice->config);
    advice->config = config_ref(config);
    config_advise(config, clock_wall_s(), say, NULL);
}
