"""Postern beside nginx and HAProxy: one machine, one upstream, one load, alternating. README.md tells how."""

import os
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "support"))
