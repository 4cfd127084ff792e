"""The store against a naive history: any requests, flushes, crashes and half-done background work between them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import google_crc32c
import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from core.apply.header import ResponseHeaders
from core.apply.kv import KvExecutor
from core.apply.range import range_response
from core.apply.txn import check_txn
from core.errors import Compacted, DuplicateKey, EtcdError, FutureRevision
from core.mvcc.backend import MemoryBackend
from core.mvcc.hashing import hash_kv
from core.mvcc.past import recent_past
from core.mvcc.record import untagged
from core.mvcc.store import Store
from proto.kv_pb2 import KeyValue
from proto.rpc_pb2 import (
    Compare,
    DeleteRangeRequest,
    DeleteRangeResponse,
    PutRequest,
    PutResponse,
    RangeRequest,
    RangeResponse,
    RequestOp,
    TxnRequest,
    TxnResponse,
)
from tests.naive_history import NaiveHistory

if TYPE_CHECKING:
    from collections.abc import Callable

    from core.mvcc.event import Revised

KEYS = st.sampled_from([b"a", b"a\x00", b"a\x00\xff", b"ab", b"b", b"b\xff", b"\x00", b"\xff\xff", b"k" * 200])
VALUES = st.sampled_from([b"", b"v", b"w", b"x" * 130, b"y" * 9000])
LEASES = st.sampled_from([0, 0, 0, 7, -7])
RANGE_ENDS = st.one_of(st.just(b""), st.just(b"\x00"), KEYS)
REVISIONS = st.sampled_from([0, 0, -1, 1, 2, 3])
BACK = st.integers(min_value=0, max_value=6)

RANGES = st.builds(
    RangeRequest,
    key=KEYS,
    range_end=RANGE_ENDS,
    limit=st.sampled_from([0, 0, 1, 2, -3, 2**63 - 1]),
    sort_order=st.sampled_from([0, 0, 1, 2]),
    sort_target=st.sampled_from([0, 0, 1, 2, 3, 4]),
    keys_only=st.booleans(),
    count_only=st.sampled_from([False, False, True]),
    min_mod_revision=st.sampled_from([0, 0, 3]),
    max_mod_revision=st.sampled_from([0, 0, 5]),
    min_create_revision=st.sampled_from([0, 0, 3]),
    max_create_revision=st.sampled_from([0, 0, 5]),
)
PUTS = st.builds(PutRequest, key=KEYS, value=VALUES, lease=LEASES, prev_kv=st.booleans())
DELETES = st.builds(DeleteRangeRequest, key=KEYS, range_end=RANGE_ENDS, prev_kv=st.booleans())
COMPARES = st.one_of(
    st.builds(Compare, key=KEYS, range_end=RANGE_ENDS, result=st.integers(0, 3), target=st.just(3), value=VALUES),
    st.builds(Compare, key=KEYS, result=st.integers(0, 3), target=st.just(0), version=st.integers(0, 3)),
    st.builds(Compare, key=KEYS, result=st.integers(0, 3), target=st.just(1), create_revision=st.integers(0, 5)),
    st.builds(Compare, key=KEYS, range_end=RANGE_ENDS, result=st.integers(0, 3), target=st.just(2)),
    st.builds(Compare, key=KEYS, result=st.integers(0, 3), target=st.just(4), lease=LEASES),
)
OPERATIONS = st.one_of(
    st.builds(RequestOp, request_range=RANGES),
    st.builds(RequestOp, request_put=PUTS),
    st.builds(RequestOp, request_delete_range=DELETES),
)


@st.composite
def txns(draw: st.DrawFn, depth: int = 1) -> TxnRequest:
    """A transaction, with others in it down to *depth*."""

    def operation() -> RequestOp:
        if depth > 0 and draw(st.integers(0, 5)) == 0:
            return RequestOp(request_txn=draw(txns(depth - 1)))
        return draw(OPERATIONS)

    def branch() -> list[RequestOp]:
        return [operation() for _ in range(draw(st.integers(0, 4)))]

    return TxnRequest(compare=draw(st.lists(COMPARES, max_size=2)), success=branch(), failure=branch())


class Book:
    """A lease book as the store's events should shape it."""

    def __init__(self, attached: set[tuple[int, bytes]]) -> None:
        self.attached = attached

    def exists(self, lease_id: int, /) -> bool:
        return lease_id in {7, -7}

    def attach(self, lease_id: int, key: bytes, /) -> None:
        assert (lease_id, key) not in self.attached
        self.attached.add((lease_id, key))

    def detach(self, lease_id: int, key: bytes, /) -> None:
        self.attached.remove((lease_id, key))


class StoreMachine(RuleBasedStateMachine):
    """Drives a store and a naive history alike."""

    @initialize()
    def start(self) -> None:
        self.backend = MemoryBackend()
        self.model = NaiveHistory()
        self.flushed = self.model.copy()
        self.synced = self.model.copy()
        self.index = 0
        self._open()

    def _open(self) -> None:
        self.store = Store.open(self.backend)
        self.index = self.store.applied_index
        self.book = Book(set(self.store.attached_keys()))
        self.kv = KvExecutor(self.store, self.book, ResponseHeaders(0, 0))
        self.announced: list[Revised] = []
        self.opened_at = self.store.revision

    def _applied(self) -> None:
        self.index += 1
        self.store.advance(self.index, 2)
        self.announced += self.kv.take_changes()

    # -- requests ----------------------------------------------------------------------------------------------------

    @rule(request=PUTS)
    def put(self, request: PutRequest) -> None:
        before = self.model.put(request.key, request.value, request.lease)
        self.model.end()
        got = PutResponse.FromString(self.kv.put(request.key, request.value, request.lease, request.prev_kv))
        assert got.header.revision == self.model.revision
        assert got.HasField("prev_kv") == (request.prev_kv and before is not None)
        if request.prev_kv and before is not None:
            assert got.prev_kv == before
        self._applied()

    @rule(request=DELETES)
    def delete(self, request: DeleteRangeRequest) -> None:
        doomed = self.model.delete(request.key, request.range_end)
        self.model.end()
        got = DeleteRangeResponse.FromString(self.kv.delete_range(request.key, request.range_end, request.prev_kv))
        assert (got.header.revision, got.deleted) == (self.model.revision, len(doomed))
        assert list(got.prev_kvs) == (doomed if request.prev_kv else [])
        self._applied()

    @rule(request=txns())
    def txn(self, request: TxnRequest) -> None:
        try:
            check_txn(request, 128)
        except DuplicateKey:
            return
        expected = self.model.txn(request)
        assert TxnResponse.FromString(self.kv.txn(request)) == expected
        self._applied()

    @rule(request=RANGES, revision=REVISIONS, back=BACK)
    def range_staged(self, request: RangeRequest, revision: int, back: int) -> None:
        request.revision = max(self.model.revision - back, 0) if revision == 1 else revision
        self._compare_range(request, lambda: self.kv.range(request))

    @rule(request=RANGES, back=BACK)
    def range_view(self, request: RangeRequest, back: int) -> None:
        request.revision = max(self.model.revision - back + 1, 0)
        self.flush(sync=False)
        view = self.store.view()
        header = ResponseHeaders(0, 0).encode(view.revision, 0)
        count = self.store.counter_for(view)
        self._compare_range(request, lambda: range_response(view, request, header, count))

    def _compare_range(self, request: RangeRequest, answer: Callable[[], bytes]) -> None:
        try:
            expected = self.model.range(request)
        except EtcdError as error:
            with pytest.raises(type(error)):
                answer()
            return
        assert RangeResponse.FromString(answer()) == expected

    @rule(key=KEYS, range_end=RANGE_ENDS.filter(bool), back=BACK, limit=st.integers(0, 3))
    def range_of_recent_past(self, key: bytes, range_end: bytes, back: int, limit: int) -> None:
        self.flush(sync=False)
        revision = self.model.revision - back
        if revision < max(self.model.compact_revision, 1):
            return
        view = self.store.view()
        live_count = view.count(key, range_end)
        # However many keys it says there are now, the answer must be right; how many decides only whether it is tried.
        past = recent_past(view, key, range_end, revision, 1000)
        assert past is not None
        expected = self.model.range(RangeRequest(key=key, range_end=range_end, revision=revision))
        assert past.count(live_count) == expected.count
        assert [KeyValue.FromString(untagged(record)) for record in past.range(limit)] == list(
            expected.kvs[: limit or None]
        )

    # -- compaction, counting, hashes --------------------------------------------------------------------------------

    @rule(back=BACK)
    def compact(self, back: int) -> None:
        revision = self.model.revision - back + 1
        if revision > self.model.revision:
            with pytest.raises(FutureRevision):
                self.kv.compact(revision)
        elif revision <= self.model.compact_revision:
            with pytest.raises(Compacted):
                self.kv.compact(revision)
        else:
            self.kv.compact(revision)
            self.model.compact_revision = revision
        self._applied()

    @rule(limit=st.integers(1, 3))
    def compaction_step(self, limit: int) -> None:
        self.flush(sync=False)
        self.store.compaction_step(limit)

    @rule()
    def compaction_to_the_end(self) -> None:
        self.flush(sync=False)
        while not self.store.compaction_step(2):
            pass
        stored = [(key[:17], kv) for key, kv in self.store.view().revisions()]
        left = self.model.compacted() if self.model.compact_revision > 0 else self.model.changes
        assert stored == [
            (
                change.main.to_bytes(8, "big") + b"_" + change.sub.to_bytes(8, "big"),
                (change.kv or KeyValue(key=change.key)).SerializeToString(),
            )
            for change in left
        ]

    @rule(limit=st.integers(1, 3))
    def build_ranks_step(self, limit: int) -> None:
        self.store.build_ranks_step(limit)

    @rule(back=BACK)
    def hash_keys(self, back: int) -> None:
        self.flush(sync=False)
        revision = self.model.revision - back
        if revision < max(self.model.compact_revision, 1):
            return
        got = hash_kv(self.store.view(), revision, google_crc32c.extend)
        compacted = self.model.compacted() if self.model.compact_revision > 0 else self.model.changes
        expected = google_crc32c.value(self.model.hashed_bytes(revision, stored=compacted))
        assert got == (expected, revision, self.model.compact_revision)

    # -- durability --------------------------------------------------------------------------------------------------

    @rule(sync=st.booleans())
    def flush(self, sync: bool) -> None:
        self.store.flush(sync=sync)
        self.flushed = self.model.copy()
        if sync:
            self.synced = self.model.copy()

    @rule()
    def crash_process(self) -> None:
        """What was staged is lost; what was flushed is in the operating system's hands."""
        self.model = self.flushed.copy()
        self._open()

    @rule()
    def lose_power(self) -> None:
        self.backend.crash()
        self.flushed = self.synced.copy()
        self.model = self.synced.copy()
        self._open()

    # -- always true -------------------------------------------------------------------------------------------------

    @invariant()
    def numbers_agree(self) -> None:
        assert (self.store.revision, self.store.compact_revision) == (self.model.revision, self.model.compact_revision)

    @invariant()
    def leases_agree(self) -> None:
        attached = {(kv.lease, kv.key) for kv in self.model.live().values() if kv.lease}
        assert self.book.attached == attached
        assert set(self.store.attached_keys()) == attached

    @invariant()
    def counts_agree(self) -> None:
        live = self.model.live()
        assert self.store.count(b"\x00", b"\x00") == len(live)
        assert self.store.count(b"a", b"b") == sum(1 for key in live if b"a" <= key < b"b")

    @invariant()
    def announced_events_agree(self) -> None:
        expected = self.model.events(self.opened_at + 1)
        assert [_decoded(revised) for revised in self.announced] == expected

    @precondition(lambda self: self.store.staged_count == 0)
    @invariant()
    def history_agrees(self) -> None:
        """History misses what compaction may remove: overwritten at the compact revision itself, prev_kv below it."""
        first = max(self.model.compact_revision + 1, 1)
        history = self.store.view().history(first, 1000, prev_kv=True)
        expected = self.model.events(first)
        assert [_decoded(revised) for revised in history] == expected


def _decoded(revised: Revised) -> tuple[int, list[tuple[int, bytes, KeyValue, KeyValue | None]]]:
    return revised.revision, [
        (
            event.type,
            event.key,
            KeyValue.FromString(event.kv),
            None if event.prev_kv is None else KeyValue.FromString(event.prev_kv),
        )
        for event in revised.events
    ]


TestStore = StoreMachine.TestCase
TestStore.settings = settings(max_examples=60, stateful_step_count=30, deadline=None)
