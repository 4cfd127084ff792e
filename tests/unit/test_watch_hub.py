"""WatchHub: each rule of the watch API by itself, and each watch bug that etcd's users have met."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from core.mvcc.watch_hub import DUPLICATE_ID, RANGE_IS_EMPTY, WatchHub
from core.mvcc.watch_streams import FILTER_NO_DELETE, FILTER_NO_PUT, StreamId, WatchCreate
from proto import kv_pb2, rpc_pb2
from tests.fake_watch_history import FakeHistory, FakeStore

if TYPE_CHECKING:
    from core.mvcc.watch_hub import Frame

ONE, TWO = StreamId(1), StreamId(2)
PUT, DELETE = kv_pb2.Event.PUT, kv_pb2.Event.DELETE


class Watching:
    """A store, a hub and two open streams."""

    def __init__(self, fragment_size_bytes: int = 1 << 21) -> None:
        self.store = FakeStore()
        self.hub = WatchHub(header=self._header, fragment_size_bytes=fragment_size_bytes, revision=1)
        for stream in (ONE, TWO):
            self.hub.open_stream(stream, now_s=0, progress_interval_s=10)

    @staticmethod
    def _header(revision: int) -> bytes:
        return bytes(rpc_pb2.WatchResponse(header={"member_id": 4, "revision": revision}).SerializeToString())

    def history(self) -> FakeHistory:
        return self.store.history()

    def create(self, request: WatchCreate, stream: StreamId = ONE) -> rpc_pb2.WatchResponse:
        [response] = read(self.hub.create(stream, request, self.history()))
        return response

    def put(self, key: bytes, value: bytes = b"v") -> list[rpc_pb2.WatchResponse]:
        return self.change((key, value))

    def change(self, *changes: tuple[bytes, bytes | None]) -> list[rpc_pb2.WatchResponse]:
        return read(self.hub.notify([self.store.change(*changes)]))

    def catch_up(self) -> list[rpc_pb2.WatchResponse]:
        return read(self.hub.catch_up(self.history(), watchers_max=512))

    def progress(self, stream: StreamId = ONE) -> list[rpc_pb2.WatchResponse]:
        return read(self.hub.request_progress(stream, self.history()))


def read(frames: list[Frame]) -> list[rpc_pb2.WatchResponse]:
    return [rpc_pb2.WatchResponse.FromString(message) for _, message in frames]


def keys(response: rpc_pb2.WatchResponse) -> list[bytes]:
    return [event.kv.key for event in response.events]


def test_created_tells_id_and_current_revision() -> None:
    """The client learns from it where its watcher stands."""
    watching = Watching()
    watching.put(b"x")
    response = watching.create(WatchCreate(b"k"))
    assert response.created
    assert not response.canceled
    assert (response.watch_id, response.header.revision, response.header.member_id) == (0, 2, 4)


def test_ids_are_counted_from_zero_past_the_chosen_ones() -> None:
    """A stream's ids never collide, whoever picks them, and are not used twice by the server."""
    watching = Watching()
    ids = [watching.create(WatchCreate(b"k", watch_id=chosen)).watch_id for chosen in (0, 2, 0, 0, 77)]
    assert ids == [0, 2, 1, 3, 77]
    watching.hub.cancel(ONE, 3)
    assert watching.create(WatchCreate(b"k")).watch_id == 4
    assert watching.create(WatchCreate(b"k"), TWO).watch_id == 0


@pytest.mark.parametrize(
    ("request_", "reason"),
    [
        (WatchCreate(b"b", b"b"), RANGE_IS_EMPTY),
        (WatchCreate(b"b", b"a"), RANGE_IS_EMPTY),
        (WatchCreate(b"b", watch_id=5), DUPLICATE_ID),
        (WatchCreate(b"b", start_revision=-1), "etcdserver: mvcc: required revision has been compacted"),
    ],
)
def test_refused_creates_end_at_once(request_: WatchCreate, reason: str) -> None:
    """Clients wait for created and read the reason from canceled: both come in one answer, with id -1."""
    watching = Watching()
    watching.create(WatchCreate(b"a", watch_id=5))
    response = watching.create(request_)
    assert (response.created, response.canceled, response.watch_id) == (True, True, -1)
    assert (response.cancel_reason, response.compact_revision) == (reason, 0)
    assert watching.hub.synced_count == 1


def test_a_missing_permission_refuses_one_watcher_only() -> None:
    """The stream stays open for its other watchers."""
    watching = Watching()
    reason = "rpc error: code = PermissionDenied desc = etcdserver: permission denied"
    [response] = read(watching.hub.refuse(ONE, reason))
    assert (response.created, response.canceled, response.watch_id) == (True, True, -1)
    assert response.cancel_reason == reason
    watching.create(WatchCreate(b"k"))
    assert len(watching.put(b"k")) == 1


@pytest.mark.parametrize(
    ("key", "range_end", "seen"),
    [
        (b"b", b"", [b"b"]),
        (b"b", b"c", [b"b", b"ba"]),
        (b"b", b"\x00", [b"b", b"ba", b"c"]),
        (b"", b"\x00", [b"\x00", b"a", b"b", b"ba", b"c"]),
        (b"", b"", [b"\x00"]),
    ],
)
def test_ranges(key: bytes, range_end: bytes, seen: list[bytes]) -> None:
    """One key, an interval, from a key on; an empty key is the first key there can be.  Live and replayed alike."""
    watching = Watching()
    watching.create(WatchCreate(key, range_end))
    live = [keys(response)[0] for name in (b"\x00", b"a", b"b", b"ba", b"c") for response in watching.put(name)]
    assert live == seen
    watching.create(WatchCreate(key, range_end, start_revision=1))
    [replay] = watching.catch_up()
    assert keys(replay) == seen


def test_a_live_message_holds_one_revision_and_names_it() -> None:
    """Clients take header.revision for the place to resume from."""
    watching = Watching()
    watching.create(WatchCreate(b"a", b"z"))
    batch = [watching.store.change((b"k", b"1"), (b"l", b"1")), watching.store.change((b"k", b"2"))]
    first, second = read(watching.hub.notify(batch))
    assert (first.header.revision, keys(first)) == (2, [b"k", b"l"])
    assert (second.header.revision, keys(second)) == (3, [b"k"])


def test_events_say_put_and_delete() -> None:
    """A delete carries the key and its revision, nothing else."""
    watching = Watching()
    watching.create(WatchCreate(b"k"))
    [put] = watching.put(b"k", b"v")
    [delete] = watching.change((b"k", None))
    assert (put.events[0].type, put.events[0].kv.value, put.events[0].kv.version) == (PUT, b"v", 1)
    assert (delete.events[0].type, delete.events[0].kv.key, delete.events[0].kv.mod_revision) == (DELETE, b"k", 3)


@pytest.mark.parametrize(
    ("filters", "types"),
    [
        ((), [[PUT], [DELETE]]),
        ((FILTER_NO_PUT,), [[DELETE]]),
        ((FILTER_NO_DELETE,), [[PUT]]),
        ((FILTER_NO_PUT, FILTER_NO_DELETE), []),
        ((FILTER_NO_PUT, FILTER_NO_PUT), [[DELETE]]),
        ((99,), [[PUT], [DELETE]]),
    ],
)
def test_filters(filters: tuple[int, ...], types: list[list[int]]) -> None:
    """What is filtered leaves no empty message behind; a filter of a newer client filters nothing."""
    watching = Watching()
    watching.create(WatchCreate(b"k", filters=filters))
    live = watching.put(b"k") + watching.change((b"k", None))
    assert [[event.type for event in response.events] for response in live] == types
    watching.create(WatchCreate(b"k", filters=filters, start_revision=1))
    replayed = [event.type for response in watching.catch_up() for event in response.events]
    assert replayed == [type_ for message in types for type_ in message]


def test_previous_values_only_for_those_who_asked() -> None:
    """The same event goes out in both forms."""
    watching = Watching()
    watching.put(b"k", b"old")
    watching.create(WatchCreate(b"k", prev_kv=True))
    watching.create(WatchCreate(b"k"))
    responses = {response.watch_id: response for response in watching.put(b"k", b"new")}
    assert responses[0].events[0].prev_kv.value == b"old"
    assert not responses[1].events[0].HasField("prev_kv")


def test_history_is_asked_for_previous_values_only_if_needed() -> None:
    """They cost the store a second read for each event."""
    watching = Watching()
    watching.put(b"k", b"old")
    watching.put(b"k", b"new")
    watching.create(WatchCreate(b"k", start_revision=3))
    history = watching.history()
    watching.hub.catch_up(history, watchers_max=10)
    assert [want_prev for _, _, want_prev in history.reads] == [False]
    watching.create(WatchCreate(b"k", start_revision=3, prev_kv=True))
    [response] = watching.catch_up()
    assert response.events[0].prev_kv.value == b"old"


def test_replay_then_live() -> None:
    """A resumed watcher gets what it missed in one message that names the current revision, then each new event."""
    watching = Watching()
    for value in (b"1", b"2", b"3"):
        watching.put(b"k", value)
    watching.put(b"other")
    watching.create(WatchCreate(b"k", start_revision=3))
    assert watching.hub.unsynced_count == 1
    [replay] = watching.catch_up()
    assert [event.kv.value for event in replay.events] == [b"2", b"3"]
    assert replay.header.revision == 5
    assert (watching.hub.unsynced_count, watching.hub.synced_count) == (0, 1)
    [live] = watching.put(b"k", b"4")
    assert [event.kv.value for event in live.events] == [b"4"]


def test_replay_is_cut_after_a_thousand_revisions() -> None:
    """A round of catching up is bounded, however long the history."""
    watching = Watching()
    for _ in range(1500):
        watching.put(b"k")
    watching.create(WatchCreate(b"k", start_revision=1))
    first, second = watching.catch_up() + watching.catch_up()
    assert (len(first.events), len(second.events)) == (1000, 500)
    assert (first.header.revision, second.header.revision) == (1501, 1501)
    assert watching.hub.unsynced_count == 0


def test_writes_during_a_long_replay_are_neither_lost_nor_doubled() -> None:
    """While it catches up the watcher is not in the live set; what is written meanwhile comes from history."""
    watching = Watching()
    for _ in range(1500):
        watching.put(b"k")
    watching.create(WatchCreate(b"k", start_revision=2))
    responses = watching.catch_up() + watching.put(b"k") + watching.catch_up() + watching.put(b"k")
    revisions = [event.kv.mod_revision for response in responses for event in response.events]
    assert revisions == list(range(2, 1504))


def test_watchers_at_one_position_share_a_read() -> None:
    """A thousand clients that reconnect at once must not read the same history a thousand times."""
    watching = Watching()
    for _ in range(3):
        watching.put(b"k")
    for _ in range(100):
        watching.create(WatchCreate(b"k", start_revision=2))
    watching.create(WatchCreate(b"k", start_revision=4))
    history = watching.history()
    responses = read(watching.hub.catch_up(history, watchers_max=512))
    assert len(history.reads) == 1
    assert sorted(len(response.events) for response in responses) == [1] + [3] * 100


def test_a_round_looks_at_a_bounded_number_of_watchers_in_turn() -> None:
    """No stream starves: those not served in this round are first in the next."""
    watching = Watching()
    watching.put(b"k")
    for _ in range(5):
        watching.create(WatchCreate(b"k", start_revision=2))
    served = [
        [response.watch_id for response in read(watching.hub.catch_up(watching.history(), watchers_max=2))]
        for _ in range(3)
    ]
    assert served == [[0, 1], [2, 3], [4]]


def test_far_apart_watchers_take_turns() -> None:
    """A watcher near the end is not held up by one that has all of history before it."""
    watching = Watching()
    for _ in range(4000):
        watching.put(b"k")
    watching.create(WatchCreate(b"k", start_revision=2))
    watching.create(WatchCreate(b"k", start_revision=3999))
    served = [response.watch_id for _ in range(2) for response in watching.catch_up()]
    assert served == [0, 1]


def test_a_history_that_skips_revisions_is_read_to_its_end() -> None:
    """A store restored from a backup may have raised its revision without writing."""
    watching = Watching()
    watching.put(b"k")
    watching.store.revision = 50
    watching.hub.restored(50)
    watching.create(WatchCreate(b"k", start_revision=2))
    responses = watching.catch_up() + watching.catch_up()
    assert [keys(response) for response in responses] == [[b"k"]]
    assert watching.hub.unsynced_count == 0


def test_a_future_start_gets_nothing_earlier() -> None:
    """Old servers sent events from before the start revision after a reconnect, which clients took for new."""
    watching = Watching()
    watching.put(b"k")
    response = watching.create(WatchCreate(b"k", start_revision=5))
    assert (response.created, response.header.revision) == (True, 2)
    assert watching.hub.unsynced_count == 0
    assert watching.put(b"k") + watching.put(b"k") == []
    [event] = watching.put(b"k")
    assert event.events[0].kv.mod_revision == 5


def test_a_future_start_survives_a_stall() -> None:
    """Going through the unsynced state must not make the watcher forget where it wants to begin."""
    watching = Watching()
    watching.create(WatchCreate(b"k", start_revision=4))
    watching.hub.blocked(ONE)
    watching.put(b"k")
    watching.hub.drained(ONE)
    assert watching.catch_up() + watching.put(b"k") == []
    assert len(watching.put(b"k")) == 1


def test_a_compacted_start_is_created_then_canceled() -> None:
    """Clients read the compact revision from the cancel and start over from it."""
    watching = Watching()
    for _ in range(5):
        watching.put(b"k")
    watching.store.compact_revision = 4
    created = watching.create(WatchCreate(b"k", start_revision=3))
    assert (created.created, created.canceled) == (True, False)
    [canceled] = watching.catch_up()
    assert (canceled.canceled, canceled.created, canceled.watch_id) == (True, False, 0)
    assert (canceled.compact_revision, canceled.header.revision, canceled.cancel_reason) == (4, 0, "")
    assert watching.hub.unsynced_count == 0
    assert watching.put(b"k") == []


def test_the_compact_revision_itself_can_be_watched_from() -> None:
    """It is the oldest revision whose events are still there."""
    watching = Watching()
    for _ in range(5):
        watching.put(b"k")
    watching.store.compact_revision = 4
    watching.create(WatchCreate(b"k", start_revision=4))
    [replay] = watching.catch_up()
    assert [event.kv.mod_revision for event in replay.events] == [4, 5, 6]


def test_a_slow_watcher_overtaken_by_compaction_is_told() -> None:
    """Events lost around a compaction without a word were etcd's worst watch bug."""
    watching = Watching()
    watching.create(WatchCreate(b"k"))
    watching.hub.blocked(ONE)
    for _ in range(5):
        watching.put(b"k")
    watching.store.compact_revision = 5
    watching.hub.drained(ONE)
    [canceled] = watching.catch_up()
    assert (canceled.canceled, canceled.compact_revision) == (True, 5)


def test_a_compaction_does_not_touch_those_who_are_past_it() -> None:
    """A synced watcher has all events up to now, whatever is compacted."""
    watching = Watching()
    watching.create(WatchCreate(b"k"))
    watching.hub.blocked(ONE)
    watching.store.compact_revision = watching.store.revision
    watching.hub.drained(ONE)
    assert watching.catch_up() == []
    assert len(watching.put(b"k")) == 1


def test_a_slow_stream_delays_nobody_and_loses_nothing() -> None:
    """A reader that stalls costs no memory and is sent what it missed when it reads again."""
    watching = Watching()
    watching.create(WatchCreate(b"k"), ONE)
    watching.create(WatchCreate(b"k"), TWO)
    watching.put(b"k", b"1")
    watching.hub.blocked(ONE)
    watching.hub.blocked(ONE)
    during = watching.hub.notify([watching.store.change((b"k", b"2"))])
    assert [frame.stream for frame in during] == [TWO]
    assert watching.hub.unsynced_count == 0, "nothing to do for it while it is blocked"
    assert watching.catch_up() == []
    watching.hub.drained(ONE)
    frames = watching.hub.catch_up(watching.history(), watchers_max=10)
    assert [frame.stream for frame in frames] == [ONE]
    assert [event.kv.value for event in read(frames)[0].events] == [b"2"]
    after = watching.hub.notify([watching.store.change((b"k", b"3"))])
    assert sorted(frame.stream for frame in after) == [ONE, TWO]


def test_a_stream_that_missed_nothing_is_live_at_once() -> None:
    """Draining without writes in between needs no read of history."""
    watching = Watching()
    watching.create(WatchCreate(b"k"))
    watching.hub.blocked(ONE)
    watching.hub.drained(ONE)
    watching.hub.drained(ONE)
    assert (watching.hub.synced_count, watching.hub.unsynced_count) == (1, 0)


def test_a_watcher_created_on_a_blocked_stream_waits() -> None:
    """It is answered, and starts when the stream drains."""
    watching = Watching()
    watching.hub.blocked(ONE)
    assert watching.create(WatchCreate(b"k")).created
    assert watching.put(b"k") == []
    watching.hub.drained(ONE)
    assert [keys(response) for response in watching.catch_up()] == [[b"k"]]


def test_stalls_of_unknown_streams_change_nothing() -> None:
    """The transport may report on a stream that was closed meanwhile."""
    watching = Watching()
    watching.hub.close_stream(ONE)
    watching.hub.close_stream(ONE)
    watching.hub.blocked(ONE)
    watching.hub.drained(ONE)
    assert watching.hub.stream_count == 1


def test_cancel_answers_with_the_current_revision() -> None:
    """After it no event of that watcher comes; its siblings go on."""
    watching = Watching()
    watching.create(WatchCreate(b"k"))
    watching.create(WatchCreate(b"k"))
    watching.put(b"k")
    [response] = read(watching.hub.cancel(ONE, 0))
    assert (response.canceled, response.created, response.watch_id, response.header.revision) == (True, False, 0, 2)
    assert [response.watch_id for response in watching.put(b"k")] == [1]


def test_cancel_of_an_unknown_id_is_silent() -> None:
    """A second cancel, or one of an id of another stream, gets no answer at all."""
    watching = Watching()
    watching.create(WatchCreate(b"k"), TWO)
    assert watching.hub.cancel(ONE, 0) == []
    assert watching.hub.cancel(ONE, -1) == []
    watching.hub.cancel(TWO, 0)
    assert watching.hub.cancel(TWO, 0) == []


def test_cancel_of_an_unsynced_watcher() -> None:
    """It must not come back with the next round."""
    watching = Watching()
    watching.put(b"k")
    watching.create(WatchCreate(b"k", start_revision=1))
    watching.hub.cancel(ONE, 0)
    assert watching.catch_up() == []


def test_a_closed_stream_is_sent_nothing() -> None:
    """Synced and unsynced watchers go with their stream."""
    watching = Watching()
    watching.put(b"k")
    watching.create(WatchCreate(b"k"))
    watching.create(WatchCreate(b"k", start_revision=1))
    watching.hub.close_stream(ONE)
    assert watching.catch_up() + watching.put(b"k") == []
    assert (watching.hub.synced_count, watching.hub.unsynced_count, watching.hub.stream_count) == (0, 0, 1)


def test_progress_of_a_fresh_watcher_is_answered_at_once() -> None:
    """Kubernetes reads from its cache only after this answer; a watcher without events must give it too."""
    watching = Watching()
    watching.put(b"other")
    watching.create(WatchCreate(b"k"))
    [response] = watching.progress()
    assert (response.watch_id, response.header.revision, len(response.events)) == (-1, 2, 0)
    assert not response.created
    assert not response.canceled


def test_progress_is_silent_unless_every_watcher_is_synced() -> None:
    """An answer would claim that all events up to the revision were sent."""
    watching = Watching()
    watching.put(b"k")
    watching.create(WatchCreate(b"other"))
    watching.create(WatchCreate(b"k", start_revision=1))
    assert watching.progress() == []
    watching.catch_up()
    assert [response.watch_id for response in watching.progress()] == [-1]


def test_progress_is_silent_without_watchers_or_before_a_future_start() -> None:
    """There is nothing it could say."""
    watching = Watching()
    assert watching.progress() == []
    watching.create(WatchCreate(b"k", start_revision=9))
    assert watching.progress() == []


def test_progress_of_a_blocked_stream_is_silent() -> None:
    """What it missed must be sent first."""
    watching = Watching()
    watching.create(WatchCreate(b"k"))
    watching.hub.blocked(ONE)
    assert watching.progress() == []


def test_progress_waits_for_notifications_on_their_way() -> None:
    """The store may have applied what the hub was not told yet: an answer before that would be ahead of events."""
    watching = Watching()
    watching.create(WatchCreate(b"k"))
    revised = watching.store.change((b"k", b"v"))
    assert watching.progress() == []
    event, progress = read(watching.hub.notify([revised]))
    assert keys(event) == [b"k"]
    assert (progress.watch_id, progress.header.revision) == (-1, 2)
    assert len(watching.put(b"k")) == 1


def test_a_stream_closed_while_its_progress_waits() -> None:
    """The answer has nobody to go to."""
    watching = Watching()
    watching.create(WatchCreate(b"k"))
    revised = watching.store.change((b"k", b"v"))
    watching.progress()
    watching.hub.close_stream(ONE)
    assert watching.hub.notify([revised]) == []


def test_progress_notify_never_falls_behind_the_created_answer() -> None:
    """A watcher created ahead of the notifications has nothing to tell before they reach it."""
    watching = Watching()
    revised = watching.store.change((b"other", b"v"))
    watching.create(WatchCreate(b"k", progress_notify=True))
    assert watching.hub.tick(10) == []
    watching.hub.notify([revised])
    assert [response.header.revision for response in read(watching.hub.tick(20))] == [2]


def test_progress_notify_waits_for_the_start_revision() -> None:
    """Before it is reached the watcher has not begun, even if the very next revision is its first."""
    watching = Watching()
    watching.create(WatchCreate(b"k", start_revision=2, progress_notify=True))
    assert watching.hub.tick(10) == []
    watching.put(b"other")
    assert [response.header.revision for response in read(watching.hub.tick(20))] == [2]


def test_a_short_read_does_not_take_back_those_ahead_of_it() -> None:
    """A read of large values may end before the position of a watcher that was to share it."""
    watching = Watching()
    for _ in range(9):
        watching.put(b"k")
    watching.create(WatchCreate(b"k", start_revision=2))
    watching.create(WatchCreate(b"k", start_revision=8))
    revisions: dict[int, list[int]] = {0: [], 1: []}
    for _ in range(10):
        for response in read(watching.hub.catch_up(watching.store.history(revisions_a_read_max=2), watchers_max=10)):
            revisions[response.watch_id] += [event.kv.mod_revision for event in response.events]
    assert revisions == {0: list(range(2, 11)), 1: [8, 9, 10]}


def test_a_create_that_runs_ahead_of_notifications_gets_no_old_events() -> None:
    """From now on means after the revision named in the answer."""
    watching = Watching()
    revised = watching.store.change((b"k", b"v"))
    assert watching.create(WatchCreate(b"k")).header.revision == 2
    assert watching.hub.notify([revised]) == []
    assert len(watching.put(b"k")) == 1


def test_notifications_known_from_before_are_passed_over() -> None:
    """After a restart entries are applied again; their events were sent."""
    watching = Watching()
    watching.create(WatchCreate(b"k"))
    revised = watching.store.change((b"k", b"v"))
    assert len(watching.hub.notify([revised, revised])) == 1
    assert watching.hub.notify([revised]) == []


def test_progress_notify_comes_to_the_quiet_only() -> None:
    """An interval without a message earns one; an event makes it unnecessary."""
    watching = Watching()
    watching.create(WatchCreate(b"a", progress_notify=True))
    watching.create(WatchCreate(b"b", progress_notify=True))
    watching.create(WatchCreate(b"c"))
    watching.put(b"a")
    assert watching.hub.tick(9.9) == []
    [progress] = read(watching.hub.tick(10))
    assert (progress.watch_id, progress.header.revision, len(progress.events)) == (1, 2, 0)
    assert watching.hub.tick(19) == []
    assert [response.watch_id for response in read(watching.hub.tick(20))] == [0, 1]


def test_progress_notify_is_only_for_synced_watchers() -> None:
    """Neither an unsynced watcher nor one before its start may be told of a revision."""
    watching = Watching()
    watching.put(b"k")
    watching.create(WatchCreate(b"k", start_revision=1, progress_notify=True))
    watching.create(WatchCreate(b"k", start_revision=9, progress_notify=True))
    assert watching.hub.tick(10) == []
    watching.catch_up()
    assert watching.hub.tick(20) == [], "the replay was a message"
    assert [response.watch_id for response in read(watching.hub.tick(30))] == [0]


def test_fragments_for_those_who_asked() -> None:
    """A transaction larger than the limit comes in pieces with one header; others get it whole."""
    watching = Watching(fragment_size_bytes=600)
    watching.create(WatchCreate(b"a", b"z", fragment=True), ONE)
    watching.create(WatchCreate(b"a", b"z"), TWO)
    revised = watching.store.change(*((b"k%d" % number, b"v" * 200) for number in range(5)))
    frames = watching.hub.notify([revised])
    pieces = read([frame for frame in frames if frame.stream == ONE])
    assert [piece.fragment for piece in pieces] == [True, True, False]
    assert [key for piece in pieces for key in keys(piece)] == [b"k0", b"k1", b"k2", b"k3", b"k4"]
    assert {piece.header.revision for piece in pieces} == {2}
    [whole] = read([frame for frame in frames if frame.stream == TWO])
    assert (len(whole.events), whole.fragment) == (5, False)


def test_small_messages_and_single_events_are_not_fragmented() -> None:
    """There is nothing to cut."""
    watching = Watching(fragment_size_bytes=600)
    watching.create(WatchCreate(b"a", b"z", fragment=True))
    [large] = watching.put(b"k", b"v" * 1000)
    [small] = watching.change((b"k", b"1"), (b"l", b"2"))
    assert [large.fragment, small.fragment] == [False, False]


def test_a_snapshot_sends_synced_watchers_to_history() -> None:
    """A follower that was sent a snapshot never saw the entries in between, but its history holds their events."""
    watching = Watching()
    watching.create(WatchCreate(b"k"))
    watching.create(WatchCreate(b"k", start_revision=9))
    for _ in range(3):
        watching.store.change((b"k", b"v"))
    watching.hub.restored(watching.store.revision)
    assert (watching.hub.synced_count, watching.hub.unsynced_count) == (1, 1)
    [replay] = watching.catch_up()
    assert [event.kv.mod_revision for event in replay.events] == [2, 3, 4]
    assert len(watching.put(b"k")) == 1


def test_a_stale_history_takes_nobody_back() -> None:
    """A round with a view from before the last notification sends what it has; the rest comes with the next."""
    watching = Watching()
    watching.put(b"k")
    stale = watching.history()
    watching.put(b"k")
    watching.create(WatchCreate(b"k", start_revision=2))
    revisions = []
    for history in (stale, stale, watching.history()):
        for response in read(watching.hub.catch_up(history, watchers_max=1)):
            revisions += [event.kv.mod_revision for event in response.events]
    assert revisions == [2, 3]
