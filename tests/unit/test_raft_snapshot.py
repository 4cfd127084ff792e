"""Snapshots: a log that starts after one, sending one, restoring one (raft paper 7)."""

from __future__ import annotations

import pytest

from core.raft.events import MessageRefused, SnapshotRestored, SnapshotSent
from core.raft.messages import (
    ConfChange,
    ConfChangeType,
    ConfState,
    EntryType,
    Message,
    MessageType,
    Snapshot,
    SnapshotMetadata,
)
from core.raft.role import Role
from core.raft.tracker import ProgressState
from core.types import Index, MemberId, Term
from tests.unit.raft_nodes import acknowledge, drain, entries, make_leader, make_node, message

VOTERS = (MemberId(1), MemberId(2), MemberId(3))


def snapshot(index: int, term: int, conf_state: ConfState | None = None, *, of_term: int | None = None) -> Message:
    """Return a snapshot from the leader of *of_term*."""
    metadata = SnapshotMetadata(conf_state or ConfState(VOTERS), Index(index), Term(term))
    return message(MessageType.SNAPSHOT, term=Term(of_term or term), snapshot=Snapshot(metadata, b"store"))


def test_7_a_snapshot_replaces_log_and_configuration() -> None:
    """It is written, then the store takes it over; until that nothing is applied and nobody stands for election."""
    node = make_node([1, 1], voters=(1,))
    node.step(snapshot(9, 3))
    ready = node.take_ready()
    assert ready.snapshot is not None
    assert (ready.snapshot.data, ready.must_sync, ready.hard_state, ready.committed) == (b"store", True, (3, 0, 9), ())
    assert [(ack.type, ack.index) for ack in ready.after_sync] == [(MessageType.APPEND_RESPONSE, 9)]
    assert SnapshotRestored(Index(9), Term(3)) in ready.events
    assert (node.commit, node.applied, node.log.first, node.conf_state.voters) == (9, 0, 10, VOTERS)
    assert not node.promotable
    assert ready.stable is not None
    node.stable(*ready.stable)
    node.step(
        message(
            MessageType.APPEND,
            term=Term(3),
            index=Index(9),
            log_term=Term(3),
            entries=tuple(entries([3], 10)),
            commit=10,
        )
    )
    after = node.take_ready()
    assert after.stable is not None
    node.stable(*after.stable)
    assert (after.committed, node.has_ready()) == ((), False)
    node.stable_snapshot(Index(9))
    assert (node.applied, node.promotable) == (9, True)
    assert [entry.index for entry in node.take_ready().committed] == [10]


def test_7_a_second_snapshot_before_the_first_is_in_place() -> None:
    """The store must have reached the newer one before anything after it is applied."""
    node = make_node([1, 1])
    node.step(snapshot(9, 3))
    node.take_ready()
    node.step(snapshot(12, 3))
    node.take_ready()
    node.stable_snapshot(Index(9))
    assert (node.applied, node.promotable) == (9, False)
    node.stable_snapshot(Index(12))
    assert (node.applied, node.promotable) == (12, True)


def test_7_writes_of_the_old_log_do_not_count_for_the_new_one() -> None:
    """A write in flight may reach beyond the snapshot, with entries that are gone."""
    node = make_node([1])
    node.step(
        message(MessageType.APPEND, term=Term(1), index=Index(1), log_term=Term(1), entries=tuple(entries([1] * 9, 2)))
    )
    old = node.take_ready()
    node.step(snapshot(5, 3))
    new = node.take_ready()
    assert old.stable is not None
    node.stable(*old.stable)
    assert node.writes.stable == 0
    assert new.stable is not None
    node.stable(*new.stable)
    assert node.writes.stable == 5


@pytest.mark.parametrize("place", [(1, 1), (2, 1)])
def test_7_a_snapshot_of_what_is_committed_is_only_acknowledged(place: tuple[int, int]) -> None:
    """It came late; the log holds as much and more."""
    node = make_node([1, 1, 1], commit=2)
    node.step(snapshot(*place))
    output = drain(node)
    assert output.snapshots == []
    assert [ack.index for ack in output.of(MessageType.APPEND_RESPONSE)] == [2]


def test_7_a_snapshot_that_the_log_reaches_moves_the_commit_index() -> None:
    """The entries up to it are all there, so those after it stay."""
    node = make_node([1, 1, 1])
    node.step(snapshot(2, 1))
    output = drain(node)
    assert (output.snapshots, node.commit, node.log.last) == ([], 2, 3)
    assert [ack.index for ack in output.of(MessageType.APPEND_RESPONSE)] == [2]


@pytest.mark.parametrize(
    "broken",
    [
        snapshot(9, 3)._replace(snapshot=None),
        snapshot(9, 3, ConfState(VOTERS[1:])),
        snapshot(9, 3, ConfState(VOTERS, learners=VOTERS)),
        snapshot(9, 3, ConfState()),
    ],
)
def test_7_a_snapshot_that_makes_no_sense_is_refused(broken: Message) -> None:
    """Without this member in it, or with a configuration that cannot be, it is not for this member."""
    node = make_node([1, 1])
    node.step(broken)
    output = drain(node)
    assert [type(event) for event in output.events][-1] is MessageRefused
    assert (output.snapshots, node.log.last) == ([], 2)


def test_7_a_candidate_takes_a_snapshot_as_a_follower() -> None:
    """It is a message of the leader of its term."""
    node = make_node([1, 1], pre_vote=False)
    node.campaign()
    node.step(snapshot(9, 1, of_term=2))
    assert (node.role, node.leader_id, node.log.last) == (Role.FOLLOWER, 2, 9)


def test_7_compaction_keeps_what_is_not_applied() -> None:
    """The caller may only drop what its store holds."""
    node = make_leader(voters=(1,))
    node.propose([b"a", b"b"])
    drain(node)
    node.compact(Index(2))
    assert (node.log.first, node.log.last) == (3, 3)


def test_7_who_needs_compacted_entries_gets_a_snapshot() -> None:
    """At least as far as the log was applied, with the configuration that held there."""
    node = make_leader([1, 1, 1], term=1)
    acknowledge(node, 2)
    drain(node)
    node.compact(Index(4))
    node.step(
        message(
            MessageType.APPEND_RESPONSE,
            3,
            term=Term(2),
            index=Index(3),
            reject=True,
            reject_hint=Index(1),
            log_term=Term(1),
        )
    )
    output = drain(node)
    (sent,) = output.of(MessageType.SNAPSHOT)
    assert sent.snapshot == Snapshot(SnapshotMetadata(ConfState(VOTERS), Index(4), Term(2)))
    assert SnapshotSent(MemberId(3), Index(4)) in output.events
    node.propose([b"later"])
    node.step(message(MessageType.HEARTBEAT_RESPONSE, 3, term=Term(2)))
    assert [sent.to for sent in drain(node).of(MessageType.APPEND)] == [2]


def test_7_the_snapshot_s_configuration_is_that_of_its_index() -> None:
    """A change that has taken effect, but is not counted as applied yet, is not in it."""
    node = make_leader(voters=(1,))
    node.propose_conf_change(b"x")
    ready = node.take_ready()
    assert ready.stable is not None
    node.stable(*ready.stable)
    committed = node.take_ready().committed
    node.apply_conf_change(ConfChange(ConfChangeType.ADD_LEARNER_NODE, MemberId(5)))
    assert node.snapshot_metadata() == SnapshotMetadata(ConfState((MemberId(1),)), Index(1), Term(1))
    node.applied_to(committed[-1].index)
    assert node.snapshot_metadata().conf_state.learners == (5,)
    assert committed[-1].type is EntryType.CONF_CHANGE


def test_7_a_silent_member_gets_no_snapshot() -> None:
    """It is large: whoever has not been heard from lately gets it after the next sign of life."""
    node = make_leader([1, 1, 1], term=1, applied=3)
    acknowledge(node, 2)
    drain(node)
    node.compact(Index(4))
    for _ in range(10):
        acknowledge(node, 2)
        node.tick()
    node.progress[MemberId(3)].next = Index(2)
    node.progress[MemberId(3)].paused = False
    node.propose([b"x"])
    assert drain(node).of(MessageType.SNAPSHOT) == []
    node.step(message(MessageType.HEARTBEAT_RESPONSE, 3, term=Term(2)))
    assert len(drain(node).of(MessageType.SNAPSHOT)) == 1


@pytest.mark.parametrize(("ok", "next_index"), [(True, 5), (False, 1)])
def test_7_the_transport_reports_how_it_went(ok: bool, next_index: int) -> None:
    """Then the member is probed, after the snapshot or where it was before, once it has been heard from."""
    node = make_leader([1, 1, 1], term=1)
    acknowledge(node, 2)
    drain(node)
    node.compact(Index(4))
    node.step(message(MessageType.APPEND_RESPONSE, 3, term=Term(2), index=Index(3), reject=True))
    drain(node)
    progress = node.progress[MemberId(3)]
    assert progress.state is ProgressState.SNAPSHOT
    node.report_unreachable(MemberId(3))
    node.step(message(MessageType.APPEND_RESPONSE, 3, term=Term(2), index=Index(4), reject=True))
    node.report_snapshot(MemberId(3), ok)
    node.report_snapshot(MemberId(3), ok)
    node.report_snapshot(MemberId(2), ok)
    node.report_snapshot(MemberId(9), ok)
    assert (progress.state.value, progress.next, progress.paused) == ("probe", next_index, True)


@pytest.mark.parametrize(("index", "state"), [(4, ProgressState.REPLICATE), (2, ProgressState.SNAPSHOT)])
def test_7_an_acknowledgement_ends_the_wait_for_a_snapshot(index: int, state: ProgressState) -> None:
    """However the member got there, the log can take it from there; below the log's start it still needs one."""
    node = make_leader([1, 1, 1], term=1)
    acknowledge(node, 2)
    drain(node)
    node.compact(Index(4))
    node.step(message(MessageType.APPEND_RESPONSE, 3, term=Term(2), index=Index(3), reject=True))
    drain(node)
    acknowledge(node, 3, index)
    assert node.progress[MemberId(3)].state is state
