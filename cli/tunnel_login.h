/* tunnel_login: a token for a tunnel through the person's browser (docs/login.md), and the file that
 * keeps it for the next time: in $XDG_CACHE_HOME/postern or ~/.cache/postern, for its owner alone.
 * Blocking. */
#pragma once

#include "cli/tunnel.h"

enum { CLI_TOKEN_MAX = 8192 };

struct cli_tunnel_login {
    const struct cli_tunnel_way *way;
    const char *browser; /* program that opens an address; NULL: xdg-open, "": none */
};

/* Says on standard error which address to open, and waits. *token_out is for mem_free. ERR_TIMEOUT:
 * nobody came; others: d says why. */
MUST_CHECK enum err cli_tunnel_login(const struct cli_tunnel_login *login, char **token_out,
                                     struct diag *d);
/* NULL: none is kept. */
char *cli_tunnel_kept(const struct cli_tunnel_way *way);
/* A token that cannot be kept is no failure: it is said, and the next time begins with a login. */
void cli_tunnel_keep(const struct cli_tunnel_way *way, const char *token);
void cli_tunnel_forget(const struct cli_tunnel_way *way);
