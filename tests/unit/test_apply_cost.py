"""What requests are held to cost against the quota."""

from __future__ import annotations

import pytest

from core.apply.cost import PUT_OVERHEAD_BYTES, put_cost, surely_fits_bytes, txn_cost
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
    assert txn.ByteSize() > surely_fits_bytes(txn_cost(txn))


def test_the_quick_bound_holds_for_small_puts() -> None:
    """The cost is added up only of what is larger than this bound, so nothing below it may cost as much as there is."""
    for count in (1, 2, 50):
        txn = TxnRequest(success=[RequestOp(request_put=PutRequest(key=b"%d" % number)) for number in range(count)])
        assert txn_cost(txn) == sum(put_cost(op.request_put) for op in txn.success)
        assert txn.ByteSize() > surely_fits_bytes(txn_cost(txn))


def test_nothing_fits_where_there_is_no_room() -> None:
    """A full store has less than no room."""
    assert surely_fits_bytes(0) < 0
    assert surely_fits_bytes(-(1 << 40)) < 0
    assert surely_fits_bytes(1 << 30) > 1 << 24
