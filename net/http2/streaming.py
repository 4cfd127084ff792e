"""Streaming gRPC calls on HTTP/2 streams: the native engine's Stream.

Messages go to the service one by one and in order; what the service sends leaves at the end of the turn, or waits in
the stream for the client's windows.  The service is told of drained queues and of the end from outside its own calls.
"""

from __future__ import annotations

from struct import Struct
from typing import TYPE_CHECKING, Final, ParamSpec

from net.http2.grpc import TORN_MESSAGE, GrpcCall
from net.http2.life import CANCELED
from net.http2.messages import MessageFaultError, prefixed
from net.rpc import OK, Status

if TYPE_CHECKING:
    from collections.abc import Callable

    from net.rpc import StreamHandler

P = ParamSpec("P")

_MESSAGE: Final = Struct(">IBIBI")
"""The header of a DATA frame and the prefix of the message in it."""

_pack_message: Final = _MESSAGE.pack


class StreamCall(GrpcCall):
    """A streaming call in flight; *handler* is set right after the service has opened it."""

    handler: StreamHandler
    paused = False
    half_closed = False
    told = False
    """Whether the service has been told of the end."""
    final = CANCELED

    def open(self) -> None:
        """Let the service open its half."""
        open_handler = self.request.stream
        assert open_handler is not None, self.request.path
        try:
            self.handler = open_handler(self)
        except Exception as error:  # noqa: BLE001  # a bug of the service, reported by raised
            self.told = True
            self.raised(error)

    def send(self, message: bytes) -> None:
        """Queue *message*; never blocks."""
        if self.done:
            return
        if not self.headers_sent:
            self.send_headers()
        tally = self.request.tally
        tally.sent += 1
        tally.sent_bytes += len(message)
        connection = self.connection
        size = len(message) + 5
        if (
            self.queue
            or size > connection.small_bytes_max
            or size > connection.send_window
            or size > connection.initial_window + self.window_delta
        ):
            self.send_data(prefixed(message))
            return
        connection.send_window -= size
        self.window_delta -= size
        connection.strikes_pardoned = True
        connection.out += (_pack_message(size << 8, 0, self.stream_id, 0, size - 5), message)
        if not connection.holding:
            connection.hold()

    def finish(self, status: Status = OK) -> None:
        """Send what is queued, then end the stream with *status*."""
        if not self.done:
            self.final = status
            self.conclude(status)

    def abort(self, status: Status) -> None:
        """End the call with *status*, ahead of anything that still waits to be sent."""
        if not self.done:
            self.final = status
        super().abort(status)

    def pause_reading(self) -> None:
        """Deliver no further message until resume_reading."""
        self.paused = True

    def resume_reading(self) -> None:
        """Undo pause_reading; what was held back is delivered at the end of this turn, not from in here."""
        if self.paused:
            self.paused = False
            self.connection.commons.soon(self._deliver)

    def receive(self, payload: bytes, ended: bool) -> None:
        """Take bytes and deliver the messages that they complete, in order."""
        if self.done:
            return
        self.reader.feed(payload)
        self.half_closed = ended
        self._deliver()

    def drained(self) -> None:
        """Tell the service that its queue is empty."""
        if self.tail is not None:
            self.send_tail()
        else:
            self._tell(self.handler.on_drained)

    def send_tail(self) -> None:
        """Send the last frame and tell the service."""
        super().send_tail()
        self._tell_closed(self.final)

    def lost(self, status: Status) -> None:
        """Take note that the client has gone."""
        super().lost(status)
        self._tell_closed(status)

    def _deliver(self) -> None:
        reader = self.reader
        while not self.paused and not self.done:
            try:
                message = reader.read()
            except MessageFaultError as fault:
                self.abort(fault.status)
                return
            if message is None:
                if not self.half_closed:
                    break
                self.half_closed = False
                if reader.held_bytes:
                    self.abort(TORN_MESSAGE)
                else:
                    self._tell(self.handler.on_half_close)
                break
            self.request.tally.received += 1
            self.request.tally.received_bytes += len(message)
            self._tell(self.handler.on_message, message)
        self.count_buffered(0 if self.done else reader.held_bytes)
        if not self.paused:
            self.grant()

    def _tell(self, notice: Callable[P, None], *args: P.args, **kwargs: P.kwargs) -> None:
        try:
            notice(*args, **kwargs)
        except Exception as error:  # noqa: BLE001  # a bug of the service, reported by raised
            self.raised(error)

    def _tell_closed(self, status: Status) -> None:
        # Not from in here: the service may be in the middle of its own call of finish.
        if not self.told:
            self.told = True
            self.connection.commons.soon(lambda: self._tell(self.handler.on_closed, status))
