"""An upstream that takes a body of any size and answers how many bytes it was. Ends with its standard input."""

import os
import re
import socket
import sys
import threading


def serve(s):
    room = memoryview(bytearray(1 << 20))
    kept = b""
    with s:
        while True:
            while b"\r\n\r\n" not in kept:
                more = s.recv(65536)
                if not more:
                    return
                kept += more
            head, kept = kept.split(b"\r\n\r\n", 1)
            length = re.search(rb"^content-length:\s*(\d+)\s*$", head, re.I | re.M)
            left = int(length.group(1)) if length else 0
            total = left
            left -= len(kept)
            kept = b""
            while left > 0:
                n = s.recv_into(room, min(left, len(room)))
                if n == 0:
                    return
                left -= n
            text = str(total).encode()
            s.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s" % (len(text), text))


def accept(listener):
    while True:
        s, _ = listener.accept()
        threading.Thread(target=serve, args=(s,), daemon=True).start()


def main():
    listener = socket.create_server(("127.0.0.1", 0), backlog=64)
    print(f"listening on {listener.getsockname()[1]}", flush=True)
    threading.Thread(target=accept, args=(listener,), daemon=True).start()
    sys.stdin.read()
    os._exit(0)


if __name__ == "__main__":
    main()
