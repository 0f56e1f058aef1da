"""The audit as an auditor looks at it: every decision has its line, a chain shows what was done to it, and what cannot be
written down is refused where the settings say so."""

import base64
import ctypes
import json
import os
import re
import signal
import ssl
import subprocess
import threading
import time

import grpc
import pytest
from broker import Identity, stubs
from foreign import channel
from sanitize import PATIENCE
from stand import Stand, Upstream, raw_request
from trial import POSTERN, wait_for

ROUTES = """  - from: https://public.localhost:PORT
    to: http://127.0.0.1:{up}
    allow_public_unauthenticated_access: true
  - from: https://app.localhost:PORT
    to: http://127.0.0.1:{up}
    policy: [{{deny: {{and: [{{accept: true}}]}}}}]
"""


def stand_with(upstream, audit, **more):
    """audit: YAML, FOLDER is the stand's."""
    s = Stand(ROUTES.format(up=upstream.port), settings="audit: {}", **more)
    os.mkdir(s.folder + "/audit", 0o700)
    set_audit(s, audit)
    return s


def set_audit(s, audit):
    s.settings = "audit: {" + audit.replace("FOLDER", s.folder) + "}"
    s.write_config()


@pytest.fixture
def upstream():
    u = Upstream(answer=lambda head, body: b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
    yield u
    u.close()


def request(s, host, path="/", method="GET"):
    """The status, over a connection of its own."""
    context = ssl.create_default_context(cafile=s.ca)
    got = raw_request(s.port, f"{method} {path} HTTP/1.1\r\nHost: {host}.localhost:{s.port}\r\nConnection: close\r\n\r\n".encode(),
                      context, f"{host}.localhost", 20 * PATIENCE)
    assert got.startswith(b"HTTP/1.1 "), got
    return int(got[9:12]), got


def log_name(s, part="authorize"):
    return f"{s.folder}/audit/{part}.audit.log"


def lines_of(*names):
    lines = []
    for name in names:
        with open(name) as f:
            for line in f:
                try:
                    lines.append(json.loads(line))
                except ValueError:
                    lines.append({"event": "torn"})
    return lines


def decisions(*names):
    return [e for e in lines_of(*names) if e["event"] == "authorize check"]


def verify(s, *args):
    done = s.cli("audit", "verify", *args, check=False)
    return done.returncode, done.stdout + done.stderr


def stop_daemon(s, daemon):
    assert s.kill(daemon, signal.SIGTERM) == 0, s.last_words(daemon)


# --- the chain ----------------------------------------------------------------------------------


def test_every_decision_has_its_line_and_the_chain_is_whole(upstream):
    s = stand_with(upstream, "sink: file, folder: FOLDER/audit, chain: hmac").start()
    try:
        for i in range(20):
            assert request(s, "public", f"/a{i}")[0] == 200
            assert request(s, "app", f"/d{i}")[0] == 403
            # The denial's line was written before its answer; allows follow.
            assert any(e["path"] == f"/d{i}" and e["decision"] == "deny" for e in decisions(log_name(s)))
        stop_daemon(s, "authorize")
        assert sorted(e["path"] for e in decisions(log_name(s))) == sorted([f"/a{i}" for i in range(20)] + [f"/d{i}" for i in range(20)])
        code, text = verify(s, log_name(s))
        assert code == 0 and "ended in order" in text and text.endswith("whole\n"), text
        head = re.search(r"head (\S+)", text).group(1)
        with open(log_name(s)) as f:
            lines = f.read().splitlines(keepends=True)
        for changed, finding in ((lines[:5] + lines[6:], "are missing"),
                                 ([li.replace('"deny"', '"allow"') for li in lines], "was changed"),
                                 (lines[1:], "begins in its middle")):
            with open(s.folder + "/changed", "w") as f:
                f.writelines(changed)
            code, text = verify(s, s.folder + "/changed")
            assert code == 1 and finding in text and text.endswith("BROKEN\n"), text
        with open(s.folder + "/changed", "w") as f:
            f.writelines(lines[:-3])
        assert verify(s, s.folder + "/changed")[0] == 0
        assert verify(s, "--head", head, log_name(s))[0] == 0
        code, text = verify(s, "--head", head, s.folder + "/changed")
        assert code == 1 and "was there once" in text
        s.start_one("authorize")
        s.wait_ready()
        assert request(s, "app", "/again")[0] == 403
        code, text = verify(s, "--head", head, log_name(s))
        assert code == 0 and "no orderly end" in text, text
    finally:
        s.stop()


def load(s, threads, until):
    """Requests from several connections until told; how many got an answer, by status."""
    counts = {}
    lock = threading.Lock()

    def run():
        while not until.is_set():
            try:
                status = request(s, "public", "/load")[0]
            except (AssertionError, OSError):
                status = 0
            with lock:
                counts[status] = counts.get(status, 0) + 1

    running = [threading.Thread(target=run) for _ in range(threads)]
    for t in running:
        t.start()
    return counts, lambda: [t.join() for t in running]


def test_a_kill_in_mid_write_leaves_a_chain_that_verifies(upstream):
    s = stand_with(upstream, "sink: file, folder: FOLDER/audit, chain: hmac").start()
    try:
        for _ in range(3):
            done = threading.Event()
            counts, join = load(s, 4, done)
            wait_for("answers", lambda: counts.get(200, 0) > 30)
            s.kill("authorize")
            done.set()
            join()
            s.start_one("authorize")
            s.wait_ready()
        with open(log_name(s), "a") as f:  # as a crash in the middle of a line leaves it
            s.kill("authorize")
            f.write('{"time":"2026-11-27T10:00:00.000Z","service":"authorize","event":"authorize che')
        code, text = verify(s, log_name(s))
        assert code == 0 and "the last line has no end" in text, text
        s.start_one("authorize")
        s.wait_ready()
        assert request(s, "app")[0] == 403
        code, text = verify(s, log_name(s))
        assert code == 0, text
        assert [e["event"] for e in lines_of(log_name(s))].count("audit opened") == 5
    finally:
        s.stop()


def test_rotation_under_load_loses_no_line(upstream):
    s = stand_with(upstream, "sink: file, folder: FOLDER/audit, chain: hmac, rotate_interval: 1s, keep: 50").start()
    try:
        done = threading.Event()
        counts, join = load(s, 4, done)
        for i in range(3):  # logrotate, beside ours
            time.sleep(1.2)
            try:
                os.rename(log_name(s), f"{s.folder}/audit/moved.{i}")
            except FileNotFoundError:
                pass  # just between its rename and the next write
        wait_for("some turns", lambda: len(os.listdir(s.folder + "/audit")) > 5)
        done.set()
        join()
        stop_daemon(s, "authorize")
        names = [f"{s.folder}/audit/{n}" for n in os.listdir(s.folder + "/audit")]
        names.sort(key=lambda n: next(e["seq"] for e in lines_of(n)))
        code, text = verify(s, *names)
        assert code == 0, text
        assert set(counts) == {200}
        assert len(decisions(*names)) == counts[200]
    finally:
        s.stop()


# --- when it cannot be written ------------------------------------------------------------------


@pytest.fixture
def small_disk():
    """Mounts a small file system for this thread and what it starts."""
    libc = ctypes.CDLL(None, use_errno=True)
    mounted = []
    if os.geteuid() != 0 or libc.unshare(0x00020000) != 0:  # CLONE_NEWNS
        pytest.skip("no mount namespace to be had")
    if subprocess.run(["mount", "--make-rprivate", "/"], capture_output=True).returncode != 0:
        pytest.skip("the mounts of this root cannot be made our own")  # as below chroot(2)

    def mount(folder):
        subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64k,mode=0700", "tmpfs", folder], check=True)
        mounted.append(folder)

    yield mount
    for folder in mounted:
        subprocess.run(["umount", "-l", folder], check=False)


def fill(folder):
    with open(folder + "/filler", "wb", buffering=0) as f:
        try:
            while f.write(b"x" * 4096):
                pass
        except OSError:
            pass


def is_failing(s):
    return any(e["event"] == "audit.failing" for e in s.logs("authorize"))


def fail_disk(s):
    fill(s.folder + "/audit")
    for _ in range(200):  # the page that is begun may have room
        if is_failing(s):
            return
        request(s, "public", "/x" * 300)
        time.sleep(0.01)
    raise AssertionError("it does not fail")


@pytest.mark.parametrize("required, allowed", [("denials", 200), ("all", 503), ("none", 200)])
def test_a_full_disk_refuses_what_the_settings_say(upstream, small_disk, required, allowed):
    s = stand_with(upstream, f"sink: file, folder: FOLDER/audit, chain: hmac, required: {required}")
    small_disk(s.folder + "/audit")
    s.start()
    try:
        assert request(s, "public", "/before")[0] == 200
        assert request(s, "app", "/before")[0] == 403
        fail_disk(s)
        status, text = request(s, "public", "/full-allow")
        assert status == allowed, text
        if allowed == 503:
            assert b"audit-unavailable" in text
        status, text = request(s, "app", "/full-deny")
        assert status == (403 if required == "none" else 503), text
        assert s.is_ready("authorize") == (required == "none") and s.is_ready("databroker")  # that one wrote nothing yet
        why = [e["reason"] for e in s.logs("authorize") if e["event"] == "part.not-ready" and e["part"] == "audit"]
        assert (required == "none") == (not why) and all("audit lines cannot be written" in w for w in why)
        os.unlink(s.folder + "/audit/filler")
        wait_for("it works again", lambda: any(e["event"] == "audit.works-again" for e in s.logs("authorize")))
        wait_for("readiness", lambda: s.is_ready("authorize"))
        assert request(s, "public", "/after")[0] == 200
        assert request(s, "app", "/after")[0] == 403
        stop_daemon(s, "authorize")
        found = {(e["path"], e["decision"]) for e in decisions(log_name(s))}
        assert {("/before", "allow"), ("/before", "deny"), ("/after", "allow"), ("/after", "deny")} <= found
        # What was refused for want of a line has it, too: it was kept until there was room.
        assert ("/full-allow", "allow" if allowed == 200 else "unavailable") in found
        assert ("/full-deny", "deny" if required == "none" else "unavailable") in found
        assert verify(s, log_name(s))[0] == 0
        assert not any(e["event"] == "audit.lost" for e in s.logs("authorize"))
    finally:
        s.stop()


# --- settings -----------------------------------------------------------------------------------


def test_other_settings_take_effect_without_a_lost_line(upstream):
    s = stand_with(upstream, "sink: stdout").start()
    try:
        assert request(s, "app", "/stdout")[0] == 403
        assert [e["decision"] for e in s.logs("authorize") if e.get("path") == "/stdout"] == ["deny"]
        done = threading.Event()
        counts, join = load(s, 4, done)
        wait_for("answers", lambda: counts.get(200, 0) > 10)
        set_audit(s, "sink: file, folder: FOLDER/audit, chain: hmac")
        wait_for("lines in the file", lambda: os.path.exists(log_name(s)) and len(decisions(log_name(s))) > 10)
        set_audit(s, "sink: file, folder: FOLDER/nowhere")
        wait_for("it is refused", lambda: any(e["event"] == "config.rejected" for e in s.logs("authorize")))
        set_audit(s, "sink: file, folder: FOLDER/audit, chain: hmac, fsync: true")
        wait_for("it is taken", lambda: sum(e["event"] == "audit.settings-taken" for e in s.logs("authorize")) == 2)
        done.set()
        join()
        stop_daemon(s, "authorize")
        assert set(counts) == {200}
        lines = [e for e in s.logs("authorize") + decisions(log_name(s)) if e.get("path") == "/load" and not e.get("recheck")]
        assert len(lines) == counts[200]
        assert len({e["request-id"] for e in lines}) == counts[200]
        assert verify(s, log_name(s))[0] == 0
    finally:
        s.stop()


def test_two_authorizes_of_one_folder_are_refused_with_the_way_out(upstream):
    s = stand_with(upstream, "sink: file, folder: FOLDER/audit, chain: hmac", authorizes=2)
    os.mkdir(s.folder + "/second")
    s.env["authorize-2"] = {"AUDIT_FOLDER": s.folder + "/second"}
    s.start()
    try:
        for i in range(8):
            assert request(s, "app", f"/{i}")[0] == 403
        names = log_name(s), s.folder + "/second/authorize.audit.log"
        assert sorted(e["path"] for e in decisions(*names)) == [f"/{i}" for i in range(8)]
        code, text = verify(s, *names)
        assert code == 0 and text.count("head ") == 2, text
        s.env["authorize-3"] = {}
        third = s.start_one("authorize-3")
        assert third.wait(20 * PATIENCE) == 1
        with open(s.log_file("authorize-3")) as f:
            assert "AUDIT_FOLDER" in f.read()
        del s.processes["authorize-3"]
    finally:
        s.stop()


# --- administration -----------------------------------------------------------------------------

LOGIN = """  - from: https://app.localhost:PORT
    to: http://127.0.0.1:{up}
    allow_any_authenticated_user: true
"""
USER = "user@example.com"


def changes(s, **wanted):
    return [e for e in lines_of(log_name(s, "databroker")) if e["event"] == "databroker.write" and
            all(e.get(k) == v for k, v in wanted.items())]


def session_of(s):
    return next(e["id"] for e in changes(s, role="authenticate", outcome="done") if e["type"].endswith("session.Session"))


def test_what_an_administrator_does_has_a_line_before_and_after(upstream):
    s = stand_with(upstream, "sink: file, folder: FOLDER/audit, chain: hmac")
    s.write_config(LOGIN.format(up=upstream.port))
    s.start()
    try:
        assert s.browser().login(s.url("app"), USER, "flow-password").status_code == 200
        session = session_of(s)
        assert not changes(s, role="authenticate", outcome="asked")
        s.cli("sessions", "revoke", session)
        lines = changes(s, id=session, role="cli")
        assert [(e["outcome"], e["action"]) for e in lines] == [("asked", "delete"), ("done", "delete")], lines
        assert lines[1]["version"] > 0 and "version" not in lines[0]
        stop_daemon(s, "databroker")
        code, text = verify(s, log_name(s, "databroker"))
        assert code == 0 and "ended in order" in text, text
    finally:
        s.stop()


@pytest.mark.parametrize("required", ["denials", "all", "none"])
def test_without_room_for_its_line_an_administrator_changes_nothing(upstream, small_disk, required):
    s = stand_with(upstream, f"sink: file, folder: FOLDER/audit, chain: hmac, required: {required}")
    s.write_config(LOGIN.format(up=upstream.port))
    s.env["authorize"] = {"AUDIT_FOLDER": s.folder}  # the disk is the databroker's alone
    small_disk(s.folder + "/audit")
    s.start()
    try:
        browser = s.browser()
        assert browser.login(s.url("app"), USER, "flow-password").status_code == 200
        session = session_of(s)
        fill(s.folder + "/audit")
        for _ in range(30):  # logins fill the page that is begun
            if any(e["event"] == "audit.failing" for e in s.logs("databroker")):
                break
            s.browser().login(s.url("app"), USER, "flow-password")
        done = s.cli("sessions", "revoke", session, check=False)
        if required == "none":
            assert done.returncode == 0, done.stderr
            return
        assert done.returncode == 1 and "audit-unavailable: nothing was done" in done.stdout + done.stderr
        assert not s.is_ready("databroker")
        settings = s.settings
        s.settings = settings.replace(f"required: {required}", "required: none")
        s.write_config()
        wait_for("readiness without need", lambda: s.is_ready("databroker"))
        s.settings = settings
        s.write_config()
        wait_for("the need again", lambda: not s.is_ready("databroker"))
        assert browser.get(s.url("app")).status_code == 200
        # A login is no administration: it goes on, unless everything must have its line.
        page = s.browser().login(s.url("app"), "admin@example.com", "flow-password")
        assert (page.status_code == 200) == (required == "denials"), page.status_code
        os.unlink(s.folder + "/audit/filler")
        wait_for("it works again", lambda: any(e["event"] == "audit.works-again" for e in s.logs("databroker")))
        s.cli("sessions", "revoke", session)
        wait_for("the session's end", lambda: "password" in browser.get(s.url("app")).text)
        assert changes(s, id=session, role="cli", outcome="done")
        assert verify(s, log_name(s, "databroker"))[0] == 0
    finally:
        s.stop()


def refusals(s, part):
    return [{k: e.get(k) for k in ("outcome", "method", "role", "caller", "by", "more")} for e in lines_of(log_name(s, part))
            if e["event"] == "rpc.refused"]


def test_a_call_that_its_caller_may_not_make_has_a_line(upstream):
    s = stand_with(upstream, "sink: file, folder: FOLDER/audit, chain: hmac").start()
    try:
        pb, identity = stubs()["databroker"], Identity(base64.b64decode(s.secret))
        token = identity.token("reader")
        token_id = base64.urlsafe_b64decode(token[8:] + "==")[11:47].decode()
        put = "/databroker.DataBrokerService/Put"
        for part, method in (("databroker", put), ("authorize", "/postern.Authorize/Check")):
            with channel(s, part) as link:
                call = link.unary_unary(method, request_serializer=lambda m: m.SerializeToString())
                for metadata, status in (([("authorization", "Bearer " + token)], grpc.StatusCode.PERMISSION_DENIED),
                                         (identity.proof("databroker", part), grpc.StatusCode.PERMISSION_DENIED),
                                         ([], grpc.StatusCode.UNAUTHENTICATED)):
                    with pytest.raises(grpc.RpcError) as e:
                        call(pb.PutRequest(), metadata=metadata, timeout=20 * PATIENCE)
                    assert e.value.code() == status
            wanted = {"outcome": "refused", "method": method, "more": None}
            want = [{**wanted, "role": "reader", "caller": token_id, "by": "token"},
                    {**wanted, "role": "databroker", "caller": "databroker", "by": "proof"},
                    {**wanted, "role": "nobody", "caller": "nobody", "by": "nothing"}]
            wait_for("the lines", lambda part=part: len(refusals(s, part)) >= 3)
            assert refusals(s, part) == want
        # Of strangers, who make as many calls as they like, some have a line and the next tells how many had none.
        with channel(s, "databroker") as link:
            call = link.unary_unary(put, request_serializer=lambda m: m.SerializeToString())
            made = 0

            def told():
                nonlocal made
                for _ in range(200):
                    with pytest.raises(grpc.RpcError):
                        call(pb.PutRequest(), timeout=20 * PATIENCE)
                    made += 1
                lines = refusals(s, "databroker")[3:]
                return lines if any(line["more"] for line in lines) else None
            lines = wait_for("a line that stands for many", told, 60)
            assert len(lines) + sum(line["more"] or 0 for line in lines) <= made
        stop_daemon(s, "databroker")
        assert verify(s, log_name(s, "databroker"))[0] == 0
    finally:
        s.stop()


# --- fields -------------------------------------------------------------------------------------


def test_lines_have_the_fields_that_are_asked_for_and_never_a_secret(upstream):
    s = stand_with(upstream, "sink: stdout")
    s.settings += ("\naccess_log_fields: [request-id, path, query, referer, duration, headers.X-Team, client-certificate, upstream-cluster]"
                   "\nauthorize_log_fields: [path, query, ip, user, headers.x-team, headers.X-None, envoy-route-id]")
    s.write_config()
    s.start()
    try:
        context = ssl.create_default_context(cafile=s.ca)
        for host in ("public", "app"):
            raw_request(s.port, f"GET /f?a=1&Access_Token=canary&pomerium_jwt=canary&b&%70omerium=canary HTTP/1.1\r\nHost: {host}.localhost:{s.port}\r\n"
                        "Referer: https://x.example/p?code=canary\r\nX-Team: a\"b\r\nCookie: c=canary\r\nAuthorization: Bearer canary\r\n"
                        "Connection: close\r\n\r\n".encode(), context, f"{host}.localhost", 20 * PATIENCE)
        query = "a=1&Access_Token=…&pomerium_jwt=…&b&%70omerium=…"
        wait_for("access lines", lambda: len([e for e in s.logs("proxy") if e.get("path") == "/f"]) == 2)
        for line in [e for e in s.logs("proxy") if e.get("path") == "/f"]:
            assert line.pop("duration") > 0 and line.pop("request-id") and line.pop("time")
            assert line == {"service": "proxy", "event": "http-request", "path": "/f", "query": query, "referer": "https://x.example/p",
                            "client-certificate": "", "headers.X-Team": 'a"b'}, line
        lines = [e for e in s.logs("authorize") if e.get("path") == "/f"]
        assert [e["decision"] for e in lines] == ["allow", "deny"]
        for line in lines:
            assert {k: v for k, v in line.items() if k not in ("time", "decision", "reasons") and not k.startswith(("allow", "deny"))} == {
                "service": "authorize", "event": "authorize check", "path": "/f", "query": query, "ip": "127.0.0.1", "user": "",
                "headers.x-team": 'a"b', "headers.X-None": ""}, line
            assert "allow" in line and "deny" in line
        for daemon in ("proxy", "authorize"):
            with open(s.log_file(daemon)) as f:
                assert "canary" not in f.read()
        set_audit(s, "sink: stdout")  # the usual fields again
        wait_for("the usual line", lambda: request(s, "app", "/usual")[0] == 403 and
                 any(e.get("path") == "/usual" and "session-id" in e for e in s.logs("authorize")))
    finally:
        s.stop()


@pytest.mark.parametrize("setting, why", [
    ("access_log_fields: [headers.Cookie]", "the header Cookie holds what lets people in"),
    ("access_log_fields: [headers.X-Api_Key]", "the header X-Api_Key holds what lets people in"),
    ("authorize_log_fields: [headers.x-pomerium-jwt-assertion]", "holds what lets people in"),
    ("authorize_log_fields: [headers]", "name those you want: headers.User-Agent"),
    ("authorize_log_fields: [id-token]", "a token is a secret"),
    ("authorize_log_fields: [user-agent]", 'there is no field "user-agent"'),
    ("access_log_fields: yes", "expected a list of fields"),
    ("audit: {sink: file}", "audit.folder is missing"),
    ("audit: {folder: /tmp}", "audit.folder: it belongs to sink: file"),
    ("audit: {sink: paper}", "stdout"),
    ("audit: {sink: syslog, keep: 3}", "audit.keep: it belongs to sink: file"),
    ("audit: {sink: otlp}", "audit.otlp_endpoint is missing"),
    ("audit: {sink: otlp, otlp_endpoint: 'http://collector.example:4318'}", "only https"),
    ("audit: {sink: otlp, otlp_endpoint: 'https://c.example', otlp_headers: canary}", "expected Name=value"),
    ("audit: {snik: file}", "sink"),
])
def test_a_wrong_setting_is_refused_with_its_line_and_a_hint(tmp_path, setting, why):
    config = tmp_path / "config.yaml"
    config.write_text(f"shared_secret: {'QUJDREVGR0hJSktMTU5PUFFSU1RVVldYWVphYmNkZWY='}\ninsecure_server: true\n{setting}\n")
    done = subprocess.run([POSTERN, "validate", str(config)], capture_output=True, text=True)
    assert done.returncode == 1 and f"{config}:3:" in done.stdout + done.stderr, done
    assert why in done.stdout + done.stderr and "canary" not in done.stdout + done.stderr
