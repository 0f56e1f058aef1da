"""make soak: a day of life in ten minutes. Exit code 0 when no access was wrong, no session lost, and the budget kept."""

import argparse
import json
import os
import random
import resource
import signal
import sys
import time

from soak import judge
from soak.crowd import Crowd
from soak.life import People, Trouble
from soak.world import World
from trial import ROOT, wait_for


def arguments():
    ap = argparse.ArgumentParser(prog="make soak", description=__doc__)
    ap.add_argument("--seconds", type=int, default=600)
    ap.add_argument("--rate", type=float, default=100, help="requests a second")
    ap.add_argument("--people", type=int, default=20)
    ap.add_argument("--live", type=int, default=20, help="logins that are good at a time, about")
    ap.add_argument("--streams", type=int, default=6)
    ap.add_argument("--every", type=float, default=4, help="seconds between troubles, about")
    ap.add_argument("--moves", type=int, default=3, help="how often the database's primary dies")
    ap.add_argument("--seed", type=int, default=random.randrange(1 << 30))
    return ap.parse_args()


class Soak:
    def __init__(self, args):
        self.args = args
        self.world = World(args.people)
        self.crowd = Crowd(self.world, args.rate, args.streams, args.seed)
        moves = [(i + 0.5) / args.moves for i in range(args.moves)]
        self.people = People(self.world, self.crowd, args.seed + 1, args.live)
        self.trouble = Trouble(self.world, self.crowd, args.seed + 2, args.seconds, args.every, moves)

    def run(self):
        """Sentences about what was wrong, and figures."""
        self.world.start()
        for _ in range(3):
            self.people.log_in(self.people.rng.choice(self.world.emails))
        parts = (self.crowd, self.people, self.trouble)
        for part in parts:
            part.start()
        time.sleep(self.args.seconds)
        self.trouble.stop()
        self.trouble.look()
        wait_for("everybody to be ready again", lambda: all(self.world.stand.is_ready(d) for d in self.world.stand.processes), 60)
        self.people.stop()
        time.sleep(2 * judge.BOUND_S)  # what follows is asked when all is settled
        self.crowd.stop()
        self.ask_everybody()
        return self.verdict()

    def ask_everybody(self):
        """At the end each login that is good works, and no other."""
        connections = {}
        for badge in self.crowd.badges:
            self.crowd.answers.append(self.crowd.ask(connections, badge, "app", f"/{badge.number}/last"))

    def verdict(self):
        counts = self.people.counts + self.trouble.counts
        # A refresh token is good for once: who dies between the provider's answer and the write takes a login along.
        excused = counts["authenticate SIGKILL"]
        v = judge.judge(self.crowd.answers, self.trouble.rules)
        faults = v.faults(excused) + self.people.failed + self.trouble.failed
        if self.trouble.moves:
            faults.append(f"the database was moved {counts['database moved']} times only, of {self.args.moves}")
        figures = {
            "seconds": self.args.seconds, "seed": self.args.seed, "requests": v.requests,
            "by_who_may": v.surely[True], "by_who_may_not": v.surely[False], "in_between": v.surely[None],
            "pieces_of_streams": v.pieces, "streams_cut": len(v.cuts), "tried_twice": self.crowd.tried_twice,
            "failed": len(v.errors), "budget": int(judge.BUDGET * v.requests), "latest_start_s": round(self.crowd.late, 2),
            "wrong_allows": len(v.wrong_allows), "wrong_denials": len(v.wrong_denials), "lost_sessions": len(v.lost),
            "lost_sessions_excused": excused, "refreshed": len(self.world.provider.grants()),
            **{f"slowest_{what}_s": s for what, s in self.people.slowest.items()}, **dict(sorted(counts.items()))}
        return faults, figures


def main():
    args = arguments()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # by way of every finally: nothing stays behind
    resource.setrlimit(resource.RLIMIT_NOFILE, (resource.getrlimit(resource.RLIMIT_NOFILE)[1],) * 2)
    soak = Soak(args)
    try:
        faults, figures = soak.run()
    finally:
        soak.world.stop()
    for name, value in figures.items():
        print(f"{name.replace('_', ' '):24} {value}")
    print("\n".join(["", *faults]) if faults else "\nNothing was wrong.")
    os.makedirs(os.path.join(ROOT, "build"), exist_ok=True)
    with open(os.path.join(ROOT, "build", "soak.json"), "w") as f:
        json.dump({**figures, "faults": faults}, f, indent=1)
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
