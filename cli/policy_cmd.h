/* policy_cmd: `postern policy WORD …`; as the commands of command.h. */
#pragma once

int cli_policy_diff_main(int argc, char **argv);
