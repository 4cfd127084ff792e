"""Watchers of many clients over few of a member, played by hand: what goes upstream, what each client gets."""

from __future__ import annotations

from typing import Any

from grpcproxy.coalescer import Coalescer, coalesced
from grpcproxy.watcher import FRAGMENT_BYTES, Watcher
from proto.kv_pb2 import Event, KeyValue
from proto.rpc_pb2 import ResponseHeader, WatchCreateRequest, WatchRequest, WatchResponse

PUT, DELETE = Event.PUT, Event.DELETE


class Play:
    """A coalescer, its member and its clients."""

    def __init__(self, prefix: bytes = b"", revision: int = 10) -> None:
        self.coalescer = Coalescer(prefix)
        self.revision = revision
        self.streams = 0
        self.coalescer.connected()

    def watch(self, start: int = 0, key: bytes = b"k", end: bytes = b"", **options: Any) -> Watcher:
        """Add a watcher on a stream of its own."""
        self.streams += 1
        request = WatchCreateRequest(key=key, range_end=end, **options)
        watcher = Watcher(self.streams, 0, request, start, self.revision + 1)
        self.coalescer.add(watcher)
        return watcher

    def sent(self) -> list[Any]:
        """Return what has been sent upstream since the last time."""
        requests, self.coalescer.requests = self.coalescer.requests, []
        parsed = [WatchRequest.FromString(each) for each in requests]
        return [getattr(each, str(each.WhichOneof("request_union"))) for each in parsed]

    def told(self) -> list[tuple[int, WatchResponse]]:
        """Return what clients were told since the last time."""
        frames, self.coalescer.frames = self.coalescer.frames, []
        return [(stream, WatchResponse.FromString(frame)) for stream, frame in frames]

    def answer(self, watch_id: int, *events: Event, **fields: Any) -> None:
        """Have the member tell something."""
        header = ResponseHeader(cluster_id=1, revision=self.revision)
        response = WatchResponse(header=header, watch_id=watch_id, events=events, **fields)
        self.coalescer.receive(response.SerializeToString())

    def put(self, watch_id: int, revision: int, key: bytes = b"k") -> None:
        """Have the member tell of a put."""
        self.revision = max(self.revision, revision)
        self.answer(watch_id, event(revision, key))


def event(revision: int, key: bytes = b"k", kind: Event.EventType = PUT, size: int = 1) -> Event:
    """Return an event that has an earlier value."""
    pair = KeyValue(key=key, mod_revision=revision, value=bytes(size))
    return Event(type=kind, kv=pair, prev_kv=KeyValue(key=key, mod_revision=1))


def revisions(told: list[tuple[int, WatchResponse]]) -> list[tuple[int, list[int]]]:
    """Return for each message its stream and the revisions of its events."""
    return [(stream, [each.kv.mod_revision for each in answer.events]) for stream, answer in told]


def test_equal_ranges_share_one_watcher() -> None:
    """The point of the proxy: a thousand clients cost a member one watcher."""
    play = Play()
    play.watch()
    play.watch()
    (create,) = play.sent()
    assert (create.key, create.start_revision, create.prev_kv, create.progress_notify) == (b"k", 11, True, True)
    play.answer(create.watch_id, created=True)
    assert [(stream, told.created, told.header.revision) for stream, told in play.told()] == [
        (1, True, 10),
        (2, True, 10),
    ]
    play.watch()
    assert play.sent() == []
    assert [(stream, told.created) for stream, told in play.told()] == [(3, True)]
    play.put(create.watch_id, 11)
    assert revisions(play.told()) == [(1, [11]), (2, [11]), (3, [11])]
    assert (play.coalescer.events_saved, coalesced([play.coalescer])) == (2, 2)


def test_options_are_each_clients_own() -> None:
    """Filters, earlier values and progress notices are cut to size here: upstream asks for all of it."""
    play = Play()
    play.watch(prev_kv=True)
    play.watch(filters=[WatchCreateRequest.NOPUT])
    play.watch(progress_notify=True)
    (create,) = play.sent()
    play.answer(create.watch_id, created=True)
    play.told()
    play.answer(create.watch_id, event(11), event(12, kind=DELETE))
    told = dict(play.told())
    assert [each.HasField("prev_kv") for each in told[1].events] == [True, True]
    assert [each.type for each in told[2].events] == [DELETE]
    assert [each.HasField("prev_kv") for each in told[3].events] == [False, False]
    play.revision = 20
    play.answer(create.watch_id)
    assert [(stream, told.header.revision) for stream, told in play.told()] == [(3, 20)]


def test_a_watcher_of_the_past_joins_when_it_has_caught_up() -> None:
    """Until then it is apart, so that nobody waits for its history; every event comes once, in order, to each."""
    play = Play()
    play.watch()
    (now,) = play.sent()
    play.answer(now.watch_id, created=True)
    play.watch(start=3)
    (past,) = play.sent()
    assert past.start_revision == 3
    play.answer(past.watch_id, created=True)
    play.told()
    play.answer(past.watch_id, event(3), event(9))
    assert revisions(play.told()) == [(2, [3, 9])]
    assert play.sent() == [], "still behind"
    play.put(now.watch_id, 11)
    play.put(past.watch_id, 11)
    assert revisions(play.told()) == [(1, [11]), (2, [11])]
    (cancel,) = play.sent()
    assert cancel.watch_id == past.watch_id
    play.put(now.watch_id, 12)
    assert revisions(play.told()) == [(1, [12]), (2, [12])]


def test_one_that_joins_the_slower_gets_nothing_twice() -> None:
    """The one of the past may be told of an event first; the other tells of it again."""
    play = Play()
    play.watch()
    play.watch(start=3)
    now, past = play.sent()
    play.answer(now.watch_id, created=True)
    play.answer(past.watch_id, created=True)
    play.put(now.watch_id, 11)
    play.put(past.watch_id, 11)
    play.put(past.watch_id, 12)
    play.put(now.watch_id, 12)
    assert [each for each in revisions(play.told()) if each[1]] == [(1, [11]), (2, [11]), (1, [12]), (2, [12])]


def test_one_that_starts_now_does_not_wait_behind_history() -> None:
    """A broadcast that reads a long past would hold it up, and one of the present that is further may skip ahead."""
    play = Play()
    play.watch(start=2)
    (past,) = play.sent()
    play.answer(past.watch_id, created=True)
    play.watch()
    (now,) = play.sent()
    assert (past.start_revision, now.start_revision) == (2, 11)


def test_another_member_goes_on_where_the_first_was_lost() -> None:
    """Clients notice nothing: no second creation, no event twice, none left out."""
    play = Play()
    play.watch()
    (create,) = play.sent()
    play.answer(create.watch_id, created=True)
    play.put(create.watch_id, 12)
    play.told()
    play.coalescer.lost()
    play.watch(key=b"other")
    assert play.sent() == []
    play.coalescer.connected()
    again, other = play.sent()
    assert (again.start_revision, other.key) == (13, b"other")
    play.answer(again.watch_id, created=True)
    assert play.told() == []
    play.answer(create.watch_id + 100, event(13))  # of no watcher that is known
    play.answer(again.watch_id, event(13))
    assert revisions(play.told()) == [(1, [13])]


def test_compaction_ends_only_those_who_need_what_is_gone() -> None:
    """A broadcast may be older than some of its receivers."""
    play = Play()
    play.watch()
    (create,) = play.sent()
    play.answer(create.watch_id, created=True)
    ahead = play.watch(start=30)
    play.told()
    play.answer(create.watch_id, canceled=True, compact_revision=20, cancel_reason="gone")
    ((stream, told),) = play.told()
    assert (stream, told.canceled, told.compact_revision, told.cancel_reason) == (1, True, 20, "gone")
    (again,) = play.sent()
    assert (again.start_revision, ahead.broadcast is not None) == (30, True)


def test_a_refused_creation_is_told_to_its_own_client() -> None:
    """A member gives no id then: creations are answered in their order."""
    play = Play()
    play.watch(key=b"a")
    play.watch(key=b"b")
    play.answer(-1, created=True, canceled=True, cancel_reason="no")
    told = [(stream, each.created, each.canceled, each.cancel_reason) for stream, each in play.told()]
    assert told == [(1, True, False, ""), (1, False, True, "no")]
    play.answer(2, created=True)
    assert [(stream, each.created) for stream, each in play.told()] == [(2, True)]


def test_the_last_client_takes_the_watcher_with_it() -> None:
    """Otherwise a member would watch for nobody; one canceled before it was there does not shift the others."""
    play = Play()
    first, second = play.watch(key=b"a"), play.watch(key=b"a")
    play.coalescer.remove(first)
    play.watch(key=b"b")
    assert [each.key for each in play.sent()] == [b"a", b"b"]
    play.coalescer.remove(second)
    (cancel,) = play.sent()
    assert cancel.watch_id == 1
    play.answer(1, created=True)
    play.answer(2, created=True)
    assert [(stream, each.created) for stream, each in play.told()] == [(3, True)]
    assert (play.coalescer.watcher_count, play.coalescer.broadcast_count) == (1, 1)


def test_a_slow_client_catches_up_from_history() -> None:
    """Taken out while it does not read, put back where it was: it misses nothing and holds nobody up."""
    play = Play()
    slow = play.watch()
    play.watch()
    (create,) = play.sent()
    play.answer(create.watch_id, created=True)
    play.told()
    play.coalescer.remove(slow)
    play.put(create.watch_id, 11)
    assert revisions(play.told()) == [(2, [11])]
    play.coalescer.add(slow)
    (again,) = play.sent()
    assert again.start_revision == 11
    play.answer(again.watch_id, created=True)
    play.answer(again.watch_id, event(11))
    assert revisions(play.told()) == [(1, [11])]


def test_progress_is_told_for_streams_whose_watchers_are_there() -> None:
    """It promises that nothing up to its revision is missing, which nobody knows of a watcher that is not created."""
    play = Play()
    play.watch(key=b"a")
    (create,) = play.sent()
    play.answer(create.watch_id, created=True)
    play.watch(key=b"b")
    play.told()
    play.coalescer.want_progress(1)
    play.coalescer.want_progress(2)
    play.answer(-1)
    assert [(stream, each.watch_id, each.header.revision) for stream, each in play.told()] == [(1, -1, 10)]


def test_large_answers_come_in_pieces_where_that_is_allowed() -> None:
    """A client that asks for it has a bound on messages; the others get theirs whole."""
    play = Play()
    play.watch(fragment=True)
    play.watch()
    (create,) = play.sent()
    play.answer(create.watch_id, created=True)
    play.told()
    play.answer(create.watch_id, *(event(11, size=FRAGMENT_BYTES // 3) for _ in range(4)))
    told = play.told()
    assert [(stream, len(each.events), each.fragment) for stream, each in told] == [
        (1, 2, True),
        (1, 2, False),
        (2, 4, False),
    ]
    assert all(each.ByteSize() < FRAGMENT_BYTES + 100 for stream, each in told if stream == 1)


def test_keys_leave_the_namespace() -> None:
    """Of events and of the values before them."""
    play = Play(prefix=b"ns/")
    play.watch(key=b"ns/k", prev_kv=True)
    (create,) = play.sent()
    play.answer(create.watch_id, created=True)
    play.told()
    play.answer(create.watch_id, event(11, b"ns/k"))
    ((_, told),) = play.told()
    assert (told.events[0].kv.key, told.events[0].prev_kv.key) == (b"k", b"k")
