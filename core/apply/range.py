"""Range: a request and a view in, the answer's bytes out.

Records are spliced as they are stored; they are taken apart only where a request sorts or filters by what is in them
or wants keys only.  The quirks of limit, sort and count are etcd's (reference: Range in its API guide).
"""

from __future__ import annotations

import sys
from operator import attrgetter
from typing import TYPE_CHECKING, Final, NamedTuple, Protocol

from core.mvcc.past import recent_past
from core.mvcc.record import KeyValue, decode_kv, key_of, tagged, untagged, without_value
from core.mvcc.varint import varint
from proto.rpc_pb2 import RangeRequest

if TYPE_CHECKING:
    from collections.abc import Callable

    from core.mvcc.view import View

    Count = Callable[[bytes, bytes], int]


class _Sortable(Protocol):
    def __lt__(self, other: _Sortable, /) -> bool: ...


# Looked up once: the enum's names cost a search in the descriptors at each use.
_UNSORTED: Final = RangeRequest.NONE
_DESCEND: Final = RangeRequest.DESCEND
_BY_KEY: Final = RangeRequest.KEY
_SORT_FIELDS: dict[int, Callable[[KeyValue], _Sortable]] = {
    RangeRequest.KEY: attrgetter("key"),
    RangeRequest.VERSION: attrgetter("version"),
    RangeRequest.CREATE: attrgetter("create_revision"),
    RangeRequest.MOD: attrgetter("mod_revision"),
    RangeRequest.VALUE: attrgetter("value"),
}


def range_response(view: View, request: RangeRequest, header: bytes, count: Count | None = None) -> bytes:
    """Return the RangeResponse in wire form, beginning with *header* (the encoded field 1).

    *count* counts live keys faster than the view can, and must agree with it (Store.counter_for()).  The request must
    have passed check_range().  Raises FutureRevision or Compacted.
    """
    limit = request.limit
    sorts = request.sort_order != _UNSORTED
    filters = _filters(request)
    take = limit + 1 if 0 < limit < sys.maxsize and not sorts and not filters else 0
    records, total = _read(view, request, take, count)
    if request.count_only:
        return header + _count_field(total)
    if filters:
        records = [record for record in records if _passes(decode_kv(untagged(record)), request)]
    if sorts or request.sort_target != _BY_KEY:
        records = _sorted(records, request)
    more = 0 < limit < len(records)
    if more:
        del records[limit:]
    if request.keys_only:
        records = [tagged(without_value(untagged(record))) for record in records]
    records.insert(0, header)
    if more:
        records.append(b"\x18\x01")
    records.append(_count_field(total))
    return b"".join(records)


class Chunk(NamedTuple):
    """A part of a range."""

    records: list[bytes]
    """Each the wire form of one RangeResponse.kvs."""
    next_key: bytes
    """Where the rest begins; empty if there is none."""


def range_chunk(
    view: View, request: RangeRequest, key: bytes, revision: int, count_max: int, size_bytes_max: int
) -> Chunk:
    """Return the range of *request* from *key* on, at *revision*, in the order of keys.

    It ends with the record that brings it to *size_bytes_max*, or after *count_max* records unless that is 0.  Raises
    FutureRevision or Compacted.
    """
    records: list[bytes] = []
    size_bytes = 0
    last = b""
    for record in view.walk(key, request.range_end, revision):
        if size_bytes >= size_bytes_max or (count_max and len(records) == count_max):
            return Chunk(records, last + b"\0")
        kv = untagged(record)
        last = key_of(kv)
        records.append(tagged(without_value(kv)) if request.keys_only else record)
        size_bytes += len(records[-1])
    return Chunk(records, b"")


def _read(view: View, request: RangeRequest, take: int, count: Count | None) -> tuple[list[bytes], int]:
    """Return the first *take* records (0: all; none for count_only), and how many the whole range has."""
    key, range_end, revision = request.key, request.range_end, request.revision
    current = view.is_current(revision)
    if not current and range_end and count is not None:
        live_count = count(key, range_end)
        past = recent_past(view, key, range_end, revision, live_count)
        if past is not None:
            return [] if request.count_only else past.range(take), past.count(live_count)
    if current and range_end and count is not None and not request.count_only:
        # To look for more than there are would be to walk through what was deleted behind them.
        live_count = count(key, range_end)
        if not live_count:
            return [], 0
        return view.range(key, range_end, revision, min(take, live_count) if take else live_count), live_count
    records = [] if request.count_only else view.range(key, range_end, revision, take)
    if not request.count_only and (not take or len(records) < take):
        return records, len(records)
    if current and count is not None:
        return records, count(key, range_end)
    return records, view.count(key, range_end, revision)


def _count_field(count: int) -> bytes:
    return b"\x20" + varint(count) if count else b""


def _filters(request: RangeRequest) -> bool:
    return bool(
        request.min_mod_revision
        or request.max_mod_revision
        or request.min_create_revision
        or request.max_create_revision
    )


def _passes(kv: KeyValue, request: RangeRequest) -> bool:
    """Tell whether *kv* is within the inclusive bounds of *request*; a bound of 0 is no bound."""
    return (
        (not request.min_mod_revision or kv.mod_revision >= request.min_mod_revision)
        and (not request.max_mod_revision or kv.mod_revision <= request.max_mod_revision)
        and (not request.min_create_revision or kv.create_revision >= request.min_create_revision)
        and (not request.max_create_revision or kv.create_revision <= request.max_create_revision)
    )


def _sorted(records: list[bytes], request: RangeRequest) -> list[bytes]:
    """Sort as asked: without an order but with a target other than the key, ascending."""
    field = _SORT_FIELDS[request.sort_target]
    descending = request.sort_order == _DESCEND
    return sorted(records, key=lambda record: field(decode_kv(untagged(record))), reverse=descending)
