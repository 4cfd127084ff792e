"""The wire form of WatchResponse, encoded by hand.

A live event goes to thousands of watchers in messages that differ only in their watch id, so a message is put together
from parts made once: header field, id field, event fields.  The parts follow each other in the order of their field
numbers: header 1, watch_id 2, created 3, canceled 4, compact_revision 5, cancel_reason 6, fragment 7, events 11.
Fields: message WatchResponse of etcdserverpb and Event of mvccpb; a zero value is left out, as proto3 does.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from core.mvcc.event import EventType
from core.mvcc.varint import varint

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from core.mvcc.event import Event

NO_WATCH_ID: Final = -1
"""The id in an answer that concerns no watcher: a refused create, a progress request."""

_CREATED: Final = b"\x18\x01"
_CANCELED: Final = b"\x20\x01"
_COMPACT_REVISION_TAG: Final = b"\x28"
_CANCEL_REASON_TAG: Final = b"\x32"
_FRAGMENT: Final = b"\x38\x01"
_EVENTS_TAG: Final = b"\x5a"
_DELETE_TYPE: Final = b"\x08\x01"


def watch_id_field(watch_id: int) -> bytes:
    """Encode the watch_id field."""
    return b"\x10" + varint(watch_id) if watch_id else b""


def event_field(event: Event, *, prev_kv: bool) -> bytes:
    """Encode one entry of the events field, with the previous value if *prev_kv* and there was one."""
    kv = event.kv
    body = b"\x12" + varint(len(kv)) + kv
    if event.type is not EventType.PUT:
        body = _DELETE_TYPE + body
    if prev_kv and event.prev_kv is not None:
        body += b"\x1a" + varint(len(event.prev_kv)) + event.prev_kv
    return _EVENTS_TAG + varint(len(body)) + body


def created(header: bytes, id_field: bytes) -> bytes:
    """Answer a create request that was accepted."""
    return header + id_field + _CREATED


def refused(header: bytes, reason: str) -> bytes:
    """Answer a create request that was not."""
    return header + watch_id_field(NO_WATCH_ID) + _CREATED + _CANCELED + _reason_field(reason)


def canceled(header: bytes, id_field: bytes, reason: str = "") -> bytes:
    """Tell that a watcher ended: at the client's wish, or for a *reason*."""
    return header + id_field + _CANCELED + (_reason_field(reason) if reason else b"")


def compacted(header: bytes, id_field: bytes, compact_revision: int) -> bytes:
    """Tell that a watcher ended because what it needs is gone; clients know it by the revision, there is no reason."""
    return header + id_field + _CANCELED + _COMPACT_REVISION_TAG + varint(compact_revision)


def progress(header: bytes, id_field: bytes) -> bytes:
    """Tell that everything up to the header's revision was sent."""
    return header + id_field


def fragments(header: bytes, id_field: bytes, events: Sequence[bytes], size_bytes_max: int) -> Iterator[bytes]:
    """Cut the message of these event fields into pieces smaller than the limit, but of one event at least.

    All pieces but the last say that another follows.
    """
    first = header + id_field
    piece: list[bytes] = []
    size_bytes = len(first) + len(_FRAGMENT)
    for event in events:
        if piece and size_bytes + len(event) >= size_bytes_max:
            yield first + _FRAGMENT + b"".join(piece)
            piece = []
            size_bytes = len(first) + len(_FRAGMENT)
        piece.append(event)
        size_bytes += len(event)
    yield first + b"".join(piece)


def _reason_field(reason: str) -> bytes:
    encoded = reason.encode()
    return _CANCEL_REASON_TAG + varint(len(encoded)) + encoded
