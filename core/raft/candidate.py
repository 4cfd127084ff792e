"""A member that stands for election, or first asks whether it would win one.

Raft paper 5.2; raft thesis 9.6 (pre-vote: ask without disturbing anybody's term).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from core.raft import confchange, events
from core.raft.messages import CAMPAIGN_TRANSFER, NOBODY, Message, MessageType
from core.raft.quorum import VoteResult, vote_result
from core.raft.role import Role, RoleBehaviour
from core.types import MemberId, Term

if TYPE_CHECKING:
    from collections.abc import Callable

    from core.raft.node import RaftNode


class _Campaign(RoleBehaviour):
    """Collects the votes of one election; the first answer of each member is the one that counts."""

    request: MessageType
    response: MessageType

    def __init__(self, node: RaftNode) -> None:
        super().__init__(
            node,
            {
                self.response: self._on_vote,
                MessageType.APPEND: self._on_leader,
                MessageType.HEARTBEAT: self._on_leader,
                MessageType.SNAPSHOT: self._on_leader,
            },
        )
        self._votes: dict[MemberId, bool] = {}

    def won(self) -> None:
        """Lead: a majority has said yes."""
        self.node.become_leader()

    def count(self, voter: MemberId, *, granted: bool) -> None:
        """Take over a vote and act if it decides the election."""
        self._votes.setdefault(voter, granted)
        result = vote_result(self.node.conf_state, self._votes)
        if result is VoteResult.WON:
            self.won()
        elif result is VoteResult.LOST:
            self.node.become_follower(self.node.term, NOBODY)

    def ask(self, term: Term, send: Callable[[Message], None], context: bytes = b"") -> None:
        """Ask every other voter for its vote in *term*."""
        node = self.node
        for voter in confchange.members(node.conf_state):
            if voter != node.id and confchange.votes(node.conf_state, voter):
                send(
                    Message(
                        self.request,
                        voter,
                        node.id,
                        term=term,
                        index=node.log.last,
                        log_term=node.log.last_term,
                        context=context,
                    )
                )

    def _on_vote(self, message: Message) -> None:
        self.count(message.sender, granted=not message.reject)

    def _on_leader(self, message: Message) -> None:
        """Follow whoever leads this term already."""
        self.node.become_follower(message.term, message.sender)
        self.node.step(message)


class PreCandidate(_Campaign):
    """Asks for votes in the next term without entering it."""

    role = Role.PRE_CANDIDATE
    request = MessageType.PRE_VOTE
    response = MessageType.PRE_VOTE_RESPONSE

    def begin(self) -> None:
        """Ask; this member's own answer is yes, and needs no disk since it binds nobody."""
        self.node.emit(events.BecamePreCandidate(self.node.term))
        self.ask(Term(self.node.term + 1), self.node.send)
        self.count(self.node.id, granted=True)

    def won(self) -> None:
        """Stand for election in earnest."""
        self.node.become_candidate(transferred=False)

    def _on_vote(self, message: Message) -> None:
        # An older question's yes says nothing about this one.
        if message.reject or message.term == self.node.term + 1:
            super()._on_vote(message)


class Candidate(_Campaign):
    """Stands for election in node.term."""

    role = Role.CANDIDATE
    request = MessageType.VOTE
    response = MessageType.VOTE_RESPONSE

    def __init__(self, node: RaftNode, *, transferred: bool) -> None:
        super().__init__(node)
        self._context = CAMPAIGN_TRANSFER if transferred else b""

    def begin(self) -> None:
        """Ask for votes; this member's own counts when it is durable."""
        self.node.emit(events.BecameCandidate(self.node.term))
        self.ask(self.node.term, self.node.send_after_sync, self._context)

    def made_durable(self, term: Term) -> None:
        """Count this member's own vote: the term was entered with it, so both were in one write."""
        if term == self.node.term:
            self.count(self.node.id, granted=True)
