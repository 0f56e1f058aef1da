"""Certificates from a real ACME server (Pebble): both challenges, renewal, and everything that can go wrong on the way."""

import http.server
import json
import os
import re
import shutil
import socket
import ssl
import subprocess
import threading
import time

import pytest
import requests
from cryptography import x509
from pebble import Pebble
from stand import DAEMONS, Stand, Upstream, make_certificate, raw_request, receive
from trial import Trial, children_of, free_port, wait_for

pytestmark = pytest.mark.skipif(shutil.which("go") is None, reason="Go is not installed, so Pebble cannot be built")

ROUTE = """
  - from: https://public.localhost
    to: http://127.0.0.1:{}
    allow_public_unauthenticated_access: true
"""
NAMES = ("authenticate.localhost", "public.localhost")
EAB_KEY = "cG9zdGVybidzIHRlc3Qga2V5IGZvciBleHRlcm5hbCBhY2NvdW50cw"


class AcmeStand(Stand):
    """A stand whose certificates come from an ACME server: all, or all but that of the login pages."""

    def __init__(self, settings="", plain=False, everything=False):
        self.names = NAMES if everything else NAMES[1:]
        self.upstream = Upstream()
        self.orders = False
        self.plain_port = free_port()
        if plain:
            settings += f"http_redirect_addr: 127.0.0.1:{self.plain_port}\n"
        super().__init__(ROUTE.format(self.upstream.port), settings=settings, listener="autocert: true\n")
        if not everything:
            key, certificate = make_certificate(self.folder, NAMES[0])
            self.listener += f"certificates:\n  - cert: {certificate}\n    key: {key}\n"
            self.write_config()

    def use(self, directory, certificate, more=""):
        self.settings += (f"autocert_ca: {directory}\nautocert_trusted_ca_file: {certificate}\nautocert_dir: certs\n"
                          f"autocert_email: admin@example.com\n{more}")
        self.write_config()

    def __enter__(self):
        self.start()
        if self.orders:
            self.start_one("acme")
        return self

    def __exit__(self, *error):
        self.stop()
        self.upstream.close()

    def certs(self, *below):
        return os.path.join(self.folder, "certs", *below)

    def file_of(self, host):
        found = [os.path.join(path, host + ".pem") for path, _, files in os.walk(self.certs("certificates"))
                 if host + ".pem" in files]
        return found[0] if found else None

    def events(self, event, host=None):
        return [e for daemon in self.processes if daemon.startswith("acme") for e in self.logs(daemon)
                if e["event"] == event and host in (None, e.get("host"))]

    def wait_issued(self, seconds=60):
        wait_for("certificates", lambda: all(self.file_of(h) for h in self.names), seconds)

    def notes(self):
        found = {}
        for path, _, files in os.walk(self.certs("notes")):
            for file in files:
                with open(os.path.join(path, file)) as f:
                    found[file[:-len(".json")]] = json.load(f)
        return found


def shown(stand, name="public.localhost"):
    """The certificate that a visitor is shown."""
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    with socket.create_connection(("127.0.0.1", stand.port), 10) as s, context.wrap_socket(s, server_hostname=name) as t:
        return x509.load_der_x509_certificate(t.getpeercert(True))


def name_of(certificate):
    return certificate.subject.rfc4514_string()


def is_trusted(stand, pebble, name="public.localhost"):
    """A visitor who trusts the server's root gets a page."""
    context = ssl.create_default_context(cafile=pebble.root(os.path.join(stand.folder, "root.pem")))
    request = f"GET /x HTTP/1.1\r\nHost: {name}:{stand.port}\r\nConnection: close\r\n\r\n".encode()
    try:
        return raw_request(stand.port, request, context, name).startswith(b"HTTP/1.1 200")
    except (ssl.SSLError, ConnectionResetError):
        return False


def offers_challenge(stand, name):
    """What a handshake for a challenge leads to: the certificate, or None."""
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    context.set_alpn_protocols(["acme-tls/1"])
    try:
        with socket.create_connection(("127.0.0.1", stand.port), 10) as s:
            with context.wrap_socket(s, server_hostname=name) as t:
                t.sendall(b"GET / HTTP/1.1\r\nHost: public.localhost\r\n\r\n")
                try:
                    said = t.recv(1)
                except ConnectionResetError:
                    said = b""
                assert said == b"", "something was served on a connection for a challenge"
                return t.getpeercert(True)
    except (ssl.SSLError, ConnectionResetError, BrokenPipeError):
        return None


class Line:
    """A connection that stays open: keep-alive over TLS."""

    def __init__(self, stand):
        context = ssl.create_default_context()
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        self.socket = context.wrap_socket(socket.create_connection(("127.0.0.1", stand.port), 10),
                                          server_hostname="public.localhost")
        self.request = f"GET /x HTTP/1.1\r\nHost: public.localhost:{stand.port}\r\n\r\n".encode()

    def ask(self):
        self.socket.sendall(self.request)
        got = b""
        while b"\r\n\r\n" not in got:
            more = self.socket.recv(65536)
            assert more, "the connection was dropped"
            got += more
        head, body = got.split(b"\r\n\r\n", 1)
        length = int([x for x in head.lower().split(b"\r\n") if x.startswith(b"content-length:")][0].split(b":")[1])
        while len(body) < length:
            body += receive(self.socket)
        return head.startswith(b"HTTP/1.1 200")


def all_daemons(stand):
    stand.orders = True
    return stand


# --- what it is for -----------------------------------------------------------------------------------


def test_tls_alpn_gets_certificates_while_a_stand_in_serves():
    stand = AcmeStand(everything=True)
    with Pebble(tls_port=stand.port) as pebble:
        stand.use(pebble.directory, pebble.certificate)
        with stand:
            assert name_of(shown(stand)) == "CN=no certificate yet"
            line = Line(stand)
            assert line.ask()
            stand.start_one("acme")
            stand.wait_issued()
            wait_for("the certificates to be served", lambda: all(is_trusted(stand, pebble, n) for n in NAMES[1:]))
            assert name_of(shown(stand, "nobody.localhost")) == "CN=no certificate yet"
            assert line.ask(), "a new certificate must not cost a connection"
            assert {e["challenge"] for e in stand.events("acme.order")} == {"tls-alpn-01"}

            # Closed again, and nothing lies open.
            assert offers_challenge(stand, "public.localhost") is None
            assert os.listdir(stand.certs("challenges", "tls-alpn-01")) == []
            for path, folders, files in os.walk(stand.certs()):
                assert os.stat(path).st_mode & 0o777 == 0o700, path
                for file in files:
                    assert os.stat(os.path.join(path, file)).st_mode & 0o777 == 0o600, file


def test_http_01_is_answered_on_the_plain_listener_while_it_is_open():
    stand = AcmeStand(plain=True)
    with Pebble(tls_port=1, http_port=stand.plain_port) as pebble:
        stand.use(pebble.directory, pebble.certificate)
        with stand:
            folder = stand.certs("challenges", "http-01")
            seen = {}

            def look():
                while not stand.file_of(NAMES[1]):
                    for token in os.listdir(folder) if os.path.isdir(folder) else []:
                        if not token.startswith("."):
                            seen[token] = True
                    time.sleep(0.02)

            watcher = threading.Thread(target=look)
            watcher.start()
            stand.start_one("acme")
            stand.wait_issued()
            watcher.join()
            assert {e["challenge"] for e in stand.events("acme.order")} == {"http-01"}
            wait_for("the certificate to be served", lambda: is_trusted(stand, pebble))

            # A token that was open, one that never was, and names that want to be a path.
            assert seen
            for token in [*seen, "nothing", "..%2f..%2fcerts", "a/b", ""]:
                answer = raw_request(stand.plain_port, f"GET /.well-known/acme-challenge/{token} HTTP/1.1\r\n"
                                     "Host: public.localhost\r\nConnection: close\r\n\r\n".encode())
                assert not answer.startswith(b"HTTP/1.1 200"), answer


def test_only_open_tokens_are_answered_and_only_as_they_are():
    stand = AcmeStand(plain=True, settings="autocert_ca: https://127.0.0.1:1/dir\nautocert_dir: certs\n")
    with stand:
        folder = stand.certs("challenges", "http-01")
        os.makedirs(folder)
        files = {"good-TOKEN_1": "good-TOKEN_1.thumb", "other": "another.thumb", "line": "line.a\r\nX: y",
                 "has.dot": "has.dot.x", "big": "big." + "x" * 20000}
        for name, text in files.items():
            with open(os.path.join(folder, name), "w") as f:
                f.write(text)
        os.symlink(stand.config, os.path.join(folder, "link"))

        def ask(token, method="GET", port=stand.plain_port, context=None):
            return raw_request(port, f"{method} /.well-known/acme-challenge/{token} HTTP/1.1\r\nHost: public.localhost\r\n"
                               "Connection: close\r\n\r\n".encode(), context, "public.localhost")

        wait_for("the token to be open", lambda: ask("good-TOKEN_1").endswith(b"\r\n\r\ngood-TOKEN_1.thumb"))
        for token in ["other", "line", "has.dot", "big", "link", "good-TOKEN_1/", "good-token_1", "good-TOKEN_1%00"]:
            assert b".thumb" not in ask(token) and not ask(token).startswith(b"HTTP/1.1 200"), token
        assert ask("good-TOKEN_1", "POST").startswith(b"HTTP/1.1 405")
        insecure = ssl.create_default_context()
        insecure.check_hostname, insecure.verify_mode = False, ssl.CERT_NONE
        assert b".thumb" not in ask("good-TOKEN_1", port=stand.port, context=insecure).split(b"\r\n\r\n")[0]
        os.unlink(os.path.join(folder, "good-TOKEN_1"))
        wait_for("the token to be closed", lambda: b".thumb" not in ask("good-TOKEN_1"))


def test_the_server_is_not_asked_for_a_visitor_s_certificate():
    stand = AcmeStand()
    with Pebble(tls_port=stand.port) as pebble:
        stand.use(pebble.directory, pebble.certificate,
                  f"downstream_mtls:\n  ca_file: {stand.ca}\n  enforcement: reject_connection\n")
        with all_daemons(stand):
            stand.wait_issued()
            assert not is_trusted(stand, pebble), "a visitor without a certificate got in"


def test_a_certificate_is_renewed_and_no_connection_is_lost():
    stand = AcmeStand()
    with Pebble(tls_port=stand.port, lifetime_s=24) as pebble:
        stand.use(pebble.directory, pebble.certificate)
        with all_daemons(stand):
            stand.wait_issued()
            wait_for("the first certificate", lambda: is_trusted(stand, pebble))
            first, line = shown(stand), Line(stand)
            wait_for("another certificate", lambda: shown(stand).serial_number != first.serial_number, 60)
            assert line.ask()
            assert not stand.events("acme.failed")


# --- external accounts ----------------------------------------------------------------------------------


def test_an_external_account_is_bound_and_its_key_is_seen_nowhere():
    stand = AcmeStand()
    with Pebble(tls_port=stand.port, keys={"kid-7": EAB_KEY}) as pebble:
        with open(os.path.join(stand.folder, "mac"), "w") as f:
            f.write(EAB_KEY + "\n")
        stand.use(pebble.directory, pebble.certificate,
                  "autocert_eab_key_id: kid-7\nautocert_eab_mac_key_file: mac\n")
        with stand:
            seen, over = set(), threading.Event()

            def look():
                while not over.is_set():
                    for pid in children_of(stand.processes["acme"].pid):
                        try:
                            for name in ("cmdline", "environ"):
                                with open(f"/proc/{pid}/{name}", "rb") as f:
                                    seen.add(f.read())
                        except OSError:
                            pass
                    time.sleep(0.005)

            stand.start_one("acme")
            watcher = threading.Thread(target=look)
            watcher.start()
            stand.wait_issued()
            over.set()
            watcher.join()
            assert any(b"postern-acme-client" in text for text in seen)
            assert not [text for text in seen if EAB_KEY.encode() in text or stand.secret.encode() in text]
            for daemon in (*DAEMONS, "acme"):
                with open(stand.log_file(daemon)) as f:
                    text = f.read()
                assert EAB_KEY not in text and "PRIVATE KEY" not in text, daemon


@pytest.mark.parametrize("more, reason", [
    ("", "wants an external account"),
    ("autocert_eab_key_id: kid-7\nautocert_eab_mac_key: d3Jvbmcga2V5\n", "unauthorized"),
])
def test_a_server_that_wants_another_account_is_asked_less_and_less_often(more, reason):
    stand = AcmeStand()
    with Pebble(tls_port=stand.port, keys={"kid-7": EAB_KEY}) as pebble:
        stand.use(pebble.directory, pebble.certificate, more)
        with all_daemons(stand):
            failed = wait_for("a refusal", lambda: stand.events("acme.failed"))[0]
            assert reason in failed["reason"], failed
            wait = stand.notes()[failed["host"]]["again_at"] - time.time()
            assert 270 < wait <= 361, wait


# --- servers in trouble ---------------------------------------------------------------------------------


def test_a_server_that_is_down_at_the_start_is_found_when_it_comes():
    stand = AcmeStand()
    pebble = Pebble(tls_port=stand.port)
    stand.use(pebble.directory, pebble.certificate)
    with all_daemons(stand):
        failed = wait_for("a failure", lambda: stand.events("acme.failed"))
        assert "Connection refused" in failed[0]["reason"], failed
        assert stand.is_ready("proxy")
        with pebble:
            stand.wait_issued()


def test_rejected_nonces_and_known_authorizations_are_no_trouble():
    stand = AcmeStand()
    with Pebble(tls_port=stand.port, nonce_reject=20, reuse=100, lifetime_s=24) as pebble:
        stand.use(pebble.directory, pebble.certificate)
        with all_daemons(stand):
            stand.wait_issued(120)
            wait_for("a renewal without a challenge", lambda: len(stand.events("acme.issued", NAMES[1])) >= 2, 120)


def test_a_server_that_has_forgotten_us_gets_a_new_account():
    stand = AcmeStand()
    with Pebble(tls_port=stand.port) as pebble:
        stand.use(pebble.directory, pebble.certificate)
        with all_daemons(stand):
            stand.wait_issued()
            stand.kill("acme", 15)
            pebble.stop()
            pebble.start()
            os.unlink(stand.file_of(NAMES[1]))
            stand.start_one("acme")
            wait_for("a certificate from the new server", lambda: is_trusted(stand, pebble), 60)
            assert "has forgotten our account" in stand.events("acme.failed")[0]["reason"]


def test_a_challenge_that_fails_is_told_and_a_restart_does_not_ask_again_at_once():
    stand = AcmeStand()
    with Pebble(tls_port=1) as pebble:  # nothing listens there
        stand.use(pebble.directory, pebble.certificate)
        with all_daemons(stand):
            wait_for("it to fail", lambda: stand.events("acme.failed"), 60)
            assert "tls-alpn-01: " in stand.events("acme.failed")[0]["reason"]
            assert set(stand.notes()) == {NAMES[1]}
            stand.kill("acme", 15)
            stand.start_one("acme")
            wait_for("the second start", lambda: len(stand.events("acme.started")) == 2)
            time.sleep(3)
            assert len(stand.events("acme.order")) == 1


class Liar(http.server.BaseHTTPRequestHandler):
    """An ACME server whose answers make no sense."""

    def do_GET(self):
        status, text = self.server.answer
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        self.wfile.write(text)

    do_HEAD = do_POST = do_GET

    def log_message(self, *args):
        pass


@pytest.mark.parametrize("answer", [
    (200, b"\x00\xff not JSON"),
    (200, b"[]"),
    (200, b'{"newAccount": 7}'),
    (200, b'{"newNonce": "https://127.0.0.1:1/", "newAccount": "https://127.0.0.1:1/", "newOrder": "file:///etc/passwd"}'),
    (503, b"<html>busy</html>"),
    (200, b'{"a":' * 50000),
])
def test_answers_that_make_no_sense_are_a_failure_with_a_sentence(answer):
    stand = AcmeStand()
    key, certificate = make_certificate(stand.folder, "127.0.0.1")
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Liar)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    server.socket = context.wrap_socket(server.socket, server_side=True)
    server.answer = answer
    threading.Thread(target=server.serve_forever, daemon=True).start()
    stand.use(f"https://127.0.0.1:{server.server_port}/dir", certificate)
    with stand:
        stand.start_one("acme")
        failed = wait_for("a failure", lambda: stand.events("acme.failed"))[0]
        assert failed["reason"] and "without an answer" not in failed["reason"], failed
        assert stand.processes["acme"].poll() is None
    server.shutdown()


def test_a_server_that_is_not_trusted_is_not_spoken_to():
    stand = AcmeStand()
    with Pebble(tls_port=stand.port) as pebble:
        _, other = make_certificate(stand.folder, "127.0.0.1")
        stand.use(pebble.directory, other)
        with all_daemons(stand):
            failed = wait_for("a failure", lambda: stand.events("acme.failed"))[0]
            assert "certificate verify failed" in failed["reason"].lower(), failed
            assert "newAccount" not in pebble.said() and "new-account" not in pebble.said()


# --- restarts and company -------------------------------------------------------------------------------


def test_a_restart_keeps_certificates_and_account():
    stand = AcmeStand()
    with Pebble(tls_port=stand.port) as pebble:
        stand.use(pebble.directory, pebble.certificate)
        with all_daemons(stand):
            stand.wait_issued()
            wait_for("the certificate", lambda: is_trusted(stand, pebble))
            serial = shown(stand).serial_number
            for daemon in ("acme", "proxy"):
                stand.kill(daemon, 15)
            stand.start_one("proxy")
            stand.start_one("acme")
            stand.wait_ready()
            assert shown(stand).serial_number == serial, "served from the first connection on"
            wait_for("the second start", lambda: len(stand.events("acme.started")) == 2)
            time.sleep(2)
            assert len(stand.events("acme.order")) == 1
            # What is damaged is made anew.
            with open(stand.file_of("public.localhost"), "w") as f:
                f.write("-----BEGIN CERTIFICATE-----\n")
            stand.kill("acme", 15)
            stand.start_one("acme")
            wait_for("another", lambda: is_trusted(stand, pebble) and shown(stand).serial_number != serial, 60)


def test_of_two_one_orders_and_the_other_takes_over():
    stand = AcmeStand()
    with Pebble(tls_port=stand.port) as pebble:
        stand.use(pebble.directory, pebble.certificate)
        with all_daemons(stand):
            stand.wait_issued()
            first = stand.processes["acme"]
            stand.start_one("acme-2")  # the same folder
            wait_for("the second to be ready", lambda: stand.is_ready("acme-2"))
            assert len(stand.events("acme.started")) == 1
            os.unlink(stand.file_of(NAMES[1]))
            first.kill()
            first.wait(10)
            wait_for("the other to take over", lambda: len(stand.events("acme.started")) == 2, 60)
            stand.wait_issued()


def test_only_names_without_a_certificate_are_asked_for():
    stand = AcmeStand()
    stand.routes += """
  - from: https://*.wild.localhost
    to: http://127.0.0.1:1
    allow_public_unauthenticated_access: true
"""
    with Pebble(tls_port=stand.port) as pebble:
        stand.use(pebble.directory, pebble.certificate)
        with all_daemons(stand):
            stand.wait_issued()
            time.sleep(2)
            assert {e["host"] for e in stand.events("acme.order")} == {NAMES[1]}
            assert [e["host"] for e in stand.events("acme.host-skipped")] == ["*.wild.localhost"]
            assert name_of(shown(stand, NAMES[0])) == "CN=" + NAMES[0]


def test_postern_up_orders_as_soon_as_autocert_is_on():
    trial = Trial()
    with Pebble(trial.port) as pebble:
        trial.start()
        try:
            assert trial.pid_of("postern-acme") is None
            path = os.path.join(trial.folder, "config.yaml")
            with open(path) as f:
                text = f.read()
            text = re.sub(r"certificates:\n  - cert: .*\n    key: .*\n", f"autocert: true\nautocert_ca: {pebble.directory}\n"
                          f"autocert_trusted_ca_file: {pebble.certificate}\n", text)
            assert "autocert: true" in text
            with open(path + ".new", "w") as f:
                f.write(text)
            os.rename(path + ".new", path)
            root = pebble.root(os.path.join(pebble.folder, "root.pem"))
            for host in ("public", "authenticate"):
                wait_for(f"a certificate for {host}",
                         lambda: requests.get(trial.url(host, "/ping"), verify=root, timeout=10).status_code == 200, 60)
            acme = trial.pid_of("postern-acme")
            trial.kill("postern-acme")
            wait_for("another", lambda: trial.pid_of("postern-acme") not in (None, acme))
        finally:
            assert trial.stop() == 0
    assert not [e for e in trial.logs("acme") if e["event"] == "acme.failed"]
