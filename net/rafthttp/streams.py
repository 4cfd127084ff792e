"""The two halves of a stream between members, on connections of their own.

Who receives has dialled: an IncomingStream sends the request and takes messages from the answer's body.  Who sends has
taken the connection over from its listener: an OutgoingStream writes the answer's head and then a chunk a batch.  Both
belong to one event loop; deadlines are kept by whoever owns them.
"""

from __future__ import annotations

import asyncio
from http import HTTPStatus
from typing import TYPE_CHECKING, Final

from net.rafthttp.body import BodyFault, chunk
from net.rafthttp.response import ResponseReader

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from core.raft.messages import Message
    from net.rafthttp.frames import FrameDecoder, FrameEncoder

UNSENT_BYTES_MAX: Final = 64 << 20
"""More than this in front of a socket means that the peer does not read: what comes on top is dropped."""

REFUSAL_BYTES_MAX: Final = 4096
"""Of the text that comes with a refusal."""


class IncomingStream(asyncio.Protocol):
    """Receives the messages of one peer."""

    def __init__(
        self, request: bytes, decoder: FrameDecoder, receive: Callable[[Sequence[Message]], None], now_s: float
    ) -> None:
        """*receive* gets the messages of each read, on the loop's thread."""
        self.opened = asyncio.Event()
        """Set when the peer has answered, or the connection is over."""
        self.closed = asyncio.Event()
        self.fault = ""
        """Why it is closed."""
        self.heard_s = now_s
        """When something came last, on the loop's clock."""
        self.received_bytes = 0
        self._request = request
        self._decoder = decoder
        self._receive = receive
        self._reader = ResponseReader()
        self._refusal = b""
        self._transport: asyncio.Transport | None = None
        self._loop = asyncio.get_running_loop()

    @property
    def status(self) -> int:
        """The answer's status; 0 while there is none."""
        return self._reader.status

    @property
    def headers(self) -> dict[str, str]:
        """The answer's headers."""
        return self._reader.headers

    @property
    def refusal(self) -> str:
        """The text of an answer that is no stream."""
        return self._refusal.decode(errors="replace").strip()

    def close(self, fault: str) -> None:
        """Cut the connection."""
        self.fault = self.fault or fault
        if self._transport is not None:
            self._transport.abort()

    def pause(self) -> None:
        """Read no more for now."""
        if self._transport is not None and not self._transport.is_closing():
            self._transport.pause_reading()

    def resume(self) -> None:
        """Read on."""
        if self._transport is not None and not self._transport.is_closing():
            self._transport.resume_reading()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """See asyncio."""
        assert isinstance(transport, asyncio.Transport), transport
        self._transport = transport
        transport.write(self._request)

    def data_received(self, data: bytes) -> None:
        """See asyncio."""
        self.heard_s = self._loop.time()
        self.received_bytes += len(data)
        try:
            body = self._reader.feed(data)
            if not self._reader.status:
                return
            if self._reader.status == HTTPStatus.OK:
                self.opened.set()
                messages = self._decoder.feed(body) if body else []
            else:
                self._refusal = (self._refusal + body)[:REFUSAL_BYTES_MAX]
                messages = []
        except (BodyFault, ValueError) as error:
            self.close(str(error))
            return
        if messages:
            self._receive(messages)
        if self._reader.done:
            self.close("the peer ended the stream")

    def eof_received(self) -> bool:
        """See asyncio."""
        return False

    def connection_lost(self, exc: Exception | None) -> None:
        """See asyncio."""
        self.fault = self.fault or str(exc or "the peer closed the connection")
        self.opened.set()
        self.closed.set()


class OutgoingStream(asyncio.Protocol):
    """Sends messages to one peer."""

    def __init__(
        self, headers: Sequence[tuple[str, str]], encoder: FrameEncoder, on_lost: Callable[[OutgoingStream], None]
    ) -> None:
        self.sent_bytes = 0
        self._headers = headers
        self._encoder = encoder
        self._on_lost = on_lost
        self._transport: asyncio.Transport | None = None
        self._stalled_since_s: float | None = None
        self._loop = asyncio.get_running_loop()

    def send(self, messages: Sequence[Message]) -> bool:
        """Write *messages* now; False if they were dropped, since the peer does not read or is gone."""
        transport = self._transport
        if (
            transport is None
            or transport.is_closing()
            or (self._stalled_since_s is not None and transport.get_write_buffer_size() > UNSENT_BYTES_MAX)
        ):
            return False
        encode = self._encoder.encode
        self._write(b"".join([encode(message) for message in messages]))
        return True

    def beat(self, timeout_s: float) -> None:
        """Say that the link lives; cut it if the peer has taken nothing for *timeout_s*."""
        transport = self._transport
        if transport is None or transport.is_closing():
            return
        if self._stalled_since_s is not None and self._loop.time() - self._stalled_since_s > timeout_s:
            transport.abort()
        elif self._stalled_since_s is None:
            self._write(self._encoder.heartbeat())

    def close(self) -> None:
        """Cut the connection."""
        if self._transport is not None:
            self._transport.abort()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """See asyncio."""
        assert isinstance(transport, asyncio.Transport), transport
        self._transport = transport
        lines = ["HTTP/1.1 200 OK", *(f"{name}: {value}" for name, value in self._headers)]
        lines += ["Transfer-Encoding: chunked", "", ""]
        transport.write("\r\n".join(lines).encode())

    def data_received(self, data: bytes) -> None:
        """See asyncio; a peer that goes on talking is not one."""
        if data:
            self.close()

    def eof_received(self) -> bool:
        """See asyncio."""
        return False

    def connection_lost(self, exc: Exception | None) -> None:
        """See asyncio."""
        del exc
        self._on_lost(self)

    def pause_writing(self) -> None:
        """See asyncio."""
        self._stalled_since_s = self._loop.time()

    def resume_writing(self) -> None:
        """See asyncio."""
        self._stalled_since_s = None

    def _write(self, data: bytes) -> None:
        assert self._transport is not None, "not connected"
        self.sent_bytes += len(data)
        self._transport.write(chunk(data))
