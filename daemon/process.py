"""The process around one member: its signals, its exit code, its log, and what it asks of the interpreter.

Only here is anything done that concerns the whole process.  A member that is embedded in another program
(daemon/embed.py) is started by daemon/server.py alone.
"""

from __future__ import annotations

import gc
import os
import signal
import sys
import traceback
from typing import TYPE_CHECKING

from daemon.host import ThreadHost
from daemon.logs import make_logger, route_standard_library, write_notes
from daemon.machine import lock_memory
from daemon.notify import notify_ready, notify_stopping
from daemon.open_files import raise_limit
from daemon.server import REFUSALS, StartRefused, launch
from discovery.patience import Stopped

if TYPE_CHECKING:
    from collections.abc import Sequence

    import structlog

    from config.notes import Note
    from config.schema import Config

EXIT_REFUSED = 1

SWITCH_INTERVAL_S = 0.0005
"""How long a thread may keep the interpreter while another wants it: the core loop shares it with few others, and one
that waits for the log must not wait five milliseconds (CPython's default) for its turn."""


def run(config: Config, notes: Sequence[Note]) -> int:
    """Run a member until it is stopped, and return the exit code.  Ends the process itself after a signal or crash."""
    try:
        logger = make_logger(config.logging)
    except OSError as error:
        place = f"{error.filename}: " if error.filename else ""
        sys.stderr.write(f"cannot open a log output: {place}{error.strerror}\n")
        return EXIT_REFUSED
    route_standard_library(logger, config.logging)
    write_notes(logger, notes)
    stop = StopSignal()
    sys.setswitchinterval(SWITCH_INTERVAL_S)
    try:
        serve(config, logger, stop)
    except REFUSALS as refused:
        logger.critical("cannot start", error=str(refused))
        return EXIT_REFUSED
    except Exception as error:  # noqa: BLE001 - threads that run already would keep a half-started process alive
        logger.critical("crashed", error=repr(error), stacktrace=traceback.format_exc())
        os._exit(EXIT_REFUSED)
    stop.raise_again()
    return 0


class StopSignal:
    """SIGTERM or SIGINT, caught once."""

    def __init__(self) -> None:
        self.number: int | None = None
        self.host: ThreadHost | None = None
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._catch)

    @property
    def name(self) -> str:
        """What the caught signal is called; empty if none was."""
        return signal.Signals(self.number).name if self.number else ""

    def came(self) -> bool:
        """Whether one was caught."""
        return self.number is not None

    def wakes(self, host: ThreadHost) -> None:
        """Have *host* woken by the signal, even if it has come already."""
        self.host = host
        if self.number is not None:
            host.wake()

    def raise_again(self) -> None:
        """End the process by the signal that was caught; as process 1, which signals do not end, just return."""
        if self.number is not None and os.getpid() != 1:
            signal.signal(self.number, signal.SIG_DFL)
            sys.stdout.flush()
            os.kill(os.getpid(), self.number)

    def _catch(self, number: int, _frame: object) -> None:
        self.number = number
        if self.host is not None:
            self.host.wake()


def serve(config: Config, logger: structlog.stdlib.BoundLogger, stop: StopSignal) -> None:
    """Start, serve until *stop*, and stop.  Raises what keeps it from starting; a crash ends the process."""
    raise_limit(logger)
    if config.member.memory_mlock:
        try:
            lock_memory()
        except OSError as error:
            raise StartRefused(
                f"memory-mlock: cannot lock memory: {error.strerror}. Allow it (CAP_IPC_LOCK, or LimitMEMLOCK=infinity "
                "in the unit file), or leave the setting off"
            ) from error
    host = ThreadHost(logger)
    try:
        member = launch(config, logger, host, stop.came)
    except Stopped:
        return
    stop.wakes(host)
    tame_garbage_collector()
    try:
        if member.open(stop.came):
            notify_ready(logger)
        host.wait()
    finally:
        host.exit_if_crashed()
        notify_stopping(logger)
        member.stop(signal=stop.name)


def tame_garbage_collector() -> None:
    """Keep what the start has made out of every later collection, and collect seldom and little at a time.

    Hardly anything here is in cycles: a collection in the middle of a batch costs time and finds nothing.  Looking at
    what has come since the last one takes some milliseconds so.  Looking at everything is due after millions of
    objects: with a hundred thousand leases it takes a tenth of a second, for which everybody waits.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(10_000, 5, 100)
