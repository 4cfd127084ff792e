"""What is read of a put without protobuf is what protobuf reads."""

from __future__ import annotations

from google.protobuf.message import DecodeError
from hypothesis import example, given
from hypothesis import strategies as st

from core.apply.plain_put import plain_put, plain_put_entry
from proto.raft_internal_pb2 import InternalRaftRequest, RequestHeader
from proto.rpc_pb2 import PutRequest

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


@given(put=PUTS, header=HEADERS, lone_id=st.sampled_from([0, 0, 7]))
def test_entries_are_read_as_protobuf_reads_them(put: PutRequest, header: RequestHeader, lone_id: int) -> None:
    """Where nobody is named, an entry of this server is plain if its put is; its request's id is the header's."""
    request = InternalRaftRequest(header=header, ID=lone_id, put=put)
    data = request.SerializeToString()
    put_data = put.SerializeToString()
    plain = plain_put(put_data, 0, len(put_data)) if len(put_data) < 0x20_0000 else None
    is_plain = plain is not None and header.ID >= 2**56 and not (header.username or header.auth_revision or lone_id)
    assert plain_put_entry(data) == ((plain, header.ID) if is_plain else None)


@given(put=PUTS, request_id=MADE_IDS, cut=st.integers(0, 90), more=st.binary(max_size=3), back=st.booleans())
def test_damaged_entries_are_left_to_protobuf(
    put: PutRequest, request_id: int, cut: int, more: bytes, back: bool
) -> None:
    """Nothing that a log can hold makes reading it raise."""
    data = InternalRaftRequest(header=RequestHeader(ID=request_id), put=put).SerializeToString()
    damaged = data[: len(data) - cut if back else cut] + more
    found = plain_put_entry(damaged)
    if found is not None:
        request = InternalRaftRequest.FromString(damaged)
        (key, value, lease), read_id = found
        assert request == InternalRaftRequest(
            header=RequestHeader(ID=read_id), put=PutRequest(key=key, value=value, lease=lease)
        )
