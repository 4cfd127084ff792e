"""Requests in the form that nearly all have, read without protobuf.

A plain put has a key, a value and perhaps a lease; a plain transaction compares single keys, puts one and gets others.
Each is read twice, where it comes in and where it is applied, and protobuf's objects cost more than all that is done
with them.  Whatever is the least out of the ordinary is None here, and protobuf's to judge; what is not None is what
protobuf would say (tests/properties/test_plain.py).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, NamedTuple

from core.mvcc.varint import read_varint, signed
from core.types import RequestId

if TYPE_CHECKING:
    from collections.abc import Callable

# Fields of InternalRaftRequest.
_PUT: Final = 0x22
_TXN: Final = 0x32
_HEADER: Final = b"\xa2\x06"

_HEADER_ID: Final = 0x08
"""The first field of RequestHeader."""

# Fields of PutRequest; the first is RangeRequest's key, too.
_KEY: Final = 0x0A
_VALUE: Final = 0x12
_LEASE: Final = 0x18

# Fields of TxnRequest, and of RequestOp.
_COMPARE: Final = 0x0A
_SUCCESS: Final = 0x12
_FAILURE: Final = 0x1A
_OP_RANGE: Final = 0x0A
_OP_PUT: Final = 0x12

# Fields of Compare, and what it may hold by its target: version, create_revision, mod_revision, value, lease.
_RESULT: Final = 0x08
_TARGET: Final = 0x10
_COMPARED_KEY: Final = 0x1A
_OPERANDS: Final = b"\x20\x28\x30\x3a\x40"
_RESULTS_COUNT: Final = 4
_OF_VALUE: Final = 3

_CONTINUED: Final = 0x8080_8080_8080_8080
"""What is set in eight bytes of a number that goes on behind them."""
_UINT64_END: Final = 1 << 64
_VARINT_BYTES_MAX: Final = 10
_SIZE_BYTES_MAX: Final = 3
"""A size that takes more is larger than requests may be, or spelled strangely."""

PlainPut = tuple[bytes, bytes, int]
"""Key, which is not empty, value and lease."""

PlainCompare = tuple[int, int, bytes, int | bytes]
"""Result, target, the one key, and the number or value that it is compared with."""

PlainOp = PlainPut | bytes
"""A put, or the key whose live record is asked for."""


class PlainTxn(NamedTuple):
    """A transaction that writes, with at most one put in each branch: so no key can be written twice."""

    compares: list[PlainCompare]
    success: list[PlainOp]
    failure: list[PlainOp]

    @property
    def ops_count(self) -> int:
        """How many operations it has, as they are limited."""
        return max(len(self.compares), len(self.success), len(self.failure))


class _Unusual(Exception):  # noqa: N818 - no fault
    """Something is out of the ordinary."""


def plain_put(data: bytes, at: int, end: int) -> PlainPut | None:
    """Return the PutRequest that is *data* from *at* to *end*, if it is a plain one."""
    try:
        return _put(data, at, end)
    except (_Unusual, IndexError):
        return None


def plain_txn(data: bytes, at: int, end: int) -> PlainTxn | None:
    """Return the TxnRequest that is *data* from *at* to *end*, if it is a plain one."""
    try:
        return _txn(data, at, end)
    except (_Unusual, IndexError):
        return None


def plain_entry(data: bytes) -> tuple[PlainPut | PlainTxn, RequestId] | None:
    """Return the request that an entry's *data* holds and its id, if both are plain: nobody is named."""
    try:
        read = _READERS.get(data[0])
        if read is None:
            return None
        at, end = _sized(data, 1, len(data))
        count = data[end + 2] - 1
        start = end + 4
        if data[end : end + 2] != _HEADER or data[end + 3] != _HEADER_ID or start + count != len(data):
            return None
        return read(data, at, end), RequestId(_long_varint(data, start, count))
    except (_Unusual, IndexError):
        return None


def _sized(data: bytes, at: int, end: int) -> tuple[int, int]:
    """Return where that begins and ends whose size stands at *at*, all before *end*."""
    size = data[at]
    start = at + 1
    if size >= 0x80:
        size, start = read_varint(data, at)
    stop = start + size
    if stop > end or start > at + _SIZE_BYTES_MAX:
        raise _Unusual
    return start, stop


def _number(data: bytes, at: int, end: int) -> int:
    """Return the signed number that takes up all from *at* to *end*."""
    number, stop = read_varint(data, at)
    if stop != end or stop > at + _VARINT_BYTES_MAX or number >= _UINT64_END:
        raise _Unusual
    return signed(number)


def _long_varint(data: bytes, at: int, count: int) -> int:
    """Return the number whose *count* bytes begin at *at*, as ids have nine or ten.

    Bytes are put together two by two, then four by four and so on: going through them one by one takes thrice as long.
    """
    digits = int.from_bytes(data[at : at + 8], "little")
    if digits & _CONTINUED != _CONTINUED:
        raise _Unusual
    digits = digits & 0x007F_007F_007F_007F | digits >> 1 & 0x3F80_3F80_3F80_3F80
    digits = digits & 0x0000_3FFF_0000_3FFF | digits >> 2 & 0x0FFF_C000_0FFF_C000
    digits = digits & 0x0000_0000_0FFF_FFFF | digits >> 4 & 0x00FF_FFFF_F000_0000
    ninth = data[at + 8]
    if count == 9 and ninth < 0x80:
        return digits | ninth << 56
    if count == 10 and ninth >= 0x80 and data[at + 9] == 1:
        return digits | (ninth & 0x7F) << 56 | 1 << 63
    raise _Unusual


def _key(data: bytes, tag: int, at: int, end: int) -> tuple[bytes, int]:
    """Return the key in the field *tag* at *at*, which is not empty, and the position behind it."""
    if data[at] != tag:
        raise _Unusual
    start, stop = _sized(data, at + 1, end)
    if start == stop:
        raise _Unusual
    return data[start:stop], stop


def _put(data: bytes, at: int, end: int) -> PlainPut:
    key, at = _key(data, _KEY, at, end)
    value = b""
    if at < end and data[at] == _VALUE:
        start, at = _sized(data, at + 1, end)
        value = data[start:at]
    if at == end:
        return key, value, 0
    if data[at] != _LEASE:
        raise _Unusual
    return key, value, _number(data, at + 1, end)


def _txn(data: bytes, at: int, end: int) -> PlainTxn:
    compares: list[PlainCompare] = []
    success: list[PlainOp] = []
    failure: list[PlainOp] = []
    putting: tuple[int, ...] = ()  # the branches that put something
    while at < end:
        tag = data[at]
        start, at = _sized(data, at + 1, end)
        if tag == _COMPARE:
            compares.append(_compare(data, start, at))
            continue
        if tag not in {_SUCCESS, _FAILURE}:
            raise _Unusual
        op = _op(data, start, at)
        if type(op) is tuple:
            if tag in putting:
                raise _Unusual
            putting += (tag,)
        (success if tag == _SUCCESS else failure).append(op)
    if not putting:
        raise _Unusual
    return PlainTxn(compares, success, failure)


def _op(data: bytes, at: int, end: int) -> PlainOp:
    if at == end:
        raise _Unusual
    tag = data[at]
    start, stop = _sized(data, at + 1, end)
    if stop != end:
        raise _Unusual
    if tag == _OP_PUT:
        return _put(data, start, end)
    if tag != _OP_RANGE:
        raise _Unusual
    key, stop = _key(data, _KEY, start, end)
    if stop != end:
        raise _Unusual
    return key


def _compare(data: bytes, at: int, end: int) -> PlainCompare:
    result = target = 0
    if data[at] == _RESULT:
        result = data[at + 1]
        at += 2
    if data[at] == _TARGET:
        target = data[at + 1]
        at += 2
    if result >= _RESULTS_COUNT or target >= len(_OPERANDS):
        raise _Unusual
    key, at = _key(data, _COMPARED_KEY, at, end)
    if at == end:
        return result, target, key, b"" if target == _OF_VALUE else 0
    if data[at] != _OPERANDS[target]:
        raise _Unusual
    if target != _OF_VALUE:
        return result, target, key, _number(data, at + 1, end)
    start, stop = _sized(data, at + 1, end)
    if stop != end:
        raise _Unusual
    return result, target, key, data[start:end]


_READERS: Final[dict[int, Callable[[bytes, int, int], PlainPut | PlainTxn]]] = {_PUT: _put, _TXN: _txn}
