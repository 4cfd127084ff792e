"""The same watchers over the same writes on actcd and on etcd 3.5.1: every watcher must see the same events.

Compared: created answers, cancel answers with their reasons, the events of every watcher in order, and how live
events are grouped into messages (one revision each).  How replayed history is grouped is the server's choice.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from queue import Empty, SimpleQueue
from random import Random
from threading import Thread
from typing import Final

import grpc
import pytest

from proto import kv_pb2, rpc_pb2
from tests.e2e.client import CALL_TIMEOUT_S, Stubs, connect
from tests.e2e.conftest import MakeServer
from tests.e2e.differential import Twins, seeds, without_ids
from tests.e2e.harness import SHORT_TIMEOUTS, Server, actcd, real_etcd, wait_for

pytestmark = pytest.mark.e2e

ROUND_COUNT: Final = 12
WRITES_PER_ROUND: Final = 15
STREAM_COUNT: Final = 2
ANSWER_TIMEOUT_S: Final = 10.0
UNSYNCED_METRIC: Final = "etcd_debugging_mvcc_slow_watcher_total"
KEYS: Final = (*(f"w/{number}".encode() for number in range(6)), b"a", b"x", b"\x00")
INTERVALS: Final = (
    (b"w/0", b""),
    (b"w/1", b""),
    (b"w/", b"w0"),
    (b"w/2", b"w/4"),
    (b"b", b"\x00"),
    (b"\x00", b"\x00"),
    (b"", b"\x00"),
    (b"", b""),
    (b"x", b"a"),
    (b"a", b"a"),
)
"""One key, prefix, interval, from-key, everything, the empty key, and two ranges that are empty."""


class WatchStream:
    """One watch stream; a thread reads it into a queue, so that reading can have a time limit."""

    def __init__(self, stubs: Stubs) -> None:
        self._requests: SimpleQueue[rpc_pb2.WatchRequest | None] = SimpleQueue()
        self._responses: SimpleQueue[rpc_pb2.WatchResponse | grpc.RpcError] = SimpleQueue()
        self._call = stubs.watch.Watch(iter(self._requests.get, None))
        self._reader = Thread(target=self._read, name="watch-reader", daemon=True)
        self._reader.start()

    def send(self, request: rpc_pb2.WatchRequest) -> None:
        """Queue *request* for sending."""
        self._requests.put(request)

    def next(self) -> rpc_pb2.WatchResponse:
        """The next message, without the ids; AssertionError when none comes in time."""
        try:
            response = self._responses.get(timeout=ANSWER_TIMEOUT_S)
        except Empty:
            raise AssertionError(f"no message within {ANSWER_TIMEOUT_S} s") from None
        if isinstance(response, grpc.RpcError):
            raise response
        without_ids(response)
        return response

    def close(self) -> None:
        """End the call and its thread."""
        self._requests.put(None)
        self._call.cancel()
        self._reader.join(ANSWER_TIMEOUT_S)

    def _read(self) -> None:
        try:
            for response in self._call:
                self._responses.put(response)
        except grpc.RpcError as error:
            self._responses.put(error)


@contextmanager
def stream(stubs: Stubs) -> Iterator[WatchStream]:
    """A watch stream, closed at the end."""
    opened = WatchStream(stubs)
    try:
        yield opened
    finally:
        opened.close()


def create(
    key: bytes, range_end: bytes = b"", start_revision: int = 0, watch_id: int = 0, prev_kv: bool = False
) -> rpc_pb2.WatchRequest:
    """A create request."""
    return rpc_pb2.WatchRequest(
        create_request=rpc_pb2.WatchCreateRequest(
            key=key, range_end=range_end, start_revision=start_revision, watch_id=watch_id, prev_kv=prev_kv
        )
    )


PROGRESS: Final = rpc_pb2.WatchRequest(progress_request=rpc_pb2.WatchProgressRequest())


@dataclass
class Observed:
    """What one server sent on one stream, told apart by watcher."""

    messages: dict[int, list[rpc_pb2.WatchResponse]] = field(default_factory=dict)

    def take(self, message: rpc_pb2.WatchResponse) -> None:
        """File *message* under its watcher."""
        self.messages.setdefault(message.watch_id, []).append(message)

    def events(self, watch_id: int) -> list[kv_pb2.Event]:
        """All events of one watcher in the order they came."""
        return [event for message in self.messages.get(watch_id, []) for event in message.events]

    def groups(self, watch_id: int) -> list[tuple[int, int]]:
        """Header revision and number of events of each message to one watcher."""
        return [(message.header.revision, len(message.events)) for message in self.messages.get(watch_id, [])]

    def check_revisions_whole(self) -> None:
        """AssertionError when a revision is split over messages, or revisions do not rise."""
        for watch_id, messages in self.messages.items():
            last_revision = 0
            for message in messages:
                revisions = [event.kv.mod_revision for event in message.events]
                assert revisions == sorted(revisions), (watch_id, revisions)
                if revisions:
                    assert revisions[0] > last_revision, (
                        f"watcher {watch_id}: revision {revisions[0]} split or repeated"
                    )
                    assert message.header.revision >= revisions[-1], (watch_id, message)
                    last_revision = revisions[-1]


@dataclass
class Watcher:
    """A watcher that both servers know by the same id."""

    request: rpc_pb2.WatchCreateRequest
    created_at: int
    live_from: tuple[int, int] | None
    """How many messages it had had on each side when it was known to have caught up; None until then."""

    def wants(self, event: kv_pb2.Event) -> bool:
        """Whether this event is for it."""
        request = self.request
        if event.kv.mod_revision < (request.start_revision or self.created_at + 1):
            return False
        dropped = (
            rpc_pb2.WatchCreateRequest.NODELETE if event.type == event.DELETE else rpc_pb2.WatchCreateRequest.NOPUT
        )
        if dropped in request.filters:
            return False
        key, range_end = request.key or b"\x00", request.range_end
        if not range_end:
            return event.kv.key == key
        return event.kv.key >= key and (range_end == b"\x00" or event.kv.key < range_end)


class Pair:
    """The same stream on both servers."""

    def __init__(self, subject: WatchStream, reference: WatchStream, label: str) -> None:
        self.streams = (subject, reference)
        self.observed = (Observed(), Observed())
        self.label = label
        self.watchers: dict[int, Watcher] = {}

    def exchange(self, request: rpc_pb2.WatchRequest) -> list[rpc_pb2.WatchResponse]:
        """Send *request* to both and wait for the answer to it; events that come before it are filed."""
        answers = []
        for each, observed in zip(self.streams, self.observed, strict=True):
            each.send(request)
            while (answer := each.next()).events:
                observed.take(answer)
            answers.append(answer)
        subject, reference = answers
        assert subject == reference, (
            f"{self.label}: answers differ to {request}\n{subject}\n--- etcd 3.5.1\n{reference}"
        )
        return answers

    def create(self, request: rpc_pb2.WatchCreateRequest, compact_revision: int) -> None:
        """Create a watcher on both, and await the cancel message of one that starts in the compacted past."""
        answer = self.exchange(rpc_pb2.WatchRequest(create_request=request))[0]
        assert answer.created, answer
        if answer.canceled:
            assert answer.watch_id == -1, answer
            return
        if 0 < request.start_revision < compact_revision:
            cancels = [self._next_without_events(side) for side in range(2)]
            assert cancels[0] == cancels[1], f"{self.label}: {request}: {cancels}"
            assert (cancels[0].canceled, cancels[0].compact_revision) == (True, compact_revision), cancels
            return
        created_at = answer.header.revision
        replays = 0 < request.start_revision <= created_at
        self.watchers[answer.watch_id] = Watcher(request, created_at, None if replays else (0, 0))

    def cancel(self, watch_id: int) -> None:
        """Cancel a watcher on both, one that had caught up before: what it has seen must be equal to the end."""
        request = rpc_pb2.WatchRequest(cancel_request=rpc_pb2.WatchCancelRequest(watch_id=watch_id))
        answer = self.exchange(request)[0]
        assert (answer.canceled, answer.watch_id) == (True, watch_id), answer
        self.watchers.pop(watch_id)
        seen = [each.events(watch_id) for each in self.observed]
        assert seen[0] == seen[1], f"{self.label}, cancelled watcher {watch_id}"
        for each in self.observed:  # the id may be used again
            each.messages.pop(watch_id, None)

    def drain(self, history: list[kv_pb2.Event]) -> None:
        """Read until every watcher has what *history* holds for it, then a progress answer with nothing before it."""
        expected = {
            watch_id: sum(watcher.wants(event) for event in history) for watch_id, watcher in self.watchers.items()
        }
        for side in range(2):
            observed = self.observed[side]
            while any(len(observed.events(watch_id)) < count for watch_id, count in expected.items()):
                message = self.streams[side].next()
                assert message.events, f"{self.label}: unexpected {message}"
                observed.take(message)
        if self.watchers and not any(each.request.start_revision > each.created_at for each in self.watchers.values()):
            self.exchange(PROGRESS)

    def compare(self) -> None:
        """The same events for every watcher, whole revisions, and live ones grouped alike."""
        subject, reference = self.observed
        assert subject.messages.keys() == reference.messages.keys(), self.label
        for watch_id in reference.messages:
            assert subject.events(watch_id) == reference.events(watch_id), f"{self.label}, watcher {watch_id}"
        for watch_id, watcher in self.watchers.items():
            if watcher.live_from is not None:
                groups = [
                    each.groups(watch_id)[start:] for each, start in zip(self.observed, watcher.live_from, strict=True)
                ]
                assert groups[0] == groups[1], f"{self.label}, watcher {watch_id}: live messages grouped otherwise"
        for each in self.observed:
            each.check_revisions_whole()

    def all_live(self) -> None:
        """Note that every watcher has caught up on both servers: from here on grouping is compared."""
        subject, reference = self.observed
        for watch_id, watcher in self.watchers.items():
            if watcher.live_from is None:
                watcher.live_from = len(subject.groups(watch_id)), len(reference.groups(watch_id))

    def _next_without_events(self, side: int) -> rpc_pb2.WatchResponse:
        while (message := self.streams[side].next()).events:
            self.observed[side].take(message)
        return message


def _caught_up(server: Server) -> bool:
    return server.metric(UNSYNCED_METRIC) == 0


class Story:
    """Random watchers and writes from one seed, in rounds: change the watchers, write, read everything, compare."""

    def __init__(self, servers: tuple[Server, Server], twins: Twins, pairs: list[Pair], seed: int) -> None:
        self._servers = servers
        self._twins = twins
        self._pairs = pairs
        self._source = Random(seed)
        self._history: list[kv_pb2.Event] = []
        self._revision = 1
        self._compact_revision = 0

    def run(self) -> None:
        """Play all rounds."""
        for _ in range(ROUND_COUNT):
            for pair in self._pairs:
                self._change_watchers(pair)
            for _ in range(WRITES_PER_ROUND):
                self._write()
            for pair in self._pairs:
                pair.drain(self._history)
                pair.compare()
            for server in self._servers:
                wait_for(partial(_caught_up, server), ANSWER_TIMEOUT_S, "every watcher has caught up")
            for pair in self._pairs:
                pair.all_live()
            if self._source.random() < 0.3:
                self._compact()

    def _change_watchers(self, pair: Pair) -> None:
        for _ in range(self._source.randint(1, 4)):
            pair.create(self._create_request(pair), self._compact_revision)
        settled = [watch_id for watch_id, watcher in sorted(pair.watchers.items()) if watcher.live_from is not None]
        if settled and self._source.random() < 0.5:
            pair.cancel(self._source.choice(settled))

    def _create_request(self, pair: Pair) -> rpc_pb2.WatchCreateRequest:
        key, range_end = self._source.choice(INTERVALS)
        request = rpc_pb2.WatchCreateRequest(key=key, range_end=range_end, prev_kv=self._source.random() < 0.4)
        match self._source.randrange(6):
            case 0 | 1:
                request.start_revision = self._start_in_the_past()
            case 2:
                request.start_revision = self._revision + self._source.randint(1, 6)
            case _:
                pass
        for kind in (rpc_pb2.WatchCreateRequest.NOPUT, rpc_pb2.WatchCreateRequest.NODELETE):
            if self._source.random() < 0.15:
                request.filters.append(kind)
        if self._source.random() < 0.3:
            request.watch_id = self._source.choice([*pair.watchers, self._source.randint(1, 2**40), -5])
        request.fragment = self._source.random() < 0.3
        return request

    def _start_in_the_past(self) -> int:
        """An old revision, compacted ones included, but never a tombstone at the compact revision."""
        start = self._source.randint(1, self._revision)
        return start + 1 if start == self._compact_revision else start

    def _write(self) -> None:
        """One write to both; its events, read off the answer, go into the history."""
        match self._source.randrange(8):
            case 0 | 1:
                delete = self._delete()
                self._commit("kv.DeleteRange", delete, [rpc_pb2.RequestOp(request_delete_range=delete)])
            case 2:
                operations = [rpc_pb2.RequestOp(request_put=self._put(key)) for key in self._source.sample(KEYS, 3)]
                self._commit("kv.Txn", rpc_pb2.TxnRequest(success=operations), operations)
            case _:
                put = self._put(self._source.choice(KEYS))
                self._commit("kv.Put", put, [rpc_pb2.RequestOp(request_put=put)])

    def _put(self, key: bytes) -> rpc_pb2.PutRequest:
        return rpc_pb2.PutRequest(key=key, value=self._source.randbytes(self._source.choice((0, 3, 20))))

    def _delete(self) -> rpc_pb2.DeleteRangeRequest:
        if self._source.random() < 0.3:
            return rpc_pb2.DeleteRangeRequest(key=b"w/", range_end=b"w/3", prev_kv=True)
        return rpc_pb2.DeleteRangeRequest(key=self._source.choice(KEYS), prev_kv=True)

    def _commit(
        self,
        method: str,
        request: rpc_pb2.DeleteRangeRequest | rpc_pb2.TxnRequest | rpc_pb2.PutRequest,
        operations: list[rpc_pb2.RequestOp],
    ) -> None:
        answer = self._twins.call(method, request)
        assert isinstance(answer, rpc_pb2.DeleteRangeResponse | rpc_pb2.TxnResponse | rpc_pb2.PutResponse), answer
        self._revision = answer.header.revision
        if isinstance(answer, rpc_pb2.DeleteRangeResponse):
            self._note(kv_pb2.Event.DELETE, [kv.key for kv in answer.prev_kvs])
        else:
            self._note(kv_pb2.Event.PUT, [operation.request_put.key for operation in operations])

    def _note(self, kind: kv_pb2.Event.EventType, keys: list[bytes]) -> None:
        for key in keys:
            self._history.append(kv_pb2.Event(type=kind, kv=kv_pb2.KeyValue(key=key, mod_revision=self._revision)))

    def _compact(self) -> None:
        revision = self._source.randint(self._compact_revision + 1, self._revision)
        self._twins.call("kv.Compact", rpc_pb2.CompactionRequest(revision=revision, physical=True))
        self._compact_revision = revision


@pytest.mark.parametrize("seed", seeds(range(1, 6)))
def test_same_watchers_see_the_same_events(make_server: MakeServer, seed: int) -> None:
    """Random watchers see, on both servers, the same events in the same order and the same reasons when refused."""
    servers = make_server(settings=SHORT_TIMEOUTS), make_server(real_etcd(), settings=SHORT_TIMEOUTS)
    with connect(servers[0].endpoint) as subject, connect(servers[1].endpoint) as reference:
        pairs = [
            Pair(WatchStream(subject), WatchStream(reference), f"seed {seed}, stream {number}")
            for number in range(STREAM_COUNT)
        ]
        try:
            Story(servers, Twins(subject, reference, f"seed {seed}"), pairs, seed).run()
        finally:
            for pair in pairs:
                for each in pair.streams:
                    each.close()


def test_fragments_add_up_to_the_same_events(make_server: MakeServer) -> None:
    """A revision too large for one message comes in pieces to who asked for them, and in one piece to who did not."""
    settings = {**SHORT_TIMEOUTS, "max-request-bytes": 100_000}
    key_count, value_bytes = 40, 50_000
    limit_bytes = 100_000 + 512 * 1024

    def messages(stubs: Stubs, fragment: bool) -> list[rpc_pb2.WatchResponse]:
        for number in range(key_count):
            put = rpc_pb2.PutRequest(key=b"f/%02d" % number, value=bytes([number]) * value_bytes)
            stubs.kv.Put(put, timeout=CALL_TIMEOUT_S)
        with stream(stubs) as watch:
            request = create(b"f/", b"f0", prev_kv=True)
            request.create_request.fragment = fragment
            watch.send(request)
            assert watch.next().created
            stubs.kv.DeleteRange(rpc_pb2.DeleteRangeRequest(key=b"f/", range_end=b"f0"), timeout=CALL_TIMEOUT_S)
            received = [watch.next()]
            while received[-1].fragment:
                received.append(watch.next())
        return received

    def events(received: list[rpc_pb2.WatchResponse]) -> list[kv_pb2.Event]:
        return [event for message in received for event in message.events]

    subject = make_server(settings=settings)
    reference = make_server(real_etcd(), settings=settings)
    with connect(subject.endpoint) as one, connect(reference.endpoint) as other:
        pieces, expected = messages(one, fragment=True), messages(other, fragment=True)
        assert events(pieces) == events(expected)
        assert len(events(pieces)) == key_count
        assert len(pieces) > 1
        assert {message.header.revision for message in pieces} == {key_count + 2}
        assert max(message.ByteSize() for message in pieces) <= limit_bytes + value_bytes
        whole, expected = messages(one, fragment=False), messages(other, fragment=False)
        assert (len(whole), len(expected)) == (1, 1)
        assert events(whole) == events(expected)


def test_progress_notices_come_by_themselves(make_server: MakeServer) -> None:
    """A quiet watcher that asked for it is told the current revision again and again: caches rest on these notices."""
    interval_ns = 100_000_000
    for program in (actcd(), real_etcd()):
        key = "watch-progress-notify-interval"
        settings = {**SHORT_TIMEOUTS, f"experimental-{key}" if program == real_etcd() else key: interval_ns}
        with connect(make_server(program, settings).endpoint) as client, stream(client) as watch:
            request = create(b"quiet", watch_id=3)
            request.create_request.progress_notify = True
            watch.send(request)
            assert watch.next().created
            for revision in (2, 3):
                client.kv.Put(rpc_pb2.PutRequest(key=b"other"), timeout=CALL_TIMEOUT_S)
                while (notice := watch.next()).header.revision < revision:
                    assert not notice.events, notice
                assert (notice.watch_id, notice.header.revision, len(notice.events)) == (3, revision, 0), notice


def test_watch_resumes_after_a_kill(make_server: MakeServer) -> None:
    """A client that lost its server in mid-stream asks for the next revision and misses nothing."""
    server = make_server(settings=SHORT_TIMEOUTS)
    write_count, taken_count = 60, 20
    with connect(server.endpoint) as client, stream(client) as watch:
        watch.send(create(b"r/", b"r0", start_revision=1))
        assert watch.next().created
        for number in range(write_count):
            put = rpc_pb2.PutRequest(key=b"r/%d" % (number % 7), value=b"%d" % number)
            client.kv.Put(put, timeout=CALL_TIMEOUT_S)
        values: list[bytes] = []
        while len(values) < taken_count:
            values += [event.kv.value for event in watch.next().events]
    server.kill()
    server.start()
    with connect(server.endpoint) as client, stream(client) as watch:
        watch.send(create(b"r/", b"r0", start_revision=2 + len(values)))
        assert watch.next().created
        while len(values) < write_count:
            values += [event.kv.value for event in watch.next().events]
    assert values == [b"%d" % number for number in range(write_count)]


def test_client_that_sends_no_more_still_watches(make_server: MakeServer) -> None:
    """A client that sends no more still gets its events; that is how short scripts watch."""
    servers = make_server(settings=SHORT_TIMEOUTS), make_server(real_etcd(), settings=SHORT_TIMEOUTS)
    for server in servers:
        with connect(server.endpoint) as stubs:
            responses = stubs.watch.Watch(iter([create(b"half")]), timeout=CALL_TIMEOUT_S)
            assert next(responses).created
            stubs.kv.Put(rpc_pb2.PutRequest(key=b"half", value=b"closed"), timeout=CALL_TIMEOUT_S)
            assert [event.kv.value for event in next(responses).events] == [b"closed"]
            responses.cancel()
