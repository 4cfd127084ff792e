"""Single raft cores for unit tests: made in any state, and with their output taken at once."""

from __future__ import annotations

from dataclasses import dataclass, field
from random import Random
from typing import TYPE_CHECKING, Any

from core.raft.log import RaftLog
from core.raft.messages import ConfState, Entry, EntryType, HardState, Message, MessageType
from core.raft.node import RaftConfig, RaftNode
from core.types import Index, MemberId, Term

if TYPE_CHECKING:
    from collections.abc import Sequence

    from core.raft.events import RaftEvent
    from core.raft.messages import Snapshot
    from core.raft.ready import ReadState


def entries(terms: Sequence[int], first: int = 1) -> list[Entry]:
    """Return entries of these *terms*, each with its place as data."""
    return [
        Entry(Term(term), Index(index), EntryType.NORMAL, f"{index}@{term}".encode())
        for index, term in enumerate(terms, first)
    ]


def make_node(
    terms: Sequence[int] = (),
    *,
    term: int = 0,
    vote: int = 0,
    commit: int = 0,
    applied: int = 0,
    voters: Sequence[int] = (1, 2, 3),
    learners: Sequence[int] = (),
    compacted: tuple[int, int] = (0, 0),
    **config: Any,
) -> RaftNode:
    """Return member 1 with a log of these *terms* after *compacted*."""
    offset = (Index(compacted[0]), Term(compacted[1]))
    return RaftNode(
        RaftConfig(MemberId(1), **config),
        RaftLog(entries(terms, offset[0] + 1), offset),
        HardState(Term(term or (terms[-1] if terms else 0)), MemberId(vote), Index(commit)),
        ConfState(tuple(map(MemberId, voters)), tuple(map(MemberId, learners))),
        Index(applied),
        Random(3),
    )


@dataclass
class Output:
    """What came out of one or more Readies."""

    messages: list[Message] = field(default_factory=list)
    committed: list[Entry] = field(default_factory=list)
    reads: list[ReadState] = field(default_factory=list)
    events: list[RaftEvent] = field(default_factory=list)
    snapshots: list[Snapshot] = field(default_factory=list)

    def of(self, kind: MessageType) -> list[Message]:
        """Return the messages of one kind."""
        return [message for message in self.messages if message.type is kind]


def drain(node: RaftNode) -> Output:
    """Take all there is, as if the disk and the store were infinitely fast."""
    output = Output()
    while node.has_ready():
        ready = node.take_ready()
        output.messages += [*ready.messages, *ready.after_sync]
        output.committed += ready.committed
        output.reads += ready.reads
        output.events += ready.events
        if ready.snapshot is not None:
            output.snapshots.append(ready.snapshot)
            node.stable_snapshot(ready.snapshot.metadata.index)
        if ready.stable is not None:
            node.stable(*ready.stable)
        if ready.committed:
            node.applied_to(ready.committed[-1].index)
    return output


def message(kind: MessageType, sender: int = 2, **fields: Any) -> Message:
    """Return a message from another member to member 1."""
    return Message(kind, MemberId(1), MemberId(sender), **fields)


def make_leader(terms: Sequence[int] = (), **options: Any) -> RaftNode:
    """Return member 1 as the leader of the next term, its first messages already taken."""
    node = make_node(terms, **options)
    node.campaign(transferred=True)
    drain(node)
    for voter in node.conf_state.voters[1:]:
        node.step(message(MessageType.VOTE_RESPONSE, voter, term=node.term))
    drain(node)
    assert node.leader_id == node.id, "the test's own election failed"
    return node


def acknowledge(node: RaftNode, sender: int, index: int | None = None) -> None:
    """Let *sender* acknowledge the leader's log, up to *index* or its end."""
    node.step(message(MessageType.APPEND_RESPONSE, sender, term=node.term, index=index or node.log.last))
