"""The front's half of every client's stream: what comes goes to whoever carries it on, what goes out comes back."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, Protocol

from google.protobuf.message import DecodeError

from core.errors import EtcdError
from grpcproxy.messages import (
    ClientAsked,
    ClientBlocked,
    ClientClosed,
    ClientHalfClosed,
    ClientOpened,
    CloseStream,
    HalfClose,
    Hold,
    OpenStream,
    SendOn,
)
from grpcproxy.statuses import malformed
from services.errors import status_of, undecodable

if TYPE_CHECKING:
    from actors.address import Address
    from grpcproxy.messages import (
        ClientEvent,
        FrontMessage,
        Group,
        Metadata,
        StreamEvent,
        UpstreamMessage,
    )
    from grpcproxy.namespace import Passage
    from net.rpc import Status, Stream

UNSENT_BYTES_MAX: Final = 1 << 20
"""Of one stream, beyond which nothing more is fetched for it."""

ASKED_MAX: Final = 1000
"""Requests of a keep-alive stream that may wait for their answers."""


class Registered(Protocol):
    """Knows streams by number."""

    def forget(self, number: int) -> None:
        """Forget a stream that has ended."""


class SharedStream:
    """A stream whose messages are coalesced with others' (watch, keep-alive)."""

    def __init__(
        self,
        front: Address[FrontMessage],
        streams: Registered,
        number: int,
        stream: Stream,
        group: Group,
        carrier: Address[ClientEvent],
        asked_max: int | None,
    ) -> None:
        self._streams = streams
        self._number = number
        self._stream = stream
        self._carrier = carrier
        self._blocked = False
        self._asked = 0
        self._asked_max = asked_max
        self._paused = False
        carrier.tell(ClientOpened(number, group, front))

    def on_message(self, message: bytes) -> None:
        """See StreamHandler."""
        self._asked += 1
        self._carrier.tell(ClientAsked(self._number, message))
        self._read_or_wait()

    def on_half_close(self) -> None:
        """See StreamHandler."""
        self._carrier.tell(ClientHalfClosed(self._number))

    def on_drained(self) -> None:
        """See StreamHandler."""
        if self._blocked:
            self._blocked = False
            self._carrier.tell(ClientBlocked(self._number, blocked=False))
        self._read_or_wait()

    def on_closed(self, status: Status) -> None:  # noqa: ARG002 - however it ended
        """See StreamHandler."""
        self._streams.forget(self._number)
        self._carrier.tell(ClientClosed(self._number))

    def send(self, message: bytes) -> None:
        """Send *message* to the client."""
        self._asked -= 1
        self._stream.send(message)
        if not self._blocked and self._stream.unsent_bytes > UNSENT_BYTES_MAX:
            self._blocked = True
            self._carrier.tell(ClientBlocked(self._number, blocked=True))
        self._read_or_wait()

    def finish(self, status: Status) -> None:
        """End the stream."""
        self._stream.finish(status)

    def _read_or_wait(self) -> None:
        if self._asked_max is None:
            return
        full = self._asked >= self._asked_max or self._blocked
        if full and not self._paused:
            self._stream.pause_reading()
        elif self._paused and not full:
            self._stream.resume_reading()
        self._paused = full


class OwnStream:
    """A stream that has one of its own upstream."""

    def __init__(
        self,
        front: Address[StreamEvent],
        streams: Registered,
        number: int,
        stream: Stream,
        metadata: Metadata,
        timeout_s: float | None,
        upstream: Address[UpstreamMessage],
        passage: Passage | None,
    ) -> None:
        self._front = front
        self._streams = streams
        self._number = number
        self._stream = stream
        self._upstream = upstream
        self._passage = passage
        self._held = False
        upstream.tell(OpenStream(number, stream.method, metadata, timeout_s, front))

    def on_message(self, message: bytes) -> None:
        """See StreamHandler."""
        if self._passage is not None:
            try:
                request = self._passage.request.FromString(message)
                self._passage.enter(request)
            except DecodeError as error:
                self._stream.finish(undecodable(error))
                return
            except EtcdError as error:
                self._stream.finish(status_of(error))
                return
            message = request.SerializeToString()
        self._upstream.tell(SendOn(self._number, self._front, message))

    def on_half_close(self) -> None:
        """See StreamHandler."""
        self._upstream.tell(HalfClose(self._number, self._front))

    def on_drained(self) -> None:
        """See StreamHandler."""
        if self._held:
            self._held = False
            self._upstream.tell(Hold(self._number, self._front, hold=False))

    def on_closed(self, status: Status) -> None:  # noqa: ARG002 - however it ended
        """See StreamHandler."""
        self._streams.forget(self._number)
        self._upstream.tell(CloseStream(self._number, self._front))

    def send(self, message: bytes) -> None:
        """Send a member's message to the client."""
        if self._passage is not None:
            try:
                answer = self._passage.response.FromString(message)
            except DecodeError as error:
                self._stream.finish(malformed(error))
                return
            self._passage.leave(answer)
            message = answer.SerializeToString()
        self._stream.send(message)
        if not self._held and self._stream.unsent_bytes > UNSENT_BYTES_MAX:
            self._held = True
            self._upstream.tell(Hold(self._number, self._front, hold=True))

    def finish(self, status: Status) -> None:
        """End the stream."""
        self._stream.finish(status)
