"""The store's history, which watchers catch up from, against the events that they would have been sent live."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from actors.watch import History
from core.mvcc.backend import MemoryBackend
from core.mvcc.store import Store
from core.mvcc.watch_hub import WatchHub
from core.mvcc.watch_streams import StreamId, WatchCreate
from proto import rpc_pb2

LIVE, RESUMED = StreamId(1), StreamId(2)
EVERYTHING = WatchCreate(b"", b"\x00", prev_kv=True)
CHANGES = st.lists(
    st.tuples(st.sampled_from([b"a", b"b", b"c"]), st.none() | st.binary(max_size=3)),
    min_size=1,
    max_size=3,
    unique_by=lambda change: change[0],
)


def events(frames: list[tuple[StreamId, bytes]], stream: StreamId) -> list[bytes]:
    """Return the stream's events in wire form."""
    responses = [rpc_pb2.WatchResponse.FromString(message) for receiver, message in frames if receiver == stream]
    return [event.SerializeToString() for response in responses for event in response.events]


@settings(deadline=None)
@given(st.lists(CHANGES, min_size=1, max_size=12), st.integers(0, 12))
def test_history_tells_what_live_events_told(transactions: list[list[tuple[bytes, bytes | None]]], back: int) -> None:
    """A watcher that lost its connection must be sent the very bytes that one that kept it was sent."""
    store = Store.open(MemoryBackend())
    hub = WatchHub(header=lambda _: b"", fragment_size_bytes=1 << 20, revision=store.revision)
    for stream in (LIVE, RESUMED):
        hub.open_stream(stream, now_s=0, progress_interval_s=600)
    hub.create(LIVE, EVERYTHING, History(store.view()))
    live: dict[int, list[bytes]] = {}
    for index, changes in enumerate(transactions, 1):
        transaction = store.transaction()
        for key, value in changes:
            if value is None:
                transaction.delete_range(key, b"")
            else:
                transaction.put(key, value)
        revised = transaction.end()
        store.advance(index, 1)
        if revised is not None:
            live[revised.revision] = events(list(hub.notify([revised])), LIVE)
    store.flush()
    start = max(2, store.revision - back)
    hub.create(RESUMED, EVERYTHING._replace(start_revision=start), History(store.view()))
    frames: list[tuple[StreamId, bytes]] = []
    while hub.unsynced_count:
        frames += hub.catch_up(History(store.view()), watchers_max=10)
    assert events(frames, RESUMED) == [event for revision in live if revision >= start for event in live[revision]]
