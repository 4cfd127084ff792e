"""What a start does for the machine before it serves: give back unused space, lock memory, load little."""

from __future__ import annotations

import subprocess
import sys

import structlog

from core.mvcc.backend import MemoryBackend
from daemon.bootstrap import defragment

MEGABYTE = 1 << 20


class Sparse(MemoryBackend):
    """A store with so much unused space."""

    def __init__(self, unused_bytes: int) -> None:
        super().__init__()
        self.unused_bytes = unused_bytes
        self.compactions = 0

    def size_bytes(self) -> int:
        """See Backend."""
        return 10 * MEGABYTE + self.unused_bytes

    def size_in_use_bytes(self) -> int:
        """See Backend."""
        return 10 * MEGABYTE

    def compact(self, start: bytes | None = None, stop: bytes | None = None) -> None:
        """See Backend."""
        assert (start, stop) == (None, None)
        self.compactions += 1
        self.unused_bytes = 0


def told_by(backend: Sparse, threshold_megabytes: int) -> list[str]:
    log = structlog.testing.LogCapture()
    defragment(backend, threshold_megabytes, structlog.stdlib.BoundLogger(None, [log], {}))
    return [str(entry["event"]) for entry in log.entries]


def test_a_start_gives_space_back_from_the_threshold_on() -> None:
    """It takes time in which nobody is served, so only where it is worth it, and the log says which it was."""
    below, above, off = Sparse(5 * MEGABYTE - 1), Sparse(5 * MEGABYTE), Sparse(100 * MEGABYTE)
    assert told_by(below, 5) == ["skipping defragmentation"]
    assert told_by(above, 5) == ["finished defragmenting"]
    assert told_by(off, 0) == []
    assert (below.compactions, above.compactions, off.compactions) == (0, 1, 0)


LOCKS = """
import resource
from daemon.machine import lock_memory
try:
    lock_memory()
except OSError as error:
    print("refused", error.errno)
else:
    print([line.split()[1] for line in open("/proc/self/status") if line.startswith("VmLck")][0])
"""


def test_memory_is_locked_or_the_system_says_why_not() -> None:
    """A page that was swapped out would stall an election; in a process of its own, since it cannot be taken back."""
    done = subprocess.run([sys.executable, "-c", LOCKS], capture_output=True, text=True, timeout=60, check=True)
    told = done.stdout.split()
    assert told[0] == "refused" or int(told[0]) > 0, done


def test_a_start_loads_no_library_that_it_has_no_use_for() -> None:
    """Loading is most of a start; a plain member needs no keys, no other engine, and no page of metrics yet."""
    code = "import sys, daemon.program, daemon.process; print(*{name.partition('.')[0] for name in sys.modules})"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    loaded = set(done.stdout.split())
    assert "structlog" in loaded
    assert not loaded & {"cryptography", "jwt", "grpc", "prometheus_client", "opentelemetry", "dns"}
