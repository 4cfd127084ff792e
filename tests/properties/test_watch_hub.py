"""The promises of watch, under every order of writes, watchers, stalls and compactions.

Each message is compared on arrival with what a naive model says this watcher must see next, so an event that is lost,
doubled, out of order, split from its revision or wrongly filtered shows at once.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, precondition, rule

from core.mvcc.event import Event, EventType, Revised
from core.mvcc.watch_hub import Frame, WatchHub
from core.mvcc.watch_streams import StreamId, WatchCreate
from proto import kv_pb2, rpc_pb2
from tests.fake_watch_history import FakeHistory, FakeStore

STREAMS = st.integers(0, 2).map(StreamId)
KEYS = st.sampled_from([b"a", b"b", b"c"])
CHANGES = st.lists(
    st.tuples(KEYS, st.none() | st.binary(max_size=3)), min_size=1, max_size=3, unique_by=lambda change: change[0]
)
INTERVAL_S = 5
PREV_UNKNOWN = b"?"


@dataclass
class Model:
    """What a watcher is owed: everything from *next_revision* on that it wants."""

    request: WatchCreate
    start_revision: int
    next_revision: int
    pieces: list[tuple[int, int, bytes, bytes | None]] = field(default_factory=list)

    def wants(self, event: Event) -> bool:
        key, end = self.request.key, self.request.range_end
        if (1 if event.type is EventType.DELETE else 0) in self.request.filters:
            return False
        if not end:
            return event.key == key
        return event.key >= key and (end == b"\x00" or event.key < end)

    def owed(self, log: dict[int, list[Event]], through: int) -> list[tuple[int, int, bytes, bytes | None]]:
        return [
            (revision, int(event.type), event.kv, event.prev_kv if self.request.prev_kv else None)
            for revision in range(self.next_revision, through + 1)
            for event in log.get(revision, ())
            if self.wants(event)
        ]


class WatchMachine(RuleBasedStateMachine):
    """A store whose notifications lag behind, a hub, and clients that check what they get."""

    def __init__(self) -> None:
        super().__init__()
        self.store = FakeStore()
        self.hub = WatchHub(header=self.header, fragment_size_bytes=60, revision=1)
        self.pending: list[Revised] = []
        self.models: dict[StreamId, dict[int, Model]] = {}
        self.blocked: set[StreamId] = set()
        self.now_s = 0.0
        for number in range(3):
            self.open(StreamId(number))

    @staticmethod
    def header(revision: int) -> bytes:
        body = bytes(rpc_pb2.ResponseHeader(cluster_id=1, revision=revision).SerializeToString())
        return b"\x0a" + bytes([len(body)]) + body

    def open(self, stream: StreamId) -> None:
        self.hub.open_stream(stream, now_s=self.now_s, progress_interval_s=INTERVAL_S)
        self.models[stream] = {}
        self.blocked.discard(stream)

    def history(self) -> FakeHistory:
        return self.store.history(revisions_a_read_max=3)

    def receive(self, frames: list[Frame]) -> None:
        for stream, message in frames:
            response = rpc_pb2.WatchResponse.FromString(message)
            assert not response.created
            if response.canceled:
                self.receive_compacted(stream, response)
            elif not response.events:
                self.receive_progress(stream, response)
            else:
                self.receive_events(stream, response)

    def receive_events(self, stream: StreamId, response: rpc_pb2.WatchResponse) -> None:
        assert stream not in self.blocked, "a stalled reader must not be sent more"
        model = self.models[stream][response.watch_id]
        assert model.request.fragment or not response.fragment
        model.pieces += [self.seen(event) for event in response.events]
        if response.fragment:
            return
        last = response.events[-1].kv.mod_revision
        assert response.header.revision >= last
        assert self.comparable(model.pieces) == self.comparable(model.owed(self.store.log, last))
        model.pieces = []
        model.next_revision = last + 1

    def receive_progress(self, stream: StreamId, response: rpc_pb2.WatchResponse) -> None:
        models = self.models[stream]
        concerned = models.values() if response.watch_id == -1 else [models[response.watch_id]]
        assert concerned
        for model in concerned:
            assert not model.owed(self.store.log, response.header.revision), "progress ahead of events"
            assert response.header.revision >= model.start_revision or model.request.start_revision == 0

    def receive_compacted(self, stream: StreamId, response: rpc_pb2.WatchResponse) -> None:
        del self.models[stream][response.watch_id]
        assert response.compact_revision == self.store.compact_revision
        assert (response.header.revision, response.cancel_reason) == (0, "")

    @staticmethod
    def seen(event: kv_pb2.Event) -> tuple[int, int, bytes, bytes | None]:
        prev_kv = bytes(event.prev_kv.SerializeToString()) if event.HasField("prev_kv") else None
        return event.kv.mod_revision, int(event.type), bytes(event.kv.SerializeToString()), prev_kv

    def comparable(
        self, events: list[tuple[int, int, bytes, bytes | None]]
    ) -> list[tuple[int, int, bytes, bytes | None]]:
        """Leave out previous values that a compaction may have taken: a replay cannot show them, a live event can."""
        compact_revision = self.store.compact_revision
        return [
            (revision, type_, kv, PREV_UNKNOWN if revision - 1 < compact_revision else prev_kv)
            for revision, type_, kv, prev_kv in events
        ]

    @rule(revisions=st.lists(CHANGES, min_size=1, max_size=6))
    def write(self, revisions: list[list[tuple[bytes, bytes | None]]]) -> None:
        for changes in revisions:
            wanted = [(key, value) for key, value in changes if value is not None or key in self.store.live]
            if wanted:
                self.pending.append(self.store.change(*wanted))

    @rule(count=st.integers(1, 12))
    def notify(self, count: int) -> None:
        batch, self.pending = self.pending[:count], self.pending[count:]
        self.receive(self.hub.notify(batch))

    @precondition(lambda self: self.pending)
    @rule()
    def restore(self) -> None:
        self.pending = []
        self.hub.restored(self.store.revision)

    @rule(
        stream=STREAMS,
        key=KEYS,
        range_end=st.sampled_from([b"", b"\x00", b"b", b"c", b"d"]),
        back=st.integers(-3, 12),
        from_now=st.booleans(),
        watch_id=st.sampled_from([0, 0, 0, 1, 7]),
        progress_notify=st.booleans(),
        prev_kv=st.booleans(),
        fragment=st.booleans(),
        filters=st.sampled_from([(), (), (0,), (1,), (0, 1), (5,)]),
    )
    def create(self, stream: StreamId, back: int, from_now: bool, **fields: object) -> None:
        start = 0 if from_now else max(1, self.store.revision - back)
        request = WatchCreate(start_revision=start, **fields)  # type: ignore[arg-type]  # one strategy a field
        frames = self.hub.create(stream, request, self.history())
        assert [frame.stream for frame in frames] == [stream]
        response = rpc_pb2.WatchResponse.FromString(frames[0].message)
        assert response.created
        assert response.header.revision == self.store.revision
        empty = request.range_end not in {b"", b"\x00"} and request.key >= request.range_end
        if empty or (request.watch_id and request.watch_id in self.models[stream]):
            assert (response.canceled, response.watch_id) == (True, -1)
            return
        assert not response.canceled
        assert response.watch_id not in self.models[stream]
        first = start or self.store.revision + 1
        self.models[stream][response.watch_id] = Model(request, first, first)

    @rule(stream=STREAMS, watch_id=st.integers(0, 8))
    def cancel(self, stream: StreamId, watch_id: int) -> None:
        frames = self.hub.cancel(stream, watch_id)
        assert len(frames) == (watch_id in self.models[stream])
        self.models[stream].pop(watch_id, None)

    @rule(stream=STREAMS)
    def reconnect(self, stream: StreamId) -> None:
        self.hub.close_stream(stream)
        self.open(stream)

    @rule(stream=STREAMS)
    def block(self, stream: StreamId) -> None:
        self.hub.blocked(stream)
        self.blocked.add(stream)

    @rule(stream=STREAMS)
    def drain(self, stream: StreamId) -> None:
        self.blocked.discard(stream)
        self.hub.drained(stream)

    @rule(watchers_max=st.integers(1, 3))
    def catch_up(self, watchers_max: int) -> None:
        self.receive(self.hub.catch_up(self.history(), watchers_max=watchers_max))

    @rule(back=st.integers(0, 5))
    def compact(self, back: int) -> None:
        self.store.compact_revision = max(self.store.compact_revision, self.store.revision - back)

    @rule(stream=STREAMS)
    def ask_progress(self, stream: StreamId) -> None:
        self.receive(self.hub.request_progress(stream, self.history()))

    @rule(seconds=st.integers(0, INTERVAL_S))
    def tick(self, seconds: int) -> None:
        self.now_s += seconds
        self.receive(self.hub.tick(self.now_s))

    def teardown(self) -> None:
        """Heal everything: every watcher must then be sent all it is owed, and progress must be answered."""
        self.notify(len(self.pending))
        for stream in self.models:
            self.drain(stream)
        rounds = 0
        while self.hub.unsynced_count:
            self.catch_up(3)
            rounds += 1
            assert rounds < 1000, "catching up makes no progress"
        for stream, models in self.models.items():
            for model in models.values():
                assert not model.owed(self.store.log, self.store.revision)
                assert not model.pieces
            frames = self.hub.request_progress(stream, self.history())
            future = any(model.request.start_revision > self.store.revision for model in models.values())
            assert len(frames) == (bool(models) and not future)
        assert self.hub.synced_count == sum(map(len, self.models.values()))


TestWatchHub = WatchMachine.TestCase
TestWatchHub.settings = settings(max_examples=150, stateful_step_count=40, deadline=None)
