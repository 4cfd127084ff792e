"""Puts in the form that nearly all have, key, value and perhaps a lease, read without protobuf.

Every put is read twice, where it comes in and where it is applied, and protobuf's objects cost more than all that is
done with them.  Whatever is the least out of the ordinary is None here, and protobuf's to judge; what is not None is
what protobuf would say (tests/properties/test_plain_put.py).
"""

from __future__ import annotations

from typing import Final

from core.mvcc.varint import read_varint, signed
from core.types import RequestId

_PUT_TAG: Final = 0x22
_HEADER_TAG: Final = b"\xa2\x06"
"""Fields of InternalRaftRequest."""
_ID_TAG: Final = 0x08
"""The first field of RequestHeader."""
_CONTINUED: Final = 0x8080_8080_8080_8080
"""What is set in eight bytes of a number that goes on behind them."""
_KEY_TAG: Final = 0x0A
_VALUE_TAG: Final = 0x12
_LEASE_TAG: Final = 0x18
_UINT64_END: Final = 1 << 64
_VARINT_BYTES_MAX: Final = 10
_SIZE_BYTES_MAX: Final = 3
"""A size that takes more is larger than requests may be, or spelled strangely."""

PlainPut = tuple[bytes, bytes, int]
"""Key, which is not empty, value and lease."""


def plain_put(data: bytes, at: int, end: int) -> PlainPut | None:
    """Return the PutRequest that is *data* from *at* to *end*, if it is a plain one."""
    try:
        return _put(data, at, end)
    except IndexError:
        return None


def plain_put_entry(data: bytes) -> tuple[PlainPut, RequestId] | None:
    """Return the put that an entry's *data* holds and the id of its request, if both are plain: nobody is named."""
    try:
        if data[0] != _PUT_TAG:
            return None
        size, at = read_varint(data, 1)
        end = at + size
        if at > 1 + _SIZE_BYTES_MAX or data[end : end + 2] != _HEADER_TAG or data[end + 3] != _ID_TAG:
            return None
        start = end + 4
        count = data[end + 2] - 1
        if start + count != len(data):
            return None
        number = _long_varint(data, start, count)
        put = _put(data, at, end) if number else None
    except IndexError:
        return None
    return None if put is None else (put, RequestId(number))


def _long_varint(data: bytes, at: int, count: int) -> int:
    """Return the number whose *count* bytes begin at *at*, as ids have nine or ten; 0 for any other.

    Bytes are put together two by two, then four by four and so on: going through them one by one takes thrice as long.
    """
    digits = int.from_bytes(data[at : at + 8], "little")
    if digits & _CONTINUED != _CONTINUED:
        return 0
    digits = digits & 0x007F_007F_007F_007F | digits >> 1 & 0x3F80_3F80_3F80_3F80
    digits = digits & 0x0000_3FFF_0000_3FFF | digits >> 2 & 0x0FFF_C000_0FFF_C000
    digits = digits & 0x0000_0000_0FFF_FFFF | digits >> 4 & 0x00FF_FFFF_F000_0000
    ninth = data[at + 8]
    if count == 9:
        return digits | ninth << 56 if ninth < 0x80 else 0
    return digits | (ninth & 0x7F) << 56 | 1 << 63 if count == 10 and ninth >= 0x80 and data[at + 9] == 1 else 0


def _put(data: bytes, at: int, end: int) -> PlainPut | None:
    if data[at] != _KEY_TAG:
        return None
    size = data[at + 1]
    start = at + 1
    at += 2
    if size >= 0x80:
        size, at = read_varint(data, start)
    stop = at + size
    if not size or stop > end or at > start + _SIZE_BYTES_MAX:
        return None
    key = data[at:stop]
    if stop == end:
        return key, b"", 0
    at = stop
    value = b""
    if data[at] == _VALUE_TAG:
        start = at + 1
        size, at = read_varint(data, start)
        stop = at + size
        if stop > end or at > start + _SIZE_BYTES_MAX:
            return None
        value = data[at:stop]
        if stop == end:
            return key, value, 0
        at = stop
    if data[at] != _LEASE_TAG:
        return None
    lease, stop = read_varint(data, at + 1)
    if stop != end or stop - at > 1 + _VARINT_BYTES_MAX or lease >= _UINT64_END:
        return None
    return key, value, signed(lease)
