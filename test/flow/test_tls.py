"""TLS on both sides: certificates of visitors, reloads, resumption, stapling, names, upstreams' certificates."""

import http.client
import json
import os
import re
import socket
import ssl
import subprocess
import tempfile
import threading
import time

import pytest
import websocket
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.x509 import ocsp
from pki import DAY, Cert, write
from stand import Stand, Upstream, header, raw_request, receive
from trial import free_port, wait_for

HOSTS = ("app.localhost", "other.localhost", "admin.localhost", "public.localhost", "authenticate.localhost", "127.0.0.1")
PUBLIC = """
  - from: https://public.localhost:PORT
    to: http://127.0.0.1:{port}
    allow_public_unauthenticated_access: true
    allow_websockets: true
"""


class Pki:
    """root → intermediate → user, a stranger's CA, and a server CA for the listener."""

    def __init__(self):
        self.folder = tempfile.mkdtemp(prefix="postern-pki-")
        self.root = Cert(self.folder, "root", ca=True)
        self.middle = Cert(self.folder, "middle", self.root, ca=True)
        self.user = Cert(self.folder, "user", self.middle, sans=("user@example.com", "laptop-7.example.com",
                                                                   "spiffe://example.com/laptop"))
        self.stranger_root = Cert(self.folder, "stranger-root", ca=True)
        self.stranger = Cert(self.folder, "stranger", self.stranger_root, sans=("user@example.com",))
        self.server_root = Cert(self.folder, "server-root", ca=True)
        self.ca = write(self.folder, "ca.pem", self.root.pem)

    def server(self, name="server", sans=HOSTS, **kwargs):
        return Cert(self.folder, name, self.server_root, sans=sans, client=False, server=True, **kwargs)

    def lists(self, *others, **kwargs):
        return write(self.folder, "crl.pem", "".join(ca.crl(**kwargs) for ca in (self.root, self.middle, *others)))


@pytest.fixture(scope="module")
def pki():
    return Pki()


@pytest.fixture()
def upstream():
    u = Upstream()
    yield u
    u.close()


def listener(*certs, ocsp=None):
    """The setting, for pairs of files."""
    lines = "certificates:\n"
    for cert in certs:
        lines += f"  - cert: {cert[0]}\n    key: {cert[1]}\n" + (f"    ocsp: {ocsp}\n" if ocsp else "")
    return lines


def mtls(pki, ca=None, **more):
    lines = f"downstream_mtls:\n  ca_file: {ca or pki.ca}\n"
    return lines + "".join(f"  {key}: {value}\n" for key, value in more.items())


class Running:
    def __init__(self, stand):
        self.stand = stand

    def __enter__(self):
        return self.stand.start()

    def __exit__(self, *error):
        self.stand.stop()


def tls_stand(pki, routes, settings="", certs=None):
    s = Stand(routes, settings)
    s.ca = write(pki.folder, "server-root.pem", pki.server_root.pem)
    s.listener = certs if isinstance(certs, str) else listener((certs or pki.server()).files())
    s.write_config()
    return s


def context(stand, cert=None, version=None):
    c = ssl.create_default_context(cafile=stand.ca)
    if cert is not None:
        c.load_cert_chain(*cert.files())
    if version:
        c.minimum_version = c.maximum_version = version
    return c


class Client:
    """One connection, for many requests."""

    def __init__(self, stand, cert=None, sni="public.localhost", version=None, session=None, port=None, ctx=None):
        plain = socket.create_connection(("127.0.0.1", port or stand.port), timeout=15)
        self.stand, self.ctx = stand, ctx or context(stand, cert, version)
        self.s = self.ctx.wrap_socket(plain, server_hostname=sni, session=session)
        self.sni = sni

    def ask(self, host=None, path="/", headers=""):
        """(status, the code of a refusal or None)"""
        host = host or self.sni
        self.s.sendall(f"GET {path} HTTP/1.1\r\nHost: {host}:{self.stand.port}\r\nAccept: application/json\r\n{headers}\r\n".encode())
        answer = http.client.HTTPResponse(self.s)
        answer.begin()
        body = answer.read()
        code = json.loads(body).get("code") if answer.status >= 400 and body.startswith(b"{") else None
        return answer.status, code

    def close(self):
        self.s.close()


def ask(stand, cert=None, **kwargs):
    c = Client(stand, cert)
    try:
        return c.ask(**kwargs)
    finally:
        c.close()


def applied(stand, n):
    """The proxy has taken over its n-th configuration, or refused one."""
    wait_for(f"configuration {n}", lambda: sum(line["event"] in ("config.applied", "config.rejected")
                                               for line in stand.logs("proxy")) >= n)


class Reloading:
    """Counts what the daemons take over: changes come one after the other."""

    def __init__(self, stand):
        self.stand = stand

    def change(self, settings):
        self.stand.settings = settings
        before = {d: self.count(d) for d in ("proxy", "authorize")}
        self.stand.write_config()
        wait_for("the change to be taken over", lambda: all(self.count(d) > n for d, n in before.items()))

    def count(self, daemon):
        return sum(line["event"] in ("config.applied", "config.rejected") for line in self.stand.logs(daemon))


# --- certificates of visitors ---------------------------------------------------------------------------------------


MISSING, INVALID, FINE = (495, "client-certificate-required"), (495, "invalid-client-certificate"), (200, None)


def test_only_a_trusted_certificate_opens_a_route(pki, upstream):
    cases = {
        "none": (None, MISSING),
        "by the root, through an intermediate": (pki.user, FINE),
        "by the root": (Cert(pki.folder, "direct", pki.root), FINE),
        "by somebody else": (pki.stranger, INVALID),
        "by itself": (Cert(pki.folder, "self"), INVALID),
        "for servers only": (Cert(pki.folder, "wrong-use", pki.root, client=False, server=True), INVALID),
        "ended": (Cert(pki.folder, "ended", pki.root, begins=-2 * DAY, ends=-DAY), INVALID),
        "not begun": (Cert(pki.folder, "early", pki.root, begins=DAY, ends=2 * DAY), INVALID),
        "by a certificate that is no CA": (Cert(pki.folder, "by-user", pki.user), INVALID),
    }
    settings = mtls(pki, max_verify_depth=2)
    with Running(tls_stand(pki, PUBLIC.format(port=upstream.port), settings)) as stand:
        for name, (cert, expected) in cases.items():
            assert ask(stand, cert) == expected, name
        assert len(upstream.heads) == 2
        why = [line["why"] for line in stand.logs("proxy") if line["event"] == "client-certificate.untrusted"]
        assert len(why) == 6, why
        # Our own paths stay open: a health check has no certificate.
        assert ask(stand, path="/ping") == FINE


def test_depth_names_and_lists_are_held(pki, upstream):
    with Running(tls_stand(pki, PUBLIC.format(port=upstream.port), mtls(pki))) as stand:
        to = Reloading(stand)
        assert ask(stand, pki.user) == INVALID  # two above it, one is the default
        to.change(mtls(pki, max_verify_depth=0))
        assert ask(stand, pki.user) == FINE
        for names, expected in {
            "[{dns: 'laptop-[0-9]+[.]example[.]com'}]": FINE,
            "[{dns: 'laptop'}]": INVALID,  # the whole name or nothing
            "[{dns: 'nobody'}, {email: '.*@example[.]com'}]": FINE,
            "[{uri: 'spiffe://example[.]com/.*'}]": FINE,
            "[{ip_address: '127.*'}]": INVALID,
            "[{email: 'a|user@example.com'}]": FINE,
            "[{email: 'us|er@example.com'}]": INVALID,
        }.items():
            to.change(mtls(pki, max_verify_depth=0, match_subject_alt_names=names))
            assert ask(stand, pki.user) == expected, names


def test_a_list_revokes_anywhere_in_the_chain(pki, upstream):
    own = Pki()
    mates = {"fine": Cert(own.folder, "mate", own.middle), "revoked": Cert(own.folder, "thief", own.middle)}
    with Running(tls_stand(own, PUBLIC.format(port=upstream.port),
                           mtls(own, max_verify_depth=0, crl_file=own.lists()))) as stand:
        open_one = Client(stand, mates["revoked"])
        other = Client(stand, mates["fine"])
        assert open_one.ask() == FINE and other.ask() == FINE

        own.middle.revoked.append(mates["revoked"])
        own.lists()  # the file's contents change, nothing else
        wait_for("the list to count", lambda: open_one.ask() == INVALID)
        assert other.ask() == FINE and ask(stand, mates["revoked"]) == INVALID

        own.root.revoked.append(own.middle)
        own.lists()
        wait_for("the intermediate's list to count", lambda: other.ask() == INVALID)
        assert ask(stand, Cert(own.folder, "direct", own.root)) == FINE

        own.lists(begins=-2 * DAY, ends=-DAY)  # it has ended: nobody is vouched for
        wait_for("the ended list to close", lambda: ask(stand, Cert(own.folder, "direct", own.root)) == INVALID)
        assert any("a list has ended" in line.get("advice", "") for line in stand.logs("proxy"))


def test_a_revoked_certificate_loses_its_websocket(pki):
    own = Pki()
    echo = Upstream(raw=serve_websocket)
    with Running(tls_stand(own, PUBLIC.format(port=echo.port), mtls(own, max_verify_depth=0, crl_file=own.lists()))) as stand:
        cert, key = own.user.files()
        ws = websocket.create_connection(
            f"wss://public.localhost:{stand.port}/", timeout=20,
            sslopt={"ca_certs": stand.ca, "certfile": cert, "keyfile": key})
        ws.send("here")
        assert ws.recv() == "here"
        own.middle.revoked.append(own.user)
        own.lists()
        with pytest.raises((websocket.WebSocketException, OSError)):
            while True:
                assert ws.recv() != ""
    echo.close()


def serve_websocket(s):
    """Answers the handshake and echoes short text frames."""
    import base64
    import hashlib
    data = b""
    while b"\r\n\r\n" not in data:
        data += receive(s)
    key = re.search(rb"(?i)sec-websocket-key: (\S+)", data).group(1)
    accept = base64.b64encode(hashlib.sha1(key + b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11").digest())
    s.sendall(b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: " +
              accept + b"\r\n\r\n")
    while True:
        head = s.recv(2)
        if len(head) < 2 or head[0] & 15 != 1:
            return
        n = head[1] & 127
        mask, text = s.recv(4), s.recv(n)
        s.sendall(bytes([0x81, n]) + bytes(b ^ mask[i % 4] for i, b in enumerate(text)))


def test_a_policy_names_certificates(pki, upstream):
    from cryptography.hazmat.primitives import hashes, serialization
    import base64
    spki = hashes.Hash(hashes.SHA256())
    spki.update(pki.user.key.public_key().public_bytes(serialization.Encoding.DER,
                                                       serialization.PublicFormat.SubjectPublicKeyInfo))
    criteria = {
        "fingerprint": f"{{fingerprint: {pki.user.fingerprint}}}",
        "spki": f"{{spki_hash: {base64.b64encode(spki.finalize()).decode()}}}",
        "san": "{san_email: {is: user@example.com}}",
        "dns": "{san_dns: {is: laptop-7.example.com}}",
        "uri": "{san_uri: {is: 'spiffe://example.com/laptop'}}",
        "issuer": f"{{issuer: {json.dumps(pki.user.cert.issuer.rfc4514_string())}}}",
        "subject": f"{{subject: {{in: [CN=nobody, {json.dumps(pki.user.cert.subject.rfc4514_string())}]}}}}",
    }
    routes = "".join(f"""
  - from: https://public.localhost:PORT
    prefix: /{name}
    to: http://127.0.0.1:{upstream.port}
    policy:
      - allow:
          and: [{{accept: true}}, {{client_certificate: {data}}}]
""" for name, data in criteria.items())
    routes += f"""
  - from: https://public.localhost:PORT
    prefix: /strict
    to: http://127.0.0.1:{upstream.port}
    policy:
      - allow: {{and: [{{accept: true}}]}}
        deny: {{or: [{{invalid_client_certificate: true}}]}}
"""
    settings = mtls(pki, max_verify_depth=2, enforcement="policy")
    with Running(tls_stand(pki, routes, settings)) as stand:
        for name in criteria:
            assert ask(stand, pki.user, path=f"/{name}/x") == FINE, name
            assert ask(stand, path=f"/{name}/x")[0] == 403, name
        assert ask(stand, pki.stranger, path="/san/x") == FINE  # a name alone is no trust: the manual says so
        assert ask(stand, pki.stranger, path="/fingerprint/x")[0] == 403
        assert ask(stand, pki.stranger, path="/issuer/x")[0] == 403
        line = [x for x in stand.logs("authorize") if x.get("path") == "/issuer/x"][-1]
        told = stand.cli("explain", line["request-id"]).stdout
        assert pki.stranger.fingerprint in told and "which one is not remembered" not in told, told
        assert ask(stand, path="/strict") == MISSING and ask(stand, pki.stranger, path="/strict") == INVALID
        assert ask(stand, pki.user, path="/strict") == FINE


def test_an_upstream_is_told_of_a_trusted_certificate_only(pki, upstream):
    routes = PUBLIC.format(port=upstream.port) + """
    set_request_headers:
      X-Cert: sha256:${pomerium.client_cert_fingerprint}
      X-Dns: ${pomerium.client_cert_san_dns}
      X-Mail: ${pomerium.client_cert_san_email}
"""
    with Running(tls_stand(pki, routes, mtls(pki, max_verify_depth=2, enforcement="policy"))) as stand:
        for cert in (pki.user, pki.stranger, None):
            assert ask(stand, cert, headers="X-Cert: forged\r\nX-Dns: forged\r\n") == FINE
        told = [[header(head, name) for name in ("X-Cert", "X-Dns", "X-Mail")] for head in upstream.heads]
        assert told == [[["sha256:" + pki.user.fingerprint], ["laptop-7.example.com"], ["user@example.com"]],
                        [[], [], []], [[], [], []]]
        # By request: one that is still open when authorize has news is checked once more.
        shown = {line["request-id"]: (line.get("client-certificate"), line.get("client-certificate-trusted"))
                 for line in stand.logs("authorize") if line["event"] == "authorize check"}
        assert list(shown.values()) == [(pki.user.fingerprint, True), (pki.stranger.fingerprint, False), (None, None)]


def h2_statuses(stand, sni, hosts, cert=None):
    """Status of a GET for each host, all on one HTTP/2 connection."""
    import h2.config
    import h2.connection
    import h2.events
    ctx = context(stand, cert)
    ctx.set_alpn_protocols(["h2"])
    found = {}
    with ctx.wrap_socket(socket.create_connection(("127.0.0.1", stand.port), timeout=15), server_hostname=sni) as s:
        assert s.selected_alpn_protocol() == "h2"
        c = h2.connection.H2Connection(h2.config.H2Configuration(header_encoding="utf-8"))
        c.initiate_connection()
        for i, host in enumerate(hosts):
            c.send_headers(2 * i + 1, [(":method", "GET"), (":scheme", "https"), (":authority", f"{host}:{stand.port}"),
                                       (":path", "/")], end_stream=True)
        s.sendall(c.data_to_send())
        while len(found) < len(hosts):
            for event in c.receive_data(receive(s)):
                if isinstance(event, h2.events.ResponseReceived):
                    found[hosts[event.stream_id // 2]] = int(dict(event.headers)[":status"])
            s.sendall(c.data_to_send())
    return found


def test_http2_coalesces_where_everything_is_equal(pki, upstream):
    ca = write(pki.folder, "stranger-ca.pem", pki.stranger_root.pem)
    a, b = pki.server("h2a", sans=("public.localhost", "app.localhost", "admin.localhost")), pki.server("h2b", sans=("other.localhost",))
    routes = "".join(PUBLIC.format(port=upstream.port).replace("public.localhost", name) for name in
                     ("public.localhost", "app.localhost", "other.localhost", "admin.localhost"))
    routes += f"    tls_downstream_client_ca_file: {ca}\n"  # of admin
    with Running(tls_stand(pki, routes, mtls(pki, max_verify_depth=2), certs=listener(a.files(), b.files()))) as stand:
        hosts = ("public.localhost", "app.localhost", "other.localhost", "admin.localhost", "elsewhere.localhost")
        assert h2_statuses(stand, "public.localhost", hosts, pki.user) == {
            "public.localhost": 200, "app.localhost": 200, "other.localhost": 421, "admin.localhost": 421,
            "elsewhere.localhost": 421}
        assert h2_statuses(stand, "admin.localhost", hosts, pki.stranger) == {
            "public.localhost": 421, "app.localhost": 421, "other.localhost": 421, "admin.localhost": 200,
            "elsewhere.localhost": 421}


def test_reject_connection_lets_nobody_else_in(pki, upstream):
    settings = mtls(pki, max_verify_depth=2, enforcement="reject_connection")
    with Running(tls_stand(pki, PUBLIC.format(port=upstream.port), settings)) as stand:
        for version in (ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3):
            for cert in (None, pki.stranger):
                with pytest.raises((ssl.SSLError, OSError, http.client.HTTPException)):
                    Client(stand, cert, version=version).ask(path="/ping")
            c = Client(stand, pki.user, version=version)
            assert c.ask() == FINE and c.ask(path="/ping") == FINE
        refused = [line for line in stand.logs("proxy") if line["event"] == "connection.refused"]
        assert len(refused) == 4 and all(line["peer"] == "127.0.0.1" for line in refused)


def test_a_route_has_a_ca_of_its_own(pki, upstream):
    ca = write(pki.folder, "stranger-ca.pem", pki.stranger_root.pem)
    routes = PUBLIC.format(port=upstream.port) + f"""
  - from: https://other.localhost:PORT
    to: http://127.0.0.1:{upstream.port}
    allow_public_unauthenticated_access: true
    tls_downstream_client_ca_file: {ca}
"""
    with Running(tls_stand(pki, routes, mtls(pki, max_verify_depth=2))) as stand:
        for cert, public, other in ((pki.user, FINE, INVALID), (pki.stranger, INVALID, FINE), (None, MISSING, MISSING)):
            assert Client(stand, cert).ask() == public
            assert Client(stand, cert, sni="other.localhost").ask() == other
        # One certificate covers both names, but they ask for other certificates of visitors.
        assert Client(stand, pki.user).ask(host="other.localhost")[0] == 421
    with Running(tls_stand(pki, routes)) as stand:  # only the route asks: the other host is open
        assert ask(stand) == FINE and Client(stand, pki.user).ask() == FINE
        assert Client(stand, None, sni="other.localhost").ask() == MISSING
        assert Client(stand, pki.stranger, sni="other.localhost").ask() == FINE


def test_nothing_resumes_where_certificates_are_asked_for(pki, upstream):
    with Running(tls_stand(pki, PUBLIC.format(port=upstream.port), mtls(pki, max_verify_depth=2))) as stand:
        for version in (ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3):
            c = Client(stand, pki.user, version=version)
            assert c.ask() == FINE
            assert c.s.session is None or not c.s.session.has_ticket
            again = Client(stand, ctx=c.ctx, session=c.s.session)
            assert again.ask() == FINE and not again.s.session_reused


def test_a_ticket_from_before_client_certificates_opens_nothing(pki, upstream):
    with Running(tls_stand(pki, PUBLIC.format(port=upstream.port))) as stand:
        c = Client(stand)
        assert c.ask() == FINE
        session = c.s.session
        Reloading(stand).change(mtls(pki, enforcement="reject_connection"))
        assert c.ask()[0] == 421 and c.s.recv(1) == b""  # it could not show a certificate any more
        with pytest.raises((ssl.SSLError, OSError, http.client.HTTPException)):
            Client(stand, ctx=c.ctx, session=session).ask()


# --- tickets --------------------------------------------------------------------------------------------------------


def test_any_proxy_of_the_same_secret_resumes(pki, upstream):
    with Running(tls_stand(pki, PUBLIC.format(port=upstream.port))) as stand:
        second = free_port()
        env = {**os.environ, "ADDRESS": f"127.0.0.1:{second}", "HEALTH_CHECK_ADDR": f"unix:{stand.folder}/second.sock"}
        from trial import BIN
        with open(os.path.join(stand.folder, "second.log"), "ab") as log:
            other = subprocess.Popen([os.path.join(BIN, "postern-proxy"), "--config", stand.config], env=env, stdout=log, stderr=log)
        try:
            wait_for("the second proxy", lambda: socket.create_connection(("127.0.0.1", second)).close() is None)
            c = Client(stand)
            assert c.ask() == FINE and not c.s.session_reused and c.s.session.ticket_lifetime_hint == 4 * 3600
            for port in (stand.port, second):
                again = Client(stand, ctx=c.ctx, session=c.s.session, port=port)
                assert again.ask() == FINE and again.s.session_reused
        finally:
            other.terminate()
            other.wait(30)
        old = Client(stand, version=ssl.TLSVersion.TLSv1_2)
        assert old.ask() == FINE
        again = Client(stand, ctx=old.ctx, session=old.s.session)
        assert again.ask() == FINE and not again.s.session_reused  # a ticket of TLS 1.2 would give its keys away


def test_versions_and_a_hello_in_pieces(pki, upstream):
    with Running(tls_stand(pki, PUBLIC.format(port=upstream.port), "tls_min_version: tls1.3\n")) as stand:
        with pytest.raises((ssl.SSLError, OSError)):
            Client(stand, version=ssl.TLSVersion.TLSv1_2)
        inside, outside = ssl.MemoryBIO(), ssl.MemoryBIO()
        tls = context(stand).wrap_bio(inside, outside, server_hostname="public.localhost")
        with socket.create_connection(("127.0.0.1", stand.port), timeout=15) as s:
            s.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            done = False
            while not done:
                try:
                    tls.do_handshake()
                    done = True
                except ssl.SSLWantReadError:
                    pass
                for byte in outside.read():
                    s.send(bytes([byte]))
                if not done:
                    inside.write(receive(s))
            assert ssl.DER_cert_to_PEM_cert(tls.getpeercert(True)).startswith("-----BEGIN")


# --- certificates of ours -------------------------------------------------------------------------------------------


def shown(stand, sni):
    c = ssl.create_default_context()
    c.check_hostname, c.verify_mode = False, ssl.CERT_NONE
    with c.wrap_socket(socket.create_connection(("127.0.0.1", stand.port), timeout=15), server_hostname=sni) as s:
        return x509.load_der_x509_certificate(s.getpeercert(True)).serial_number


def test_certificates_change_under_open_connections(pki, upstream):
    first, second = pki.server(), pki.server()  # the same files
    with Running(tls_stand(pki, PUBLIC.format(port=upstream.port), certs=listener(first.files()))) as stand:
        c = Client(stand)
        assert c.ask() == FINE and shown(stand, "public.localhost") == first.cert.serial_number
        second.files()
        wait_for("the new certificate", lambda: shown(stand, "public.localhost") == second.cert.serial_number)
        assert c.ask() == FINE

        write(pki.folder, "server.crt", "-----BEGIN CERTIFICATE-----\nnonsense\n")
        wait_for("the refusal", lambda: any(line["event"] == "config.rejected" and "server.crt" not in line["event"]
                                            for line in stand.logs("proxy")))
        why = [line["reason"] for line in stand.logs("proxy") if line["event"] == "config.rejected"][-1]
        assert re.search(r"config\.yaml:\d+:\d+: cert: ", why), why
        assert shown(stand, "public.localhost") == second.cert.serial_number and c.ask() == FINE

        first.files()
        wait_for("the first one again", lambda: shown(stand, "public.localhost") == first.cert.serial_number)
        assert c.ask() == FINE


def test_the_exact_name_wins_over_the_wildcard_over_the_first(pki, upstream):
    certs = {name: pki.server(name.replace("*", "any"), sans=sans) for name, sans in {
        "first": HOSTS, "*.apps.localhost": ("*.apps.localhost",), "x": ("x.apps.localhost", "X2.APPS.localhost"),
        "odd": ("*.b.apps.localhost", "odd.localhost")}.items()}
    with Running(tls_stand(pki, PUBLIC.format(port=upstream.port), certs=listener(*(c.files() for c in certs.values())))) as stand:
        for sni, name in {"y.apps.localhost": "*.apps.localhost", "x.apps.localhost": "x", "x2.apps.localhost": "x",
                          "X.Apps.LocalHost": "x", "a.b.apps.localhost": "odd", "deep.a.b.apps.localhost": "first",
                          "apps.localhost": "first", "odd.localhost": "odd", "unknown.localhost": "first",
                          None: "first"}.items():
            assert shown(stand, sni) == certs[name].cert.serial_number, sni


def test_a_connection_serves_only_hosts_of_its_certificate(pki, upstream):
    a = pki.server("a", sans=("public.localhost", "app.localhost", "*.localhost"))
    b = pki.server("b", sans=("other.localhost",))
    routes = "".join(PUBLIC.format(port=upstream.port).replace("public.localhost", name) for name in
                     ("public.localhost", "app.localhost", "other.localhost", "more.localhost"))
    with Running(tls_stand(pki, routes, certs=listener(a.files(), b.files()))) as stand:
        c = Client(stand)
        assert c.ask() == FINE and c.ask(host="APP.localhost") == FINE and c.ask(host="more.localhost") == FINE
        assert c.ask(host="other.localhost")[0] == 421  # covered by the wildcard, but it has one of its own
        assert c.ask(host="elsewhere.example")[0] == 421
        assert c.ask() == FINE


def shown_to(stand, *options, name="public.localhost"):
    """What openssl s_client is shown: kind of key, common name, status of the response that came with it."""
    done = subprocess.run(["openssl", "s_client", "-connect", f"127.0.0.1:{stand.port}", "-status",
                           *(["-servername", name] if name else ["-noservername"]), *options],
                          stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=30)
    key = re.search(r"Peer signature type: (\S+)", done.stdout)
    common = re.search(r"subject=.*CN = (\S+)", done.stdout)
    status = re.search(r"Cert Status: (\w+)", done.stdout)
    return key and key.group(1), common and common.group(1), status and status.group(1)


def test_the_client_chooses_between_kinds_of_keys(pki, upstream):
    def kind(name, key, sans=HOSTS):
        cert = pki.server(name, sans=sans, key=key)
        key_file = cert.files()[1]
        return (write(pki.folder, name + ".crt", cert.pem + pki.server_root.pem), key_file), cert

    ec_pair, _ = kind("by-ec", ec.generate_private_key(ec.SECP256R1()))
    rsa_pair, rsa_cert = kind("by-rsa", rsa.generate_private_key(65537, 2048))
    second, _ = kind("second-ec", ec.generate_private_key(ec.SECP384R1()))
    alone, _ = kind("alone", rsa.generate_private_key(65537, 2048), sans=("alone.localhost",))
    response = write(pki.folder, "by-rsa.der", pki.server_root.ocsp(rsa_cert))
    only_rsa = ("-sigalgs", "rsa_pss_rsae_sha256:RSA+SHA256")
    only_ec = ("-sigalgs", "ecdsa_secp256r1_sha256")
    for order in ((rsa_pair, ec_pair), (ec_pair, rsa_pair)):
        setting = listener(*order, second, alone).replace(f"key: {rsa_pair[1]}\n", f"key: {rsa_pair[1]}\n    ocsp: {response}\n")
        with Running(tls_stand(pki, PUBLIC.format(port=upstream.port), certs=setting)) as stand:
            for version in ("-tls1_2", "-tls1_3"):
                for name in ("public.localhost", "unknown.example", None):
                    assert shown_to(stand, version, name=name)[:2] == ("ECDSA", "by-ec"), (order, version, name)
                    assert shown_to(stand, version, *only_ec, name=name) == ("ECDSA", "by-ec", None)
                    got = shown_to(stand, version, *only_rsa, name=name)
                    assert got[0].startswith("RSA") and got[1:] == ("by-rsa", "good"), (order, version, name)
                assert shown_to(stand, version, name="alone.localhost")[1] == "alone"
                assert shown_to(stand, version, *only_ec, name="alone.localhost")[0] is None
            assert ask(stand) == FINE


# --- stapling -------------------------------------------------------------------------------------------------------


def status_of(stand):
    done = subprocess.run(["openssl", "s_client", "-connect", f"127.0.0.1:{stand.port}", "-servername", "public.localhost",
                           "-status", "-CAfile", stand.ca], stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=30)
    if "OCSP response: no response sent" in done.stdout:
        return None
    return re.search(r"Cert Status: (\w+)", done.stdout).group(1)


def test_only_a_good_response_is_stapled(pki, upstream):
    server, other = pki.server("stapled"), pki.server("other")
    cert, key = server.files()
    write(pki.folder, "stapled.crt", server.pem + pki.server_root.pem)
    responder = Cert(pki.folder, "responder", pki.server_root, client=False,
                     extensions=[x509.ExtendedKeyUsage([x509.oid.ExtendedKeyUsageOID.OCSP_SIGNING])])
    good = pki.server_root.ocsp(server)
    file = write(pki.folder, "response.der", good)
    with Running(tls_stand(pki, PUBLIC.format(port=upstream.port), certs=listener((cert, key), ocsp=file))) as stand:
        assert status_of(stand) == "good" and ask(stand) == FINE
        write(pki.folder, "response.der", pki.server_root.ocsp(server, begins=-2 * DAY, ends=-DAY))
        wait_for("the ended response to go", lambda: status_of(stand) is None)
        assert any("nothing is stapled" in line.get("advice", "") for line in stand.logs("proxy"))
        write(pki.folder, "response.der", pki.server_root.ocsp(server, signer=responder))
        wait_for("an appointed responder's answer", lambda: status_of(stand) == "good")
        write(pki.folder, "response.der", pki.server_root.ocsp(server, status=ocsp.OCSPCertStatus.REVOKED))
        wait_for("the revoked answer to stay here", lambda: status_of(stand) is None)
        write(pki.folder, "response.der", good)
        wait_for("the good one again", lambda: status_of(stand) == "good")
        for bad, sentence in ((b"nonsense", "no OCSP response"), (pki.server_root.ocsp(other), "another certificate"),
                              (pki.stranger_root.ocsp(server), "not signed by"), (good[:-1], "no OCSP response"),
                              (pki.server_root.ocsp(server, signer=pki.user), "not signed by")):
            write(pki.folder, "response.der", bad)
            wait_for(sentence, lambda: sentence in ([line["reason"] for line in stand.logs("proxy")
                                                    if line["event"] == "config.rejected"] or [""])[-1])
            assert status_of(stand) == "good"  # the last good one


# --- upstreams ------------------------------------------------------------------------------------------------------


class MutualUpstream(Upstream):
    """Asks for a certificate and answers with its subject."""

    def __init__(self, pki, sans=("backend.localhost",)):
        self.context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self.cert = pki.server("backend", sans=sans)
        self.context.load_cert_chain(*self.cert.files())
        self.context.load_verify_locations(pki.ca)
        self.context.verify_mode = ssl.CERT_OPTIONAL
        self.names = []
        self.context.sni_callback = lambda s, name, c: self.names.append(name)
        super().__init__(raw=self.talk)

    def talk(self, plain):
        try:
            s = self.context.wrap_socket(plain, server_side=True)
        except (ssl.SSLError, OSError):
            return
        peer = s.getpeercert()
        name = (peer["subject"][0][0][1] if peer else "nobody").encode()
        while s.recv(65536):
            s.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: " + str(len(name)).encode() + b"\r\n\r\n" + name)


def test_upstreams_get_the_certificate_of_their_route(pki):
    u = MutualUpstream(pki, sans=("backend.localhost", "127.0.0.1"))
    robot = Cert(pki.folder, "robot", pki.root)
    root = write(pki.folder, "server-root.pem", pki.server_root.pem)
    wrong = write(pki.folder, "wrong-root.pem", pki.stranger_root.pem)
    cert, key = pki.user.files()
    robot_cert, robot_key = robot.files()
    trust = f"    tls_custom_ca_file: {root}\n"
    name = "    tls_upstream_server_name: backend.localhost\n"
    routes = {
        "user": trust + name + f"    tls_client_cert_file: {cert}\n    tls_client_key_file: {key}\n",
        "robot": trust + name + f"    tls_client_cert_file: {robot_cert}\n    tls_client_key_file: {robot_key}\n",
        "nobody": trust + name + "    tls_upstream_allow_renegotiation: false\n",
        "address": trust,
        "stranger": f"    tls_custom_ca_file: {wrong}\n" + name,
        "other": trust + "    tls_upstream_server_name: other.localhost\n",
        "blind": "    tls_skip_verify: true\n",
    }
    text = "".join(f"""
  - from: https://public.localhost:PORT
    prefix: /{prefix}
    to: https://127.0.0.1:{u.port}
    allow_public_unauthenticated_access: true
{more}""" for prefix, more in routes.items())
    with Running(tls_stand(pki, text)) as stand:
        b = stand.browser()
        for _ in range(3):  # from the pool, too: nobody gets a connection that was opened as somebody else
            for prefix, expected in {"user": "user", "robot": "robot", "nobody": "nobody", "address": "nobody",
                                     "blind": "nobody"}.items():
                answer = b.fetch(stand.url("public", f"/{prefix}"))
                assert (answer.status_code, answer.text) == (200, expected), prefix
            for prefix in ("stranger", "other"):
                assert b.fetch(stand.url("public", f"/{prefix}")).status_code == 502
        assert set(u.names) == {"backend.localhost", "other.localhost", None}  # an address is no server name
        said = [line["advice"] for line in stand.logs("proxy") if "tls_skip_verify" in line.get("advice", "")]
        assert len(said) == 1 and "1 route, this one" in said[0]
        ends = [line for line in stand.logs("proxy") if line["event"] == "upstream.certificate-ends"]
        assert 1 <= len(ends) <= len(routes) and ends[0]["days"] in (0, 1)  # once a day and target
    u.close()


# --- to https -------------------------------------------------------------------------------------------------------


def test_the_plain_listener_sends_to_https_and_nowhere_else(pki, upstream):
    plain = free_port()
    with Running(tls_stand(pki, PUBLIC.format(port=upstream.port), f"http_redirect_addr: 127.0.0.1:{plain}\n")) as stand:
        def get(head):
            answer = raw_request(plain, head.encode() + b"\r\n\r\n")
            where = re.search(rb"(?i)\nlocation: (\S+)", answer)
            return int(answer[9:12]), where and where.group(1).decode()

        at = f"https://public.localhost:{stand.port}"
        assert get("GET /a%20b?x=1 HTTP/1.1\r\nHost: public.localhost:80") == (301, at + "/a%20b?x=1")
        assert get("GET / HTTP/1.1\r\nHost: PUBLIC.localhost") == (301, at + "/")
        assert get("HEAD / HTTP/1.1\r\nHost: public.localhost") == (301, at + "/")
        assert get("POST /form HTTP/1.1\r\nHost: public.localhost\r\nContent-Length: 0") == (308, at + "/form")
        assert get("GET / HTTP/1.1\r\nHost: authenticate.localhost") == (
            301, f"https://authenticate.localhost:{stand.port}/")
        assert get("GET //evil.example/x HTTP/1.1\r\nHost: public.localhost")[1].startswith(at + "/")
        for head in ("GET / HTTP/1.1\r\nHost: evil.example", "GET http://evil.example/ HTTP/1.1\r\nHost: evil.example",
                     "OPTIONS * HTTP/1.1\r\nHost: public.localhost"):
            assert get(head) == (404, None), head
        for head in ("GET / HTTP/1.1\r\nHost: public.localhost\r\nHost: evil.example", "GET / HTTP/1.1",
                     "GET http://evil.example/ HTTP/1.1\r\nHost: public.localhost", "GET / HTTP/1.1\r\nHost: public.localhost@evil"):
            assert get(head) == (400, None), head
        assert get("GET /ping HTTP/1.1\r\nHost: public.localhost")[0] == 301
        assert not upstream.heads


# --- what is said ---------------------------------------------------------------------------------------------------


def test_validate_and_the_log_say_what_ends(pki, upstream):
    soon = pki.server("soon", sans=("app.localhost", "authenticate.localhost"), ends=5 * DAY)
    with Running(tls_stand(pki, PUBLIC.format(port=upstream.port), mtls(pki), certs=listener(soon.files()))) as stand:
        out = stand.cli("validate", stand.config).stdout
        for sentence in (r"config\.yaml:\d+:\d+: the certificate \S*soon\.crt ends on \d{4}-\d\d-\d\d, in 5 days: renew it",
                         r"config\.yaml:\d+:\d+: no certificate covers public\.localhost", r"downstream_mtls\.ca: a CA ends",
                         r"config\.yaml: fine, 1 route"):
            assert re.search(sentence, out), (sentence, out)
        said = [line["advice"] for line in stand.logs("proxy") if line["event"] == "config.advice"]
        assert sorted(said) == sorted(out.splitlines()[:-1])
