"""gRPC's framing of messages: a flag, a length, the bytes; cut from DATA of any shape, decompressed, and limited.

Also the answers' side: header blocks and trailers, encoded once.  The texts are grpc-go's, whose clients print them.
Spec: gRPC over HTTP/2, PROTOCOL-HTTP2.md.
"""

from __future__ import annotations

import zlib
from functools import lru_cache
from struct import Struct
from typing import Final

from net.http2 import frames
from net.http2.headers import encode_literal
from net.rpc import OK, Code, Status, message_too_large

MESSAGE_PREFIX: Final = Struct(">BI")
"""Compressed flag and length, before every message."""

_GZIP_WINDOW: Final = 16 + zlib.MAX_WBITS

STATUS_MESSAGE_BYTES_MAX: Final = 4096
"""Encoded; longer texts are cut, since clients refuse trailers above some 8 KiB as a whole."""

_STATUS_200: Final = b"\x88"
"""`:status: 200` in HPACK's static table."""

RESPONSE_BLOCK: Final = _STATUS_200 + encode_literal(b"content-type", b"application/grpc")
TRAILERS_OK_BLOCK: Final = encode_literal(b"grpc-status", b"0")


class MessageFaultError(Exception):
    """The client's messages are not what they should be; the call ends with *status*."""

    def __init__(self, status: Status) -> None:
        super().__init__(status.message)
        self.status = status


class MessageReader:
    """Cuts one stream's bytes into messages."""

    def __init__(self, encoding: str, message_bytes_max: int) -> None:
        self._encoding = encoding
        self._message_bytes_max = message_bytes_max
        self._buffer = bytearray()
        self._position = 0

    @property
    def held_bytes(self) -> int:
        """What has been fed and not yet been read."""
        return len(self._buffer) - self._position

    def feed(self, payload: bytes) -> None:
        """Add bytes."""
        if self._position:
            del self._buffer[: self._position]
            self._position = 0
        self._buffer += payload

    def read(self) -> bytes | None:
        """Return the next whole message, or None.  Raises MessageFaultError."""
        start = self._position + MESSAGE_PREFIX.size
        if len(self._buffer) < start:
            return None
        flag, size = MESSAGE_PREFIX.unpack_from(self._buffer, self._position)
        if size > self._message_bytes_max:
            raise MessageFaultError(message_too_large(size, self._message_bytes_max))
        if len(self._buffer) < start + size:
            return None
        message = bytes(self._buffer[start : start + size])
        self._position = start + size
        if flag == 0:
            return message
        if flag != 1:
            raise _internal(f"grpc: received unexpected payload format {flag}")
        return self._decompress(message)

    def discard(self) -> None:
        """Forget what is held."""
        self._buffer.clear()
        self._position = 0

    def _decompress(self, message: bytes) -> bytes:
        if self._encoding in {"", "identity"}:
            raise _internal("grpc: compressed flag set with identity or empty encoding")
        inflater = zlib.decompressobj(_GZIP_WINDOW)
        try:
            plain = inflater.decompress(message, self._message_bytes_max + 1)
        except zlib.error as error:
            raise _internal(f"grpc: failed to read decompressed data: {error}") from error
        if len(plain) > self._message_bytes_max:
            text = f"grpc: received message after decompression larger than max {self._message_bytes_max}"
            raise MessageFaultError(Status(Code.RESOURCE_EXHAUSTED, text))
        if not inflater.eof:
            raise _internal("grpc: failed to read decompressed data: unexpected EOF")
        return plain


def _internal(text: str) -> MessageFaultError:
    return MessageFaultError(Status(Code.INTERNAL, text))


def check_encoding(encoding: str) -> Status | None:
    """Return the status that refuses a call whose `grpc-encoding` is unknown here."""
    if encoding in {"", "identity", "gzip"}:
        return None
    text = f'grpc: Decompressor is not installed for grpc-encoding "{encoding}"'
    return Status(Code.UNIMPLEMENTED, text)


def prefixed(message: bytes) -> bytes:
    """Return *message* with its gRPC prefix, uncompressed."""
    return MESSAGE_PREFIX.pack(0, len(message)) + message


@lru_cache(maxsize=256)
def trailers_block(status: Status) -> bytes:
    """Encode the trailers that carry *status*."""
    if status == OK:
        return TRAILERS_OK_BLOCK
    return encode_literal(b"grpc-status", b"%d" % status.code) + encode_literal(
        b"grpc-message", percent_encode(status.message)
    )


def trailers_frame(stream_id: int, status: Status, *, alone: bool, http_status: int = 200) -> bytes:
    """Encode the HEADERS frame that ends a call; *alone*, it carries the response headers as well."""
    block = trailers_block(status)
    if alone:
        if http_status == 200:
            block = RESPONSE_BLOCK + block
        else:
            content_type = encode_literal(b"content-type", b"application/grpc")
            block = encode_literal(b":status", b"%d" % http_status) + content_type + block
    return frames.frame(frames.HEADERS, frames.END_HEADERS | frames.END_STREAM, stream_id, block)


def percent_encode(text: str) -> bytes:
    """Encode a status message as `grpc-message` wants it: UTF-8, all but printable ASCII as %XX."""
    encoded = bytearray()
    for byte in text.encode("utf-8", "replace"):
        piece = b"%c" % byte if 0x20 <= byte <= 0x7E and byte != 0x25 else b"%%%02X" % byte
        if len(encoded) + len(piece) > STATUS_MESSAGE_BYTES_MAX:
            break
        encoded += piece
    return bytes(encoded)
