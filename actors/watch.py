"""WatchActor: tells watchers what has changed.

The hub decides who is told what; here the messages come in and the frames go out, each listener's in one message.
Catching up runs in rounds between other messages, so that a watcher far behind delays nobody.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, final

from actors.base import Home, NodeActor
from actors.messages.apply import ObserveAuth, ObserveChanges
from actors.messages.common import Tick
from actors.messages.metrics import Measure, Measured
from actors.messages.serve import AuthIs, TokensUsed, WatchFrames
from actors.messages.watch import (
    Changed,
    Restored,
    StreamBlocked,
    StreamClosed,
    StreamDrained,
    WatchMessage,
    WatchRequested,
)
from core.auth.permissions import READ
from core.auth.rules import NO_RULES, Identity, Rules
from core.errors import EtcdError
from core.metrics import SYNC_BOUNDS_S, Histogram, Sample
from core.mvcc.watch_hub import WatchHub
from core.mvcc.watch_streams import StreamId, WatchCreate
from proto.rpc_pb2 import WatchRequest
from services.errors import go_text, status_of

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from random import Random

    from actors.address import Address
    from actors.messages.apply import ApplyMessage
    from core.apply.header import ResponseHeaders
    from core.clock import Clock
    from core.mvcc.event import Revised
    from core.mvcc.view import View
    from core.mvcc.watch_hub import Frame
    from core.mvcc.watch_streams import Watcher
    from proto.rpc_pb2 import WatchCreateRequest

WATCHERS_PER_ROUND_MAX = 512
"""Watchers looked at in one catch-up round (etcd's bound)."""

HISTORY_BYTES_MAX = 4 << 20
"""History read for one round, so that large values cannot fill the memory."""


class _CatchUp:
    """A note to self: do one round for those who are behind."""


@final
class WatchActor(NodeActor[WatchMessage | _CatchUp]):
    """Owns every watcher of this member.

    Owns: the hub.  Tells: ServeActors (frames).  Fails when: events come with a gap.
    """

    def __init__(
        self,
        home: Home,
        *,
        headers: ResponseHeaders,
        fragment_size_bytes: int,
        progress_interval_s: float,
        random: Random,
        clock: Clock,
        apply: Address[ApplyMessage],
    ) -> None:
        """Give each stream a progress interval of *progress_interval_s* and up to a tenth more, so that they spread."""
        super().__init__(home)
        self._headers = headers
        self._fragment_size_bytes = fragment_size_bytes
        self._progress_interval_s = progress_interval_s
        self._random = random
        self._clock = clock
        self._apply = apply
        self._hub: WatchHub  # made when it is known which revision to start from
        self._listeners: dict[StreamId, Address[WatchFrames]] = {}
        self._catching_up = False
        self._changed: Changed | None = None
        self._rules = NO_RULES
        self._control_times = Histogram(SYNC_BOUNDS_S)
        self._progress_times = Histogram(SYNC_BOUNDS_S)
        self._event_times = Histogram(SYNC_BOUNDS_S)
        self._per_event_times = Histogram(SYNC_BOUNDS_S)

    def setup(self) -> None:
        """Ask to be told what changes; the answer comes before any other message of interest."""
        self._apply.tell(ObserveChanges(self.actor_ref))
        self._apply.tell(ObserveAuth(self.actor_ref))

    def handle(self, message: WatchMessage | _CatchUp) -> None:
        """Take one message."""
        if self._changed is None:
            if isinstance(message, Changed):
                self._begin(message)
            return
        hub = self._hub
        match message:
            case Changed():
                self._changed = message
                if message.revisions:
                    self._send_events(message.revisions)
            case Restored():
                self._changed = Changed((), message.view, message.term)
                hub.restored(message.view.revision)
            case WatchRequested():
                started_s = self._clock.monotonic_s()
                self._request(message)
                self._control_times.observe(self._clock.monotonic_s() - started_s)
            case _CatchUp():
                self._catching_up = False
                self._send(hub.catch_up(History(self._changed.view), watchers_max=WATCHERS_PER_ROUND_MAX))
            case AuthIs():
                self._rules = message.rules
                self._send(hub.cancel_where(self._why_not))
            case TokensUsed():
                pass  # for listeners
            case StreamBlocked():
                hub.blocked(message.stream)
            case StreamDrained():
                hub.drained(message.stream)
            case StreamClosed():
                self._listeners.pop(message.stream, None)
                hub.close_stream(message.stream)
            case Tick():
                started_s = self._clock.monotonic_s()
                if self._send(hub.tick(message.now_s)):
                    self._progress_times.observe(self._clock.monotonic_s() - started_s)
            case Measure():
                message.answer_to.tell(Measured(message.round, self._samples()))
        if hub.unsynced_count and not self._catching_up:
            self._catching_up = True
            self.actor_ref.tell(_CatchUp())

    def _send_events(self, revisions: Sequence[Revised]) -> None:
        before, started_s = self._hub.event_count, self._clock.monotonic_s()
        self._send(self._hub.notify(revisions))
        sent = self._hub.event_count - before
        if sent:
            took_s = self._clock.monotonic_s() - started_s
            self._event_times.observe(took_s)
            self._per_event_times.observe(took_s / sent)

    def _samples(self) -> list[Sample]:
        hub = self._hub
        watchers = hub.watcher_count
        return [
            Sample("etcd_debugging_mvcc_watch_stream_total", hub.stream_count),
            Sample("etcd_debugging_mvcc_watcher_total", watchers),
            Sample("etcd_debugging_mvcc_slow_watcher_total", watchers - hub.synced_count),
            Sample("etcd_debugging_mvcc_events_total", hub.event_count),
            *(
                Sample(family, times.distribution())
                for family, times in (
                    ("etcd_debugging_server_watch_send_loop_control_stream_duration_seconds", self._control_times),
                    ("etcd_debugging_server_watch_send_loop_progress_duration_seconds", self._progress_times),
                    ("etcd_debugging_server_watch_send_loop_watch_stream_duration_seconds", self._event_times),
                    (
                        "etcd_debugging_server_watch_send_loop_watch_stream_duration_per_event_seconds",
                        self._per_event_times,
                    ),
                )
            ),
            Sample("etcd_debugging_mvcc_pending_events_total", 0),  # none is kept for a slow watcher: it reads history
        ]

    def _begin(self, first: Changed) -> None:
        assert not first.revisions, first.view.revision
        self._changed = first
        self._hub = WatchHub(
            header=self._header, fragment_size_bytes=self._fragment_size_bytes, revision=first.view.revision
        )

    def _header(self, revision: int) -> bytes:
        assert self._changed is not None
        return self._headers.encode(revision, self._changed.term)

    def _request(self, asked: WatchRequested) -> None:
        stream = asked.stream
        if stream not in self._listeners:
            self._listeners[stream] = asked.listener
            jitter = 1.0 + self._random.random() / 10
            self._hub.open_stream(
                stream, now_s=self._clock.monotonic_s(), progress_interval_s=self._progress_interval_s * jitter
            )
        request = WatchRequest.FromString(asked.request)
        assert self._changed is not None
        history = History(self._changed.view)
        match request.WhichOneof("request_union"):
            case "create_request":
                create = watch_create(request.create_request, asked.user)
                # The rules may have changed since the listener looked.
                refusal = asked.refusal or why_not(self._rules, asked.user, create.key or b"\x00", create.range_end)
                if refusal and create.start_revision >= 0:
                    self._send(self._hub.refuse(stream, refusal))
                else:
                    self._send(self._hub.create(stream, create, history))
            case "cancel_request":
                self._send(self._hub.cancel(stream, request.cancel_request.watch_id))
            case "progress_request":
                self._send(self._hub.request_progress(stream, history))
            case _:
                pass  # etcd ignores a request of a kind that it does not know

    def _why_not(self, watcher: Watcher) -> str:
        return why_not(self._rules, watcher.user, watcher.key, watcher.range_end)

    def _send(self, frames: Iterable[Frame]) -> bool:
        """Send *frames* to their listeners; return whether there were any."""
        by_listener: dict[Address[WatchFrames], list[tuple[StreamId, bytes]]] = {}
        for stream, encoded in frames:
            by_listener.setdefault(self._listeners[stream], []).append((stream, encoded))
        for listener, listed in by_listener.items():
            listener.tell(WatchFrames(listed))
        return bool(by_listener)


class History:
    """A view of the store, as the hub reads it."""

    def __init__(self, view: View) -> None:
        self._view = view
        self.revision = view.revision
        self.compact_revision = view.compact_revision

    def revised(self, start_revision: int, revisions_max: int, want_prev: bool) -> list[Revised]:
        """See core.mvcc.watch_streams.History."""
        return self._view.history(start_revision, revisions_max, prev_kv=want_prev, size_bytes_max=HISTORY_BYTES_MAX)


def why_not(rules: Rules, user: str | None, key: bytes, range_end: bytes) -> str:
    """Return why *user* may not watch, or watch on; empty if it may.

    What was created while auth was off, when nobody had a name, goes on, as in etcd.
    """
    if user is None:
        return ""
    try:
        rules.check_key(Identity(user, rules.revision), key, range_end, READ)
    except EtcdError as error:
        return go_text(status_of(error))
    return ""


def watch_create(request: WatchCreateRequest, user: str | None = None) -> WatchCreate:
    """Return the hub's form of a create request."""
    return WatchCreate(
        key=request.key,
        range_end=request.range_end,
        start_revision=request.start_revision,
        progress_notify=request.progress_notify,
        filters=tuple(request.filters),
        prev_kv=request.prev_kv,
        watch_id=request.watch_id,
        fragment=request.fragment,
        user=user,
    )
