"""Calls and streams that extensions make: net.rpc's Call and Stream without a connection.

Services cannot tell them from a client's.  They belong to the loop of the listener that has no socket, which serves
them; what is on its way to an extension counts as unsent, so a stream waits for one that is slow.
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, Final

from core.errors import AuthOldRevision
from net.rpc import OK, Code, Status
from services.tokens import LoglessScheme

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from core.auth.rules import Rules
    from net.rpc import StreamHandler, UnaryMethod

from core.auth.rules import ROOT_USER, Identity

ATTEMPTS_MAX: Final = 5
"""Of a call that was judged by rules which changed while it was on its way."""

PEER: Final = "extension"
METADATA: Final[Mapping[str, Sequence[str]]] = {"token": (PEER,)}
CANCELED: Final = Status(Code.CANCELLED, "context canceled")


class InsideScheme(LoglessScheme):
    """Whoever calls from inside the node is root.  For the listener without a socket only; see TokenScheme."""

    def sign(self, user: str, revision: int) -> str:  # noqa: ARG002 - part of the scheme
        """See TokenScheme; an extension that logs in gets a token which is good here alone."""
        return PEER

    def identify(self, token: str, rules: Rules, now_s: float) -> Identity | None:  # noqa: ARG002 - as above
        """See TokenScheme."""
        return Identity(ROOT_USER, rules.revision)

    def tick(self, now_s: float) -> None:
        """See TokenScheme."""


class InsideContext:
    """Who calls: an extension."""

    peer = PEER
    metadata = METADATA
    common_name: str | None = None
    deadline_s: float | None = None

    def __init__(self, method: str) -> None:
        self.method = method


class InsideCall(InsideContext):
    """A unary call of an extension."""

    def __init__(self, method: str, payload: bytes, unary: UnaryMethod, then: Callable[[bytes | Status], None]) -> None:
        super().__init__(method)
        self._payload = payload
        self._unary = unary
        self._then = then
        self._attempts = 0
        self._abandoned: Callable[[], None] | None = None
        self.done = False

    def begin(self) -> None:
        """Hand it to its service."""
        self._attempts += 1
        self._unary(self, self._payload)

    def reply(self, message: bytes) -> None:
        """See Call."""
        self._end(message)

    def fail(self, status: Status) -> None:
        """See Call."""
        if status.message == AuthOldRevision.text and self._attempts < ATTEMPTS_MAX and not self.done:
            self.begin()  # nothing was done, and the node itself may do it under the new rules, too
        else:
            self._end(status)

    def when_abandoned(self, then: Callable[[], None]) -> None:
        """See Call."""
        self._abandoned = then

    def drop(self) -> None:
        """Forget the caller, whose life is over."""
        if not self.done:
            self.done = True
            if self._abandoned is not None:
                self._abandoned()

    def _end(self, outcome: bytes | Status) -> None:
        if not self.done:
            self.done = True
            self._then(outcome)


class InsideStream(InsideContext):
    """A stream of an extension: *then* gets each message of the service, and in the end the status."""

    def __init__(self, method: str, then: Callable[[bytes | Status], None]) -> None:
        super().__init__(method)
        self.unsent_bytes = 0
        self._then = then
        self._handler: StreamHandler | None = None
        self._waiting: deque[bytes] = deque()
        self._half_closed = False
        self._told_half_close = False
        self._paused = False
        self._ended: Status | None = None

    def open(self, handler: StreamHandler) -> None:
        """Let *handler* serve it."""
        self._handler = handler
        if self._ended is not None:
            handler.on_closed(self._ended)

    # -- the service's half ------------------------------------------------------------------------------------------

    def send(self, message: bytes) -> None:
        """See Stream."""
        if self._ended is None:
            self.unsent_bytes += len(message)
            self._then(message)

    def finish(self, status: Status = OK) -> None:
        """See Stream."""
        if self._ended is None:
            self._then(status)
            self._end(status)

    def pause_reading(self) -> None:
        """See Stream."""
        self._paused = True

    def resume_reading(self) -> None:
        """See Stream."""
        self._paused = False
        self._deliver()

    # -- the extension's half ----------------------------------------------------------------------------------------

    def receive(self, message: bytes, *, last: bool) -> None:
        """Take a message of the extension."""
        self._waiting.append(message)
        self._half_closed |= last
        self._deliver()

    def taken(self, size_bytes: int) -> None:
        """Take note that the extension has handled so many bytes."""
        self.unsent_bytes -= size_bytes
        if size_bytes and not self.unsent_bytes and self._ended is None and self._handler is not None:
            self._handler.on_drained()

    def cancel(self) -> None:
        """End it: the extension wants no more."""
        if self._ended is None:
            self._end(CANCELED)

    def _end(self, status: Status) -> None:
        self._ended = status
        self._waiting.clear()
        if self._handler is not None:
            self._handler.on_closed(status)

    def _deliver(self) -> None:
        handler = self._handler
        assert handler is not None, self.method
        while self._waiting and not self._paused and self._ended is None:
            handler.on_message(self._waiting.popleft())
        if self._half_closed and not self._waiting and self._ended is None and not self._told_half_close:
            self._told_half_close = True
            handler.on_half_close()
