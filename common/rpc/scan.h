/* rpc_scan: foreign protobuf bytes are looked through before they are unpacked. protobuf-c has no
 * nesting limit, cuts strings at NUL and does not check UTF-8; a peer could use each of these.
 * rpc_unpack is the one way from bytes to a message in every daemon; what CheckStream carries for each
 * request is read field by field under the same rules (wire.h). Pure; any thread. */
#pragma once

#include <protobuf-c/protobuf-c.h>

#include "common/arena.h"
#include "common/base.h"
#include "common/sv.h"

enum { RPC_DEPTH_MAX = 64, RPC_FIELDS_MAX = 1000000 };

/* ERR_INVALID: truncated, wrong wire type for a known field, a number of more than 64 bits, NUL or bad
 * UTF-8 in a string.
 * ERR_LIMIT: nested deeper than RPC_DEPTH_MAX, more fields than RPC_FIELDS_MAX. */
MUST_CHECK enum err rpc_scan(const ProtobufCMessageDescriptor *type, struct sv bytes);

/* Scans, then unpacks. The message lives in arena, or with arena NULL is the caller's to free with
 * protobuf_c_message_free_unpacked(m, NULL). */
MUST_CHECK enum err rpc_unpack(const ProtobufCMessageDescriptor *type, struct sv bytes,
                               struct arena *arena, ProtobufCMessage **message_out);
