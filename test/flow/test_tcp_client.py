"""postern tcp: real programs through a tunnel, with a login in a browser that the test plays."""

import hashlib
import os
import shutil
import signal
import socket
import stat
import subprocess
import tempfile
import threading

import pytest
from pki import Cert, write
from sanitize import PATIENCE
from stand import Stand, Upstream, read_all
from trial import POSTERN, free_port, wait_for
from tunnels import BULK, DB, PUBLIC, STAFF, Client, echo, proxy_of, route, says, token

GREETER = "greeter.localhost:25"


def greet(s):
    s.sendall(b"220 hello\r\n")
    read_all(s)


@pytest.fixture(scope="module")
def stand():
    u, g = Upstream(raw=echo), Upstream(raw=greet)
    routes = (route(u.port, DB, STAFF) + route(g.port, GREETER) + route(0, "refused.localhost:1", to=f"tcp://127.0.0.1:{free_port()}") +
              route(u.port, "bastion.localhost:PORT/inner:22", STAFF) +
              route(u.port, "vault.localhost:1", "    policy:\n      - allow: {or: [{groups: {has: admins}}]}\n"))
    s = Stand(routes, names=("db.localhost", "greeter.localhost", "refused.localhost", "bastion.localhost", "vault.localhost")).start()
    yield s
    s.stop()
    u.close()
    g.close()


@pytest.fixture
def home():
    folder = tempfile.mkdtemp(prefix="postern-home-")
    yield folder
    shutil.rmtree(folder)


def test_one_login_serves_all_connections_and_the_next_time(stand, home):
    c = Client(stand, home)
    try:
        first, second = c.connect(), c.connect()
        page = c.log_in(stand)
        assert page.status_code == 200 and "You are logged in" in page.text
        says(first, b"one")
        says(second, b"two")
        says(c.connect(), b"three")
        assert len(c.addresses()) == 1 and c.addresses()[0] in c.said()
    finally:
        c.end()
    folder = os.path.join(home, ".cache", "postern")
    (kept,) = os.listdir(folder)
    assert stat.S_IMODE(os.stat(folder).st_mode) == 0o700
    assert stat.S_IMODE(os.stat(os.path.join(folder, kept)).st_mode) == 0o600
    with open(os.path.join(folder, kept)) as f:
        assert f.read() not in c.opened
    again = Client(stand, home)
    try:
        says(again.connect(), b"no login this time")
        assert len(again.addresses()) == 1
    finally:
        again.end()


def test_a_revoked_login_begins_again(stand, home):
    c = Client(stand, home)
    try:
        s = c.connect()
        c.log_in(stand, email="admin@example.com")
        s.sendall(b"x")
        assert s.recv(1) == b"x"
        stand.cli("users", "revoke", "admin@example.com")
        with pytest.raises(ConnectionResetError):  # a cut, not an end
            if s.recv(1) == b"":
                raise AssertionError("a clean end")
        s.close()
        wait_for("the word about it", lambda: "was cut" in c.said())
        s = c.connect()
        c.log_in(stand, n=2)
        says(s, b"again")
    finally:
        c.end()


def test_a_bastion_is_one_address(stand, home):
    c = Client(stand, home, dest=f"tcp+https://bastion.localhost:{stand.port}/inner:22", proxy=False)
    try:
        s = c.connect()
        c.log_in(stand)
        says(s, b"inner")
    finally:
        c.end()


def test_sixty_four_megabytes_pass_unchanged(stand, home):
    mine = token(stand, "db", DB)
    c = Client(stand, home, env={"POSTERN_TUNNEL_TOKEN": mine})
    try:
        s = c.connect()

        def write():
            s.sendall(BULK)
            s.shutdown(socket.SHUT_WR)
        writer = threading.Thread(target=write)
        writer.start()
        digest = hashlib.sha256()
        while True:
            part = s.recv(1 << 18)
            if not part:
                break
            digest.update(part)
        writer.join()
        assert digest.digest() == hashlib.sha256(BULK).digest()
        assert c.addresses() == []
        s.close()
    finally:
        c.end()


def test_standard_input_and_output_are_a_tunnel(stand, home):
    path = os.path.join(home, "token")
    with open(path, "w") as f:
        f.write(token(stand, "db", DB) + "\n")
    c = Client(stand, home, "--token-file", path, stdio=True)
    out, _ = c.process.communicate(BULK[:1 << 20], timeout=60 * PATIENCE)
    assert out == BULK[:1 << 20] and c.process.returncode == 0, c.said()
    c.errors.close()
    # Whoever speaks first is heard without a word from us.
    c = Client(stand, home, dest=GREETER, stdio=True)
    assert c.process.stdout.readline() == b"220 hello\r\n"
    c.process.stdin.close()
    assert c.process.wait(20 * PATIENCE) == 0, c.said()
    c.process.stdout.close()
    c.errors.close()


def test_a_token_from_outside_is_never_replaced_by_a_login(stand, home):
    c = Client(stand, home, env={"POSTERN_TUNNEL_TOKEN": "no-token"}, stdio=True)
    c.process.communicate(b"", timeout=30 * PATIENCE)
    assert c.process.returncode == 1 and "the token is not accepted" in c.said() and c.addresses() == []
    c.errors.close()


@pytest.mark.parametrize("dest, words", [
    ("greeter.localhost:26", "has no tunnel to greeter.localhost:26"),
    ("refused.localhost:1", "cannot be opened now (the upstream refused the connection"),
])
def test_what_goes_wrong_is_said_in_a_sentence(stand, home, dest, words):
    c = Client(stand, home, dest=dest, stdio=True)
    c.process.communicate(b"", timeout=30 * PATIENCE)
    assert c.process.returncode == 1 and words in c.said(), c.said()
    c.errors.close()


def test_who_is_not_allowed_hears_why(stand, home):
    mine = token(stand, "vault", "vault.localhost:1")
    c = Client(stand, home, dest="vault.localhost:1", env={"POSTERN_TUNNEL_TOKEN": mine}, stdio=True)
    c.process.communicate(b"", timeout=30 * PATIENCE)
    assert c.process.returncode == 1 and "you are not allowed to reach vault.localhost:1 (groups-unauthorized)" in c.said(), c.said()
    c.errors.close()


def test_a_certificate_that_nobody_vouches_for_is_refused(stand, home):
    done = subprocess.run([POSTERN, "tcp", DB, "--proxy-url", proxy_of(stand, DB), "--listen", "-"], input=b"", capture_output=True,
                          env={**os.environ, "HOME": home}, timeout=30 * PATIENCE)
    assert done.returncode == 1 and b"is not trusted" in done.stderr
    other = Client(stand, home, dest=DB, proxy=False, stdio=True)  # the name must be the one asked for
    other.process.communicate(b"", timeout=30 * PATIENCE)
    assert other.process.returncode == 1
    other.errors.close()


def test_a_kept_login_that_others_can_read_is_not_used(stand, home):
    c = Client(stand, home)
    try:
        s = c.connect()
        c.log_in(stand)
        says(s, b"x")
    finally:
        c.end()
    folder = os.path.join(home, ".cache", "postern")
    os.chmod(os.path.join(folder, os.listdir(folder)[0]), 0o644)
    c = Client(stand, home)
    try:
        s = c.connect()
        c.log_in(stand, n=2)
        says(s, b"y")
        assert "is not yours alone" in c.said()
    finally:
        c.end()


def test_it_is_used_rightly_or_says_how():
    for args in ([], ["a"], ["a:b"], ["a:1", "--nonsense"], ["a:1", "--proxy-url", "http://b"], ["tcp+https://a/b"]):
        done = subprocess.run([POSTERN, "tcp", *args], capture_output=True, text=True, timeout=30)
        assert done.returncode == 2 and done.stderr, args
    assert subprocess.run([POSTERN, "tcp", "--help"], capture_output=True, text=True).stdout.startswith("usage: postern tcp")


def test_a_certificate_of_one_s_own_is_shown(home):
    root = Cert(home, "root", ca=True)
    leaf = Cert(home, "laptop", issuer=Cert(home, "middle", issuer=root, ca=True))
    ca, (cert, key) = write(home, "root.pem", root.pem), leaf.files()
    u = Upstream(raw=echo)
    s = Stand(route(u.port, DB, STAFF), settings=f"downstream_mtls: {{ca_file: {ca}, enforcement: reject_connection, max_verify_depth: 2}}\n",
              names=("db.localhost",)).start()
    try:
        without = Client(s, home, stdio=True)
        without.process.communicate(b"", timeout=30 * PATIENCE)
        assert without.process.returncode == 1
        without.errors.close()
        half = Client(s, home, "--client-cert", cert, stdio=True)
        half.process.communicate(b"", timeout=30 * PATIENCE)
        assert half.process.returncode == 1 and "belong together" in half.said()
        half.errors.close()
        c = Client(s, home, "--client-cert", cert, "--client-key", key)
        try:
            local = c.connect()
            c.log_in(s, cert=(cert, key))
            says(local, b"shown")
        finally:
            c.end()
    finally:
        s.stop()
        u.close()


PG = "/usr/lib/postgresql/15/bin"


@pytest.mark.skipif(not os.path.exists(PG + "/initdb"), reason="needs Debian's postgresql-15")
def test_a_real_postgresql_answers_through_the_tunnel(stand, home):
    data, port = tempfile.mkdtemp(prefix="postern-pg-"), free_port()
    shutil.chown(data, "postgres", "postgres")
    as_postgres = ["setpriv", "--reuid", "postgres", "--regid", "postgres", "--clear-groups"]
    log = os.path.join(data, "log")
    subprocess.run([*as_postgres, PG + "/initdb", "-D", data + "/db", "-A", "trust", "--no-sync"], check=True, capture_output=True, cwd="/")
    with open(os.path.join(home, "pg.log"), "wb") as f:
        server = subprocess.Popen([*as_postgres, PG + "/postgres", "-D", data + "/db", "-p", str(port), "-k", data, "-h", "127.0.0.1"],
                                  stdout=f, stderr=f, cwd="/")
    pg = Stand(route(port, "pg.localhost:5432", PUBLIC), names=("pg.localhost",)).start()
    c = Client(pg, home, dest="pg.localhost:5432")
    try:
        query = ["psql", "-h", "127.0.0.1", "-p", str(c.port), "-U", "postgres", "-Atc",
                 "select length(string_agg(md5(i::text), '')) from generate_series(1, 200000) i"]
        answer = wait_for("PostgreSQL to answer", lambda: subprocess.run(query, capture_output=True, text=True, timeout=60).stdout.strip(), 60)
        assert answer == "6400000"
        copy = subprocess.run([*query[:-1], "copy (select md5(i::text) from generate_series(1, 500000) i) to stdout"], capture_output=True)
        assert copy.stdout.count(b"\n") == 500000, copy.stderr
    finally:
        c.end()
        server.send_signal(signal.SIGINT)
        server.wait(30)
        pg.stop()
        shutil.rmtree(data)
    assert not os.path.exists(log)
