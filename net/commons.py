"""What all connections of one listener share: its routes and limits, its clock and wheel, and the ends of its batches.

Answers that are given outside of a connection's own read are collected here and leave once per turn of the event
loop, with one write per connection; services are told at the same moment that a batch of requests is complete.
Belongs to the listener's loop thread.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, Final, Protocol

from net.reading import READ_BYTES_MAX

if TYPE_CHECKING:
    from collections.abc import Callable

    from net.deadlines import Deadlines
    from net.http1_parser import Head
    from net.rpc import HttpHandler, Limits, Routes

    TakeOver = Callable[[Head], asyncio.Protocol | None]
    """Returns what takes over an HTTP/1.1 connection from this request's body on; None for ordinary requests."""


ALONE_AFTER_S: Final = 20e-6
"""A connection that reads alone in a turn, so long after the end of the one before, that also had one reader alone, is
taken to be the only busy one: its batch ends at once instead of waiting for what others may have ready.  Whoever else
was ready is met within a few microseconds of that end, and then batches are gathered again."""


class Flushable(Protocol):
    """Something with output that has not been written."""

    def flush(self) -> None:
        """Write the output that has collected."""


class Connection(Flushable, Protocol):
    """A connection as its listener sees it, whatever it speaks."""

    def drain(self) -> None:
        """Finish what is in flight, take nothing new, then close."""

    def close(self) -> None:
        """End everything now, politely."""

    def abort(self) -> None:
        """Cut it."""


class Scheduler(Protocol):
    """The part of an event loop that connections need."""

    def time(self) -> float:
        """Return monotonic seconds."""

    def call_soon(self, callback: Callable[[], object]) -> object:
        """Run *callback* in the next turn."""


class Commons:
    """Handed to every connection of a listener.

    *fatal* is told of exceptions that a service raised, which are bugs; *log* is a structlog logger.
    """

    def __init__(
        self,
        *,
        routes: Routes,
        http: HttpHandler | None,
        limits: Limits,
        scheduler: Scheduler,
        deadlines: Deadlines,
        fatal: Callable[[BaseException], None],
        log: Any,  # noqa: ANN401  # structlog's loggers have no common type
        on_batch_end: Callable[[], None] | None = None,
        take_over: TakeOver | None = None,
    ) -> None:
        self.take_over = take_over
        self.routes = routes
        self.http = http
        self.limits = limits
        self.now = scheduler.time
        self.deadlines = deadlines
        self.fatal = fatal
        self.log = log
        self.read_buffer = memoryview(bytearray(READ_BYTES_MAX))
        """Where all connections read to, one after the other."""
        self.connections: dict[Connection, None] = {}
        self.empty = asyncio.Event()
        """Set while there is no connection."""
        self.empty.set()
        self.draining = False
        self.delivering = False
        """Whether a connection is handing requests to services, of which *on_batch_end* will tell the end."""
        self._call_soon = scheduler.call_soon
        self._on_batch_end = on_batch_end
        self._scheduled = False
        self._undelivered_end = False
        self._delivering = 0
        self._was_alone = False
        self._turn_ended_s = 0.0
        self._unflushed: list[Flushable] = []
        self._notices: list[Callable[[], None]] = []

    def joined(self, connection: Connection) -> None:
        """Count *connection* in."""
        self.connections[connection] = None
        self.empty.clear()

    def left(self, connection: Connection) -> None:
        """Count *connection* out."""
        self.connections.pop(connection, None)
        if not self.connections:
            self.empty.set()

    def flush_later(self, connection: Flushable) -> None:
        """Have *connection* flushed at the end of this turn; it must not ask again before that."""
        self._unflushed.append(connection)
        self._schedule()

    def flush_alone(self) -> None:
        """Flush the one connection that asked for it, before the end of the turn; several wait for that.

        A lone client gains what the rest of the turn takes.  Of several, the first to be answered would be back with a
        batch of its own before the others have their answers.
        """
        if len(self._unflushed) == 1:
            self.flush()

    def flush(self) -> None:
        """Flush all connections that asked for it."""
        unflushed, self._unflushed = self._unflushed, []
        for connection in unflushed:
            connection.flush()

    def delivered(self, read_s: float) -> None:
        """Note that requests may have been handed to services in this turn, from a read that began at *read_s*."""
        self.delivering = False
        if self._on_batch_end is None:
            return
        self._undelivered_end = True
        self._delivering += 1
        if self._was_alone and not self._scheduled and read_s - self._turn_ended_s > ALONE_AFTER_S:
            self._scheduled = True  # who answers in it need not ask for another
            self._end_turn()
        else:
            self._schedule()

    def soon(self, notice: Callable[[], None]) -> None:
        """Run *notice* at the end of this turn, before the batch ends."""
        self._notices.append(notice)
        self._schedule()

    def _schedule(self) -> None:
        if not self._scheduled:
            self._scheduled = True
            self._call_soon(self._end_turn)

    def _end_turn(self) -> None:
        notices, self._notices = self._notices, []
        for notice in notices:
            notice()
        if self._undelivered_end and self._on_batch_end is not None:
            self._undelivered_end = False
            try:
                # What it answers is appended to the list below and leaves in this same turn.
                self._on_batch_end()
            except Exception as error:  # noqa: BLE001  # a bug of the service: the hook ends the process
                self.fatal(error)
        self._scheduled = False
        if self._notices:
            self._schedule()
        self.flush()
        if self._delivering:
            self._was_alone = self._delivering == 1
            self._delivering = 0
        self._turn_ended_s = self.now()
