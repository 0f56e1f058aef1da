/* accept: which header shapes are a person's navigation and which a program's call. */
#include "common/http/accept.h"

#include <stdio.h>
#include <string.h>

#include "test/support/cmocka.h"

#define CHROME_ACCEPT \
    "Accept: text/html,application/xhtml+xml,application/xml;q=0.9,image/avif,image/webp,*/*;q=0.8\r\n"
#define NAV  "Sec-Fetch-Mode: navigate\r\nSec-Fetch-Dest: document\r\nSec-Fetch-Site: none\r\n"
#define CORS "Sec-Fetch-Mode: cors\r\nSec-Fetch-Dest: empty\r\n"

struct row {
    const char *what;
    const char *method;
    const char *fields;
    enum http_client client;
    enum http_media media;
};

static const struct row shapes[] = {
    { "Chrome, typed address", "GET", CHROME_ACCEPT NAV, HTTP_CLIENT_NAVIGATION, HTTP_MEDIA_HTML },
    { "Safari 15, no Sec-Fetch", "GET", CHROME_ACCEPT, HTTP_CLIENT_NAVIGATION, HTTP_MEDIA_HTML },
    { "old Internet Explorer", "GET", "Accept: text/html, */*\r\n", HTTP_CLIENT_NAVIGATION,
      HTTP_MEDIA_HTML },
    { "iframe", "GET", CHROME_ACCEPT "Sec-Fetch-Mode: navigate\r\nSec-Fetch-Dest: iframe\r\n",
      HTTP_CLIENT_NAVIGATION, HTTP_MEDIA_HTML },
    { "navigation without Dest", "GET", "Sec-Fetch-Mode: navigate\r\n", HTTP_CLIENT_NAVIGATION,
      HTTP_MEDIA_JSON },
    { "HEAD of a link checker", "HEAD", CHROME_ACCEPT, HTTP_CLIENT_NAVIGATION, HTTP_MEDIA_HTML },
    { "form post", "POST", CHROME_ACCEPT NAV, HTTP_CLIENT_NAVIGATION, HTTP_MEDIA_HTML },
    { "object element", "GET",
      CHROME_ACCEPT "Sec-Fetch-Mode: navigate\r\nSec-Fetch-Dest: object\r\n", HTTP_CLIENT_API,
      HTTP_MEDIA_HTML },
    { "fetch()", "GET", "Accept: */*\r\n" CORS, HTTP_CLIENT_API, HTTP_MEDIA_JSON },
    { "fetch() asking for HTML", "GET", CHROME_ACCEPT CORS, HTTP_CLIENT_API, HTTP_MEDIA_HTML },
    { "htmx", "GET", "HX-Request: true\r\nAccept: text/html\r\n" CORS, HTTP_CLIENT_API,
      HTTP_MEDIA_HTML },
    { "same-origin fetch", "GET", "Accept: */*\r\nSec-Fetch-Mode: same-origin\r\n", HTTP_CLIENT_API,
      HTTP_MEDIA_JSON },
    { "image", "GET",
      "Accept: image/avif,image/*;q=0.8,*/*;q=0.5\r\nSec-Fetch-Mode: no-cors\r\n"
      "Sec-Fetch-Dest: image\r\n",
      HTTP_CLIENT_API, HTTP_MEDIA_JSON },
    { "image, old browser", "GET", "Accept: image/png,image/*;q=0.8,*/*;q=0.5\r\n", HTTP_CLIENT_API,
      HTTP_MEDIA_JSON },
    { "script", "GET", "Accept: */*\r\nSec-Fetch-Mode: no-cors\r\nSec-Fetch-Dest: script\r\n",
      HTTP_CLIENT_API, HTTP_MEDIA_JSON },
    { "service worker", "GET",
      "Accept: */*\r\nSec-Fetch-Mode: same-origin\r\n"
      "Sec-Fetch-Dest: serviceworker\r\n",
      HTTP_CLIENT_API, HTTP_MEDIA_JSON },
    { "jQuery", "GET", "Accept: text/html, */*; q=0.01\r\nX-Requested-With: XMLHttpRequest\r\n",
      HTTP_CLIENT_API, HTTP_MEDIA_HTML },
    { "axios", "GET", "Accept: application/json, text/plain, */*\r\n", HTTP_CLIENT_API,
      HTTP_MEDIA_JSON },
    { "EventSource", "GET", "Accept: text/event-stream\r\n" CORS, HTTP_CLIENT_API,
      HTTP_MEDIA_JSON },
    { "EventSource, old", "GET", "Accept: text/event-stream\r\n", HTTP_CLIENT_API,
      HTTP_MEDIA_JSON },
    { "WebSocket", "GET", "Connection: Upgrade\r\nUpgrade: websocket\r\n", HTTP_CLIENT_API,
      HTTP_MEDIA_JSON },
    { "WebSocket, new", "GET",
      "Connection: Upgrade\r\nUpgrade: websocket\r\n"
      "Sec-Fetch-Mode: websocket\r\n",
      HTTP_CLIENT_API, HTTP_MEDIA_JSON },
    { "curl", "GET", "User-Agent: curl/8\r\nAccept: */*\r\n", HTTP_CLIENT_API, HTTP_MEDIA_JSON },
    { "no Accept", "GET", "", HTTP_CLIENT_API, HTTP_MEDIA_JSON },
    { "empty Accept", "GET", "Accept:\r\n", HTTP_CLIENT_API, HTTP_MEDIA_JSON },
    { "API asking for JSON", "GET", "Accept: application/json\r\n", HTTP_CLIENT_API,
      HTTP_MEDIA_JSON },
    { "JSON before HTML", "GET", "Accept: application/json, text/html;q=0.9\r\n", HTTP_CLIENT_API,
      HTTP_MEDIA_JSON },
    { "HTML before JSON", "GET", "Accept: text/html, application/json;q=0.9\r\n",
      HTTP_CLIENT_NAVIGATION, HTTP_MEDIA_HTML },
    { "HTML refused", "GET", "Accept: text/html;q=0, */*\r\n", HTTP_CLIENT_API, HTTP_MEDIA_JSON },
    { "xhtml alone", "GET", "Accept: application/xhtml+xml\r\n", HTTP_CLIENT_NAVIGATION,
      HTTP_MEDIA_HTML },
    { "Accept in two fields", "GET", "Accept: image/png\r\nAccept: text/html\r\n",
      HTTP_CLIENT_NAVIGATION, HTTP_MEDIA_HTML },
    { "preflight", "OPTIONS", "Access-Control-Request-Method: PUT\r\n" CORS, HTTP_CLIENT_API,
      HTTP_MEDIA_JSON },
    { "preflight that looks like a page", "OPTIONS", CHROME_ACCEPT NAV, HTTP_CLIENT_API,
      HTTP_MEDIA_HTML },
    { "JSON post", "POST", "Content-Type: application/json\r\nAccept: */*\r\n", HTTP_CLIENT_API,
      HTTP_MEDIA_JSON },
    { "PUT that takes HTML", "PUT", CHROME_ACCEPT, HTTP_CLIENT_API, HTTP_MEDIA_HTML },
    { "DELETE with navigate", "DELETE", CHROME_ACCEPT NAV, HTTP_CLIENT_API, HTTP_MEDIA_HTML },
    { "prefetch", "GET", CHROME_ACCEPT NAV "Sec-Purpose: prefetch;prerender\r\n", HTTP_CLIENT_API,
      HTTP_MEDIA_HTML },
    { "prefetch, old", "GET", CHROME_ACCEPT "Purpose: prefetch\r\n", HTTP_CLIENT_API,
      HTTP_MEDIA_HTML },
    { "gRPC", "POST", "Content-Type: application/grpc\r\nTE: trailers\r\n", HTTP_CLIENT_GRPC,
      HTTP_MEDIA_GRPC },
    { "gRPC with a codec", "POST", "Content-Type: application/grpc+proto; x=y\r\n",
      HTTP_CLIENT_GRPC, HTTP_MEDIA_GRPC },
    { "gRPC-Web", "POST", "Content-Type: application/grpc-web+proto\r\n" CORS, HTTP_CLIENT_API,
      HTTP_MEDIA_GRPC_WEB },
    { "gRPC-Web as text", "POST", "Content-Type: application/grpc-web-text\r\n" CORS,
      HTTP_CLIENT_API, HTTP_MEDIA_GRPC_WEB_TEXT },
    { "no gRPC", "POST", "Content-Type: application/grpcx\r\n", HTTP_CLIENT_API, HTTP_MEDIA_JSON },
    { "Connect", "POST", "Content-Type: application/json\r\nConnect-Protocol-Version: 1\r\n",
      HTTP_CLIENT_API, HTTP_MEDIA_CONNECT },
    { "Connect, a stream", "POST", "Content-Type: application/connect+proto\r\n", HTTP_CLIENT_API,
      HTTP_MEDIA_CONNECT_STREAM },
    { "Connect, a stream in JSON", "POST", "Content-Type: application/connect+json\r\n",
      HTTP_CLIENT_API, HTTP_MEDIA_CONNECT_STREAM_JSON },
    { "kubectl", "GET",
      "User-Agent: kubectl/v1.30.0 (linux/amd64) kubernetes/7c48c2b\r\n"
      "Accept: application/json;as=Table;v=v1;g=meta.k8s.io,application/json\r\n",
      HTTP_CLIENT_API, HTTP_MEDIA_KUBERNETES },
    { "git", "GET", "User-Agent: git/2.39\r\nAccept: */*\r\nPragma: no-cache\r\n", HTTP_CLIENT_API,
      HTTP_MEDIA_JSON },
    { "a user agent alone decides nothing", "GET", "User-Agent: Mozilla/5.0\r\nAccept: */*\r\n",
      HTTP_CLIENT_API, HTTP_MEDIA_JSON },
};

static void header_shapes_tell_people_from_programs(void **state)
{
    size_t i = 0;

    (void)state;
    for (i = 0; i < ARRAY_LEN(shapes); i++) {
        struct http_field fields[16];
        struct http_head head;
        char text[1024];

        (void)snprintf(text, sizeof(text), "%s / HTTP/1.1\r\nHost: a\r\n%s\r\n", shapes[i].method,
                       shapes[i].fields);
        http_head_init(&head, HTTP_REQUEST, NULL, fields, ARRAY_LEN(fields));
        assert_int_equal(http_head_parse(&head, sv_from(text)), HTTP_DONE);
        if (http_accept_client(&head) != shapes[i].client ||
            http_accept_media(&head) != shapes[i].media) {
            print_error("%s\n", shapes[i].what);
        }
        assert_int_equal(http_accept_client(&head), shapes[i].client);
        assert_int_equal(http_accept_media(&head), shapes[i].media);
    }
}

static void quality_is_the_most_specific_ranges(void **state)
{
    static const struct {
        const char *accept;
        unsigned q;
        bool named;
    } rows[] = {
        { "", 1000, false },
        { "text/html", 1000, true },
        { "TEXT/HTML;level=1;Q=0.5", 500, true },
        { "text/html ; q=0.123", 123, true },
        { "text/*;q=0.3, text/html;q=0.7, */*;q=0.5", 700, true },
        { "text/*;q=0.3, */*;q=0.5", 300, false },
        { "*/*;q=0.5", 500, false },
        { "text/html;q=0", 0, true },
        { "text/html;q=1.000", 1000, true },
        { "text/html;q=1.5", 1000, true },
        { "text/html;q=2", 0, true },
        { "text/html;q=", 0, true },
        { "text/html;q=0.1234", 0, true },
        { "text/html;q=.5", 0, true },
        { "text/html;q=0,5", 0, true },
        { "text/htm, text/htmlx, xtext/html", 0, false },
        { ",,;,", 0, false },
    };

    size_t i = 0;

    (void)state;
    for (i = 0; i < ARRAY_LEN(rows); i++) {
        bool named = false;

        assert_int_equal(http_accept_quality(sv_from(rows[i].accept), SV("text/html"), &named),
                         rows[i].q);
        assert_int_equal(named, rows[i].named);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(header_shapes_tell_people_from_programs),
        cmocka_unit_test(quality_is_the_most_specific_ranges),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
