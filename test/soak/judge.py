"""What the answers of a soak are worth, against what was true when they were given.

Truth     one yes or no over time; while it changes nobody knows
Badge     one login: the cookies of a person's browser, and whether they are good
Answer    what came back to one request, or one piece of a stream
judge()   the verdict over all answers
"""

import math
import threading
from collections import Counter
from dataclasses import dataclass, field

BOUND_S = 1.0  # after an acknowledged revocation or an applied rule, until it holds everywhere
BUDGET = 0.001  # of all requests may fail: no answer, or 5xx


class Truth:
    def __init__(self, value):
        self.lock = threading.Lock()
        self.changes = [[-math.inf, -math.inf, value]]

    def begin(self, at, value):
        """From now on it may be so."""
        with self.lock:
            self.changes.append([at, math.inf, value])

    def done(self, at):
        """From now on it is so."""
        with self.lock:
            self.changes[-1][1] = at

    @property
    def now(self):
        return self.changes[-1][2]

    def during(self, first, last):
        """True or False where it was that for the whole time, otherwise None."""
        value = None
        with self.lock:
            for begin, end, new in self.changes:
                if begin > last:
                    break
                if end > first:
                    return None
                value = new
        return value


def both(a, b):
    if a is False or b is False:
        return False
    return None if a is None or b is None else True


@dataclass
class Badge:
    number: int
    email: str
    cookies: dict  # by host
    good: Truth


@dataclass
class Answer:
    sent: float
    got: float
    badge: Badge | None  # None: nobody was logged in
    host: str
    status: int  # 0: none came
    kind: str = "request"  # "piece" of a stream, "cut": its end, which nobody asked for
    mixed: bool = False  # it was somebody else's


@dataclass
class Verdict:
    requests: int = 0
    pieces: int = 0
    surely: Counter = field(default_factory=Counter)  # requests by what was true: True, False, None
    wrong_allows: list = field(default_factory=list)
    wrong_denials: list = field(default_factory=list)
    lost: dict = field(default_factory=dict)  # number of a badge → the first answer that did not know it
    mixed: list = field(default_factory=list)
    errors: list = field(default_factory=list)
    cuts: list = field(default_factory=list)

    def faults(self, excused_losses=0):
        """Sentences, none when all is well. excused_losses: sessions that could not but be lost."""
        found = []
        if self.wrong_allows:
            found.append(f"{len(self.wrong_allows)} wrong allows, the first: {told(self.wrong_allows[0])}")
        if self.wrong_denials:
            found.append(f"{len(self.wrong_denials)} wrong denials, the first: {told(self.wrong_denials[0])}")
        if len(self.lost) > excused_losses:
            first = next(iter(self.lost.values()))
            found.append(f"{len(self.lost)} lost sessions, {excused_losses} excused, the first: {told(first)}")
        if self.mixed:
            found.append(f"{len(self.mixed)} answers that were somebody else's, the first: {told(self.mixed[0])}")
        if len(self.errors) > BUDGET * self.requests:
            found.append(f"{len(self.errors)} of {self.requests} requests failed, {BUDGET:.2%} may")
        if self.surely[True] == 0 or self.surely[False] == 0:
            found.append("nothing was asked by somebody who may, or by somebody who may not: this run shows nothing")
        return found


def told(a):
    who = f"login {a.badge.number} of {a.badge.email}" if a.badge else "nobody"
    return f"{a.status} to {who} at {a.host} ({a.kind}), sent at {a.sent:.3f}, came at {a.got:.3f}"


def judge(answers, rules):
    """rules: host → e-mail → Truth of whether the rule lets the person in; a host without: whoever is logged in."""
    v = Verdict()
    for a in answers:
        may = False
        if a.badge is not None:
            may = a.badge.good.during(a.sent, a.got)
            if a.host in rules:
                may = both(may, rules[a.host][a.badge.email].during(a.sent, a.got))
        if a.kind == "request":
            v.requests += 1
            v.surely[may] += 1
        else:
            v.pieces += a.kind == "piece"
        if a.mixed:
            v.mixed.append(a)
        elif a.kind == "cut":
            if may:
                v.cuts.append(a)
        elif a.status == 0 or a.status >= 500:
            v.errors.append(a)
        elif a.status == 200 and may is False:
            v.wrong_allows.append(a)
        elif a.status != 200 and may:
            if a.status == 403:
                v.wrong_denials.append(a)
            else:
                v.lost.setdefault(a.badge.number, a)
    return v
