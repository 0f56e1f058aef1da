/* postern docs: parts of the manual that are made from the program. For those who build it. */
#include <stdio.h>
#include <string.h>

#include "cli/command.h"

enum { DOCS_MAX = 1024 * 1024 };

int cli_docs_main(int argc, char **argv)
{
    struct buf text;
    int code = 0;

    if (argc != 2 || strcmp(argv[1], "config") != 0) {
        (void)fputs("usage: postern docs config > docs/configuration.md\n", stderr);
        return 2;
    }
    buf_init(&text, DOCS_MAX);
    config_docs(&text);
    code = fwrite(text.p, 1, text.n, stdout) == text.n && fflush(stdout) == 0 ? 0 : 1;
    buf_deinit(&text);
    return code;
}
