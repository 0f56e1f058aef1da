/* authn_proof: gRPC postern.Login/Token: a token of somebody else, shown by a program, becomes a session.
 *
 *   route says which ─▶ iss names the issuer ─▶ keys known? ─no─▶ fetch (kids.h) ─┐
 *                                                  ▼ ◀──────────────────────────┘
 *   signature, alg, iss, aud, exp, nbf ──not all──▶ UNAUTHENTICATED
 *                │ hold        (nothing to read in it: the provider says what it is, inspector.h)
 *                ▼
 *   session of this token there? ─yes─▶ answer
 *                │ no
 *                ▼
 *   lease "bearer/<session>", until the token's end ─▶ records Put ─▶ answer
 *                └── held: the session was there and was ended ─▶ UNAUTHENTICATED
 *
 * The session's id is made of the token, so every proxy finds the same one, and the lease is what makes
 * a revocation last: the same token makes no second session. Loop thread. */
#pragma once

#include "authenticate/app.h"

void authn_proof_on_token(struct rpc_call *call, const ProtobufCMessage *request, void *arg);
/* Ends all that is under way. */
void authn_proof_cancel(struct authn *app);
