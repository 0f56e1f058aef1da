import os
import sys

import pytest

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "support"))

from trial import Trial  # noqa: E402


@pytest.fixture(scope="module")
def trial():
    t = Trial().start()
    yield t
    t.stop()
