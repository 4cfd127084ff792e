"""Requests in the form that nearly all have, read without protobuf.

A plain put has a key, a value and perhaps a lease; a plain transaction compares single keys, puts one and gets others.
Each is read twice, where it comes in and where it is applied, and protobuf's objects cost more than all that is done
with them.  Whatever is the least out of the ordinary is None here, and protobuf's to judge; what is not None is what
protobuf would say (tests/properties/test_plain.py).
"""

from __future__ import annotations

from typing import Final, NamedTuple

from core.mvcc.varint import read_varint, signed
from core.types import RequestId

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


def plain_put(data: bytes, at: int, end: int) -> PlainPut | None:
    """Return the PutRequest that is *data* from *at* to *end*, if it is a plain one."""
    try:
        return _put(data, at, end)
    except IndexError:
        return None


def plain_txn(data: bytes, at: int, end: int) -> PlainTxn | None:
    """Return the TxnRequest that is *data* from *at* to *end*, if it is a plain one."""
    try:
        return _txn(data, at, end)
    except IndexError:
        return None


def plain_entry(data: bytes) -> tuple[PlainPut | PlainTxn, RequestId] | None:
    """Return the request that an entry's *data* holds and its id, if both are plain: nobody is named."""
    try:
        tag = data[0]
        if tag != _PUT and tag != _TXN:  # noqa: PLR1714 - a put of every batch asks
            return None
        size, at = read_varint(data, 1)
        end = at + size
        if at > 1 + _SIZE_BYTES_MAX or data[end : end + 2] != _HEADER or data[end + 3] != _HEADER_ID:
            return None
        start = end + 4
        count = data[end + 2] - 1
        if start + count != len(data):
            return None
        number = _long_varint(data, start, count)
        if not number:
            return None
        request = _put(data, at, end) if tag == _PUT else _txn(data, at, end)
    except IndexError:
        return None
    return None if request is None else (request, RequestId(number))


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
    if data[at] != _KEY:
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
    if data[at] == _VALUE:
        start = at + 1
        size, at = read_varint(data, start)
        stop = at + size
        if stop > end or at > start + _SIZE_BYTES_MAX:
            return None
        value = data[at:stop]
        if stop == end:
            return key, value, 0
        at = stop
    if data[at] != _LEASE:
        return None
    lease, stop = read_varint(data, at + 1)
    if stop != end or stop - at > 1 + _VARINT_BYTES_MAX or lease >= _UINT64_END:
        return None
    return key, value, signed(lease)


def _txn(data: bytes, at: int, end: int) -> PlainTxn | None:
    compares: list[PlainCompare] = []
    success: list[PlainOp] = []
    failure: list[PlainOp] = []
    put_in_success = put_in_failure = False
    while at < end:
        tag = data[at]
        start = at + 1
        size, at = read_varint(data, start)
        stop = at + size
        if stop > end or at > start + _SIZE_BYTES_MAX:
            return None
        if tag == _COMPARE:
            compare = _compare(data, at, stop)
            if compare is None:
                return None
            compares.append(compare)
        else:
            op = _op(data, at, stop)
            if op is None:
                return None
            puts = type(op) is tuple
            if tag == _SUCCESS and not (puts and put_in_success):
                put_in_success = put_in_success or puts
                success.append(op)
            elif tag == _FAILURE and not (puts and put_in_failure):
                put_in_failure = put_in_failure or puts
                failure.append(op)
            else:
                return None
        at = stop
    return PlainTxn(compares, success, failure) if put_in_success or put_in_failure else None


def _op(data: bytes, at: int, end: int) -> PlainOp | None:
    if end - at < 2:
        return None
    tag = data[at]
    start = at + 1
    size, at = read_varint(data, start)
    if at + size != end or at > start + _SIZE_BYTES_MAX:
        return None
    if tag == _OP_PUT:
        return _put(data, at, end)
    if tag != _OP_RANGE or data[at] != _KEY:
        return None
    start = at + 1
    size, at = read_varint(data, start)
    return data[at:end] if size and at + size == end and at <= start + _SIZE_BYTES_MAX else None


def _compare(data: bytes, at: int, end: int) -> PlainCompare | None:
    result = target = 0
    if data[at] == _RESULT:
        result = data[at + 1]
        at += 2
    if data[at] == _TARGET:
        target = data[at + 1]
        at += 2
    if result >= _RESULTS_COUNT or target >= len(_OPERANDS) or data[at] != _COMPARED_KEY:
        return None
    start = at + 1
    size, at = read_varint(data, start)
    stop = at + size
    if not size or stop > end or at > start + _SIZE_BYTES_MAX:
        return None
    key = data[at:stop]
    if stop == end:
        return result, target, key, b"" if target == _OF_VALUE else 0
    at = stop
    if data[at] != _OPERANDS[target]:
        return None
    start = at + 1
    number, at = read_varint(data, start)
    if target == _OF_VALUE:
        return (result, target, key, data[at:end]) if at + number == end and at <= start + _SIZE_BYTES_MAX else None
    if at != end or at > start + _VARINT_BYTES_MAX or number >= _UINT64_END:
        return None
    return result, target, key, signed(number)
