"""The KV service.

Writes are checked here and proposed as they came: the request's own bytes become a field of the log entry, parsed
once to be checked and once more where they are applied.  Reads are answered from a view, small ones on the spot,
large ones by a worker.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from core.apply.auth import check_txn as check_txn_permission
from core.apply.cost import put_cost, txn_cost
from core.apply.evaluate import read_only_txn_response
from core.apply.plain import plain_put, plain_txn
from core.apply.range import range_response
from core.apply.txn import check_delete, check_put, check_range, check_txn, is_read_only, is_serializable
from core.auth.permissions import READ
from proto.rpc_pb2 import CompactionRequest, DeleteRangeRequest, PutRequest, RangeRequest, TxnRequest
from services.decode import decode, decode_entry
from services.identity import admit_read

if TYPE_CHECKING:
    from core.mvcc.view import View
    from core.types import LeaseId
    from net.rpc import Call
    from services.node import Count, Node

# Tags of InternalRaftRequest's fields: number << 3 | 2.
PUT_TAG: Final = b"\x22"
DELETE_RANGE_TAG: Final = b"\x2a"
TXN_TAG: Final = b"\x32"
COMPACTION_TAG: Final = b"\x3a"

INLINE_KEYS_MAX = 20_000
"""Ranges that may touch more keys than this run on a worker: 10,000 keys take about 4 ms."""


class KvService:
    """Handles etcdserverpb.KV for one listener, on its loop's thread."""

    def __init__(self, node: Node) -> None:
        self._node = node
        self._txn_ops_max = node.limits.txn_ops_max

    def put(self, call: Call, payload: bytes) -> None:
        """Put one key."""
        size_bytes = len(payload)
        if size_bytes <= self._node.fits_bytes and plain_put(payload, 0, size_bytes) is not None:
            self._node.propose(call, PUT_TAG, payload)
            return
        request = decode_entry(call, PutRequest, PUT_TAG, payload, check_put)
        if request is not None and self._node.may_grow(call, put_cost(request)):
            self._node.propose(call, PUT_TAG, payload)

    def delete_range(self, call: Call, payload: bytes) -> None:
        """Delete a key or a range."""
        if decode_entry(call, DeleteRangeRequest, DELETE_RANGE_TAG, payload, check_delete) is not None:
            self._node.propose(call, DELETE_RANGE_TAG, payload)

    def compact(self, call: Call, payload: bytes) -> None:
        """Drop history; with ``physical`` the answer waits until it is gone."""
        if decode_entry(call, CompactionRequest, COMPACTION_TAG, payload) is not None:
            self._node.propose(call, COMPACTION_TAG, payload)

    def range(self, call: Call, payload: bytes) -> None:
        """Read a key or a range."""
        request = decode(call, RangeRequest, payload, check_range)
        if request is None:
            return
        if request.serializable:
            self._range(call, request, self._node.view)
        else:
            self._node.read(call, lambda view: self._range(call, request, view))

    def txn(self, call: Call, payload: bytes) -> None:
        """Compare, then take one of two branches."""
        size_bytes = len(payload)
        plain = plain_txn(payload, 0, size_bytes) if size_bytes <= self._node.fits_bytes else None
        if plain is not None and plain.ops_count <= self._txn_ops_max:
            self._node.propose(call, TXN_TAG, payload)
            return
        request = decode_entry(call, TxnRequest, TXN_TAG, payload, self._check_txn)
        if request is None:
            return
        if not is_read_only(request):
            if self._node.may_grow(call, txn_cost(request)):
                self._node.propose(call, TXN_TAG, payload)
        elif is_serializable(request):
            self._read_only_txn(call, request, self._node.view)
        else:
            self._node.read(call, lambda view: self._read_only_txn(call, request, view))

    def _check_txn(self, request: TxnRequest) -> None:
        check_txn(request, self._txn_ops_max)

    def _range(self, call: Call, request: RangeRequest, view: View) -> None:
        if self._node.auth.enabled:
            admit_read(
                self._node,
                call,
                lambda rules, identity: rules.check_key(identity, request.key, request.range_end, READ),
                lambda admitted: self._answer_range(admitted, request, view),
            )
        else:
            self._answer_range(call, request, view)

    def _answer_range(self, call: Call, request: RangeRequest, view: View) -> None:
        header = self._node.header()
        count = self._node.counter(view)
        if is_large(request, count):
            self._node.work(self._node.times.long_range(call), lambda: range_response(view, request, header))
        else:
            self._node.times.answer_range(
                call, lambda: range_response(view, request, header, count), alike=not request.range_end
            )

    def _read_only_txn(self, call: Call, request: TxnRequest, view: View) -> None:
        if self._node.auth.enabled:
            admit_read(
                self._node,
                call,
                lambda rules, identity: check_txn_permission(rules, identity, request, no_lease),
                lambda admitted: self._answer_txn(admitted, request, view),
            )
        else:
            self._answer_txn(call, request, view)

    def _answer_txn(self, call: Call, request: TxnRequest, view: View) -> None:
        header = self._node.header()
        count = self._node.counter(view)
        ranges = [op.request_range for ops in (request.success, request.failure) for op in ops]
        if any(compare.range_end for compare in request.compare) or any(is_large(each, count) for each in ranges):
            timed = self._node.times.long_txn(call)
            self._node.work(timed, lambda: read_only_txn_response(view, request, header))
        else:
            self._node.times.answer_txn(call, lambda: read_only_txn_response(view, request, header, count))


def no_lease(_lease: LeaseId) -> tuple[bytes, ...]:
    """Return the keys of a lease where none is put to one: in a transaction that only reads."""
    return ()


def is_large(request: RangeRequest, count: Count | None) -> bool:
    """Whether answering *request* may take long.  *count* counts live keys, None if that takes a scan now."""
    if not request.range_end:
        return False
    if count is None:
        return True
    if 0 < request.limit <= INLINE_KEYS_MAX and not request.sort_order and not request.sort_target:
        return request.revision > 0 and count(request.key, request.range_end) > INLINE_KEYS_MAX
    return count(request.key, request.range_end) > INLINE_KEYS_MAX
