"""Protobuf's base-128 numbers, written and read by hand because every put and every answer is made of them."""

from __future__ import annotations

from typing import Final

_TWO_BYTES_END: Final = 1 << 14
_UINT64_MASK: Final = 0xFFFFFFFFFFFFFFFF
_SIGN_BIT: Final = 1 << 63


INNER: Final = tuple(bytes((number & 0x7F | 0x80, number >> 7 | 0x80)) for number in range(_TWO_BYTES_END))
"""14 bits as two bytes that others follow."""
_SMALL: Final = tuple(
    bytes((number,)) if number < 0x80 else bytes((number & 0x7F | 0x80, number >> 7))
    for number in range(_TWO_BYTES_END)
)
"""14 bits as the last, or only, bytes of a number.  Looking up takes a tenth of making."""


def varint(number: int) -> bytes:
    """Return an unsigned or, as int64 fields have it, a negative *number* encoded."""
    if 0 <= number < _TWO_BYTES_END:
        return _SMALL[number]
    number &= _UINT64_MASK
    digits = INNER[number & 0x3FFF]
    number >>= 14
    while number >= _TWO_BYTES_END:
        digits += INNER[number & 0x3FFF]
        number >>= 14
    return digits + _SMALL[number]


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
    size = len(content)
    return b"%b%b%b" % (tag, _SMALL[size] if size < _TWO_BYTES_END else varint(size), content)
