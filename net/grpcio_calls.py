"""grpcio's calls behind the interfaces of net/rpc.py: one object per call, driven by the coroutine that grpcio runs.

Knows nothing of servers or routes.  One thing grpcio does not tell: a cancelled stream may look half closed at first.
"""

from __future__ import annotations

import asyncio
import base64
from collections import deque
from functools import cached_property
from typing import TYPE_CHECKING, Final, ParamSpec, Protocol
from urllib.parse import unquote

import grpc
import grpc.aio

from net.rpc import OK, Code, Status, StreamHandler

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from net.rpc import StreamMethod, UnaryMethod
    from net.tally import Tallies

P = ParamSpec("P")
AioContext = grpc.aio.ServicerContext[bytes, bytes]

CANCELED: Final = Status(Code.CANCELLED, "context canceled")
DEADLINE: Final = Status(Code.DEADLINE_EXCEEDED, "context deadline exceeded")
HANDLER_RAISED: Final = Status(Code.INTERNAL, "internal error")

_CODES: Final = {code.value[0]: code for code in grpc.StatusCode}


class Turns(Protocol):
    """Where deliveries and bugs are reported."""

    @property
    def fatal(self) -> Callable[[BaseException], None]:
        """Take an exception that a service raised."""

    def delivered(self) -> None:
        """Note that a message was handed to a service in this turn."""


class AioContextView:
    """What both kinds of call can tell about who called."""

    def __init__(self, method: str, context: AioContext, turns: Turns, tallies: Tallies) -> None:
        self.method: Final = method
        self.done = False
        field = tallies.version_field.decode()
        versions = [value for name, value in context.invocation_metadata() or () if name == field]
        self.tally: Final = tallies.find(method, str(versions[0])) if versions else tallies.find(method)
        self.tally.started += 1
        self._context: Final = context
        self._turns: Final = turns
        self._loop: Final = asyncio.get_running_loop()
        self._ended: asyncio.Future[Status] = self._loop.create_future()

    @cached_property
    def metadata(self) -> Mapping[str, Sequence[str]]:
        """Request metadata; ``-bin`` values are left in base64."""
        collected: dict[str, list[str]] = {}
        for name, value in self._context.invocation_metadata() or ():
            text = value if isinstance(value, str) else base64.b64encode(value).rstrip(b"=").decode("ascii")
            collected.setdefault(name, []).append(text)
        return collected

    @property
    def peer(self) -> str:
        """The client's address, without grpcio's ``ipv4:`` and the like before it."""
        return unquote(self._context.peer().partition(":")[2])

    @property
    def common_name(self) -> str | None:
        """The subject CN of the client's certificate."""
        names = list(self._context.auth_context().get("x509_common_name", ()))
        return names[0].decode() if names else None

    @cached_property
    def deadline_s(self) -> float | None:
        """When the client stops waiting, on the loop's clock; as exact as grpcio tells."""
        remaining_s = self._context.time_remaining()
        return None if remaining_s is None else self._loop.time() + remaining_s

    def end(self, status: Status) -> None:
        """End the call; only the first time counts."""
        if not self.done:
            self.done = True
            self.tally.end(status.code)
            self._ended.set_result(status)

    def raised(self, error: Exception) -> None:
        """Answer for a service that raised, and report it."""
        self.end(HANDLER_RAISED)
        self._turns.fatal(error)

    def left(self) -> Status:
        """Take note that grpcio has given the call up; return why."""
        deadline_s = self.deadline_s
        status = DEADLINE if deadline_s is not None and self._loop.time() >= deadline_s else CANCELED
        if not self.done:
            self.done = True
            self.tally.end(status.code)
        return status

    def _tell(self, notice: Callable[P, None], *args: P.args, **kwargs: P.kwargs) -> None:
        try:
            notice(*args, **kwargs)
        except Exception as error:  # noqa: BLE001  # a bug of the service, reported by raised
            self.raised(error)

    async def abort(self, status: Status) -> None:
        """End the call on the wire with *status*, which is not OK.  Raises grpcio's AbortError."""
        await self._context.abort(_CODES[status.code], status.message)


class AioUnary(AioContextView):
    """A unary call in flight."""

    _message = b""
    _abandoned: Callable[[], None] | None = None

    def reply(self, message: bytes) -> None:
        """Answer with OK and *message*."""
        if not self.done:
            self._message = message
            self.tally.sent_bytes += len(message)
            self.end(OK)

    def fail(self, status: Status) -> None:
        """Answer with *status* and no message."""
        self.end(status)

    def when_abandoned(self, then: Callable[[], None]) -> None:
        """Call *then* if it ends without an answer."""
        self._abandoned = then

    async def serve(self, unary: UnaryMethod, request: bytes) -> bytes:
        """Hand the request over and wait for its end."""
        _ = self.deadline_s  # counts from the arrival of the call
        self.tally.received_bytes += len(request)
        self._turns.delivered()
        try:
            unary(self, request)
        except Exception as error:  # noqa: BLE001  # a bug of the service, reported by raised
            self.raised(error)
        try:
            status = await self._ended
        except asyncio.CancelledError:
            if not self.done and self._abandoned is not None:
                self._loop.call_soon(self._tell, self._abandoned)
            self.left()
            raise
        if status != OK:
            await self.abort(status)
        return self._message


class AioStream(AioContextView):
    """A streaming call in flight."""

    _handler: StreamHandler

    def __init__(self, method: str, context: AioContext, turns: Turns, tallies: Tallies) -> None:
        super().__init__(method, context, turns, tallies)
        self.unsent_bytes = 0
        self._queue: deque[bytes] = deque()
        self._wake_writer = asyncio.Event()
        self._may_read = asyncio.Event()
        self._may_read.set()

    def send(self, message: bytes) -> None:
        """Queue *message*; never blocks."""
        if not self.done:
            self._queue.append(message)
            self.tally.sent += 1
            self.tally.sent_bytes += len(message)
            self.unsent_bytes += len(message)
            self._wake_writer.set()

    def finish(self, status: Status = OK) -> None:
        """Send what is queued, then end the stream with *status*."""
        self.end(status)

    def end(self, status: Status) -> None:
        """End the call; only the first time counts."""
        super().end(status)
        self._wake_writer.set()

    def pause_reading(self) -> None:
        """Deliver no further message until resume_reading; one may already have been taken from the wire."""
        self._may_read.clear()

    def resume_reading(self) -> None:
        """Undo pause_reading."""
        self._may_read.set()

    async def serve(self, open_handler: StreamMethod) -> None:
        """Let the service open its half, then carry messages both ways until the end."""
        _ = self.deadline_s  # counts from the arrival of the call
        try:
            self._handler = open_handler(self)
        except Exception as error:  # noqa: BLE001  # a bug of the service, reported by raised
            self.raised(error)
            await self.abort(HANDLER_RAISED)
        reader = asyncio.create_task(self._read())
        status = CANCELED
        try:
            status = await self._write()
        except (asyncio.CancelledError, grpc.aio.BaseError):
            # BaseError: a write into a call whose client has just gone.
            status = self.left()
            raise
        finally:
            reader.cancel()
            self._queue.clear()
            self._tell(self._handler.on_closed, status)
        if status != OK:
            await self.abort(status)

    async def _write(self) -> Status:
        """Send what the service queues; return the status it ends with."""
        while True:
            while self._queue:
                message = self._queue.popleft()
                await self._context.write(message)
                self.unsent_bytes -= len(message)
                if not self._queue and not self.done:
                    self._tell(self._handler.on_drained)
            if self.done:
                return self._ended.result()
            self._wake_writer.clear()
            await self._wake_writer.wait()

    async def _read(self) -> None:
        """Deliver the client's messages until it ends."""
        while True:
            message = await self._context.read()
            await self._may_read.wait()
            if self.done:
                return
            self._turns.delivered()
            if _is_end(message):
                self._tell(self._handler.on_half_close)
                return
            self.tally.received += 1
            self.tally.received_bytes += len(message)
            self._tell(self._handler.on_message, message)


def _is_end(message: object) -> bool:
    """Whether what a read returned is grpcio's mark for the end, of which its stubs say nothing."""
    return not isinstance(message, bytes)
