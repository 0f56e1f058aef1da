#include "common/http/method.h"

static const struct sv texts[HTTP_METHOD_COUNT] = {
#define METHOD_TEXT(m) [HTTP_##m] = { .p = #m, .n = sizeof(#m) - 1 },
    HTTP_METHODS(METHOD_TEXT)
#undef METHOD_TEXT
};

enum http_method http_method_id(struct sv text)
{
    unsigned i = 0;

    /* The table begins with the frequent ones. */
    for (i = HTTP_GET; i < HTTP_METHOD_COUNT; i++) {
        if (texts[i].n == text.n && texts[i].p[0] == text.p[0] && sv_eq(texts[i], text)) {
            return (enum http_method)i;
        }
    }
    return HTTP_UNKNOWN;
}

struct sv http_method_text(enum http_method method)
{
    return (unsigned)method < HTTP_METHOD_COUNT ? texts[method] : SV("");
}

bool http_method_is_safe(enum http_method method)
{
    return method == HTTP_GET || method == HTTP_HEAD || method == HTTP_OPTIONS ||
           method == HTTP_TRACE || method == HTTP_PROPFIND || method == HTTP_REPORT ||
           method == HTTP_SEARCH || method == HTTP_QUERY;
}
