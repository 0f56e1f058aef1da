/* cli_policy: `postern policy test FILE`. */
#pragma once

/* argv[0] is "policy". Returns the process's exit code: 0 all cases hold, 1 some do not, 2 the file
 * or the command line is unusable. */
int cli_policy_main(int argc, char **argv);
