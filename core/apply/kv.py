"""Applying what clients write: put, delete, transaction, compaction; requests in, answers in wire form out.

Each method is one entry's whole effect on the store.  An EtcdError that it raises is part of the result of applying
the entry, the same on every member, and leaves no effect.  Belongs to the store's thread.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from core.apply.evaluate import planned, planned_plain
from core.apply.header import ResponseHeaders, operation_header
from core.apply.range import range_response
from core.errors import KeyNotFound, LeaseNotFound
from core.mvcc.record import decode_kv
from core.mvcc.varint import field, varint

if TYPE_CHECKING:
    from collections.abc import Iterable

    from core.apply.evaluate import Plan
    from core.apply.plain import PlainTxn
    from core.mvcc.event import Revised
    from core.mvcc.store import Store
    from core.mvcc.write import WriteTransaction
    from proto.rpc_pb2 import DeleteRangeRequest, PutRequest, RangeRequest, TxnRequest


class Leases(Protocol):
    """The lease book, as far as keys are concerned."""

    def exists(self, lease_id: int, /) -> bool:
        """Tell whether the lease was granted and not revoked."""

    def attach(self, lease_id: int, key: bytes, /) -> None:
        """Note that *key* now has this lease."""

    def detach(self, lease_id: int, key: bytes, /) -> None:
        """Note that *key* no longer has this lease."""


class KvExecutor:
    """Applies key-value requests to a store.  Requests must have passed the checks in core/apply/txn.py."""

    def __init__(self, store: Store, leases: Leases, headers: ResponseHeaders) -> None:
        self._store = store
        self._leases = leases
        self._headers = headers
        self._changes: list[Revised] = []
        self.term = 0
        """The raft term that answers show; whoever applies entries keeps it up to date."""

    def take_changes(self) -> list[Revised]:
        """Return what changed since the last call, oldest first, for watchers."""
        changes, self._changes = self._changes, []
        return changes

    def put(
        self,
        key: bytes,
        value: bytes,
        lease: int = 0,
        prev_kv: bool = False,
        ignore_value: bool = False,
        ignore_lease: bool = False,
    ) -> bytes:
        """Apply a Put; return the PutResponse.  Raises LeaseNotFound or KeyNotFound."""
        if lease and not self._leases.exists(lease):
            raise LeaseNotFound
        transaction = self._store.transaction(self._leases)
        if ignore_value or ignore_lease:
            value, lease = _kept(transaction, key, value, lease, ignore_value, ignore_lease)
        before = transaction.put(key, value, lease)
        header = self._end(transaction)
        return header + field(b"\x12", before) if prev_kv and before is not None else header

    def delete_range(self, key: bytes, range_end: bytes = b"", prev_kv: bool = False) -> bytes:
        """Apply a DeleteRange; return the DeleteRangeResponse."""
        transaction = self._store.transaction(self._leases)
        deleted = transaction.delete_range(key, range_end)
        return self._end(transaction) + _deleted_fields(deleted, prev_kv)

    def delete_keys(self, keys: Iterable[bytes]) -> None:
        """Delete *keys*, in their order, at one revision: what ends with a lease."""
        transaction = self._store.transaction(self._leases)
        for key in keys:
            transaction.delete_range(key, b"")
        self._end(transaction)

    def txn(self, request: TxnRequest) -> bytes:
        """Apply a Txn; return the TxnResponse.  Raises what its pre-check finds, without any effect."""
        transaction = self._store.transaction(self._leases)
        return self._run(transaction, planned(transaction, request))

    def txn_plain(self, request: PlainTxn) -> bytes:
        """Do the same for one that was read without protobuf."""
        transaction = self._store.transaction(self._leases)
        return self._run(transaction, planned_plain(transaction, request))

    def _run(self, transaction: WriteTransaction, plan: Plan) -> bytes:
        plan.check(transaction, self._leases.exists)
        answer = plan.run(_TransactionExecutor(transaction))
        return self._end(transaction) + answer

    def range(self, request: RangeRequest) -> bytes:
        """Return the RangeResponse of a range that came as an entry.  Raises FutureRevision or Compacted."""
        store = self._store
        header = self._headers.encode(store.revision, self.term)
        return range_response(store.live_view(), request, header, store.count)

    def compact(self, revision: int) -> bytes:
        """Apply a Compact; return the CompactionResponse.  Raises Compacted or FutureRevision."""
        self._store.begin_compaction(revision)
        return self._headers.encode(self._store.revision, self.term)

    def _end(self, transaction: WriteTransaction) -> bytes:
        revised = transaction.end()
        if revised is not None:
            self._changes.append(revised)
        return self._headers.encode(self._store.revision, self.term)


class _TransactionExecutor:
    """Runs the operations of a transaction that writes; see core/apply/evaluate.Executor."""

    def __init__(self, transaction: WriteTransaction) -> None:
        self._transaction = transaction
        self._header = b""
        self._header_revision = -1

    def range(self, request: RangeRequest, /) -> bytes:
        transaction = self._transaction
        return range_response(transaction.view(), request, self._operation_header(), transaction.count)

    def put(self, request: PutRequest, /) -> bytes:
        transaction = self._transaction
        key, value, lease = request.key, request.value, request.lease
        if request.ignore_value or request.ignore_lease:
            value, lease = _kept(transaction, key, value, lease, request.ignore_value, request.ignore_lease)
        before = transaction.put(key, value, lease)
        header = self._operation_header()
        return header + field(b"\x12", before) if request.prev_kv and before is not None else header

    def put_plain(self, key: bytes, value: bytes, lease: int, /) -> bytes:
        self._transaction.put(key, value, lease)
        return self._operation_header()

    def delete_range(self, request: DeleteRangeRequest, /) -> bytes:
        deleted = self._transaction.delete_range(request.key, request.range_end)
        return self._operation_header() + _deleted_fields(deleted, request.prev_kv)

    def _operation_header(self) -> bytes:
        revision = self._transaction.revision
        if revision != self._header_revision:
            self._header, self._header_revision = operation_header(revision), revision
        return self._header


def _kept(
    transaction: WriteTransaction, key: bytes, value: bytes, lease: int, ignore_value: bool, ignore_lease: bool
) -> tuple[bytes, int]:
    """Return value and lease of a put that keeps one of them, or both, from the present record."""
    before = transaction.get(key)
    if before is None:
        raise KeyNotFound
    kept = decode_kv(before)
    return kept.value if ignore_value else value, kept.lease if ignore_lease else lease


def _deleted_fields(deleted: list[tuple[bytes, bytes]], prev_kv: bool) -> bytes:
    count = b"\x10" + varint(len(deleted)) if deleted else b""
    return count + b"".join(field(b"\x1a", before) for _, before in deleted) if prev_kv else count
