"""What can be said about requests before anything is done: faults, in the order etcd finds them, and kinds.

Works on protobuf objects of the client API and knows no store.  Evaluation is in core/apply/evaluate.py.
"""

from __future__ import annotations

from bisect import bisect_right
from typing import TYPE_CHECKING, Final

from core.errors import (
    DuplicateKey,
    EmptyKey,
    InvalidSortOption,
    KeyNotFound,
    LeaseProvided,
    TooManyOps,
    ValueProvided,
)
from proto.rpc_pb2 import RangeRequest

if TYPE_CHECKING:
    from collections.abc import Iterable

    from proto.rpc_pb2 import DeleteRangeRequest, PutRequest, RequestOp, TxnRequest

_SORT_ORDERS: Final = frozenset(RangeRequest.SortOrder.values())
_SORT_TARGETS: Final = frozenset(RangeRequest.SortTarget.values())


def check_range(request: RangeRequest) -> None:
    """Raise EmptyKey or InvalidSortOption."""
    if not request.key:
        raise EmptyKey
    if request.sort_order not in _SORT_ORDERS or request.sort_target not in _SORT_TARGETS:
        raise InvalidSortOption


def check_put(request: PutRequest) -> None:
    """Raise EmptyKey, ValueProvided or LeaseProvided."""
    if not request.key:
        raise EmptyKey
    if request.ignore_value and request.value:
        raise ValueProvided
    if request.ignore_lease and request.lease:
        raise LeaseProvided


def check_delete(request: DeleteRangeRequest) -> None:
    """Raise EmptyKey."""
    if not request.key:
        raise EmptyKey


def check_txn(request: TxnRequest, max_ops: int) -> None:
    """Raise TooManyOps, what the checks of single operations raise, or DuplicateKey."""
    _check_operations(request, max_ops)
    for ops in (request.success, request.failure):
        if len(ops) > 1 or (ops and ops[0].HasField("request_txn")):  # one operation alone meets no other
            _check_overlaps(ops)


def is_read_only(request: TxnRequest) -> bool:
    """Tell whether the transaction needs no proposal.  A nested one makes it a write, whatever it holds."""
    for ops in (request.success, request.failure):
        for op in ops[:]:
            if not op.HasField("request_range"):
                return False
    return True


def is_serializable(request: TxnRequest) -> bool:
    """Tell whether a read-only transaction may be answered from the local state: all its ranges say so."""
    return all(op.request_range.serializable for ops in (request.success, request.failure) for op in ops)


def _check_operations(request: TxnRequest, max_ops: int) -> None:
    compares, success, failure = request.compare, request.success, request.failure
    count = max(len(compares), len(success), len(failure))
    if count > max_ops:
        raise TooManyOps
    # Slices: going through a repeated field itself ends with an IndexError within, which costs more than an operation.
    for compare in compares[:]:
        if not compare.key:
            raise EmptyKey
    for op in success[:]:
        _check_operation(op, max_ops - count)
    for op in failure[:]:
        _check_operation(op, max_ops - count)


def _check_operation(op: RequestOp, max_ops: int) -> None:
    match op.WhichOneof("request"):
        case "request_put":
            check_put(op.request_put)
        case "request_range":
            check_range(op.request_range)
        case "request_delete_range":
            check_delete(op.request_delete_range)
        case "request_txn":
            _check_operations(op.request_txn, max_ops)
        case _:
            raise KeyNotFound


class _Deletes:
    """Key ranges, taken as they are written: a range_end of one zero byte is not seen as open, so it covers nothing."""

    def __init__(self) -> None:
        self._points: set[bytes] = set()
        self._starts: list[bytes] = []
        self._ends: list[bytes] = []

    def add(self, key: bytes, range_end: bytes) -> None:
        if not range_end:
            self._points.add(key)
        elif key < range_end:
            self._add_interval(key, range_end)

    def update(self, other: _Deletes) -> None:
        self._points |= other._points
        for start, end in zip(other._starts, other._ends, strict=True):
            self._add_interval(start, end)

    def covers(self, key: bytes) -> bool:
        if key in self._points:
            return True
        at = bisect_right(self._starts, key)
        return at > 0 and key < self._ends[at - 1]

    def _add_interval(self, start: bytes, end: bytes) -> None:
        """Keep the intervals sorted and apart, by swallowing those that touch the new one."""
        first = bisect_right(self._starts, start)
        if first > 0 and self._ends[first - 1] >= start:
            first -= 1
            start = self._starts[first]
        last = bisect_right(self._starts, end)
        if last > first:
            end = max(end, self._ends[last - 1])
        self._starts[first:last] = [start]
        self._ends[first:last] = [end]


def _check_overlaps(ops: Iterable[RequestOp]) -> tuple[set[bytes], _Deletes]:
    """Raise DuplicateKey where a key is put twice, or put and deleted; return what is put and deleted here and below.

    FROM_KEY deletes escape this check, as in etcd.  So does a put in a nested transaction and a delete in a later
    nested one: deletes count from the transaction that holds them on.
    """
    keys: list[bytes] = []
    nested: list[TxnRequest] = []
    deletes = _Deletes()
    for op in ops:
        match op.WhichOneof("request"):
            case "request_put":
                keys.append(op.request_put.key)
            case "request_delete_range":
                deletes.add(op.request_delete_range.key, op.request_delete_range.range_end)
            case "request_txn":
                nested.append(op.request_txn)
    puts: set[bytes] = set()
    for request in nested:
        _add_nested(request, puts, deletes)
    for key in keys:
        _add_put(key, puts, deletes)
    return puts, deletes


def _add_nested(request: TxnRequest, puts: set[bytes], deletes: _Deletes) -> None:
    success_puts, success_deletes = _check_overlaps(request.success)
    failure_puts, failure_deletes = _check_overlaps(request.failure)
    for key in success_puts:
        _add_put(key, puts, deletes)
    for key in failure_puts - success_puts:  # only one of the two branches runs
        _add_put(key, puts, deletes)
    deletes.update(success_deletes)
    deletes.update(failure_deletes)


def _add_put(key: bytes, puts: set[bytes], deletes: _Deletes) -> None:
    if key in puts or deletes.covers(key):
        raise DuplicateKey
    puts.add(key)
