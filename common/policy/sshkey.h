/* policy_sshkey: OpenSSH public keys and user certificates. Sources: sshd(8) AUTHORIZED_KEYS,
 * RFC 4253 6.6, OpenSSH's PROTOCOL.certkeys. Internal to common/policy; any thread. */
#pragma once

#include "common/arena.h"
#include "common/base.h"
#include "common/policy/input.h"
#include "common/policy/set.h"
#include "common/sv.h"

enum { POLICY_SSHKEY_MAX = 16 * 1024 };

/* "type base64 comment", without options, as wire bytes in the arena. ERR_INVALID. */
MUST_CHECK enum err policy_sshkey_parse(struct sv text, struct arena *arena, struct sv *wire_out);
/* Whether ssh->publickey is a user certificate that a CA of the set signed: valid at that second,
 * naming the login as principal, without critical options. Allocates inside OpenSSL. */
bool policy_sshkey_signed(const struct policy_ssh *ssh, const struct policy_set *cas,
                          int64_t wall_s);
