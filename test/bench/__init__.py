"""Postern beside nginx and HAProxy: one machine, one upstream, one load, alternating. README.md tells how."""

import os
import sys

os.environ.setdefault("GRPC_VERBOSITY", "NONE")  # what goes wrong is an exception, too
sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "support"))
