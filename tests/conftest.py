"""What makes all tests quicker, or less in need of a quick machine, and none weaker."""

from __future__ import annotations

import gc
import os
import signal
import sys
from pathlib import Path

import pytest
from hypothesis import settings

TESTS = Path(__file__).parent
E2E = TESTS / "e2e"
"""Where all tests are that start servers as processes, and no others (tests/tidy/test_marks.py)."""

# Tests are collected, and the hundreds of servers that they start are loaded, in half the time where modules stay
# compiled, so an environment that says otherwise, as images of containers do, is not heeded.
sys.dont_write_bytecode = False
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)

# What a shell starts in the background ignores interrupts, and so would all processes that tests start and interrupt.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


# An example that takes a fifth of a second on a busy machine is no bug.
settings.register_profile("unhurried", deadline=None)
settings.load_profile("unhurried")


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """Load no modules whose tests the option -m leaves out, for `make check` and for the other half of `make test`."""
    match config.option.markexpr:
        case "not e2e":
            return collection_path == E2E or None
        case "e2e":
            return (collection_path.parent == TESTS and collection_path.is_dir() and collection_path != E2E) or None
        case _:
            return None


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Begin with what takes long, so that all workers end at the same time."""
    items.sort(key=lambda item: item.get_closest_marker("long") is None)


def pytest_collection_finish() -> None:
    """Keep the collector from going through thousands of tests, which all stay, again and again."""
    gc.freeze()
