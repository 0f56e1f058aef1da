#include "common/http/status.h"

struct fault_row {
    const char *name;
    unsigned status;
};

static const struct fault_row fault_rows[HTTP_FAULT_COUNT] = { [HTTP_FAULT_NONE] = { "none", 400 },
#define FAULT_ROW(id, code, text) [HTTP_FAULT_##id] = { text, code },
                                                               HTTP_FAULTS(FAULT_ROW)
#undef FAULT_ROW
};

unsigned http_fault_status(enum http_fault fault)
{
    return (unsigned)fault < HTTP_FAULT_COUNT ? fault_rows[fault].status : 400;
}

const char *http_fault_name(enum http_fault fault)
{
    return (unsigned)fault < HTTP_FAULT_COUNT ? fault_rows[fault].name : "unknown";
}

struct phrase {
    unsigned status;
    const char *text;
};

static const struct phrase phrases[] = {
    { 100, "Continue" },
    { 101, "Switching Protocols" },
    { 103, "Early Hints" },
    { 200, "OK" },
    { 201, "Created" },
    { 202, "Accepted" },
    { 203, "Non-Authoritative Information" },
    { 204, "No Content" },
    { 205, "Reset Content" },
    { 206, "Partial Content" },
    { 207, "Multi-Status" },
    { 300, "Multiple Choices" },
    { 301, "Moved Permanently" },
    { 302, "Found" },
    { 303, "See Other" },
    { 304, "Not Modified" },
    { 307, "Temporary Redirect" },
    { 308, "Permanent Redirect" },
    { 400, "Bad Request" },
    { 401, "Unauthorized" },
    { 402, "Payment Required" },
    { 403, "Forbidden" },
    { 404, "Not Found" },
    { 405, "Method Not Allowed" },
    { 406, "Not Acceptable" },
    { 407, "Proxy Authentication Required" },
    { 408, "Request Timeout" },
    { 409, "Conflict" },
    { 410, "Gone" },
    { 411, "Length Required" },
    { 412, "Precondition Failed" },
    { 413, "Content Too Large" },
    { 414, "URI Too Long" },
    { 415, "Unsupported Media Type" },
    { 416, "Range Not Satisfiable" },
    { 417, "Expectation Failed" },
    { 421, "Misdirected Request" },
    { 422, "Unprocessable Content" },
    { 423, "Locked" },
    { 425, "Too Early" },
    { 426, "Upgrade Required" },
    { 428, "Precondition Required" },
    { 429, "Too Many Requests" },
    { 431, "Request Header Fields Too Large" },
    { 450, "Device Not Authorized" },       /* Pomerium's */
    { 495, "Client Certificate Required" }, /* nginx's */
    { 500, "Internal Server Error" },
    { 501, "Not Implemented" },
    { 502, "Bad Gateway" },
    { 503, "Service Unavailable" },
    { 504, "Gateway Timeout" },
    { 505, "HTTP Version Not Supported" },
    { 507, "Insufficient Storage" },
    { 511, "Network Authentication Required" },
};

struct sv http_status_reason(unsigned status)
{
    size_t i = 0;

    for (i = 0; i < ARRAY_LEN(phrases); i++) {
        if (phrases[i].status == status) {
            return sv_from(phrases[i].text);
        }
    }
    return SV("Unknown");
}
