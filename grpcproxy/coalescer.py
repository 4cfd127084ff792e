"""Many clients' watchers, few upstream: all of one group, over one stream to one member.  Pure.

A group is of those who show the same token and want the same of the leader, so that nobody is told what he may not see.
Watchers of an equal range share a watcher upstream (a broadcast).  One that starts in the past has a broadcast of its
own until that has caught up; then it joins the one of the present.  When the member is lost, all broadcasts go on with
another one where they were.

Calls give what is to be sent in `requests` (upstream) and `frames` (to clients); whoever calls takes them from there.
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, Final

from grpcproxy.broadcast import Broadcast
from grpcproxy.watcher import Batch, Watcher
from proto.rpc_pb2 import (
    ResponseHeader,
    WatchCancelRequest,
    WatchProgressRequest,
    WatchRequest,
    WatchResponse,
)

if TYPE_CHECKING:
    from collections.abc import Iterable

PROGRESS_ID: Final = -1
"""Of an answer that holds for all watchers of a stream."""


class Coalescer:
    """The watchers of one group."""

    def __init__(self, prefix: bytes = b"") -> None:
        """Cut *prefix* off keys on their way to clients."""
        self._cut: Final = len(prefix)
        self._by_range: dict[tuple[bytes, bytes], list[Broadcast]] = {}
        self._by_id: dict[int, Broadcast] = {}
        self._creating: deque[Broadcast | None] = deque()
        """In the order in which a member answers; None for one that was canceled meanwhile."""
        self._progress_wanted: dict[int, None] = {}
        self._last_id = 0
        self._connected = False
        self.header: ResponseHeader = ResponseHeader()
        """The latest that came."""
        self.requests: list[bytes] = []
        self.frames: list[tuple[int, bytes]] = []
        self.events_saved = 0
        """Answers that did not have to come from upstream, as etcd counts events_coalescing."""
        self.watcher_count = 0

    @property
    def broadcast_count(self) -> int:
        """How many watchers there are upstream."""
        return sum(map(len, self._by_range.values()))

    # -- clients -----------------------------------------------------------------------------------------------------

    def add(self, watcher: Watcher) -> None:
        """Feed *watcher* from the best broadcast there is, or from a new one."""
        self.watcher_count += 1
        broadcasts = self._by_range.setdefault((watcher.key, watcher.end), [])
        fitting = [each for each in broadcasts if each.may_take(watcher)]
        if fitting:
            broadcast = max(fitting, key=lambda each: each.next_revision)
            broadcast.take(watcher)
            if broadcast.created:
                self._announce(watcher)
            return
        broadcast = Broadcast(watcher.key, watcher.end, watcher.next_revision)
        broadcasts.append(broadcast)
        broadcast.take(watcher)
        if self._connected:
            self._create(broadcast)

    def remove(self, watcher: Watcher) -> None:
        """Feed *watcher* no more.  It may be added again, and goes on where it was."""
        broadcast = watcher.broadcast
        if broadcast is None:
            return
        watcher.broadcast = None
        self.watcher_count -= 1
        del broadcast.receivers[watcher]
        if not broadcast.receivers:
            self._end(broadcast)

    def want_progress(self, stream: int) -> None:
        """Tell *stream* how far all its watchers are, as soon as that is known."""
        self._progress_wanted[stream] = None
        if self._connected:
            self.requests.append(WatchRequest(progress_request=WatchProgressRequest()).SerializeToString())

    def forget(self, stream: int) -> None:
        """Take note that *stream* is gone; its watchers have been removed."""
        self._progress_wanted.pop(stream, None)

    # -- upstream ----------------------------------------------------------------------------------------------------

    def connected(self) -> None:
        """Begin to use a new stream to a member."""
        self._connected = True
        for broadcasts in self._by_range.values():
            for broadcast in broadcasts:
                self._create(broadcast)
        if self._progress_wanted:
            self.requests.append(WatchRequest(progress_request=WatchProgressRequest()).SerializeToString())

    def lost(self) -> None:
        """Take note that the stream is gone."""
        self._connected = False
        self._by_id.clear()
        self._creating.clear()
        self.requests.clear()
        for broadcasts in self._by_range.values():
            for broadcast in broadcasts:
                broadcast.created = False

    def receive(self, message: bytes) -> None:
        """Take one WatchResponse; raises DecodeError."""
        answer = WatchResponse.FromString(message)
        self.header = answer.header
        if answer.created:
            self._take_created(answer)
        elif answer.watch_id == PROGRESS_ID and not answer.canceled:
            self._take_progress(answer)
        else:
            broadcast = self._by_id.get(answer.watch_id)
            if broadcast is None:
                return  # canceled here already
            if answer.canceled:
                self._take_canceled(broadcast, answer)
            elif answer.events:
                self._take_events(broadcast, answer)
            else:
                self._take_notice(broadcast, answer)

    def _take_created(self, answer: WatchResponse) -> None:
        broadcast = self._creating.popleft() if self._creating else None
        if broadcast is None:
            return
        if answer.canceled:
            self._take_canceled(broadcast, answer)
            return
        broadcast.created = True
        broadcast.created_revision = answer.header.revision
        for watcher in broadcast.receivers:
            self._announce(watcher)

    def _take_canceled(self, broadcast: Broadcast, answer: WatchResponse) -> None:
        watchers = list(broadcast.receivers)
        self._discard(broadcast)
        compacted = answer.compact_revision
        for watcher in watchers:
            watcher.broadcast = None
            self.watcher_count -= 1
            if compacted and watcher.start_now and not watcher.announced:
                watcher.next_revision = max(watcher.next_revision, compacted)
            if compacted and watcher.next_revision >= compacted:
                self.add(watcher)  # only others' past is gone
                continue
            if not watcher.announced:
                self._announce(watcher)
            self._tell(watcher, watcher.canceled(answer.header, answer.cancel_reason, compacted))

    def _take_events(self, broadcast: Broadcast, answer: WatchResponse) -> None:
        if self._cut:
            for event in answer.events:
                event.kv.key = event.kv.key[self._cut :]
                if event.HasField("prev_kv"):
                    event.prev_kv.key = event.kv.key
        batch = Batch(answer.header, answer.events)
        for watcher in broadcast.receivers:
            for frame in batch.frames_for(watcher):
                self._tell(watcher, frame)
        self.events_saved += len(broadcast.receivers) - 1
        broadcast.next_revision = max(broadcast.next_revision, batch.last_revision + 1)
        self._merge(broadcast)

    def _take_notice(self, broadcast: Broadcast, answer: WatchResponse) -> None:
        """Take a member's word that *broadcast* has been told everything."""
        revision = answer.header.revision
        broadcast.next_revision = max(broadcast.next_revision, revision + 1)
        body = WatchResponse(header=answer.header).SerializeToString()
        for watcher in broadcast.receivers:
            watcher.next_revision = max(watcher.next_revision, revision + 1)
            if watcher.progress:
                self._tell(watcher, watcher.frame(body))
        self._merge(broadcast)

    def _take_progress(self, answer: WatchResponse) -> None:
        wanted, self._progress_wanted = self._progress_wanted, {}
        if not wanted:
            return
        behind = {
            watcher.stream
            for broadcasts in self._by_range.values()
            for broadcast in broadcasts
            for watcher in broadcast.receivers
            if not watcher.announced
        }
        body = WatchResponse(header=answer.header, watch_id=PROGRESS_ID).SerializeToString()
        for stream in wanted:
            if stream not in behind:
                self.frames.append((stream, body))

    # -- broadcasts --------------------------------------------------------------------------------------------------

    def _create(self, broadcast: Broadcast) -> None:
        self._last_id += 1
        broadcast.id = self._last_id
        self._by_id[broadcast.id] = broadcast
        self._creating.append(broadcast)
        self.requests.append(broadcast.request())

    def _merge(self, broadcast: Broadcast) -> None:
        """Give the receivers of *broadcast* to one that is no further, if there is any: they miss nothing there."""
        if not broadcast.synced:
            return
        for other in self._by_range[broadcast.key, broadcast.end]:
            if other is not broadcast and other.synced and other.next_revision <= broadcast.next_revision:
                for watcher in broadcast.receivers:
                    other.receivers[watcher] = None
                    watcher.broadcast = other
                broadcast.receivers = {}
                self._end(broadcast)
                return

    def _end(self, broadcast: Broadcast) -> None:
        watch_id = broadcast.id
        known = self._by_id.get(watch_id) is broadcast
        self._discard(broadcast)
        if known:
            self._creating = deque(None if each is broadcast else each for each in self._creating)
            self.requests.append(WatchRequest(cancel_request=WatchCancelRequest(watch_id=watch_id)).SerializeToString())

    def _discard(self, broadcast: Broadcast) -> None:
        place = (broadcast.key, broadcast.end)
        self._by_range[place].remove(broadcast)
        if not self._by_range[place]:
            del self._by_range[place]
        if self._by_id.get(broadcast.id) is broadcast:
            del self._by_id[broadcast.id]

    def _announce(self, watcher: Watcher) -> None:
        if not watcher.announced:
            watcher.announced = True
            self._tell(watcher, watcher.created(self.header))

    def _tell(self, watcher: Watcher, frame: bytes) -> None:
        self.frames.append((watcher.stream, frame))


def coalesced(coalescers: Iterable[Coalescer]) -> int:
    """Return how many watchers there would be more upstream without this."""
    return sum(each.watcher_count - each.broadcast_count for each in coalescers)
