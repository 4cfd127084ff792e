"""What is read of requests without protobuf is what protobuf reads."""

from __future__ import annotations

from functools import partial

from google.protobuf.message import DecodeError
from hypothesis import example, given
from hypothesis import strategies as st

from core.apply.header import ResponseHeaders
from core.apply.kv import KvExecutor
from core.apply.plain import PlainOp, PlainTxn, plain_entry, plain_put, plain_txn
from core.apply.txn import check_txn, is_read_only
from core.errors import EtcdError
from core.mvcc.backend import MemoryBackend
from core.mvcc.store import Store
from proto.raft_internal_pb2 import InternalRaftRequest, RequestHeader
from proto.rpc_pb2 import Compare, DeleteRangeRequest, PutRequest, RangeRequest, RequestOp, TxnRequest

KEYS = st.binary(max_size=40) | st.sampled_from([b"k" * size for size in (0x7F, 0x80, 300, 0x3FFF, 0x4000, 0x20_0000)])
PUTS = st.builds(
    PutRequest,
    key=KEYS,
    value=KEYS,
    lease=st.just(0) | st.integers(-(2**63), 2**63 - 1),
    prev_kv=st.sampled_from([False, False, True]),
    ignore_value=st.sampled_from([False, False, True]),
    ignore_lease=st.sampled_from([False, False, True]),
)
IDS = st.just(0) | st.integers(0, 2**64 - 1)
MADE_IDS = st.integers(2**56, 2**64 - 1)
"""As this server makes them."""
HEADERS = st.builds(RequestHeader, ID=MADE_IDS | IDS, username=st.sampled_from(["", "", "root"]), auth_revision=IDS)
NUMBERS = [b"\x00", b"\x7f", b"\x80", b"\x80\x00", b"\x05", b"\xff" * 9 + b"\x01", b"\xff" * 9 + b"\x02", b"\xff" * 10]
PIECES = st.lists(st.sampled_from([b"\x0a", b"\x12", b"\x18", b"\x20", b"key", b"\x03key", *NUMBERS]), max_size=8)


def judged(data: bytes) -> PutRequest | None:
    try:
        return PutRequest.FromString(data)
    except DecodeError:
        return None


@given(put=PUTS)
def test_puts_of_clients_are_read_as_protobuf_reads_them(put: PutRequest) -> None:
    """A put with a key and no wishes is plain, and nothing of it is lost; any other is not."""
    data = put.SerializeToString()
    small = max(len(put.key), len(put.value)) < 0x20_0000
    is_plain = small and put.key and not (put.prev_kv or put.ignore_value or put.ignore_lease)
    assert plain_put(data, 0, len(data)) == ((put.key, put.value, put.lease) if is_plain else None)


@given(pieces=PIECES)
@example([b"\x0a", b"\x80\x00"])
@example([b"\x0a\x03key\x18", b"\xff" * 9 + b"\x02"])
@example([b"\x0a\x03key\x0a\x03key"])
@example([b"\x0a\x83\x80\x80\x80\x80\x80\x80\x80\x80\x80\x00key"])
def test_whatever_else_comes_is_not_read_otherwise_than_by_protobuf(pieces: list[bytes]) -> None:
    """Clients may send any bytes: what protobuf refuses or reads otherwise must not get in, nor differ at a member."""
    data = b"".join(pieces)
    plain = plain_put(data, 0, len(data))
    if plain is not None:
        put = judged(data)
        assert put is not None
        key, value, lease = plain
        assert put == PutRequest(key=key, value=value, lease=lease)


SHORT_KEYS = st.sampled_from([b"a", b"b", b"c"])
OPERANDS = {
    Compare.VERSION: "version",
    Compare.CREATE: "create_revision",
    Compare.MOD: "mod_revision",
    Compare.VALUE: "value",
    Compare.LEASE: "lease",
}


def compared(result: int, target: int, key: bytes, number: int, value: bytes) -> Compare:
    operand = value if target == Compare.VALUE else number
    return Compare(result=result, target=target, key=key, **{OPERANDS[target]: operand})  # type: ignore[arg-type, index]


COMPARES = st.builds(
    compared,
    st.sampled_from(list(Compare.CompareResult.values())),
    st.sampled_from(list(OPERANDS)),
    SHORT_KEYS,
    st.integers(-2, 6),
    st.sampled_from([b"", b"x", b"y"]),
)
PLAIN_PUTS = st.builds(PutRequest, key=SHORT_KEYS, value=st.sampled_from([b"", b"x", b"y"]), lease=st.integers(0, 2))
GETS = st.builds(RequestOp, request_range=st.builds(RangeRequest, key=SHORT_KEYS))
PLAIN_BRANCHES = st.builds(
    lambda before, put, after: [*before, RequestOp(request_put=put), *after],
    st.lists(GETS, max_size=1),
    PLAIN_PUTS,
    st.lists(GETS, max_size=1),
)
PLAIN_TXNS = st.builds(
    TxnRequest, compare=st.lists(COMPARES, max_size=3), success=PLAIN_BRANCHES, failure=st.lists(GETS, max_size=2)
)
OPS = st.one_of(
    GETS,
    st.builds(RequestOp, request_put=PLAIN_PUTS),
    st.builds(RequestOp, request_put=PUTS),
    st.builds(RequestOp, request_range=st.builds(RangeRequest, key=SHORT_KEYS, limit=st.integers(0, 1))),
    st.builds(RequestOp, request_delete_range=st.builds(DeleteRangeRequest, key=SHORT_KEYS)),
    st.builds(RequestOp, request_txn=PLAIN_TXNS),
    st.just(RequestOp()),
)
ANY_COMPARES = st.builds(
    Compare,
    result=st.integers(0, 5),
    target=st.integers(0, 6),
    key=st.sampled_from([b"", b"a"]),
    range_end=st.sampled_from([b"", b"b"]),
    mod_revision=st.integers(0, 2),
)
TXNS = st.builds(
    TxnRequest,
    compare=st.lists(st.one_of(COMPARES, ANY_COMPARES), max_size=3),
    success=st.lists(OPS, max_size=3),
    failure=st.lists(OPS, max_size=3),
)


def rebuilt(txn: PlainTxn) -> TxnRequest:
    """Return the request that *txn* was read from, by its own account."""

    def op(plain: PlainOp) -> RequestOp:
        if isinstance(plain, bytes):
            return RequestOp(request_range=RangeRequest(key=plain))
        key, value, lease = plain
        return RequestOp(request_put=PutRequest(key=key, value=value, lease=lease))

    compares = []
    for result, target, key, operand in txn.compares:
        compares.append(Compare(result=result, target=target, key=key))  # type: ignore[arg-type]
        if operand:
            setattr(compares[-1], OPERANDS[target], operand)  # type: ignore[index]
    return TxnRequest(compare=compares, success=map(op, txn.success), failure=map(op, txn.failure))


def without_zeros(txn: TxnRequest) -> TxnRequest:
    """Return *txn* with operands that are zero left out: they mean the same, but are not equal as messages."""
    for compare in txn.compare:
        chosen = compare.WhichOneof("target_union")
        if chosen is not None and not getattr(compare, chosen):
            compare.ClearField(chosen)
    return txn


@given(txn=PLAIN_TXNS)
def test_transactions_that_put_one_key_are_plain(txn: TxnRequest) -> None:
    """Locks, elections and whoever compares before a put send no others."""
    data = txn.SerializeToString()
    plain = plain_txn(data, 0, len(data))
    assert plain is not None
    assert rebuilt(plain) == without_zeros(txn)
    assert plain.ops_count == max(len(txn.compare), len(txn.success), len(txn.failure))


@given(txn=TXNS, cut=st.integers(0, 60), more=st.binary(max_size=3))
def test_other_transactions_are_not_read_otherwise_than_by_protobuf(txn: TxnRequest, cut: int, more: bytes) -> None:
    """Whole or damaged: what is read is what protobuf reads, and it passes the checks that are not made of it."""
    whole = txn.SerializeToString()
    for data in (whole, whole[:cut] + more):
        plain = plain_txn(data, 0, len(data))
        if plain is not None:
            read = TxnRequest.FromString(data)
            check_txn(read, plain.ops_count)
            assert not is_read_only(read)
            assert rebuilt(plain) == without_zeros(read)


class Leases:
    """Knows lease 1."""

    def exists(self, lease_id: int) -> bool:
        return lease_id == 1

    def attach(self, lease_id: int, key: bytes) -> None:
        pass

    def detach(self, lease_id: int, key: bytes) -> None:
        pass


@given(txns=st.lists(PLAIN_TXNS, min_size=1, max_size=8))
def test_both_ways_of_reading_a_transaction_have_the_same_effect(txns: list[TxnRequest]) -> None:
    """Members of one cluster may read an entry this way and that; they must come to the same state and answer."""
    stores = [Store.open(MemoryBackend()) for _ in range(2)]
    by_protobuf, by_hand = (KvExecutor(store, Leases(), ResponseHeaders(1, 2)) for store in stores)
    for index, txn in enumerate(txns, 1):
        data = txn.SerializeToString()
        plain = plain_txn(data, 0, len(data))
        assert plain is not None
        answers = []
        for apply in (partial(by_protobuf.txn, txn), partial(by_hand.txn_plain, plain)):
            try:
                answers.append(apply())
            except EtcdError as error:
                answers.append(repr(error).encode())
        assert answers[0] == answers[1]
        for store in stores:
            store.advance(index, 1)
            store.flush()
        one, two = (list(store.backend.scan(b"", b"\xff")) for store in stores)
        assert one == two


@given(put=PUTS, header=HEADERS, lone_id=st.sampled_from([0, 0, 7]))
def test_entries_are_read_as_protobuf_reads_them(put: PutRequest, header: RequestHeader, lone_id: int) -> None:
    """Where nobody is named, an entry of this server is plain if its put is; its request's id is the header's."""
    request = InternalRaftRequest(header=header, ID=lone_id, put=put)
    data = request.SerializeToString()
    put_data = put.SerializeToString()
    plain = plain_put(put_data, 0, len(put_data)) if len(put_data) < 0x20_0000 else None
    is_plain = plain is not None and header.ID >= 2**56 and not (header.username or header.auth_revision or lone_id)
    assert plain_entry(data) == ((plain, header.ID) if is_plain else None)


REQUESTS = st.one_of(
    st.builds(InternalRaftRequest, put=PUTS), st.builds(InternalRaftRequest, txn=st.one_of(PLAIN_TXNS, TXNS))
)


@given(request=REQUESTS, request_id=MADE_IDS, cut=st.integers(0, 90), more=st.binary(max_size=3), back=st.booleans())
def test_damaged_entries_are_left_to_protobuf(
    request: InternalRaftRequest, request_id: int, cut: int, more: bytes, back: bool
) -> None:
    """Nothing that a log can hold makes reading it raise, or is read otherwise."""
    request.header.ID = request_id
    data = request.SerializeToString()
    damaged = data[: len(data) - cut if back else cut] + more
    found = plain_entry(damaged)
    if found is not None:
        plain, read_id = found
        read = InternalRaftRequest.FromString(damaged)
        header = RequestHeader(ID=read_id)
        if isinstance(plain, PlainTxn):
            without_zeros(read.txn)
            assert read == InternalRaftRequest(header=header, txn=rebuilt(plain))
        else:
            key, value, lease = plain
            assert read == InternalRaftRequest(header=header, put=PutRequest(key=key, value=value, lease=lease))


@given(txn=PLAIN_TXNS, request_id=MADE_IDS)
def test_entries_of_plain_transactions_are_plain(txn: TxnRequest, request_id: int) -> None:
    """They are applied on the short road, too."""
    found = plain_entry(InternalRaftRequest(header=RequestHeader(ID=request_id), txn=txn).SerializeToString())
    assert found is not None
    assert isinstance(found[0], PlainTxn)
    assert found[1] == request_id
