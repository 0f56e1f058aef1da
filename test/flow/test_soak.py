"""The soak's judge tells right from wrong, and a small soak is without fault. The long one is `make soak`."""

import os
import subprocess

import pytest
from soak.judge import Answer, Badge, Truth, judge
from trial import ROOT


def badge(number=1, good=True):
    return Badge(number, "a@example.com", {}, Truth(good))


def ended(begun, acknowledged):
    """A login that was revoked."""
    b = badge()
    b.good.begin(begun, False)
    b.good.done(acknowledged)
    return b


def answer(b, at, status, host="app", **more):
    return Answer(at, at + 0.01, b, host, status, **more)


# A run in which everything is as it should be: the beginning of each of the following.
FINE = [answer(badge(), 1, 200), answer(None, 1, 401), answer(ended(5, 6), 5.5, 200), answer(ended(5, 6), 5.5, 401),
        answer(ended(5, 6), 7, 401), answer(ended(5, 6), 4, 200), answer(ended(5, 6), 5.995, 200)]
RULES = {"staff": {"a@example.com": Truth(False)}}


def test_a_run_without_fault_has_none():
    assert judge(FINE, RULES).faults() == []


@pytest.mark.parametrize("wrong, named", [
    (answer(None, 2, 200), "1 wrong allows"),
    (answer(ended(5, 6), 6.001, 200), "1 wrong allows"),
    (answer(ended(5, 6), 6.001, 200, kind="piece"), "1 wrong allows"),
    (answer(badge(), 2, 200, host="staff"), "1 wrong allows"),
    (answer(badge(), 2, 403), "1 wrong denials"),
    (answer(badge(), 2, 401), "1 lost sessions"),
    (answer(badge(), 2, 302), "1 lost sessions"),
    (answer(ended(5, 6), 4, 401), "1 lost sessions"),
    (answer(badge(), 2, 0), "1 of 8 requests failed"),
    (answer(badge(), 2, 503), "1 of 8 requests failed"),
    (answer(badge(), 2, 200, mixed=True), "1 answers that were somebody else's"),
])
def test_the_judge_finds(wrong, named):
    faults = judge([*FINE, wrong], RULES).faults()
    assert len(faults) == 1 and named in faults[0], faults


def test_a_session_is_lost_once_and_may_be_excused():
    b = badge()
    v = judge([*FINE, answer(b, 2, 401), answer(b, 3, 401)], RULES)
    assert len(v.faults()) == 1 and v.faults(excused_losses=1) == []


def test_a_run_that_asks_nothing_shows_nothing():
    assert "shows nothing" in judge([], {}).faults()[0]
    assert "shows nothing" in judge([answer(badge(), 1, 200)], {}).faults()[0]


def test_a_small_soak():
    done = subprocess.run([os.path.join(ROOT, "test", "soak", "run.sh"), "--seconds", "20", "--moves", "1", "--every", "1", "--seed",
                           "7"], capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0 and "Nothing was wrong." in done.stdout, done.stdout[-3000:] + done.stderr[-3000:]
    told = dict(line.rsplit(None, 1) for line in done.stdout.splitlines() if len(line.split()) > 1 and line.split()[-1].isdigit())
    assert int(told["by who may"]) > 100 and int(told["by who may not"]) > 10 and told["database moved"] == "1", told
