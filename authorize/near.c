#include "authorize/near.h"

enum { CROWD = 4, IDLE_MS = 1000 };

void authz_near_note(struct authz_near *near, const void *asker, size_t n_checks, unsigned place,
                     int64_t now_ms)
{
    bool same = asker == near->asker && place == near->place;
    bool fit = n_checks < CROWD && place != 0 && same;

    if (now_ms - near->asked_ms > IDLE_MS) {
        home_leave(&near->home);
    }
    near->asker = asker;
    near->place = place;
    near->asked_ms = now_ms;
    near->home.led = true;
    pace_note(&near->pace, n_checks >= CROWD);
    if (home_note(&near->home, fit && !near->pace.eager)) {
        home_look(&near->home, place);
    }
}

void authz_near_deinit(struct authz_near *near)
{
    pace_deinit(&near->pace);
}
