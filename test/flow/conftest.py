import os
import sys

import pytest

for folder in ("..", "../support"):
    sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), folder))

import broker  # noqa: E402
from foreign import messages  # noqa: E402
from postgres import Postgres  # noqa: E402
from stand import Upstream  # noqa: E402
from trial import Trial  # noqa: E402


@pytest.fixture(scope="module")
def trial():
    t = Trial().start()
    yield t
    t.stop()


@pytest.fixture(scope="module")
def upstream():
    u = Upstream()
    yield u
    u.close()


@pytest.fixture(scope="module")
def stubs():
    """name → (messages, stubs) as a foreign client has them."""
    return messages("databroker", "session", "user", "authorize", "authenticate", "health", "reflection")


@pytest.fixture(scope="module")
def pb():
    """The databroker's messages."""
    return broker.stubs()["databroker"]


@pytest.fixture(scope="module")
def api(broker):
    """The databroker as the command line sees it, in a module that has one."""
    return broker.client("cli")[0]


@pytest.fixture(scope="module")
def postgres():
    p = Postgres().create()
    yield p
    p.close()
