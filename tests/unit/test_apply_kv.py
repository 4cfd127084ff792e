"""KV requests: what refuses them and in which order, and how the answers are built."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from core.apply.evaluate import read_only_txn_response
from core.apply.header import ResponseHeaders, operation_header
from core.apply.kv import KvExecutor
from core.apply.range import range_response
from core.apply.txn import check_delete, check_put, check_range, check_txn, is_read_only, is_serializable
from core.errors import (
    Compacted,
    DuplicateKey,
    EmptyKey,
    EtcdError,
    FutureRevision,
    InvalidSortOption,
    KeyNotFound,
    LeaseNotFound,
    LeaseProvided,
    TooManyOps,
    ValueProvided,
)
from core.mvcc.backend import MemoryBackend
from core.mvcc.store import Store
from proto.rpc_pb2 import (
    Compare,
    DeleteRangeRequest,
    DeleteRangeResponse,
    PutRequest,
    PutResponse,
    RangeRequest,
    RangeResponse,
    RequestOp,
    ResponseHeader,
    TxnRequest,
    TxnResponse,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

LEASE = 7


class Leases:
    """One lease, and what hangs on it."""

    def __init__(self) -> None:
        self.keys: set[bytes] = set()

    def exists(self, lease_id: int, /) -> bool:
        return lease_id == LEASE

    def attach(self, lease_id: int, key: bytes, /) -> None:
        assert lease_id == LEASE
        self.keys.add(key)

    def detach(self, lease_id: int, key: bytes, /) -> None:
        assert lease_id == LEASE
        self.keys.remove(key)


class Fixture:
    """An executor on an empty store, answers decoded."""

    def __init__(self, backend: MemoryBackend | None = None) -> None:
        self.store = Store.open(backend or MemoryBackend())
        self.leases = Leases()
        self.kv = KvExecutor(self.store, self.leases, ResponseHeaders(1, 2))
        self.kv.term = 3

    def put(self, key: bytes, value: bytes = b"v", lease: int = 0) -> PutResponse:
        return PutResponse.FromString(self.kv.put(key, value, lease))

    def range(self, request: RangeRequest) -> RangeResponse:
        return RangeResponse.FromString(self.kv.range(request))

    def txn(self, request: TxnRequest) -> TxnResponse:
        return TxnResponse.FromString(self.kv.txn(request))

    def value(self, key: bytes) -> bytes | None:
        kvs = self.range(RangeRequest(key=key)).kvs
        return kvs[0].value if kvs else None


@pytest.fixture
def fixture() -> Fixture:
    return Fixture()


def put_op(key: bytes, value: bytes = b"v", **options: bool) -> RequestOp:
    return RequestOp(request_put=PutRequest(key=key, value=value, **options))


def delete_op(key: bytes, range_end: bytes = b"") -> RequestOp:
    return RequestOp(request_delete_range=DeleteRangeRequest(key=key, range_end=range_end))


def range_op(key: bytes = b"k", revision: int = 0, serializable: bool = False) -> RequestOp:
    return RequestOp(request_range=RangeRequest(key=key, revision=revision, serializable=serializable))


def txn_op(success: list[RequestOp], failure: list[RequestOp] | None = None) -> RequestOp:
    return RequestOp(request_txn=TxnRequest(success=success, failure=failure or []))


# -- checks before anything is proposed -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("check", "error"),
    [
        (lambda: check_range(RangeRequest()), EmptyKey),
        (lambda: check_range(RangeRequest(key=b"k", sort_order=3)), InvalidSortOption),  # type: ignore[arg-type]  # an unknown number
        (lambda: check_range(RangeRequest(key=b"k", sort_target=-1)), InvalidSortOption),  # type: ignore[arg-type]  # an unknown number
        (lambda: check_put(PutRequest(value=b"v", ignore_value=True)), EmptyKey),
        (
            lambda: check_put(PutRequest(key=b"k", value=b"v", ignore_value=True, lease=1, ignore_lease=True)),
            ValueProvided,
        ),
        (lambda: check_put(PutRequest(key=b"k", lease=1, ignore_lease=True)), LeaseProvided),
        (lambda: check_delete(DeleteRangeRequest(range_end=b"z")), EmptyKey),
    ],
)
def test_single_requests_are_refused(check: Callable[[], None], error: type[EtcdError]) -> None:
    """The first fault in etcd's order is the one that the client is told."""
    with pytest.raises(error):
        check()


@pytest.mark.parametrize(
    ("txn", "error"),
    [
        (TxnRequest(compare=[Compare()] * 5), TooManyOps),
        (TxnRequest(compare=[Compare()], success=[put_op(b"k")] * 5), TooManyOps),
        (TxnRequest(compare=[Compare()], success=[put_op(b"")]), EmptyKey),
        (TxnRequest(success=[RequestOp()], failure=[put_op(b"")]), KeyNotFound),
        (TxnRequest(success=[put_op(b"k", ignore_value=True)]), ValueProvided),
        (TxnRequest(success=[put_op(b"k")] * 2, failure=[put_op(b"")]), EmptyKey),
        (TxnRequest(success=[put_op(b"k")] * 2), DuplicateKey),
        (TxnRequest(failure=[put_op(b"k")] * 2), DuplicateKey),
        # A nested transaction has the budget that its parent leaves: 4 - 1 here.
        (TxnRequest(success=[txn_op([range_op()] * 4)]), TooManyOps),
        (TxnRequest(success=[txn_op([], [put_op(b"")])]), EmptyKey),
    ],
)
def test_transactions_are_refused(txn: TxnRequest, error: type[EtcdError]) -> None:
    """Counts, then empty keys, then operations, then overlaps, of both branches whichever will be taken."""
    with pytest.raises(error):
        check_txn(txn, 4)


@pytest.mark.parametrize(
    "ops",
    [
        [put_op(b"k"), delete_op(b"k")],
        [delete_op(b"a", b"z"), put_op(b"k")],
        [delete_op(b"a", b"c"), delete_op(b"b", b"e"), delete_op(b"x", b"z"), put_op(b"d")],
        [delete_op(b"x", b"z"), delete_op(b"a", b"c"), delete_op(b"c", b"e"), put_op(b"c")],
        [put_op(b"k"), txn_op([delete_op(b"a", b"z")])],
        [put_op(b"k"), txn_op([], [delete_op(b"k")])],
        [delete_op(b"a", b"z"), txn_op([put_op(b"k")])],
        [delete_op(b"k"), txn_op([], [put_op(b"k")])],
        [put_op(b"k"), txn_op([put_op(b"k")])],
        [txn_op([put_op(b"k")]), txn_op([], [put_op(b"k")])],
        [txn_op([delete_op(b"k")]), txn_op([put_op(b"k")])],
        [txn_op([txn_op([put_op(b"k")]), put_op(b"k")])],
    ],
)
def test_a_key_may_not_be_changed_twice(ops: list[RequestOp]) -> None:
    """Events of one revision must not contradict each other."""
    with pytest.raises(DuplicateKey):
        check_txn(TxnRequest(success=ops), 100)


@pytest.mark.parametrize(
    "ops",
    [
        [delete_op(b"a", b"k"), put_op(b"k")],
        [delete_op(b"a", b"z"), delete_op(b"b", b"y"), delete_op(b"c")],
        [delete_op(b"a", b"\x00"), put_op(b"k")],
        [delete_op(b"z", b"a"), put_op(b"k")],
        [txn_op([put_op(b"k")], [put_op(b"k")])],
        [txn_op([put_op(b"k")]), txn_op([delete_op(b"k")])],
        [txn_op([put_op(b"k")], [delete_op(b"k")])],
    ],
)
def test_what_only_looks_like_an_overlap_is_allowed(ops: list[RequestOp]) -> None:
    """Deletes may overlap, branches exclude each other, and two gaps of etcd's check are kept: clients may use them."""
    check_txn(TxnRequest(success=ops), 100)


@given(
    deletes=st.lists(st.tuples(st.binary(min_size=1, max_size=2), st.binary(max_size=2)), max_size=6),
    key=st.binary(min_size=1, max_size=2),
)
def test_overlaps_are_found_whatever_the_ranges(deletes: list[tuple[bytes, bytes]], key: bytes) -> None:
    """The merged intervals must cover what the single ones do."""
    covered = any(key == start if not end else start <= key < end for start, end in deletes)
    ops = [delete_op(start, end) for start, end in deletes]
    txn = TxnRequest(success=[*ops, put_op(key)])
    if covered:
        with pytest.raises(DuplicateKey):
            check_txn(txn, 100)
    else:
        check_txn(txn, 100)


def test_kinds_of_transactions() -> None:
    """They decide who may answer: a member alone, after a read index, or the log."""
    assert is_read_only(TxnRequest(success=[range_op()], failure=[range_op()]))
    assert not is_read_only(TxnRequest(failure=[put_op(b"k")]))
    assert not is_read_only(TxnRequest(success=[txn_op([range_op()])]))
    assert is_serializable(TxnRequest(compare=[Compare(key=b"k")]))
    assert is_serializable(TxnRequest(success=[range_op(serializable=True)]))
    assert not is_serializable(TxnRequest(success=[range_op(serializable=True)], failure=[range_op()]))


# -- applying ---------------------------------------------------------------------------------------------------------


def test_a_put_answers_with_a_full_header(fixture: Fixture) -> None:
    """The first write is revision 2."""
    assert fixture.put(b"k").header == ResponseHeader(cluster_id=1, member_id=2, revision=2, raft_term=3)


def test_ignore_value_and_ignore_lease_keep_what_is_there(fixture: Fixture) -> None:
    """Each keeps one thing; the other is set as given."""
    fixture.put(b"k", b"old", LEASE)
    fixture.kv.put(b"k", b"", ignore_value=True)
    assert (fixture.value(b"k"), fixture.leases.keys) == (b"old", set())
    fixture.kv.put(b"k", b"old", LEASE)
    fixture.kv.put(b"k", b"new", ignore_lease=True)
    assert (fixture.value(b"k"), fixture.leases.keys) == (b"new", {b"k"})


def test_puts_are_refused_without_effect(fixture: Fixture) -> None:
    """An unknown lease comes before a missing key, as in etcd."""
    with pytest.raises(KeyNotFound):
        fixture.kv.put(b"k", b"", ignore_value=True)
    with pytest.raises(LeaseNotFound):
        fixture.kv.put(b"k", b"", lease=8, ignore_value=True)
    assert (fixture.store.revision, fixture.store.staged_count, fixture.kv.take_changes()) == (1, 0, [])


def test_deleting_nothing_changes_nothing(fixture: Fixture) -> None:
    """The revision counts changes, not requests."""
    fixture.put(b"k")
    answer = DeleteRangeResponse.FromString(fixture.kv.delete_range(b"a", b"b"))
    assert (answer.deleted, answer.header.revision) == (0, 2)
    assert [revised.revision for revised in fixture.kv.take_changes()] == [2]


def test_a_delete_takes_keys_off_their_lease(fixture: Fixture) -> None:
    """The lease must not delete a key that was made anew without it."""
    fixture.put(b"k", lease=LEASE)
    fixture.kv.delete_range(b"k")
    assert fixture.leases.keys == set()
    assert list(fixture.store.attached_keys()) == []


def test_changes_are_taken_once(fixture: Fixture) -> None:
    """Watchers must get each event exactly once."""
    fixture.put(b"a")
    fixture.put(b"b")
    assert [revised.revision for revised in fixture.kv.take_changes()] == [2, 3]
    assert fixture.kv.take_changes() == []


def test_nested_headers_have_only_what_etcd_gives_them(fixture: Fixture) -> None:
    """Operations show the revision at that point, nested transactions none, the whole its final one."""
    answer = fixture.txn(TxnRequest(success=[range_op(), put_op(b"k"), txn_op([range_op()]), delete_op(b"x")]))
    assert answer.header == ResponseHeader(cluster_id=1, member_id=2, revision=2, raft_term=3)
    first, put, nested, delete = answer.responses
    assert first.response_range.header == ResponseHeader(revision=1)
    assert put.response_put.header == ResponseHeader(revision=2)
    assert nested.response_txn.HasField("header")
    assert nested.response_txn.header == ResponseHeader()
    assert nested.response_txn.responses[0].response_range.count == 1
    assert delete.response_delete_range.header == ResponseHeader(revision=2)


@pytest.mark.parametrize(
    ("ops", "error"),
    [
        ([put_op(b"new"), range_op(revision=4)], FutureRevision),
        ([put_op(b"new"), range_op(revision=2)], Compacted),
        ([put_op(b"new"), range_op(revision=-1)], Compacted),
        ([put_op(b"new"), RequestOp(request_put=PutRequest(key=b"k", lease=8))], LeaseNotFound),
        ([put_op(b"new"), put_op(b"other", b"", ignore_value=True)], KeyNotFound),
        ([put_op(b"new"), txn_op([put_op(b"other", ignore_lease=True)])], KeyNotFound),
        # Of several faults the first in order is named, of one put the lease before the key.
        ([range_op(revision=4), RequestOp(request_put=PutRequest(key=b"k", lease=8))], FutureRevision),
        (
            [RequestOp(request_put=PutRequest(key=b"x", lease=8, ignore_value=True)), range_op(revision=4)],
            LeaseNotFound,
        ),
        # The key is there before, but not any more when the put runs.
        ([delete_op(b"k", b"\x00"), put_op(b"k", b"", ignore_value=True)], KeyNotFound),
        ([txn_op([delete_op(b"a", b"\x00")]), put_op(b"k", b"", ignore_value=True)], KeyNotFound),
    ],
)
def test_a_refused_transaction_leaves_no_effect(fixture: Fixture, ops: list[RequestOp], error: type[EtcdError]) -> None:
    """All is checked before the first operation runs; nothing may be half applied."""
    fixture.put(b"k")
    fixture.put(b"k")
    fixture.kv.compact(3)
    fixture.kv.take_changes()
    staged = fixture.store.staged_count
    with pytest.raises(error):
        fixture.txn(TxnRequest(success=ops))
    assert (fixture.store.revision, fixture.store.staged_count, fixture.kv.take_changes()) == (3, staged, [])
    assert fixture.value(b"new") is None


def test_nested_compares_see_the_state_before(fixture: Fixture) -> None:
    """A transaction is one moment: what it writes must not decide what else it does."""
    fixture.put(b"k", b"old")
    is_new = Compare(key=b"k", target=Compare.VALUE, value=b"new")
    nested = RequestOp(request_txn=TxnRequest(compare=[is_new], success=[put_op(b"yes")], failure=[put_op(b"no")]))
    answer = fixture.txn(TxnRequest(success=[put_op(b"k", b"new"), nested]))
    assert not answer.responses[1].response_txn.succeeded
    assert fixture.value(b"no") == b"v"


def _compare(target: int, result: int, key: bytes = b"k", **operand: int | bytes) -> Compare:
    return Compare(key=key, target=target, result=result, **operand)  # type: ignore[arg-type]  # unknown numbers too


@pytest.mark.parametrize(
    ("compare", "holds"),
    [
        (_compare(Compare.VERSION, Compare.EQUAL, version=2), True),
        (_compare(Compare.CREATE, Compare.LESS, create_revision=2), False),
        (_compare(Compare.MOD, Compare.GREATER, mod_revision=2), True),
        (_compare(Compare.LEASE, Compare.EQUAL, lease=LEASE), True),
        (_compare(Compare.VALUE, Compare.NOT_EQUAL, value=b"other"), True),
        (_compare(Compare.VALUE, Compare.LESS, value=b"w"), True),
        (_compare(Compare.VERSION, Compare.GREATER), True),  # nothing given is 0
        (_compare(Compare.VALUE, Compare.GREATER, version=9), True),  # what does not fit the target is not given
        (_compare(Compare.VERSION, 9, version=99), True),
        (_compare(9, Compare.EQUAL), True),
        (_compare(9, Compare.LESS), False),
        (_compare(Compare.VALUE, Compare.NOT_EQUAL, b"none", value=b"x"), False),
        (_compare(Compare.VALUE, 9, b"none"), False),
        (_compare(Compare.VERSION, Compare.EQUAL, b"none", version=0), True),
        (_compare(Compare.MOD, Compare.LESS, range_end=b"\x00", mod_revision=5), True),
        (_compare(Compare.MOD, Compare.LESS, range_end=b"\x00", mod_revision=4), False),
        (_compare(Compare.VALUE, Compare.EQUAL, b"y", range_end=b"z"), False),
        (_compare(Compare.CREATE, Compare.EQUAL, b"y", range_end=b"z"), True),
    ],
)
def test_compares(fixture: Fixture, compare: Compare, holds: bool) -> None:
    """Stored <result> given, for every key of a range; a missing key has no value, and 0 for the rest."""
    fixture.put(b"k")
    fixture.put(b"k", b"v", LEASE)
    fixture.put(b"m")
    assert fixture.txn(TxnRequest(compare=[compare])).succeeded == holds


def test_a_read_only_transaction_reads_a_view(fixture: Fixture) -> None:
    """It answers with the view's revision, whatever was written since."""
    fixture.put(b"k")
    fixture.store.flush()
    view = fixture.store.view()
    fixture.put(b"k")
    header = ResponseHeaders(1, 2).encode(view.revision, 3)
    request = TxnRequest(success=[range_op(), range_op(revision=2)])
    answer = TxnResponse.FromString(read_only_txn_response(view, request, header))
    assert answer.header.revision == 2
    assert [op.response_range.kvs[0].mod_revision for op in answer.responses] == [2, 2]
    with pytest.raises(FutureRevision):
        read_only_txn_response(view, TxnRequest(success=[range_op(revision=3)]), header)


class SteppingBackend(MemoryBackend):
    """Counts how often a scan is asked to go on."""

    steps_count = 0

    def scan_values(self, start: bytes, stop: bytes) -> Iterator[bytes]:
        values = super().scan_values(start, stop)

        def stepping() -> Iterator[bytes]:
            while True:
                self.steps_count += 1
                value = next(values, None)
                if value is None:
                    return
                yield value

        return stepping()


def test_nobody_looks_behind_the_last_live_key() -> None:
    """There may lie a hundred thousand deleted ones, through which LevelDB would walk for a quarter of a second."""
    backend = SteppingBackend()
    fixture = Fixture(backend)
    for key in (b"a", b"b", b"c"):
        fixture.put(key)
    assert fixture.store.build_ranks_step(100)
    fixture.kv.delete_range(b"c", b"")
    fixture.store.flush()
    found = fixture.range(RangeRequest(key=b"a", range_end=b"z"))
    assert [kv.key for kv in found.kvs] == [b"a", b"b"]
    assert backend.steps_count == 2
    assert fixture.range(RangeRequest(key=b"a", range_end=b"z", limit=1)).count == 2
    assert backend.steps_count == 4
    assert fixture.range(RangeRequest(key=b"c", range_end=b"z")).count == 0
    assert DeleteRangeResponse.FromString(fixture.kv.delete_range(b"c", b"z")).deleted == 0
    assert backend.steps_count == 4
    assert DeleteRangeResponse.FromString(fixture.kv.delete_range(b"a", b"z")).deleted == 2
    assert backend.steps_count == 6


def test_large_values_are_read_through_their_pointer(fixture: Fixture) -> None:
    """They are stored once; every way to read one must follow the pointer, staged or flushed."""
    large = b"x" * 100_000
    fixture.put(b"k", large)
    assert fixture.value(b"k") == large
    fixture.store.flush()
    view = fixture.store.view()
    header = operation_header(view.revision)
    for request in (RangeRequest(key=b"k"), RangeRequest(key=b"a", range_end=b"\x00", limit=1)):
        assert RangeResponse.FromString(range_response(view, request, header)).kvs[0].value == large
    got = PutResponse.FromString(fixture.kv.put(b"k", b"small", prev_kv=True))
    assert got.prev_kv.value == large
    assert got.prev_kv.version == 1


@given(
    cluster_id=st.integers(0, 2**64 - 1),
    member_id=st.integers(0, 2**64 - 1),
    moments=st.lists(st.tuples(st.integers(0, 2**63 - 1), st.integers(0, 2**64 - 1)), min_size=1, max_size=5),
)
def test_headers_are_encoded_as_protobuf_does(cluster_id: int, member_id: int, moments: list[tuple[int, int]]) -> None:
    """The one made last is remembered, which must not show."""
    headers = ResponseHeaders(cluster_id, member_id)
    for revision, term in [*moments, *moments]:
        expected = ResponseHeader(cluster_id=cluster_id, member_id=member_id, revision=revision, raft_term=term)
        assert headers.encode(revision, term) == PutResponse(header=expected).SerializeToString()
