"""WatchActor: requests in, frames out to the right listener, and catching up between other messages."""

from __future__ import annotations

from random import Random
from typing import TYPE_CHECKING

import pytest

from actors.messages.apply import ObserveChanges
from actors.messages.common import Tick
from actors.messages.serve import WatchFrames
from actors.messages.watch import Changed, StreamBlocked, StreamClosed, StreamDrained, WatchRequested
from actors.watch import WatchActor
from core.apply.header import ResponseHeaders
from core.mvcc.backend import MemoryBackend
from core.mvcc.store import Store
from core.mvcc.watch_streams import StreamId
from core.types import Term
from proto.rpc_pb2 import (
    WatchCancelRequest,
    WatchCreateRequest,
    WatchProgressRequest,
    WatchRequest,
    WatchResponse,
)
from tests.actors.home import TestHome
from tests.entries import CLUSTER, MEMBER
from tests.fakes import Told

if TYPE_CHECKING:
    from core.mvcc.event import Revised
    from core.mvcc.view import View

PROGRESS_S = 600.0
ONE, TWO = StreamId(1), StreamId(2)


class Watching:
    """A WatchActor over a store, and two listeners."""

    def __init__(self) -> None:
        self.home = TestHome()
        self.store = Store.open(MemoryBackend())
        self.apply = Told()
        self.listener, self.other = Told(), Told()
        self.actor = self.home.spawn(
            WatchActor,
            headers=ResponseHeaders(CLUSTER, MEMBER),
            fragment_size_bytes=1 << 20,
            progress_interval_s=PROGRESS_S,
            random=Random(1),
            clock=self.home.clock,
            apply=self.apply,
        )

    def begin(self) -> None:
        """Tell what the store holds, as ApplyActor does at once."""
        self.tell(Changed((), self.view(), Term(3)))

    def view(self) -> View:
        self.store.flush()
        return self.store.view()

    def tell(self, *messages: object) -> None:
        self.home.tell(self.actor, *messages)

    def write(self, *keys: bytes) -> Changed:
        """Put these keys, one revision each, and return what ApplyActor would tell of it."""
        revisions: list[Revised] = []
        for key in keys:
            transaction = self.store.transaction()
            transaction.put(key, b"v", 0)
            revised = transaction.end()
            assert revised is not None
            revisions.append(revised)
        return Changed(revisions, self.view(), Term(3))

    def create(self, stream: StreamId = ONE, to: Told | None = None, **fields: object) -> None:
        """Ask for a watcher of the key ``a``."""
        request = WatchRequest(create_request=WatchCreateRequest(key=b"a", **fields))  # type: ignore[arg-type]  # any
        self.request(request, stream, to)

    def request(self, request: WatchRequest, stream: StreamId = ONE, to: Told | None = None) -> None:
        self.tell(WatchRequested(to or self.listener, stream, request.SerializeToString()))

    def sent(self, listener: Told | None = None, stream: StreamId = ONE) -> list[WatchResponse]:
        """Return what was sent to *stream* since the last call."""
        frames = [frame for message in (listener or self.listener).take() for frame in message.frames]
        return [WatchResponse.FromString(data) for number, data in frames if number == stream]


@pytest.fixture
def watching() -> Watching:
    made = Watching()
    made.begin()
    return made


def revisions(responses: list[WatchResponse]) -> list[int]:
    """Return the revisions of all events in *responses*."""
    return [event.kv.mod_revision for response in responses for event in response.events]


def test_it_asks_to_be_told_of_changes() -> None:
    """It starts from the answer: the revision that there is."""
    watching = Watching()
    assert ObserveChanges in [type(message) for message in watching.apply.messages]
    watching.tell(Tick(1.0))
    watching.begin()
    watching.create()
    [created] = watching.sent()
    assert (created.created, created.header.revision, created.header.raft_term) == (True, 1, 3)


def test_a_synced_watcher_is_told_at_once(watching: Watching) -> None:
    """In one message to its listener, with the header of its revision."""
    watching.create()
    watching.sent()
    watching.tell(watching.write(b"a", b"b"))
    [response] = watching.sent()
    assert (revisions([response]), response.header.revision) == ([2], 2)


def test_frames_of_one_batch_are_one_message_a_listener(watching: Watching) -> None:
    """A thousand watchers are one message, not a thousand."""
    watching.create(ONE)
    watching.create(TWO)
    watching.create(StreamId(3), watching.other)
    watching.listener.take()
    watching.other.take()
    watching.tell(watching.write(b"a"))
    [message] = watching.listener.of(WatchFrames)
    assert sorted(number for number, _ in message.frames) == [ONE, TWO]
    assert len(watching.other.of(WatchFrames)) == 1


def test_a_late_watcher_catches_up_from_the_store(watching: Watching) -> None:
    """Complete and in order, then on with what is new."""
    watching.tell(watching.write(b"a", b"b", b"a"))
    watching.create(start_revision=1)
    assert revisions(watching.sent()) == [2, 4]
    watching.tell(watching.write(b"a"))
    assert revisions(watching.sent()) == [5]


def test_catching_up_leaves_room_for_others(watching: Watching) -> None:
    """It goes on in rounds behind what was told meanwhile: a watcher far behind delays nobody."""
    watching.create(TWO)
    watching.tell(watching.write(b"a"))
    watching.sent(stream=TWO)
    late = WatchRequest(create_request=WatchCreateRequest(key=b"a", start_revision=1)).SerializeToString()
    watching.actor.actor_ref.tell(WatchRequested(watching.listener, ONE, late))
    watching.home.deliver_one()
    watching.actor.actor_ref.tell(watching.write(b"a"))
    watching.home.run()
    assert revisions(watching.sent()) == [2, 3]
    assert watching.home.crashes == []


def test_a_blocked_stream_gets_nothing_until_it_has_drained(watching: Watching) -> None:
    """Then all that it missed, from the store: a client that stalls costs no memory."""
    watching.create()
    watching.sent()
    watching.tell(StreamBlocked(watching.listener, ONE), watching.write(b"a"), watching.write(b"a"))
    assert watching.sent() == []
    watching.tell(StreamDrained(watching.listener, ONE))
    assert revisions(watching.sent()) == [2, 3]


def test_a_closed_stream_is_forgotten(watching: Watching) -> None:
    """Nothing more is sent, and the number may mean nothing to the listener any more."""
    watching.create()
    watching.sent()
    watching.tell(StreamClosed(watching.listener, ONE), watching.write(b"a"), Tick(1e9))
    assert watching.listener.messages == []


def test_the_end_of_a_stream_that_asked_nothing_is_no_news(watching: Watching) -> None:
    """A client may open a stream and leave."""
    watching.tell(StreamClosed(watching.listener, ONE), StreamBlocked(watching.listener, ONE))
    watching.tell(StreamDrained(watching.listener, ONE))
    assert watching.home.crashes == []


def test_a_canceled_watcher_says_so_and_is_silent(watching: Watching) -> None:
    """An unknown id gets no answer, as in etcd."""
    watching.create()
    watching.sent()
    watching.request(WatchRequest(cancel_request=WatchCancelRequest(watch_id=9)))
    assert watching.sent() == []
    watching.request(WatchRequest(cancel_request=WatchCancelRequest(watch_id=0)))
    assert [response.canceled for response in watching.sent()] == [True]
    watching.tell(watching.write(b"a"))
    assert watching.sent() == []


def test_progress_is_told_on_request(watching: Watching) -> None:
    """With the revision up to which everything was sent."""
    watching.create()
    watching.tell(watching.write(b"b"))
    watching.sent()
    watching.request(WatchRequest(progress_request=WatchProgressRequest()))
    [progress] = watching.sent()
    assert (progress.watch_id, progress.header.revision, list(progress.events)) == (-1, 2, [])


def test_a_quiet_watcher_hears_of_progress(watching: Watching) -> None:
    """About once an interval, and up to a tenth later, so that streams spread."""
    watching.create(progress_notify=True)
    watching.sent()
    start_s = watching.home.clock.now_s
    told = []
    for intervals in (0.99, 1.1, 2.2, 3.3):
        watching.tell(Tick(start_s + intervals * PROGRESS_S))
        told.append([response.watch_id for response in watching.sent()])
    assert told == [[], [0], [0], [0]]


def test_a_request_of_an_unknown_kind_is_ignored(watching: Watching) -> None:
    """As in etcd: a newer client may ask for what is not known here."""
    watching.tell(WatchRequested(watching.listener, ONE, b""))
    watching.tell(WatchRequested(watching.listener, ONE, b"\xfa\x01\x00"))
    assert watching.sent() == []
    watching.create()
    assert [response.created for response in watching.sent()] == [True]


def test_a_watcher_below_the_compaction_is_told_where_it_is(watching: Watching) -> None:
    """It cannot be given what is gone."""
    watching.tell(watching.write(b"a", b"a", b"a"))
    watching.store.begin_compaction(3)
    watching.tell(Changed((), watching.view(), Term(3)))
    watching.create(start_revision=2)
    created, canceled = watching.sent()
    assert created.created
    assert (canceled.canceled, canceled.compact_revision) == (True, 3)
