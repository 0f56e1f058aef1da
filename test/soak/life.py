"""What happens to people and parts. People log in and out and are revoked; Trouble kills, changes rules, rotates
keys, moves the database.

Each is one thread of events, one after the other, until told to stop; a seed says which.
"""

import random
import signal
import threading
import time
from collections import Counter
from functools import partial

import requests
from idp import login
from soak.judge import BOUND_S, Badge, Truth

ATTEMPTS_S = 90  # for what must succeed in the end: a login, a revocation


class Events:
    def __init__(self, world, crowd, seed):
        self.world, self.stand, self.crowd, self.rng = world, world.stand, crowd, random.Random(seed)
        self.over, self.failed, self.counts = threading.Event(), [], Counter()
        self.thread = threading.Thread(target=self.guarded, daemon=True)

    def start(self):
        self.thread.start()

    def stop(self):
        self.over.set()
        self.thread.join(2 * ATTEMPTS_S)
        assert not self.thread.is_alive()

    def guarded(self):
        try:
            self.run()
        except Exception as e:  # the soak has failed, and says so at its end
            self.failed.append(f"{type(self).__name__}: {e!r}")


class People(Events):
    EVERY_S = 0.5

    def __init__(self, world, crowd, seed, live):
        super().__init__(world, crowd, seed)
        self.live, self.slowest = live, {}

    def run(self):
        while not self.over.wait(self.EVERY_S * self.rng.uniform(0.5, 1.5)):
            living = self.crowd.living()
            if len(living) < self.live or self.rng.random() < 0.5:
                self.log_in(self.rng.choice(self.world.emails))
            elif self.rng.random() < 0.5:
                self.log_out(self.rng.choice(living))
            else:
                self.revoke(self.rng.choice(living).email)

    def insist(self, what, attempt):
        """Until it succeeds; its value. A failure is counted: a person would have had to try again."""
        began = time.monotonic()
        while True:
            try:
                value = attempt()
                self.slowest[what] = max(self.slowest.get(what, 0), round(time.monotonic() - began, 2))
                return value
            except (AssertionError, KeyError, requests.RequestException) as e:
                self.counts[what + " again"] += 1
                if time.monotonic() > began + ATTEMPTS_S:
                    raise AssertionError(f"no {what} within {ATTEMPTS_S} s: {e!r}") from e
                time.sleep(0.2)

    def log_in(self, email):
        def attempt():
            browser, page = login(self.stand, self.world.provider, self.stand.url("app", "/in"), email.split("@")[0])
            assert page.status_code == 200, (page.status_code, page.url)
            page = browser.get(self.stand.url("staff", "/in"))
            assert page.status_code in (200, 403), (page.status_code, page.url)
            return browser
        browser = self.insist("login", attempt)
        cookies = {host: browser.cookie(host + ".localhost") for host in self.world.HOSTS}
        badge = Badge(len(self.crowd.badges), email, cookies, Truth(False))
        badge.browser = browser
        badge.good.begin(time.monotonic(), True)
        badge.good.done(time.monotonic())
        self.crowd.badges.append(badge)
        self.counts["login"] += 1

    def log_out(self, badge):
        def attempt():
            page = badge.browser.get(self.stand.url("app", "/.pomerium/sign_out"))
            if "<form" in page.text:
                page = badge.browser.submit(page)
            assert page.status_code == 200, (page.status_code, page.url)
            assert badge.browser.fetch(self.stand.url("app")).status_code == 401
        badge.good.begin(time.monotonic(), False)
        self.insist("logout", attempt)
        badge.good.done(time.monotonic() + BOUND_S)
        badge.browser = None
        self.counts["logout"] += 1

    def revoke(self, email):
        hit = [b for b in self.crowd.badges if b.email == email and b.good.now]
        for badge in hit:
            badge.good.begin(time.monotonic(), False)
        self.insist("revocation", lambda: self.stand.cli("users", "revoke", email))
        for badge in hit:
            badge.good.done(time.monotonic() + BOUND_S)
            badge.browser = None
        self.counts["revocation"] += 1


class Trouble(Events):
    """moves: when the primary dies, as shares of the whole time."""

    KILLED = ("proxy", "authorize", "authorize-2", "authenticate", "databroker")

    def __init__(self, world, crowd, seed, seconds, every, moves):
        super().__init__(world, crowd, seed)
        self.seconds, self.every, self.moves = seconds, every, list(moves)
        self.deck = []
        self.rules = {"staff": {email: Truth(True) for email in world.emails}}

    def run(self):
        began = time.monotonic()
        while not self.over.wait(self.every * self.rng.uniform(0.5, 1.5)):
            self.look()
            if self.moves and time.monotonic() - began > self.moves[0] * self.seconds:
                self.moves.pop(0)
                self.world.fail_over()
                self.counts["database moved"] += 1
            else:
                self.draw()()

    def draw(self):
        """Everything has its turn before anything has its second."""
        if not self.deck:
            self.deck = [partial(self.kill, daemon, how) for daemon in self.KILLED for how in (signal.SIGKILL, signal.SIGTERM)]
            self.deck += [self.change_rule] * 5 + [self.rotate]
            self.rng.shuffle(self.deck)
        return self.deck.pop()

    def look(self):
        """A part that ended without our doing is a fault."""
        for daemon, process in self.stand.processes.items():
            if process.poll() is not None:
                self.failed.append(f"{daemon} ended by itself: {process.returncode}\n{self.stand.last_words(daemon)}")
                self.stand.start_one(daemon)

    def kill(self, daemon, how):
        self.stand.kill(daemon, how)
        time.sleep(self.rng.uniform(0, 0.5))
        self.stand.start_one(daemon)
        self.counts[f"{daemon.split('-')[0]} {how.name}"] += 1

    def change_rule(self):
        truths = self.rules["staff"]
        changed = self.rng.sample(sorted(truths), 2)
        for email in changed:
            truths[email].begin(time.monotonic(), not truths[email].now)
        self.world.write_rule([email for email in truths if truths[email].now])
        for email in changed:
            truths[email].done(time.monotonic() + BOUND_S)
        self.counts["rule changed"] += 1

    def rotate(self):
        if self.stand.cli("databroker", "rotate-keys", check=False).returncode == 0:
            self.counts["keys rotated"] += 1
