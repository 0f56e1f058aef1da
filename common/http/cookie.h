/* http/cookie: reading, filtering and writing cookies (RFC 6265bis). Foreign cookies pass byte for
 * byte, whatever they hold; ours are found by exact name. Pure functions; any thread. */
#pragma once

#include "common/base.h"
#include "common/buf.h"
#include "common/http/head.h"
#include "common/sv.h"

/* Takes the next pair off *header; false at the end. A pair without '=' has an empty name and its
 * text as value, as in browsers. raw_out (may be NULL) is the pair with the blanks around it. */
bool http_cookie_next(struct sv *header, struct sv *name_out, struct sv *value_out,
                      struct sv *raw_out);
/* Values of every cookie of that exact name over all Cookie fields, in order: fills up to cap and
 * returns how many there are. More than one means somebody else set one too: try each or refuse. */
size_t http_cookie_find(const struct http_head *head, struct sv name, struct sv *values,
                        size_t cap);

enum { HTTP_COOKIE_NAMES_MAX = 8 };

/* The cookies that are ours: exact names, and beginnings of names. */
struct http_cookie_names {
    struct sv exact[HTTP_COOKIE_NAMES_MAX];
    struct sv prefix[HTTP_COOKIE_NAMES_MAX];
    size_t n_exact;
    size_t n_prefix;
};

/* The session's cookie and the login's, as the setting cookie_name makes them, and how to tell ours. */
struct http_session_cookies {
    char session[128]; /* __Host-… */
    char login[136];   /* __Host-…_login */
    struct http_cookie_names names;
};

/* name outlives them. They point into themselves: not to be copied. */
void http_session_cookies_init(struct http_session_cookies *cookies, struct sv name);

bool http_cookie_is_ours(const struct http_cookie_names *ours, struct sv name);

enum http_cookie_strip {
    HTTP_COOKIE_EMPTY = 0, /* nothing is left: send no Cookie field */
    HTTP_COOKIE_SAME,      /* none of ours in it: send the value as it is, out is untouched */
    HTTP_COOKIE_STRIPPED   /* out holds the rest */
};

/* Appends the value of one Cookie field without our cookies: "a=1; ours=x; b=2" gives "a=1; b=2",
 * with no blank at either end, which HTTP/2 would refuse.
 * Ask out for its error (its bound) before the result is sent. */
enum http_cookie_strip http_cookie_strip(struct sv header, const struct http_cookie_names *ours,
                                         struct buf *out);
/* The same for all Cookie fields of a head, which become one value: SAME fills out, too. EMPTY: there
 * is none, or nothing is left. */
enum http_cookie_strip http_cookie_strip_all(const struct http_head *head,
                                             const struct http_cookie_names *ours, struct buf *out);

enum http_same_site { HTTP_SAME_SITE_LAX = 0, HTTP_SAME_SITE_STRICT, HTTP_SAME_SITE_NONE };

/* The zero value is a Secure, HttpOnly, Lax session cookie for "/" of this host only. */
struct http_set_cookie {
    struct sv name;
    struct sv value;
    struct sv path;    /* "" means "/" */
    struct sv domain;  /* "" means this host only */
    int64_t max_age_s; /* 0: until the browser closes; below 0: delete now */
    enum http_same_site same_site;
    bool insecure;        /* without Secure */
    bool script_readable; /* without HttpOnly */
};

enum { HTTP_SET_COOKIE_MAX = 4096 };

/* Appends the value of a Set-Cookie field. ERR_INVALID: name, value, path or domain hold what a
 * cookie cannot, or the attributes break the promise of a __Host- or __Secure- name. ERR_LIMIT:
 * over HTTP_SET_COOKIE_MAX, which browsers drop without a word. Nothing is appended on error. */
MUST_CHECK enum err http_set_cookie_add(struct buf *b, const struct http_set_cookie *cookie);
