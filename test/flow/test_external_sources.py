"""External data that the databroker fetches: a good answer comes into force whole, a bad one never does."""

import json
import os
import ssl
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from stand import Stand, make_certificate
from trial import wait_for

USER, ADMIN = "user@example.com", "admin@example.com"
ROUTES = """
  - from: https://app.localhost:PORT
    to: http://127.0.0.1:UP
    policy: [{allow: {and: [{record: {type: acme.test/posture, field: score, ">=": 5}}]}}]
  - from: https://other.localhost:PORT
    to: http://127.0.0.1:UP
    policy: [{allow: {and: [{record: {type: acme.test/file, field: ok, is: true}}]}}]
"""
GOOD = [{"email": USER, "score": 7}, {"email": ADMIN, "score": 1}]


class Source:
    """A server whose next answers the test decides: answer(handler) sends one."""

    def __init__(self, tls=None):
        self.requests = []
        self.answer = lambda h: self.send(h, json.dumps(GOOD))
        source = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self):
                source.requests.append((self.path, dict(self.headers)))
                try:
                    source.answer(self)
                except OSError:  # it hung up on us
                    self.close_connection = True

            def log_message(self, *args):
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        self.port = self.server.server_port
        if tls:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(tls[1], tls[0])
            if len(tls) > 2:
                context.load_verify_locations(tls[2])
                context.verify_mode = ssl.CERT_REQUIRED
            self.server.socket = context.wrap_socket(self.server.socket, server_side=True, do_handshake_on_connect=False)
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    @staticmethod
    def send(h, body, status=200, type="application/json", **headers):
        body = body.encode() if isinstance(body, str) else body
        h.send_response(status)
        h.send_header("Content-Type", type)
        h.send_header("Content-Length", str(len(body)))
        for name, value in headers.items():
            h.send_header(name.replace("_", "-"), value)
        h.end_headers()
        h.wfile.write(body)

    def close(self):
        self.server.shutdown()
        self.server.server_close()


def settings(url=None, file=None, more="", more_of_file=""):
    text = "external_data:\n"
    if url:
        text += f"  acme.test/posture:\n    url: {url}\n    foreign_key: email\n    polling_min_delay: 1s\n    polling_max_delay: 2s\n"
        text += "".join(f"    {line}\n" for line in more.split("\n") if line)
    if file:
        text += f"  acme.test/file:\n    file: {file}\n    foreign_key: email\n    polling_min_delay: 1s\n{more_of_file}"
    return text if url or file else ""


@pytest.fixture(scope="module")
def source():
    s = Source()
    yield s
    s.close()


@pytest.fixture(scope="module")
def stand(upstream, source):
    s = Stand(ROUTES.replace("UP", str(upstream.port)), settings(f"http://127.0.0.1:{source.port}/p?key=s3cret-query"))
    with open(os.path.join(s.folder, "headers"), "w") as f:
        f.write("Authorization=Bearer s3cret-header\n")
    s.settings = settings(f"http://127.0.0.1:{source.port}/p?key=s3cret-query", more="headers_file: headers")
    s.write_config()
    s.start()
    yield s
    s.stop()


@pytest.fixture(scope="module")
def browser(stand):
    b = stand.browser()
    b.login(stand.url("app"), USER, stand.accounts()[USER])
    return b


@pytest.fixture
def calm(source, stand, browser):
    """The good rows are in force, and nothing fails."""
    source.answer = lambda h: source.send(h, json.dumps(GOOD))
    becomes(stand, browser, "app", 200)
    n = len(source.requests)
    wait_for("a look at the good rows", lambda: len(source.requests) > n + 1)


def becomes(stand, browser, host, status):
    wait_for(f"{host} to answer {status}", lambda: browser.get(stand.url(host)).status_code == status)


def events(stand, name, type="acme.test/posture"):
    return [line for line in stand.logs("databroker") if line["event"] == "external-data." + name and line["type"] == type]


def written(stand):
    with open(stand.log_file("databroker")) as f:
        return sum('"databroker.write"' in line and '"acme.test/' in line for line in f)


def test_rows_come_into_force_and_go_again_with_the_headers_that_the_server_wants(stand, source, browser, calm):
    path, headers = source.requests[-1]
    assert path == "/p?key=s3cret-query" and headers["Authorization"] == "Bearer s3cret-header"
    assert "json" in headers["Accept"] and "Accept-Encoding" not in headers
    source.answer = lambda h: source.send(h, json.dumps([GOOD[1]]))
    becomes(stand, browser, "app", 403)
    told = events(stand, "changed")[-1]
    assert (told["added"], told["changed"], told["removed"], told["unchanged"]) == (0, 0, 1, 1)
    line = [x for x in stand.logs("databroker") if x["event"] == "databroker.write" and x["type"] == "acme.test/posture"][-1]
    assert line["outcome"] == "done" and line["role"] == "databroker" and line["caller"] == "external_data"


def test_no_secret_is_in_a_log(stand):
    for daemon in stand.processes:
        with open(stand.log_file(daemon)) as f:
            assert "s3cret" not in f.read()


def test_what_did_not_change_is_neither_sent_again_nor_written(stand, source, browser, calm):
    def answer(h):
        if h.headers.get("If-None-Match") == '"v1"':
            h.send_response(304)
            h.end_headers()
        else:
            source.send(h, json.dumps(GOOD), ETag='"v1"', Last_Modified="Fri, 27 Nov 2026 10:00:00 GMT")
    source.answer = answer
    wait_for("a conditional request", lambda: source.requests[-1][1].get("If-None-Match") == '"v1"')
    assert source.requests[-1][1]["If-Modified-Since"] == "Fri, 27 Nov 2026 10:00:00 GMT"
    before, n = written(stand), len(source.requests)
    wait_for("more of them", lambda: len(source.requests) > n + 2)
    assert all("If-None-Match" in headers for _, headers in source.requests[n:])
    assert written(stand) == before
    # Somebody else writes the type: what the source says comes back, though it has not changed.
    path = os.path.join(stand.folder, "other.json")
    with open(path, "w") as f:
        json.dump([{"email": USER, "score": 2}], f)
    stand.cli("import", "records", path, "--type", "acme.test/posture", "--key", "email")
    wait_for("the source's rows", lambda: events(stand, "changed")[-1]["changed"] == 1)
    becomes(stand, browser, "app", 200)


def truncated(h):
    h.send_response(200)
    h.send_header("Content-Type", "application/json")
    h.send_header("Content-Length", "5000")
    h.end_headers()
    h.wfile.write(b'[{"email": "' + USER.encode() + b'", "score": 1}]')
    h.close_connection = True


def unframed(h):
    h.wfile.write(b"HTTP/1.0 200 OK\r\nContent-Type: text/csv\r\n\r\nemail,score:number\n" + USER.encode() + b",1\n")
    h.close_connection = True


def huge(h):
    h.send_response(200)
    h.send_header("Content-Type", "application/json")
    h.send_header("Transfer-Encoding", "chunked")
    h.end_headers()
    for _ in range(40):
        h.wfile.write(b"%x\r\n%s\r\n" % (1 << 20, b" " * (1 << 20)))


def slow(h):
    h.send_response(200)
    h.send_header("Content-Type", "application/json")
    h.send_header("Content-Length", "100")
    h.end_headers()
    for _ in range(50):
        h.wfile.write(b" ")
        time.sleep(0.1)


@pytest.mark.parametrize("name, answer, says", [
    ("500", lambda h: Source.send(h, "[]", 500), "status 500"),
    ("204", lambda h: Source.send(h, "", 204), "status 204"),
    ("304 that nobody asked for", lambda h: Source.send(h, "", 304), "status 304"),
    ("redirect", lambda h: Source.send(h, "", 302, Location="http://127.0.0.1:1/"), "redirect"),
    ("garbage", lambda h: Source.send(h, b"\x00\xff\xfe{]"), "the answer"),
    ("a login page", lambda h: Source.send(h, "<html>", type="text/html"), "Content-Type"),
    ("truncated", truncated, ""),
    ("unframed", unframed, "where it ends"),
    ("huge", huge, "larger than 32 MiB"),
    ("slow", slow, ""),
    ("twice", lambda h: Source.send(h, json.dumps(GOOD + GOOD)), "stands in row"),
    ("empty", lambda h: Source.send(h, "[]"), "allow_empty"),
    ("half bad", lambda h: Source.send(h, json.dumps([GOOD[1], {"email": 5}])), "row 2"),
])
def test_a_bad_answer_leaves_in_force_what_is(stand, source, browser, calm, name, answer, says):
    if name == "slow":
        stand.settings = settings(f"http://127.0.0.1:{source.port}/p", more="timeout: 700ms")
        stand.write_config()
    before, failed = written(stand), len(events(stand, "failed"))
    source.answer = answer
    wait_for("two failures", lambda: len(events(stand, "failed")) >= failed + 2)
    told = events(stand, "failed")[-1]
    assert says in told["why"] and told["failures"] >= 2 and told["as_of_s"] > time.time() - 600
    assert written(stand) == before
    assert browser.get(stand.url("app")).status_code == 200
    shown = stand.cli("explain", "--route", f"https://app.localhost:{stand.port}", "--user", USER).stdout
    assert "external data acme.test/posture: as its source said " in shown and "since then it fails: " in shown
    source.answer = lambda h: source.send(h, json.dumps(GOOD))
    n = len(events(stand, "recovered"))
    wait_for("its recovery", lambda: len(events(stand, "recovered")) > n)


def test_an_answer_may_be_csv_by_its_type(stand, source, browser, calm):
    source.answer = lambda h: source.send(h, f"email,score:number\n{USER},3\n", type="text/csv; charset=utf-8")
    becomes(stand, browser, "app", 403)


def test_failures_are_further_and_further_apart(stand, source, calm):
    stand.settings = settings(f"http://127.0.0.1:{source.port}/p").replace("polling_max_delay: 2s", "polling_max_delay: 1h")
    stand.write_config()
    n = len(source.requests)
    wait_for("the new settings", lambda: len(source.requests) > n + 1)
    failed = len(events(stand, "failed"))
    source.answer = lambda h: source.send(h, "", 500)
    wait_for("three failures", lambda: len(events(stand, "failed")) >= failed + 3)
    waits = [line["next_ms"] for line in events(stand, "failed")[failed:]]
    assert 1800 <= waits[0] <= 2200 and 3600 <= waits[1] <= 4400 and 7200 <= waits[2] <= 8800
    source.answer = lambda h: source.send(h, json.dumps(GOOD))
    stand.settings = settings(f"http://127.0.0.1:{source.port}/p")
    stand.write_config()


def test_a_file_is_taken_when_it_is_replaced_and_a_reload_adds_and_removes_sources(stand, source, browser, calm):
    path = os.path.join(stand.folder, "rows.csv")

    def replace(text):
        with open(path + ".new", "w") as f:
            f.write(text)
        os.rename(path + ".new", path)
    replace(f"email,ok:bool\n{USER},true\n")
    assert browser.get(stand.url("other")).status_code in (302, 403)
    stand.settings = settings(f"http://127.0.0.1:{source.port}/p", path)
    stand.write_config()
    becomes(stand, browser, "other", 200)
    replace(f"email,ok:bool\n{USER},false\n")
    becomes(stand, browser, "other", 403)
    replace(f"email,ok:bool\n{USER},maybe\n")
    wait_for("its failure", lambda: events(stand, "failed", "acme.test/file"))
    assert "rows.csv:2: ok is" in events(stand, "failed", "acme.test/file")[-1]["why"]
    os.unlink(path)
    wait_for("another", lambda: "cannot read" in events(stand, "failed", "acme.test/file")[-1]["why"])
    replace(f"email,ok:bool\n{USER},true\n")
    becomes(stand, browser, "other", 200)
    stand.settings = settings(f"http://127.0.0.1:{source.port}/p")  # nobody asks the file now; its rows stay
    stand.write_config()
    n = len(source.requests)
    wait_for("the settings without it", lambda: len(source.requests) > n + 2)
    replace(f"email,ok:bool\n{USER},false\n")
    n = len(source.requests)
    wait_for("time to pass", lambda: len(source.requests) > n + 2)
    assert browser.get(stand.url("other")).status_code == 200


def test_a_server_is_verified_and_may_ask_for_a_certificate(stand, source, browser, calm):
    trusted = make_certificate(stand.folder, "127.0.0.1")
    client = make_certificate(stand.folder, "client.test")
    tls = Source((*trusted, client[1]))
    tls.answer = lambda h: tls.send(h, json.dumps([{"email": USER, "score": 2}]))
    url = f"https://127.0.0.1:{tls.port}/"
    identity = f"client_cert_file: {client[1]}\nclient_key_file: {client[0]}\n"
    try:
        for more in (identity, f"ca_file: {client[1]}\n" + identity, f"ca_file: {trusted[1]}\n"):
            failed = len(events(stand, "failed"))
            stand.settings = settings(url, more=more)
            stand.write_config()
            wait_for("a failure", lambda: len(events(stand, "failed")) > failed)
            assert not tls.requests and browser.get(stand.url("app")).status_code == 200
        stand.settings = settings(url, more=f"ca_file: {trusted[1]}\n" + identity)
        stand.write_config()
        becomes(stand, browser, "app", 403)
        n = len(tls.requests)
        stand.settings = settings(url, more="allow_insecure_tls: true\n" + identity)
        stand.write_config()
        wait_for("a request that trusts anybody", lambda: len(tls.requests) > n + 1)
    finally:
        stand.settings = settings(f"http://127.0.0.1:{source.port}/p")
        stand.write_config()
        tls.close()


def test_a_restart_goes_on_where_it_was(stand, source, browser, calm):
    stand.kill("databroker")
    stand.start_one("databroker")
    stand.wait_ready()
    n = len(source.requests)
    wait_for("the next look", lambda: len(source.requests) > n, 60)
    before = written(stand)
    n = len(source.requests)
    wait_for("one more", lambda: len(source.requests) > n + 1)
    assert written(stand) == before


@pytest.mark.parametrize("text, says", [
    ("acme.test/x: {foreign_key: email}", 'one of "url" and "file" is needed'),
    ("acme.test/x: {url: 'https://a.test/', file: x.csv, foreign_key: email}", 'one of "url" and "file" is needed'),
    ("acme.test/x: {url: 'http://a.test/', foreign_key: email}", "only https, or http to this machine"),
    ("acme.test/x: {url: 'https://u:p@a.test/', foreign_key: email}", "must name a host"),
    ("acme.test/x: {url: 'https://a.test/'}", '"foreign_key" is missing'),
    ("acme.test/x: {url: 'https://a.test/', foreign_key: phone}", "foreign_key"),
    ("acme.test/x: {file: x, foreign_key: email}", '"format" is missing'),
    ("acme.test/x: {file: x.csv, foreign_key: email, timeout: 3s}", 'timeout: it belongs to "url"'),
    ("acme.test/x: {url: 'https://a.test/', foreign_key: email, headers: nonsense}", "Name=value"),
    ("acme.test/x: {url: 'https://a.test/', foreign_key: email, polling_min_delay: 1h, polling_max_delay: 1m}", "shorter"),
    ("pomerium.io/DirectoryUser: {url: 'https://a.test/', foreign_key: email}", "no type of rows"),
    ("x: {url: 'https://a.test/', foreign_key: email}", "no type of rows"),
])
def test_settings_that_make_no_sense_are_refused_with_their_place(stand, text, says):
    kept = stand.settings
    stand.settings = "external_data:\n  " + text + "\n"
    try:
        path = stand.config_with(stand.secret, None, "bad.yaml")
    finally:
        stand.settings = kept
    done = stand.cli("validate", path, check=False)
    assert done.returncode != 0 and says in done.stdout + done.stderr and "bad.yaml:" in done.stdout + done.stderr
