"""mvccpb.KeyValue in wire form, and the form in which the live one of each key is stored.

A live record is the bytes as they stand in an answer: tag 0x12, length, KeyValue.  The same tag serves
RangeResponse.kvs and PutResponse.prev_kv, so an answer is a join of records.  A large KeyValue is not stored twice:
its live record is a pointer, the byte 0x00 and the revision key under which the records hold it.

KeyValue's fields are always written in the order of their numbers, as etcd does; readers here rely on it.
"""

from __future__ import annotations

from typing import Final, NamedTuple

from core.mvcc.varint import field, read_varint, signed, varint

RECORD_TAG: Final = 0x12
POINTER_TAG: Final = b"\x00"
INLINE_SIZE_BYTES_MAX: Final = 8192
"""A larger KeyValue gets a pointer: below it one read beats two, above it the second write costs more than that."""


class KeyValue(NamedTuple):
    """A KeyValue taken apart."""

    key: bytes
    create_revision: int
    mod_revision: int
    version: int
    value: bytes
    lease: int


def encode_kv(key: bytes, create_revision: bytes, mod_revision: bytes, version: int, value: bytes, lease: int) -> bytes:
    """Return the wire form; both revisions come already encoded, since a put has them so."""
    head = b"\x0a%b%b\x10%b\x18%b\x20%b" % (varint(len(key)), key, create_revision, mod_revision, varint(version))
    tail = b"\x30" + varint(lease) if lease else b""
    return b"%b\x2a%b%b%b" % (head, varint(len(value)), value, tail) if value else head + tail


def encode_key_only(key: bytes) -> bytes:
    """Return the KeyValue of a tombstone's record."""
    return b"\x0a%b%b" % (varint(len(key)), key)


def encode_deleted(key: bytes, mod_revision: bytes) -> bytes:
    """Return the KeyValue of a DELETE event."""
    return b"\x0a%b%b\x18%b" % (varint(len(key)), key, mod_revision)


def tagged(kv: bytes) -> bytes:
    """Return *kv* as it stands in an answer."""
    return field(b"\x12", kv)


def untagged(record: bytes) -> bytes:
    """Return the KeyValue of an inline live record."""
    if record[1] < 0x80:
        return record[2:]
    if record[2] < 0x80:
        return record[3:]
    _, start = read_varint(record, 1)
    return record[start:]


def succession(kv: bytes, key: bytes) -> tuple[bytes, int, int]:
    """Return what the next put of *key* takes over from its present *kv*: create_revision, encoded; version; lease.

    It reads no more than that: this runs for every overwrite.
    """
    length = len(key)
    at = length + (4 if length >= 0x4000 else 3 if length >= 0x80 else 2)
    if length >= 0x200000:
        _, at = read_varint(kv, 1)
        at += length
    start = at = at + 1  # behind the tag of create_revision
    while kv[at] >= 0x80:
        at += 1
    at += 1
    create_revision = kv[start:at]
    at += 1  # the tag of mod_revision
    while kv[at] >= 0x80:
        at += 1
    version = kv[at + 2]
    at += 3
    if version >= 0x80:
        version, at = read_varint(kv, at - 1)
    end = len(kv)
    if at < end and kv[at] == 0x2A:
        size, at = read_varint(kv, at + 1)
        at += size
    lease = signed(read_varint(kv, at + 1)[0]) if at < end else 0
    return create_revision, version, lease


def decode_kv(kv: bytes) -> KeyValue:
    """Take a stored KeyValue apart; absent fields are zero."""
    length, at = read_varint(kv, 1)
    key = kv[at : at + length]
    at += length
    create_revision = mod_revision = version = lease = 0
    value = b""
    end = len(kv)
    while at < end:
        tag = kv[at]
        number, at = read_varint(kv, at + 1)
        if tag == 0x2A:
            value = kv[at : at + number]
            at += number
        elif tag == 0x10:
            create_revision = number
        elif tag == 0x18:
            mod_revision = number
        elif tag == 0x20:
            version = number
        else:
            lease = signed(number)
    return KeyValue(key, create_revision, mod_revision, version, value, lease)


def number_of(kv: bytes, tag: int) -> int:
    """Return only the number with this *tag* of a KeyValue; 0 if it has none, or is empty."""
    at, end = 0, len(kv)
    while at < end:
        found = kv[at]
        number, at = read_varint(kv, at + 1)
        if found == tag:
            return signed(number)
        if found in {0x0A, 0x2A}:
            at += number
    return 0


def value_of(kv: bytes) -> bytes:
    """Return only the value; an empty *kv* has the empty one."""
    return decode_kv(kv).value if kv else b""


def mod_revision_of(kv: bytes) -> int:
    """Return only the mod_revision of a put's KeyValue."""
    length, at = read_varint(kv, 1)
    at += length + 1
    while kv[at] >= 0x80:
        at += 1
    return read_varint(kv, at + 2)[0]


def key_of(kv: bytes) -> bytes:
    """Return only the key; an empty *kv*, with which etcd's tools mark a raised revision, has the empty one."""
    if not kv:
        return b""
    length, at = read_varint(kv, 1)
    return kv[at : at + length]


def without_value(kv: bytes) -> bytes:
    """Return *kv* as keys_only answers show it."""
    length, at = read_varint(kv, 1)
    at += length
    for _ in range(3):  # create_revision, mod_revision, version: a tag and a number each
        at += 1
        while kv[at] >= 0x80:
            at += 1
        at += 1
    if at == len(kv) or kv[at] != 0x2A:
        return kv
    size, end = read_varint(kv, at + 1)
    return kv[:at] + kv[end + size :]
