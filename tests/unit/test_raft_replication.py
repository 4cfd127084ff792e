"""Log replication (raft paper 5.3, 5.4.2; raft thesis 3.8, 10.2.1; limits as etcd's)."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from core.raft.events import CommitBeyondLog, MessageRefused, TruncatedLog
from core.raft.messages import Entry, EntryType, Message, MessageType
from core.raft.role import ProposeResult
from core.raft.tracker import Progress, ProgressState
from core.types import Index, MemberId, Term
from tests.unit.raft_nodes import acknowledge, drain, entries, make_leader, make_node, message

if TYPE_CHECKING:
    from core.raft.node import RaftNode


def append(index: int, log_term: int, terms: list[int], *, term: int = 0, commit: int = 0, sender: int = 2) -> Message:
    """Return an append of entries of *terms* after (index, log_term)."""
    return message(
        MessageType.APPEND,
        sender,
        term=Term(term or max([log_term, *terms])),
        index=Index(index),
        log_term=Term(log_term),
        entries=tuple(entries(terms, index + 1)),
        commit=Index(commit),
    )


def terms_of(node: RaftNode) -> list[int]:
    """Return the terms in a node's log."""
    return [entry.term for entry in node.log.entries(node.log.first, node.log.last + 1)]


def progress_of(node: RaftNode, member: int) -> Progress:
    """Return what the leader knows of a member."""
    return node.progress[MemberId(member)]


# 5.3, the leader.


def test_5_3_a_proposal_goes_to_disk_and_to_the_others_at_once() -> None:
    """The leader writes in parallel to replication (raft thesis 10.2.1)."""
    node = make_leader()
    acknowledge(node, 2)
    drain(node)
    assert node.propose([b"a", b"b"]) is ProposeResult.ACCEPTED
    ready = node.take_ready()
    assert [(entry.term, entry.index, entry.data) for entry in ready.entries] == [(1, 2, b"a"), (1, 3, b"b")]
    assert [sent.entries for sent in ready.messages] == [ready.entries]  # 3 has not answered its probe yet
    assert (ready.must_sync, ready.stable, ready.committed) == (True, (1, 3), ())


def test_5_3_what_queued_since_the_last_ready_leaves_in_one_message() -> None:
    """Many small proposals cost one message to each member."""
    node = make_leader()
    acknowledge(node, 2)
    acknowledge(node, 3)
    drain(node)
    for data in (b"a", b"b", b"c"):
        node.propose([data])
    assert [(sent.to, len(sent.entries)) for sent in node.take_ready().messages] == [(2, 3), (3, 3)]


def test_5_3_a_majority_of_disks_commits() -> None:
    """Two of three: the leader's own disk may be the slow one; it applies when its own has it too."""
    node = make_leader()
    acknowledge(node, 2)
    acknowledge(node, 3)
    drain(node)
    node.propose([b"a"])
    slow = node.take_ready()
    acknowledge(node, 2)
    assert node.commit == 1
    acknowledge(node, 3)
    assert node.commit == 2
    assert node.take_ready().committed == ()
    assert slow.stable is not None
    node.stable(*slow.stable)
    assert [entry.data for entry in node.take_ready().committed] == [b"a"]


def test_5_3_a_lone_voter_commits_when_its_disk_has_it() -> None:
    """There is nobody else to rely on."""
    node = make_leader(voters=(1,))
    node.propose([b"a"])
    ready = node.take_ready()
    assert node.commit == 1
    assert ready.stable is not None
    node.stable(*ready.stable)
    assert (node.commit, [entry.data for entry in node.take_ready().committed]) == (2, [b"a"])


def test_5_3_followers_hear_of_a_commit() -> None:
    """Without new entries an empty append brings the news."""
    node = make_leader()
    acknowledge(node, 2)
    output = drain(node)
    assert [(sent.to, sent.index, sent.commit, sent.entries) for sent in output.messages] == [(2, 1, 1, ())]


def test_5_3_a_refusal_makes_the_leader_step_back() -> None:
    """It probes at the hint, one message at a time, and goes on from there when they agree."""
    node = make_leader([1, 1, 1], term=1)
    node.step(
        message(
            MessageType.APPEND_RESPONSE,
            term=Term(2),
            index=Index(3),
            reject=True,
            reject_hint=Index(1),
            log_term=Term(1),
        )
    )
    (probe,) = drain(node).of(MessageType.APPEND)
    assert (probe.to, probe.index, probe.log_term, len(probe.entries)) == (2, 1, 1, 3)
    node.propose([b"later"])
    assert drain(node).of(MessageType.APPEND) == []
    acknowledge(node, 2, 4)
    assert [(sent.index, len(sent.entries)) for sent in drain(node).of(MessageType.APPEND)] == [(4, 1)]
    assert progress_of(node, 2).state is ProgressState.REPLICATE


def test_5_3_the_leader_skips_terms_its_own_log_rules_out() -> None:
    """The follower ends with term 2 at 6; the leader's entries of terms above 2 cannot be there."""
    node = make_leader([1, 3, 3, 3, 5, 5, 5, 5, 5])
    node.step(
        message(
            MessageType.APPEND_RESPONSE,
            term=Term(6),
            index=Index(9),
            reject=True,
            reject_hint=Index(6),
            log_term=Term(2),
        )
    )
    assert [sent.index for sent in drain(node).of(MessageType.APPEND)] == [1]


@pytest.mark.parametrize("rejected", [2, 9])
def test_5_3_a_late_refusal_is_ignored(rejected: int) -> None:
    """Messages overtake each other; a refusal of another probe, or below what matches, says nothing."""
    node = make_leader([1, 1, 1], term=1)
    node.step(message(MessageType.APPEND_RESPONSE, term=Term(2), index=Index(rejected), reject=True))
    acknowledge(node, 2)
    drain(node)
    node.step(message(MessageType.APPEND_RESPONSE, term=Term(2), index=Index(rejected % 7), reject=True))
    assert drain(node).of(MessageType.APPEND) == []
    assert progress_of(node, 2).match == 4


def test_5_3_a_refusal_while_replicating_goes_back_to_what_matches() -> None:
    """What was sent ahead got lost: probe after the match."""
    node = make_leader()
    acknowledge(node, 2)
    drain(node)
    node.propose([b"a"])
    drain(node)
    node.step(message(MessageType.APPEND_RESPONSE, term=Term(1), index=Index(2), reject=True, reject_hint=Index(1)))
    assert progress_of(node, 2).state is ProgressState.PROBE
    assert [(sent.index, len(sent.entries)) for sent in drain(node).of(MessageType.APPEND)] == [(1, 1)]


def test_5_3_nobody_acknowledges_what_was_never_sent() -> None:
    """Such an answer is from a confused peer: believed, it would commit what nobody has."""
    node = make_leader()
    node.step(message(MessageType.APPEND_RESPONSE, term=Term(1), index=Index(99)))
    assert MessageRefused(MemberId(2), MessageType.APPEND_RESPONSE, "it acknowledges entries that were never sent") in (
        drain(node).events
    )
    assert (node.commit, progress_of(node, 2).match) == (0, 0)


def test_5_3_an_old_acknowledgement_changes_nothing() -> None:
    """What is known to match stays matched."""
    node = make_leader([1, 1, 1], term=1)
    acknowledge(node, 2)
    drain(node)
    acknowledge(node, 2, 2)
    assert (progress_of(node, 2).match, node.has_ready()) == (4, False)


def test_5_3_heartbeats_tell_no_more_than_what_matches() -> None:
    """Beyond its match a follower's log may differ: nothing there is committed for it."""
    node = make_leader()
    acknowledge(node, 2)
    drain(node)
    node.tick()
    assert [(beat.to, beat.commit) for beat in drain(node).of(MessageType.HEARTBEAT)] == [(2, 1), (3, 0)]


def test_heartbeats_keep_their_interval() -> None:
    """The interval is in ticks, as configured."""
    node = make_leader(heartbeat_ticks=3)
    sent = []
    for _ in range(7):
        node.tick()
        sent.append(len(drain(node).of(MessageType.HEARTBEAT)))
    assert sent == [0, 0, 2, 0, 0, 2, 0]


# 5.3, the follower.


@pytest.mark.parametrize(
    ("had", "sent", "has"),
    [
        ([1, 2], append(2, 2, [3]), [1, 2, 3]),
        ([1, 2], append(1, 1, [3, 4]), [1, 3, 4]),
        ([1], append(0, 0, [3, 4]), [3, 4]),
        ([1, 2, 2], append(1, 1, [2], term=2), [1, 2, 2]),
        ([1, 2, 2], append(0, 0, [1, 2], term=2), [1, 2, 2]),
        ([], append(0, 0, [1, 1]), [1, 1]),
    ],
)
def test_5_3_a_follower_takes_over_the_leader_s_log(had: list[int], sent: Message, has: list[int]) -> None:
    """Only a contradiction cuts entries off: a message that is late must not undo a later one."""
    node = make_node(had)
    node.step(sent)
    ready = node.take_ready()
    assert terms_of(node) == has
    acknowledged = [*ready.messages, *ready.after_sync]
    assert [(ack.type, ack.to, ack.index) for ack in acknowledged] == [
        (MessageType.APPEND_RESPONSE, 2, sent.index + len(sent.entries))
    ]


@pytest.mark.parametrize(
    ("had", "sent", "hint"),
    [
        ([1, 2], append(5, 3, [3]), (2, 2)),
        ([1, 3, 3, 4, 4, 5, 5, 5, 6], append(8, 3, [7], term=7), (3, 3)),
        ([], append(5, 3, [3]), (0, 0)),
        ([2, 2], append(2, 1, [3]), (0, 0)),
    ],
)
def test_5_3_a_follower_says_where_the_logs_may_agree(had: list[int], sent: Message, hint: tuple[int, int]) -> None:
    """Its highest entry whose term is not above the leader's there: the leader's log has lower terms only before it."""
    node = make_node(had)
    node.step(sent)
    (refusal,) = drain(node).messages
    assert (refusal.reject, refusal.index, refusal.reject_hint, refusal.log_term) == (True, sent.index, *hint)


def test_5_3_the_commit_index_stops_at_what_the_message_proves() -> None:
    """Entries after those in the message may yet be replaced."""
    node = make_node([1, 1, 1])
    node.step(append(1, 1, [1], commit=9))
    assert node.commit == 2


def test_5_3_committed_entries_are_acknowledged_without_a_look() -> None:
    """They cannot differ, and the leader may go on after them."""
    node = make_node([1, 1, 1], commit=3)
    node.step(append(1, 1, [1, 1]))
    assert [ack.index for ack in drain(node).messages] == [3]


@pytest.mark.parametrize(
    "broken",
    [
        append(3, 1, [])._replace(entries=tuple(entries([1], 7))),
        append(3, 1, [])._replace(entries=(*entries([1], 4), *entries([1], 6))),
        append(3, 1, [3, 2])._replace(term=Term(3)),
        append(3, 1, [5])._replace(term=Term(2)),
        append(3, 1, [])._replace(entries=tuple(entries([2], 2)), term=Term(2)),
    ],
)
def test_5_3_a_broken_message_changes_nothing(broken: Message) -> None:
    """Entries with gaps, falling terms or terms of the future would break the log: they are refused, with an event."""
    node = make_node([1, 1, 1], commit=2)
    node.step(broken)
    output = drain(node)
    assert terms_of(node) == [1, 1, 1]
    assert MessageRefused(MemberId(2), MessageType.APPEND, "its entries do not follow each other") in output.events
    assert output.of(MessageType.APPEND_RESPONSE) == []


def test_5_3_a_heartbeat_moves_the_commit_index() -> None:
    """And is answered with its context, which names a round of reads."""
    node = make_node([1, 1])
    node.step(message(MessageType.HEARTBEAT, term=Term(1), commit=Index(2), context=b"12345678"))
    (answer,) = drain(node).messages
    assert (node.commit, answer.type, answer.context) == (2, MessageType.HEARTBEAT_RESPONSE, b"12345678")


def test_a_log_that_lost_entries_says_so() -> None:
    """The leader counts on what this member acknowledged; it must not commit what it has not got."""
    node = make_node([1, 1])
    node.step(message(MessageType.HEARTBEAT, term=Term(1), commit=Index(7)))
    assert CommitBeyondLog(Index(7), Index(2)) in drain(node).events
    assert node.commit == 0


def test_a_truncation_is_told() -> None:
    """Operators see that uncommitted entries gave way."""
    node = make_node([1, 1])
    node.step(append(1, 1, [2]))
    assert TruncatedLog(Index(2), Term(2)) in drain(node).events


# 5.4.2: entries of earlier terms.


def test_5_4_2_entries_of_earlier_terms_do_not_commit_by_counting() -> None:
    """They may still be replaced; they commit with the first entry of the leader's own term."""
    node = make_leader([1, 1], term=2)
    acknowledge(node, 2, 2)
    assert node.commit == 0
    acknowledge(node, 2, 3)
    assert node.commit == 3


# Thesis 3.8: durability.


def test_thesis_3_8_a_follower_acknowledges_what_is_durable() -> None:
    """An acknowledgement that a crash belies would commit an entry that is not on a majority of disks."""
    node = make_node([1])
    node.step(append(1, 1, [1]))
    ready = node.take_ready()
    assert (ready.messages, [ack.index for ack in ready.after_sync], ready.must_sync) == ((), [2], True)


def test_thesis_3_8_an_acknowledgement_waits_for_earlier_writes_too() -> None:
    """Entries that come twice need no second write, but the first one has not ended yet."""
    node = make_node([1])
    node.step(append(1, 1, [1]))
    first = node.take_ready()
    node.step(append(1, 1, [1]))
    second = node.take_ready()
    assert (second.entries, second.must_sync, second.messages, len(second.after_sync)) == ((), False, (), 1)
    assert first.stable is not None
    node.stable(*first.stable)
    node.step(append(1, 1, [1]))
    assert len(node.take_ready().messages) == 1


def test_acknowledgements_in_a_row_become_one() -> None:
    """The later one says all that the earlier ones do; a refusal among them says something else and stays."""
    node = make_node([1])
    for sent in (append(1, 1, [1]), append(2, 1, [1, 1]), append(9, 1, [1]), append(4, 1, [1]), append(1, 1, [1])):
        node.step(sent)
    acknowledged = [(ack.index, ack.reject) for ack in node.take_ready().after_sync]
    assert acknowledged == [(4, False), (9, True), (5, False), (2, False)]


def test_thesis_3_8_only_durable_entries_are_handed_to_the_store() -> None:
    """A store that is ahead of its log could not start again."""
    node = make_node([1])
    node.step(append(1, 1, [1], commit=2))
    ready = node.take_ready()
    assert [entry.index for entry in ready.committed] == [1]
    assert ready.stable is not None
    node.stable(*ready.stable)
    assert [entry.index for entry in node.take_ready().committed] == [2]


def test_a_commit_index_needs_no_sync() -> None:
    """It can be found again (raft paper figure 2 keeps it in memory), so it never costs a disk write of its own."""
    node = make_node([1, 1])
    node.step(message(MessageType.HEARTBEAT, term=Term(1), commit=Index(2)))
    ready = node.take_ready()
    assert (ready.hard_state, ready.must_sync, ready.stable) == ((1, 0, 2), False, None)


def test_a_ready_is_handed_out_once() -> None:
    """After it there is nothing until something happens."""
    node = make_leader()
    assert not node.has_ready()
    ready = node.take_ready()
    assert not any([ready.entries, ready.messages, ready.after_sync, ready.committed, ready.events, ready.hard_state])


def test_reports_that_come_twice_change_nothing() -> None:
    """The driver may repeat itself, or speak of writes from before a restart."""
    node = make_leader(voters=(1,))
    node.stable(Term(1), Index(1))
    node.applied_to(Index(1))
    assert (node.applied, node.has_ready()) == (1, False)


def test_entries_that_replace_others_are_written_again() -> None:
    """What was handed out already and has been replaced is handed out anew."""
    node = make_node([1])
    node.step(append(1, 1, [1, 1]))
    node.take_ready()
    node.step(append(2, 1, [2], term=2))
    assert [(entry.index, entry.term) for entry in node.take_ready().entries] == [(3, 2)]


# Flow control (raft thesis 10.2.1; etcd's limits).


def test_a_full_window_lets_nothing_through_but_empty_probes() -> None:
    """A follower that answers nothing is not flooded; a heartbeat's answer lets one empty append go."""
    node = make_leader(inflight_messages_max=2, message_bytes_max=1)
    acknowledge(node, 2)
    drain(node)
    node.propose([b"a", b"b", b"c", b"d"])
    assert [sent.index for sent in drain(node).of(MessageType.APPEND) if sent.to == 2] == [1, 2]
    node.step(message(MessageType.HEARTBEAT_RESPONSE, term=Term(1)))
    assert [(sent.index, sent.entries) for sent in drain(node).of(MessageType.APPEND)] == [(3, ())]
    acknowledge(node, 2, 2)
    assert [sent.index for sent in drain(node).of(MessageType.APPEND)] == [3]


def test_a_probe_waits_for_its_answer() -> None:
    """To a member whose log is not known yet one message is enough; its heartbeat answer allows the next."""
    node = make_leader()
    node.propose([b"a"])
    assert [sent.to for sent in drain(node).of(MessageType.APPEND)] == []
    node.step(message(MessageType.HEARTBEAT_RESPONSE, 2, term=Term(1)))
    assert [(sent.to, sent.index, len(sent.entries)) for sent in drain(node).of(MessageType.APPEND)] == [(2, 0, 2)]


def test_a_lost_message_turns_to_probing() -> None:
    """What was sent ahead is probably lost with it."""
    node = make_leader()
    acknowledge(node, 2)
    node.propose([b"a", b"b"])
    drain(node)
    for member in (2, 3, 9):
        node.report_unreachable(MemberId(member))
    assert (progress_of(node, 2).state, progress_of(node, 2).next) == (ProgressState.PROBE, 2)
    node.step(message(MessageType.HEARTBEAT_RESPONSE, 2, term=Term(1)))
    assert [(sent.index, len(sent.entries)) for sent in drain(node).of(MessageType.APPEND)] == [(1, 2)]


def test_committed_entries_are_handed_out_in_portions() -> None:
    """A store that has much to catch up with gets it in bounded parts."""
    node = make_node([1] * 10, commit=10, committed_bytes_per_ready_max=60)
    portions = []
    while node.has_ready():
        portions.append([entry.index for entry in node.take_ready().committed])
    assert [index for portion in portions for index in portion] == list(range(1, 11))
    assert max(len(portion) for portion in portions) == 3


# Proposals.


def test_a_follower_forwards_proposals() -> None:
    """Any member may be asked; the leader takes what its followers pass on."""
    node = make_node([1])
    assert node.propose([b"x"]) is ProposeResult.NO_LEADER
    node.step(message(MessageType.HEARTBEAT, term=Term(1)))
    drain(node)
    assert node.propose([b"x", b"y"]) is ProposeResult.FORWARDED
    assert node.propose([]) is ProposeResult.FORWARDED
    (forwarded,) = drain(node).messages
    assert (forwarded.type, forwarded.to, forwarded.term) == (MessageType.PROPOSE, 2, 0)
    assert [entry.data for entry in forwarded.entries] == [b"x", b"y"]


def test_a_leader_takes_forwarded_proposals() -> None:
    """In their order, whatever kinds are mixed; a message without any does nothing."""
    node = make_leader(voters=(1,))
    kinds = [EntryType.NORMAL, EntryType.NORMAL, EntryType.CONF_CHANGE, EntryType.NORMAL]
    bare = tuple(
        Entry(Term(0), Index(0), kind, data) for kind, data in zip(kinds, (b"a", b"b", b"c", b"d"), strict=True)
    )
    node.step(message(MessageType.PROPOSE, entries=bare))
    node.step(message(MessageType.PROPOSE))
    assert [(entry.index, entry.type, entry.data) for entry in drain(node).committed] == [
        (2, EntryType.NORMAL, b"a"),
        (3, EntryType.NORMAL, b"b"),
        (4, EntryType.CONF_CHANGE, b"c"),
        (5, EntryType.NORMAL, b"d"),
    ]


def test_what_was_forwarded_to_a_former_leader_is_passed_on() -> None:
    """Unless it came from the one believed to lead: two that take each other for the leader must not play ball."""
    node = make_node([1])
    forwarded = message(MessageType.PROPOSE, 3, entries=(Entry(Term(0), Index(0), EntryType.NORMAL, b"x"),))
    node.step(forwarded)
    assert drain(node).messages == []
    node.step(message(MessageType.HEARTBEAT, term=Term(1)))
    drain(node)
    node.step(forwarded)
    node.step(forwarded._replace(sender=MemberId(2)))
    assert drain(node).messages == [forwarded._replace(to=MemberId(2))]


def test_proposals_stop_at_the_uncommitted_limit() -> None:
    """A leader whose quorum is slow must not fill its memory; one proposal is always let in when nothing waits."""
    node = make_leader(voters=(1,), uncommitted_bytes_max=100)
    assert node.propose([b"x" * 500]) is ProposeResult.ACCEPTED
    assert node.propose([b"y"]) is ProposeResult.UNCOMMITTED_LIMIT
    assert node.propose([b""]) is ProposeResult.ACCEPTED
    drain(node)
    assert node.propose([b"y"]) is ProposeResult.ACCEPTED
    assert node.propose([b"y"]) is ProposeResult.ACCEPTED


def test_5_3_what_only_tells_of_a_commit_is_not_answered() -> None:
    """Every batch of writes ends with such a message, whose answer says nothing new; a probe still gets its answer."""
    node = make_node([1, 1], term=1)
    told = message(MessageType.APPEND, 2, term=Term(1), index=Index(2), log_term=Term(1), commit=Index(2))
    node.step(told)
    output = drain(node)
    assert len(output.committed) == 2
    assert output.messages == []
    node.step(told)
    [answered] = drain(node).messages
    assert (answered.type, answered.index) == (MessageType.APPEND_RESPONSE, 2)
