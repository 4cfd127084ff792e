"""How a member of any role answers a request for its vote.

Raft paper 5.2 and 5.4.1; raft thesis 9.6 (pre-vote) and 4.2.3 (who has heard from a leader lately does not help to
replace it).  Learners answer too: whoever asks may know of their promotion before they do.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from core.raft import events
from core.raft.messages import CAMPAIGN_TRANSFER, NOBODY, Message, MessageType

if TYPE_CHECKING:
    from core.raft.node import RaftNode


def ignores_vote(node: RaftNode, message: Message) -> bool:
    """Whether a vote of a higher term is not even looked at, since a leader was heard within an election timeout.

    The leader's own wish for a successor is always heard.
    """
    return (
        node.config.check_quorum
        and message.context != CAMPAIGN_TRANSFER
        and node.leader_id != NOBODY
        and node.election_elapsed < node.config.election_ticks
    )


def answer_vote(node: RaftNode, message: Message) -> None:
    """Grant or refuse a (pre-)vote of the node's own term, or a pre-vote of a higher one."""
    pre_vote = message.type is MessageType.PRE_VOTE
    free = (
        node.vote == message.sender
        or (node.vote == NOBODY and node.leader_id == NOBODY)
        or (pre_vote and message.term > node.term)
    )
    granted = free and node.log.reaches(message.index, message.log_term)
    node.emit(events.VoteCast(message.term, message.sender, pre_vote, granted))
    # A grant bears the term asked about: to a pre-candidate any other would look out of date.
    term = message.term if granted else node.term
    if pre_vote:
        node.send(Message(MessageType.PRE_VOTE_RESPONSE, message.sender, node.id, term=term, reject=not granted))
        return
    if granted:
        node.election_elapsed = 0
        node.vote = message.sender
    node.send_after_sync(Message(MessageType.VOTE_RESPONSE, message.sender, node.id, term=term, reject=not granted))
