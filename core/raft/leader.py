"""A member that takes proposals and decides what is committed.

Raft paper 5.4.2; raft thesis 3.10 (leadership transfer), 4 (changes of the configuration), 6.2 (step down without a
quorum), 6.4 (reads).  How it keeps the other logs in line is in replication.py.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from core.raft import confchange, events, quorum
from core.raft.messages import NOBODY, Entry, EntryType, Message, MessageType
from core.raft.read_index import Read, ReadQueue
from core.raft.ready import ReadState
from core.raft.replication import Replication
from core.raft.role import ProposeResult, Role, RoleBehaviour, bare_entry
from core.raft.tracker import ProgressState
from core.types import Index, MemberId, Term

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from core.raft.node import RaftNode
    from core.raft.tracker import Progress

READS_WAITING_MAX = 65536
"""More reads than this do not wait for a quorum at one time; askers repeat what gets lost."""


class Leader(RoleBehaviour):
    """Leads node.term from the moment the election is won."""

    role = Role.LEADER

    def __init__(self, node: RaftNode) -> None:
        super().__init__(
            node,
            {
                MessageType.APPEND_RESPONSE: self._on_append_response,
                MessageType.HEARTBEAT_RESPONSE: self._on_heartbeat_response,
                MessageType.PROPOSE: self._on_propose,
                MessageType.READ_INDEX: self._on_read_index,
                MessageType.TRANSFER_LEADER: self._on_transfer_leader,
            },
        )
        self._replication = Replication(node)
        self._heartbeat_elapsed = 0
        self._transferee = NOBODY
        # Entries of earlier leaders may hold a change; not to look for it, wait until they are all applied.
        self._pending_conf_index = node.log.last
        self._reads = ReadQueue(node.id)
        self._early_reads: list[Message] = []

    def begin(self) -> None:
        """Append an empty entry: only with an entry of its own term can a leader commit, and know what is committed."""
        self._append(EntryType.NORMAL, b"")

    @property
    def progress(self) -> Mapping[MemberId, Progress]:
        """What is known of each member."""
        return self._replication.progress

    @property
    def has_unsent(self) -> bool:
        """Whether appends or heartbeats are owed."""
        return self._replication.owes_appends or self._replication.owes_heartbeats

    def flush(self) -> None:
        """Send what is owed; a heartbeat confirms the reads that wait by then."""
        if self.has_unsent:
            self._replication.flush(self._reads.heartbeat_context())

    # Time.

    def tick(self) -> None:
        """Send heartbeats; once in an election timeout see whether a quorum still answers."""
        node = self.node
        node.election_elapsed += 1
        self._heartbeat_elapsed += 1
        if node.election_elapsed >= node.config.election_ticks:
            node.election_elapsed = 0
            if not self._replication.take_quorum_active() and node.config.check_quorum:
                node.emit(events.QuorumLost(node.term))
                node.become_follower(node.term, NOBODY)
                return
            handing_over = self._transferee != NOBODY
            self._abort_transfer()
            if handing_over and node.disk_stalled:
                node.become_follower(node.term, NOBODY)  # who was to take over has not
                return
        if self._heartbeat_elapsed >= node.config.heartbeat_ticks:
            self._heartbeat_elapsed = 0
            self._replication.owes_heartbeats = True

    # Proposals.

    def propose(self, entry_type: EntryType, datas: Sequence[bytes]) -> ProposeResult:
        """Append the entries to this member's own log; the others get them with the next flush."""
        node = self.node
        if node.id not in self.progress:
            return ProposeResult.REMOVED
        if self._transferee != NOBODY:
            return ProposeResult.TRANSFERRING
        if self._exceeds_uncommitted(datas):
            return ProposeResult.UNCOMMITTED_LIMIT
        if entry_type is EntryType.NORMAL:
            node.log.append_data(node.term, datas)
            self._replication.owes_appends = True
            return ProposeResult.ACCEPTED
        result = ProposeResult.ACCEPTED
        for data in datas:
            result = self._propose_conf_change(entry_type, data)
        return result

    def _exceeds_uncommitted(self, datas: Sequence[bytes]) -> bool:
        limit = self.node.config.uncommitted_bytes_max
        if not limit:
            return False
        waiting, size = self.node.log.bytes_after(self.node.applied), sum(map(len, datas))
        return waiting > 0 and size > 0 and waiting + size > limit

    def _propose_conf_change(self, entry_type: EntryType, data: bytes) -> ProposeResult:
        node = self.node
        joint = bool(node.conf_state.voters_outgoing)
        leaves = entry_type is EntryType.CONF_CHANGE_V2 and not confchange.holds_changes(data)
        if self._pending_conf_index > node.applied:
            result = ProposeResult.CONF_CHANGE_PENDING
        elif joint is not leaves:
            result = ProposeResult.CONF_CHANGE_UNFIT
        else:
            self._append(entry_type, data)
            self._pending_conf_index = node.log.last
            return ProposeResult.ACCEPTED
        node.emit(events.ConfChangeRefused(result.value))
        return result

    def _on_propose(self, message: Message) -> None:
        """Take what a follower forwards.  It learns of a refusal by silence, as of a lost message."""
        run: list[bytes] = []
        run_type = EntryType.NORMAL
        for entry in message.entries:
            if run and entry.type is not run_type:
                self.propose(run_type, run)
                run = []
            run_type = entry.type
            run.append(entry.data)
        if run:
            self.propose(run_type, run)

    def _append(self, entry_type: EntryType, data: bytes) -> None:
        log = self.node.log
        log.append((Entry(self.node.term, Index(log.last + 1), entry_type, data),))
        self._replication.owes_appends = True

    # What is committed.

    def _on_append_response(self, message: Message) -> None:
        progress = self.progress.get(message.sender)
        if progress is None:
            return
        progress.active = True
        if message.reject:
            self._replication.refused(message, progress)
        elif message.index > self.node.log.last:
            self.node.refuse(message, "it acknowledges entries that were never sent")
        elif self._replication.acknowledged(progress, message.index):
            self._commit_by_counting()
            if message.sender == self._transferee and progress.match == self.node.log.last:
                self._send_timeout_now(message.sender)

    def _on_heartbeat_response(self, message: Message) -> None:
        progress = self.progress.get(message.sender)
        if progress is None:
            return
        progress.active = True
        self._replication.answered_heartbeat(message.sender, progress)
        if message.context:
            self._reads.answered(message.sender, message.context)
            self._answer_confirmed_reads()

    def made_durable(self, term: Term) -> None:
        """Count this member's own log as far as it is durable."""
        del term
        own = self.progress.get(self.node.id)
        if own is not None and own.acknowledged(self.node.writes.stable):
            self._commit_by_counting()

    def _commit_by_counting(self) -> None:
        node, reached = self.node, self._replication.agreed()
        # Raft 5.4.2: only entries of this term commit by counting; earlier ones commit with them.
        if reached > node.commit and node.log.matches(reached, node.term):
            node.commit_to(reached)
            self._replication.owes_appends = True
            early, self._early_reads = self._early_reads, []
            for message in early:
                self._on_read_index(message)

    def report_unreachable(self, peer: MemberId) -> None:
        """Assume that what was sent ahead is lost: probe."""
        progress = self.progress.get(peer)
        if progress is not None and progress.state is ProgressState.REPLICATE:
            progress.probe()

    def report_snapshot(self, peer: MemberId, *, ok: bool) -> None:
        """Go back to probing, once the member is heard from."""
        progress = self.progress.get(peer)
        if progress is not None and progress.state is ProgressState.SNAPSHOT:
            progress.end_snapshot(arrived=ok)

    # Reads.

    def read_index(self, asker: MemberId, context: bytes) -> bool:
        """Let a read wait for this leader's confirmation."""
        self._on_read_index(Message(MessageType.READ_INDEX, self.node.id, asker, entries=(bare_entry(context),)))
        return True

    def _on_read_index(self, message: Message) -> None:
        node = self.node
        if len(message.entries) != 1:
            node.refuse(message, "it does not name a read")
        elif len(self._early_reads) + len(self._reads) >= READS_WAITING_MAX:
            node.refuse(message, "too many reads wait")
        elif not node.log.matches(node.commit, node.term):
            # What earlier leaders committed is known only once an entry of this term is (raft thesis 6.4).
            self._early_reads.append(message)
        elif self._confirms(message):
            self._answer_read(message.sender, message.entries[0].data, node.commit)
        else:
            self._reads.add(Read(message.sender, message.entries[0].data, node.commit))
            self._replication.owes_heartbeats = True
            self._answer_confirmed_reads()

    def _confirms(self, message: Message) -> bool:
        """Whether a read that was passed on confirms itself: its asker and this leader are a quorum.

        It was still in this term when the read was asked, so no later leader had its vote by then, nor this one's: none
        was elected.  That says nothing of reads that others asked meanwhile.
        """
        node = self.node
        if message.sender == node.id or message.log_term != node.term:
            return False
        votes = {node.id: True, message.sender: True}
        return quorum.vote_result(node.conf_state, votes) is quorum.VoteResult.WON

    def _answer_confirmed_reads(self) -> None:
        for read in self._reads.take_confirmed(self.node.conf_state):
            self._answer_read(*read)

    def _answer_read(self, asker: MemberId, context: bytes, index: Index) -> None:
        node = self.node
        if asker == node.id:
            node.answer_read(ReadState(index, int.from_bytes(context, "big")))
            return
        entries = (bare_entry(context),)
        node.send(
            Message(MessageType.READ_INDEX_RESPONSE, asker, node.id, term=node.term, index=index, entries=entries)
        )

    # Handing over, and changes of the configuration.

    def transfer_leader(self, to: MemberId) -> None:
        """Bring *to* up to date and tell it to stand for election; take no proposals until then."""
        node = self.node
        if to in {node.id, self._transferee} or not confchange.votes(node.conf_state, to):
            return
        self._abort_transfer()
        self._transferee = to
        node.election_elapsed = 0
        node.emit(events.TransferStarted(to))
        if self.progress[to].match == node.log.last:
            self._send_timeout_now(to)
        else:
            self._replication.owes_appends = True

    def disk_stalled(self) -> None:
        """Let the voter lead that has most of the log among those that are heard from; without one, just step down.

        A leader that cannot write confirms reads and keeps the others from an election by its heartbeats, but commits
        nothing that needs its own log.  One that has nobody to hand over to stays: nobody would be better off.
        """
        node = self.node
        heard = [
            (progress.match, member)
            for member, progress in self.progress.items()
            if member != node.id and progress.active and confchange.votes(node.conf_state, member)
        ]
        if any(member != node.id and confchange.votes(node.conf_state, member) for member in self.progress):
            to = max(heard)[1] if heard else NOBODY
            node.emit(events.DiskStalled(node.term, to))
            if heard:
                self.transfer_leader(to)
            else:
                node.become_follower(node.term, NOBODY)

    def _on_transfer_leader(self, message: Message) -> None:
        self.transfer_leader(message.sender)

    def _send_timeout_now(self, to: MemberId) -> None:
        self.node.send(Message(MessageType.TIMEOUT_NOW, to, self.node.id, term=self.node.term))

    def _abort_transfer(self) -> None:
        if self._transferee != NOBODY:
            self.node.emit(events.TransferAborted(self._transferee))
            self._transferee = NOBODY
            self._leave_joint_if_due()

    def conf_changed(self) -> None:
        """Track who takes part now; fewer voters may mean that more is committed, and more reads confirmed."""
        self._replication.follow_configuration()
        self._commit_by_counting()
        self._answer_confirmed_reads()
        if not confchange.votes(self.node.conf_state, self._transferee):
            self._abort_transfer()

    def applied_moved(self) -> None:
        """Leave a joint configuration that was entered on the way to another one."""
        self._leave_joint_if_due()

    def _leave_joint_if_due(self) -> None:
        node = self.node
        if node.conf_state.auto_leave and node.applied >= self._pending_conf_index and self._transferee == NOBODY:
            self._append(EntryType.CONF_CHANGE_V2, b"")
            self._pending_conf_index = node.log.last
