"""What clients saw while the network between the parts was cut, judged: leases, records, revocations. test/support/history/."""

import collections
import json
import os
import tempfile

import pytest
from namespaces import why_not
from sites import STALENESS_S, Sites, build_judge, judge

FULL = os.environ.get("POSTERN_PROOF") == "full"
SEEDS = [1, 2, 3, 4, 5] if FULL else [1]
LIFE_S = STALENESS_S + 2  # how long a revoked session is tried
FULL_S = 110  # each of the seeds, on each store


@pytest.fixture(scope="module")
def program():
    found, why = build_judge()
    if found is None:
        pytest.skip(f"the judge of histories cannot be built: {why}")
    return found


@pytest.fixture
def sites(request):
    """request.param: how many databrokers, on PostgreSQL or not, and the seed."""
    if why_not():
        pytest.skip(why_not())
    s = Sites(*request.param)
    yield s
    s.close()


def tally(history):
    """kind → outcome → how many"""
    counts = collections.defaultdict(collections.Counter)
    for line in history:
        counts[line["kind"]][line.get("outcome")] += 1
    return counts


def show(title, s, history, report):
    """The figures, for docs and for whoever reads the log of a proof."""
    counts = tally(history)
    print(f"\n{title}: {len(s.faults)} faults: {dict(collections.Counter(f[0] for f in s.faults))}")
    for kind in ("put", "delete", "get", "acquire", "renew", "release", "revoke", "visit"):
        print(f"  {kind:8} {sum(counts[kind].values()):7}  {dict(counts[kind])}")
    for row in report.values():
        print(f"  {row['claim']:12} {row['parts']:5} histories, {row['operations']:7} operations, {len(row['violations'])} violations")
    print(f"  revocations by bound: {report['revocations']['bounds']}")


def keep(history):
    with tempfile.NamedTemporaryFile("w", prefix="history-", suffix=".jsonl", delete=False) as f:
        f.writelines(json.dumps(line) + "\n" for line in history)
    return f.name


def assert_holds(program, title, s, history):
    code, report = judge(program, history)
    assert code in (0, 1), report
    show(title, s, history, report)
    broken = [f"{row['claim']}: {v}" for row in report.values() for v in row["violations"]]
    assert not broken, "\n".join([*broken, f"the history is kept in {keep(history)}"])
    counts = tally(history)
    # What never happened shows nothing.
    for kind, outcomes in {"put": "ok", "get": "ok absent", "delete": "ok", "acquire": "ok refused", "renew": "ok", "release": "ok",
                           "revoke": "ok", "visit": "allow deny unknown"}.items():
        for outcome in outcomes.split():
            assert counts[kind][outcome] > 0, (kind, outcome, counts[kind])
    for kinds in (("put", "delete"), ("acquire", "renew", "release")):
        assert sum(counts[kind]["unknown"] for kind in kinds) > 0, (kinds, counts)
    assert all(row["parts"] > 0 for row in report.values())
    for bound in ["apart", "same", *(["other"] if s.n > 1 else [])]:  # where the machine stood still, all may have been apart
        assert report["revocations"]["bounds"].get(bound, 0) > 0 or s.stood_still, (bound, report["revocations"])


def op(kind, call, end, outcome="ok", client="c", through="b0", **more):
    return {"kind": kind, "key": "k", "client": client, "through": through, "call": call, "return": end, "outcome": outcome, **more}


def put(call, end, value, version, outcome="ok"):
    return op("put", call, end, outcome, value=value, version=version)


def get(call, end, value, version):
    return op("get", call, end, value=value, version=version)


def absent(call, end):
    return op("get", call, end, "absent")


def gone(call, end, version, outcome="ok"):
    return op("delete", call, end, outcome, version=version)


def lease(kind, call, end, who, length=0, outcome="ok"):
    return op(kind, call, end, outcome, lease=who if outcome == "ok" or kind != "acquire" else "", length=length)


def revoke(call, end, outcome="ok", through="b0"):
    return op("revoke", call, end, outcome, through=through)


def visit(call, end, outcome):
    return op("visit", call, end, outcome, client="a0")


GATE = [{"kind": "promise", "bounds": {"same": 0, "other": 100, "apart": 1000}}, {"kind": "proxy", "key": "a0", "through": "b0"}]


def apart(call, end):
    return {"kind": "apart", "proxies": ["a0"], "call": call, "return": end}


# What it is, the history, the claims that it breaks.
HISTORIES = [
    ("a read sees the write before it", [put(1, 2, "x", 1), get(3, 4, "x", 1)], {}),
    ("a read sees nothing after a write", [put(1, 2, "x", 1), absent(3, 4)], {"registers"}),
    ("a read sees the write before the last", [put(1, 2, "x", 1), put(3, 4, "y", 2), get(5, 6, "x", 1)], {"registers"}),
    ("a read beside a write sees either", [put(1, 2, "x", 1), put(3, 9, "y", 2), get(4, 5, "x", 1), get(6, 7, "y", 2)], {}),
    ("a read goes back", [put(1, 2, "x", 1), put(3, 9, "y", 2), get(4, 5, "y", 2), get(6, 7, "x", 1)], {"registers"}),
    ("a deleted record is read", [put(1, 2, "x", 1), gone(3, 4, 2), get(5, 6, "x", 1)], {"registers"}),
    ("a write without an answer happens late", [put(1, 2, "x", 1), put(3, 4, "y", 0, "unknown"), get(5, 6, "x", 1), get(7, 8, "y", 2)], {}),
    ("a write without an answer happens twice", [put(1, 2, "y", 0, "unknown"), get(3, 4, "y", 1), gone(5, 6, 2), get(7, 8, "y", 3)],
     {"registers"}),
    ("a delete without an answer happens late", [put(1, 2, "x", 1), gone(3, 4, 0, "unknown"), get(5, 6, "x", 1), absent(7, 8)], {}),
    ("a write that nobody made is read", [put(1, 2, "x", 1), get(3, 4, "z", 2)], {"registers"}),
    ("versions go back", [put(1, 2, "x", 5), put(3, 4, "y", 4)], {"registers"}),
    ("a value has another version", [put(1, 2, "x", 5), get(3, 4, "x", 6)], {"registers"}),
    ("a lease goes from one to the next", [lease("acquire", 1, 2, "a", 10), lease("acquire", 12, 13, "b", 10)], {}),
    ("a lease is given in another's time", [lease("acquire", 1, 2, "a", 10), lease("acquire", 5, 6, "b", 10)], {"leases", "holders"}),
    ("a lease is given back", [lease("acquire", 1, 2, "a", 10), lease("release", 3, 4, "a"), lease("acquire", 5, 6, "b", 10)], {}),
    ("a renewed lease is given to another", [lease("acquire", 1, 2, "a", 10), lease("renew", 5, 6, "a", 10), lease("acquire", 12, 13, "b", 9)],
     {"leases", "holders"}),
    ("a lease is renewed that another has", [lease("acquire", 1, 2, "a", 3), lease("acquire", 9, 10, "b", 9), lease("renew", 11, 12, "a", 3)],
     {"leases", "holders"}),
    ("a free lease is refused", [lease("acquire", 1, 2, "a", 3), lease("acquire", 6, 7, "", 3, "refused")], {"leases"}),
    ("a holder is refused", [lease("acquire", 1, 2, "a", 9), lease("renew", 3, 4, "a", 9, "refused")], {"leases"}),
    ("who got no answer may hold it", [lease("acquire", 1, 2, "", 9, "unknown"), lease("acquire", 6, 7, "", 3, "refused")], {}),
    ("a release without an answer frees it", [lease("acquire", 1, 2, "a", 99), lease("release", 3, 4, "a", 0, "unknown"),
                                           lease("acquire", 5, 6, "b", 9)], {}),
    ("a renewal without an answer may have made it shorter", [lease("acquire", 1, 2, "a", 99), lease("renew", 3, 4, "a", 5, "unknown"),
                                                            lease("acquire", 9, 10, "b", 9)], {}),
    ("who is revoked is denied", [*GATE, visit(1, 2, "allow"), revoke(3, 4), visit(5, 6, "deny")], {}),
    ("who is revoked is let in", [*GATE, revoke(3, 4), visit(5, 6, "allow")], {"revocations"}),
    ("who is revoked elsewhere is let in within the bound", [*GATE, revoke(3, 4, through="b1"), visit(90, 95, "allow")], {}),
    ("who is revoked elsewhere is let in after the bound", [*GATE, revoke(3, 4, through="b1"), visit(105, 106, "allow")], {"revocations"}),
    ("one that is apart lets in within its own bound", [*GATE, apart(2, 50), revoke(3, 4), visit(900, 901, "allow")], {}),
    ("one that is apart lets in after its own bound", [*GATE, apart(2, 50), revoke(3, 4), visit(1005, 1006, "allow")], {"revocations"}),
    ("one that is whole again has the short bound", [*GATE, apart(1, 2), revoke(3, 4), visit(5, 6, "allow")], {"revocations"}),
    ("who was denied is let in again within the bound", [*GATE, revoke(3, 4, through="b1"), visit(5, 6, "deny"), visit(7, 8, "allow")], {}),
    ("who was denied is let in again after the bound", [*GATE, revoke(3, 4), visit(3, 4, "deny"), visit(7, 8, "allow")], {"revocations"}),
    ("who is not revoked is denied", [*GATE, visit(1, 2, "deny"), revoke(3, 4)], {"revocations"}),
    ("a revocation without an answer decides nothing", [*GATE, revoke(3, 4, "unknown"), visit(5, 6, "allow"), visit(7, 8, "deny")], {}),
]


@pytest.mark.parametrize(("history", "broken"), [row[1:] for row in HISTORIES], ids=[row[0] for row in HISTORIES])
def test_the_judge_knows(program, history, broken):
    code, report = judge(program, history)
    assert {claim for claim, row in report.items() if row["violations"]} == set(broken), report
    assert code == (1 if broken else 0)


@pytest.mark.parametrize("line", ["{", "{}\n", '{"kind": "put"}\n', op("put", 0, 1), op("put", 2, 1), op("put", 1, 2, "allow"),
                                  op("guess", 1, 2)], ids=str)
def test_the_judge_refuses_what_it_cannot_read(program, line):
    code, why = judge(program, [line])
    assert code == 2 and why.startswith("history: line 1: ")


def corrupted(history):
    """(what was changed, the claims that this breaks, the history) for a history that holds."""
    acknowledged = [x for x in history if x.get("outcome") == "ok"]
    end = max(x["return"] for x in history if "return" in x) + 10_000_000_000
    first, second = [x for x in acknowledged if x["kind"] == "put"][:2]
    yield "an acknowledged write is read no more", {"registers"}, [
        *history, {**first, "key": "new"}, {**first, "key": "new", "kind": "get", "outcome": "absent", "call": end, "return": end}]
    yield "an old value is read", {"registers"}, [
        *history, {**first, "call": end, "return": end, "version": 1 << 40}, {**second, "key": first["key"], "kind": "get", "call": end + 1,
                                                                        "return": end + 1}]
    lease = next(x for x in acknowledged if x["kind"] == "acquire" and x["return"] + 1 < x["call"] + x["length"])
    yield "a lease is given twice", {"leases", "holders"}, [
        *history, {**lease, "key": "new"}, {**lease, "key": "new", "lease": "other", "call": lease["return"] + 1,
                                            "return": lease["return"] + 2}]
    revoke = next(x for x in acknowledged if x["kind"] == "revoke")
    yield "a revoked session is let in", {"revocations"}, [
        *history, {"kind": "visit", "key": revoke["key"], "client": "a0", "through": "b0", "call": end, "return": end + 1, "outcome": "allow"}]


def check(program, title, s, history):
    assert_holds(program, title, s, history)
    for what, claims, changed in corrupted(history):
        code, report = judge(program, changed)
        assert code == 1 and {row["claim"] for row in report.values() if row["violations"]} == claims, (what, code, report)


@pytest.mark.parametrize("sites", [(3, True, seed) for seed in SEEDS], indirect=True, ids=str)
def test_three_databrokers_on_one_database(program, sites):
    """Records behave as if there was one copy, whoever is asked; leases have one holder; who is revoked stays out."""
    def trouble():
        sites.step([sites.fault("drop", "a0", "b0"), sites.fault("deaf", "c1", "b1")], STALENESS_S + 1.5)
        sites.step([sites.fault("drop", "b1", "db"), sites.fault("reset", "c2", "b2")], STALENESS_S + 1.5)
        sites.step([sites.fault("mute", "b2", "db"), sites.fault("slow", "c0")], 2)
    history = sites.observe(LIFE_S, (lambda: sites.trouble(FULL_S)) if FULL else trouble)
    check(program, f"three databrokers on PostgreSQL, seed {sites.seed}", sites, history)


@pytest.mark.parametrize("sites", [(1, False, seed) for seed in SEEDS], indirect=True, ids=str)
def test_one_databroker_on_sqlite(program, sites):
    def trouble():
        sites.step([sites.fault("mute", "c0", "b0")], STALENESS_S + 1.5)
        sites.step([sites.fault("drop", "a0", "b0")], STALENESS_S + 1.5)
    history = sites.observe(LIFE_S, (lambda: sites.trouble(FULL_S)) if FULL else trouble)
    check(program, f"one databroker on SQLite, seed {sites.seed}", sites, history)
