"""Query and Patch as a foreign client asks for them, on every storage."""

import json
import random
import threading
import uuid

import grpc
import pytest
from broker import of_each_storage, status, stubs
from google.protobuf import field_mask_pb2, struct_pb2, timestamp_pb2
from sanitize import ANSWER_S

SESSION = "type.googleapis.com/session.Session"
USER = "type.googleapis.com/user.User"
Code = grpc.StatusCode


@pytest.fixture(scope="module", params=["memory", "sqlite", "postgres"])
def broker(request):
    yield from of_each_storage(request)


@pytest.fixture()
def kind():
    return f"acme.test/{uuid.uuid4()}"


def record(pb, kind, id, message):
    r = pb.Record(type=kind, id=id)
    r.data.Pack(message)
    return r


def struct(fields):
    s = struct_pb2.Struct()
    s.update(fields)
    return s


def put(api, pb, records):
    return api.Put(pb.PutRequest(records=records), timeout=ANSWER_S)


def query(api, pb, kind, filter=None, **kwargs):
    request = pb.QueryRequest(type=kind, filter=struct(filter) if filter is not None else None, **kwargs)
    return api.Query(request, timeout=ANSWER_S)


def ids(answer):
    return [r.id for r in answer.records]


# --- Query --------------------------------------------------------------------------------------


def test_query_pages_searches_and_filters(pb, api, kind):
    users = [stubs()["user"].User(id=f"q{i:02}", email=f"Person{i % 5}@example.com") for i in range(25)]
    put(api, pb, [record(pb, kind, u.id, u) for u in users])
    everything = query(api, pb, kind)
    assert everything.total_count == 25 == len(everything.records)
    pages = []
    for offset in range(0, 30, 10):
        page = query(api, pb, kind, offset=offset, limit=10)
        assert page.total_count == 25
        pages += ids(page)
    assert pages == [u.id for u in users]
    found = query(api, pb, kind, query="pERSON3@", offset=1, limit=2)
    assert found.total_count == 5 and ids(found) == ["q08", "q13"]
    assert query(api, pb, kind, query="nobody here").total_count == 0
    assert ids(query(api, pb, kind, {"id": ["q04", "none", "q03", "q04"]})) == ["q03", "q04"]
    both = query(api, pb, kind, {"id": {">": "q10"}}, query="PERSON3", limit=1)
    assert ids(both) == ["q13"] and both.total_count == 3


FACTS = {
    "ann": {"name": "Ann", "n": 5, "groups": ["admins", "staff"], "$index": {"cidr": "10.0.0.0/8"}, "seen": "2024-05-01T12:00:00Z"},
    "bob": {"name": "Bob", "n": 10, "groups": [], "$index": {"cidr": "10.1.0.0/16"}, "seen": "2024-05-03T12:00:00+02:00"},
    "cat": {"name": "", "n": 7, "a": {"b": "deep"}, "$index": {"cidr": "2001:db8::/32"}, "on": True},
}
GRAMMAR = [
    ({"name": "Ann"}, "ann"),
    ({"name": ["Ann", "Bob"]}, "ann bob"),
    ({"a": {"b": "deep"}}, "cat"),
    ({"name": {"!=": "Ann"}}, "bob cat"),
    ({"name": {"$isEmpty": True}}, "cat"),
    ({"name": {"$isNotEmpty": True}}, "ann bob"),
    ({"on": None}, "ann bob"),
    ({"on": True}, "cat"),
    ({"n": {">": 5}}, "bob cat"),
    ({"n": {">=": 5, "<": 10}}, "ann cat"),
    ({"n": {"<=": "7"}}, "ann cat"),
    ({"groups": "staff"}, "ann"),
    ({"groups": {"$contains": "min"}}, "ann"),
    ({"groups": {"$doesNotContain": "min"}}, "bob cat"),
    ({"name": {"$startsWith": "B"}}, "bob"),
    ({"name": {"$endsWith": "nn"}}, "ann"),
    ({"name": {"$isAnyOf": ["Bob", "x"]}}, "bob"),
    ({"seen": {"$after": "2024-05-02"}}, "bob"),
    ({"seen": {"$onOrBefore": "2024-05-03T10:00:00Z"}}, "ann bob"),
    ({"$and": [{"n": {">": 5}}, {"groups": {"$isEmpty": True}}]}, "bob cat"),
    ({"$or": [{"name": "Ann"}, {"on": True}]}, "ann cat"),
    ({"$not": {"name": "Ann"}}, "bob cat"),
    ({"$or": []}, ""),
    ({"id": "bob"}, "bob"),
    ({"id": ["bob", "ann"], "n": 5}, "ann"),
    ({"$index": "10.1.2.3"}, "ann bob"),
    ({"$index": "10.1.0.0/16"}, "ann bob"),
    ({"$index": "10.0.0.0/8"}, "ann"),
    ({"$index": "2001:db8::1"}, "cat"),
    ({"$or": [{"id": "10.9.9.9"}, {"$index": "10.9.9.9"}]}, "ann"),  # what Pomerium's authorize asks
    ({"$or": [{"id": "cat"}, {"$index": "cat"}]}, "cat"),
]


def test_the_whole_grammar_of_filters(pb, api, kind):
    put(api, pb, [record(pb, kind, i, struct(f)) for i, f in FACTS.items()])
    for filter, expected in GRAMMAR:
        found = query(api, pb, kind, filter)
        assert " ".join(ids(found)) == expected, filter
        assert found.total_count == len(found.records)
        assert found.server_version and found.record_version
    for filter, code in (({"$nor": []}, Code.UNIMPLEMENTED), ({"name": {"$regex": "."}}, Code.UNIMPLEMENTED),
                         ({"$and": {"name": "Ann"}}, Code.INVALID_ARGUMENT), ({"seen": {"$after": "soon"}}, Code.INVALID_ARGUMENT),
                         ({"name": [str(i) for i in range(2000)]}, Code.RESOURCE_EXHAUSTED)):
        assert status(lambda: query(api, pb, kind, filter)) == code, filter
    deep = struct_pb2.Value(string_value="x")
    for _ in range(25):  # as deep as a message may be
        deep = struct_pb2.Value(list_value=struct_pb2.ListValue(values=[deep]))
    request = pb.QueryRequest(type=kind, filter=struct_pb2.Struct(fields={"a": deep}))
    assert status(lambda: api.Query(request, timeout=ANSWER_S)) in (Code.RESOURCE_EXHAUSTED, Code.INVALID_ARGUMENT)


def test_sessions_are_found_by_their_fields(pb, api):
    user = str(uuid.uuid4())
    sessions = [stubs()["session"].Session(id=f"{user}-{i}", user_id=user, idp_id=f"idp{i}",
                                           expires_at=timestamp_pb2.Timestamp(seconds=4000000000 + i)) for i in range(3)]
    sessions[1].claims["groups"].append("staff")
    sessions[2].device_credentials.add(type_id="any").id = "device"
    put(api, pb, [record(pb, SESSION, s.id, s) for s in sessions])
    for filter, expected in (({"user_id": user}, [0, 1, 2]), ({"user_id": user, "idp_id": ["idp0", "idp2"]}, [0, 2]),
                             ({"user_id": user, "claims": {"groups": "staff"}}, [1]),
                             ({"user_id": user, "expires_at": {"$after": "2096-10-02T07:06:41Z"}}, [2]),
                             ({"user_id": user, "device_credentials": {"id": "device"}}, [2]),
                             ({"user_id": user, "oauth_token": {"$isEmpty": True}, "refresh_disabled": False}, [0, 1, 2])):
        assert ids(query(api, pb, SESSION, filter)) == [sessions[i].id for i in expected], filter
    everywhere = query(api, pb, "", query=user)
    assert everywhere.total_count == 3 and {r.type for r in everywhere.records} == {SESSION}
    with pytest.raises(grpc.RpcError) as refused:
        query(api, pb, SESSION, {"email": "x"})
    assert refused.value.code() == Code.UNIMPLEMENTED and "session.Session has no field 'email'" in refused.value.details()


def test_a_type_that_is_not_known_is_found_by_id_only(pb, api, kind):
    r = pb.Record(type=kind, id="1")
    r.data.type_url, r.data.value = "type.googleapis.com/acme.Thing", b"\x0a\x01x"
    put(api, pb, [r])
    assert ids(query(api, pb, kind, {"id": "1"})) == ["1"]
    assert ids(query(api, pb, kind, {"$or": [{"id": "1.2.3.4"}, {"$index": "1.2.3.4"}]})) == []
    assert status(lambda: query(api, pb, kind, {"name": "x"})) == Code.UNIMPLEMENTED


def test_big_answers_come_in_pages_that_end(pb, api, kind):
    payload = "".join(random.choices("abcdef", k=700_000))
    for i in range(9):
        put(api, pb, [record(pb, kind, f"b{i}", struct({"n": i, "payload": payload}))])
    for filter in (None, {"n": {">=": 0}}, {"id": [f"b{i}" for i in range(9)]}):
        found = []
        while True:
            page = query(api, pb, kind, filter, offset=len(found))
            assert page.total_count == 9 and page.ByteSize() < 4 << 20
            if not page.records:
                break
            found += ids(page)
        assert found == [f"b{i}" for i in range(9)], filter


def test_only_some_types_are_for_a_token(broker, pb):
    stub, metadata = broker.client("session-admin")
    filter = struct({"id": "x"})
    for kind, code in ((SESSION, Code.OK), ("other", Code.PERMISSION_DENIED), ("", Code.PERMISSION_DENIED)):
        request = pb.QueryRequest(type=kind, filter=filter)
        assert status(lambda: stub.Query(request, metadata=metadata, timeout=ANSWER_S)) == code, kind


# --- Patch --------------------------------------------------------------------------------------


def patch(api, pb, records, *paths):
    return api.Patch(pb.PatchRequest(records=records, field_mask=field_mask_pb2.FieldMask(paths=paths)), timeout=ANSWER_S)


def stored(api, pb, r, message):
    assert api.Get(pb.GetRequest(type=r.type, id=r.id), timeout=ANSWER_S).record.data.Unpack(message)
    return message


def session(user="u", **fields):
    return stubs()["session"].Session(id=str(uuid.uuid4()), user_id=user, **fields)


def test_patch_changes_what_the_mask_names_only(pb, api):
    s = session("before", audience=["a", "b"], idp_id="idp")
    s.oauth_token.access_token, s.oauth_token.refresh_token = "old", "kept"
    s.claims["groups"].append("staff")
    mine = record(pb, SESSION, s.id, s)
    mine.data.value += b"\x98\x3f\x07"  # field 1011, which nobody knows
    put(api, pb, [mine])
    change = session("ignored", audience=["c"])
    change.accessed_at.GetCurrentTime()
    change.oauth_token.access_token, change.oauth_token.refresh_token = "new", "ignored"
    absent = session()
    answer = patch(api, pb, [record(pb, SESSION, s.id, change), record(pb, SESSION, absent.id, absent)],
                   "accessed_at", "audience", "oauth_token.access_token", "claims", "id_token.issuer")
    assert ids(answer) == [s.id]
    now = stored(api, pb, mine, session())
    assert (now.user_id, list(now.audience), now.idp_id) == ("before", ["c"], "idp")
    assert (now.oauth_token.access_token, now.oauth_token.refresh_token) == ("new", "kept")
    assert now.accessed_at == change.accessed_at and not now.claims and not now.HasField("id_token")
    assert answer.records[0].data.value.count(b"\x98\x3f\x07") == 1
    assert status(lambda: api.Get(pb.GetRequest(type=SESSION, id=absent.id), timeout=ANSWER_S)) == Code.NOT_FOUND
    for paths, code in ((["nothing"], Code.INVALID_ARGUMENT), ([], Code.INVALID_ARGUMENT), (["claims.x"], Code.INVALID_ARGUMENT),
                        (["oauth_token.nothing"], Code.INVALID_ARGUMENT), (["user_id.x"], Code.INVALID_ARGUMENT)):
        assert status(lambda: patch(api, pb, [record(pb, SESSION, s.id, change)], *paths)) == code, paths
    damaged = pb.Record(type=SESSION, id=s.id)
    damaged.data.type_url, damaged.data.value = SESSION, b"\x1a\x7f"
    assert status(lambda: patch(api, pb, [damaged], "user_id")) == Code.INVALID_ARGUMENT
    assert stored(api, pb, mine, session()) == now


def test_two_patches_at_once_lose_nothing(broker, pb, api):
    s = session("0", idp_id="0")
    s.oauth_token.access_token = s.oauth_token.refresh_token = "0"
    put(api, pb, [record(pb, SESSION, s.id, s)])

    def write(path):
        stub, _ = broker.client("authenticate")
        for i in range(1, 21):
            change, part = session(""), path.split(".")
            setattr(change.oauth_token if len(part) > 1 else change, part[-1], str(i))
            patch(stub, pb, [record(pb, SESSION, s.id, change)], path)

    paths = ("user_id", "idp_id", "oauth_token.access_token", "oauth_token.refresh_token")
    threads = [threading.Thread(target=write, args=(p,)) for p in paths]
    [t.start() for t in threads]
    [t.join() for t in threads]
    now = stored(api, pb, pb.Record(type=SESSION, id=s.id), session())
    assert (now.user_id, now.idp_id, now.oauth_token.access_token, now.oauth_token.refresh_token) == ("20",) * 4


# --- Put ----------------------------------------------------------------------------------------


def test_a_put_of_many_is_one_step_for_followers_and_readers(broker, pb, api, kind):
    """Two records that always say the same, written again and again: nobody ever reads two that differ."""
    stop, torn = threading.Event(), []

    def look():
        stub, _ = broker.client("authenticate")
        while not stop.is_set():
            seen = {json.dumps(dict(stored_struct(r)), sort_keys=True) for r in query(stub, pb, kind).records}
            if len(seen) > 1:
                torn.append(seen)

    def stored_struct(r):
        s = struct_pb2.Struct()
        assert r.data.Unpack(s)
        return s

    reader = threading.Thread(target=look)
    reader.start()
    for i in range(100):
        put(api, pb, [record(pb, kind, x, struct({"i": i})) for x in ("x", "y")])
    stop.set()
    reader.join()
    assert not torn
    versions = [r.version for r in query(api, pb, kind).records]
    assert versions[1] == versions[0] + 1
    bad = pb.Record(type=kind, id="z\n")
    assert status(lambda: put(api, pb, [record(pb, kind, "w", struct({})), bad])) == Code.INVALID_ARGUMENT
    assert query(api, pb, kind).total_count == 2
