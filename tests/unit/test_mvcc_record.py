"""Hand-written wire forms against protobuf's own, and keys whose byte order must be their meaning's order."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from core.mvcc.keyspace import (
    attached_key,
    attached_parts,
    escape,
    history_key,
    record_key,
    record_key_of_history,
    record_revision,
    unescape,
)
from core.mvcc.record import (
    decode_kv,
    encode_deleted,
    encode_key_only,
    encode_kv,
    key_of,
    mod_revision_of,
    succession,
    tagged,
    untagged,
    without_value,
)
from core.mvcc.varint import read_varint, signed, varint
from proto.kv_pb2 import KeyValue
from proto.rpc_pb2 import RangeResponse

NUMBERS = st.one_of(st.integers(1, 300), st.integers(1, 2**63 - 1))
KEYS = st.one_of(
    st.binary(min_size=1, max_size=40), st.sampled_from([b"k" * 127, b"k" * 128, b"k" * 16384, b"k" * 2**21])
)
KEY_VALUES = st.builds(
    KeyValue,
    key=KEYS,
    create_revision=NUMBERS,
    mod_revision=NUMBERS,
    version=NUMBERS,
    value=st.one_of(st.binary(max_size=200), st.just(b"v" * 20_000)),
    lease=st.one_of(st.just(0), st.integers(-(2**63), 2**63 - 1)),
)


def _encoded(kv: KeyValue) -> bytes:
    return encode_kv(kv.key, varint(kv.create_revision), varint(kv.mod_revision), kv.version, kv.value, kv.lease)


@given(kv=KEY_VALUES)
def test_key_values_are_encoded_and_read_as_protobuf_does(kv: KeyValue) -> None:
    """Clients parse these bytes, and etcd hashes them: they must be the canonical encoding."""
    encoded = _encoded(kv)
    assert encoded == kv.SerializeToString()
    assert decode_kv(encoded) == (kv.key, kv.create_revision, kv.mod_revision, kv.version, kv.value, kv.lease)
    assert key_of(encoded) == kv.key
    assert mod_revision_of(encoded) == kv.mod_revision
    create_revision, version, lease = succession(encoded, kv.key)
    assert (create_revision, version, lease) == (varint(kv.create_revision), kv.version, kv.lease)


@given(kv=KEY_VALUES)
def test_records_are_fields_of_an_answer(kv: KeyValue) -> None:
    """A range is a join of records, so a record must be a whole field of RangeResponse."""
    record = tagged(_encoded(kv))
    assert RangeResponse.FromString(record + record).kvs == [kv, kv]
    assert untagged(record) == _encoded(kv)
    kv.value = b""
    assert without_value(untagged(record)) == kv.SerializeToString()


@given(key=KEYS, main=NUMBERS)
def test_deletions_are_encoded_as_protobuf_does(key: bytes, main: int) -> None:
    """A tombstone's record has only the key, its event also the revision."""
    assert encode_key_only(key) == KeyValue(key=key).SerializeToString()
    assert encode_deleted(key, varint(main)) == KeyValue(key=key, mod_revision=main).SerializeToString()


@given(number=st.one_of(st.integers(-(2**63), 2**63 - 1), st.sampled_from([0, 127, 128, 16383, 16384])))
def test_varints_round_trip(number: int) -> None:
    """Lease ids may be negative; the tables for small numbers must not differ from the loop."""
    encoded = varint(number)
    unsigned, end = read_varint(b"\x00" + encoded, 1)
    assert (signed(unsigned), end) == (number, len(encoded) + 1)


@given(keys=st.lists(st.binary(max_size=6).map(lambda key: key.replace(b"\x55", b"\x00")), min_size=2, max_size=2))
def test_escaping_keeps_the_order_of_keys_whatever_follows(keys: list[bytes]) -> None:
    """History of one key must stay apart from that of the next, though user keys may contain any byte."""
    one, other = keys
    assert unescape(escape(one)) == one
    if one < other:
        assert history_key(one, 2**64 - 1, 2**32 - 1) < history_key(other, 0, 0)


@given(main=st.integers(0, 2**63 - 1), sub=st.integers(0, 2**32 - 1), key=st.binary(min_size=1, max_size=5))
def test_history_leads_to_the_record(main: int, sub: int, key: bytes) -> None:
    """Reads at an old revision go from one to the other."""
    record = record_key(main, sub)
    assert record_key_of_history(history_key(key, main, sub)) == record
    assert record_revision(record) == (main, sub, False)
    assert record_revision(record + b"t") == (main, sub, True)


@given(lease=st.integers(-(2**63), 2**63 - 1), key=st.binary(min_size=1, max_size=5))
def test_attachments_round_trip(lease: int, key: bytes) -> None:
    """The lease book is rebuilt from these."""
    assert attached_parts(attached_key(lease, key)) == (lease, key)
