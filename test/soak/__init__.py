"""A day of life in ten minutes: people log in, work and leave while parts die. README.md tells how."""

import os
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "support"))
