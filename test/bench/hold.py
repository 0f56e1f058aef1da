"""Holds idle connections, each of which has had one good answer. Standard input: a line of JSON that says what.

Prints "held N" when all are open, waits for another line, prints "open N" with those still open, and ends.
"""

import json
import socket
import ssl
import sys

from bench.process import allow_descriptors
from bench.visit import client_context, connect, read_answer, request_bytes


def is_open(s):
    """Nothing to read and no end: still there. TLS tickets that came late are read away."""
    s.setblocking(False)
    try:
        return s.recv(1) != b""
    except (BlockingIOError, ssl.SSLWantReadError):
        return True
    except OSError:
        return False


def main():
    what = json.loads(sys.stdin.readline())
    allow_descriptors(what["n"] + 256)
    context = client_context()
    request = request_bytes(what["authority"], "/", what["headers"])
    held = []
    for _ in range(what["n"]):
        s = connect(what["scheme"], what["port"], what["authority"].split(":")[0], context)
        s.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        s.sendall(request)
        status, body, fields = read_answer(s)
        if status != 200 or len(body) != what["bytes"] or fields.get("connection", "").lower() == "close":
            sys.exit(f"connection {len(held)}: {status}, {len(body)} bytes, {fields}")
        held.append(s)
    print(f"held {len(held)}", flush=True)
    sys.stdin.readline()
    print(f"open {sum(map(is_open, held))}", flush=True)


if __name__ == "__main__":
    main()
