"""Those who ask: a steady rate of requests by everybody who ever logged in, and by strangers; and open streams.

A request comes at its time, however long the one before took. A connection that is closed while a request is under way is
tried once more on a new one, as browsers do.
"""

import http.client
import random
import ssl
import threading
import time

from soak.judge import Answer

WORKERS = 12
PATIENCE_S = 10
NOBODY = 0.04  # of the requests: without a cookie
GHOSTS = 0.10  # with one that is good no more
SCRIPT = {"Accept": "application/json", "Sec-Fetch-Mode": "cors", "Sec-Fetch-Dest": "empty"}


class Crowd:
    def __init__(self, world, rate, streams, seed):
        self.world, self.stand, self.rate = world, world.stand, rate
        self.badges, self.answers, self.tried_twice, self.late = [], [], 0, 0.0
        self.lost = set()  # numbers of badges that Postern did not know; the judge says whether it should have
        self.tls = ssl.create_default_context(cafile=self.stand.ca)
        self.over = threading.Event()
        self.threads = [threading.Thread(target=self.work, args=(random.Random(seed * 1000 + i), i), daemon=True)
                        for i in range(WORKERS)]
        self.threads += [threading.Thread(target=self.listen, args=(random.Random(seed * 1000 + 500 + i),), daemon=True)
                         for i in range(streams)]

    def start(self):
        self.began = time.monotonic()
        for t in self.threads:
            t.start()

    def stop(self):
        self.over.set()
        for t in self.threads:
            t.join(3 * PATIENCE_S)
        assert not any(t.is_alive() for t in self.threads)

    def living(self):
        return [b for b in list(self.badges) if b.good.now and b.number not in self.lost]

    def pick(self, rng):
        dice = rng.random()
        badges = list(self.badges)
        if dice < NOBODY or not badges:
            return None
        ghosts = [b for b in badges if not b.good.now][-50:] if dice < NOBODY + GHOSTS else None
        return rng.choice(ghosts or self.living() or badges)

    def connect(self, host):
        return http.client.HTTPSConnection(f"{host}.localhost", self.stand.port, timeout=PATIENCE_S, context=self.tls)

    def work(self, rng, number):
        connections, done = {}, 0
        while True:
            due = self.began + (done * WORKERS + number) / self.rate
            if self.over.wait(max(0, due - time.monotonic())):
                return
            self.late = max(self.late, time.monotonic() - due)
            done += 1
            badge = self.pick(rng)
            host = rng.choice(self.world.HOSTS)
            self.answers.append(self.ask(connections, badge, host, f"/{badge.number if badge else '-'}/{number}/{done}"))

    def ask(self, connections, badge, host, target):
        headers = {**SCRIPT, **({"Cookie": badge.cookies[host]} if badge else {})}
        sent, status, body = time.monotonic(), 0, b""
        for _ in range(2):
            try:
                c = connections.get(host) or connections.setdefault(host, self.connect(host))
                c.request("GET", target, headers=headers)
                answer = c.getresponse()
                status, body = answer.status, answer.read()
                break
            except (OSError, http.client.HTTPException):
                status = 0
                connections.pop(host).close()
                self.tried_twice += 1
        if badge and status in (302, 401):
            self.lost.add(badge.number)
        return Answer(sent, time.monotonic(), badge, host, status, mixed=status == 200 and body != target.encode())

    def listen(self, rng):
        while not self.over.wait(0.2):
            living = self.living()
            if not living:
                continue
            badge = rng.choice(living)
            c = self.connect("app")
            try:
                c.request("GET", "/stream", headers={**SCRIPT, "Cookie": badge.cookies["app"]})
                answer = c.getresponse()
                if answer.status == 200:
                    self.hear(badge, answer)
            except (OSError, http.client.HTTPException):
                pass
            c.close()

    def hear(self, badge, answer):
        while not self.over.is_set():
            try:
                piece = answer.read(1)
            except (OSError, http.client.HTTPException):
                piece = b""
            now = time.monotonic()
            self.answers.append(Answer(now, now, badge, "app", 200 if piece else 0, kind="piece" if piece else "cut"))
            if not piece:
                return
