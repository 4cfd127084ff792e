"""RaftActor: proposals, reads and leadership between the core and the other actors."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from actors import raft as raft_module
from actors.address import Delivery
from actors.messages.apply import ApplyEntries
from actors.messages.common import Tick
from actors.messages.peer_transport import Send
from actors.messages.raft import (
    Applied,
    CarryMessages,
    ConfChangeApplied,
    DiskIs,
    InspectRaft,
    ObserveRole,
    Propose,
    ProposeConfChange,
    ReadIndex,
    RoleIs,
    Stable,
    Step,
    Unreachable,
)
from actors.messages.serve import ReadIndexed, Refused
from actors.messages.wal import Append, Attend
from actors.raft import RaftActor, only_last_acknowledgement
from core.errors import ProposalDropped
from core.raft.messages import ConfChange, ConfChangeType, Entry, EntryType, Message, MessageType
from core.raft.role import Role
from core.types import Index, MemberId, RequestId, Term
from tests.actors.home import TestHome
from tests.fakes import Told
from tests.unit.raft_nodes import make_leader, make_node, message

if TYPE_CHECKING:
    import pytest

    from core.raft.node import RaftNode

ME = MemberId(1)
FIRST_READ = 100


class Raft:
    """A RaftActor with a log and a state machine that are worked by hand, and a carrier that keeps what it is given."""

    def __init__(self, node: RaftNode, catch_up_entries: int = 5000) -> None:
        self.node = node
        self.home = TestHome()
        self.wal = Told()
        self.apply = Told()
        self.carrier = Told()
        self.asker = Told()
        self.actor = self.home.spawn(
            RaftActor, node, self.wal, self.apply, catch_up_entries, FIRST_READ, self.home.logger
        )
        self.tell(CarryMessages(self.carrier))
        self.attended = [asked for asked in self.wal.messages if isinstance(asked, Attend)]
        self.wal.messages[:] = [message for message in self.wal.messages if not isinstance(message, Attend)]

    def tell(self, *messages: object) -> None:
        self.home.tell(self.actor, *messages)

    def sync(self) -> None:
        """Make durable what was appended so far, and deliver what waits for that."""
        for append in self.wal.take():
            if isinstance(append, Attend):
                self.attended.append(append)
                continue
            for delivery in append.after:
                delivery.send()
        self.home.run()

    def apply_all(self) -> list[bytes]:
        """Apply what was committed so far, and return the data of its normal entries."""
        datas = []
        for batch in self.apply.take():
            assert isinstance(batch, ApplyEntries)
            datas += [entry.data for entry in batch.entries if entry.data]
            batch.raft.tell(Applied(batch.entries[-1].index))
        self.home.run()
        return datas

    def settle(self) -> list[bytes]:
        """Sync and apply until nothing is left to do; return the data that was applied."""
        datas = []
        while self.wal.messages or self.apply.messages:
            self.sync()
            datas += self.apply_all()
        return datas

    def propose(self, *numbers: int) -> None:
        self.tell(Propose([(RequestId(number), b"%d" % number) for number in numbers], self.asker))


def alone() -> Raft:
    """Return the only member of a cluster, which leads."""
    raft = Raft(make_node([1], commit=1, applied=1, voters=(1,)))
    raft.settle()
    assert raft.node.role is Role.LEADER
    return raft


def of_three(**options: Any) -> Raft:
    """Return one of three members, which knows of no leader."""
    return Raft(make_node([1], commit=1, applied=1, **options))


def led_by_two(raft: Raft) -> None:
    """Let member 2 lead in term 2."""
    raft.tell(Step([message(MessageType.HEARTBEAT, 2, term=Term(2))]))


def test_who_is_alone_leads_at_once() -> None:
    """There is nobody to wait for: a single member serves milliseconds after its start."""
    raft = Raft(make_node([1], commit=1, applied=1, voters=(1,)))
    raft.settle()
    assert raft.node.role is Role.LEADER


def test_who_is_alone_applies_its_membership_before_it_stands() -> None:
    """The entries of the bootstrap are committed from the start, and must be in the store first."""
    raft = Raft(make_node([1, 1], commit=2, applied=0, voters=(1,)))
    assert not raft.node.leader_id
    assert raft.apply_all() == [b"1@1", b"2@1"]
    raft.settle()
    assert raft.node.leader_id == ME


def test_a_proposal_is_applied_after_it_is_durable() -> None:
    """Propose, append, stable, apply: an answer exists only for what a power failure cannot take back."""
    raft = alone()
    raft.propose(1)
    [append] = raft.wal.messages
    assert [entry.data for entry in append.entries] == [b"1"]
    assert raft.apply.messages == []
    raft.sync()
    assert raft.apply_all() == [b"1"]


def test_what_queued_up_shares_one_append() -> None:
    """All proposals that wait are one Ready, hence one write and one sync."""
    raft = alone()
    for number in range(1, 4):
        raft.actor.actor_ref.tell(Propose([(RequestId(number), b"%d" % number)], raft.asker))
    raft.home.run()
    [append] = raft.wal.messages
    assert [entry.data for entry in append.entries] == [b"1", b"2", b"3"]


def leading_three() -> Raft:
    """Return one of three members, which leads and has written all that it has."""
    raft = of_three()
    raft.node.campaign(transferred=True)
    raft.tell(Tick(0.0))
    raft.sync()
    raft.tell(Step([message(MessageType.VOTE_RESPONSE, 2, term=raft.node.term)]))
    raft.sync()
    assert raft.node.role is Role.LEADER
    raft.tell(Step([message(MessageType.APPEND_RESPONSE, 2, term=raft.node.term, index=raft.node.log.last)]))
    raft.settle()
    raft.carrier.take()
    return raft


def appended_to(raft: Raft, member: int) -> list[list[bytes]]:
    """Return the data in each message with entries that has left for *member* since this was last asked."""
    sent = [each for send in raft.carrier.take() if isinstance(send, Send) for each in send.messages]
    return [[entry.data for entry in each.entries] for each in sent if each.to == member and each.entries]


def test_what_is_proposed_during_a_write_leaves_together_after_it() -> None:
    """The next write waits for this one anyway; other members then get one message instead of many."""
    raft = leading_three()
    raft.tell(Step([message(MessageType.APPEND_RESPONSE, 2, term=raft.node.term, index=raft.node.log.last)]))
    raft.propose(1)
    assert appended_to(raft, 2) == [[b"1"]]
    raft.propose(2)
    raft.propose(3)
    assert appended_to(raft, 2) == []
    raft.sync()
    assert appended_to(raft, 2) == [[b"2", b"3"]]


def test_no_more_than_one_message_is_gathered() -> None:
    """A disk that stands still must not let proposals pile up here, where nothing bounds them."""
    raft = leading_three()
    raft.propose(1)
    appended_to(raft, 2)
    large = bytes(raft.node.config.message_bytes_max)
    raft.tell(Propose([(RequestId(2), large)], raft.asker))
    raft.propose(3)
    assert appended_to(raft, 2)[0] == [large]


def test_what_was_gathered_goes_to_the_next_leader() -> None:
    """Whoever loses its leadership meanwhile passes it on, as it would have without gathering."""
    raft = leading_three()
    raft.propose(1)
    raft.propose(2)
    term = Term(raft.node.term + 1)
    raft.tell(Step([message(MessageType.HEARTBEAT, 3, term=term)]))
    sent = [each for send in raft.carrier.of(Send) for each in send.messages if each.type is MessageType.PROPOSE]
    assert [(each.to, [entry.data for entry in each.entries]) for each in sent] == [(3, [b"2"])]


def test_an_old_stable_counts_for_nothing() -> None:
    """A note from a write of an earlier term must not commit entries that replaced it."""
    raft = alone()
    raft.propose(1)
    raft.tell(Stable(Term(1), Index(3)))
    assert raft.apply.messages == []
    assert raft.settle() == [b"1"]


def test_batches_know_term_and_commit() -> None:
    """Answers show the term, and how far the log is committed is told with what is read."""
    raft = alone()
    raft.propose(1, 2)
    raft.sync()
    [batch] = raft.apply.messages
    assert (batch.term, batch.commit, len(batch.entries)) == (raft.node.term, raft.node.commit, 2)


def test_proposals_wait_for_a_leader() -> None:
    """An election takes a second; clients get an answer after it instead of an error during it."""
    raft = of_three()
    raft.propose(1, 2)
    assert raft.asker.messages == []
    led_by_two(raft)
    forwarded = [each for send in raft.carrier.of(Send) for each in send.messages if each.type is MessageType.PROPOSE]
    assert [entry.data for each in forwarded for entry in each.entries] == [b"1", b"2"]
    assert [each.to for each in forwarded] == [2]


def test_what_a_former_leader_decided_is_not_held_for_the_next() -> None:
    """A leader that was cut off lets leases end which the next one renews: its revokes must die with its term."""
    raft = of_three()
    raft.tell(Propose([(RequestId(1), b"1")], raft.asker, Term(1)))
    led_by_two(raft)
    raft.tell(Propose([(RequestId(2), b"2")], raft.asker, Term(2)))
    assert [list(refused.request_ids) for refused in raft.asker.of(Refused)] == [[1], [2]]
    assert not [each for send in raft.carrier.of(Send) for each in send.messages if each.type is MessageType.PROPOSE]


def test_what_a_leader_decides_in_its_term_is_proposed() -> None:
    """As any other proposal; what it decided in an earlier term is not."""
    raft = alone()
    term = raft.node.term
    raft.tell(Propose([(RequestId(1), b"1")], raft.asker, term))
    raft.tell(Propose([(RequestId(2), b"2")], raft.asker, Term(term - 1)))
    assert raft.settle() == [b"1"]
    [refused] = raft.asker.of(Refused)
    assert list(refused.request_ids) == [2]


def test_too_many_waiting_proposals_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """What waits lies in memory."""
    monkeypatch.setattr(raft_module, "HELD_PROPOSALS_MAX", 2)
    raft = of_three()
    raft.propose(1, 2)
    raft.propose(3)
    [refused] = raft.asker.of(Refused)
    assert list(refused.request_ids) == [3]
    assert isinstance(refused.error, ProposalDropped)


def test_large_waiting_proposals_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ten thousand requests of a megabyte would be more than there is; once there is a leader, others may wait anew."""
    monkeypatch.setattr(raft_module, "HELD_BYTES_MAX", 10)
    raft = of_three()
    raft.tell(Propose([(RequestId(1), b"x" * 10)], raft.asker))
    raft.tell(Propose([(RequestId(2), b"x")], raft.asker))
    assert [list(refused.request_ids) for refused in raft.asker.of(Refused)] == [[2]]
    led_by_two(raft)
    raft.tell(Step([message(MessageType.VOTE, 3, term=Term(3), context=b"CampaignTransfer")]))
    assert not raft.node.leader_id, "the test needs another time without a leader"
    raft.tell(Propose([(RequestId(3), b"x" * 10)], raft.asker))
    assert len(raft.asker.of(Refused)) == 1


def test_a_proposal_that_raft_drops_is_refused() -> None:
    """While leadership is handed over nothing is accepted, and the client must hear of it."""
    raft = alone()
    raft.node.config = raft.node.config.__class__(member_id=ME, uncommitted_bytes_max=1)
    raft.propose(1)
    raft.propose(2)
    refused = [request_id for each in raft.asker.of(Refused) for request_id in each.request_ids]
    assert refused == [2]


def test_a_read_round_is_answered_with_the_commit_index() -> None:
    """The asker may read as soon as that index is applied."""
    raft = alone()
    raft.propose(1)
    raft.settle()
    raft.tell(ReadIndex(7, raft.asker))
    assert raft.asker.messages == [ReadIndexed(7, raft.node.commit)]


def test_two_askers_may_use_the_same_number() -> None:
    """Each listener counts its rounds by itself."""
    raft, other = alone(), Told()
    raft.tell(ReadIndex(7, raft.asker), ReadIndex(7, other))
    assert len(raft.asker.of(ReadIndexed)) == len(other.of(ReadIndexed)) == 1


def test_a_round_without_a_leader_is_not_answered() -> None:
    """Whoever asked asks again."""
    raft = of_three()
    raft.tell(ReadIndex(7, raft.asker))
    led_by_two(raft)
    assert raft.asker.messages == []


def test_the_answer_of_a_former_leader_is_dropped() -> None:
    """A round dies with the leader that it was asked of; an answer under its name must confirm nothing."""
    raft = of_three()
    led_by_two(raft)
    raft.tell(ReadIndex(7, raft.asker))
    raft.tell(Step([message(MessageType.HEARTBEAT, 3, term=Term(3))]))
    name = Entry(Term(0), Index(0), EntryType.NORMAL, (FIRST_READ + 1).to_bytes(8, "big"))
    raft.tell(Step([message(MessageType.READ_INDEX_RESPONSE, 3, term=Term(3), index=Index(1), entries=(name,))]))
    assert raft.asker.messages == []


def test_reads_are_named_from_the_given_number_on() -> None:
    """After a restart, an answer to a question from before must name no new read."""
    raft = of_three()
    led_by_two(raft)
    raft.tell(ReadIndex(7, raft.asker))
    [asked] = [each for send in raft.carrier.of(Send) for each in send.messages if each.type is MessageType.READ_INDEX]
    assert int.from_bytes(asked.entries[0].data, "big") > FIRST_READ


def test_observers_are_told_who_leads_at_once_and_at_each_change() -> None:
    """Listeners refuse by it, leases run by it."""
    raft, observer = of_three(), Told()
    raft.tell(ObserveRole(observer))
    led_by_two(raft)
    led_by_two(raft)
    assert observer.messages == [
        RoleIs(Term(1), MemberId(0), is_leader=False),
        RoleIs(Term(2), MemberId(2), is_leader=False),
    ]


def test_observers_hear_of_leading_before_its_first_entry_is_applied() -> None:
    """Leases become primary when they have heard both."""
    raft = Raft(make_node([1], commit=1, applied=1, voters=(1,)))
    journal: list[Any] = []
    raft.tell(ObserveRole(Told(journal)))
    raft.actor._apply = Told(journal)
    raft.sync()
    raft.sync()
    kinds = [type(each) for each in journal if type(each) is ApplyEntries or getattr(each, "is_leader", False)]
    assert kinds == [RoleIs, ApplyEntries]


def test_applied_entries_leave_memory_but_for_what_followers_may_need() -> None:
    """The log in memory is bounded, and a follower that is a little behind needs no snapshot."""
    raft = Raft(make_node([1] * 3000, commit=3000, applied=0, voters=(1,)), catch_up_entries=500)
    raft.settle()
    assert raft.node.log.first == 3000 - 500 + 1


def test_large_entries_leave_memory_however_new(monkeypatch: pytest.MonkeyPatch) -> None:
    """Five thousand entries of a megabyte each would be more than there is."""
    monkeypatch.setattr(raft_module, "LOG_BYTES_ALONE_MAX", 1000)
    raft = Raft(make_node([1] * 3000, commit=3000, applied=0, voters=(1,)))
    raft.settle()
    assert raft.node.log.first > 3000


def test_ticks_reach_the_core() -> None:
    """Without them no election would ever begin."""
    raft = of_three()
    raft.tell(*[Tick(float(number)) for number in range(30)])
    assert raft.node.role is Role.PRE_CANDIDATE


def test_messages_that_depend_on_the_disk_leave_with_the_sync() -> None:
    """A vote that a power failure can take back may be given twice."""
    raft = of_three()
    asked = message(MessageType.VOTE, 2, term=Term(2), log_term=Term(1), index=Index(1))
    raft.tell(Step([asked]))
    assert raft.carrier.messages == []
    raft.sync()
    [send] = raft.carrier.of(Send)
    assert [(each.type, each.to, each.reject) for each in send.messages] == [(MessageType.VOTE_RESPONSE, 2, False)]


def test_the_sender_is_told_when_its_messages_were_taken() -> None:
    """It reads on only then, so that a fast peer cannot fill the mailbox."""
    raft, taken = of_three(), Told()
    raft.tell(Step([message(MessageType.HEARTBEAT, 2, term=Term(2))], Delivery(taken, "go on")))
    assert taken.messages == ["go on"]
    assert raft.node.leader_id == 2


def test_a_lost_message_is_no_news_to_a_follower() -> None:
    """Only a leader keeps track; others must not stumble."""
    raft = of_three()
    raft.tell(Unreachable(MemberId(2)))
    assert raft.home.crashes == []


def test_questions_are_answered_on_the_actors_own_thread() -> None:
    """Nobody else may look into the core."""
    raft, answer = alone(), Told()
    raft.tell(InspectRaft(lambda node: answer.tell(node.commit)))
    assert answer.messages == [raft.node.commit]


def test_an_applied_change_changes_the_configuration() -> None:
    """What is applied counts, not what was proposed."""
    raft = alone()
    raft.tell(ConfChangeApplied(None))
    assert not raft.node.conf_state.learners
    raft.tell(ConfChangeApplied(ConfChange(ConfChangeType.ADD_LEARNER_NODE, MemberId(4))))
    assert raft.node.conf_state.learners == (4,)


def test_a_second_change_under_way_is_refused() -> None:
    """One at a time; the asker must not wait for an answer that never comes."""
    raft = alone()
    raft.tell(ProposeConfChange(RequestId(1), b"one", raft.asker), ProposeConfChange(RequestId(2), b"two", raft.asker))
    assert [list(each.request_ids) for each in raft.asker.of(Refused)] == [[2]]


def test_a_commit_that_moved_alone_is_written_without_a_sync() -> None:
    """The hard state goes along with the next sync."""
    raft = alone()
    raft.propose(1)
    raft.sync()
    [append] = [each for each in raft.wal.of(Append) if not each.entries]
    assert (append.must_sync, append.after) == (False, ())


def acknowledgement(to: int, index: int, *, reject: bool = False) -> Message:
    return Message(MessageType.APPEND_RESPONSE, MemberId(to), ME, term=Term(1), index=Index(index), reject=reject)


def test_of_several_acknowledgements_the_last_says_it_all() -> None:
    """It covers those before it; a rejection says something else, and so does one to another member."""
    said = [
        acknowledgement(2, 1),
        acknowledgement(2, 2, reject=True),
        acknowledgement(3, 1),
        acknowledgement(2, 3),
        acknowledgement(2, 4),
    ]
    assert only_last_acknowledgement(said) == [said[1], said[2], said[4]]


def test_what_happened_is_logged() -> None:
    """An operator follows elections in the log; ids stand there as everywhere, in hexadecimal."""
    raft = of_three()
    led_by_two(raft)
    events = raft.home.logged("raft event")
    assert {"became follower", "leader changed"} <= {event["event_kind"] for event in events}
    [changed] = [event for event in events if event["event_kind"] == "leader changed"]
    assert (changed["leader_id"], changed["previous_id"]) == ("2", "0")


def test_the_log_is_told_whether_others_could_lead() -> None:
    """While this member is alone a quick sync may hold up the loop; from the first other member on it must not."""
    raft = Raft(make_node(voters=(1,)))
    assert [asked.alone for asked in raft.attended] == [True]
    raft.settle()
    raft.tell(ConfChangeApplied(ConfChange(ConfChangeType.ADD_NODE, MemberId(2))))
    raft.sync()
    assert [asked.alone for asked in raft.attended] == [True, False]


def test_a_leader_whose_disk_hangs_hands_over() -> None:
    """RaftActor is told by whoever waits for the disk."""
    raft = Raft(make_leader())
    for voter in (2, 3):
        raft.tell(Step((message(MessageType.APPEND_RESPONSE, voter, term=raft.node.term, index=raft.node.log.last),)))
    raft.carrier.take()
    raft.tell(DiskIs(stalled=True))
    sent = [each for batch in raft.carrier.of(Send) for each in batch.messages]
    assert MessageType.TIMEOUT_NOW in {each.type for each in sent}
    assert raft.home.logged("raft event")[-1]["event_kind"] == "transfer started"
    raft.tell(DiskIs(stalled=False))
    assert not raft.node.disk_stalled
