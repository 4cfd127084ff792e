"""Syncs that the kernel makes while the calling thread goes on.

A sync takes as long as dozens of requests.  A Python thread that makes it needs the interpreter before and after, which
the loop is busy with; the kernel needs nobody: by io_uring, whose workers run on any processor, or by native AIO, whose
worker waits for the very processor that the caller keeps busy, but which most containers allow.  Either tells the end
by an event descriptor, which the loop watches.  The system calls are the package caio's.
"""

from __future__ import annotations

import asyncio
import os
import select
from contextlib import suppress
from functools import cache
from importlib.machinery import PathFinder
from importlib.util import find_spec, module_from_spec
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

BACKENDS: Final = ("linux_uring", "linux_aio")
"""The best one first."""

PROBE_TIMEOUT_S: Final = 5.0
"""After which a backend that has not made the first sync is not used.  A disk that hangs meanwhile costs only speed."""


_REFUSALS: Final = (OSError, OverflowError, RuntimeError, SystemError, ValueError)
"""How caio tells of what the system said."""

_SIGN: Final = 1 << 63


class BackgroundSync:
    """One sync at a time, for one thread.  Make it with usable_in()."""

    def __init__(self, name: str) -> None:
        """Use caio's backend *name*.  ImportError or OSError where it, or the kernel's part of it, is missing."""
        self.name = name
        """Of the backend, for people."""
        backend = _module(name)
        try:
            self._context: Any = backend.Context(max_requests=1)
        except _REFUSALS as error:
            raise OSError(f"{name}: {error}") from error
        self._make: Callable[[int], Any] = backend.Operation.fdsync
        self._flush: Callable[[], object] | None = getattr(self._context, "flush", None)
        self._operation: Any = None
        self._over = False
        self._error_number = 0
        self._loop: asyncio.AbstractEventLoop | None = None
        self.ended: Callable[[OSError | None], None]
        """Told of the end of each sync, and of what went wrong."""

    @property
    def busy(self) -> bool:
        """Whether a sync is under way, or its end was not told yet."""
        return self._operation is not None

    def watch(self, ended: Callable[[OSError | None], None]) -> None:
        """From now on have the loop that runs notice ends, and *ended* told of them."""
        self.ended = ended
        self._loop = asyncio.get_running_loop()
        self._loop.add_reader(self._context.fileno, self.look)

    def begin(self, descriptor: int) -> None:
        """Begin to make durable what was written to *descriptor* so far.

        Raises OSError where the kernel takes no more: then nothing was begun, and nothing should be any more.
        """
        assert self._operation is None, "one at a time"
        operation = self._operation = self._make(descriptor)
        operation.set_callback(self._note)
        self._over = False
        try:
            self._context.submit(operation)
            if self._flush is not None:
                self._flush()
        except _REFUSALS as error:
            self._operation = None
            raise OSError(f"{self.name}: {error}") from error
        if self._over and self._loop is not None:  # at once, of which the descriptor does not tell
            self._loop.call_soon(self.look)

    def look(self) -> None:
        """Tell of the end if it is there."""
        with suppress(BlockingIOError):
            self._context.poll()
        self._context.process_events()
        if self._operation is not None and self._over:
            self._operation = None
            number = self._error_number
            self.ended(OSError(number, os.strerror(number)) if number else None)

    def wait(self, timeout_s: float) -> bool:
        """Wait for the end, of which *ended* is told; whether it came in time."""
        readable = select.poll()
        readable.register(self._context.fileno, select.POLLIN)
        self.look()
        while self.busy:
            if not readable.poll(timeout_s * 1000):
                return False
            self.look()
        return True

    def close(self) -> None:
        """Watch no longer."""
        if self._loop is not None:
            self._loop.remove_reader(self._context.fileno)
            self._loop = None

    def _note(self, result: int) -> None:
        self._error_number = error_number(result)
        self._over = True


@cache
def _module(name: str) -> Any:  # noqa: ANN401 - a module
    """Return caio's extension module *name*, without the package around it: to import that is a tenth of a start."""
    package = find_spec("caio")
    spec = None if package is None else PathFinder.find_spec(f"caio.{name}", package.submodule_search_locations)
    if spec is None or spec.loader is None:
        raise ImportError(f"caio has no {name} here")
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def error_number(result: int) -> int:
    """Return the error number in a backend's *result*, 0 for none: it is negative, for linux_aio without its sign."""
    return max(0, -result) if result < _SIGN else 2 * _SIGN - result


def usable_in(folder: Path) -> BackgroundSync | None:
    """Return the best backend that can sync in *folder*, None where there is none.

    It is tried on the folder itself: an error that the system tells only once must not be told of a file in use.
    """
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        for name in BACKENDS:
            with suppress(ImportError, OSError):
                backend = BackgroundSync(name)
                if _works(backend, descriptor):
                    return backend
    finally:
        os.close(descriptor)
    return None


def _works(backend: BackgroundSync, descriptor: int) -> bool:
    ends: list[OSError | None] = []
    backend.ended = ends.append
    backend.begin(descriptor)
    return backend.wait(PROBE_TIMEOUT_S) and ends == [None]
