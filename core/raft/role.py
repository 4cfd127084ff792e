"""What the four roles have in common: the verbs a node passes on to whichever role it has.

Each role is in a file of its own (follower.py, candidate.py, leader.py) and has one small function per message kind.
RaftNode owns what outlives a role (log, term, vote, configuration) and every change from one role to another.
"""

from __future__ import annotations

from enum import Enum
from typing import TYPE_CHECKING, ClassVar

from core.raft.messages import Entry, EntryType, Message, MessageType
from core.types import Index, Term

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from core.raft.node import RaftNode
    from core.raft.tracker import Progress
    from core.types import MemberId


class Role(Enum):
    """What a member is in its term."""

    FOLLOWER = "follower"
    PRE_CANDIDATE = "pre-candidate"
    CANDIDATE = "candidate"
    LEADER = "leader"


class ProposeResult(Enum):
    """What became of a proposal.  Even an accepted one may get lost when the leader changes."""

    ACCEPTED = "accepted"
    FORWARDED = "forwarded to the leader"
    NO_LEADER = "no leader"
    TRANSFERRING = "leadership is being transferred"
    UNCOMMITTED_LIMIT = "too many bytes wait to be applied"
    REMOVED = "this member is not in the configuration"
    CONF_CHANGE_PENDING = "another configuration change is not applied yet"
    CONF_CHANGE_UNFIT = "the change does not fit the configuration, which is joint or is not"

    @property
    def accepted(self) -> bool:
        """Whether the proposal is on its way; otherwise nothing of it was kept."""
        return self in {ProposeResult.ACCEPTED, ProposeResult.FORWARDED}


class RoleBehaviour:
    """One role of one node, from the moment it is taken on until the next one is.

    *handlers* names the function for each kind of message that means something in the role.
    """

    role: ClassVar[Role]

    def __init__(self, node: RaftNode, handlers: dict[MessageType, Callable[[Message], None]]) -> None:
        self.node = node
        self._handlers = handlers

    @property
    def progress(self) -> Mapping[MemberId, Progress]:
        """What a leader knows of each member; empty in every other role."""
        return {}

    @property
    def has_unsent(self) -> bool:
        """Whether *flush* has something to send."""
        return False

    def step(self, message: Message) -> None:
        """Take a message of the node's own term (or of none); kinds that mean nothing in this role are dropped."""
        handler = self._handlers.get(message.type)
        if handler is not None:
            handler(message)

    def begin(self) -> None:
        """Do what this role starts with, now that the node has it."""

    def tick(self) -> None:
        """Let one tick pass; stand for election when no leader has spoken for a randomised timeout."""
        node = self.node
        node.election_elapsed += 1
        if node.election_elapsed >= node.election_timeout and node.promotable:
            node.election_elapsed = 0
            node.campaign()

    def propose(self, entry_type: EntryType, datas: Sequence[bytes]) -> ProposeResult:
        """Append entries with these *datas* to the leader's log, all or none; or say why not."""
        del entry_type, datas
        return ProposeResult.NO_LEADER

    def read_index(self, asker: MemberId, context: bytes) -> bool:
        """Find the index for a linearizable read; False if nobody can be asked."""
        del asker, context
        return False

    def transfer_leader(self, to: MemberId) -> None:
        """Ask that *to* shall lead; without a leader nothing happens."""

    def disk_stalled(self) -> None:
        """Take note that nothing becomes durable here; who does not lead just stands for no election meanwhile."""

    def made_durable(self, term: Term) -> None:
        """Take note that what was written while the node was in *term* is durable."""

    def flush(self) -> None:
        """Send what has been held back so that one message may carry it all."""

    def conf_changed(self) -> None:
        """Take over the node's new configuration."""

    def applied_moved(self) -> None:
        """Take note that more entries are applied."""

    def report_unreachable(self, peer: MemberId) -> None:
        """Take note that a message to *peer* was probably lost."""

    def report_snapshot(self, peer: MemberId, *, ok: bool) -> None:
        """Take note that a snapshot reached *peer*, or did not."""


def bare_entry(data: bytes, entry_type: EntryType = EntryType.NORMAL) -> Entry:
    """Return an entry that has no place in the log: it carries data of a proposal or the name of a read."""
    return Entry(Term(0), Index(0), entry_type, data)
