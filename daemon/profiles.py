"""Profiles of this process, as text: what each thread does, where time goes, what holds memory.

Stacks come as the interpreter prints them, CPU samples as folded stacks, which flame graph tools read.  Each job may
take a while and belongs on a thread of its own.
"""

from __future__ import annotations

import sys
import threading
import time
import traceback
import tracemalloc
from collections import Counter
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from types import FrameType

SAMPLE_INTERVAL_S: Final = 0.01
HEAP_LINES_MAX: Final = 100


def stacks(_seconds: float) -> bytes:
    """Return the stack of every thread, innermost call last."""
    names = thread_names()
    return "".join(
        f"thread {names.get(ident, ident)}:\n{''.join(traceback.format_stack(frame))}\n"
        for ident, frame in sys._current_frames().items()  # noqa: SLF001 - its documented name
    ).encode()


def heap(_seconds: float) -> bytes:
    """Return the lines that hold most memory."""
    if not tracemalloc.is_tracing():
        return b"allocations are not traced: start with PYTHONTRACEMALLOC=1 in the environment\n"
    current, peak = tracemalloc.get_traced_memory()
    statistics = tracemalloc.take_snapshot().statistics("lineno")[:HEAP_LINES_MAX]
    lines = [f"in use {current} bytes, at most {peak} bytes\n", *(f"{statistic}\n" for statistic in statistics)]
    return "".join(lines).encode()


def cpu(seconds: float) -> bytes:
    """Return how often each stack was met in so many seconds, folded, the threads' names first; waits count too."""
    own = threading.get_ident()
    names = thread_names()
    counts: Counter[str] = Counter()
    for _ in range(int(seconds / SAMPLE_INTERVAL_S)):
        for ident, frame in sys._current_frames().items():  # noqa: SLF001 - its documented name
            if ident != own:
                counts[f"{names.get(ident, ident)};{folded(frame)}"] += 1
        time.sleep(SAMPLE_INTERVAL_S)
    return "".join(f"{stack} {count}\n" for stack, count in counts.most_common()).encode()


def folded(frame: FrameType | None) -> str:
    """Return the calls of a stack, outermost first."""
    calls = []
    while frame is not None:
        calls.append(f"{frame.f_globals.get('__name__', '?')}.{frame.f_code.co_name}:{frame.f_lineno}")
        frame = frame.f_back
    return ";".join(reversed(calls))


def thread_names() -> dict[int | None, str]:
    """Return the names of the threads that run, by their identifiers."""
    return {thread.ident: thread.name for thread in threading.enumerate()}


PROFILES: Final = {"goroutine": stacks, "heap": heap, "profile": cpu}
"""By the names of Go's pages; each gets the seconds that it may take."""
