"""An attacker: floods a server of HTTP/2 over TLS from a few threads, on one connection after the other.

Standard input: a line of JSON that says what. Prints "attacking" once its first bytes are out, ends with its standard
input, and prints how many connections it made and how many bytes it sent then. What it sends was computed before, and it
runs on what nobody else wants of the processors: attackers have machines of their own.
"""

import json
import os
import select
import socket
import ssl
import sys
import threading

from floods import recorded

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + b"\0\0\0\4\0\0\0\0\0"
THREADS = 2
PIECE = 16384


class Attack:
    def __init__(self, port, data):
        self.port, self.data = port, data
        self.context = ssl._create_unverified_context()
        self.context.set_alpn_protocols(["h2"])
        self.over = threading.Event()
        self.begun = threading.Event()
        self.lock = threading.Lock()
        self.connections = self.sent = 0

    def run(self):
        os.sched_setscheduler(0, os.SCHED_IDLE, os.sched_param(0))
        while not self.over.is_set():
            try:
                self.flood()
            except OSError:  # it was thrown out: once more
                pass

    def flood(self):
        with socket.create_connection(("127.0.0.1", self.port), 10) as s, \
                self.context.wrap_socket(s, server_hostname="bench.localhost") as tls:
            tls.sendall(PREFACE)
            with self.lock:
                self.connections += 1
            for at in range(0, len(self.data), PIECE):
                if self.over.is_set() or not self.send(tls, self.data[at:at + PIECE]):
                    return

    def send(self, tls, piece):
        """Its words must not fill our side. False: it has thrown us out."""
        tls.settimeout(10)
        tls.sendall(piece)
        with self.lock:
            self.sent += len(piece)
        self.begun.set()
        tls.settimeout(0)
        try:
            while tls.recv(1 << 18):
                pass
        except ssl.SSLWantReadError:
            return True
        return False


def main():
    what = json.loads(sys.stdin.readline())
    attack = Attack(what["port"], recorded(what["flood"], what["authority"]))
    threads = [threading.Thread(target=attack.run) for _ in range(THREADS)]
    for t in threads:
        t.start()
    if attack.begun.wait(10):
        print("attacking", flush=True)
        select.select([sys.stdin], [], [])
    attack.over.set()
    for t in threads:
        t.join()
    print(json.dumps({"connections": attack.connections, "bytes": attack.sent}), flush=True)


if __name__ == "__main__":
    main()
