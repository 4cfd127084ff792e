"""A client's way to a member: calls and streams that take time, and end when the member's process does."""

from __future__ import annotations

from typing import TYPE_CHECKING

from net.rpc import OK, Code, Status

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from net.rpc import StreamHandler
    from sim.cluster import Cluster
    from sim.member import Member

LOST = Status(Code.UNAVAILABLE, "connection lost")
REFUSED = Status(Code.UNAVAILABLE, "connection refused")
"""Nothing of the request has reached the member."""


class Caller:
    """What a member can ask about who calls."""

    metadata: Mapping[str, Sequence[str]] = {}
    common_name: str | None = None
    deadline_s: float | None = None

    def __init__(self, cluster: Cluster, member: Member, method: str, who: str) -> None:
        self.method = method
        self.peer = who
        self._cluster = cluster
        self._member = member
        self._life = member.life

    def _arrives(self, then: Callable[[], None]) -> None:
        """Call *then* on the member's loop in a while, if the member lives that long."""
        member, life = self._member, self._life

        def arrive() -> None:
            if member.running and member.life == life and member.host is not None:
                member.host.loop("Core").call(then)
            else:
                self._lost()

        self._cluster.schedule.after(self._cluster.network.delay_s(), arrive)

    def _returns(self, then: Callable[[], None]) -> None:
        """Call *then* at the client in a while."""
        self._cluster.schedule.after(self._cluster.network.delay_s(), then)

    def _lost(self) -> None:
        raise NotImplementedError


class Call(Caller):
    """One unary call, answered once: with a status, and a message if that is OK."""

    def __init__(
        self,
        cluster: Cluster,
        member: Member,
        method: str,
        who: str,
        payload: bytes,
        answered: Callable[[Status, bytes], None],
    ) -> None:
        super().__init__(cluster, member, method, who)
        self._answered = answered
        self._done = False
        self._left = False
        self._abandoned: Callable[[], None] = _nothing
        engine = member.engine
        if not member.running or engine is None or not engine.open:
            self._returns(lambda: self._end(REFUSED, b""))
            return
        member.connections.append(self)
        self._arrives(lambda: engine.routes.unary[method](self, payload))

    @property
    def done(self) -> bool:
        """See net.rpc.Call."""
        return self._done

    def reply(self, message: bytes) -> None:
        """See net.rpc.Call."""
        self._finish(OK, message)

    def fail(self, status: Status) -> None:
        """See net.rpc.Call."""
        self._finish(status, b"")

    def when_abandoned(self, then: Callable[[], None]) -> None:
        """See net.rpc.Call."""
        self._abandoned = then

    def leave(self) -> None:
        """Let the client give up."""
        if not self._done:
            self._arrives(self._abandoned)
        self._done = self._left = True
        self._forget()

    def break_off(self) -> None:
        """End with the member's process."""
        self._lost()

    def _lost(self) -> None:
        self._finish(LOST, b"")

    def _finish(self, status: Status, message: bytes) -> None:
        if not self._done:
            self._done = True
            self._forget()
            self._returns(lambda: self._end(status, message))

    def _forget(self) -> None:
        if self in self._member.connections:
            self._member.connections.remove(self)

    def _end(self, status: Status, message: bytes) -> None:
        if not self._left:
            self._left = True
            self._answered(status, message)


class Stream(Caller):
    """One streaming call; messages arrive in their order."""

    def __init__(
        self,
        cluster: Cluster,
        member: Member,
        method: str,
        who: str,
        received: Callable[[bytes], None],
        closed: Callable[[Status], None],
    ) -> None:
        super().__init__(cluster, member, method, who)
        self.unsent_bytes = 0
        self._received = received
        self._closed = closed
        self._ended = False
        self._closed_at_client = False
        self._handler: StreamHandler | None = None
        self._early: list[bytes] = []
        self._last_s = 0.0
        engine = member.engine
        if not member.running or engine is None or not engine.open:
            self._ended = True
            self._returns(lambda: self._close(REFUSED))
            return
        member.connections.append(self)

        def open_it() -> None:
            self._handler = engine.routes.streams[method](self)
            early, self._early = self._early, []
            for message in early:
                if not self._ended:
                    self._handler.on_message(message)

        self._arrives(open_it)

    def write(self, message: bytes) -> None:
        """Send a message to the member."""

        def take() -> None:
            if self._ended:
                return
            if self._handler is None:
                self._early.append(message)  # it overtook the opening
            else:
                self._handler.on_message(message)

        if not self._ended:
            self._arrives(take)

    def leave(self) -> None:
        """Let the client end it."""
        if not self._ended:
            self._ended = True
            self._arrives(lambda: self._tell_closed(Status(Code.CANCELLED)))

    def send(self, message: bytes) -> None:
        """See net.rpc.Stream."""
        if self._ended:
            return
        self.unsent_bytes += len(message)
        schedule = self._cluster.schedule
        sent_s = schedule.now_s + schedule.spent_s
        self._last_s = max(self._last_s, sent_s + self._cluster.network.delay_s())
        schedule.after(self._last_s - sent_s, lambda: self._deliver(message))

    def finish(self, status: Status = OK) -> None:
        """See net.rpc.Stream."""
        if not self._ended:
            self._ended = True
            self._tell_closed(status)
            schedule = self._cluster.schedule
            delay_s = max(0.0, self._last_s - schedule.now_s - schedule.spent_s)
            schedule.after(delay_s + self._cluster.network.delay_s(), lambda: self._close(status))

    def pause_reading(self) -> None:
        """See net.rpc.Stream: what is under way arrives all the same."""

    def resume_reading(self) -> None:
        """See net.rpc.Stream."""

    def break_off(self) -> None:
        """End with the member's process."""
        self._lost()

    def _lost(self) -> None:
        if not self._ended:
            self._ended = True
            self._returns(lambda: self._close(LOST))

    def _deliver(self, message: bytes) -> None:
        self.unsent_bytes -= len(message)
        if self._closed_at_client:
            return
        if not self.unsent_bytes and not self._ended:
            self._arrives(self._tell_drained)
        self._received(message)

    def _tell_drained(self) -> None:
        if self._handler is not None and not self._ended:
            self._handler.on_drained()

    def _tell_closed(self, status: Status) -> None:
        if self in self._member.connections:
            self._member.connections.remove(self)
        if self._handler is not None:
            self._handler.on_closed(status)
            self._handler = None

    def _close(self, status: Status) -> None:
        if not self._closed_at_client:
            self._closed_at_client = True
            self._closed(status)


def _nothing() -> None:
    """Nobody waits to hear that a client has given up."""
