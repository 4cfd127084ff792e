"""Linearizable reads (raft thesis 6.4) and leadership transfer (raft thesis 3.10)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from core.raft import leader
from core.raft.confchange import members
from core.raft.events import MessageRefused, TransferAborted, TransferStarted
from core.raft.messages import (
    CAMPAIGN_TRANSFER,
    ConfChange,
    ConfChangeType,
    Entry,
    EntryType,
    Message,
    MessageType,
)
from core.raft.role import ProposeResult, Role
from core.types import Index, MemberId, Term
from tests.unit.raft_nodes import acknowledge, drain, make_leader, make_node, message

if TYPE_CHECKING:
    from core.raft.node import RaftNode


def reading_leader(**options: Any) -> RaftNode:
    """Return a leader that has committed an entry of its term."""
    node = make_leader(**options)
    for member in members(node.conf_state)[1:]:
        acknowledge(node, member)
    drain(node)
    return node


def heartbeats(node: RaftNode) -> list[Message]:
    """Return the heartbeats that leave now."""
    return drain(node).of(MessageType.HEARTBEAT)


def answer(node: RaftNode, beat: Message) -> None:
    """Let the receiver of a heartbeat answer it."""
    node.step(message(MessageType.HEARTBEAT_RESPONSE, beat.to, term=beat.term, context=beat.context))


def read_request(context: bytes, sender: int = 2, term: int = 0) -> Message:
    """Return a follower's read, as it passes it on: etcd's do not tell their term."""
    entries = (Entry(Term(0), Index(0), EntryType.NORMAL, context),)
    return message(MessageType.READ_INDEX, sender, log_term=Term(term), entries=entries)


# Reads.


def test_6_4_a_read_needs_a_round_of_heartbeats() -> None:
    """A majority that still follows has elected nobody else, so nothing newer was committed when the read was asked."""
    node = reading_leader()
    assert node.read_index(77)
    beats = heartbeats(node)
    assert len(beats) == 2
    answer(node, beats[0])
    assert drain(node).reads == [(1, 77)]
    answer(node, beats[1])
    assert drain(node).reads == []


def test_6_4_one_round_answers_all_that_were_waiting() -> None:
    """A busy leader pays one round for any number of reads."""
    node = reading_leader()
    for context in range(100):
        node.read_index(context)
    (beat, _) = heartbeats(node)
    answer(node, beat)
    assert [state.context for state in drain(node).reads] == list(range(100))


def test_6_4_an_answer_confirms_only_reads_that_came_before_its_heartbeat() -> None:
    """Even if the asker has used the same context before (a stale answer must not confirm the newer read)."""
    node = reading_leader()
    node.read_index(7)
    first = heartbeats(node)
    node.read_index(7)
    second = heartbeats(node)
    answer(node, first[0])
    assert len(drain(node).reads) == 1
    answer(node, first[1])
    assert drain(node).reads == []
    answer(node, second[1])
    assert drain(node).reads == [(1, 7)]


def test_6_4_ticks_repeat_the_round() -> None:
    """A lost heartbeat delays a read by a tick, no more."""
    node = reading_leader()
    node.read_index(7)
    drain(node)
    node.tick()
    answer(node, heartbeats(node)[0])
    assert drain(node).reads == [(1, 7)]


def test_6_4_an_asker_that_makes_a_quorum_confirms_its_own_read() -> None:
    """Where it and the leader are a majority, nobody else could have elected another; that spares a round."""
    node = reading_leader()
    node.step(read_request(b"context1", term=node.term))
    [answered] = drain(node).messages
    assert (answered.type, answered.to, answered.index) == (MessageType.READ_INDEX_RESPONSE, 2, 1)
    assert answered.entries[0].data == b"context1"


def test_6_4_an_asker_confirms_nobody_elses_read() -> None:
    """Its word may have been on the way for long: another leader may have answered since, and others read after it."""
    node = reading_leader()
    node.read_index(7)
    node.step(read_request(b"context3", sender=3))
    beats = heartbeats(node)
    node.step(read_request(b"context2", term=node.term))
    output = drain(node)
    assert [answered.to for answered in output.of(MessageType.READ_INDEX_RESPONSE)] == [2]
    assert output.reads == []
    answer(node, beats[0])
    output = drain(node)
    assert [answered.to for answered in output.of(MessageType.READ_INDEX_RESPONSE)] == [3]
    assert output.reads == [(1, 7)]


@pytest.mark.parametrize(
    ("options", "sender", "term"),
    [
        ({}, 2, 0),
        ({"term": 4}, 2, 4),
        ({"voters": (1, 2, 3, 4)}, 2, 1),
        ({"learners": (4,)}, 4, 1),
    ],
    ids=["etcd does not tell its term", "another term", "two of four", "a learner"],
)
def test_6_4_an_asker_that_makes_no_quorum_needs_the_round(options: dict[str, Any], sender: int, term: int) -> None:
    """In an earlier term it may have voted for another leader since; and a minority's word counts for nothing."""
    node = reading_leader(**options)
    node.step(read_request(b"context1", sender=sender, term=term))
    output = drain(node)
    assert output.of(MessageType.READ_INDEX_RESPONSE) == []
    assert output.of(MessageType.HEARTBEAT)


def test_a_follower_tells_its_term_with_a_read() -> None:
    """In a field that etcd passes over: with the term in its own place, its followers would not pass it on."""
    node = make_node([1], term=5)
    node.step(message(MessageType.HEARTBEAT, 2, term=Term(5)))
    drain(node)
    assert node.read_index(7)
    [asked] = drain(node).messages
    assert (asked.type, asked.term, asked.log_term) == (MessageType.READ_INDEX, 0, 5)


@pytest.mark.parametrize("context", [b"", b"\x01", (99).to_bytes(8, "big"), b"123456789"])
def test_6_4_an_answer_to_nothing_confirms_nothing(context: bytes) -> None:
    """Numbers that were never given out are ignored."""
    node = reading_leader()
    node.read_index(7)
    drain(node)
    node.step(message(MessageType.HEARTBEAT_RESPONSE, 2, term=Term(1), context=context))
    assert drain(node).reads == []


def test_6_4_learners_do_not_confirm() -> None:
    """Only voters could have elected another leader."""
    node = make_leader(voters=(1, 2, 3), learners=(4,))
    acknowledge(node, 2)
    drain(node)
    node.read_index(7)
    for beat in heartbeats(node):
        if beat.to == 4:
            answer(node, beat)
    assert drain(node).reads == []


def test_6_4_a_read_waits_for_the_first_commit_of_the_term() -> None:
    """Before it a leader does not know how far its predecessors had committed; this holds for a lone voter too."""
    node = make_leader()
    node.read_index(7)
    assert heartbeats(node) == []
    acknowledge(node, 2)
    answer(node, heartbeats(node)[0])
    assert drain(node).reads == [(1, 7)]


def test_6_4_a_lone_voter_answers_at_once() -> None:
    """There is nobody who could have elected another."""
    node = reading_leader(voters=(1,))
    node.read_index(7)
    assert drain(node).reads == [(1, 7)]


def test_6_4_a_lone_voter_with_a_learner_answers_at_once() -> None:
    """A learner's answer is neither needed nor waited for."""
    node = make_leader(voters=(1,), learners=(2,))
    drain(node)
    node.read_index(7)
    assert drain(node).reads == [(1, 7)]


def test_6_4_a_removed_leader_needs_the_others() -> None:
    """The one voter that is left may have elected itself."""
    node = make_leader(voters=(1, 2))
    acknowledge(node, 2)
    drain(node)
    node.apply_conf_change(ConfChange(ConfChangeType.REMOVE_NODE, MemberId(1)))
    node.read_index(7)
    (beat,) = heartbeats(node)
    answer(node, beat)
    assert drain(node).reads == [(1, 7)]


def test_6_4_fewer_voters_may_confirm_more() -> None:
    """When the one that did not answer is removed, the read need not wait for the next round."""
    node = reading_leader(voters=(1, 2))
    node.read_index(7)
    drain(node)
    node.apply_conf_change(ConfChange(ConfChangeType.REMOVE_NODE, MemberId(2)))
    assert drain(node).reads == [(1, 7)]


def test_6_4_a_follower_asks_the_leader() -> None:
    """And hands out the answer under the context that it was asked with."""
    node = make_node([1])
    assert not node.read_index(7)
    node.step(message(MessageType.HEARTBEAT, term=Term(1)))
    drain(node)
    assert node.read_index(7)
    (asked,) = drain(node).messages
    assert (asked.type, asked.to, asked.term, asked.entries[0].data) == (
        MessageType.READ_INDEX,
        2,
        0,
        bytes(7) + b"\x07",
    )
    node.step(message(MessageType.READ_INDEX_RESPONSE, term=Term(1), index=Index(5), entries=asked.entries))
    assert drain(node).reads == [(5, 7)]


def test_6_4_a_leader_answers_followers_with_what_they_sent() -> None:
    """The context is theirs: any bytes, of any length."""
    node = reading_leader()
    node.step(read_request(b"any bytes"))
    answer(node, heartbeats(node)[1])
    (response,) = drain(node).messages
    assert (response.type, response.to, response.index) == (MessageType.READ_INDEX_RESPONSE, 2, 1)
    assert response.entries[0].data == b"any bytes"


@pytest.mark.parametrize("entry_count", [0, 2])
def test_6_4_a_read_without_a_name_is_refused(entry_count: int) -> None:
    """Its asker could not tell the answer."""
    nameless = read_request(b"x")._replace(entries=read_request(b"x").entries * entry_count)
    node = reading_leader()
    node.step(nameless)
    follower = make_node([1])
    follower.step(nameless._replace(type=MessageType.READ_INDEX_RESPONSE, term=Term(1)))
    for member in (node, follower):
        assert [type(event) for event in drain(member).events] == [MessageRefused]


def test_6_4_reads_of_a_leader_without_a_quorum_do_not_pile_up(monkeypatch: pytest.MonkeyPatch) -> None:
    """Beyond a bound they are dropped; their askers ask again."""
    monkeypatch.setattr(leader, "READS_WAITING_MAX", 2)
    node = reading_leader()
    for context in range(3):
        node.read_index(context)
    beats = heartbeats(node)
    answer(node, beats[0])
    assert [state.context for state in drain(node).reads] == [0, 1]


# Thesis 3.10: leadership transfer.


def test_3_10_a_successor_that_is_up_to_date_is_told_at_once() -> None:
    """Meanwhile proposals are refused: what got in now would have to reach the successor as well."""
    node = reading_leader()
    node.transfer_leader(MemberId(2))
    output = drain(node)
    assert [(sent.type, sent.to) for sent in output.messages] == [(MessageType.TIMEOUT_NOW, 2)]
    assert output.events == [TransferStarted(MemberId(2))]
    assert node.propose([b"x"]) is ProposeResult.TRANSFERRING
    node.transfer_leader(MemberId(2))
    assert not node.has_ready()


def test_3_10_a_successor_is_brought_up_to_date_first() -> None:
    """It could not win with a shorter log."""
    node = reading_leader()
    node.propose([b"x"])
    drain(node)
    node.step(message(MessageType.TRANSFER_LEADER, 2, term=Term(1)))
    assert drain(node).of(MessageType.TIMEOUT_NOW) == []
    acknowledge(node, 2)
    assert [sent.to for sent in drain(node).of(MessageType.TIMEOUT_NOW)] == [2]


def test_3_10_a_transfer_ends_after_an_election_timeout() -> None:
    """The successor may be dead; the leader then takes proposals again."""
    node = reading_leader(check_quorum=False)
    node.transfer_leader(MemberId(2))
    for _ in range(10):
        assert node.propose([b"x"]) is ProposeResult.TRANSFERRING
        node.tick()
    assert TransferAborted(MemberId(2)) in drain(node).events
    assert node.propose([b"x"]) is ProposeResult.ACCEPTED


def test_3_10_another_wish_replaces_the_first() -> None:
    """The last word counts."""
    node = reading_leader()
    node.transfer_leader(MemberId(2))
    node.transfer_leader(MemberId(3))
    output = drain(node)
    assert output.events[1:] == [TransferAborted(MemberId(2)), TransferStarted(MemberId(3))]


@pytest.mark.parametrize("to", [1, 4, 9])
def test_3_10_only_another_voter_can_succeed(to: int) -> None:
    """Not the leader itself, a learner or a stranger."""
    node = make_leader(learners=(4,))
    node.transfer_leader(MemberId(to))
    assert not node.has_ready()


def test_3_10_a_removed_successor_is_given_up() -> None:
    """It will not lead any more."""
    node = reading_leader()
    node.transfer_leader(MemberId(3))
    node.apply_conf_change(ConfChange(ConfChangeType.REMOVE_NODE, MemberId(3)))
    assert node.propose([b"x"]) is ProposeResult.ACCEPTED


def test_3_10_the_successor_campaigns_without_pre_vote() -> None:
    """The leader itself wants it, so its lease does not protect it; the votes carry a mark that says so."""
    node = make_node([1])
    node.step(message(MessageType.HEARTBEAT, term=Term(1)))
    drain(node)
    node.step(message(MessageType.TIMEOUT_NOW, term=Term(1)))
    requests = drain(node).of(MessageType.VOTE)
    assert (node.role, node.term) == (Role.CANDIDATE, 2)
    assert [request.context for request in requests] == [CAMPAIGN_TRANSFER] * 2


def test_3_10_a_follower_passes_the_wish_on() -> None:
    """The sender of the message is who shall lead, as etcd has it."""
    node = make_node([1])
    node.transfer_leader(MemberId(3))
    assert not node.has_ready()
    node.step(message(MessageType.HEARTBEAT, term=Term(1)))
    drain(node)
    node.transfer_leader(MemberId(3))
    node.step(message(MessageType.TRANSFER_LEADER, 1, term=Term(1)))
    assert [(wish.type, wish.to, wish.sender) for wish in drain(node).messages] == [
        (MessageType.TRANSFER_LEADER, 2, 3),
        (MessageType.TRANSFER_LEADER, 2, 1),
    ]
