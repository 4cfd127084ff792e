"""What makes all tests quicker and none weaker."""

from __future__ import annotations

import gc
import os
import sys

# Tests are collected, and the hundreds of servers that they start are loaded, in half the time where modules stay
# compiled, so an environment that says otherwise, as images of containers do, is not heeded.
sys.dont_write_bytecode = False
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)


def pytest_collection_finish() -> None:
    """Keep the collector from going through thousands of tests, which all stay, again and again."""
    gc.freeze()
