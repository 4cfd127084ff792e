"""The frame layer of HTTP/2 (RFC 9113, sections 4, 6 and 7).

Owns the numbers of the protocol, the two ways it can fail, and the encoding of whole frames.  Knows nothing of streams
or of what a frame means to them.  All numbers are on the wire: never renumber.
"""

from __future__ import annotations

from enum import IntEnum
from struct import Struct
from typing import Final

PREFACE: Final = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"

DATA: Final = 0
HEADERS: Final = 1
PRIORITY: Final = 2
RST_STREAM: Final = 3
SETTINGS: Final = 4
PUSH_PROMISE: Final = 5
PING: Final = 6
GOAWAY: Final = 7
WINDOW_UPDATE: Final = 8
CONTINUATION: Final = 9

ACK: Final = 0x1
END_STREAM: Final = 0x1
END_HEADERS: Final = 0x4
PADDED: Final = 0x8
PRIORITIZED: Final = 0x20

HEADER_BYTES: Final = 9
PAYLOAD_BYTES_DEFAULT: Final = 16_384
WINDOW_BYTES_DEFAULT: Final = 65_535
WINDOW_BYTES_MAX: Final = 0x7FFFFFFF
STREAM_ID_MAX: Final = 0x7FFFFFFF

SETTINGS_HEADER_TABLE_SIZE: Final = 1
SETTINGS_ENABLE_PUSH: Final = 2
SETTINGS_MAX_CONCURRENT_STREAMS: Final = 3
SETTINGS_INITIAL_WINDOW_SIZE: Final = 4
SETTINGS_MAX_FRAME_SIZE: Final = 5
SETTINGS_MAX_HEADER_LIST_SIZE: Final = 6


class ErrorCode(IntEnum):
    """Why a stream or a connection ended (RFC 9113, section 7)."""

    NO_ERROR = 0
    PROTOCOL_ERROR = 1
    INTERNAL_ERROR = 2
    FLOW_CONTROL_ERROR = 3
    SETTINGS_TIMEOUT = 4
    STREAM_CLOSED = 5
    FRAME_SIZE_ERROR = 6
    REFUSED_STREAM = 7
    CANCEL = 8
    COMPRESSION_ERROR = 9
    CONNECT_ERROR = 10
    ENHANCE_YOUR_CALM = 11
    INADEQUATE_SECURITY = 12
    HTTP_1_1_REQUIRED = 13


class ConnectionFaultError(Exception):
    """The peer broke a rule that the whole connection depends on; it ends with a GOAWAY."""

    def __init__(self, code: ErrorCode, reason: str) -> None:
        super().__init__(reason)
        self.code = code
        self.reason = reason


class StreamFaultError(Exception):
    """The peer broke a rule of one stream; it ends with an RST_STREAM."""

    def __init__(self, code: ErrorCode, reason: str) -> None:
        super().__init__(reason)
        self.code = code
        self.reason = reason


FRAME_HEADER: Final = Struct(">IBI")
"""Length (24 bits) and type (8 bits) as one number, flags, stream id: the first nine bytes of every frame."""

_SETTING: Final = Struct(">HI")
_UINT32: Final = Struct(">I")
_GOAWAY: Final = Struct(">IBIII")
_RESET: Final = Struct(">IBII")


def frame(kind: int, flags: int, stream_id: int, payload: bytes) -> bytes:
    """Encode one frame."""
    return FRAME_HEADER.pack(len(payload) << 8 | kind, flags, stream_id) + payload


def header_frames(flags: int, stream_id: int, block: bytes) -> bytes:
    """Encode a header block of any size: HEADERS, and CONTINUATION as far as one frame is too small."""
    first, rest = block[:PAYLOAD_BYTES_DEFAULT], block[PAYLOAD_BYTES_DEFAULT:]
    encoded = frame(HEADERS, flags | (0 if rest else END_HEADERS), stream_id, first)
    while rest:
        piece, rest = rest[:PAYLOAD_BYTES_DEFAULT], rest[PAYLOAD_BYTES_DEFAULT:]
        encoded += frame(CONTINUATION, 0 if rest else END_HEADERS, stream_id, piece)
    return encoded


def settings_frame(settings: dict[int, int]) -> bytes:
    """Encode a SETTINGS frame, values by identifier."""
    return frame(SETTINGS, 0, 0, b"".join(_SETTING.pack(name, value) for name, value in settings.items()))


def reset_frame(stream_id: int, code: int) -> bytes:
    """Encode an RST_STREAM frame."""
    return _RESET.pack(4 << 8 | RST_STREAM, 0, stream_id, code)


def window_update_frame(stream_id: int, increment: int) -> bytes:
    """Encode a WINDOW_UPDATE frame; stream 0 is the connection."""
    return _RESET.pack(4 << 8 | WINDOW_UPDATE, 0, stream_id, increment)


def goaway_frame(last_stream_id: int, code: int, reason: str) -> bytes:
    """Encode a GOAWAY frame with *reason* as its debug data."""
    text = reason.encode()
    return _GOAWAY.pack((8 + len(text)) << 8 | GOAWAY, 0, 0, last_stream_id, code) + text


SETTINGS_ACK: Final = frame(SETTINGS, ACK, 0, b"")


def parse_uint31(payload: bytes) -> int:
    """Decode four bytes whose highest bit is reserved (and ignored)."""
    return int(_UINT32.unpack(payload)[0]) & 0x7FFFFFFF


def parse_settings(payload: bytes) -> list[tuple[int, int]]:
    """Decode a SETTINGS payload, in order; unknown identifiers are kept for the caller to ignore.

    Raises ConnectionFaultError for a bad length and for values that RFC 9113, section 6.5.2 forbids.
    """
    if len(payload) % _SETTING.size:
        raise ConnectionFaultError(ErrorCode.FRAME_SIZE_ERROR, "SETTINGS of a wrong length")
    settings = list(_SETTING.iter_unpack(payload))
    for name, value in settings:
        if name == SETTINGS_ENABLE_PUSH and value > 1:
            raise ConnectionFaultError(ErrorCode.PROTOCOL_ERROR, "ENABLE_PUSH neither 0 nor 1")
        if name == SETTINGS_INITIAL_WINDOW_SIZE and value > WINDOW_BYTES_MAX:
            raise ConnectionFaultError(ErrorCode.FLOW_CONTROL_ERROR, "INITIAL_WINDOW_SIZE too large")
        if name == SETTINGS_MAX_FRAME_SIZE and not PAYLOAD_BYTES_DEFAULT <= value <= 0xFFFFFF:
            raise ConnectionFaultError(ErrorCode.PROTOCOL_ERROR, "MAX_FRAME_SIZE out of bounds")
    return settings


def unpad(payload: bytes, flags: int) -> bytes:
    """Cut padding (and the priority fields of HEADERS) off a payload, as its flags say.

    Raises ConnectionFaultError where the padding does not fit.
    """
    start = 0
    end = len(payload)
    if flags & PADDED:
        if not payload:
            raise ConnectionFaultError(ErrorCode.FRAME_SIZE_ERROR, "no room for the padding length")
        start = 1
        end -= payload[0]
    if flags & PRIORITIZED:
        start += 5
    if start > end:
        raise ConnectionFaultError(ErrorCode.PROTOCOL_ERROR, "more padding than payload")
    return payload[start:end]
