"""Receiving a snapshot: a connection taken over at the head of POST /raft/snapshot.

The body is a length, the raft message that the snapshot comes with, and then the snapshot's file to the end.  The file
goes piece by piece to a sink; when all is there, whoever asked gets the message and answers.
"""

from __future__ import annotations

import asyncio
from http import HTTPStatus
from typing import TYPE_CHECKING, Final, Protocol

from core.raft.messages import Message, MessageType
from net.rafthttp.body import BodyFault, BodyReader
from net.rafthttp.frames import MessageDecoder

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from net.http1_parser import Head

MESSAGE_BYTES_MAX: Final = 64 << 20
"""A longer message in front of the file is rubbish (etcd's bound)."""


class Sink(Protocol):
    """Where the file of one snapshot goes.  After *finish* or *discard* nothing follows."""

    def write(self, piece: bytes) -> None:
        """Take the next piece; OSError."""

    def finish(self) -> None:
        """Note that the file is complete."""

    def discard(self) -> None:
        """Remove what has come so far: the rest will not."""


class SnapshotUpload(asyncio.Protocol):
    """Receives one snapshot."""

    def __init__(
        self,
        head: Head,
        headers: Sequence[tuple[str, str]],
        open_sink: Callable[[Message], Sink],
        arrived: Callable[[Message, Sink, SnapshotUpload], None],
        timeout_s: float,
    ) -> None:
        """*open_sink* is asked once the message is there (OSError refuses it); *arrived* when the file is complete."""
        self._head = head
        self._headers = headers
        self._open_sink = open_sink
        self._arrived = arrived
        self._timeout_s = timeout_s
        self._body: BodyReader | None = None
        self._start = bytearray()
        self._message: Message | None = None
        self._sink: Sink | None = None
        self._over = False
        self._transport: asyncio.Transport | None = None
        self._loop = asyncio.get_running_loop()
        self._deadline: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """See asyncio."""
        assert isinstance(transport, asyncio.Transport), transport
        self._transport = transport
        self._wait()
        try:
            self._body = BodyReader(self._head.headers)
        except BodyFault as fault:
            self.answer(HTTPStatus.BAD_REQUEST, str(fault))

    def data_received(self, data: bytes) -> None:
        """See asyncio."""
        if self._over or self._body is None:
            return
        self._wait()
        try:
            self._take(self._body.feed(data))
            if self._body.done:
                self._complete()
        except (BodyFault, ValueError) as error:
            self.answer(HTTPStatus.BAD_REQUEST, str(error))
        except OSError as error:
            self.answer(HTTPStatus.INTERNAL_SERVER_ERROR, f"cannot store the snapshot: {error.strerror}")

    def eof_received(self) -> bool:
        """See asyncio."""
        return self._over

    def connection_lost(self, exc: Exception | None) -> None:
        """See asyncio."""
        del exc
        self._end()

    def answer(self, status: HTTPStatus, text: str) -> None:
        """End the exchange."""
        transport = self._transport
        if self._over and transport is None:
            return
        self._end()
        if transport is None or transport.is_closing():
            return
        lines = [f"HTTP/1.1 {status.value} {status.phrase}", *(f"{name}: {value}" for name, value in self._headers)]
        body = b"" if status is HTTPStatus.NO_CONTENT else text.encode() + b"\n"
        if body:
            lines.append(f"Content-Length: {len(body)}")
        transport.write("\r\n".join([*lines, "Connection: close", "", ""]).encode() + body)
        transport.close()

    def _take(self, piece: bytes) -> None:
        if self._sink is not None:
            if piece:
                self._sink.write(piece)
            return
        self._start += piece
        if len(self._start) < 8:
            return
        length = int.from_bytes(self._start[:8], "big")
        if length > MESSAGE_BYTES_MAX:
            raise ValueError(f"a message of {length} bytes in front of the snapshot")
        if len(self._start) < 8 + length:
            return
        messages = MessageDecoder(with_file=True).feed(bytes(self._start[: 8 + length]))
        if len(messages) != 1 or messages[0].type is not MessageType.SNAPSHOT or messages[0].snapshot is None:
            raise ValueError("wrong raft message type")
        self._message = messages[0]
        self._sink = self._open_sink(self._message)
        rest = bytes(self._start[8 + length :])
        self._start.clear()
        if rest:
            self._sink.write(rest)

    def _complete(self) -> None:
        if self._message is None or self._sink is None:
            raise ValueError("the body ended before the snapshot")
        sink, self._sink = self._sink, None
        sink.finish()
        self._over = True
        if self._deadline is not None:
            self._deadline.cancel()
        self._arrived(self._message, sink, self)

    def _wait(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
        self._deadline = self._loop.call_later(self._timeout_s, self._give_up)

    def _give_up(self) -> None:
        if self._transport is not None:
            self._transport.abort()

    def _end(self) -> None:
        self._over = True
        if self._deadline is not None:
            self._deadline.cancel()
        sink, self._sink = self._sink, None
        if sink is not None:
            sink.discard()
