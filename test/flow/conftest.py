import os
import sys

import pytest

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "support"))

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
