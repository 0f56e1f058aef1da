/* authn_page: the pages people see while they sign in and out. Every value is escaped here. */
#pragma once

#include <jansson.h>

#include "common/base.h"
#include "common/buf.h"
#include "common/sv.h"

struct authn_page_login {
    struct sv token; /* sealed; goes into the form */
    struct sv email; /* what was typed before */
    struct sv note;  /* "" none */
    struct sv app;   /* host that the person is on the way to */
    struct sv request_id;
};

void authn_page_login(struct buf *b, const struct authn_page_login *page);

struct authn_page_program {
    struct sv token; /* sealed; goes into the form */
    struct sv what;  /* where the program wants to go */
    struct sv who;   /* in whose name */
    struct sv request_id;
};

void authn_page_program(struct buf *b, const struct authn_page_program *page);

struct authn_page_user {
    struct sv name;
    struct sv email;
    struct sv user_id;
    const json_t *groups; /* list of texts */
    int64_t expires_at_s; /* of the session; 0: not known */
    struct sv sign_out;   /* where its link goes */
    struct sv request_id;
};

void authn_page_user(struct buf *b, const struct authn_page_user *page);
/* token: sealed; goes into the form. */
void authn_page_sign_out(struct buf *b, struct sv token, struct sv who, struct sv request_id);
void authn_page_signed_out(struct buf *b, struct sv request_id);
