"""What a request may add to the store, in bytes: etcd's estimates, which its quota is held against.

Nested transactions count, with the costlier branch of each.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterable

    from proto.rpc_pb2 import PutRequest, RequestOp, TxnRequest

PUT_OVERHEAD_BYTES: Final = 256
"""What a key costs beside its own bytes and its value's."""

LEASE_COST_BYTES: Final = 64


_PUT_SIZE_BYTES_MIN: Final = 7
"""An operation that puts a key of one byte, in wire form."""


def surely_fits_bytes(room_bytes: int) -> int:
    """Return up to which size in wire form a request costs less than *room_bytes*, whatever it is; below 0 if none.

    To compare with it is all that most requests need: only of larger ones the cost itself is added up.
    """
    return (room_bytes - PUT_OVERHEAD_BYTES - 1) * _PUT_SIZE_BYTES_MIN // (_PUT_SIZE_BYTES_MIN + PUT_OVERHEAD_BYTES)


def put_cost(request: PutRequest) -> int:
    """Return the cost of a put."""
    return PUT_OVERHEAD_BYTES + len(request.key) + len(request.value)


def txn_cost(request: TxnRequest) -> int:
    """Return the cost of a transaction: 0 if neither branch puts anything."""
    return max(_branch_cost(request.success), _branch_cost(request.failure))


def _branch_cost(ops: Iterable[RequestOp]) -> int:
    cost = 0
    for op in ops:
        if op.HasField("request_put"):
            cost += put_cost(op.request_put)
        elif op.HasField("request_txn"):
            cost += txn_cost(op.request_txn)
    return cost
