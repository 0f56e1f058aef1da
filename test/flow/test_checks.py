"""The socket beside authorize's gRPC socket, where proxies ask without gRPC core: who may, and what if it is not there."""

import base64
import http.client
import os
import socket
import stat
import threading

import grpc
import pytest
from broker import Identity
from sanitize import ANSWER_S
from stand import Stand, raw_request
from trial import wait_for

STREAM = "/postern.Authorize/CheckStream"
OWN = [("grpc.enable_http_proxy", 0), ("grpc.use_local_subchannel_pool", 1)]  # a connection for each channel
SAME = dict(request_serializer=lambda b: b, response_deserializer=lambda b: b)


@pytest.fixture(scope="module")
def stand(upstream):
    s = Stand(f"""
  - from: https://public.localhost:PORT
    to: http://127.0.0.1:{upstream.port}
    allow_public_unauthenticated_access: true
""", tls=False).start()
    yield s
    s.stop()


def direct(stand):
    return f"{stand.folder}/authorize.sock.direct"


def connections(path):
    """How many are open at the server on that socket."""
    with open("/proc/net/unix") as f:
        return sum(1 for line in f if line.rstrip().endswith(" " + path) and line.split()[5] == "03")


def status(stand):
    answer = raw_request(stand.port, f"GET / HTTP/1.1\r\nHost: public.localhost:{stand.port}\r\n"
                         "Connection: close\r\n\r\n".encode())
    return answer.split(b" ", 2)[1]


def ends_with(stand, metadata, message=b""):
    """The status that a stream of this caller ends with."""
    done = threading.Event()

    def messages():
        yield message
        done.wait(ANSWER_S)
    with grpc.insecure_channel("unix:" + direct(stand), OWN) as channel:
        call = channel.stream_stream(STREAM, **SAME)(messages(), metadata=metadata, timeout=ANSWER_S)
        try:
            return next(iter(call), None)
        except grpc.RpcError as e:
            return e.code()
        finally:
            done.set()
            call.cancel()


def test_the_proxy_asks_there(stand):
    at = os.stat(direct(stand))
    assert stat.S_ISSOCK(at.st_mode) and stat.S_IMODE(at.st_mode) == 0o600
    assert status(stand) == b"200"
    assert connections(direct(stand)) > 0
    assert connections(f"{stand.folder}/authorize.sock") == 0


def test_it_answers_who_proves_to_be_a_proxy_and_nobody_else(stand):
    ours = Identity(base64.b64decode(stand.secret))
    others = Identity(os.urandom(32))
    check = b"\x0a\x02\x08\x05"  # a CheckBatch with one check, of id 5
    assert b"\x08\x05" in ends_with(stand, ours.proof("proxy", "authorize"), check)
    assert ends_with(stand, [], check) == grpc.StatusCode.UNAUTHENTICATED
    assert ends_with(stand, others.proof("proxy", "authorize"), check) == grpc.StatusCode.UNAUTHENTICATED
    assert ends_with(stand, ours.proof("proxy", "databroker"), check) == grpc.StatusCode.UNAUTHENTICATED
    assert ends_with(stand, ours.proof("databroker", "authorize"), check) == grpc.StatusCode.PERMISSION_DENIED
    assert ends_with(stand, ours.proof("proxy", "authorize"), b"\xff") == grpc.StatusCode.INVALID_ARGUMENT
    assert ends_with(stand, ours.proof("proxy", "authorize"), b"\0" * (5 << 20)) == grpc.StatusCode.RESOURCE_EXHAUSTED


def test_each_check_of_a_message_is_answered(stand):
    ours = Identity(base64.b64decode(stand.secret)).proof("proxy", "authorize")
    for count in (1, 15, 16, 17, 32, 100):  # authorize takes in sixteen at a time
        answers = ends_with(stand, ours, b"".join(b"\x0a\x02\x08" + bytes([i]) for i in range(1, count + 1)))
        assert [i for i in range(1, count + 1) if b"\x08" + bytes([i]) not in answers] == []


def test_who_breaks_the_protocol_disturbs_nobody(stand):
    before = connections(direct(stand))
    for garbage in (b"GET / HTTP/1.1\r\n\r\n", os.urandom(4096), b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + b"\0" * 4096):
        with socket.socket(socket.AF_UNIX) as s:
            s.settimeout(ANSWER_S)
            s.connect(direct(stand))
            s.sendall(garbage)
            try:
                while s.recv(65536):
                    pass
            except ConnectionResetError:
                pass
    assert connections(direct(stand)) == before
    assert status(stand) == b"200"


def test_after_a_restart_they_find_each_other_again(stand):
    stand.kill("authorize")
    stand.start_one("authorize")
    stand.wait_ready()
    wait_for("an answer", lambda: status(stand) == b"200", ANSWER_S)
    assert connections(direct(stand)) > 0


def test_where_it_is_missing_the_proxy_asks_by_grpc(stand):
    os.unlink(direct(stand))  # an authorize of before had none
    stand.kill("proxy")
    stand.start_one("proxy")
    stand.wait_ready()
    wait_for("an answer", lambda: status(stand) == b"200", ANSWER_S)
    assert connections(f"{stand.folder}/authorize.sock") > 0


def places(process):
    """The processors that a thread of it is bound to, one alone."""
    found = set()
    for task in os.listdir(f"/proc/{process.pid}/task"):
        allowed = os.sched_getaffinity(int(task))
        if len(allowed) == 1:
            found |= allowed
    return found


def test_proxy_and_authorize_share_a_processor_while_requests_come_one_at_a_time(stand):
    if len(os.sched_getaffinity(0)) < 2:
        pytest.skip("there is one processor")
    both = [stand.processes[name] for name in ("proxy", "authorize")]
    client = http.client.HTTPConnection("127.0.0.1", stand.port, timeout=ANSWER_S)

    def ask(times):
        for _ in range(times):
            client.request("GET", "/", headers={"Host": f"public.localhost:{stand.port}"})
            answer = client.getresponse()
            assert (answer.status, bool(answer.read())) == (200, True)
        return [places(process) for process in both]

    def share():
        proxy, authorize = ask(100)
        return len(proxy) == 1 and proxy == authorize
    wait_for("both on one processor", share, 60, 0)
    wait_for("both where the kernel likes, after pauses", lambda: not any(ask(1)), 20, 1.5)
    client.close()
