"""One client's watcher, and the bytes that it is sent.  Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from core.mvcc.varint import varint
from proto.kv_pb2 import Event
from proto.rpc_pb2 import ResponseHeader, WatchCreateRequest, WatchResponse

if TYPE_CHECKING:
    from collections.abc import Sequence

    from grpcproxy.broadcast import Broadcast

FRAGMENT_BYTES: Final = 1_572_864 + 512 * 1024
"""Where a client allows it, a larger answer is sent in pieces (a member's bound at its default settings)."""

_EVENT_TAG: Final = b"\x5a"
_ID_TAG: Final = b"\x10"


class Watcher:
    """What a client has asked to watch, and how far it has been told."""

    __slots__ = (
        "announced",
        "broadcast",
        "drops",
        "end",
        "fragment",
        "id",
        "key",
        "next_revision",
        "prev_kv",
        "progress",
        "start_now",
        "stream",
    )

    def __init__(self, stream: int, watch_id: int, request: WatchCreateRequest, start: int, now: int) -> None:
        """Watch the range of *request*, as the members know it, from revision *start*, or from *now* on if that is 0.

        *now* is the first revision that the client cannot have seen.
        """
        self.stream: Final = stream
        self.id: Final = watch_id
        self.key: Final = request.key
        self.end: Final = request.range_end
        self.progress: Final = request.progress_notify
        self.prev_kv: Final = request.prev_kv
        self.fragment: Final = request.fragment
        self.drops: Final = frozenset(request.filters)
        """Types of events that are left out: the numbers of filters are those of the types."""
        self.start_now: Final = not start
        self.next_revision = start or now
        """Lowest revision of which it has not been told."""
        self.announced = False
        """Whether its client knows that it is created."""
        self.broadcast: Broadcast | None = None

    def created(self, header: ResponseHeader) -> bytes:
        """Return the message that tells that it is there."""
        told = ResponseHeader()
        told.CopyFrom(header)
        if self.start_now:
            told.revision = self.next_revision - 1
        return self.frame(WatchResponse(header=told, created=True).SerializeToString())

    def canceled(self, header: ResponseHeader, reason: str = "", compacted: int = 0) -> bytes:
        """Return the message that tells that it has ended."""
        answer = WatchResponse(header=header, canceled=True, cancel_reason=reason, compact_revision=compacted)
        return self.frame(answer.SerializeToString())

    def frame(self, body: bytes) -> bytes:
        """Return a WatchResponse without an id as this watcher's."""
        return body + _ID_TAG + varint(self.id) if self.id else body


class Batch:
    """The events of one answer, in the forms in which watchers get them, each made once."""

    def __init__(self, header: ResponseHeader, events: Sequence[Event]) -> None:
        self.header: Final = header
        self._header_bytes: Final = WatchResponse(header=header).SerializeToString()
        self._events: Final = events
        self.first_revision: Final = min(event.kv.mod_revision for event in events)
        self.last_revision: Final = max(event.kv.mod_revision for event in events)
        self._forms: dict[tuple[frozenset[int], bool], list[bytes]] = {}

    def frames_for(self, watcher: Watcher) -> list[bytes]:
        """Return what *watcher* is sent, and take note that it is told."""
        if watcher.next_revision > self.last_revision:
            return []
        pieces = self._pieces(watcher)
        watcher.next_revision = self.last_revision + 1
        if not pieces:
            return []
        if not watcher.fragment or sum(map(len, pieces)) <= FRAGMENT_BYTES:
            return [watcher.frame(self._header_bytes + b"".join(pieces))]
        return [watcher.frame(part) for part in self._fragments(pieces)]

    def _pieces(self, watcher: Watcher) -> list[bytes]:
        if watcher.next_revision > self.first_revision:
            new = [event for event in self._events if event.kv.mod_revision >= watcher.next_revision]
            return encode(new, watcher.drops, prev_kv=watcher.prev_kv)
        form = (watcher.drops, watcher.prev_kv)
        pieces = self._forms.get(form)
        if pieces is None:
            pieces = self._forms[form] = encode(self._events, watcher.drops, prev_kv=watcher.prev_kv)
        return pieces

    def _fragments(self, pieces: Sequence[bytes]) -> list[bytes]:
        fragments: list[bytes] = []
        part: list[bytes] = []
        size = 0
        for piece in pieces:
            if part and size + len(piece) > FRAGMENT_BYTES:
                fragments.append(b"".join((self._header_bytes, *part, b"\x38\x01")))
                part, size = [], 0
            part.append(piece)
            size += len(piece)
        fragments.append(b"".join((self._header_bytes, *part)))
        return fragments


def encode(events: Sequence[Event], drops: frozenset[int], *, prev_kv: bool) -> list[bytes]:
    """Return *events* as fields of a WatchResponse, without those types that *drops* names."""
    pieces = []
    for event in events:
        if event.type in drops:
            continue
        shown = event
        if not prev_kv and event.HasField("prev_kv"):
            shown = Event(type=event.type, kv=event.kv)
        body = shown.SerializeToString()
        pieces.append(_EVENT_TAG + varint(len(body)) + body)
    return pieces
