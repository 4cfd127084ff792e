"""How a leader brings every other log in line with its own: what it sends to whom, and what their answers say.

Raft paper 5.3 (AppendEntries) and 7 (InstallSnapshot); raft thesis 10.2.1 (pipelining).  Appends and heartbeats are
owed until *flush*, so that all that came in since the last Ready leaves in one message.  It knows nothing of proposals,
reads or elections.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from core.raft import confchange, events, quorum
from core.raft.messages import Entry, Message, MessageType, Snapshot
from core.raft.tracker import Progress, ProgressState
from core.types import Index, MemberId

if TYPE_CHECKING:
    from core.raft.node import RaftNode


class Replication:
    """The progress of every member, by ascending id, and the messages that further it."""

    def __init__(self, node: RaftNode) -> None:
        self._node = node
        self.progress: dict[MemberId, Progress] = {
            member: Progress(node.log.last + 1) for member in confchange.members(node.conf_state)
        }
        own = self.progress[node.id]
        own.replicate()
        own.acknowledged(node.writes.stable)
        self.owes_appends = self.owes_heartbeats = False

    def follow_configuration(self) -> None:
        """Track who takes part now, and send to whoever is new."""
        # A new member counts as heard from, or the next quorum check would come before it could speak.
        self.progress = {
            member: self.progress.get(member) or Progress(max(self._node.log.last, 1), active=True)
            for member in confchange.members(self._node.conf_state)
        }
        self.owes_appends = True

    def agreed(self) -> Index:
        """Return the highest index that is durable on a quorum."""
        matches = {member: progress.match for member, progress in self.progress.items()}
        return Index(quorum.agreed(self._node.conf_state, matches))

    def take_quorum_active(self) -> bool:
        """Return whether a quorum has been heard from since the last time this was asked."""
        active = {member: progress.active or member == self._node.id for member, progress in self.progress.items()}
        for progress in self.progress.values():
            progress.active = False
        return quorum.vote_result(self._node.conf_state, active) is quorum.VoteResult.WON

    def flush(self, heartbeat_context: bytes) -> None:
        """Send the heartbeats and appends that are owed."""
        if self.owes_heartbeats:
            self.owes_heartbeats = False
            self._send_heartbeats(heartbeat_context)
        if self.owes_appends:
            self.owes_appends = False
            for peer, progress in self.progress.items():
                if peer != self._node.id:
                    while self._send_append(peer, progress):
                        pass
                    if not progress.blocked and progress.wants_commit(self._node.commit):
                        self._send_append(peer, progress, even_if_empty=True)

    def refused(self, message: Message, progress: Progress) -> None:
        """Step back to where the logs may agree, and try there."""
        hint = message.reject_hint
        if message.log_term:
            # Where this log's terms are above the member's term at the hint, it cannot have the same entries.
            hint, _ = self._node.log.conflict_hint(hint, message.log_term)
        if progress.rejected(message.index, hint):
            self._send_append(message.sender, progress, even_if_empty=True)

    def acknowledged(self, progress: Progress, index: Index) -> bool:
        """Take over that a member holds everything up to *index*; False if that says nothing new."""
        news = progress.acknowledged(index)
        if not news and not (index == progress.match and progress.state is ProgressState.PROBE):
            return False
        if progress.state is ProgressState.PROBE:
            progress.replicate()
        elif progress.state is ProgressState.REPLICATE:
            progress.release(index)
        elif progress.match >= self._node.log.first - 1:
            # However it got there, by this snapshot or another way: the log can take it from here.
            progress.replicate()
        self.owes_appends = True
        return True

    def answered_heartbeat(self, peer: MemberId, progress: Progress) -> None:
        """Try again with a member that was waited for."""
        progress.paused = False
        # To one whose window is full, or who is probed, even an empty append is due: its answer gets things going.
        if progress.match < self._node.log.last or progress.state is ProgressState.PROBE:
            self._send_append(peer, progress, even_if_empty=True)

    def _send_heartbeats(self, context: bytes) -> None:
        node = self._node
        for peer, progress in self.progress.items():
            if peer != node.id:
                # Beyond its match the member's log may differ from this one: nothing there is committed for it.
                commit = min(progress.match, node.commit)
                progress.commit_sent = commit
                node.send(Message(MessageType.HEARTBEAT, peer, node.id, term=node.term, commit=commit, context=context))

    def _send_append(self, peer: MemberId, progress: Progress, *, even_if_empty: bool = False) -> bool:
        """Send one append message if there is reason to and room for it; True if another may follow at once."""
        node, log, config = self._node, self._node.log, self._node.config
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
        node, metadata = self._node, self._node.snapshot_metadata()
        progress.await_snapshot(metadata.index)
        node.emit(events.SnapshotSent(peer, metadata.index))
        node.send(Message(MessageType.SNAPSHOT, peer, node.id, term=node.term, snapshot=Snapshot(metadata)))
