/* advice: what of a configuration is no mistake but hardly meant: routes that no request reaches, rules
 * that can never hold or change nothing, groups that nobody is in. One thread. */
#pragma once

#include "cli/broker.h"
#include "common/config/config.h"

/* One sentence each, "file:line:column: …", at most CONFIG_ADVICE_MAX of each kind. */
void cli_advise_routes(const struct config *config, config_advice_fn fn, void *arg);
void cli_advise_policies(const struct config *config, config_advice_fn fn, void *arg);
/* Of the users of a file, else of broker's. False: they cannot be had, which was said. */
bool cli_advise_groups(const struct config *config, const char *users,
                       const struct cli_broker *broker, config_advice_fn fn, void *arg);
