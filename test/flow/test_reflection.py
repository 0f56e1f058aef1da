"""What a server tells about itself: grpc.health.v1 and grpc.reflection, asked by a client that knows no message of ours."""

import os
import subprocess
import threading

import grpc
import pytest
from foreign import channel, token
from sanitize import ANSWER_S
from stand import Stand
from trial import ROOT, wait_for

SERVICES = {"authorize": ["postern.Authorize"], "databroker": ["databroker.DataBrokerService", "postern.Replica", "postern.SessionService", "postern.Maintenance"],
            "authenticate": ["postern.Login"], "proxy": []}
STANDARD = ["grpc.health.v1.Health", "grpc.reflection.v1.ServerReflection"]
SAME = dict(request_serializer=lambda b: b, response_deserializer=lambda b: b)


@pytest.fixture(scope="module")
def stand(upstream):
    s = Stand(f"""
  - from: https://app.localhost:PORT
    to: http://127.0.0.1:{upstream.port}
    allow_any_authenticated_user: true
""")
    s.env["proxy"] = {"GRPC_ADDRESS": f"unix:{s.folder}/proxy.sock"}
    yield s.start()
    s.stop()


@pytest.fixture(scope="module")
def grpcurl():
    done = subprocess.run([os.path.join(ROOT, "test/support/grpcurl.sh")], capture_output=True, text=True)
    if done.returncode != 0:
        pytest.skip("grpcurl cannot be built here: " + done.stderr[-300:])
    return done.stdout.strip()


@pytest.fixture(scope="module")
def ask(stand, grpcurl):
    shown = ["-H", "authorization: Bearer " + token(stand, "reader")]

    def run(daemon, *args, as_anybody=True, data=None):
        more = (shown if as_anybody else []) + (["-d", data] if data else [])
        return subprocess.run([grpcurl, "-plaintext", *more,
                               f"unix://{stand.folder}/{daemon}.sock", *args], capture_output=True, text=True, timeout=60)
    return run


@pytest.mark.parametrize("daemon", SERVICES)
def test_a_server_lists_its_services_and_describes_each(ask, daemon):
    listed = ask(daemon, "list")
    assert listed.returncode == 0, listed.stderr
    assert set(SERVICES[daemon] + STANDARD) <= set(listed.stdout.split())
    for service in listed.stdout.split():
        described = ask(daemon, "describe", service)
        assert described.returncode == 0 and "rpc " in described.stdout, described.stderr


def test_a_method_is_called_with_nothing_but_what_reflection_tells(ask):
    got = ask("databroker", "databroker.DataBrokerService/ServerInfo")
    assert got.returncode == 0 and "serverVersion" in got.stdout, got.stdout + got.stderr
    got = ask("databroker", "databroker.DataBrokerService/Query", data='{"type": "type.googleapis.com/session.Session"}')
    assert got.returncode == 0, got.stderr


def test_messages_inside_of_messages_and_imported_ones_are_described(ask):
    assert "repeated .postern.IdentityBlock.Header headers" in ask("authorize", "describe", "postern.IdentityBlock").stdout
    assert "bytes value" in ask("authorize", "describe", "postern.IdentityBlock.Header").stdout
    assert "google.protobuf.Any data" in ask("databroker", "describe", "databroker.Record").stdout
    assert ask("databroker", "describe", "databroker.Recor").returncode != 0
    assert ask("databroker", "describe", "google.protobuf.Any").returncode == 0


def test_strangers_get_no_map(ask):
    refused = ask("authorize", "list", as_anybody=False)
    assert refused.returncode != 0 and "Unauthenticated" in refused.stderr


@pytest.mark.parametrize("name", ["v1", "v1alpha"])
def test_both_names_answer_a_client_that_says_its_last_at_once(stand, stubs, name):
    """Requests behind each other and half a close, before the first answer is there."""
    pb = stubs["reflection"][0]
    call = channel(stand, "authorize").stream_stream(
        f"/grpc.reflection.{name}.ServerReflection/ServerReflectionInfo",
        request_serializer=pb.ServerReflectionRequest.SerializeToString, response_deserializer=pb.ServerReflectionResponse.FromString)
    asked = [pb.ServerReflectionRequest(host="h", list_services="*")] + \
        [pb.ServerReflectionRequest(file_containing_symbol=s) for s in
         ("postern.Authorize.Check", "postern.Decision", "postern.No", "postern", "", ".", "postern.Authorize.Check.x", "a" * 3000)] + \
        [pb.ServerReflectionRequest(file_by_filename=f) for f in ("authorize.proto", "google/protobuf/any.proto", "../etc/passwd")] + \
        [pb.ServerReflectionRequest(all_extension_numbers_of_type="x"), pb.ServerReflectionRequest()]
    got = list(call(iter(asked), timeout=ANSWER_S, metadata=[("authorization", "Bearer " + token(stand, "reader"))]))
    assert [g.original_request for g in got] == asked and got[0].valid_host == "h"
    kinds = [g.WhichOneof("message_response") for g in got]
    found, none = "file_descriptor_response", "error_response"
    assert kinds == ["list_services_response", found, found] + [none] * 6 + [found, found, none, none, none]
    assert [g.error_response.error_code for g in got[3:9]] == [5] * 6


@pytest.mark.parametrize("message", [b"\xff", b"\x1a\x05ab", b"\x22\x02\xc3\x28", b"\x22\x01\x00", b"\x22\xff\xff\xff\xff\x0f" + b"a" * 50])
def test_broken_requests_end_the_stream_with_a_reason(stand, message):
    call = channel(stand, "authorize").stream_stream("/grpc.reflection.v1.ServerReflection/ServerReflectionInfo", **SAME)
    with pytest.raises(grpc.RpcError) as refused:
        list(call(iter([message]), timeout=ANSWER_S, metadata=[("authorization", "Bearer " + token(stand, "reader"))]))
    assert refused.value.code() == grpc.StatusCode.INVALID_ARGUMENT


def test_who_asks_too_much_at_once_is_cut_off_and_others_go_on(stand, ask):
    auth = [("authorization", "Bearer " + token(stand, "reader"))]
    call = channel(stand, "authorize").stream_stream("/grpc.reflection.v1.ServerReflection/ServerReflectionInfo", **SAME)
    with pytest.raises(grpc.RpcError) as refused:  # nothing is read, while half a megabyte of answers waits
        got = call(iter([b"\x22\x11postern.Authorize"] * 5000 + [b"\x22\xff\x3f" + b"a" * 8191]), timeout=ANSWER_S, metadata=auth)
        threading.Event().wait(0.2)
        list(got)
    assert refused.value.code() == grpc.StatusCode.RESOURCE_EXHAUSTED
    assert ask("authorize", "list").returncode == 0


def health(stand, stubs, daemon):
    pb, rpc = stubs["health"]
    return pb, rpc.HealthStub(channel(stand, daemon))


@pytest.mark.parametrize("daemon", SERVICES)
def test_health_is_told_of_each_service_to_anyone(stand, stubs, daemon):
    pb, api = health(stand, stubs, daemon)
    for name in ["", *SERVICES[daemon]]:
        assert api.Check(pb.HealthCheckRequest(service=name), timeout=ANSWER_S).status == pb.HealthCheckResponse.SERVING
        assert next(iter(api.Watch(pb.HealthCheckRequest(service=name), timeout=ANSWER_S))).status == pb.HealthCheckResponse.SERVING
    with pytest.raises(grpc.RpcError) as refused:
        api.Check(pb.HealthCheckRequest(service="postern.No"), timeout=ANSWER_S)
    assert refused.value.code() == grpc.StatusCode.NOT_FOUND
    unknown = api.Watch(pb.HealthCheckRequest(service="postern.No"), timeout=ANSWER_S)
    assert next(iter(unknown)).status == pb.HealthCheckResponse.SERVICE_UNKNOWN
    unknown.cancel()


def test_the_proxy_is_fit_as_long_as_it_can_ask(upstream, stubs):
    s = Stand(f"""
  - from: https://app.localhost:PORT
    to: http://127.0.0.1:{upstream.port}
    allow_any_authenticated_user: true
""")
    s.env["proxy"] = {"GRPC_ADDRESS": f"unix:{s.folder}/proxy.sock"}
    s.start()
    try:
        pb, api = health(s, stubs, "proxy")
        watch = iter(api.Watch(pb.HealthCheckRequest(), timeout=6 * ANSWER_S))
        assert next(watch).status == pb.HealthCheckResponse.SERVING
        s.kill("authorize")
        assert next(watch).status == pb.HealthCheckResponse.NOT_SERVING
        s.start_one("authorize")
        assert next(watch).status == pb.HealthCheckResponse.SERVING
    finally:
        s.stop()


def test_authorize_is_fit_as_long_as_it_knows_its_sessions(upstream, stubs):
    s = Stand(f"""
  - from: https://app.localhost:PORT
    to: http://127.0.0.1:{upstream.port}
    allow_any_authenticated_user: true
""", settings="databroker_max_staleness: 1s\n").start()
    try:
        pb, api = health(s, stubs, "authorize")
        watch = iter(api.Watch(pb.HealthCheckRequest(service="postern.Authorize"), timeout=6 * ANSWER_S))
        assert next(watch).status == pb.HealthCheckResponse.SERVING
        s.kill("databroker")
        assert next(watch).status == pb.HealthCheckResponse.NOT_SERVING
        assert api.Check(pb.HealthCheckRequest(), timeout=ANSWER_S).status == pb.HealthCheckResponse.NOT_SERVING
        s.start_one("databroker")
        assert next(watch).status == pb.HealthCheckResponse.SERVING
        wait_for("everything to be ready", lambda: s.is_ready("authorize"), 30)
    finally:
        s.stop()
