"""The databroker as a foreign client meets it: Python's own gRPC, stubs from the published messages, a token."""

import base64
import importlib

import grpc
import pytest
from broker import Identity
from foreign import channel, token
from sanitize import ANSWER_S
from stand import simple_stand
from trial import wait_for

USER = "user@example.com"


@pytest.fixture(scope="module")
def stand(upstream):
    s = simple_stand(upstream)
    yield s
    s.stop()


def test_revoke_by_a_foreign_client_with_a_token(stand, stubs):
    pb, rpc = stubs["databroker"]
    session_pb, _ = stubs["session"]
    auth = [("authorization", "Bearer " + token(stand))]
    api = rpc.DataBrokerServiceStub(channel(stand, "databroker"))
    for _ in range(10):  # each time the very next request
        revoke_all(stand, pb, session_pb, api, auth)


def revoke_all(stand, pb, session_pb, api, auth):
    b = stand.browser()
    b.login(stand.url("app"), USER)
    assert b.fetch(stand.url("app")).status_code == 200
    found = api.Query(pb.QueryRequest(type="type.googleapis.com/session.Session", limit=100), metadata=auth, timeout=ANSWER_S)
    assert found.total_count >= 1
    sessions = []
    for record in found.records:
        s = session_pb.Session()
        assert record.data.Unpack(s)
        assert not s.oauth_token.access_token or "eyJ" not in s.oauth_token.access_token
        sessions.append(s)
    assert sessions[0].id and sessions[0].user_id
    for record in found.records:
        record.deleted_at.GetCurrentTime()
    api.Put(pb.PutRequest(records=found.records), metadata=auth, timeout=ANSWER_S)
    assert b.fetch(stand.url("app")).status_code == 401


@pytest.mark.parametrize("metadata", [[], [("authorization", "Bearer nonsense")], [("authorization", "Bearer postern_AAAA")]])
def test_no_token_no_answer(stand, stubs, metadata):
    pb, rpc = stubs["databroker"]
    api = rpc.DataBrokerServiceStub(channel(stand, "databroker"))
    with pytest.raises(grpc.RpcError) as refused:
        api.Query(pb.QueryRequest(type="type.googleapis.com/session.Session"), metadata=metadata, timeout=ANSWER_S)
    assert refused.value.code() == grpc.StatusCode.UNAUTHENTICATED


def test_a_session_admin_may_not_make_records_or_ask_for_verdicts(stand, stubs):
    pb, rpc = stubs["databroker"]
    auth = [("authorization", "Bearer " + token(stand))]
    api = rpc.DataBrokerServiceStub(channel(stand, "databroker"))
    record = pb.Record(type="type.googleapis.com/session.Session", id="forged")
    record.data.type_url = "type.googleapis.com/session.Session"
    with pytest.raises(grpc.RpcError) as refused:
        api.Put(pb.PutRequest(records=[record]), metadata=auth, timeout=ANSWER_S)
    assert refused.value.code() == grpc.StatusCode.PERMISSION_DENIED
    with pytest.raises(grpc.RpcError) as refused:
        api.Clear(importlib.import_module("google.protobuf.empty_pb2").Empty(), metadata=auth, timeout=ANSWER_S)
    assert refused.value.code() == grpc.StatusCode.PERMISSION_DENIED
    check_pb, check_rpc = stubs["authorize"]
    with pytest.raises(grpc.RpcError) as refused:
        check_rpc.AuthorizeStub(channel(stand, "authorize")).Check(check_pb.CheckRequest(id=1), metadata=auth, timeout=ANSWER_S)
    assert refused.value.code() in (grpc.StatusCode.PERMISSION_DENIED, grpc.StatusCode.UNAUTHENTICATED)
    login_pb, login_rpc = stubs["authenticate"]
    with pytest.raises(grpc.RpcError) as refused:
        login_rpc.LoginStub(channel(stand, "authenticate")).Redeem(login_pb.RedeemRequest(code="x"), metadata=auth, timeout=ANSWER_S)
    assert refused.value.code() in (grpc.StatusCode.PERMISSION_DENIED, grpc.StatusCode.UNAUTHENTICATED)


MAY_ASK = {"proxy": {"Check", "CheckStream", "Redeem"}, "cli": {"Check"}, "authenticate": set(), "authorize": set(), "databroker": set()}


@pytest.mark.parametrize("role", MAY_ASK)
def test_a_program_asks_for_verdicts_and_codes_only_in_its_role(stand, stubs, role):
    """The other services' rows of methods and roles; the databroker's are in test_databroker.py."""
    identity = Identity(base64.b64decode(stand.secret))

    check_pb, check_rpc = stubs["authorize"]
    login_pb, login_rpc = stubs["authenticate"]
    checks = check_rpc.AuthorizeStub(channel(stand, "authorize"))
    login = login_rpc.LoginStub(channel(stand, "authenticate"))
    may = {"metadata": identity.proof(role, "authorize"), "timeout": ANSWER_S}
    may_log_in = {"metadata": identity.proof(role, "authenticate"), "timeout": ANSWER_S}
    for method, call in (("Check", lambda: checks.Check(check_pb.CheckRequest(id=1), **may)),
                         ("CheckStream", lambda: list(checks.CheckStream(iter([]), **may))),
                         ("Redeem", lambda: login.Redeem(login_pb.RedeemRequest(code="x"), **may_log_in))):
        try:
            call()
            code = grpc.StatusCode.OK
        except grpc.RpcError as e:
            code = e.code()
        assert code not in (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED), method
        assert (code != grpc.StatusCode.PERMISSION_DENIED) == (method in MAY_ASK[role]), (method, code)


def test_cli_lists_shows_and_revokes(stand):
    b = stand.browser()
    b.login(stand.url("app"), USER)
    listed = stand.cli("sessions", "list").stdout
    line = next(x for x in listed.splitlines() if USER in x)
    session = next(w for w in line.split() if w.count("-") == 4)
    assert USER in stand.cli("sessions", "show", session).stdout
    stand.cli("sessions", "revoke", session)
    assert b.fetch(stand.url("app")).status_code == 401
    assert session not in stand.cli("sessions", "list").stdout
    assert stand.cli("sessions", "revoke", session, check=False).returncode == 1
    nobody = stand.cli("users", "revoke", "typo@example.com", check=False)
    assert nobody.returncode == 1 and "typo@example.com" in nobody.stderr
    assert "revoked 0 sessions" in stand.cli("users", "revoke", USER).stdout
    stranger = stand.cli("sessions", "list", env={"POSTERN_CONFIG": "/nonexistent"}, check=False)
    assert stranger.returncode != 0 and "nonexistent" in stranger.stderr


def test_health_service_answers_everyone(stand, stubs):
    pb, rpc = stubs["health"]
    for daemon in ("databroker", "authorize", "authenticate"):
        answer = rpc.HealthStub(channel(stand, daemon)).Check(pb.HealthCheckRequest(), timeout=ANSWER_S)
        assert answer.status == pb.HealthCheckResponse.SERVING
