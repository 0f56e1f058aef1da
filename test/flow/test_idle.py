"""Sessions that nobody uses, and sessions that are too old."""

import base64
import json
import time

import grpc
import pytest
from broker import ANSWER_S, Identity, stubs
from stand import PASSWORD, Stand
from trial import wait_for

USER = "user@example.com"
SESSION, ACCESS = "type.googleapis.com/session.Session", "postern.io/SessionAccess"


@pytest.fixture()
def stand(upstream):
    route = "    to: http://127.0.0.1:%d\n    policy: [{allow: {or: [{groups: {has: staff}}]}}]\n" % upstream.port
    s = Stand("".join(f"  - from: https://{name}.localhost:PORT\n{route}{more}" for name, more in (
        ("app", ""), ("other", "    session_idle_timeout: 0s\n    session_max_age: 0s\n"),
        ("admin", "    session_idle_timeout: 5m\n    session_max_age: 30m\n"))),
        settings="session_idle_timeout: 1h\nsession_max_age: 4h\n")
    s.start()
    yield s
    s.stop()


class Store:
    def __init__(self, stand):
        self.pb, self.identity = stubs()["databroker"], Identity(base64.b64decode(stand.secret))
        self.api = stubs()["rpc"].DataBrokerServiceStub(
            grpc.insecure_channel(f"unix:{stand.folder}/databroker.sock", [("grpc.enable_http_proxy", 0)]))

    def records(self, kind):
        return self.api.Query(self.pb.QueryRequest(type=kind, limit=1000), timeout=ANSWER_S,
                              metadata=self.identity.proof("cli", "databroker")).records

    def age(self, seconds):
        """Sessions began so much earlier, and nobody noted a use."""
        found = self.records(SESSION)
        for record in found:
            s = stubs()["session"].Session()
            assert record.data.Unpack(s)
            s.issued_at.seconds -= seconds
            record.data.Pack(s)
        uses = self.records(ACCESS)
        for record in uses:
            record.deleted_at.seconds = int(time.time())
        self.api.Put(self.pb.PutRequest(records=[*found, *uses]), timeout=ANSWER_S,
                     metadata=self.identity.proof("authenticate", "databroker"))


def restart(stand, daemon):
    stand.kill(daemon)
    stand.start_one(daemon)
    stand.wait_ready()


def enter(stand, *hosts):
    b = stand.browser()
    assert b.login(stand.url(hosts[0]), USER, PASSWORD).status_code == 200
    for host in hosts[1:]:
        assert b.get(stand.url(host)).status_code == 200
    return b


def code_of(b, url):
    answer = b.fetch(url)
    return answer.status_code, answer.json().get("code") if answer.status_code == 401 else None


def explained(stand, host):
    """What `explain` calls the state of the session there."""
    told = json.loads(stand.cli("explain", stand.url(host), "--user", USER, "--json").stdout)
    assert (told["verdict"] == "login") == (told["who"]["session_state"] != "live")
    return told["who"]["session_state"]


def test_who_is_idle_too_long_logs_in_again(stand):
    b = enter(stand, "app", "other", "admin")
    Store(stand).age(7200)
    restart(stand, "authorize")  # it knows of no use
    assert code_of(b, stand.url("app")) == (401, "session-idle")
    assert explained(stand, "app") == "idle" and explained(stand, "other") == "live" and explained(stand, "admin") == "too-old"
    assert code_of(b, stand.url("other")) == (200, None)  # without a bound; from now on the session is in use
    assert code_of(b, stand.url("app")) == (200, None) and explained(stand, "app") == "live"
    assert code_of(b, stand.url("admin")) == (401, "session-too-old")
    page = b.get(stand.url("admin", "/x?y"))
    assert "/.pomerium/sign_in" in page.url and "password" in page.text, (page.url, page.text[:500])
    assert b.login(stand.url("admin", "/x?y"), USER, PASSWORD).url == stand.url("admin", "/x?y")
    assert code_of(b, stand.url("admin")) == (200, None)


def test_a_route_s_own_bound_is_the_one_that_counts(stand):
    b = enter(stand, "app", "admin")
    Store(stand).age(900)
    restart(stand, "authorize")
    assert code_of(b, stand.url("admin")) == (401, "session-idle")
    assert code_of(b, stand.url("app")) == (200, None)
    assert code_of(b, stand.url("admin")) == (200, None)


def test_an_old_session_is_refused_however_busy(stand):
    b = enter(stand, "app", "other")
    Store(stand).age(4 * 3600 + 60)
    wait_for("the age to bite", lambda: code_of(b, stand.url("app")) == (401, "session-too-old"), 10)
    assert code_of(b, stand.url("other")) == (200, None)


def test_uses_are_noted_and_survive_a_restart(stand):
    b = enter(stand, "app")
    store = Store(stand)
    store.age(1800)
    restart(stand, "authorize")
    versions = {r.id: r.version for r in store.records(SESSION)}
    for _ in range(50):
        assert b.fetch(stand.url("app")).status_code == 200
    found = wait_for("the note of a use", lambda: store.records(ACCESS), 30)
    assert [r.id for r in found] == list(versions) and len(found) == 1
    assert {r.id: r.version for r in store.records(SESSION)} == versions  # no use changes the session
    row = next(line for line in stand.cli("sessions", "list").stdout.splitlines() if line.startswith(found[0].id))
    assert time.strftime("%Y-%m-%dT%H:", time.gmtime()) in row.replace("  ", " "), row
    for record in store.records(SESSION):  # even if it began long ago: it was used just now
        s = stubs()["session"].Session()
        assert record.data.Unpack(s)
        s.issued_at.seconds -= 5400
        record.data.Pack(s)
        store.api.Put(store.pb.PutRequest(records=[record]), timeout=ANSWER_S,
                      metadata=store.identity.proof("authenticate", "databroker"))
    restart(stand, "authorize")
    assert code_of(b, stand.url("app")) == (200, None)


def test_bounds_that_cannot_be_kept_are_refused(stand):
    stand.settings = "session_idle_timeout: 30s\nsession_max_age: 1s\n"
    stand.write_config()
    done = stand.cli("validate", stand.config, check=False)
    assert done.returncode != 0 and "session_idle_timeout: 2m at least" in done.stdout + done.stderr
    assert "session_max_age: 2m at least" in done.stdout + done.stderr
