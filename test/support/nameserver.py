"""A name server on loopback that answers as it is told (RFC 1035), over UDP and TCP.

NameServer().names["app.test"] = Zone(["127.0.0.2"], ttl=1); .names["app.test"] = "silent" | "servfail"; others: NXDOMAIN."""

import socket
import struct
import threading

A, AAAA = 1, 28


class Zone:
    def __init__(self, v4=(), v6=(), ttl=1):
        self.v4, self.v6, self.ttl = list(v4), list(v6), ttl


class NameServer:
    def __init__(self):
        self.names, self.asked = {}, []  # asked: (name, type, "udp" | "tcp")
        self.udp, self.tcp = self.pair()
        self.port = self.udp.getsockname()[1]
        self.threads = [threading.Thread(target=run, daemon=True) for run in (self.serve_udp, self.serve_tcp)]
        for thread in self.threads:
            thread.start()

    @staticmethod
    def pair():
        for _ in range(20):
            tcp = socket.create_server(("127.0.0.1", 0))
            udp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
            try:
                udp.bind(tcp.getsockname())
                return udp, tcp
            except OSError:
                tcp.close()
                udp.close()
        raise OSError("no port is free for both UDP and TCP")

    def serve_udp(self):
        while True:
            try:
                query, peer = self.udp.recvfrom(4096)
            except OSError:
                return
            if not query:
                return  # closed
            answer = self.answer(query, "udp")
            if answer:
                self.udp.sendto(answer, peer)

    def serve_tcp(self):
        while True:
            try:
                s, _ = self.tcp.accept()
            except OSError:
                return
            threading.Thread(target=self.talk, args=(s,), daemon=True).start()

    def talk(self, s):
        with s:
            s.settimeout(10)
            try:
                while size := s.recv(2):
                    answer = self.answer(s.recv(struct.unpack("!H", size)[0]), "tcp")
                    if answer:
                        s.sendall(struct.pack("!H", len(answer)) + answer)
            except OSError:
                pass

    def answer(self, query, transport):
        labels, at = [], 12
        while query[at]:
            labels.append(query[at + 1:at + 1 + query[at]].decode())
            at += query[at] + 1
        name, kind = ".".join(labels).lower(), struct.unpack("!H", query[at + 1:at + 3])[0]
        question = query[12:at + 5]
        self.asked.append((name, kind, transport))
        zone = self.names.get(name)
        if zone == "silent":
            return None
        code = 2 if zone == "servfail" else 3 if zone is None else 0
        records = []
        if isinstance(zone, Zone):
            records = ([socket.inet_pton(socket.AF_INET, a) for a in zone.v4] if kind == A else
                       [socket.inet_pton(socket.AF_INET6, a) for a in zone.v6] if kind == AAAA else [])
        body = b"".join(b"\xc0\x0c" + struct.pack("!HHIH", kind, 1, zone.ttl, len(r)) + r for r in records)
        return query[:2] + struct.pack("!HHHHH", 0x8180 | code, 1, len(records), 0, 0) + question + body

    def close(self):
        # Wake the threads before their descriptors are free: a number used again would be theirs, too.
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as s:
            s.sendto(b"", ("127.0.0.1", self.port))
        self.tcp.shutdown(socket.SHUT_RDWR)
        for thread in self.threads:
            thread.join(5)
        self.udp.close()
        self.tcp.close()
