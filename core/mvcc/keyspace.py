"""Where everything lies in the one ordered map that the backend is: prefixes, and how keys are put together.

    prefix  key                                             value
    r       revision: main (8 bytes) _ sub (8 bytes) [t]    KeyValue; the same keys and values as etcd's bucket "key"
    c       user key                                        the live record, see core/mvcc/record.py
    k       escaped user key, main (8 bytes), sub (4)       empty for a put, "t" for a tombstone
    a       lease id (8 bytes), user key                    empty; the live keys attached to a lease
    others  as in etcd's bucket of that name                as in etcd's bucket

All numbers are big-endian, so that byte order is number order.  On disk: never change without a new layout version.
"""

from __future__ import annotations

from enum import Enum
from struct import Struct
from typing import Final

RECORDS: Final = b"r"
CURRENT: Final = b"c"
HISTORY: Final = b"k"
ATTACHED: Final = b"a"
LAYOUT: Final = b"0"
"""Holds what describes the store itself; see storage/schema.py."""

TOMBSTONE: Final = b"t"
FROM_KEY: Final = b"\x00"
"""As range_end: every key from the first on."""

_RECORD: Final = Struct(">cQcQ")
_REVISION: Final = Struct(">QI")
_MAIN: Final = Struct(">Q")
REVISION_SIZE_BYTES: Final = 12
"""The length of main and sub at the end of a history key."""


class Bucket(Enum):
    """etcd's buckets other than "key": name, and the prefix that its keys have here (on disk: never change)."""

    ALARM = ("alarm", b"Z")
    AUTH = ("auth", b"A")
    AUTH_ROLES = ("authRoles", b"R")
    AUTH_USERS = ("authUsers", b"U")
    CLUSTER = ("cluster", b"C")
    LEASE = ("lease", b"L")
    MEMBERS = ("members", b"N")
    MEMBERS_REMOVED = ("members_removed", b"X")
    META = ("meta", b"M")

    @property
    def bucket_name(self) -> str:
        """What etcd calls the bucket."""
        return self.value[0]

    @property
    def prefix(self) -> bytes:
        """What keys of the bucket start with here."""
        return self.value[1]


def after(prefix: bytes) -> bytes:
    """Return the first key behind all keys with this one-byte *prefix*."""
    return bytes((prefix[0] + 1,))


def record_key(main: int, sub: int) -> bytes:
    """Return the key of a put's record."""
    return _RECORD.pack(RECORDS, main, b"_", sub)


def record_start(main: int) -> bytes:
    """Return the smallest key that a record of *main* or later can have."""
    return RECORDS + _MAIN.pack(main)


def record_revision(key: bytes) -> tuple[int, int, bool]:
    """Return main, sub and whether it is a tombstone, of a key that starts with the prefix."""
    _, main, _, sub = _RECORD.unpack_from(key)
    return main, sub, len(key) > _RECORD.size


def escape(key: bytes) -> bytes:
    """Return a form of *key* in which no key is the start of another; it keeps the order of keys."""
    return key.replace(b"\x00", b"\x00\xff") + b"\x00\x00"


def unescape(escaped: bytes) -> bytes:
    """Undo escape()."""
    return escaped[:-2].replace(b"\x00\xff", b"\x00")


def history_key(key: bytes, main: int, sub: int) -> bytes:
    """Return where the history of *key* notes its change at (main, sub)."""
    return HISTORY + key.replace(b"\x00", b"\x00\xff") + b"\x00\x00" + _REVISION.pack(main, sub)


def history_prefix(key: bytes) -> bytes:
    """Return what all history keys of *key* start with."""
    return HISTORY + escape(key)


def history_revision(key: bytes) -> tuple[int, int]:
    """Return main and sub of a history key."""
    main, sub = _REVISION.unpack_from(key, len(key) - REVISION_SIZE_BYTES)
    return main, sub


def revision_suffix(main: int) -> bytes:
    """Return what a history key's end compares with: ends of revisions below *main* are smaller."""
    return _REVISION.pack(main, 0)


def record_key_of_history(key: bytes) -> bytes:
    """Return the key of the put's record that a history key points to."""
    return RECORDS + key[-12:-4] + b"_\x00\x00\x00\x00" + key[-4:]


def attached_key(lease: int, key: bytes) -> bytes:
    """Return where it is noted that the live *key* is attached to *lease*."""
    return ATTACHED + _MAIN.pack(lease & 0xFFFFFFFFFFFFFFFF) + key


def attached_parts(key: bytes) -> tuple[int, bytes]:
    """Return the (signed) lease id and the user key of an attached_key()."""
    lease = int.from_bytes(key[1:9], "big", signed=True)
    return lease, key[9:]


def bounds(prefix: bytes, key: bytes, range_end: bytes) -> tuple[bytes, bytes]:
    """Return start and stop of the user keys [key, range_end) under *prefix*, whose keys are not escaped."""
    if not range_end:
        return prefix + key, prefix + key + b"\x00"
    return prefix + key, after(prefix) if range_end == FROM_KEY else prefix + range_end


def history_bounds(key: bytes, range_end: bytes) -> tuple[bytes, bytes]:
    """Return start and stop of the histories of the user keys [key, range_end)."""
    start = history_prefix(key)
    if not range_end:
        return start, start + b"\xff" * (REVISION_SIZE_BYTES + 1)
    return start, after(HISTORY) if range_end == FROM_KEY else history_prefix(range_end)
