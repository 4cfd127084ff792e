"""RaftActor: the consensus core and its ways to the world.

The whole loop is: step everything that queued up, then take one Ready and send each part where it belongs.  Log
entries go to WalActor together with what may leave only after their sync; committed entries go to ApplyActor.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, final

from actors.address import Delivery
from actors.base import Home, NodeActor
from actors.messages.apply import ApplyEntries, InstallSnapshot
from actors.messages.common import Tick
from actors.messages.metrics import Measure, Measured
from actors.messages.peer_transport import Send
from actors.messages.raft import (
    AdvanceElection,
    Applied,
    CarryMessages,
    ConfChangeApplied,
    DiskIs,
    InspectRaft,
    ObserveRole,
    Propose,
    ProposeConfChange,
    RaftMessage,
    ReadIndex,
    RoleIs,
    SnapshotInstalled,
    SnapshotStatus,
    Stable,
    Step,
    TransferLeader,
    Unreachable,
)
from actors.messages.serve import ReadIndexed, Refused
from actors.messages.wal import Append, Attend, SaveSnapshot
from core.errors import ProposalDropped
from core.metrics import Sample
from core.raft.events import ConfChanged
from core.raft.messages import MessageType
from core.raft.role import ProposeResult, Role
from core.raft.tracker import ProgressState
from core.tuples import make_tuple
from core.types import Index, MemberId

if TYPE_CHECKING:
    from collections.abc import Sequence

    import structlog

    from actors.address import Address, AnyDelivery
    from actors.messages.wal import WalMessage
    from core.raft.events import RaftEvent
    from core.raft.messages import Message
    from core.raft.node import RaftNode
    from core.raft.ready import Ready
    from core.types import RequestId

LOG_BYTES_MAX = 128 << 20
"""Of the log in memory; beyond it, applied entries are dropped however new they are."""

LOG_BYTES_ALONE_MAX = 8 << 20
"""The same while there is nobody who could need them."""

COMPACT_EVERY_ENTRIES = 1000
"""Entries dropped from memory at a time."""

HELD_PROPOSALS_MAX = 10_000
"""Proposals kept while nobody leads; further ones are refused."""

HELD_BYTES_MAX = 64 << 20
"""Of those proposals together: each may be as large as the largest request."""


class _Drain:
    """A note to self: everything before me has been stepped."""


TICK_S = 0.1
"""How often a tick comes by default."""


@final
class RaftActor(NodeActor[RaftMessage | _Drain]):
    """Drives the raft core.

    Owns: the core with the log in memory; proposals held while nobody leads; read-index rounds under way; who wants
    to know of leadership.  Tells: WalActor, ApplyActor, whoever asked.  Fails when: the core finds itself broken.
    """

    def __init__(
        self,
        home: Home,
        node: RaftNode,
        wal: Address[WalMessage],
        apply: Address[ApplyEntries | InstallSnapshot],
        catch_up_entries: int,
        first_read_context: int,
        logger: structlog.stdlib.BoundLogger,
        tick_s: float = TICK_S,
    ) -> None:
        """*first_read_context* must lie beyond all that this member has used: an old answer must name no new read.

        *tick_s* is how often a tick should come.
        """
        super().__init__(home)
        self._node = node
        self._wal = wal
        self._apply = apply
        self._catch_up_entries = catch_up_entries
        self._logger = logger
        self._marked = False
        self._held: list[Propose] = []
        self._held_count = self._held_bytes = 0
        self._gathered: list[Propose] = []
        self._gathered_bytes = 0
        self._reads: dict[int, ReadIndex] = {}
        self._read_context = first_read_context
        self._carrier: Address[Send] | None = None
        self._taken: list[AnyDelivery] = []
        self._observers: list[Address[RoleIs]] = []
        self._last_leader = MemberId(0)
        self._leader_changes = 0
        self._tick_s = tick_s
        self._ticked_s = 0.0
        self._late_count = 0
        self._role = RoleIs(node.term, MemberId(0), is_leader=False)

    def setup(self) -> None:
        """Hand out what was committed before the start."""
        self._tell_wal()
        self._hasten_election()
        self._mark()

    def handle(self, message: RaftMessage | _Drain) -> None:
        """Take one message."""
        match message:
            case Propose():
                if not self._gather(message):
                    self._propose(message)
            case _Drain():
                self._marked = False
                self._drain()
                return
            case Step():
                step = self._node.step
                for stepped in message.messages:
                    step(stepped)
                if message.after is not None:
                    self._taken.append(message.after)
            case Stable():
                self._node.stable(message.term, message.index)
            case DiskIs():
                self._node.note_disk(stalled=message.stalled)
            case ReadIndex():
                self._read_index(message)
            case Applied():
                self._applied(message.index)
            case Tick():
                self._count_late(message.now_s)
                self._node.tick()
            case ProposeConfChange():
                if not self._node.propose_conf_change(message.data).accepted:
                    message.refuse_to.tell(Refused((message.request_id,), ProposalDropped()))
            case ConfChangeApplied():
                if message.change is not None:
                    self._node.apply_conf_change(message.change)
            case TransferLeader():
                self._node.transfer_leader(message.to)
            case Unreachable():
                self._node.report_unreachable(message.member)
            case SnapshotStatus():
                self._node.report_snapshot(message.member, ok=message.ok)
            case SnapshotInstalled():
                self._node.stable_snapshot(message.index)
            case AdvanceElection():
                if not self._node.leader_id:
                    for _ in range(message.ticks):
                        self._node.tick()
            case CarryMessages():
                self._carrier = message.carrier
                return
            case Measure():
                message.answer_to.tell(Measured(message.round, self._samples()))
                return
            case InspectRaft():
                message.question(self._node)
                return
            case ObserveRole():
                self._observers.append(message.observer)
                message.observer.tell(self._role)
                return
        self._mark()

    def _count_late(self, now_s: float) -> None:
        # A leader beats with its ticks: one that comes late makes followers doubt it.
        if self._node.role is Role.LEADER and self._ticked_s and now_s - self._ticked_s > 2 * self._tick_s:
            self._late_count += 1
        self._ticked_s = now_s

    def _mark(self) -> None:
        if self._marked:
            return
        if self.actor_inbox.empty():
            self._drain()  # nothing waits that the note would gather
        else:
            self._marked = True
            self.actor_ref.tell(_Drain())

    def _gather(self, message: Propose) -> bool:
        """Keep what is proposed while a write is under way, whose end the next one must wait for in any case.

        It then leaves as one write here and one message to each other member, instead of many small ones.
        """
        if not self._may_gather():
            return False
        self._gathered.append(message)
        self._gathered_bytes += sum([len(data) for _, data in message.proposals])
        return True

    def _may_gather(self) -> bool:
        node = self._node
        bytes_max = node.config.message_bytes_max
        # Who is alone sends nothing, and WalActor gathers by itself.
        return bool(node.writes) and len(node.progress) > 1 and self._gathered_bytes < bytes_max

    def _release_gathered(self) -> None:
        gathered, self._gathered = self._gathered, []
        self._gathered_bytes = 0
        for message in gathered:
            self._propose(message)

    def _propose(self, message: Propose) -> None:
        led_term = message.led_term
        if led_term is not None and (self._node.role is not Role.LEADER or self._node.term != led_term):
            refuse(message)
            return
        result = self._node.propose([data for _, data in message.proposals])
        if result.accepted:
            return
        count = self._held_count + len(message.proposals)
        size_bytes = self._held_bytes + sum([len(data) for _, data in message.proposals])
        too_much = count > HELD_PROPOSALS_MAX or size_bytes > HELD_BYTES_MAX
        if result is not ProposeResult.NO_LEADER or too_much:
            refuse(message)
        else:
            # A proposal waits for a leader; its asker gives up when its own time is over.
            self._held.append(message)
            self._held_count, self._held_bytes = count, size_bytes

    def _read_index(self, message: ReadIndex) -> None:
        self._read_context += 1
        if self._node.read_index(self._read_context):
            self._reads[self._read_context] = message

    def _applied(self, index: Index) -> None:
        node = self._node
        node.applied_to(index)
        if not node.leader_id:
            self._hasten_election()
        # What a follower may still need stays in memory, as far as it is no burden; beyond that it gets a snapshot.
        log, keep_from = node.log, index - self._catch_up_entries
        if keep_from - log.first < COMPACT_EVERY_ENTRIES and log.bytes_after(log.first) <= LOG_BYTES_ALONE_MAX:
            return
        alone = node.conf_state.voters == (node.id,) and not node.conf_state.learners
        awaiting = [each for each in node.progress.values() if each.state is ProgressState.SNAPSHOT]
        if awaiting:  # who gets a snapshot will need what follows it
            keep_from = min(keep_from, *(progress.snapshot_index for progress in awaiting))
            if keep_from - log.first >= COMPACT_EVERY_ENTRIES:
                node.compact(Index(keep_from))
        elif log.bytes_after(log.first) > (LOG_BYTES_ALONE_MAX if alone else LOG_BYTES_MAX):
            node.compact(index)
        elif keep_from - log.first >= COMPACT_EVERY_ENTRIES:
            node.compact(Index(keep_from))

    def _hasten_election(self) -> None:
        # Who is alone disturbs nobody by standing at once, as soon as its own membership is applied.
        node = self._node
        if node.role is Role.FOLLOWER and node.conf_state.voters == (node.id,) and node.applied == node.commit:
            node.campaign()

    def _drain(self) -> None:
        node = self._node
        if self._gathered and not self._may_gather():
            self._release_gathered()
        while node.has_ready():
            self._carry_out(node.take_ready())
        if self._taken:
            taken, self._taken = self._taken, []
            for delivery in taken:
                delivery.send()

    def _carry_out(self, ready: Ready) -> None:
        node = self._node
        if ready.events:
            for event in ready.events:
                self._log_event(event)
            if any(isinstance(event, ConfChanged) for event in ready.events):
                self._tell_wal()
        self._notice_role()
        if ready.messages:
            self._send(ready.messages)
        if ready.must_sync:  # the disk works, and other members do, while entries are applied
            self._write(ready)
        if ready.committed:
            self._apply.tell(make_tuple(ApplyEntries, (ready.committed, node.term, node.commit, self.actor_ref)))
        if not ready.must_sync:  # a commit index that has moved: somebody waits for what was committed, nobody for this
            self._write(ready)
        for read in ready.reads:
            asked = self._reads.pop(read.context, None)
            if asked is not None:  # None: forgotten with the leader that it was asked of
                asked.answer_to.tell(ReadIndexed(asked.context, read.index))

    def _send(self, messages: Sequence[Message]) -> None:
        if self._carrier is not None:
            self._carrier.tell(Send(only_last_acknowledgement(messages)))

    def _tell_wal(self) -> None:
        self._wal.tell(Attend(self.actor_ref, alone=self._node.conf_state.voters == (self._node.id,)))

    def _write(self, ready: Ready) -> None:
        after: list[AnyDelivery] = []
        if ready.snapshot is not None:
            self._wal.tell(SaveSnapshot(ready.snapshot, installs=True))
            after.append(Delivery(self._apply, InstallSnapshot(ready.snapshot, self.actor_ref)))
        if ready.stable is not None:
            after.append(make_tuple(Delivery, (self.actor_ref, make_tuple(Stable, ready.stable))))
        if ready.after_sync and self._carrier is not None:
            after.append(Delivery(self._carrier, Send(only_last_acknowledgement(ready.after_sync))))
        if after or ready.hard_state is not None:
            self._wal.tell(make_tuple(Append, (ready.entries, ready.hard_state, tuple(after), ready.must_sync)))

    def _samples(self) -> list[Sample]:
        node = self._node
        return [
            Sample("etcd_server_has_leader", int(node.leader_id != 0)),
            Sample("etcd_server_is_leader", int(node.role is Role.LEADER)),
            Sample("etcd_server_is_learner", int(node.id in node.conf_state.learners)),
            Sample("etcd_server_leader_changes_seen_total", self._leader_changes),
            Sample("etcd_server_proposals_committed_total", node.commit),
            Sample("etcd_server_heartbeat_send_failures_total", self._late_count),
        ]

    def _log_event(self, event: RaftEvent) -> None:
        fields = {name: getattr(event, name) for name in event.__slots__}
        text = "".join(f" {letter.lower()}" if letter.isupper() else letter for letter in type(event).__name__)
        self._logger.info(
            "raft event", event_kind=text.strip(), **{name: shown(name, value) for name, value in fields.items()}
        )

    def _notice_role(self) -> None:
        node = self._node
        term, leader, led = self._role
        leads = node.role is Role.LEADER
        if leader == node.leader_id and term == node.term and led is leads:
            return
        role = RoleIs(node.term, node.leader_id, leads)
        if role.leader and role.leader != self._last_leader:
            self._last_leader = role.leader
            self._leader_changes += 1
        self._role = role
        self._reads.clear()  # whoever asked asks again
        for observer in self._observers:
            observer.tell(role)
        if role.leader and self._held:
            held, self._held = self._held, []
            self._held_count = self._held_bytes = 0
            for message in held:
                self._propose(message)


def only_last_acknowledgement(messages: Sequence[Message]) -> Sequence[Message]:
    """Return *messages* without the acknowledgements of appends that a later one says as well."""
    response = MessageType.APPEND_RESPONSE
    if len(messages) < 2 or sum(message.type is response for message in messages) < 2:
        return messages
    kept: list[Message] = []
    covered: set[tuple[int, int]] = set()
    for message in reversed(messages):
        if message.type is response and not message.reject:
            if (message.to, message.term) in covered:
                continue
            covered.add((message.to, message.term))
        kept.append(message)
    kept.reverse()
    return kept


def shown(name: str, value: object) -> object:
    """Return *value* as logs show it: ids in hexadecimal."""
    return f"{value:x}" if name.endswith("_id") and isinstance(value, int) else str(value)


def refuse(message: Propose) -> None:
    """Tell the asker that none of these was proposed."""
    ids: Sequence[RequestId] = [request_id for request_id, _ in message.proposals]
    message.refuse_to.tell(Refused(ids, ProposalDropped()))
