"""WebSockets: what an HTTP/1.1 connection speaks after it was upgraded.

FrameReader is pure: bytes in, messages out.  WebSocket carries them, answers pings, and closes.  Messages of both
kinds are handed on alike; ours are text.  Spec: RFC 6455, sections 4.2 to 7.
"""

from __future__ import annotations

import asyncio
import binascii
from base64 import b64decode, b64encode
from hashlib import sha1
from typing import TYPE_CHECKING, Final, NamedTuple

from net.transports import leave

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from net.commons import Commons

_GUID: Final = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
VERSION: Final = "13"

TEXT: Final = 0x1
BINARY: Final = 0x2
CLOSE: Final = 0x8
PING: Final = 0x9
PONG: Final = 0xA
_CONTINUATION: Final = 0x0
_KINDS: Final = frozenset((_CONTINUATION, TEXT, BINARY, CLOSE, PING, PONG))
_CONTROL_BYTES_MAX: Final = 125

NORMAL: Final = 1000
GOING_AWAY: Final = 1001
PROTOCOL_ERROR: Final = 1002
TOO_BIG: Final = 1009
"""Why a connection ends (on the wire: never renumber)."""


class SocketFault(Exception):  # noqa: N818 - named for what the peer did
    """The peer broke a rule; *code* is what it is told."""

    def __init__(self, code: int, reason: str) -> None:
        super().__init__(reason)
        self.code = code
        self.reason = reason


def wants_websocket(headers: Mapping[str, str]) -> bool:
    """Whether a request asks for an upgrade to WebSocket."""
    connection = [word.strip().lower() for word in headers.get("connection", "").split(",")]
    upgrade = [word.strip().lower() for word in headers.get("upgrade", "").split(",")]
    return "upgrade" in connection and "websocket" in upgrade


def accepted(key: str) -> str | None:
    """Return the answer to the *key* of a handshake; None if it is none."""
    try:
        if len(b64decode(key, validate=True)) != 16:
            return None
    except (binascii.Error, ValueError):
        return None
    return b64encode(sha1(key.encode() + _GUID, usedforsecurity=False).digest()).decode()


def frame(kind: int, payload: bytes) -> bytes:
    """Encode one whole message as the server sends it."""
    size = len(payload)
    if size < 126:
        head = bytes((0x80 | kind, size))
    elif size < 1 << 16:
        head = bytes((0x80 | kind, 126)) + size.to_bytes(2, "big")
    else:
        head = bytes((0x80 | kind, 127)) + size.to_bytes(8, "big")
    return head + payload


class Message(NamedTuple):
    """What has come: text, binary, or a control message."""

    kind: int
    payload: bytes


class FrameReader:
    """Cuts a client's frames and puts messages together."""

    def __init__(self, message_bytes_max: int) -> None:
        self._message_bytes_max = message_bytes_max
        self._buffer = bytearray()
        self._kind = _CONTINUATION
        """Of the message that has begun."""
        self._pieces = bytearray()

    def feed(self, data: bytes) -> Iterator[Message]:
        """Take bytes; return the messages that they complete.  Raises SocketFault."""
        self._buffer += data
        while (found := self._next_frame()) is not None:
            last, kind, payload = found
            if kind & 0x8:
                yield Message(kind, payload)
                continue
            if (kind == _CONTINUATION) != (self._kind != _CONTINUATION):
                raise SocketFault(PROTOCOL_ERROR, "a message within another, or the rest of none")
            self._kind = self._kind or kind
            self._pieces += payload
            if len(self._pieces) > self._message_bytes_max:
                raise SocketFault(TOO_BIG, "message too big")
            if last:
                yield Message(self._kind, bytes(self._pieces))
                self._kind = _CONTINUATION
                self._pieces.clear()

    def _next_frame(self) -> tuple[bool, int, bytes] | None:
        buffer = self._buffer
        if len(buffer) < 2:
            return None
        first, second = buffer[0], buffer[1]
        kind, size, at = first & 0x0F, second & 0x7F, 2
        if first & 0x70 or kind not in _KINDS or not second & 0x80:
            raise SocketFault(PROTOCOL_ERROR, "an unmasked or unknown frame")
        if kind & 0x8 and (size > _CONTROL_BYTES_MAX or not first & 0x80):
            raise SocketFault(PROTOCOL_ERROR, "a control frame in parts")
        if size > _CONTROL_BYTES_MAX:
            at += 2 if size == 126 else 8
            if len(buffer) < at:
                return None
            size = int.from_bytes(buffer[2:at], "big")
        if size > self._message_bytes_max:
            raise SocketFault(TOO_BIG, "message too big")
        end = at + 4 + size
        if len(buffer) < end:
            return None
        payload = unmasked(buffer[at + 4 : end], buffer[at : at + 4])
        del buffer[:end]
        return bool(first & 0x80), kind, payload


def unmasked(payload: bytes | bytearray, mask: bytes | bytearray) -> bytes:
    """Return *payload* as it was before it was masked."""
    size = len(payload)
    stream = (bytes(mask) * (size // 4 + 1))[:size]
    return (int.from_bytes(payload, "big") ^ int.from_bytes(stream, "big")).to_bytes(size, "big")


class WebSocket(asyncio.Protocol):
    """One upgraded connection.  *on_message* gets what comes, *on_closed* is called once, *on_drained* as it drains."""

    def __init__(
        self,
        commons: Commons,
        on_message: Callable[[bytes], None],
        on_drained: Callable[[], None],
        on_closed: Callable[[], None],
    ) -> None:
        self._commons = commons
        self._on_message = on_message
        self._on_drained = on_drained
        self._on_closed = on_closed
        self._reader = FrameReader(commons.limits.http_body_bytes_max)
        self._transport: asyncio.Transport | None = None
        self._over = False
        self._paused = False
        self._told = False

    # -- what the session does ---------------------------------------------------------------------------------------

    def send(self, text: bytes) -> None:
        """Send one message."""
        if not self._over and self._transport is not None:
            self._transport.write(frame(TEXT, text))

    @property
    def unsent_bytes(self) -> int:
        """Bytes that the client does not take: none until there are so many that their end will be told."""
        return self._transport.get_write_buffer_size() if self._paused and self._transport is not None else 0

    def finish(self, code: int = NORMAL, reason: str = "") -> None:
        """Close, behind all that was sent."""
        if self._over or self._transport is None:
            return
        self._over = True
        # The reason has to fit into a control frame.
        payload = code.to_bytes(2, "big") + reason.encode()[: _CONTROL_BYTES_MAX - 2]
        self._transport.write(frame(CLOSE, payload))
        leave(self._transport, self._commons.deadlines, self._commons.now)

    def pause_reading(self) -> None:
        """Take no more from the client for now."""
        if not self._over and self._transport is not None:
            self._transport.pause_reading()

    def resume_reading(self) -> None:
        """Undo pause_reading."""
        if not self._over and self._transport is not None:
            self._transport.resume_reading()

    # -- what the listener does --------------------------------------------------------------------------------------

    def flush(self) -> None:
        """Keep nothing back that could be flushed."""

    def drain(self) -> None:
        """Go on: the session ends when its stream does."""

    def close(self) -> None:
        """End it now."""
        self.finish(GOING_AWAY)

    def abort(self) -> None:
        """Cut it."""
        if self._transport is not None:
            self._transport.abort()

    # -- asyncio's calls ---------------------------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """See asyncio."""
        assert isinstance(transport, asyncio.Transport), transport
        self._transport = transport
        self._commons.joined(self)

    def data_received(self, data: bytes) -> None:
        """See asyncio."""
        if self._over:
            return
        read_s = self._commons.now()
        try:
            for message in self._reader.feed(data):
                if not self._told:
                    self._take(message)
        except SocketFault as fault:
            self.finish(fault.code, fault.reason)
            self._tell_closed()
        self._commons.delivered(read_s)

    def eof_received(self) -> bool:
        """See asyncio."""
        return False

    def pause_writing(self) -> None:
        """See asyncio."""
        self._paused = True

    def resume_writing(self) -> None:
        """See asyncio."""
        self._paused = False
        if not self._over:
            self._guarded(self._on_drained)

    def connection_lost(self, exc: Exception | None) -> None:
        """See asyncio."""
        del exc
        self._over = True
        self._tell_closed()
        self._commons.left(self)

    def _take(self, message: Message) -> None:
        if message.kind in {TEXT, BINARY}:
            self._guarded(lambda: self._on_message(message.payload))
        elif message.kind == PING:
            assert self._transport is not None, "not connected"
            self._transport.write(frame(PONG, message.payload))
        elif message.kind == CLOSE:
            self.finish(int.from_bytes(message.payload[:2], "big") or NORMAL)
            self._tell_closed()

    def _tell_closed(self) -> None:
        if not self._told:
            self._told = True
            self._guarded(self._on_closed)

    def _guarded(self, notice: Callable[[], None]) -> None:
        try:
            notice()
        except Exception as error:  # noqa: BLE001  # a bug of the service: the hook ends the process
            self._commons.fatal(error)
