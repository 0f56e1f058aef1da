/* http/status: why a message was refused, the status that goes with it, reason phrases. */
#pragma once

#include "common/base.h"
#include "common/sv.h"

/* X(suffix, status for a request, stable log name). In a response every fault means 502. */
#define HTTP_FAULTS(X)                                        \
    X(START_LINE, 400, "bad-start-line")                      \
    X(METHOD_UNKNOWN, 501, "unknown-method")                  \
    X(METHOD_REFUSED, 501, "refused-method")                  \
    X(VERSION, 505, "unknown-version")                        \
    X(LINE_END, 400, "bare-cr-or-lf")                         \
    X(CONTROL, 400, "control-byte")                           \
    X(FOLD, 400, "folded-line")                               \
    X(NAME, 400, "bad-field-name")                            \
    X(UNDERSCORE, 400, "underscore-in-name")                  \
    X(DUPLICATE, 400, "duplicate-field")                      \
    X(HOST_MISSING, 400, "missing-host")                      \
    X(HOST, 400, "bad-host")                                  \
    X(HOST_MISMATCH, 400, "host-mismatch")                    \
    X(LENGTH, 400, "bad-content-length")                      \
    X(LENGTH_AND_CODING, 400, "length-and-transfer-encoding") \
    X(CODING, 501, "unknown-transfer-coding")                 \
    X(CODING_VERSION, 400, "transfer-encoding-in-http-1-0")   \
    X(LENGTH_REQUIRED, 411, "length-required")                \
    X(CONNECTION, 400, "bad-connection-list")                 \
    X(EXPECT, 417, "unknown-expectation")                     \
    X(UPGRADE_BODY, 400, "upgrade-with-body")                 \
    X(TARGET, 400, "bad-target")                              \
    X(TARGET_FORM, 400, "bad-target-form")                    \
    X(TARGET_LONG, 414, "target-too-long")                    \
    X(HEAD_LARGE, 431, "head-too-large")                      \
    X(FIELDS_MANY, 431, "too-many-fields")                    \
    X(PATH_BYTE, 400, "path-byte")                            \
    X(PATH_ESCAPE, 400, "path-bad-escape")                    \
    X(PATH_SLASH, 400, "path-escaped-slash")                  \
    X(PATH_DOTS, 400, "path-dot-segment")                     \
    X(PATH_DOUBLE_SLASH, 400, "path-double-slash")            \
    X(PATH_DOUBLE, 400, "path-double-encoding")               \
    X(PATH_UTF8, 400, "path-not-utf8")                        \
    X(CHUNK, 400, "bad-chunk")                                \
    X(CHUNK_LARGE, 400, "chunk-line-too-long")                \
    X(TRAILER, 400, "forbidden-trailer")                      \
    X(STATUS, 400, "bad-status")

/* clang-format off */
enum http_fault {
    HTTP_FAULT_NONE = 0,
#define HTTP_FAULT_ENUM(id, status, text) HTTP_FAULT_##id,
    HTTP_FAULTS(HTTP_FAULT_ENUM)
#undef HTTP_FAULT_ENUM
    HTTP_FAULT_COUNT
};
/* clang-format on */

/* 400, 411, 414, 417, 431, 501 or 505; 400 for anything unknown. */
unsigned http_fault_status(enum http_fault fault);
const char *http_fault_name(enum http_fault fault); /* for logs; "none" for HTTP_FAULT_NONE */
/* "Not Found" and so on (RFC 9110 §15); "Unknown" for a number without a phrase. */
struct sv http_status_reason(unsigned status);
