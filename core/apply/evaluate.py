"""Evaluating a transaction: which branch each level takes, what would refuse it, and its answer.

All compares are evaluated first, on the state before; then the chosen operations are checked; only then do they run,
so that a refusal leaves no effect.  A read-only transaction is evaluated on a view.
"""

from __future__ import annotations

import operator
from typing import TYPE_CHECKING, Any, Final, Protocol

from core.apply.header import operation_header
from core.apply.range import range_response
from core.errors import Compacted, FutureRevision, KeyNotFound, LeaseNotFound
from core.mvcc.record import number_of, untagged, value_of
from core.mvcc.varint import field
from core.mvcc.view import covers
from proto.rpc_pb2 import Compare, RangeRequest

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from core.apply.plain import PlainTxn
    from core.mvcc.view import View
    from proto.rpc_pb2 import DeleteRangeRequest, PutRequest, TxnRequest

    Count = Callable[[bytes, bytes], int]
    Step = tuple[bytes, Any]
    """A kind, and the request or Plan that belongs to it."""

# Looked up once: the enum's names cost a search in the descriptors at each use.
_VALUE: Final = Compare.VALUE
_NUMBERS: Final[dict[int, tuple[str, int]]] = {
    Compare.VERSION: ("version", 0x20),
    Compare.CREATE: ("create_revision", 0x10),
    Compare.MOD: ("mod_revision", 0x18),
    Compare.LEASE: ("lease", 0x30),
}
"""What each target that is a number is called in Compare, and its tag in KeyValue."""
_RESULTS: Final[dict[int, Callable[[Any, Any], bool]]] = {
    Compare.EQUAL: operator.eq,
    Compare.NOT_EQUAL: operator.ne,
    Compare.GREATER: operator.gt,
    Compare.LESS: operator.lt,
}

# Kinds of operations, by the tags that their answers have in ResponseOp.
RANGE: Final = b"\x0a"
PUT: Final = b"\x12"
DELETE_RANGE: Final = b"\x1a"
TXN: Final = b"\x22"
PLAIN_PUT: Final = b"plain"
"""A put that came as key, value and lease."""


class Executor(Protocol):
    """Does single operations; each method returns the operation's answer without the outer tag."""

    def range(self, request: RangeRequest, /) -> bytes:
        """Read, with what was changed so far."""

    def put(self, request: PutRequest, /) -> bytes:
        """Set one key."""

    def put_plain(self, key: bytes, value: bytes, lease: int, /) -> bytes:
        """Set one key, where that is all there is to say."""

    def delete_range(self, request: DeleteRangeRequest, /) -> bytes:
        """Delete a key or a range."""


class State(Protocol):
    """What a transaction is evaluated on: a view, or a write transaction that has changed nothing yet."""

    @property
    def revision(self) -> int:
        """The newest revision that can be read."""

    @property
    def compact_revision(self) -> int:
        """Reads below it are refused."""

    def get(self, key: bytes, /) -> bytes | None:
        """Return the live KeyValue of *key* in wire form, or None."""

    def range(self, key: bytes, range_end: bytes, /) -> list[bytes]:
        """Return the live records of [key, range_end)."""


class ReadOnlyExecutor:
    """Runs the ranges of a read-only transaction on a view."""

    def __init__(self, view: View, count: Count | None = None) -> None:
        self._view = view
        self._count = count
        self._header = operation_header(view.revision)

    def range(self, request: RangeRequest, /) -> bytes:
        """See Executor."""
        return range_response(self._view, request, self._header, self._count)

    def put(self, request: PutRequest, /) -> bytes:
        """Never called: is_read_only() has been asked."""
        raise AssertionError(request)

    def put_plain(self, key: bytes, value: bytes, lease: int, /) -> bytes:
        """Never called either."""
        raise AssertionError((key, value, lease))

    def delete_range(self, request: DeleteRangeRequest, /) -> bytes:
        """Never called either."""
        raise AssertionError(request)


class Plan:
    """The branch that one level of a transaction takes: its operations, each with its kind, nested ones as Plans."""

    __slots__ = ("steps", "succeeded")

    def __init__(self, steps: list[Step], *, succeeded: bool) -> None:
        self.steps = steps
        self.succeeded = succeeded

    def check(self, state: State, lease_exists: Callable[[int], bool]) -> None:
        """Raise what refuses one of the chosen operations, seen on the state before all of them.

        The first in order is named, as etcd from 3.6 on does; 3.5 looks at all puts first.
        """
        self._check(state, lease_exists, [])

    def _check(self, state: State, lease_exists: Callable[[int], bool], deletes: list[DeleteRangeRequest]) -> None:
        for kind, step in self.steps:
            if kind is PLAIN_PUT:
                if step[2] and not lease_exists(step[2]):
                    raise LeaseNotFound
            elif kind is PUT:
                if step.lease or step.ignore_value or step.ignore_lease:
                    _check_put(state, step, lease_exists, deletes)
            elif kind is RANGE:
                _check_revision(state, step.revision)
            elif kind is DELETE_RANGE:
                deletes.append(step)
            else:
                step._check(state, lease_exists, deletes)  # noqa: SLF001 (same class)

    def run(self, executor: Executor) -> bytes:
        """Run the chosen operations in order; return the fields of TxnResponse behind the header."""
        answer = [b"\x10\x01"] if self.succeeded else []
        for kind, step in self.steps:
            if kind is PUT:
                response = field(PUT, executor.put(step))
            elif kind is PLAIN_PUT:
                response = field(PUT, executor.put_plain(*step))
            elif kind is RANGE:
                response = field(RANGE, executor.range(step))
            elif kind is DELETE_RANGE:
                response = field(DELETE_RANGE, executor.delete_range(step))
            else:
                response = field(TXN, b"\x0a\x00" + step.run(executor))
            answer.append(field(b"\x1a", response))
        return b"".join(answer)


def planned(state: State, request: TxnRequest) -> Plan:
    """Return which way *request* goes in *state*."""
    succeeded = _all_hold(state, request.compare)
    steps: list[Step] = []
    for op in (request.success if succeeded else request.failure)[:]:  # slices: see txn.py
        match op.WhichOneof("request"):
            case "request_put":
                steps.append((PUT, op.request_put))
            case "request_range":
                steps.append((RANGE, op.request_range))
            case "request_delete_range":
                steps.append((DELETE_RANGE, op.request_delete_range))
            case _:
                steps.append((TXN, planned(state, op.request_txn)))
    return Plan(steps, succeeded=succeeded)


def planned_plain(state: State, request: PlainTxn) -> Plan:
    """Do the same for a transaction that was read without protobuf."""
    succeeded = True
    for result, target, key, operand in request.compares:
        kv = state.get(key)
        if (kv is None and target == _VALUE) or not _satisfies(kv or b"", result, target, operand):
            succeeded = False
            break
    steps: list[Step] = []
    for op in request.success if succeeded else request.failure:
        if isinstance(op, tuple):
            steps.append((PLAIN_PUT, op))
        else:
            steps.append((RANGE, RangeRequest(key=op)))
    return Plan(steps, succeeded=succeeded)


def read_only_txn_response(view: View, request: TxnRequest, header: bytes, count: Count | None = None) -> bytes:
    """Return the TxnResponse of a transaction that only reads.  Raises FutureRevision or Compacted."""
    plan = planned(view, request)
    plan.check(view, _no_lease)
    return header + plan.run(ReadOnlyExecutor(view, count))


def _no_lease(_lease: int) -> bool:
    return False


def _check_revision(state: State, revision: int) -> None:
    if revision > state.revision:
        raise FutureRevision
    if revision != 0 and revision < state.compact_revision:
        raise Compacted


def _check_put(
    state: State, put: PutRequest, lease_exists: Callable[[int], bool], deletes: list[DeleteRangeRequest]
) -> None:
    """Raise what refuses *put* behind *deletes*, which will have run by then.

    A key that one of them removes has nothing left to keep; etcd finds that out halfway, and panics.
    """
    if put.lease and not lease_exists(put.lease):
        raise LeaseNotFound
    if put.ignore_value or put.ignore_lease:
        gone = any(covers(delete.key, delete.range_end, put.key) for delete in deletes)
        if gone or state.get(put.key) is None:
            raise KeyNotFound


def _all_hold(state: State, compares: Sequence[Compare]) -> bool:
    for compare in compares[:]:  # noqa: SIM110 - a generator costs more than most compares
        if not _holds(state, compare):
            return False
    return True


def _holds(state: State, compare: Compare) -> bool:
    """Tell whether *compare* holds for every key it names; a range without keys is like a missing key."""
    if not compare.range_end:
        kv = state.get(compare.key)
        if kv is not None:
            return _holds_for(kv, compare)
        records = []
    else:
        records = state.range(compare.key, compare.range_end)
    if not records:
        return compare.target != _VALUE and _holds_for(b"", compare)
    return all(_holds_for(untagged(record), compare) for record in records)


def _holds_for(kv: bytes, compare: Compare) -> bool:
    """Tell whether *compare* holds for one stored state.  What was not given is 0 or empty."""
    target = compare.target
    operand: int | bytes = 0
    if target == _VALUE:
        operand = compare.value
    elif target in _NUMBERS:
        operand = getattr(compare, _NUMBERS[target][0])
    return _satisfies(kv, compare.result, target, operand)


def _satisfies(kv: bytes, result: int, target: int, operand: int | bytes) -> bool:
    holds = _RESULTS.get(result)
    if holds is None:
        return True  # a result that etcd does not know refuses nothing there either
    if target == _VALUE:
        return holds(value_of(kv), operand)
    found = _NUMBERS.get(target)
    return holds(0 if found is None else number_of(kv, found[1]), operand)
