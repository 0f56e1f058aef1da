#include "common/http/problem.h"

#include "common/http/status.h"

enum { TEXT_MAX = 8192 };

static struct http_problem_words words_of_status(unsigned status, bool allowed)
{
    switch (status) {
    case 401:
        return (struct http_problem_words){ "Please log in", "This address needs a login.",
                                            "Open it in a browser window and log in." };
    case 403:
        return (struct http_problem_words){
            "You are not allowed in here", "The rules of this address do not let you in.",
            "If you need access, ask whoever runs this service and give them the "
            "request id below."
        };
    case 404:
        return (struct http_problem_words){ "Nothing is here",
                                            "No service is known at this address.",
                                            "Check the address for typing errors." };
    case 408:
        return (struct http_problem_words){ "That took too long",
                                            "The request did not arrive in time.", "Try again." };
    case 429:
        return (struct http_problem_words){
            "Too many attempts", "From this address came too many tokens that are not valid.",
            "Wait ten seconds, and see what sends them."
        };
    case 450:
        return (struct http_problem_words){
            "This device may not come in",
            "This address wants a device that is registered and approved.",
            "Use such a device, or ask whoever runs this service."
        };
    case 495:
        return (struct http_problem_words){
            "A certificate is needed",
            "This address wants a certificate that it trusts, and was shown "
            "none.",
            "Close the browser, open the address again and choose the right "
            "certificate; if there is none to choose, ask whoever runs this "
            "service."
        };
    case 502:
        return (struct http_problem_words){
            "The service does not answer",
            "You may come in, but the service behind this address did not give a "
            "usable answer.",
            "Try again in a moment; if it stays, tell whoever runs the service."
        };
    case 503:
        if (allowed) {
            return (struct http_problem_words){
                "The service is busy",
                "You may come in, but the service behind this address takes no "
                "more requests at the moment.",
                "Try again in a moment; if it stays, tell whoever runs the "
                "service."
            };
        }
        return (struct http_problem_words){
            "Not available right now",
            "Whether you may come in cannot be decided at the moment, so nobody is "
            "let in.",
            "Try again in a moment."
        };
    case 504:
        return (struct http_problem_words){
            "The service is too slow", "The service behind this address did not answer in time.",
            "Try again in a moment."
        };
    default:
        return (struct http_problem_words){
            "This request was refused", "The request has a form that this proxy does not pass on.",
            "If a program made it, see the code below."
        };
    }
}

struct http_problem_words http_problem_words(unsigned status, struct sv code, bool allowed)
{
    if (status == 401 && sv_starts(code, SV("token-"))) {
        return (struct http_problem_words){
            "This token does not get in", "The token that was shown is not valid here, or no more.",
            "Get a new one, or open the address in a browser and log in."
        };
    }
    if (sv_eq(code, SV("credentials-differ"))) {
        return (struct http_problem_words){
            "Who is asking?", "The request shows two credentials that are not the same person's.",
            "Send one of them."
        };
    }
    return words_of_status(status, allowed);
}

void http_problem_json(const struct http_problem *problem, struct buf *body)
{
    buf_add_str(body, "{\"status\":");
    buf_add_u64(body, problem->status);
    buf_add_str(body, ",\"error\":");
    buf_add_json(body, http_status_reason(problem->status));
    buf_add_str(body, ",\"code\":");
    buf_add_json(body, problem->code);
    buf_add_str(body, ",\"request_id\":");
    buf_add_json(body, problem->request_id);
    if (problem->login_url.n != 0) {
        buf_add_str(body, ",\"login_url\":");
        buf_add_json(body, problem->login_url);
    }
    buf_add_str(body, "}\n");
}

void http_problem_sentence(const struct http_problem *problem, struct buf *body)
{
    buf_add_str(body, http_problem_words(problem->status, problem->code, problem->allowed).what);
    buf_add_str(body, " Code: ");
    buf_add_sv(body, problem->code);
    buf_add_str(body, ", request id: ");
    buf_add_sv(body, problem->request_id);
}

static void add_sentence(const struct http_problem *problem, struct buf *body)
{
    CLEANUP(buf_deinit) struct buf text = { 0 };

    buf_init(&text, TEXT_MAX);
    http_problem_sentence(problem, &text);
    buf_add_json(body, buf_sv(&text));
}

static const char *kubernetes_reason(unsigned status)
{
    switch (status) {
    case 401:
    case 450:
    case 495:
        return "Unauthorized";
    case 403:
        return "Forbidden";
    case 404:
        return "NotFound";
    case 503:
        return "ServiceUnavailable";
    default:
        return "";
    }
}

void http_problem_kubernetes(const struct http_problem *problem, struct buf *body)
{
    buf_add_str(body, "{\"kind\":\"Status\",\"apiVersion\":\"v1\",\"metadata\":{},\"status\":"
                      "\"Failure\",\"message\":");
    add_sentence(problem, body);
    buf_printf(body, ",\"reason\":\"%s\",\"code\":%u}\n", kubernetes_reason(problem->status),
               problem->status);
}

enum { RPC_REFUSED = -32001 }; /* of the codes that JSON-RPC 2.0 §5.1 leaves to servers */

/* Without an id: the request's stands in a body that is not read before somebody may send one (Streamable
 * HTTP, "Sending Messages to the Server", 4). */
void http_problem_mcp(const struct http_problem *problem, struct buf *body)
{
    buf_printf(body, "{\"jsonrpc\":\"2.0\",\"id\":null,\"error\":{\"code\":%d,\"message\":",
               (int)RPC_REFUSED);
    add_sentence(problem, body);
    buf_add_str(body, ",\"data\":");
    http_problem_json(problem, body);
    buf_add_str(body, "}}\n");
}
