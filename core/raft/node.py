"""The raft algorithm of one member, as a plain object: messages and ticks in, Ready out.

RaftNode owns what outlives a role: log, term, vote, commit and configuration, the rules about terms that hold in every
role (raft paper 5.1), and what goes into a Ready.  What a member does in a role is in follower.py, candidate.py and
leader.py.  It knows no disk, clock or socket; chance comes from the Random handed in.

Writes are always asynchronous: take_ready may be called again before earlier entries are durable, and what depends on
them waits (Ready.after_sync, RaftNode.stable).  Committed entries are handed out once they are durable here as well:
a slow disk then delays only its own member, and a restart never finds entries applied that its log does not have.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from core.raft import confchange, events
from core.raft.candidate import Candidate, PreCandidate
from core.raft.election import answer_vote, ignores_vote
from core.raft.follower import Follower
from core.raft.leader import Leader
from core.raft.messages import NOBODY, ConfState, EntryType, HardState, Message, MessageType, SnapshotMetadata
from core.raft.ready import ReadState, Ready, StablePoint, Writes
from core.raft.role import ProposeResult, Role, RoleBehaviour
from core.tuples import make_tuple
from core.types import Index, MemberId, Term

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from random import Random

    from core.raft.log import RaftLog
    from core.raft.messages import ConfChange, ConfChangeV2, Entry, Snapshot
    from core.raft.tracker import Progress

_WITHOUT_TERM: Final = frozenset({MessageType.PROPOSE, MessageType.READ_INDEX})
_MAY_COME_BACK: Final = _WITHOUT_TERM | {MessageType.TRANSFER_LEADER}  # passed on by others with their sender unchanged
_FROM_LEADER: Final = frozenset({MessageType.APPEND, MessageType.HEARTBEAT, MessageType.SNAPSHOT})
_VOTES: Final = frozenset({MessageType.VOTE, MessageType.PRE_VOTE})


@dataclass(frozen=True, slots=True)
class RaftConfig:
    """How one member behaves.  Ticks are the caller's; a limit of 0 bytes is none (for uncommitted bytes only)."""

    member_id: MemberId
    election_ticks: int = 10
    heartbeat_ticks: int = 1
    pre_vote: bool = True
    check_quorum: bool = True
    message_bytes_max: int = 1 << 20
    inflight_messages_max: int = 512
    uncommitted_bytes_max: int = 0
    committed_bytes_per_ready_max: int = 1 << 20

    def __post_init__(self) -> None:
        if self.member_id == NOBODY:
            raise ValueError("raft: member id 0 is nobody's")
        if not 0 < self.heartbeat_ticks < self.election_ticks:
            raise ValueError(f"raft: {self.heartbeat_ticks=} must lie between 0 and {self.election_ticks=}")
        if self.inflight_messages_max < 1:
            raise ValueError("raft: at least one message must be allowed in flight")


class RaftNode:
    """One member.  Nothing in here is safe to use from two threads.

    *log*, *hard_state* and *conf_state* are what is on disk, *conf_state* as of *applied*.  Raises ValueError if they
    contradict each other, since then a part of them was lost.
    """

    def __init__(
        self,
        config: RaftConfig,
        log: RaftLog,
        hard_state: HardState,
        conf_state: ConfState,
        applied: Index,
        random: Random,
    ) -> None:
        if not log.first - 1 <= applied <= log.last:
            raise ValueError(f"raft: applied up to {applied}, but the log holds {log.first} to {log.last}")
        if hard_state.commit > log.last:
            raise ValueError(f"raft: committed up to {hard_state.commit}, but the log ends at {log.last}")
        self.config = config
        self.id = config.member_id
        self.log = log
        self.term, self.vote = hard_state.term, hard_state.vote
        # A commit index that was written without a sync may have been lost; what is applied was committed.
        self.commit = max(hard_state.commit, applied)
        self.applied = applied
        self.conf_state = confchange.checked(conf_state)
        self.leader_id = NOBODY
        self.election_elapsed = 0
        self.election_timeout = 0
        self.disk_stalled = False
        """See note_disk."""
        self.writes = Writes(log.last)
        self._random = random
        self._applied_conf_state = self.conf_state
        self._handed = log.last
        self._handed_state = hard_state
        self._delivered = applied
        self._snapshot: Snapshot | None = None
        self._restoring = Index(0)
        self._messages: list[Message] = []
        self._after_sync: list[Message] = []
        self._reads: list[ReadState] = []
        self._events: list[events.RaftEvent] = []
        self._restart_election_timer()
        self._behaviour: RoleBehaviour = Follower(self)

    # What the driver reads.

    @property
    def role(self) -> Role:
        """What this member is now."""
        return self._behaviour.role

    @property
    def progress(self) -> Mapping[MemberId, Progress]:
        """What this member knows of each member's log if it leads, by ascending id; else empty.  For reading only."""
        return self._behaviour.progress

    @property
    def promotable(self) -> bool:
        """Whether this member may stand for election: it votes, and no snapshot is on its way into the store."""
        return not self._restoring and confchange.votes(self.conf_state, self.id)

    # What comes in.

    def step(self, message: Message) -> None:
        """Take what a member sent.  Whatever it says, nothing is raised: nonsense is dropped, with an event."""
        foreign = message.sender != self.id or message.type in _MAY_COME_BACK
        if message.to != self.id or message.sender == NOBODY or not foreign:
            self.refuse(message, "not from another member to this one")
            return
        if message.term == 0:
            if message.type not in _WITHOUT_TERM:
                self.refuse(message, "no term")
                return
        elif message.term < self.term:
            self._answer_lower_term(message)
            return
        elif message.term > self.term and not self._follow_higher_term(message):
            return
        if message.type in _VOTES:
            answer_vote(self, message)
        else:
            self._behaviour.step(message)

    def tick(self) -> None:
        """Let one tick pass: it may start an election or send heartbeats."""
        if self.disk_stalled and self.role is not Role.LEADER:
            return  # its own vote would not become durable
        self._behaviour.tick()

    def note_disk(self, *, stalled: bool) -> None:
        """Take note that what was handed out to be written has not become durable for long, or that it has by now."""
        if stalled and not self.disk_stalled:
            self.disk_stalled = True
            self._behaviour.disk_stalled()
        elif not stalled and self.disk_stalled:
            self.disk_stalled = False
            if self.role is not Role.LEADER:
                self._restart_election_timer()  # nothing was heard in that time that it could have answered

    def propose(self, datas: Sequence[bytes]) -> ProposeResult:
        """Put a normal entry for each of *datas* into the leader's log, all in one go or none."""
        return self._behaviour.propose(EntryType.NORMAL, datas)

    def propose_conf_change(self, data: bytes, entry_type: EntryType = EntryType.CONF_CHANGE) -> ProposeResult:
        """Put a configuration change into the leader's log, in its encoded form.  Only one may be under way."""
        return self._behaviour.propose(entry_type, (data,))

    def read_index(self, context: int) -> bool:
        """Ask for the index a linearizable read must wait for; a ReadState with *context* answers, if all goes well.

        False if nobody can be asked now.  The answer may get lost with a message or a leader: ask again after a while.
        *context* is an unsigned 64-bit number.
        """
        return self._behaviour.read_index(self.id, context.to_bytes(8, "big"))

    def transfer_leader(self, to: MemberId) -> None:
        """Ask the leader to let *to* lead; nothing happens if *to* does not vote, or nobody leads."""
        self._behaviour.transfer_leader(to)

    def report_unreachable(self, peer: MemberId) -> None:
        """Take note that a message to *peer* was probably lost."""
        self._behaviour.report_unreachable(peer)

    def report_snapshot(self, peer: MemberId, ok: bool) -> None:
        """Take note of how the sending of a snapshot to *peer* ended."""
        self._behaviour.report_snapshot(peer, ok=ok)

    def stable(self, term: Term, index: Index) -> None:
        """Take note that a Ready is durable; *term* and *index* are its *stable*.  One call each, in their order."""
        if self.writes.finish((term, index)):
            self._behaviour.made_durable(term)

    def stable_snapshot(self, index: Index) -> None:
        """Take note that the store has been replaced by the snapshot at *index*, which was in a Ready."""
        if index >= self._restoring:
            self._restoring = Index(0)
        self.applied = max(self.applied, index)
        self._applied_conf_state = self.conf_state

    def applied_to(self, index: Index) -> None:
        """Take note that the store holds everything up to *index*; changes among it have been in apply_conf_change."""
        assert index <= self._delivered, (index, self._delivered)
        if index > self.applied:
            self.applied = index
            self._applied_conf_state = self.conf_state
            self._behaviour.applied_moved()

    def apply_conf_change(self, change: ConfChange | ConfChangeV2) -> ConfState:
        """Let a committed change take effect, before applied_to passes it; return the configuration there is now.

        A change that does not fit is left without effect, with an event: it is so on every member alike.
        """
        try:
            conf_state = confchange.changed(self.conf_state, change)
        except confchange.InvalidConfChangeError as error:
            self.emit(events.ConfChangeRefused(str(error)))
        else:
            self._switch(conf_state)
        return self.conf_state

    def compact(self, index: Index) -> None:
        """Forget log entries up to *index*, which a snapshot of the store can stand in for from now on."""
        assert index <= self.applied, (index, self.applied)
        self.log.compact(index)

    def campaign(self, *, transferred: bool = False) -> None:
        """Stand for election now; *transferred* when the leader asked for it, which spares the pre-vote."""
        if self.role is Role.LEADER:
            return
        if not self.promotable:
            self.emit(events.CampaignRefused(self.term, "not a voter, or restoring a snapshot"))
            return
        unapplied = self.log.entries(self.applied + 1, self.commit + 1)
        if any(entry.type is not EntryType.NORMAL for entry in unapplied):
            # Its own vote counts in a configuration that is about to change (raft thesis 4.1).
            self.emit(events.CampaignRefused(self.term, "a configuration change is not applied yet"))
        elif self.config.pre_vote and not transferred:
            self._restart_election_timer()
            self._take_on(PreCandidate(self), NOBODY)
        else:
            self.become_candidate(transferred=transferred)

    # What goes out.

    def has_ready(self) -> bool:
        """Whether take_ready has anything to hand out."""
        term, vote, commit = self._handed_state
        return bool(
            self.log.last > self._handed
            or self.commit != commit
            or self._deliverable() > self._delivered
            or self._messages
            or self._after_sync
            or self._behaviour.has_unsent
            or self._reads
            or self._events
            or self._snapshot
            or self.term != term
            or self.vote != vote
        )

    def take_ready(self) -> Ready:
        """Hand out all that is to be done, once; an empty Ready if there is nothing."""
        self._behaviour.flush()
        log, snapshot = self.log, self._snapshot
        entries = log.entries(self._handed + 1, log.last + 1) if log.last > self._handed else ()
        before = self._handed_state
        term_moved = self.term != before.term or self.vote != before.vote
        changed = term_moved or self.commit != before.commit
        state = make_tuple(HardState, (self.term, self.vote, self.commit)) if changed else before
        must_sync = bool(entries or snapshot) or term_moved
        stable = make_tuple(StablePoint, (self.term, log.last)) if must_sync else None
        if stable is not None:
            self.writes.begin(stable)
        if not self.writes:
            # Nothing is on its way to the disk, so nothing has to be waited for.
            self._messages += self._after_sync
            self._after_sync = []
        ready = make_tuple(
            Ready,
            (
                entries,
                state if changed else None,
                snapshot,
                tuple(self._messages),
                tuple(self._after_sync),
                self._take_committed(),
                tuple(self._reads),
                tuple(self._events),
                must_sync,
                stable,
            ),
        )
        self._handed, self._handed_state, self._snapshot = log.last, state, None
        self._messages.clear()
        self._after_sync.clear()
        self._reads.clear()
        self._events.clear()
        return ready

    # What the roles use.

    def send(self, message: Message) -> None:
        """Let *message* leave at once."""
        self._messages.append(message)

    def send_after_sync(self, message: Message) -> None:
        """Let *message* leave when all that is known here so far is durable.

        Acknowledgements of entries, votes, and requests for votes: a candidate that restarts without its latest entries
        must not meet votes it was given for them (raft thesis 3.8).
        """
        waiting = self._after_sync
        if waiting and _supersedes(message, waiting[-1]):
            waiting.pop()
        waiting.append(message)

    def answer_read(self, state: ReadState) -> None:
        """Hand out a read that may be served."""
        self._reads.append(state)

    def emit(self, event: events.RaftEvent) -> None:
        """Hand out what has happened."""
        self._events.append(event)

    def refuse(self, message: Message, reason: str) -> None:
        """Drop *message* and say why."""
        self.emit(events.MessageRefused(message.sender, message.type, reason))

    def become_follower(self, term: Term, leader_id: MemberId) -> None:
        """Follow *leader_id* (or nobody yet) in *term*."""
        self._enter_term(term)
        self.emit(events.BecameFollower(term))
        self._take_on(Follower(self), leader_id)

    def become_candidate(self, *, transferred: bool) -> None:
        """Stand for election in the next term, with this member's own vote."""
        self._enter_term(Term(self.term + 1))
        self.vote = self.id
        self._take_on(Candidate(self, transferred=transferred), NOBODY)

    def become_leader(self) -> None:
        """Lead the term whose election was won."""
        self._enter_term(self.term)
        self.emit(events.BecameLeader(self.term))
        self._take_on(Leader(self), self.id)

    def hear_from(self, leader_id: MemberId) -> None:
        """Take note that the leader of this term has just spoken."""
        self.election_elapsed = 0
        self._set_leader(leader_id)

    def commit_to(self, index: Index) -> None:
        """Move the commit index, never back."""
        assert index <= self.log.last, (index, self.log.last)
        self.commit = max(self.commit, index)

    def replace_from(self, index: Index) -> None:
        """Drop the log's entries from *index* on, for those of another leader."""
        assert index > self.commit, (index, self.commit)
        self.log.truncate(index)
        self.writes.cut(self.log.last)
        self._handed = min(self._handed, self.log.last)
        self.emit(events.TruncatedLog(index, self.term))

    def restore(self, snapshot: Snapshot, conf_state: ConfState) -> None:
        """Start the log anew after *snapshot*; *conf_state* is its configuration, checked."""
        index, term = snapshot.metadata.index, snapshot.metadata.term
        self.writes.cut(self.commit)
        self.log.restart(index, term)
        self.commit = self._handed = self._delivered = self._restoring = index
        self._snapshot = snapshot
        self.emit(events.SnapshotRestored(index, term))
        self._switch(conf_state)

    def snapshot_metadata(self) -> SnapshotMetadata:
        """Return where a snapshot taken now must stand at least; the driver ships one that stands there or later."""
        term = self.log.term(self.applied)
        assert term is not None, (self.applied, self.log.first)
        return SnapshotMetadata(self._applied_conf_state, self.applied, term)

    def _follow_higher_term(self, message: Message) -> bool:
        """Enter the term of *message* if it must be entered; False if the message is to be ignored."""
        if message.type in _VOTES and ignores_vote(self, message):
            self.emit(events.VoteIgnored(message.term, message.sender))
            return False
        if message.type is MessageType.PRE_VOTE:
            return True
        if message.type is MessageType.PRE_VOTE_RESPONSE and not message.reject:
            return True  # it bears the term that was asked about, which nobody is in yet
        self.become_follower(message.term, message.sender if message.type in _FROM_LEADER else NOBODY)
        return True

    def _answer_lower_term(self, message: Message) -> None:
        """Tell a stale leader or pre-candidate this term; drop everything else from the past.

        A member that moved to a higher term while it was cut off hears only from a leader whose term it must ignore,
        and its votes are ignored in turn: this answer makes that leader step down and ends the deadlock.
        """
        if message.type is MessageType.PRE_VOTE:
            self.send(Message(MessageType.PRE_VOTE_RESPONSE, message.sender, self.id, term=self.term, reject=True))
        elif message.type in {MessageType.APPEND, MessageType.HEARTBEAT} and (
            self.config.check_quorum or self.config.pre_vote
        ):
            self.send_after_sync(Message(MessageType.APPEND_RESPONSE, message.sender, self.id, term=self.term))

    def _enter_term(self, term: Term) -> None:
        if term != self.term:
            assert term > self.term, (term, self.term)
            self.term, self.vote = term, NOBODY
        self._restart_election_timer()

    def _restart_election_timer(self) -> None:
        self.election_elapsed = 0
        self.election_timeout = self.config.election_ticks + self._random.randrange(self.config.election_ticks)

    def _take_on(self, behaviour: RoleBehaviour, leader_id: MemberId) -> None:
        self._behaviour = behaviour
        self._set_leader(leader_id)
        behaviour.begin()

    def _set_leader(self, leader_id: MemberId) -> None:
        if leader_id != self.leader_id:
            self.emit(events.LeaderChanged(self.term, leader_id, self.leader_id))
            self.leader_id = leader_id

    def _switch(self, conf_state: ConfState) -> None:
        if conf_state != self.conf_state:
            self.conf_state = conf_state
            self.emit(events.ConfChanged(conf_state))
            self._behaviour.conf_changed()

    def _deliverable(self) -> Index:
        return self._delivered if self._restoring else min(self.commit, self.writes.stable)

    def _take_committed(self) -> tuple[Entry, ...]:
        last = self._deliverable()
        if last <= self._delivered:
            return ()
        committed = self.log.entries_within(self._delivered + 1, last + 1, self.config.committed_bytes_per_ready_max)
        self._delivered = committed[-1].index
        return committed


def _supersedes(message: Message, earlier: Message) -> bool:
    """Whether *message* says all that *earlier* does: two acknowledgements in a row cost the leader one message."""
    return (
        message.type is MessageType.APPEND_RESPONSE
        and message[:4] == earlier[:4]  # type, to, sender, term
        and not (message.reject or earlier.reject)
        and message.index >= earlier.index
    )
