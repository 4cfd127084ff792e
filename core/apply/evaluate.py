"""Evaluating a transaction: which branch each level takes, what would refuse it, and its answer.

All compares are evaluated first, on the state before; then the chosen operations are checked; only then do they run,
so that a refusal leaves no effect.  A read-only transaction is evaluated on a view.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from core.apply.header import operation_header
from core.apply.range import range_response
from core.errors import Compacted, FutureRevision, KeyNotFound, LeaseNotFound
from core.mvcc.record import KeyValue, decode_kv, untagged
from core.mvcc.varint import field
from core.mvcc.view import covers
from proto.rpc_pb2 import Compare

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from core.mvcc.view import View
    from proto.rpc_pb2 import DeleteRangeRequest, PutRequest, RangeRequest, RequestOp, TxnRequest

    Count = Callable[[bytes, bytes], int]

_MISSING = KeyValue(b"", 0, 0, 0, b"", 0)


class Executor(Protocol):
    """Does single operations; each method returns the operation's answer without the outer tag."""

    def range(self, request: RangeRequest, /) -> bytes:
        """Read, with what was changed so far."""

    def write(self, op: RequestOp, /) -> bytes:
        """Put or delete."""


class ReadOnlyExecutor:
    """Runs the ranges of a read-only transaction on a view."""

    def __init__(self, view: View, count: Count | None = None) -> None:
        self._view = view
        self._count = count
        self._header = operation_header(view.revision)

    def range(self, request: RangeRequest, /) -> bytes:
        """See Executor."""
        return range_response(self._view, request, self._header, self._count)

    def write(self, op: RequestOp, /) -> bytes:
        """Never called: is_read_only() has been asked."""
        raise AssertionError(op)


class Plan:
    """The branch that one level of a transaction takes, and the plans of the nested transactions in it."""

    __slots__ = ("nested", "ops", "succeeded")

    def __init__(self, view: View, request: TxnRequest) -> None:
        self.succeeded = all(_holds(view, compare) for compare in request.compare)
        self.ops: Sequence[RequestOp] = request.success if self.succeeded else request.failure
        self.nested = [Plan(view, op.request_txn) for op in self.ops if op.HasField("request_txn")]

    def check(self, view: View, lease_exists: Callable[[int], bool]) -> None:
        """Raise what refuses one of the chosen operations, seen on the state before all of them.

        The first in order is named, as etcd from 3.6 on does; 3.5 looks at all puts first.
        """
        deletes: list[DeleteRangeRequest] = []
        for op in self._chosen():
            if op.HasField("request_range"):
                _check_revision(view, op.request_range.revision)
            elif op.HasField("request_put"):
                _check_put(view, op.request_put, lease_exists, deletes)
            else:
                deletes.append(op.request_delete_range)

    def _chosen(self) -> Iterator[RequestOp]:
        """Yield the operations that will run, in order; in place of a nested transaction, those of its branch."""
        nested = iter(self.nested)
        for op in self.ops:
            if op.HasField("request_txn"):
                yield from next(nested)._chosen()  # noqa: SLF001 (same class)
            else:
                yield op

    def run(self, executor: Executor) -> bytes:
        """Run the chosen operations in order; return the fields of TxnResponse behind the header."""
        nested = iter(self.nested)
        answer = [b"\x10\x01"] if self.succeeded else []
        answer.extend(field(b"\x1a", _run_operation(executor, op, nested)) for op in self.ops)
        return b"".join(answer)


def read_only_txn_response(view: View, request: TxnRequest, header: bytes, count: Count | None = None) -> bytes:
    """Return the TxnResponse of a transaction that only reads.  Raises FutureRevision or Compacted."""
    plan = Plan(view, request)
    plan.check(view, _no_lease)
    return header + plan.run(ReadOnlyExecutor(view, count))


def _no_lease(_lease: int) -> bool:
    return False


def _run_operation(executor: Executor, op: RequestOp, nested: Iterator[Plan]) -> bytes:
    match op.WhichOneof("request"):
        case "request_range":
            return field(b"\x0a", executor.range(op.request_range))
        case "request_put":
            return field(b"\x12", executor.write(op))
        case "request_delete_range":
            return field(b"\x1a", executor.write(op))
        case _:
            return field(b"\x22", b"\x0a\x00" + next(nested).run(executor))


def _check_revision(view: View, revision: int) -> None:
    if revision > view.revision:
        raise FutureRevision
    if revision != 0 and revision < view.compact_revision:
        raise Compacted


def _check_put(
    view: View, put: PutRequest, lease_exists: Callable[[int], bool], deletes: list[DeleteRangeRequest]
) -> None:
    """Raise what refuses *put* behind *deletes*, which will have run by then.

    A key that one of them removes has nothing left to keep; etcd finds that out halfway, and panics.
    """
    if put.lease and not lease_exists(put.lease):
        raise LeaseNotFound
    if put.ignore_value or put.ignore_lease:
        gone = any(covers(delete.key, delete.range_end, put.key) for delete in deletes)
        if gone or view.get(put.key) is None:
            raise KeyNotFound


def _holds(view: View, compare: Compare) -> bool:
    """Tell whether *compare* holds for every key it names; a range without keys is like a missing key."""
    if not compare.range_end:
        kv = view.get(compare.key)
        if kv is not None:
            return _holds_for(decode_kv(kv), compare)
        records = []
    else:
        records = view.range(compare.key, compare.range_end)
    if not records:
        return compare.target != Compare.VALUE and _holds_for(_MISSING, compare)
    return all(_holds_for(decode_kv(untagged(record)), compare) for record in records)


def _holds_for(kv: KeyValue, compare: Compare) -> bool:
    order = _order(kv, compare)
    match compare.result:
        case Compare.EQUAL:
            return order == 0
        case Compare.NOT_EQUAL:
            return order != 0
        case Compare.GREATER:
            return order > 0
        case Compare.LESS:
            return order < 0
        case _:
            return True  # a result that etcd does not know refuses nothing there either


def _order(kv: KeyValue, compare: Compare) -> int:
    """Return how the stored compares with the given: negative, 0 or positive.  What was not given is 0 or empty."""
    match compare.target:
        case Compare.VALUE:
            return (kv.value > compare.value) - (kv.value < compare.value)
        case Compare.VERSION:
            return kv.version - compare.version
        case Compare.CREATE:
            return kv.create_revision - compare.create_revision
        case Compare.MOD:
            return kv.mod_revision - compare.mod_revision
        case Compare.LEASE:
            return kv.lease - compare.lease
        case _:
            return 0
