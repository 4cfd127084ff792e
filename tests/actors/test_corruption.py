"""CorruptionActor: when members are compared, what becomes of differences, and what of silence."""

from __future__ import annotations

from concurrent.futures import Future
from typing import Any

import google_crc32c
import pytest

from actors.corruption import Checks, CorruptionActor, FoundCorrupt
from actors.messages.apply import Inspect
from actors.messages.common import ClusterIs, Tick
from actors.messages.metrics import Measure, Measured
from actors.messages.peer_transport import AskMember, MemberAnswer
from actors.messages.raft import Propose, ReadIndex, RoleIs
from actors.messages.serve import Answered, ReadIndexed
from actors.messages.worker import Work
from core.membership.member import Member
from core.mvcc.hashing import HashKv, hash_kv
from core.types import Index, MemberId, Term
from proto.raft_internal_pb2 import InternalRaftRequest
from proto.rpc_pb2 import AlarmRequest, AlarmType
from services.member_pages import HASH_PATH
from tests.actors.home import TestHome
from tests.entries import Log, make_applier
from tests.fakes import Told

LOCAL, B, C = MemberId(1), MemberId(2), MemberId(3)
LEADS = RoleIs(Term(3), LOCAL, is_leader=True)
FOLLOWS = RoleIs(Term(3), B, is_leader=False)
HOUR_S = 3600.0
CLUSTER = ClusterIs(tuple(Member(each, ("http://x",), name=f"m{each}") for each in (LOCAL, B, C)), (), "3.5.0")


class Member1:
    """A CorruptionActor on a store of a few keys, among members whose answers the test gives."""

    def __init__(self, *, initial: bool = False, periodic_s: float = 0.0, compaction_s: float = 0.0) -> None:
        self.home = TestHome()
        self.apply, self.raft, self.peers, self.checker = Told(), Told(), Told(), Told()
        self.may_serve: Future[None] = Future()
        self.applier = make_applier()
        self.log = Log()
        self.put(3)
        self.actor = self.home.spawn(
            CorruptionActor,
            local=LOCAL,
            checks=Checks(initial, periodic_s, compaction_s),
            first_timeout_s=7.0,
            may_serve=self.may_serve,
            clock=self.home.clock,
            apply=self.apply,
            raft=self.raft,
            peers=self.peers,
            checker=self.checker,
            logger=self.home.logger,
        )
        self.apply.take()
        self.raft.take()
        self.tell(CLUSTER)

    def put(self, count: int) -> None:
        self.applier.apply([self.log.put(b"k%d" % number) for number in range(count)], Term(1))
        self.applier.store.flush()

    def tell(self, *messages: object) -> None:
        self.home.tell(self.actor, *messages)
        while self.apply.messages or self.checker.messages:
            for asked in self.apply.take():
                assert isinstance(asked, Inspect), asked
                asked.question(self.applier)
            for work in self.checker.take():
                assert isinstance(work, Work)
                work.answer_to.tell(Answered(work.token, work.job()))
            self.home.run()

    def pass_time(self, by_s: float) -> None:
        self.home.clock.now_s += by_s
        self.tell(Tick(self.home.clock.now_s))

    def asked(self) -> dict[MemberId, AskMember]:
        """Return what was asked of whom since the last call."""
        return {asked.member: asked for asked in self.peers.take()}

    def answer(self, asked: AskMember, made: HashKv | None, current: int = 4) -> None:
        body = b"" if made is None else hash_page(made, current)
        self.tell(Answered(asked.token, None if made is None else MemberAnswer(200, body)))

    def confirm_reads(self) -> None:
        for read in self.raft.take():
            assert isinstance(read, ReadIndex), read
            self.tell(ReadIndexed(read.context, Index(self.applier.store.applied_index)))

    def alarms(self) -> list[int]:
        """Return for whom the CORRUPT alarm was proposed since the last call."""
        found = []
        for propose in self.raft.take():
            assert isinstance(propose, Propose), propose
            for _, data in propose.proposals:
                alarm = InternalRaftRequest.FromString(data).alarm
                assert (alarm.action, alarm.alarm) == (AlarmRequest.ACTIVATE, AlarmType.CORRUPT)
                found.append(alarm.memberID)
        return found

    def counts(self) -> dict[tuple[str, ...], Any]:
        told = Told()
        self.tell(Measure(1, told))
        return {sample.labels: sample.value for sample in told.last(Measured).samples}

    @property
    def own(self) -> HashKv:
        return hash_kv(self.applier.store.view(), 0, google_crc32c.extend)


def hash_page(made: HashKv, current: int) -> bytes:
    return b'{"header":{"revision":%d},"hash":%d,"compact_revision":%d}' % (current, made.hash, made.compact_revision)


# -- before serving --------------------------------------------------------------------------------------------------


def test_clients_wait_until_the_others_were_asked() -> None:
    """The question names this member's revision; when all hold the same, clients are let in."""
    member = Member1(initial=True)
    asked = member.asked()
    assert sorted(asked) == [B, C]
    assert (asked[B].method, asked[B].path, asked[B].body) == ("GET", HASH_PATH, b'{"revision": 4}')
    assert asked[B].timeout_s == 7.0
    member.answer(asked[B], member.own)
    assert not member.may_serve.done()
    member.answer(asked[C], member.own)
    assert member.may_serve.result(0) is None
    member.pass_time(HOUR_S)
    assert member.asked() == {}
    assert member.counts() == {("initial", "passed"): 1}


def test_a_member_whose_data_differs_does_not_serve() -> None:
    """Its clients would read what the cluster never said; the operator is told what to do."""
    member = Member1(initial=True)
    asked = member.asked()
    member.answer(asked[B], member.own._replace(hash=1))
    member.answer(asked[C], None)
    with pytest.raises(FoundCorrupt, match="found data inconsistency with peers"):
        member.may_serve.result(0)
    assert member.alarms() == []


def test_silence_lets_clients_in_but_is_no_pass() -> None:
    """One dead member must not keep the others from serving; it is compared as soon as it can be."""
    member = Member1(initial=True)
    asked = member.asked()
    member.answer(asked[B], member.own)
    member.answer(asked[C], None)
    assert member.may_serve.result(0) is None
    assert member.counts() == {("initial", "incomplete"): 1}
    assert member.home.logged("could not compare this member with another; that is no pass, and is tried again")
    member.pass_time(1.0)
    assert member.asked() == {}
    member.pass_time(5.0)
    again = member.asked()
    assert list(again) == [C]
    member.answer(again[C], None)
    member.pass_time(6.0)  # it is asked less and less often
    assert member.asked() == {}
    member.pass_time(5.0)
    member.answer(member.asked()[C], member.own)
    assert member.counts() == {("initial", "incomplete"): 2, ("initial", "passed"): 1}


def test_a_difference_found_later_raises_the_alarm() -> None:
    """Clients are served already, so all members must know."""
    member = Member1(initial=True)
    asked = member.asked()
    member.answer(asked[B], member.own)
    member.answer(asked[C], None)
    member.pass_time(5.0)
    member.answer(member.asked()[C], member.own._replace(hash=1))
    assert member.alarms() == [LOCAL]


def test_what_can_never_be_compared_is_not_hashed_again_and_again() -> None:
    """A member that compacted elsewhere can be compared at a later revision only, which an idle store does not have."""
    member = Member1(initial=True)
    asked = member.asked()
    for each in asked.values():
        member.answer(each, member.own._replace(compact_revision=2))
    assert member.may_serve.result(0) is None
    member.pass_time(HOUR_S)
    assert member.asked() == {}
    member.put(1)
    member.pass_time(HOUR_S)
    assert {each.body for each in member.asked().values()} == {b'{"revision": 5}'}


def test_alone_or_switched_off_there_is_nothing_to_wait_for() -> None:
    """A single member serves at once."""
    alone = Member1()
    assert alone.may_serve.result(0) is None
    assert alone.asked() == {}


# -- while leading ---------------------------------------------------------------------------------------------------


def test_a_leader_compares_itself_with_all_from_time_to_time() -> None:
    """Hash, the others' hashes, proof of leadership, hash again; a difference raises the alarm for whose it is."""
    member = Member1(periodic_s=HOUR_S)
    member.tell(FOLLOWS)
    member.pass_time(2 * HOUR_S)
    assert member.asked() == {}
    member.tell(LEADS)
    member.pass_time(HOUR_S)
    asked = member.asked()
    member.answer(asked[B], member.own)
    member.answer(asked[C], member.own._replace(hash=1))
    assert member.counts() == {}
    member.confirm_reads()
    assert member.alarms() == [C]
    assert member.counts() == {("periodic", "failed"): 1}


def test_who_lost_leadership_meanwhile_judges_nobody() -> None:
    """Others may be ahead of it with good reason."""
    member = Member1(periodic_s=HOUR_S)
    member.tell(LEADS)
    member.pass_time(HOUR_S)
    asked = member.asked()
    member.tell(FOLLOWS)
    for each in asked.values():
        member.answer(each, member.own, current=99)
    member.confirm_reads()
    assert member.alarms() == []
    assert member.counts() == {}


def test_a_periodic_check_without_an_answer_is_made_again_soon() -> None:
    """Not an interval of hours later."""
    member = Member1(periodic_s=HOUR_S)
    member.tell(LEADS)
    member.pass_time(HOUR_S)
    asked = member.asked()
    member.answer(asked[B], member.own)
    member.answer(asked[C], None)
    member.confirm_reads()
    assert member.counts() == {("periodic", "incomplete"): 1}
    member.pass_time(6.0)
    assert sorted(member.asked()) == [B, C]


def compacted(made: int, revision: int) -> HashKv:
    return HashKv(made, revision, revision - 1)


def test_a_leader_compares_what_compactions_left() -> None:
    """Newest first; one that all agree on settles all before it."""
    member = Member1(compaction_s=60.0)
    for made in (compacted(10, 2), compacted(20, 3)):
        member.applier.compaction_hashes.add(made)
    member.tell(LEADS)
    member.pass_time(60.0)
    asked = member.asked()
    assert {each.body for each in asked.values()} == {b'{"revision": 3}'}
    for each in asked.values():
        member.answer(each, compacted(20, 3))
    assert member.counts() == {("compaction", "passed"): 1}
    member.pass_time(60.0)
    assert member.asked() == {}


def test_where_somebody_was_not_compared_an_older_compaction_is_looked_at_and_then_the_same_again() -> None:
    """A follower that is behind knows the older one; what it has not told yet is asked again."""
    member = Member1(compaction_s=60.0)
    for made in (compacted(10, 2), compacted(20, 3)):
        member.applier.compaction_hashes.add(made)
    member.tell(LEADS)
    member.pass_time(60.0)
    asked = member.asked()
    member.answer(asked[B], compacted(20, 3))
    member.answer(asked[C], None)
    older = member.asked()
    assert {each.body for each in older.values()} == {b'{"revision": 2}'}
    for each in older.values():
        member.answer(each, compacted(10, 2))
    member.pass_time(60.0)
    assert {each.body for each in member.asked().values()} == {b'{"revision": 3}'}


def test_a_compaction_that_somebody_has_forgotten_is_not_asked_about_every_minute() -> None:
    """Each question costs that member a hash of all it has; the next compaction is compared instead."""
    member = Member1(compaction_s=60.0)
    member.applier.compaction_hashes.add(compacted(20, 3))
    member.tell(LEADS)
    member.pass_time(60.0)
    for each in member.asked().values():
        member.answer(each, HashKv(77, 3, 3))
    member.pass_time(60.0)
    assert member.asked() == {}
    assert member.counts() == {("compaction", "incomplete"): 1}


def test_a_different_compaction_raises_the_alarm_for_the_minority() -> None:
    """Also when it is the leader itself."""
    member = Member1(compaction_s=60.0)
    member.applier.compaction_hashes.add(compacted(20, 3))
    member.tell(LEADS)
    member.pass_time(60.0)
    for each in member.asked().values():
        member.answer(each, compacted(21, 3))
    assert member.alarms() == [LOCAL]
