"""ServeActor with an engine that carries nothing: batches, read rounds, refusals, timeouts, watch streams, the end."""

from __future__ import annotations

import asyncio
from random import Random
from typing import TYPE_CHECKING, Any

import pytest

from actors import serve as serve_module
from actors.address import Delivery
from actors.messages.apply import Defragment, Inspect, Observe, ObserveOutcomes
from actors.messages.common import Tick
from actors.messages.lease import ListLeases, Renew, TimeToLive
from actors.messages.raft import ObserveRole, Propose, ReadIndex, RoleIs
from actors.messages.serve import (
    Accepted,
    Answered,
    Completed,
    Drain,
    Open,
    Published,
    ReadIndexed,
    Refused,
    Renewed,
    WatchFrames,
    WritesRefused,
)
from actors.messages.wal import ObserveSpace
from actors.messages.watch import StreamBlocked, StreamClosed, StreamDrained, WatchRequested
from actors.messages.worker import Work
from actors.serve import COMMIT_APPLY_GAP_MAX, READ_RETRY_S, WATCH_UNSENT_BYTES_MAX, ServeActor
from core.alarms.quota import NO_QUOTA, Quota
from core.apply.header import ResponseHeaders
from core.auth.tokens import SimpleTokens
from core.errors import Compacted, LeaseNotFound, NoSpace, ProposalDropped
from core.mvcc.view import View
from core.request_id import RequestIds, owner_of
from core.types import Index, LeaseId, MemberId, Term
from net.rpc import Code
from proto.raft_internal_pb2 import InternalRaftRequest
from proto.rpc_pb2 import AlarmType, PutRequest
from services.node import ApiLimits
from services.passwords import Passwords
from services.timeouts import Leadership
from services.tokens import SimpleScheme
from tests.actors.home import TestHome
from tests.entries import CLUSTER, MEMBER, make_applier
from tests.fakes import FakeCall, FakeStream, Told

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from core.types import RequestId
    from net.rpc import HttpHandler, Routes

TIMEOUT_S = 7.0
SLOW_S = 0.3
OWNER = 2
REQUEST_BYTES_MAX = 1000
PUT_TAG = b"\x22"
BODY = PutRequest(key=b"k", value=b"v").SerializeToString()


class FakeEngine:
    """Notes what it is told to do, in the listener's journal."""

    delivering = False

    def __init__(self, journal: list[Any], fail_on: str = "") -> None:
        self._journal = journal
        self._fail_on = fail_on

    async def start(self) -> None:
        self._note("start")

    def flush(self) -> None:
        """Calls here hear of their answers at once."""

    async def drain(self, timeout_s: float) -> None:
        self._note(f"drain {timeout_s}")

    async def close(self) -> None:
        self._note("close")

    def _note(self, what: str) -> None:
        self._journal.append(what)
        if what == self._fail_on:
            raise OSError(what)


class TestLoop(asyncio.SelectorEventLoop):
    """A loop whose time is the test's."""

    __test__ = False

    def __init__(self, home: TestHome) -> None:
        super().__init__()
        self._home = home

    def time(self) -> float:
        return self._home.clock.now_s


class Listener:
    """A ServeActor among addresses that keep what it says."""

    def __init__(self, *, quota_bytes: int | None = None, fail_on: str = "") -> None:
        self.home = TestHome()
        self.loop = TestLoop(self.home)
        self.raft, self.apply, self.wal = Told(), Told(), Told()
        self.watch, self.lease, self.worker, self.checker = Told(), Told(), Told(), Told()
        self.engine: list[Any] = []
        self.applier = make_applier()
        self.paths: set[str] = set()

        def make_engine(routes: Routes, _http: HttpHandler, _on_batch_end: Callable[[], None]) -> FakeEngine:
            self.paths = {*routes.unary, *routes.streams}
            return FakeEngine(self.engine, fail_on)

        def spawn() -> None:
            self.actor = self.home.spawn(
                ServeActor,
                headers=ResponseHeaders(CLUSTER, MEMBER),
                limits=ApiLimits(REQUEST_BYTES_MAX, 128),
                request_ids=RequestIds(MEMBER, OWNER, 1),
                request_timeout_s=TIMEOUT_S,
                slow_request_s=SLOW_S,
                quota=NO_QUOTA if quota_bytes is None else Quota(quota_bytes),
                counter=lambda _view: None,
                make_engine=make_engine,
                wal=self.wal,
                raft=self.raft,
                apply=self.apply,
                watch=self.watch,
                lease=self.lease,
                membership=Told(),
                peers=Told(),
                leadership=Leadership(MEMBER, 1.0),
                clock=self.home.clock,
                metrics=Told(),
                worker=self.worker,
                checker=self.checker,
                exporter=Told(),
                make_export=no_export,
                hashers=[Told()],
                passwords=Passwords(4, 0, bytes),
                tokens=SimpleScheme(SimpleTokens(300.0), Random(1)),
                client_cert_auth=False,
                logger=self.home.logger,
            )

        self.turn(spawn)
        self.observed = [type(message) for told in (self.apply, self.raft, self.wal) for message in told.take()]
        self.publish()
        self.tell(role(leader=MEMBER))

    def turn(self, *actions: Callable[[], object]) -> None:
        """Do *actions* in one turn of the loop, then run it until nothing is left to do."""

        async def run() -> None:
            for action in actions:
                action()
            for _ in range(4):
                self.home.run()
                await asyncio.sleep(0)
            self.home.run()

        self.loop.run_until_complete(run())

    def tell(self, *messages: object) -> None:
        """Tell the actor these, one after the other, in one turn."""
        self.turn(lambda: self.home.tell(self.actor, *messages))

    def publish(self, *, applied: int = 0, commit: int = 0, allocated_bytes: int = 0) -> None:
        """Publish a view at this applied index."""
        view = self.applier.store.view()
        shown = View(view.reader, view.revision, view.compact_revision, applied, 1)
        self.tell(Published(shown, Term(2), Index(commit), allocated_bytes))

    def pass_time(self, by_s: float) -> None:
        self.home.clock.now_s += by_s
        self.tell(Tick(self.home.clock.now_s))

    def propose(self, *calls: FakeCall, body: bytes = BODY) -> None:
        """Let these calls propose a put, all in one turn."""
        self.turn(*[lambda call=call: self.actor.propose(call, PUT_TAG, body) for call in calls])

    def ids(self) -> list[RequestId]:
        """Return the ids of all proposals so far."""
        return [request_id for message in self.raft.of(Propose) for request_id, _ in message.proposals]

    def read(self, *calls: FakeCall) -> None:
        """Let these calls ask for a linearizable read, which is answered with the applied index it saw."""

        def answer(call: FakeCall) -> Callable[[View], None]:
            return lambda view: call.reply(b"%d" % view.applied_index)

        self.turn(*[lambda call=call: self.actor.read(call, answer(call)) for call in calls])

    def rounds(self) -> list[int]:
        """Return the numbers of the rounds asked for so far."""
        return [message.context for message in self.raft.of(ReadIndex)]


def no_export(_view: View) -> Any:
    raise AssertionError("no test asks for it")


def role(*, leader: int, term: int = 2) -> RoleIs:
    return RoleIs(Term(term), MemberId(leader), leader == MEMBER)


def failure(call: FakeCall) -> tuple[Code, str]:
    assert call.status is not None, "it has not ended"
    return call.status.code, call.status.message


@pytest.fixture
def listener() -> Iterator[Listener]:
    made = Listener()
    yield made
    made.loop.close()


def with_quota() -> Listener:
    return Listener(quota_bytes=10_000)


# The beginning.


def test_it_asks_to_be_told_of_all_that_it_serves_by(listener: Listener) -> None:
    """Outcomes, views, leadership and room: without one of them calls would hang or be taken in vain."""
    assert {ObserveOutcomes, Observe, ObserveRole, ObserveSpace} <= set(listener.observed)


def test_connections_are_accepted_when_the_member_is_ready(listener: Listener) -> None:
    """Not before: a client must not find a member that is not in its own list."""
    assert listener.engine == []
    listener.tell(Open())
    assert listener.engine == ["start"]


def test_an_engine_that_cannot_start_is_fatal() -> None:
    """A member that says it is ready and accepts nobody helps nobody."""
    listener = Listener(fail_on="start")
    with pytest.raises(OSError, match="start"):
        listener.tell(Open())
    listener.loop.close()


# Writes.


def test_what_comes_in_one_turn_is_proposed_together(listener: Listener) -> None:
    """One message to raft, one sync, one answer: the batch is the loop's turn."""
    listener.propose(FakeCall(), FakeCall(), FakeCall())
    [propose] = listener.raft.of(Propose)
    assert len(propose.proposals) == 3
    listener.propose(FakeCall())
    assert len(listener.raft.of(Propose)) == 2


def test_a_proposal_is_an_entry_under_an_id_of_this_listener(listener: Listener) -> None:
    """The id brings the outcome back to the mailbox that waits."""
    listener.propose(FakeCall())
    [(request_id, data)] = listener.raft.last(Propose).proposals
    entry = InternalRaftRequest.FromString(data)
    assert (entry.header.ID, entry.put.key) == (request_id, b"k")
    assert owner_of(request_id, MEMBER) == OWNER


def test_outcomes_end_their_calls(listener: Listener) -> None:
    """Each its own, whether it went well or not; ids that nobody waits for are passed over."""
    good, bad, waiting = FakeCall(), FakeCall(), FakeCall()
    listener.propose(good, bad, waiting)
    first, second, _ = listener.ids()
    listener.tell(Completed([(first, b"done"), (second, LeaseNotFound()), (first, b"again")]))
    assert good.answer == b"done"
    assert failure(bad) == (Code.NOT_FOUND, "etcdserver: requested lease not found")
    assert (good.ends, bad.ends, waiting.ends) == (1, 1, 0)


def test_what_raft_refuses_fails_the_call(listener: Listener) -> None:
    """In the words that a client of etcd expects."""
    call = FakeCall()
    listener.propose(call)
    listener.tell(Refused(listener.ids(), ProposalDropped()))
    assert failure(call) == (Code.UNKNOWN, "raft proposal dropped")


@pytest.mark.parametrize(
    ("leader", "expected"),
    [
        (MEMBER, (Code.UNAVAILABLE, "etcdserver: request timed out")),
        (0, (Code.DEADLINE_EXCEEDED, "context deadline exceeded")),
    ],
)
def test_a_call_without_an_outcome_times_out(listener: Listener, leader: int, expected: tuple[Code, str]) -> None:
    """Its outcome is unknown, and the text says no more than that; without a leader it is the bare deadline."""
    listener.tell(role(leader=leader))
    listener.pass_time(3.0)  # no longer due to the election
    call, later = FakeCall(), FakeCall()
    listener.propose(call)
    listener.pass_time(1.0)
    listener.propose(later)
    listener.pass_time(TIMEOUT_S - 1.0)
    assert not call.done
    listener.pass_time(0.1)
    assert failure(call) == expected
    assert not later.done


def test_an_outcome_that_comes_too_late_changes_nothing(listener: Listener) -> None:
    """The client was told that the outcome is unknown; it gets one answer."""
    call = FakeCall()
    listener.propose(call)
    listener.pass_time(TIMEOUT_S + 0.1)
    listener.tell(Completed([(listener.ids()[0], b"too late")]))
    assert call.ends == 1


def test_a_later_leader_gets_only_what_somebody_still_waits_for(listener: Listener) -> None:
    """A write whose client was told that it failed must not appear minutes later, when the cluster has healed."""
    listener.tell(role(leader=0))
    abandoned, patient = FakeCall(), FakeCall()
    listener.propose(abandoned)
    listener.pass_time(TIMEOUT_S - 1.0)
    listener.propose(patient)
    listener.pass_time(1.1)
    assert listener.ids() == []
    listener.tell(role(leader=MEMBER, term=3))
    [request_id] = listener.ids()
    listener.tell(Completed([(request_id, b"done")]))
    assert patient.done


def test_slow_calls_are_told_once(listener: Listener) -> None:
    """The operator learns which method was slow, and for whom."""
    quick, slow = FakeCall(), FakeCall()
    listener.propose(slow)
    listener.home.clock.now_s += SLOW_S + 0.1
    listener.propose(quick)
    listener.tell(Completed([(request_id, b"done") for request_id in listener.ids()]))
    [warning] = listener.home.logged("slow request")
    assert (warning["method"], warning["took_s"]) == (FakeCall.method, 0.4)


def test_a_request_that_is_too_large_is_refused(listener: Listener) -> None:
    """The limit holds for the entry, as in etcd."""
    call = FakeCall()
    listener.propose(call, body=b"x" * REQUEST_BYTES_MAX)
    assert failure(call) == (Code.INVALID_ARGUMENT, "etcdserver: request is too large")
    assert listener.ids() == []


def test_too_many_waiting_calls_are_refused(listener: Listener, monkeypatch: pytest.MonkeyPatch) -> None:
    """What waits lies in memory; a client that is told can wait itself."""
    monkeypatch.setattr(serve_module, "WAITING_CALLS_MAX", 1)
    first, second = FakeCall(), FakeCall()
    listener.propose(first, second)
    assert failure(second) == (Code.UNKNOWN, "etcdserver: too many requests")
    assert not first.done


def test_a_state_machine_far_behind_takes_no_more(listener: Listener) -> None:
    """Otherwise every later call would only wait until it times out."""
    listener.publish(applied=10, commit=10 + COMMIT_APPLY_GAP_MAX)
    accepted, refused = FakeCall(), FakeCall()
    listener.propose(accepted)
    listener.publish(applied=10, commit=11 + COMMIT_APPLY_GAP_MAX)
    listener.propose(refused)
    assert not accepted.done
    assert failure(refused) == (Code.UNKNOWN, "etcdserver: too many requests")


def test_on_a_full_disk_writes_are_refused_until_there_is_room(listener: Listener) -> None:
    """They could not be done, and must not wait until they time out."""
    refused, accepted = FakeCall(), FakeCall()
    listener.tell(WritesRefused(NoSpace()))
    listener.propose(refused)
    listener.tell(WritesRefused(None))
    listener.propose(accepted)
    assert failure(refused) == (Code.RESOURCE_EXHAUSTED, "etcdserver: mvcc: database space exceeded")
    assert not accepted.done


def test_over_the_quota_the_call_is_refused_and_the_alarm_proposed() -> None:
    """Once a tick says as much as once a call."""
    listener = with_quota()
    listener.publish(allocated_bytes=9_500)
    small, large, again = FakeCall(), FakeCall(), FakeCall()
    assert listener.actor.may_grow(small, 499)
    assert not listener.actor.may_grow(large, 500)
    assert not listener.actor.may_grow(again, 500)
    assert failure(large) == failure(again) == (Code.RESOURCE_EXHAUSTED, "etcdserver: mvcc: database space exceeded")
    [propose] = listener.raft.of(Propose)
    alarm = InternalRaftRequest.FromString(propose.proposals[0][1]).alarm
    assert (alarm.memberID, alarm.alarm) == (MEMBER, AlarmType.NOSPACE)
    listener.pass_time(0.1)
    listener.actor.may_grow(FakeCall(), 500)
    assert len(listener.raft.of(Propose)) == 2
    listener.loop.close()


def test_without_a_quota_or_a_cost_anything_fits(listener: Listener) -> None:
    """A delete costs nothing, and is how room is made."""
    listener.publish(allocated_bytes=1 << 50)
    assert listener.actor.may_grow(FakeCall(), 1 << 20)
    limited = with_quota()
    limited.publish(allocated_bytes=1 << 50)
    assert limited.actor.may_grow(FakeCall(), 0)
    limited.loop.close()


# Reads.


def test_reads_of_one_turn_share_a_round(listener: Listener) -> None:
    """One question to the quorum answers them all."""
    calls = [FakeCall(), FakeCall()]
    listener.publish(applied=5)
    listener.read(*calls)
    [number] = listener.rounds()
    listener.tell(ReadIndexed(number, Index(5)))
    assert [call.answer for call in calls] == [b"5", b"5"]


def test_a_read_is_never_answered_by_a_round_that_began_before_it(listener: Listener) -> None:
    """That round's index may miss a write acknowledged in between."""
    early, late, latest = FakeCall(), FakeCall(), FakeCall()
    listener.publish(applied=5)
    listener.read(early)
    listener.read(late)
    listener.read(latest)
    [first] = listener.rounds()
    listener.tell(ReadIndexed(first, Index(5)))
    assert (early.done, late.done, latest.done) == (True, False, False)
    [_, second] = listener.rounds()
    listener.tell(ReadIndexed(first, Index(5)))
    assert [late.done] == [False], "the first round's answer, once more"
    listener.tell(ReadIndexed(second, Index(5)))
    assert (late.done, latest.done) == (True, True)


def test_a_read_waits_until_its_index_is_applied(listener: Listener) -> None:
    """A confirmed index is a promise of what will be read, not yet the view."""
    far, near = FakeCall(), FakeCall()
    listener.publish(applied=5)
    listener.read(far)
    listener.tell(ReadIndexed(listener.rounds()[-1], Index(9)))
    listener.read(near)
    listener.tell(ReadIndexed(listener.rounds()[-1], Index(7)))
    listener.publish(applied=6)
    assert not near.done
    listener.publish(applied=7)
    assert near.answer == b"7"
    assert not far.done
    listener.publish(applied=10)
    assert far.answer == b"10"


def test_a_reader_that_has_left_is_passed_over(listener: Listener) -> None:
    """Answering costs, and nobody hears it."""
    call = FakeCall()
    listener.publish(applied=5)
    listener.read(call)
    call.leave()
    listener.tell(ReadIndexed(listener.rounds()[-1], Index(5)))
    assert (call.ends, call.answer) == (1, None)


def test_a_round_without_an_answer_is_asked_again_and_fails_in_the_end(listener: Listener) -> None:
    """The question may get lost; the reader must not."""
    call, next_call = FakeCall(), FakeCall()
    listener.read(call)
    listener.pass_time(READ_RETRY_S)
    assert len(listener.rounds()) == 1
    listener.pass_time(0.1)
    assert listener.rounds() == [1, 1]
    listener.read(next_call)
    listener.pass_time(TIMEOUT_S)
    assert failure(call) == (Code.UNAVAILABLE, "etcdserver: request timed out")
    assert listener.rounds()[-1] == 2
    assert not next_call.done


def test_a_round_dies_with_its_leader(listener: Listener) -> None:
    """Its answer will never come, and clients try again at once on this text."""
    call = FakeCall()
    listener.read(call)
    listener.tell(role(leader=7, term=3))
    assert failure(call) == (Code.UNAVAILABLE, "etcdserver: leader changed")


def test_a_round_without_a_leader_waits_for_one(listener: Listener) -> None:
    """Nothing was lost when a member that knew of no leader hears of one."""
    call = FakeCall()
    listener.tell(role(leader=0, term=3))
    listener.read(call)
    listener.tell(role(leader=7, term=4))
    assert not call.done


# Questions.


def test_questions_are_answered_by_token(listener: Listener) -> None:
    """Answers come in any order."""
    heard: list[object] = []
    actor = listener.actor
    listener.turn(
        lambda: actor.lease_times(LeaseId(5), heard.append),
        lambda: actor.list_leases(heard.append),
        lambda: actor.defragment(lambda *_: heard.append("defragmented")),
    )
    times, listing = listener.lease.of(TimeToLive)[0], listener.lease.of(ListLeases)[0]
    defragment = listener.apply.of(Defragment)[0]
    listener.tell(Answered(defragment.token, None), Answered(listing.token, [5]), Answered(times.token, "times"))
    assert heard == ["defragmented", [5], "times"]


def test_what_the_state_machine_is_asked_is_run_there(listener: Listener) -> None:
    """Its answer comes back as a message."""
    heard: list[Any] = []
    actor = listener.actor
    asked = [actor.members, actor.alarms, actor.sizes, actor.leased_keys]
    listener.turn(*[lambda ask=ask: ask(heard.append) for ask in asked])
    listener.turn(lambda: actor.lease_keys(LeaseId(5), heard.append))
    assert heard == []
    for inspect in listener.apply.of(Inspect):
        inspect.question(listener.applier)
    listener.turn()
    assert heard == [[], [], listener.applier.sizes(), [], []]


def test_renewals_of_one_turn_are_asked_together(listener: Listener) -> None:
    """A client keeps hundreds of leases alive at a time."""
    heard: list[object] = []
    listener.turn(*[lambda lease=lease: listener.actor.renew_lease(LeaseId(lease), heard.append) for lease in (5, 6)])
    [renew] = listener.lease.of(Renew)
    assert [lease for _, lease in renew.asks] == [5, 6]
    listener.tell(Renewed([(token, 10) for token, _ in renew.asks]))
    assert heard == [10, 10]


def test_long_work_is_done_elsewhere_and_its_outcome_ends_the_call(listener: Listener) -> None:
    """Be it an answer or a refusal."""
    good, bad = FakeCall(), FakeCall()
    listener.turn(lambda: listener.actor.work(good, lambda: b"answer"), lambda: listener.actor.work(bad, lambda: b""))
    first, second = listener.worker.of(Work)
    listener.tell(Answered(second.token, Compacted()), Answered(first.token, first.job()))
    assert good.answer == b"answer"
    assert failure(bad)[0] is Code.OUT_OF_RANGE


def test_work_of_a_call_that_has_left_is_not_done(listener: Listener) -> None:
    """A client that gives up and asks again must not make the server work through all that it gave up."""
    stays, left = FakeCall(), FakeCall()
    done: list[str] = []

    def job(name: str) -> Callable[[], bytes]:
        return lambda: done.append(name) or name.encode()  # type: ignore[func-returns-value]

    listener.turn(lambda: listener.actor.work(left, job("left")), lambda: listener.actor.work(stays, job("stays")))
    left.leave()
    for each in listener.worker.of(Work):
        listener.tell(Answered(each.token, each.job()))
    assert done == ["stays"]
    assert (stays.answer, left.answer) == (b"stays", None)
    assert left.ends == 1


def test_slow_work_waits_apart_from_short_work_and_neither_piles_up(
    listener: Listener, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A hash of everything must not hold up the ranges behind it, and what cannot be done soon is refused."""
    monkeypatch.setattr("actors.serve.JOBS_WAITING_MAX", 2)
    calls = [FakeCall() for _ in range(4)]
    listener.turn(
        lambda: listener.actor.work(calls[0], lambda: b"hash", slow=True),
        lambda: listener.actor.work(calls[1], lambda: b"range"),
        lambda: listener.actor.work(calls[2], lambda: b"too many"),
    )
    assert failure(calls[2]) == (Code.UNKNOWN, "etcdserver: too many requests")
    [slow], [short] = listener.checker.of(Work), listener.worker.of(Work)
    listener.tell(Answered(short.token, short.job()))
    listener.turn(lambda: listener.actor.work(calls[3], lambda: b"room again"))
    assert (calls[0].ends, calls[1].answer, calls[3].ends) == (0, b"range", 0)
    listener.tell(Answered(slow.token, slow.job()))
    assert calls[0].answer == b"hash"


def test_a_physical_compaction_is_waited_for_as_long_as_its_client_waits(listener: Listener) -> None:
    """Once it is applied it cannot fail any more; removing a long history takes longer than a request may."""
    call = FakeCall()
    listener.propose(call)
    listener.tell(Accepted(listener.ids()))
    listener.pass_time(100 * TIMEOUT_S)
    assert call.ends == 0
    listener.tell(Completed([(listener.ids()[0], b"compacted")]))
    assert call.answer == b"compacted"


def test_a_call_that_was_accepted_ends_with_its_listener(listener: Listener) -> None:
    """Nobody hangs on a server that stops."""
    call = FakeCall()
    listener.propose(call)
    listener.tell(Accepted(listener.ids()))
    listener.home.stop(listener.actor)
    assert failure(call)[1] == "etcdserver: server stopped"


def test_lease_ids_are_positive_and_new(listener: Listener) -> None:
    """Clients of etcd never see a negative one that the server chose."""
    chosen = [listener.actor.make_lease_id() for _ in range(100)]
    assert len(set(chosen)) == 100
    assert all(0 < lease < 1 << 63 for lease in chosen)


# Watch streams.


def open_stream(listener: Listener) -> tuple[FakeStream, Any]:
    stream = FakeStream()
    return stream, listener.actor.open_watch(stream)


def test_frames_reach_their_streams_in_order(listener: Listener) -> None:
    """A watcher's events have an order, and a stream that has closed meanwhile is nobody's fault."""
    (one, first), (two, second), (_, gone) = (open_stream(listener) for _ in range(3))
    listener.turn(lambda: listener.actor.close_watch(gone))
    listener.tell(WatchFrames([(first, b"1"), (gone, b"x"), (second, b"2"), (first, b"3")]))
    assert (one.sent, two.sent) == ([b"1", b"3"], [b"2"])
    assert listener.watch.of(StreamClosed)[0].stream == gone


def test_requests_are_passed_on(listener: Listener) -> None:
    """WatchActor decides; the number names the stream in what comes back."""
    _, number = open_stream(listener)
    listener.actor.watch(number, b"request")
    [asked] = listener.watch.of(WatchRequested)
    assert (asked.stream, asked.request) == (number, b"request")


def test_stream_numbers_of_two_listeners_never_meet(listener: Listener) -> None:
    """WatchActor knows streams of all listeners by their numbers."""
    assert open_stream(listener)[1] % 16 == OWNER


def test_a_stream_that_is_not_read_is_blocked_once_and_taken_up_when_it_has_drained(listener: Listener) -> None:
    """Its watchers catch up from the store, so a client that stalls costs no memory; nor may it ask on meanwhile."""
    stream, number = open_stream(listener)
    stream.unsent_bytes = WATCH_UNSENT_BYTES_MAX
    listener.tell(WatchFrames([(number, b"1")]))
    assert [stream.reading] == [True]
    stream.unsent_bytes += 1
    listener.tell(WatchFrames([(number, b"2"), (number, b"3")]))
    assert len(listener.watch.of(StreamBlocked)) == 1
    assert [stream.reading] == [False]
    listener.turn(lambda: listener.actor.watch_drained(number), lambda: listener.actor.watch_drained(number))
    assert len(listener.watch.of(StreamDrained)) == 1
    assert [stream.reading] == [True]


def test_a_stream_that_drains_without_having_been_blocked_is_no_news(listener: Listener) -> None:
    """Every stream drains now and then."""
    _, number = open_stream(listener)
    listener.actor.watch_drained(number)
    assert listener.watch.messages == []


# The end.


def test_a_drain_fails_what_is_left_before_connections_close(listener: Listener) -> None:
    """A client that waits learns that the server stopped, instead of a broken connection."""
    write, read, next_read, far_read = FakeCall(), FakeCall(), FakeCall(), FakeCall()
    stream, _ = open_stream(listener)
    listener.read(far_read)
    listener.tell(ReadIndexed(listener.rounds()[-1], Index(99)))
    listener.read(read)
    listener.read(next_read)
    listener.propose(write)
    ended: list[object] = []

    class Journal:
        def tell(self, message: object) -> None:
            ended.append((message, list(listener.engine)))

    at_close: list[bool] = []
    engine_close = listener.actor._engine.close

    async def close() -> None:
        at_close.extend(call.done for call in (write, read, next_read, far_read))
        await engine_close()

    listener.actor._engine.close = close  # type: ignore[method-assign]  # looks at the calls first
    listener.tell(Drain(5.0, Delivery(Journal(), "drained")))
    assert at_close == [True] * 4
    stopped = (Code.UNAVAILABLE, "etcdserver: server stopped")
    assert [failure(call) for call in (write, read, next_read, far_read)] == [stopped] * 4
    assert stream.status is not None
    assert (stream.status.code, stream.status.message) == stopped
    assert ended == [("drained", ["drain 5.0", "close"])]


def test_a_stop_without_a_drain_fails_what_is_left(listener: Listener) -> None:
    """However it ends, no call is left without an end."""
    call = FakeCall()
    listener.propose(call)
    listener.turn(lambda: listener.home.stop(listener.actor))
    assert failure(call) == (Code.UNAVAILABLE, "etcdserver: server stopped")
