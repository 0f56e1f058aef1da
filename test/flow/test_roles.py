"""Who may call what of the databroker: every method, for every role, by everything that can show one."""

import base64
import hashlib
import hmac
import json
import time
import uuid

import grpc
import jwt
import pytest
from broker import ROLES, TOKENS, Broker
from foreign import messages
from google.protobuf import descriptor_pb2, empty_pb2, struct_pb2
from sanitize import ANSWER_S

SESSION = "type.googleapis.com/session.Session"
JWT_ROLE = "session-admin"  # of Pomerium's, over TCP; on the socket it is off
Code = grpc.StatusCode

# A role's own records: what it may do it may do with these. test_databroker.py has what it may not do with others'.
HOME = {"authorize": "postern.io/SessionAccess", "record-writer": "acme.test/posture", "directory-writer": "pomerium.io/DirectoryUser",
        "config-writer": "type.googleapis.com/pomerium.config.Route"}

WATCH = {"authorize", "cli", "session-admin", "reader"}
WRITERS = {"record-writer", "directory-writer", "config-writer"}
READ = {"cli", "session-admin", "reader"}
LEASE = {"authenticate", "cli", "record-writer", "directory-writer"}
D, S, R = "/databroker.DataBrokerService/", "/postern.SessionService/", "/registry.Registry/"
MAY = {
    D + "Get": WATCH | WRITERS | {"authenticate"},
    D + "Query": WATCH | WRITERS | {"authenticate"},
    D + "Put": WRITERS | {"authenticate", "authorize", "cli", "session-admin"},
    D + "Patch": {"authenticate", "cli"},
    D + "Sync": WATCH | {"authenticate"},
    D + "SyncLatest": WATCH | {"authenticate"},
    D + "ServerInfo": WATCH | {"authenticate"},
    D + "ListTypes": {"cli", "reader"},
    D + "GetOptions": {"cli", "reader"},
    D + "SetOptions": {"cli"},
    D + "AcquireLease": LEASE,
    D + "RenewLease": LEASE,
    D + "ReleaseLease": LEASE,
    D + "Clear": {"databroker"},
    "/databroker.CheckpointService/GetCheckpoint": WATCH | {"authenticate"},
    R + "Report": {"cli", "config-writer"},
    R + "List": {"cli", "reader", "config-writer"},
    R + "Watch": {"cli", "reader", "config-writer"},
    S + "List": READ,
    S + "Get": READ,
    S + "Watch": READ,
    S + "Revoke": {"cli", "session-admin"},
    "/postern.Replica/Confirm": {"authorize"},
    "/postern.Maintenance/RotateKeys": {"cli"},
}
# What a method says to whoever may call it, where that is not OK: the request asks for what is not there.
NOT_OK = {D + "Get": Code.NOT_FOUND, D + "RenewLease": Code.ALREADY_EXISTS, S + "Get": Code.NOT_FOUND,
          "/postern.Replica/Confirm": Code.NOT_FOUND}
FOR_EVER = {S + "Watch", R + "Watch"}
STREAMS = {D + "Sync", D + "SyncLatest"} | FOR_EVER


@pytest.fixture(scope="module")
def pb():
    made = messages("databroker", "session", "session_service", "replica", "maintenance", "reflection", "registry")
    return {name: pb for name, (pb, _) in made.items()}


def request_of(pb, method, role, state):
    """Bytes of what that role would ask; of no record that another row needs. state: the store's, for Sync."""
    db, ss = pb["databroker"], pb["session_service"]
    home = HOME.get(role, SESSION)
    record = db.Record(type=home, id=str(uuid.uuid4()))
    record.data.Pack(struct_pb2.Struct())
    if home == SESSION:
        record.deleted_at.GetCurrentTime()
    patched = db.Record(type=SESSION, id=record.id)
    patched.data.Pack(pb["session"].Session(user_id="u"))
    lease = "external-data/" + ("postern.io/Directory" if role == "directory-writer" else HOME["record-writer"] + str(uuid.uuid4()))
    requests = {
        D + "Get": db.GetRequest(type=home, id="nobody"),
        D + "Query": db.QueryRequest(type=home, limit=1),
        D + "Put": db.PutRequest(records=[record]),
        D + "Patch": db.PatchRequest(records=[patched], field_mask={"paths": ["user_id"]}),
        D + "Sync": state and db.SyncRequest(server_version=state.server_version, record_version=state.latest_record_version, type=home,
                                             wait=False),
        D + "SyncLatest": db.SyncLatestRequest(type=home),
        D + "GetOptions": db.GetOptionsRequest(type="x"),
        D + "SetOptions": db.SetOptionsRequest(type="x", options=db.Options()),
        D + "AcquireLease": db.AcquireLeaseRequest(name=lease, duration={"seconds": 1}),
        D + "RenewLease": db.RenewLeaseRequest(name=lease, id="none", duration={"seconds": 1}),
        D + "ReleaseLease": db.ReleaseLeaseRequest(name=lease, id="none"),
        R + "Report": pb["registry"].RegisterRequest(services=[{"kind": "PROXY", "endpoint": "http://a"}]),
        S + "List": ss.ListSessionsRequest(),
        S + "Get": ss.GetSessionRequest(session_id="none"),
        S + "Revoke": ss.RevokeSessionsRequest(filter=ss.SessionFilter(session_id="none")),
        "/postern.Replica/Confirm": pb["replica"].ConfirmRequest(follower="none"),
    }
    return requests[method].SerializeToString() if method in requests else b""


RAW = dict(request_serializer=lambda b: b, response_deserializer=lambda b: b)


def answer(channel, metadata, method, request):
    """The call's status; what it says beside an OK is of no matter here."""
    try:
        if method in STREAMS:
            stream = channel.unary_stream(method, **RAW)(request, metadata=metadata, timeout=ANSWER_S)
            for _ in stream:
                if method in FOR_EVER:
                    stream.cancel()
                    break
        else:
            channel.unary_unary(method, **RAW)(request, metadata=metadata, timeout=ANSWER_S)
    except grpc.RpcError as e:
        return e.code(), e.details()
    return Code.OK, ""


# --- what shows a role ----------------------------------------------------------------------------


@pytest.fixture(scope="module")
def brokers():
    """One over TCP, one on a socket."""
    both = {"tcp": Broker(settings=f"databroker_pomerium_jwt: {JWT_ROLE}\n").start(), "unix": Broker(address="unix").start()}
    yield both
    for b in both.values():
        assert b.stop() == 0, b.log()[-2000:]


def pomerium_jwt(secret, ttl=3600, headers=None, **claims):
    return jwt.encode({"exp": int(time.time()) + ttl, **claims}, secret, "HS256", headers)


CREDENTIALS = [("tcp", "certificate", role) for role in ROLES] + [("unix", "proof", role) for role in ROLES] + \
    [(where, "token", role) for where in ("tcp", "unix") for role in TOKENS] + \
    [("tcp", "jwt", JWT_ROLE), ("unix", "jwt", None), ("tcp", "nothing", None), ("unix", "nothing", None)]


@pytest.fixture(scope="module", params=CREDENTIALS, ids="-".join(["%s"] * 3).__mod__)
def caller(request, brokers):
    """(role, channel, metadata, its databroker)"""
    where, kind, role = request.param
    broker = brokers[where]
    channel, metadata = broker.channel(None if kind == "jwt" else role)
    if kind == "jwt":
        metadata = [("jwt", pomerium_jwt(broker.secret))]
    return role, channel, metadata, broker


def state_of(broker):
    stub, metadata = broker.client("cli")
    return stub.ServerInfo(empty_pb2.Empty(), metadata=metadata, timeout=ANSWER_S)


@pytest.mark.parametrize("method", MAY)
def test_a_role_may_call_what_its_row_says(caller, pb, method):
    role, channel, metadata, broker = caller
    state = state_of(broker) if method == D + "Sync" else None
    expected = NOT_OK.get(method, Code.OK)
    if role not in MAY[method]:
        expected = Code.UNAUTHENTICATED if role is None else Code.PERMISSION_DENIED
    assert answer(channel, metadata, method, request_of(pb, method, role, state))[0] == expected


def test_every_method_of_the_server_has_a_row(brokers, pb):
    """A new one gets a line in MAY, and in NOT_OK or request_of where it needs that."""
    channel, metadata = brokers["unix"].channel("cli")
    ask = channel.stream_stream("/grpc.reflection.v1.ServerReflection/ServerReflectionInfo",
                                request_serializer=pb["reflection"].ServerReflectionRequest.SerializeToString,
                                response_deserializer=pb["reflection"].ServerReflectionResponse.FromString)

    def reflect(**question):
        return next(ask(iter([pb["reflection"].ServerReflectionRequest(**question)]), metadata=metadata, timeout=ANSWER_S))
    services = [s.name for s in reflect(list_services="*").list_services_response.service if not s.name.startswith("grpc.")]
    served = set()
    for name in services:
        for raw in reflect(file_containing_symbol=name).file_descriptor_response.file_descriptor_proto:
            file = descriptor_pb2.FileDescriptorProto.FromString(raw)
            served |= {f"/{file.package}.{s.name}/{m.name}" for s in file.service if f"{file.package}.{s.name}" == name for m in s.method}
    assert served == set(MAY)


# --- Pomerium's JWT -------------------------------------------------------------------------------


def info_with(broker, *metadata, role=None):
    channel, own = broker.channel(role)
    return answer(channel, [*own, *metadata], D + "ServerInfo", b"")


def signed(secret, header, claims):
    """A JWS that no library would make."""
    def part(b):
        return base64.urlsafe_b64encode(b).rstrip(b"=")
    text = part(header) + b"." + part(claims)
    return (text + b"." + part(hmac.new(secret, text, hashlib.sha256).digest())).decode()


def test_pomeriums_jwt_is_refused_with_the_name_of_its_setting_while_it_is_off(brokers):
    broker = brokers["unix"]
    code, why = info_with(broker, ("jwt", pomerium_jwt(broker.secret)))
    assert code == Code.UNAUTHENTICATED and "databroker_pomerium_jwt" in why
    assert info_with(broker)[1] == "show a certificate of the internal CA or a valid token"


@pytest.mark.parametrize("off, fits", [(0, True), (-30, True), (3600, True), (3630, True), (-120, False), (3720, False), (10**9, False)])
def test_pomeriums_jwt_lives_an_hour(brokers, off, fits):
    code, why = info_with(brokers["tcp"], ("jwt", pomerium_jwt(brokers["tcp"].secret, off)))
    assert code == (Code.OK if fits else Code.UNAUTHENTICATED), why
    assert fits or ("over" if off < 0 else "an hour away") in why


def test_pomeriums_jwt_is_nothing_else_that_the_secret_signed(brokers):
    """A service account of Pomerium's (CVE-2024-47616), a session handle, another algorithm, a header that asks for something."""
    broker, now = brokers["tcp"], int(time.time())
    secret, exp = broker.secret, json.dumps({"exp": int(time.time()) + 600}).encode()
    good = pomerium_jwt(secret)
    plain = b'{"alg":"HS256","typ":"JWT"}'
    bad = [pomerium_jwt(secret, jti="a", sub="robot", iat=now), pomerium_jwt(secret, iss="pomerium"), pomerium_jwt(secret, iat=now),
           jwt.encode({}, secret, "HS256"), jwt.encode({"exp": now + 600}, secret, "HS512"), jwt.encode({"exp": now + 600}, None, "none"),
           pomerium_jwt(secret, headers={"kid": "x"}), pomerium_jwt(secret, headers={"crit": ["exp"]}), pomerium_jwt(secret, headers={"typ": "at+jwt"}),
           pomerium_jwt(base64.b64encode(secret)), pomerium_jwt(secret[::-1]), pomerium_jwt(b"\0" * 32),
           signed(secret, b'{"alg":"none"}', exp), signed(secret, b'{"alg":"HS256","alg":"none"}', exp), signed(secret, b"{}", exp),
           signed(secret, plain, exp + b" {}"), signed(secret, plain, b'{"exp":"%d"}' % (now + 600)), signed(secret, plain, b'{"exp":%d.5}' % now),
           signed(secret, plain, b'{"exp":%d,"exp":%d}' % (now, now)), signed(secret, plain, b"[]"), signed(secret, plain, b'{"exp":1e99}'),
           signed(secret, plain, b'{"exp":' + b"9" * 30 + b"}"), signed(secret, plain, exp + b" " * 1000),
           good + "=", good + ".", "." + good, good[:-1], good.replace(".", ".."), good.rsplit(".", 1)[0] + ".", "..", "", "x" * 9000]
    for text in bad:
        code, why = info_with(broker, ("jwt", text))
        assert code == Code.UNAUTHENTICATED or (len(text) > 8192 and code == Code.RESOURCE_EXHAUSTED), (text, code, why)
        assert not text or text not in why
    assert info_with(broker, ("jwt", signed(secret, b'{"alg":"HS256"}', exp)))[0] == Code.OK
    assert info_with(broker, ("jwt", good))[0] == Code.OK


def test_pomeriums_jwt_counts_alone_and_for_its_role(brokers):
    broker = brokers["tcp"]
    good = ("jwt", pomerium_jwt(broker.secret))
    assert info_with(broker, good, good)[0] == Code.UNAUTHENTICATED
    assert info_with(broker, good, ("authorization", "Bearer postern_x"))[0] == Code.UNAUTHENTICATED
    channel, _ = broker.channel(None)
    assert answer(channel, [good], D + "ListTypes", b"")[0] == Code.PERMISSION_DENIED
    # A certificate says more: the caller is that, whatever else it shows.
    channel, _ = broker.channel("cli")
    assert answer(channel, [good], D + "ListTypes", b"")[0] == Code.OK
    refused = [e for e in broker.events("rpc.refused") if e["caller"] == "jwt"]
    assert refused and broker.secret.hex() not in broker.log() and good[1] not in broker.log()
