/* command: one word of `postern WORD …`. main gets argv from the word on; it prints for people and
 * returns the exit code: 0 done, 1 refused or failed, 2 used wrongly. */
#pragma once

#include "common/base.h"
#include "common/buf.h"
#include "common/config/config.h"
#include "common/rpc/client.h"

typedef int (*cli_main_fn)(int argc, char **argv);

struct cli_command {
    const char *name;
    const char *summary;
    cli_main_fn main;
};

int cli_up_main(int argc, char **argv);
int cli_demo_main(int argc, char **argv);
int cli_policy_main(int argc, char **argv);
int cli_explain_main(int argc, char **argv);
int cli_sessions_main(int argc, char **argv);
int cli_users_main(int argc, char **argv);
int cli_whoami_main(int argc, char **argv);
int cli_import_main(int argc, char **argv);
int cli_import_directory_main(int argc, char **argv);
int cli_audit_main(int argc, char **argv);
int cli_databroker_main(int argc, char **argv);
int cli_token_main(int argc, char **argv);
int cli_tcp_main(int argc, char **argv);
int cli_ca_main(int argc, char **argv);
int cli_validate_main(int argc, char **argv);
int cli_healthcheck_main(int argc, char **argv);
int cli_hash_main(int argc, char **argv);
int cli_docs_main(int argc, char **argv);
int cli_init_main(int argc, char **argv);

/* "postern: " and the sentence on standard error; returns code. */
int cli_fail(int code, const char *fmt, ...) PRINTF_LIKE(2, 3);

/* Replaces, in place, each byte of a control character (C0, DEL, and C1 as UTF-8 has it) by '?': what
 * came from outside must not steer the terminal that it is printed on. Returns text. */
char *cli_tame(char *text);

/* The configuration that $POSTERN_CONFIG names, else file, else ./run/config.yaml. Prints every
 * mistake. NULL: it cannot be used. */
struct config *cli_config(const char *file);

struct cli_mistakes {
    size_t closing; /* each closes the routes that it applies to */
    size_t shadow;  /* in shadow policies: they close nothing */
};

/* Prints what is wrong with its policies; how many mistakes there are. */
struct cli_mistakes cli_policies_tell(const struct config *config);
/* Prints every mistake. */
void cli_errors_tell(const struct config_errors *errors);

/* "24h", "90m", "3600s", "7d" in seconds; ERR_INVALID. */
MUST_CHECK enum err cli_duration(const char *text, int64_t *seconds_out);

/* Asks the health listener at host:port or unix:/path; bounded by 3 s. */
bool cli_is_ready(const char *address);

/* Appends the yescrypt hash of password. ERR_UNSUPPORTED: libcrypt knows none. */
MUST_CHECK enum err cli_hash_password(const char *password, struct buf *out);
