"""A member that takes entries from a leader, or waits for one to appear.

Raft paper 5.3 (AppendEntries) and 7 (InstallSnapshot).  Learners are followers that never stand for election.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from core.raft import confchange, events
from core.raft.messages import NOBODY, EntryType, Message, MessageType
from core.raft.read_index import NUMBER_BYTES
from core.raft.ready import ReadState
from core.raft.role import ProposeResult, Role, RoleBehaviour, bare_entry
from core.types import Index, Term

if TYPE_CHECKING:
    from collections.abc import Sequence

    from core.raft.messages import Entry, Snapshot
    from core.raft.node import RaftNode
    from core.types import MemberId


class Follower(RoleBehaviour):
    """Follows node.leader_id, or nobody yet."""

    role = Role.FOLLOWER

    def __init__(self, node: RaftNode) -> None:
        super().__init__(
            node,
            {
                MessageType.APPEND: self._on_append,
                MessageType.HEARTBEAT: self._on_heartbeat,
                MessageType.SNAPSHOT: self._on_snapshot,
                MessageType.TIMEOUT_NOW: self._on_timeout_now,
                MessageType.PROPOSE: self._pass_on,
                MessageType.READ_INDEX: self._pass_on,
                MessageType.READ_INDEX_RESPONSE: self._on_read_index_response,
                MessageType.TRANSFER_LEADER: self._on_transfer_leader,
            },
        )

    def propose(self, entry_type: EntryType, datas: Sequence[bytes]) -> ProposeResult:
        """Forward the proposal to the leader."""
        node = self.node
        if node.leader_id == NOBODY:
            return ProposeResult.NO_LEADER
        if datas:
            entries = tuple(bare_entry(data, entry_type) for data in datas)
            node.send(Message(MessageType.PROPOSE, node.leader_id, node.id, entries=entries))
        return ProposeResult.FORWARDED

    def read_index(self, asker: MemberId, context: bytes) -> bool:
        """Forward the question to the leader."""
        node = self.node
        if node.leader_id != NOBODY:
            # Such a message bears no term (etcd's members insist), so the one that this member is in stands where they
            # do not look: it spares the leader a round of heartbeats where it and the asker are a quorum.
            entries = (bare_entry(context),)
            node.send(Message(MessageType.READ_INDEX, node.leader_id, asker, log_term=node.term, entries=entries))
        return node.leader_id != NOBODY

    def transfer_leader(self, to: MemberId) -> None:
        """Forward the wish to the leader; on the wire its sender is who shall lead."""
        node = self.node
        if node.leader_id != NOBODY:
            node.send(Message(MessageType.TRANSFER_LEADER, node.leader_id, to, term=node.term))

    def _on_append(self, message: Message) -> None:
        node, log = self.node, self.node.log
        node.hear_from(message.sender)
        if message.index < node.commit:
            self._acknowledge(message.sender, node.commit)
            return
        if not log.matches(message.index, message.log_term):
            hint, hint_term = log.conflict_hint(message.index, message.log_term)
            node.send_after_sync(
                Message(
                    MessageType.APPEND_RESPONSE,
                    message.sender,
                    node.id,
                    term=node.term,
                    index=message.index,
                    reject=True,
                    reject_hint=hint,
                    log_term=hint_term,
                )
            )
            return
        entries = message.entries
        if not _continue(message.index, message.log_term, entries, node.term):
            node.refuse(message, "its entries do not follow each other")
            return
        conflict = log.first_conflict(entries)
        if conflict is not None:
            if conflict <= log.last:
                node.replace_from(conflict)
            log.append(entries[conflict - entries[0].index :])
        last = Index(message.index + len(entries))
        commit = min(message.commit, last)
        only_commits = not entries and commit > node.commit
        node.commit_to(commit)
        # What only tells of a commit needs no answer: nobody waits for one, in etcd as here.  Should it have been a
        # probe all the same, the next one tells of no other commit, and is answered.
        if not only_commits:
            self._acknowledge(message.sender, last)

    def _on_heartbeat(self, message: Message) -> None:
        node = self.node
        node.hear_from(message.sender)
        if message.commit > node.log.last:
            node.emit(events.CommitBeyondLog(message.commit, node.log.last))
        else:
            node.commit_to(message.commit)
        node.send(
            Message(MessageType.HEARTBEAT_RESPONSE, message.sender, node.id, term=node.term, context=message.context)
        )

    def _on_snapshot(self, message: Message) -> None:
        self.node.hear_from(message.sender)
        if message.snapshot is None:
            self.node.refuse(message, "no snapshot in it")
        else:
            self._meet_snapshot(message, message.snapshot)
            self._acknowledge(message.sender, self.node.commit)

    def _meet_snapshot(self, message: Message, snapshot: Snapshot) -> None:
        """Restore the snapshot unless the log holds as much already."""
        node, metadata = self.node, snapshot.metadata
        if metadata.index <= node.commit:
            return
        if node.log.matches(metadata.index, metadata.term):
            node.commit_to(metadata.index)
            return
        try:
            conf_state = confchange.checked(metadata.conf_state)
        except confchange.InvalidConfChangeError as error:
            node.refuse(message, str(error))
            return
        if node.id not in confchange.members(conf_state):
            node.refuse(message, "this member is not in its configuration")
            return
        node.restore(snapshot, conf_state)

    def _on_timeout_now(self, message: Message) -> None:
        """Stand for election at once and without pre-vote: the leader knows that it is alive, and wants this."""
        del message
        self.node.campaign(transferred=True)

    def _pass_on(self, message: Message) -> None:
        """Forward what was meant for a leader to the one known here, unless it is who sent it."""
        leader_id = self.node.leader_id
        if leader_id not in {NOBODY, message.sender}:
            self.node.send(message._replace(to=leader_id))

    def _on_transfer_leader(self, message: Message) -> None:
        self.transfer_leader(message.sender)

    def _on_read_index_response(self, message: Message) -> None:
        if len(message.entries) != 1 or len(message.entries[0].data) != NUMBER_BYTES:
            self.node.refuse(message, "it does not name a read")
            return
        context = int.from_bytes(message.entries[0].data, "big")
        self.node.answer_read(ReadState(message.index, context))

    def _acknowledge(self, leader_id: MemberId, index: Index) -> None:
        node = self.node
        node.send_after_sync(Message(MessageType.APPEND_RESPONSE, leader_id, node.id, term=node.term, index=index))


def _continue(index: Index, term: Term, entries: Sequence[Entry], term_max: Term) -> bool:
    """Whether *entries* go on after (*index*, *term*) with no gap and with terms that never fall or pass *term_max*."""
    expected: int = index
    for entry_term, entry_index, _, _ in entries:
        expected += 1
        if entry_index != expected or entry_term < term:
            return False
        term = entry_term
    return term <= term_max
