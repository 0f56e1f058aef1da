/* authn_program: the last step of a login that a program began (docs/login.md): the person says yes,
 * then the browser brings what the program gets to where it listens on the same machine (RFC 8252). A
 * link to this page can be made by anybody, and anybody on the machine may listen there, so without
 * that yes nothing leaves (RFC 8252 §8.6). */
#pragma once

#include "authenticate/request.h"

/* Shows the question for req->session and req->flow. */
void authn_program_ask(struct authn_request *req);
/* POST /.pomerium/program: yes. */
void authn_program_form(struct authn_request *req);
/* Where the program of req->flow wants to go, for people. */
struct sv authn_program_name(const struct authn_request *req);
