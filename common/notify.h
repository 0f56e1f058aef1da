/* notify: one datagram to systemd (sd_notify(3)): READY=1, STOPPING=1. Nothing happens where
 * NOTIFY_SOCKET is not set. Any thread. */
#pragma once

void notify_systemd(const char *state);
