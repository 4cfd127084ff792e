"""The watchers of one member: who is told of which event, in which message, and when.

A watcher is *synced* when it was sent everything up to the hub's revision: it then gets each new revision at once.  Any
other is *unsynced* and reads history in rounds until it has caught up.  Nothing is kept for a slow stream but the
revision each of its watchers has come to, so a reader that stalls costs no memory and delays nobody.

It knows neither the transport nor the store: it returns the bytes to send and reads through a `History`.  Behaviour:
section Watch of the etcd v3 API; the promises (ordered, unique, complete, atomic, resumable) are etcd's too.
"""

from __future__ import annotations

from itertools import islice
from typing import TYPE_CHECKING, NamedTuple

from core.errors import Compacted
from core.mvcc import watch_messages
from core.mvcc.watch_ranges import FROM_KEY, WatchRanges
from core.mvcc.watch_replay import replayed
from core.mvcc.watch_streams import StreamId, Watcher, WatchStream, event_fields, is_special, wants_prev_kv

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from core.mvcc.event import Event, Revised
    from core.mvcc.watch_ranges import WatchGroup
    from core.mvcc.watch_streams import History, WatchCreate

REVISIONS_PER_MESSAGE_MAX = 1000
"""How much history one catch-up round reads; etcd's number."""

RANGE_IS_EMPTY = "mvcc: watcher range is empty"
DUPLICATE_ID = "mvcc: duplicate watch ID provided on the WatchStream"


class Frame(NamedTuple):
    """A WatchResponse in wire form.  Frames of one stream must be sent in the order returned, none left out."""

    stream: StreamId
    message: bytes


class WatchHub:
    """Belongs to WatchActor.  Every method that has something to send returns it; times are monotonic seconds.

    A `History` handed in is at least as new as the newest revision notified before; it may be newer.
    """

    def __init__(self, *, header: Callable[[int], bytes], fragment_size_bytes: int, revision: int) -> None:
        """Start at the store's current *revision*.

        *header* encodes the header field of a response, tag and all, for a revision.  A watcher that asked for
        fragments gets messages of at least *fragment_size_bytes* in pieces.
        """
        self._header = header
        self._fragment_size_bytes = fragment_size_bytes
        self._revision = revision
        self._current = revision  # the newest revision known to exist: a History may be ahead of the notifications
        self._streams: dict[StreamId, WatchStream] = {}
        self._synced = WatchRanges()
        self._synced_count = 0
        self._unsynced: dict[Watcher, None] = {}  # of streams not blocked; the first in is the next to catch up
        self._progress_wanted: dict[StreamId, int] = {}
        self._event_count = 0

    @property
    def stream_count(self) -> int:
        """How many streams are open."""
        return len(self._streams)

    @property
    def watcher_count(self) -> int:
        """How many watchers there are, those of blocked streams included."""
        return sum(len(watching.watchers) for watching in self._streams.values())

    @property
    def event_count(self) -> int:
        """How many events have been sent, each counted for every watcher that got it."""
        return self._event_count

    @property
    def synced_count(self) -> int:
        """How many watchers get new events at once."""
        return self._synced_count

    @property
    def unsynced_count(self) -> int:
        """How many watchers `catch_up` has work for; those of blocked streams are not among them."""
        return len(self._unsynced)

    def open_stream(self, stream: StreamId, *, now_s: float, progress_interval_s: float) -> None:
        """Begin a stream.  Only an open stream may create, cancel or ask for progress.

        A watcher with progress_notify goes without a message for about *progress_interval_s* at most.
        """
        assert stream not in self._streams, stream
        self._streams[stream] = WatchStream(progress_interval_s, now_s + progress_interval_s)

    def close_stream(self, stream: StreamId) -> None:
        """Forget a stream and its watchers; an unknown one changes nothing."""
        closed = self._streams.pop(stream, None)
        self._progress_wanted.pop(stream, None)
        if closed is not None:
            for watcher in closed.watchers.values():
                self._leave(watcher)

    def create(self, stream: StreamId, request: WatchCreate, history: History) -> list[Frame]:
        """Start a watcher and answer that it is there, or why it is not."""
        self._saw(history)
        watching = self._streams[stream]
        key = request.key or b"\x00"
        if request.start_revision < 0:
            return self.refuse(stream, Compacted.text)
        if request.range_end and request.range_end != FROM_KEY and key >= request.range_end:
            return self.refuse(stream, RANGE_IS_EMPTY)
        if request.watch_id in watching.watchers and request.watch_id != 0:
            return self.refuse(stream, DUPLICATE_ID)
        next_revision = request.start_revision or self._current + 1
        watch_id = request.watch_id or watching.pick_id()
        watcher = Watcher(stream, watch_id, request, key=key, next_revision=next_revision)
        watching.watchers[watch_id] = watcher
        if not watching.blocked:
            self._enter(watcher)
        return [Frame(stream, watch_messages.created(self._header(self._current), watcher.id_field))]

    def refuse(self, stream: StreamId, reason: str) -> list[Frame]:
        """Answer a create request that is turned down for *reason*, such as a permission that is missing."""
        return [Frame(stream, watch_messages.refused(self._header(self._current), reason))]

    def cancel(self, stream: StreamId, watch_id: int) -> list[Frame]:
        """End a watcher and say so; an unknown id gets no answer."""
        watcher = self._streams[stream].watchers.pop(watch_id, None)
        if watcher is None:
            return []
        self._leave(watcher)
        return [Frame(stream, watch_messages.canceled(self._header(self._current), watcher.id_field))]

    def cancel_where(self, reason_for: Callable[[Watcher], str]) -> list[Frame]:
        """End every watcher that there is a reason to end, and say so; an empty reason is none."""
        frames: list[Frame] = []
        for stream, watching in self._streams.items():
            for watcher in list(watching.watchers.values()):
                reason = reason_for(watcher)
                if reason:
                    del watching.watchers[watcher.watch_id]
                    self._leave(watcher)
                    header = self._header(self._current)
                    frames.append(Frame(stream, watch_messages.canceled(header, watcher.id_field, reason)))
        return frames

    def notify(self, revisions: Sequence[Revised]) -> list[Frame]:
        """Tell the synced watchers what happened.  Revisions come without gaps; those known already are passed over."""
        frames: list[Frame] = []
        if not self._synced_count and revisions:
            assert revisions[0].revision <= self._revision + 1, (revisions[0].revision, self._revision)
            self._revision = max(self._revision, revisions[-1].revision)
            revisions = ()
        for revision, events in revisions:
            if revision > self._revision:
                assert revision == self._revision + 1, (revision, self._revision)
                self._publish(revision, events, frames)
                self._revision = revision
        self._current = max(self._current, self._revision)
        if self._progress_wanted:
            self._answer_progress(frames)
        return frames

    def restored(self, revision: int) -> None:
        """Note that a snapshot took the store to *revision*: what happened in between is only in its history."""
        assert revision >= self._revision, (revision, self._revision)
        synced = [
            watcher for watching in self._streams.values() for watcher in watching.watchers.values() if watcher.synced
        ]
        for watcher in synced:
            self._leave(watcher)
        self._revision = revision
        self._current = max(self._current, revision)
        for watcher in synced:
            self._enter(watcher)

    def blocked(self, stream: StreamId) -> None:
        """Send nothing more to this stream until it is `drained`; an unknown stream changes nothing."""
        watching = self._streams.get(stream)
        if watching is not None and not watching.blocked:
            watching.blocked = True
            for watcher in watching.watchers.values():
                self._leave(watcher)

    def drained(self, stream: StreamId) -> None:
        """Take up a blocked stream again, from where each of its watchers has come to."""
        watching = self._streams.get(stream)
        if watching is not None and watching.blocked:
            watching.blocked = False
            for watcher in watching.watchers.values():
                self._enter(watcher)

    def catch_up(self, history: History, *, watchers_max: int) -> list[Frame]:
        """Do one round: one read of history, for the watcher that waits longest and those near it.

        At most *watchers_max* watchers are looked at.  Call it again while `unsynced_count` is not 0.
        """
        self._saw(history)
        frames: list[Frame] = []
        waiting = []
        for watcher in list(islice(self._unsynced, watchers_max)):
            if watcher.next_revision < history.compact_revision:
                frames.append(self._compacted(watcher, history.compact_revision))
            else:
                waiting.append(watcher)
        if waiting:
            self._replay(waiting, history, frames)
        return frames

    def request_progress(self, stream: StreamId, history: History) -> list[Frame]:
        """Answer a progress request, if every watcher of the stream is synced; otherwise, or without watchers, nothing.

        Where *history* is ahead of the notifications the answer comes with the one that reaches it.
        """
        self._saw(history)
        self._progress_wanted[stream] = self._current
        frames: list[Frame] = []
        self._answer_progress(frames)
        return frames

    def tick(self, now_s: float) -> list[Frame]:
        """Tell those who asked for progress_notify and heard nothing for an interval how far they are."""
        frames: list[Frame] = []
        for stream, watching in self._streams.items():
            if watching.progress_due_s <= now_s:
                watching.progress_due_s = now_s + watching.progress_interval_s
                header = self._header(self._revision)
                for watcher in watching.watchers.values():
                    if watcher.quiet and self._is_at(watcher, self._revision):
                        frames.append(Frame(stream, watch_messages.progress(header, watcher.id_field)))
                    watcher.quiet = watcher.progress_notify
        return frames

    def _saw(self, history: History) -> None:
        self._current = max(self._current, history.revision)

    def _enter(self, watcher: Watcher) -> None:
        """Place a watcher of a stream that is not blocked where its position says."""
        if watcher.next_revision > self._revision:
            watcher.synced = True
            self._synced.add(watcher)
            self._synced_count += 1
        else:
            self._unsynced[watcher] = None

    def _leave(self, watcher: Watcher) -> None:
        """Take a watcher out of wherever it is, and keep its position."""
        if watcher.synced:
            watcher.synced = False
            watcher.next_revision = max(watcher.next_revision, self._revision + 1)
            self._synced.remove(watcher)
            self._synced_count -= 1
        else:
            self._unsynced.pop(watcher, None)

    def _publish(self, revision: int, events: list[Event], frames: list[Frame]) -> None:
        batches: dict[WatchGroup, list[Event]] = {}
        match = self._synced.match
        for event in events:
            for group in match(event.key):
                batches.setdefault(group, []).append(event)
        if not batches:
            return
        header = self._header(revision)
        for group, batch in batches.items():
            for variant, watchers in group.variants.items():
                fields = event_fields(batch, variant)
                if not fields:
                    continue
                body = b"".join(fields)
                self._event_count += len(fields) * len(watchers)
                if is_special(variant):
                    for watcher in watchers:
                        if watcher.next_revision <= revision:
                            self._send(watcher, header, fields, frames)
                    continue
                frames += [
                    Frame(watcher.stream, header + watcher.id_field + body)
                    for watcher in watchers
                    if watcher.next_revision <= revision
                ]

    def _send(self, watcher: Watcher, header: bytes, fields: Sequence[bytes], frames: list[Frame]) -> None:
        """Send a message of these events, in pieces if the watcher wants it so."""
        watcher.quiet = False
        message = header + watcher.id_field + b"".join(fields)
        if watcher.fragment and len(fields) > 1 and len(message) >= self._fragment_size_bytes:
            pieces = watch_messages.fragments(header, watcher.id_field, fields, self._fragment_size_bytes)
            frames += [Frame(watcher.stream, piece) for piece in pieces]
        else:
            frames.append(Frame(watcher.stream, message))

    def _compacted(self, watcher: Watcher, compact_revision: int) -> Frame:
        del self._unsynced[watcher]
        del self._streams[watcher.stream].watchers[watcher.watch_id]
        # Revision 0: the watcher has not come to any revision that a client could resume from.
        message = watch_messages.compacted(self._header(0), watcher.id_field, compact_revision)
        return Frame(watcher.stream, message)

    def _replay(self, waiting: list[Watcher], history: History, frames: list[Frame]) -> None:
        start = waiting[0].next_revision
        near = [watcher for watcher in waiting if start <= watcher.next_revision < start + REVISIONS_PER_MESSAGE_MAX]
        want_prev = any(wants_prev_kv(watcher.variant) for watcher in near)
        revisions = history.revised(start, REVISIONS_PER_MESSAGE_MAX, want_prev)
        # An empty answer is no end of the world: a restored store may skip revisions.
        reached = revisions[-1].revision if revisions else history.revision
        near = [watcher for watcher in near if watcher.next_revision <= reached + 1]
        header = self._header(self._current)
        for watcher, fields in replayed(near, revisions):
            self._event_count += len(fields)
            self._send(watcher, header, fields, frames)
        for watcher in near:
            del self._unsynced[watcher]
            watcher.next_revision = reached + 1
            self._enter(watcher)

    def _is_at(self, watcher: Watcher, revision: int) -> bool:
        """Whether the watcher was sent all up to *revision*, and waits for nothing that only a later one brings."""
        return watcher.synced and watcher.next_revision <= revision + 1 and watcher.start_revision <= revision

    def _answer_progress(self, frames: list[Frame]) -> None:
        no_id = watch_messages.watch_id_field(watch_messages.NO_WATCH_ID)
        for stream, revision in list(self._progress_wanted.items()):
            watchers = self._streams[stream].watchers.values()
            if not all(watcher.synced and watcher.start_revision <= revision for watcher in watchers):
                del self._progress_wanted[stream]
            elif self._revision >= revision:
                del self._progress_wanted[stream]
                if watchers:
                    frames.append(Frame(stream, watch_messages.progress(self._header(self._revision), no_id)))
