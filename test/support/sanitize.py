"""Sanitized builds (SAN=asan,ubsan or SAN=tsan): how their programs start, how long they may take, what they reported.

PATIENCE            factor on every wait: 1 without a sanitizer
ANSWER_S            how long a call may take that must be answered, also on a busy machine
assert_clean(files) fails with the first report in these logs
"""

import ctypes
import os
import re

SAN = os.environ.get("SAN", "")
PATIENCE = 6 if "tsan" in SAN else 3 if SAN else 1
ANSWER_S = 30 * PATIENCE
ADDR_NO_RANDOMIZE = 0x0040000
REPORT = re.compile(r"^.*(?:ERROR: AddressSanitizer|ERROR: LeakSanitizer|WARNING: ThreadSanitizer|FATAL: ThreadSanitizer|"
                    r"Sanitizer has encountered|Sanitizer:DEADLYSIGNAL|: runtime error: )", re.M)

if "tsan" in SAN:  # TSan wants its address space unshuffled; every program started from here inherits this
    if ctypes.CDLL(None, use_errno=True).personality(ADDR_NO_RANDOMIZE) == -1:
        raise OSError(ctypes.get_errno(), "personality: TSan's programs cannot start with a shuffled address space")


def assert_clean(files):
    for name in files:
        try:
            with open(name, errors="replace") as f:
                text = f.read()
        except FileNotFoundError:
            continue
        found = REPORT.search(text)
        assert not found, f"sanitizer report in {os.path.basename(name)}:\n{text[found.start():found.start() + 8000]}"
