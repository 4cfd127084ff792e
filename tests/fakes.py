"""What actors under test are handed: addresses that keep what they are told, a clock moved by hand, calls, streams."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeVar

from net.rpc import OK

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from net.rpc import Status

K = TypeVar("K")


class FakeClock:
    """A clock that stands still unless it is moved."""

    def __init__(self, now_s: float = 1000.0) -> None:
        self.now_s = now_s

    def monotonic_s(self) -> float:
        """See core.clock.Clock."""
        return self.now_s

    def wall_s(self) -> float:
        """See core.clock.Clock."""
        return 1_700_000_000.0 + self.now_s

    def pass_s(self, seconds: float) -> None:
        """Let time pass."""
        self.now_s += seconds


class Told:
    """An address that keeps what it is told, in order."""

    def __init__(self, journal: list[Any] | None = None) -> None:
        """*journal* may be shared, where the order among several addresses matters."""
        self.messages: list[Any] = [] if journal is None else journal

    def tell(self, message: Any) -> None:
        """Keep *message*."""
        self.messages.append(message)

    def take(self) -> list[Any]:
        """Return what was told since the last call."""
        taken = list(self.messages)
        self.messages.clear()
        return taken

    def of(self, kind: type[K]) -> list[K]:
        """Return the messages of one kind, oldest first."""
        return [message for message in self.messages if type(message) is kind]

    def last(self, kind: type[K]) -> K:
        """Return the newest message of one kind."""
        return self.of(kind)[-1]


class FakeContext:
    """Who called."""

    method = "/etcdserverpb.KV/Put"
    metadata: Mapping[str, Sequence[str]] = {}
    peer = "192.0.2.1:1234"
    common_name: str | None = None
    deadline_s: float | None = None


class FakeCall(FakeContext):
    """A unary call: keeps its one answer, and counts further ones as the faults they are."""

    def __init__(self) -> None:
        self.answer: bytes | None = None
        self.status: Status | None = None
        self.ends = 0
        self.abandoned: Callable[[], None] | None = None

    @property
    def done(self) -> bool:
        """See Call."""
        return self.ends > 0

    def reply(self, message: bytes) -> None:
        """See Call."""
        self.ends += 1
        if self.ends == 1:
            self.answer, self.status = message, OK

    def fail(self, status: Status) -> None:
        """See Call."""
        assert status.code, "OK is no failure"
        self.ends += 1
        if self.ends == 1:
            self.status = status

    def when_abandoned(self, then: Callable[[], None]) -> None:
        """See Call."""
        self.abandoned = then

    def leave(self) -> None:
        """Let the client give up."""
        self.ends += 1
        if self.abandoned is not None:
            self.abandoned()


class FakeStream(FakeContext):
    """The server's half of a stream: keeps what was sent and how it ended."""

    def __init__(self) -> None:
        self.sent: list[bytes] = []
        self.unsent_bytes = 0
        self.status: Status | None = None
        self.reading = True

    def send(self, message: bytes) -> None:
        """See Stream."""
        if self.status is None:
            self.sent.append(message)

    def finish(self, status: Status = OK) -> None:
        """See Stream."""
        if self.status is None:
            self.status = status

    def pause_reading(self) -> None:
        """See Stream."""
        self.reading = False

    def resume_reading(self) -> None:
        """See Stream."""
        self.reading = True
