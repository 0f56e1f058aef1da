"""Audit lines to the log daemon of the machine and to a collector of OpenTelemetry logs: every line comes once, also after
the other side was away."""

import http.server
import json
import os
import re
import socket
import ssl
import threading
import time

import pytest
from sanitize import PATIENCE
from stand import Upstream, make_certificate
from test_audit import request, set_audit, stand_with, stop_daemon, verify
from trial import wait_for


@pytest.fixture
def upstream():
    u = Upstream(answer=lambda head, body: b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
    yield u
    u.close()


class Listener:
    """A socket for datagrams, such as /dev/log."""

    def __init__(self, path):
        self.path = path
        self.got = []
        self.open()

    def open(self):
        self.s = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.s.bind(self.path)
        self.s.settimeout(0.2)
        self.over = False
        self.thread = threading.Thread(target=self.read, daemon=True)
        self.thread.start()

    def read(self):
        while not self.over:
            try:
                self.got.append(self.s.recv(1 << 20))
            except TimeoutError:
                pass

    def close(self):
        self.over = True
        self.thread.join()
        self.s.close()
        os.unlink(self.path)


SYSLOG = re.compile(rb"<86>1 \d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z (\S+) postern-authorize (\d+) audit - (\{.*\})", re.S)
JOURNALD = re.compile(rb"PRIORITY=6\nSYSLOG_FACILITY=10\nSYSLOG_IDENTIFIER=postern-authorize\nPOSTERN_AUDIT=1\nMESSAGE=(\{[^\n]*\})\n")


def lines_in(kind, datagrams, pid):
    lines = []
    for d in datagrams:
        if b"postern-databroker" in d:
            continue
        m = (SYSLOG if kind == "syslog" else JOURNALD).fullmatch(d)
        assert m, d
        if kind == "syslog":
            assert int(m.group(2)) == pid and m.group(1).decode() == socket.gethostname()
        lines.append(m.group(m.lastindex).decode())
    return lines


@pytest.mark.parametrize("kind", ["syslog", "journald"])
def test_a_log_daemon_gets_every_line_also_after_it_was_away(upstream, tmp_path, kind):
    listener = Listener(str(tmp_path / "log"))
    s = stand_with(upstream, f"sink: {kind}, socket: {listener.path}, chain: hmac").start()
    try:
        pid = s.processes["authorize"].pid
        for i in range(10):
            assert request(s, "public", f"/{i}")[0] == 200
            assert request(s, "app", f"/{i}")[0] == 403
        listener.close()
        assert request(s, "public", "/away")[0] == 200
        wait_for("it is told", lambda: any(e["event"] == "audit.failing" and listener.path in e["reason"] for e in s.logs("authorize")))
        assert request(s, "app", "/away")[0] == 503
        listener.open()
        wait_for("it works again", lambda: any(e["event"] == "audit.works-again" for e in s.logs("authorize")))
        assert request(s, "app", "/back")[0] == 403
        stop_daemon(s, "authorize")
        wait_for("the last line", lambda: any(b"audit closed" in d for d in listener.got))
        lines = lines_in(kind, listener.got, pid)
        paths = [json.loads(li)["path"] for li in lines if "authorize check" in li]
        assert sorted(paths) == sorted([f"/{i}" for i in range(10)] * 2 + ["/away"] * 2 + ["/back"])
        with open(s.folder + "/lines", "w") as f:
            f.write("".join(li + "\n" for li in lines))
        code, text = verify(s, s.folder + "/lines")
        assert code == 0 and "ended in order" in text, text
    finally:
        s.stop()
        listener.close()


# --- OTLP ---------------------------------------------------------------------------------------


def check_value(v):
    (kind, value), = v.items()
    if kind == "arrayValue":
        assert set(value) == {"values"}
        for item in value["values"]:
            check_value(item)
        return
    # ProtoJSON: 64 bits are strings
    assert isinstance(value, {"stringValue": str, "boolValue": bool, "intValue": str}[kind]), v


def check_attributes(attributes):
    for a in attributes:
        assert set(a) == {"key", "value"} and a["key"]
        check_value(a["value"])
    keys = [a["key"] for a in attributes]
    assert len(keys) == len(set(keys))
    return {a["key"]: a["value"] for a in attributes}


def records_of(body):
    """Checks an ExportLogsServiceRequest as opentelemetry/proto/collector/logs/v1 and logs/v1 describe it."""
    assert set(body) == {"resourceLogs"}
    for resource_logs in body["resourceLogs"]:
        assert set(resource_logs) == {"resource", "scopeLogs"}
        resource = check_attributes(resource_logs["resource"]["attributes"])
        assert resource["service.name"]["stringValue"] in ("postern-authorize", "postern-databroker")
        for scope_logs in resource_logs["scopeLogs"]:
            assert set(scope_logs) == {"scope", "logRecords"} and scope_logs["scope"] == {"name": "postern.audit"}
            for record in scope_logs["logRecords"]:
                assert set(record) == {"timeUnixNano", "observedTimeUnixNano", "severityNumber", "severityText", "body", "attributes"}
                assert abs(int(record["timeUnixNano"]) / 1e9 - time.time()) < 600
                assert record["severityNumber"] in (9, 13)
                yield resource["service.name"]["stringValue"], record["body"]["stringValue"], check_attributes(record["attributes"])


class Collector:
    def __init__(self, tls=None):
        self.records, self.batches, self.headers, self.status = [], 0, [], 200
        collector = self

        class Handler(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self):
                body = self.rfile.read(int(self.headers["Content-Length"]))
                if collector.status == 200:
                    assert self.path == "/v1/logs" and self.headers["Content-Type"] == "application/json"
                    collector.headers.append(dict(self.headers))
                    collector.records += list(records_of(json.loads(body)))
                    collector.batches += 1
                answer = b'{"partialSuccess":{}}'
                self.send_response(collector.status)
                self.send_header("Content-Length", str(len(answer)))
                self.end_headers()
                self.wfile.write(answer)

            def log_message(self, *args):
                pass

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        if tls:
            self.server.socket = tls.wrap_socket(self.server.socket, server_side=True)
        self.port = self.server.server_address[1]
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def lines(self):
        return [line for service, line, _ in self.records if service == "postern-authorize"]

    def paths(self):
        return [json.loads(li)["path"] for li in self.lines() if "authorize check" in li]

    def close(self):
        self.server.shutdown()
        self.server.server_close()


def test_a_collector_gets_every_line_in_batches(upstream):
    c = Collector()
    s = stand_with(upstream, f"sink: otlp, otlp_endpoint: 'http://127.0.0.1:{c.port}/', chain: hmac, otlp_headers: 'X-Scope=a b, Authorization=Bearer canary'")
    s.start()
    try:
        for i in range(10):
            assert request(s, "public", f"/{i}")[0] == 200
            assert request(s, "app", f"/{i}")[0] == 403
        wait_for("the lines", lambda: len(c.paths()) == 20)
        service, line, attributes = next(r for r in c.records if '"decision":"deny"' in r[1])
        assert attributes["decision"] == {"stringValue": "deny"} and attributes["event.name"] == {"stringValue": "authorize check"}
        assert attributes["reasons"] == {"arrayValue": {"values": [{"stringValue": "accept"}]}} and attributes["deny"] == {"boolValue": True}
        assert attributes["seq"]["intValue"] == str(json.loads(line)["seq"])
        assert c.headers[0]["X-Scope"] == "a b" and c.headers[0]["Authorization"] == "Bearer canary"
        c.status = 503
        for i in range(10):
            assert request(s, "public", f"/late{i}")[0] == 200
        wait_for("it is told", lambda: any(e["event"] == "audit.failing" and "status 503" in e["reason"] for e in s.logs("authorize")))
        assert request(s, "app", "/late")[0] == 503
        c.status = 200
        wait_for("it works again", lambda: any(e["event"] == "audit.works-again" for e in s.logs("authorize")))
        assert request(s, "app", "/back")[0] == 403
        stop_daemon(s, "authorize")
        assert sorted(c.paths()) == sorted([f"/{i}" for i in range(10)] * 2 + [f"/late{i}" for i in range(10)] + ["/late", "/back"])
        with open(s.folder + "/lines", "w") as f:
            f.write("".join(li + "\n" for li in c.lines()))
        code, text = verify(s, s.folder + "/lines")
        assert code == 0 and "ended in order" in text, text
        with open(s.log_file("authorize")) as f:
            assert "canary" not in f.read()
    finally:
        s.stop()
        c.close()


def test_a_collector_is_verified_and_its_headers_come_from_a_file(upstream, tmp_path):
    key, cert = make_certificate(str(tmp_path), "localhost", "127.0.0.1")
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    tls.load_cert_chain(cert, key)
    c = Collector(tls)
    headers = tmp_path / "headers"
    headers.write_text("X-Key=canary\n")
    there = f"sink: otlp, otlp_endpoint: 'https://127.0.0.1:{c.port}', otlp_headers_file: {headers}"
    s = stand_with(upstream, there).start()
    try:
        assert request(s, "public", "/unseen")[0] == 200
        wait_for("it is told", lambda: any(e["event"] == "audit.failing" for e in s.logs("authorize")))
        assert not c.records
        set_audit(s, there + f", otlp_ca_file: {cert}")
        wait_for("the line", lambda: c.paths() == ["/unseen"], 30 * PATIENCE)
        assert c.headers[0]["X-Key"] == "canary"
    finally:
        s.stop()
        c.close()
