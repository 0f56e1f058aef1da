"""Microsoft Graph as far as groups are asked of it, and as badly as wanted."""

import http.server
import json
import threading
import urllib.parse

PATH = "/v1.0/me/transitiveMemberOf"


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *_):
        pass

    def do_GET(self):
        graph, url = self.server.graph, urllib.parse.urlsplit(self.path)
        graph.asked.append(self.path)
        graph.tokens.append(self.headers["Authorization"])
        page = int(dict(urllib.parse.parse_qsl(url.query)).get("$skiptoken", 0))
        status, body = graph.answer(page) if url.path == PATH else (404, {})
        body = body if isinstance(body, bytes) else json.dumps(body).encode()
        try:
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)
        except OSError:
            self.close_connection = True  # it was not waited for


class Graph:
    """`groups` in pages of `size`; `odd`: page number to a function of its answer that makes another."""

    def __init__(self, groups=(), size=100):
        self.groups, self.size, self.odd = list(groups), size, {}
        self.asked, self.tokens = [], []
        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.graph, self.server.daemon_threads = self, True
        self.url = f"http://127.0.0.1:{self.server.server_port}"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def link(self, page):
        return f"{self.url}{PATH}?$select=id&$top=999&$skiptoken={page}"

    def answer(self, page):
        part = self.groups[page * self.size:(page + 1) * self.size]
        body = {"@odata.context": self.url, "value": [{"@odata.type": "#microsoft.graph.group", "id": g} for g in part]}
        body["value"].append({"@odata.type": "#microsoft.graph.directoryRole", "id": f"role-{page}"})
        if (page + 1) * self.size < len(self.groups):
            body["@odata.nextLink"] = self.link(page + 1)
        return self.odd[page](body) if page in self.odd else (200, body)

    def close(self):
        self.server.shutdown()
        self.server.server_close()
