"""A member that takes proposals and brings every other log in line with its own.

Raft paper 5.3 and 5.4.2; raft thesis 3.10 (leadership transfer), 6.4 (reads), 6.2 (step down without a quorum).
Appends and heartbeats are held back until *flush*, so that all that came in since the last Ready leaves in one message.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from core.raft import confchange, events, quorum
from core.raft.messages import NOBODY, Entry, EntryType, Message, MessageType, Snapshot
from core.raft.read_index import Read, ReadQueue
from core.raft.ready import ReadState
from core.raft.role import ProposeResult, Role, RoleBehaviour, bare_entry
from core.raft.tracker import Progress, ProgressState
from core.types import Index, MemberId, Term

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from core.raft.node import RaftNode

READS_WAITING_MAX = 65536
"""More reads than this do not wait for a quorum at one time; askers repeat what gets lost."""


class Leader(RoleBehaviour):
    """Leads node.term from the moment the election is won."""

    role = Role.LEADER

    def __init__(self, node: RaftNode) -> None:
        super().__init__(node)
        self.progress: dict[MemberId, Progress] = {
            member: Progress(node.log.last + 1) for member in confchange.members(node.conf_state)
        }
        self._heartbeat_elapsed = 0
        self._transferee = NOBODY
        # Entries of earlier leaders may hold a change; not to look for it, wait until they are all applied.
        self._pending_conf_index = node.log.last
        self._reads = ReadQueue(node.id)
        self._early_reads: list[Message] = []
        self._owes_appends = self._owes_heartbeats = False

    def handlers(self) -> dict[MessageType, Callable[[Message], None]]:
        """Return what a leader does about each kind of message."""
        return {
            MessageType.APPEND_RESPONSE: self._on_append_response,
            MessageType.HEARTBEAT_RESPONSE: self._on_heartbeat_response,
            MessageType.PROPOSE: self._on_propose,
            MessageType.READ_INDEX: self._on_read_index,
            MessageType.TRANSFER_LEADER: self._on_transfer_leader,
        }

    def begin(self) -> None:
        """Append an empty entry: only with an entry of its own term can a leader commit, and know what is committed."""
        own = self.progress.get(self.node.id)
        if own is not None:
            own.replicate()
            own.acknowledged(self.node.writes.stable)
        self._append(EntryType.NORMAL, b"")

    @property
    def has_unsent(self) -> bool:
        """Whether appends or heartbeats are held back."""
        return self._owes_appends or self._owes_heartbeats

    # Time.

    def tick(self) -> None:
        """Send heartbeats; once in an election timeout see whether a quorum still answers."""
        node = self.node
        node.election_elapsed += 1
        self._heartbeat_elapsed += 1
        if node.election_elapsed >= node.config.election_ticks:
            node.election_elapsed = 0
            if node.config.check_quorum and not self._quorum_active():
                node.emit(events.QuorumLost(node.term))
                node.become_follower(node.term, NOBODY)
                return
            for progress in self.progress.values():
                progress.active = False
            self._abort_transfer()
        if self._heartbeat_elapsed >= node.config.heartbeat_ticks:
            self._heartbeat_elapsed = 0
            self._owes_heartbeats = True

    def _quorum_active(self) -> bool:
        active = {member: progress.active or member == self.node.id for member, progress in self.progress.items()}
        return quorum.vote_result(self.node.conf_state, active) is quorum.VoteResult.WON

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
            self._owes_appends = True
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
        self._owes_appends = True

    # Replication.

    def flush(self) -> None:
        """Send the heartbeats and appends that are due."""
        if self._owes_heartbeats:
            self._owes_heartbeats = False
            self._send_heartbeats()
        if self._owes_appends:
            self._owes_appends = False
            for peer, progress in self.progress.items():
                if peer != self.node.id:
                    while self._send_append(peer, progress):
                        pass
                    if not progress.blocked and progress.wants_commit(self.node.commit):
                        self._send_append(peer, progress, even_if_empty=True)

    def _send_heartbeats(self) -> None:
        node, context = self.node, self._reads.heartbeat_context()
        for peer, progress in self.progress.items():
            if peer != node.id:
                # Beyond its match the member's log may differ from this one: nothing there is committed for it.
                commit = min(progress.match, node.commit)
                progress.commit_sent = commit
                node.send(Message(MessageType.HEARTBEAT, peer, node.id, term=node.term, commit=commit, context=context))

    def _send_append(self, peer: MemberId, progress: Progress, *, even_if_empty: bool = False) -> bool:
        """Send one append message if there is reason to and room for it; True if another may follow at once."""
        node, log, config = self.node, self.node.log, self.node.config
        if progress.blocked:
            return False
        previous = Index(progress.next - 1)
        previous_term = log.term(previous)
        if previous_term is None:
            self._send_snapshot(peer, progress)
            return False
        entries: tuple[Entry, ...] = ()
        full = progress.state is ProgressState.REPLICATE and len(progress.in_flight) >= config.inflight_messages_max
        if previous < log.last and not full:
            entries = log.entries_within(progress.next, log.last + 1, config.message_bytes_max)
        if not entries and not even_if_empty:
            return False
        node.send(
            Message(
                MessageType.APPEND,
                peer,
                node.id,
                term=node.term,
                index=previous,
                log_term=previous_term,
                entries=entries,
                commit=node.commit,
            )
        )
        progress.commit_sent = node.commit
        progress.sent(
            Index(previous + len(entries)), any_entries=bool(entries), in_flight_max=config.inflight_messages_max
        )
        return bool(entries)

    def _send_snapshot(self, peer: MemberId, progress: Progress) -> None:
        """Let a snapshot be sent to a member that needs entries compacted here, if it has lately shown to be there."""
        if not progress.active:
            return
        node, metadata = self.node, self.node.snapshot_metadata()
        progress.await_snapshot(metadata.index)
        node.emit(events.SnapshotSent(peer, metadata.index))
        node.send(Message(MessageType.SNAPSHOT, peer, node.id, term=node.term, snapshot=Snapshot(metadata)))

    def _on_append_response(self, message: Message) -> None:
        progress = self.progress.get(message.sender)
        if progress is None:
            return
        progress.active = True
        if message.reject:
            hint = message.reject_hint
            if message.log_term:
                hint, _ = self.node.log.conflict_hint(hint, message.log_term)
            if progress.rejected(message.index, hint):
                self._send_append(message.sender, progress, even_if_empty=True)
        elif message.index > self.node.log.last:
            self.node.refuse(message, "it acknowledges entries that were never sent")
        else:
            self._acknowledged(message.sender, progress, message.index)

    def _acknowledged(self, peer: MemberId, progress: Progress, index: Index) -> None:
        """Take over that *peer* holds everything up to *index*, and send it what that makes room for."""
        log = self.node.log
        news = progress.acknowledged(index)
        if not news and not (index == progress.match and progress.state is ProgressState.PROBE):
            return
        if progress.state is ProgressState.PROBE:
            progress.replicate()
        elif progress.state is ProgressState.REPLICATE:
            progress.release(index)
        elif progress.match >= log.first - 1:
            # However it got there, by this snapshot or another: the log can take it from here.
            progress.replicate()
        self._owes_appends = True
        self._commit_by_counting()
        if peer == self._transferee and progress.match == log.last:
            self._send_timeout_now(peer)

    def _on_heartbeat_response(self, message: Message) -> None:
        progress = self.progress.get(message.sender)
        if progress is None:
            return
        progress.active = True
        progress.paused = False
        # To one whose window is full, or who is probed, even an empty append is due: its answer gets things going.
        if progress.match < self.node.log.last or progress.state is ProgressState.PROBE:
            self._send_append(message.sender, progress, even_if_empty=True)
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
        node = self.node
        reached = quorum.agreed(node.conf_state, {member: progress.match for member, progress in self.progress.items()})
        # Raft 5.4.2: only entries of this term commit by counting; earlier ones commit with them.
        if reached > node.commit and node.log.matches(Index(reached), node.term):
            node.commit_to(Index(reached))
            self._owes_appends = True
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
        else:
            self._reads.add(Read(message.sender, message.entries[0].data, node.commit))
            self._owes_heartbeats = True
            self._answer_confirmed_reads()

    def _answer_confirmed_reads(self) -> None:
        node = self.node
        for asker, context, index in self._reads.take_confirmed(node.conf_state):
            if asker == node.id:
                node.answer_read(ReadState(index, int.from_bytes(context, "big")))
            else:
                node.send(
                    Message(
                        MessageType.READ_INDEX_RESPONSE,
                        asker,
                        node.id,
                        term=node.term,
                        index=index,
                        entries=(bare_entry(context),),
                    )
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
            self._owes_appends = True

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
        """Track who takes part now; fewer voters may mean that more is committed."""
        node = self.node
        # A new member counts as heard from, or the next quorum check would come before it could speak.
        self.progress = {
            member: self.progress.get(member) or Progress(max(node.log.last, 1), active=True)
            for member in confchange.members(node.conf_state)
        }
        self._owes_appends = True
        self._commit_by_counting()
        self._answer_confirmed_reads()
        if not confchange.votes(node.conf_state, self._transferee):
            self._abort_transfer()

    def applied_moved(self) -> None:
        """Leave a joint configuration that was entered on the way to another one."""
        self._leave_joint_if_due()

    def _leave_joint_if_due(self) -> None:
        node = self.node
        if node.conf_state.auto_leave and node.applied >= self._pending_conf_index and self._transferee == NOBODY:
            self._append(EntryType.CONF_CHANGE_V2, b"")
            self._pending_conf_index = node.log.last
