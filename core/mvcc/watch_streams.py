"""What a watch stream and its watchers are: plain state, changed by core/mvcc/watch_hub.py only."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, NamedTuple, NewType, Protocol

from core.mvcc.event import EventType
from core.mvcc.watch_messages import event_field, watch_id_field

if TYPE_CHECKING:
    from collections.abc import Iterable

    from core.mvcc.event import Event, Revised

StreamId = NewType("StreamId", int)
"""Names one open watch stream; whoever opens it chooses the number."""

FILTER_NO_PUT: Final = 0
FILTER_NO_DELETE: Final = 1
"""Numbers of WatchCreateRequest.FilterType (on the wire: never renumber)."""

_NO_PUT: Final = 1
_NO_DELETE: Final = 2
_PREV_KV: Final = 4
_SPECIAL: Final = 8


class WatchCreate(NamedTuple):
    """A WatchCreateRequest, field by field."""

    key: bytes
    range_end: bytes = b""
    start_revision: int = 0
    progress_notify: bool = False
    filters: tuple[int, ...] = ()
    prev_kv: bool = False
    watch_id: int = 0
    fragment: bool = False
    user: str | None = None
    """Who asks; None while auth is off."""


class History(Protocol):
    """The store as of one revision, as far as watchers need it."""

    @property
    def revision(self) -> int:
        """The newest revision it holds."""

    @property
    def compact_revision(self) -> int:
        """The oldest revision that can still be read; -1 if nothing was compacted."""

    def revised(self, start_revision: int, revisions_max: int, want_prev: bool) -> list[Revised]:
        """Return the events of up to *revisions_max* revisions from *start_revision* on, whole and ascending.

        It may stop early where they are large, but not before the first one.  An empty list means there is none.
        """


class Watcher:
    """One watcher.  Everything it wants below *next_revision* was sent or is not wanted.

    *variant* tells apart the watchers of one range that see different bytes; those that need a look each (fragments,
    progress) are kept apart from those that do not.  *quiet* says that the next progress message is for it, unless an
    event comes before.
    """

    __slots__ = (
        "fragment",
        "id_field",
        "key",
        "next_revision",
        "progress_notify",
        "quiet",
        "range_end",
        "start_revision",
        "stream",
        "synced",
        "user",
        "variant",
        "watch_id",
    )

    def __init__(
        self, stream: StreamId, watch_id: int, request: WatchCreate, *, key: bytes, next_revision: int
    ) -> None:
        self.stream = stream
        self.watch_id = watch_id
        self.id_field = watch_id_field(watch_id)
        self.key = key
        self.range_end = request.range_end
        self.start_revision = request.start_revision
        self.next_revision = next_revision
        self.fragment = request.fragment
        self.progress_notify = request.progress_notify
        self.variant = (
            (_NO_PUT if FILTER_NO_PUT in request.filters else 0)
            | (_NO_DELETE if FILTER_NO_DELETE in request.filters else 0)
            | (_PREV_KV if request.prev_kv else 0)
            | (_SPECIAL if request.fragment or request.progress_notify else 0)
        )
        self.user = request.user
        self.quiet = request.progress_notify
        self.synced = False


class WatchStream:
    """One stream and its watchers by id.  While it is *blocked* its reader is behind and nothing is sent."""

    __slots__ = ("blocked", "next_id", "progress_due_s", "progress_interval_s", "watchers")

    def __init__(self, progress_interval_s: float, progress_due_s: float) -> None:
        self.watchers: dict[int, Watcher] = {}
        self.next_id = 0
        self.blocked = False
        self.progress_interval_s = progress_interval_s
        self.progress_due_s = progress_due_s

    def pick_id(self) -> int:
        """Return the next free id of the server's own counting."""
        while self.next_id in self.watchers:
            self.next_id += 1
        watch_id = self.next_id
        self.next_id += 1
        return watch_id


def wants_prev_kv(variant: int) -> bool:
    """Return whether watchers of this variant see previous values."""
    return variant & _PREV_KV != 0


def is_special(variant: int) -> bool:
    """Return whether watchers of this variant need a look each."""
    return variant & _SPECIAL != 0


def event_fields(events: Iterable[Event], variant: int) -> list[bytes]:
    """Encode those events that watchers of this variant see, as they see them."""
    prev_kv = variant & _PREV_KV != 0
    if not variant & (_NO_PUT | _NO_DELETE):
        return [event_field(event, prev_kv=prev_kv) for event in events]
    return [
        event_field(event, prev_kv=prev_kv)
        for event in events
        if not variant & (_NO_PUT if event.type is EventType.PUT else _NO_DELETE)
    ]
