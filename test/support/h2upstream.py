"""An upstream that speaks HTTP/2 by hand, frame by frame."""

import hpack
from hyperframe.frame import HeadersFrame, SettingsFrame
from stand import Upstream


def head_frame(sid, headers):
    return HeadersFrame(sid, hpack.Encoder().encode(headers), flags=["END_HEADERS", "END_STREAM"]).serialize()


class RawH2(Upstream):
    """answer(socket, stream) is called for each HEADERS frame; resets are the streams that were given up."""

    def __init__(self, answer, settings=None):
        self.head, self.settings, self.resets = answer, settings or {}, []
        self.acknowledged = False  # our SETTINGS
        super().__init__(raw=self.talk)

    def greet(self, s):
        s.sendall(SettingsFrame(0, settings=self.settings).serialize())

    def talk(self, s):
        data = self.take(s, b"", 24)[1]
        self.greet(s)
        while True:
            head, data = self.take(s, data, 9)
            size, kind, flags, sid = int.from_bytes(head[:3], "big"), head[3], head[4], int.from_bytes(head[5:], "big")
            _, data = self.take(s, data, size)
            if kind == 4 and flags & 1:
                self.acknowledged = True
            elif kind == 4:
                s.sendall(SettingsFrame(0, flags=["ACK"]).serialize())
            elif kind == 1:
                self.head(s, sid)
            elif kind == 3:
                self.resets.append(sid)

    @staticmethod
    def take(s, data, n):
        while len(data) < n:
            more = s.recv(65536)
            if not more:
                raise OSError
            data += more
        return data[:n], data[n:]
