"""What requests are held to cost against the quota."""

from __future__ import annotations

import pytest

from core.apply.cost import PUT_OVERHEAD_BYTES, cost_max, put_cost, txn_cost
from proto.rpc_pb2 import DeleteRangeRequest, PutRequest, RangeRequest, RequestOp, TxnRequest

PUT = RequestOp(request_put=PutRequest(key=b"kk", value=b"vvv"))
LARGE = RequestOp(request_put=PutRequest(key=b"k", value=b"v" * 1000))
READ = RequestOp(request_range=RangeRequest(key=b"k"))
DELETE = RequestOp(request_delete_range=DeleteRangeRequest(key=b"k"))
PUT_COST = PUT_OVERHEAD_BYTES + 5
LARGE_COST = PUT_OVERHEAD_BYTES + 1001


def nested(*success: RequestOp, failure: tuple[RequestOp, ...] = ()) -> RequestOp:
    return RequestOp(request_txn=TxnRequest(success=success, failure=failure))


@pytest.mark.parametrize(
    ("txn", "cost"),
    [
        (TxnRequest(), 0),
        (TxnRequest(success=[READ, DELETE]), 0),
        (TxnRequest(success=[PUT, READ, PUT]), 2 * PUT_COST),
        (TxnRequest(success=[PUT], failure=[LARGE]), LARGE_COST),
        (TxnRequest(success=[nested(PUT)]), PUT_COST),
        (TxnRequest(success=[PUT, nested(PUT, failure=(LARGE,))]), PUT_COST + LARGE_COST),
        (TxnRequest(failure=[nested(nested(nested(LARGE)), PUT)]), LARGE_COST + PUT_COST),
    ],
)
def test_what_is_nested_costs_as_much(txn: TxnRequest, cost: int) -> None:
    """Otherwise a transaction in a transaction writes past the quota unnoticed (etcd issue 22139)."""
    assert txn_cost(txn) == cost
    assert txn_cost(txn) <= cost_max(txn.ByteSize())


def test_the_quick_bound_holds_for_small_puts() -> None:
    """The cost is added up only where this bound does not fit any more, so it must never be below the cost."""
    for count in (1, 2, 50):
        txn = TxnRequest(success=[RequestOp(request_put=PutRequest(key=b"%d" % number)) for number in range(count)])
        assert txn_cost(txn) == sum(put_cost(op.request_put) for op in txn.success) <= cost_max(txn.ByteSize())
