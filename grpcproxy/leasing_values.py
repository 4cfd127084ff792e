"""What of the leasing protocol is no more than values: keys that are owned, writes under way, and how both are put.

Used by grpcproxy/leasing.py, which has the protocol.  Pure.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from grpcproxy.cache import overlap
from net.rpc import Code
from proto.rpc_pb2 import Compare, RangeRequest, RequestOp, TxnResponse

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from grpcproxy.leasing_session import Outcome
    from grpcproxy.messages import Metadata
    from net.rpc import Call
    from proto.kv_pb2 import KeyValue

    Interval = tuple[bytes, bytes]
    """Key and range_end, as in requests."""

SURE: Final = frozenset(
    {
        Code.INVALID_ARGUMENT,
        Code.NOT_FOUND,
        Code.ALREADY_EXISTS,
        Code.PERMISSION_DENIED,
        Code.FAILED_PRECONDITION,
        Code.OUT_OF_RANGE,
        Code.UNIMPLEMENTED,
        Code.UNAUTHENTICATED,
    }
)
"""Ends of a call that has certainly changed nothing."""


class Owned:
    """A key that is owned."""

    __slots__ = ("created", "generation", "known", "kv", "writes")

    def __init__(self, created: int) -> None:
        self.created: Final = created
        """Revision of its leasing key."""
        self.known = False
        """Whether *kv* is what the key holds; None: it does not exist."""
        self.kv: KeyValue | None = None
        self.writes = 0
        """Own writes under way."""
        self.generation = 0
        """Counts them."""

    def begin_write(self) -> None:
        """Forget what it holds."""
        self.known, self.kv = False, None
        self.writes += 1
        self.generation += 1


class Write:
    """A write of a client."""

    def __init__(
        self, call: Call, operation: RequestOp, intervals: Sequence[Interval], then: Callable[[Outcome], None]
    ) -> None:
        self.call = call
        self.operation = operation
        self.intervals = intervals
        self.then = then
        self.metadata: Metadata = ()
        self.tries = 0
        self.mine: set[int] = set()
        """Places of intervals in which a member has found leasing keys of this proxy."""
        self.awaits: set[bytes] = set()
        """Leasing keys that their owners are to delete first."""
        self.again_s = 0.0

    def touches(self, key: bytes) -> bool:
        """Whether *key* may be written by it."""
        return any(overlap(key, b"", start, end) for start, end in self.intervals)


def may_be_owned(request: RangeRequest) -> bool:
    """Whether a read is of one key as it is now, without conditions."""
    return bool(request.key) and not (
        request.range_end
        or request.revision
        or request.min_mod_revision
        or request.max_mod_revision
        or request.min_create_revision
        or request.max_create_revision
    )


def created_at(key: bytes, revision: int) -> Compare:
    """Return the condition that *key* is still the one that was created at *revision*."""
    return Compare(target=Compare.CREATE, result=Compare.EQUAL, key=key, create_revision=revision)


def unwrapped(answer: TxnResponse) -> bytes:
    """Return the answer to the one operation of a transaction, as if it had been a call."""
    inner = answer.responses[0]
    match inner.WhichOneof("response"):
        case "response_put":
            found: Any = inner.response_put
        case "response_delete_range":
            found = inner.response_delete_range
        case _:
            found = inner.response_txn
    found.header.CopyFrom(answer.header)
    result: bytes = found.SerializeToString()
    return result
