/* proxy_dial: begins a connection to a daemon of ours. The socket is non-blocking; a host that is not
 * numeric would be looked up, which waits: callers give a numeric one. Any thread. */
#pragma once

/* target: "unix:/path" or "host:port". Returns the socket, connected or about to be (writable then,
 * SO_ERROR tells); the caller closes it. -1: nobody listens there. */
int proxy_dial(const char *target);
