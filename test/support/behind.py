"""A stand whose address, as browsers know it, is another proxy's: Postern is behind it, without TLS."""

import os
import re

from sanitize import PATIENCE
from stand import Stand, raw_request
from trial import ROOT, free_port, wait_for


def manual(name, language="", having=""):
    """The example of a page of docs/ that holds a text, as it is printed there."""
    with open(os.path.join(ROOT, "docs", name)) as f:
        blocks = re.findall(r"^```(\w*)\n(.*?)^```", f.read(), re.S | re.M)
    found = [text for of, text in blocks if of == language and having in text]
    assert len(found) == 1, (name, language, having, len(found))
    return found[0]


def replaced(text, pairs):
    """Every text that is to be replaced must be there."""
    for was, now in pairs.items():
        assert was in text, was
        text = text.replace(was, str(now))
    return text


class Behind(Stand):
    """front() starts the other proxy, on stand.port with stand.ca and stand.key, and returns its process."""

    def __init__(self, routes, settings="", **more):
        self.inner = free_port()
        self.other = None
        super().__init__(routes, settings, listener="insecure_server: true\n", **more)

    def config_with(self, secret, previous, name="other.yaml"):
        path = super().config_with(secret, previous, name)
        with open(path) as f:
            text = f.read()
        with open(path, "w") as f:
            f.write(text.replace(f"address: 127.0.0.1:{self.port}\n", f"address: 127.0.0.1:{self.inner}\n"))
        return path

    def start(self):
        super().start()
        self.other = self.front()
        wait_for("the other proxy to listen", self.answers, 30)
        return self

    def answers(self):
        assert self.other.poll() is None, "it has ended"
        return raw_request(self.port, b"GET / HTTP/1.0\r\n\r\n", seconds=1) is not None

    def stop(self):
        if self.other:
            self.other.terminate()
            self.other.wait(20 * PATIENCE)
        super().stop()
