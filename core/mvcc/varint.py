"""Protobuf's base-128 numbers, written and read by hand because every put and every answer is made of them."""

from __future__ import annotations

_TWO_BYTES_MAX = 1 << 14
_UINT64_MASK = 0xFFFFFFFFFFFFFFFF
_SIGN_BIT = 1 << 63


def _encode(number: int) -> bytes:
    encoded = bytearray()
    while number > 0x7F:
        encoded.append(number & 0x7F | 0x80)
        number >>= 7
    encoded.append(number)
    return bytes(encoded)


_SMALL = tuple(_encode(number) for number in range(_TWO_BYTES_MAX))
"""Lengths and versions are nearly always among these: looking up takes a tenth of making."""


def varint(number: int) -> bytes:
    """Return an unsigned or, as int64 fields have it, a negative *number* encoded."""
    if 0 <= number < _TWO_BYTES_MAX:
        return _SMALL[number]
    return _encode(number & _UINT64_MASK)


def read_varint(data: bytes, at: int) -> tuple[int, int]:
    """Return the unsigned number at *at* and the position behind it.  IndexError where the data ends too early."""
    byte = data[at]
    at += 1
    if byte < 0x80:
        return byte, at
    number = byte & 0x7F
    shift = 7
    while True:
        byte = data[at]
        at += 1
        number |= (byte & 0x7F) << shift
        if byte < 0x80:
            return number, at
        shift += 7


def signed(number: int) -> int:
    """Return what an int64 field means by the unsigned *number* read."""
    return number - (1 << 64) if number >= _SIGN_BIT else number


def field(tag: bytes, content: bytes) -> bytes:
    """Return a length-delimited field: *tag* is the encoded field number and wire type."""
    return b"%b%b%b" % (tag, varint(len(content)), content)
