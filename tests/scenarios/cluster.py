"""A cluster of raft cores in one thread, with disks and a network that fail on request.

It does what an actor shell would do with each Ready, one step at a time, and tells a *listener* what happened; the
scenarios print that, the properties check it.  Nothing here sleeps or draws lots: whoever drives it decides.
"""

from __future__ import annotations

import json
from collections import deque
from dataclasses import dataclass, field, replace
from random import Random
from typing import TYPE_CHECKING, Protocol

from core.raft.bootstrap import bootstrap
from core.raft.confchange import InvalidConfChangeError, changed
from core.raft.log import RaftLog
from core.raft.messages import (
    NOBODY,
    ConfChange,
    ConfChangeSingle,
    ConfChangeTransition,
    ConfChangeType,
    ConfChangeV2,
    ConfState,
    Entry,
    EntryType,
    HardState,
    Message,
    MessageType,
    Snapshot,
    SnapshotMetadata,
)
from core.raft.node import RaftConfig, RaftNode
from core.types import Index, MemberId, Term
from proto import raft_pb2

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from core.raft.events import RaftEvent
    from core.raft.ready import ReadState, Ready


def encode_change(change: ConfChange | ConfChangeV2) -> bytes:
    """Return *change* as an entry carries it: the core sees only these bytes until the entry is applied."""
    kinds, transitions = raft_pb2.ConfChangeType.keys(), raft_pb2.ConfChangeTransition.keys()
    if isinstance(change, ConfChange):
        return raft_pb2.ConfChange(type=kinds[change.type], node_id=change.node_id).SerializeToString()
    singles = [raft_pb2.ConfChangeSingle(type=kinds[single.type], node_id=single.node_id) for single in change.changes]
    return raft_pb2.ConfChangeV2(
        transition=transitions[change.transition], changes=singles, context=change.context
    ).SerializeToString()


def decode_change(entry: Entry) -> ConfChange | ConfChangeV2:
    """Return the change that *entry* carries."""
    if entry.type is EntryType.CONF_CHANGE:
        wire = raft_pb2.ConfChange.FromString(entry.data)
        return ConfChange(ConfChangeType(wire.type), MemberId(wire.node_id))
    wire_v2 = raft_pb2.ConfChangeV2.FromString(entry.data)
    changes = tuple(ConfChangeSingle(ConfChangeType(one.type), MemberId(one.node_id)) for one in wire_v2.changes)
    return ConfChangeV2(ConfChangeTransition(wire_v2.transition), changes, wire_v2.context)


NOTHING_APPLIED = Index(0)
FRESH = HardState(Term(0), NOBODY, Index(0))


class Listener(Protocol):
    """Who is told what happens in a cluster."""

    def on_event(self, member: Member, event: RaftEvent) -> None:
        """*member* said what happened to it."""

    def on_applied(self, member: Member, entry: Entry) -> None:
        """*member* applied *entry*."""

    def on_restored(self, member: Member, index: Index) -> None:
        """*member* replaced its store by a snapshot at *index*."""

    def on_read(self, member: Member, state: ReadState) -> None:
        """*member* may serve a read."""

    def on_sent(self, message: Message) -> None:
        """*message* left."""


@dataclass(slots=True)
class Store:
    """What a member has applied: the entries in order, and the configuration as of the last one."""

    conf_state: ConfState
    applied: Index = NOTHING_APPLIED
    entries: list[tuple[int, str]] = field(default_factory=list)

    def apply(self, entry: Entry) -> None:
        """Apply one entry, the next one."""
        assert entry.index == self.applied + 1, (entry.index, self.applied)
        self.applied = entry.index
        if entry.type is not EntryType.NORMAL:
            try:
                self.conf_state = changed(self.conf_state, decode_change(entry))
            except InvalidConfChangeError:
                return
        elif entry.data:
            self.entries.append((entry.index, entry.data.decode()))

    def copy(self) -> Store:
        """Return a store of the same content."""
        return Store(self.conf_state, self.applied, list(self.entries))


@dataclass(slots=True)
class Disk:
    """What survives a crash: the log from some index on, the hard state, and the last snapshot of the store."""

    store: Store
    compacted: tuple[Index, Term] = (Index(0), Term(0))
    entries: list[Entry] = field(default_factory=list)
    hard_state: HardState = FRESH

    def write(self, ready: Ready) -> None:
        """Make a Ready durable: snapshot, entries, hard state."""
        if ready.snapshot is not None:
            self.store = decode_store(ready.snapshot)
            self.compacted = (ready.snapshot.metadata.index, ready.snapshot.metadata.term)
            self.entries = []
        if ready.entries:
            del self.entries[ready.entries[0].index - self.compacted[0] - 1 :]
            self.entries += ready.entries
        if ready.hard_state is not None:
            self.hard_state = ready.hard_state

    def compact(self, store: Store, index: Index) -> None:
        """Keep a snapshot of *store* in place of the entries up to *index*."""
        self.store = store.copy()
        dropped = index - self.compacted[0]
        if dropped > 0:
            self.compacted = (index, self.entries[dropped - 1].term)
            del self.entries[:dropped]


def encode_store(store: Store, metadata: SnapshotMetadata) -> Snapshot:
    """Return the snapshot that a member sends when its raft core asks for one at *metadata*."""
    held = [entry for entry in store.entries if entry[0] <= metadata.index]
    return Snapshot(metadata, json.dumps(held).encode())


def decode_store(snapshot: Snapshot) -> Store:
    """Return the store that *snapshot* holds."""
    held = [(int(index), str(data)) for index, data in json.loads(snapshot.data)]
    return Store(snapshot.metadata.conf_state, snapshot.metadata.index, held)


class Member:
    """One core with its disk and store; writes in flight are those that a crash loses."""

    def __init__(self, config: RaftConfig, disk: Disk, seed: int, listener: Listener, network: Network) -> None:
        self.id = config.member_id
        self.config = config
        self.disk = disk
        self.up = True
        self.in_flight: deque[Ready] = deque()
        self._listener = listener
        self._network = network
        self._seed = seed
        self.start()

    def start(self) -> None:
        """Start from what the disk holds."""
        self.in_flight.clear()
        self.store = self.disk.store.copy()
        log = RaftLog(self.disk.entries, self.disk.compacted)
        self.node = RaftNode(
            self.config, log, self.disk.hard_state, self.store.conf_state, self.store.applied, Random(self._seed)
        )
        self.up = True

    def crash(self, *, written: int = 0) -> None:
        """Stop at once; of the writes in flight the first *written* have reached the disk, unnoticed."""
        for _ in range(min(written, len(self.in_flight))):
            self.disk.write(self.in_flight.popleft())
        self.in_flight.clear()
        self.up = False

    def take(self) -> Ready | None:
        """Do with one Ready what may be done before it is durable; None if there was nothing."""
        if not self.node.has_ready():
            return None
        ready = self.node.take_ready()
        for event in ready.events:
            self._listener.on_event(self, event)
        for state in ready.reads:
            self._listener.on_read(self, state)
        if ready.snapshot or ready.entries or ready.hard_state or ready.after_sync:
            self.in_flight.append(ready)
        self._send(ready.messages)
        for entry in ready.committed:
            self.store.apply(entry)
            if entry.type is not EntryType.NORMAL:
                self.node.apply_conf_change(decode_change(entry))
            self._listener.on_applied(self, entry)
        if ready.committed:
            self.node.applied_to(ready.committed[-1].index)
        return ready

    def sync(self) -> bool:
        """Let the oldest write in flight reach the disk; False if there is none."""
        if not self.in_flight:
            return False
        ready = self.in_flight.popleft()
        self.disk.write(ready)
        if ready.stable is not None:
            self.node.stable(*ready.stable)
        if ready.snapshot is not None:
            self.store = decode_store(ready.snapshot)
            self.node.stable_snapshot(self.store.applied)
            self._listener.on_restored(self, self.store.applied)
        self._send(ready.after_sync)
        return True

    def compact(self, index: Index) -> None:
        """Snapshot the store as it stands and drop log entries up to *index*."""
        self.disk.compact(self.store, index)
        self.node.compact(index)

    def _send(self, messages: Iterable[Message]) -> None:
        for message in messages:
            whole = message
            if message.snapshot is not None and message.type is MessageType.SNAPSHOT:
                whole = message._replace(snapshot=encode_store(self.store, message.snapshot.metadata))
            self._listener.on_sent(whole)
            self._network.send(self.id, whole)


class Network:
    """Messages under way, one queue for each direction between two members; what crosses a cut is lost."""

    def __init__(self) -> None:
        self.queues: dict[tuple[MemberId, MemberId], deque[Message]] = {}
        self.cuts: set[frozenset[MemberId]] = set()

    def send(self, source: MemberId, message: Message) -> None:
        """Put *message* on its way.  Its sender field may name another member than *source* (leader transfer)."""
        self.queues.setdefault((source, message.to), deque()).append(message)

    def under_way(self) -> list[tuple[MemberId, MemberId]]:
        """Return the directions in which something is under way, in order."""
        return sorted(link for link, queue in self.queues.items() if queue)


class Cluster:
    """Members, their network, and the steps that may happen next."""

    def __init__(self, listener: Listener) -> None:
        self.members: dict[MemberId, Member] = {}
        self.network = Network()
        self._listener = listener

    def bootstrap(self, configs: Iterable[RaftConfig], learners: Iterable[int] = ()) -> None:
        """Start the first members of a new cluster; *learners* among them only learn."""
        configs = list(configs)
        learning = {MemberId(learner) for learner in learners}
        kinds = {
            config.member_id: ConfChangeType.ADD_LEARNER_NODE
            if config.member_id in learning
            else ConfChangeType.ADD_NODE
            for config in configs
        }
        start = bootstrap({member: encode_change(ConfChange(kind, member)) for member, kind in kinds.items()})
        voters = tuple(member for member in start.conf_state.voters if member not in learning)
        conf_state = replace(start.conf_state, voters=voters, learners=tuple(sorted(learning)))
        for config in configs:
            self.add(config, Disk(Store(conf_state), entries=list(start.entries), hard_state=start.hard_state))

    def add(self, config: RaftConfig, disk: Disk | None = None) -> Member:
        """Start a member, by default with an empty disk."""
        member = Member(config, disk or Disk(Store(ConfState())), 17 * config.member_id, self._listener, self.network)
        self.members[config.member_id] = member
        return member

    def deliver(self, source: MemberId, target: MemberId) -> Message | None:
        """Hand over the oldest message of one direction; None if there is none or it is lost."""
        queue = self.network.queues.get((source, target))
        if not queue:
            return None
        member = self.members.get(target)
        if member is None or not member.up or frozenset({source, target}) in self.network.cuts:
            self.lose(source, target)
            return None
        message = queue.popleft()
        member.node.step(message)
        self._report(source, message, ok=True)
        return message

    def lose(self, source: MemberId, target: MemberId, position: int = 0) -> Message:
        """Drop one message that is under way in this direction."""
        queue = self.network.queues[source, target]
        message = queue[position]
        del queue[position]
        self._report(source, message, ok=False)
        return message

    def _report(self, source: MemberId, message: Message, *, ok: bool) -> None:
        """Tell the sender of a snapshot how that went, as a transport does."""
        if message.type is MessageType.SNAPSHOT and self.members[source].up:
            self.members[source].node.report_snapshot(message.to, ok)

    def settle(self, only: Iterable[MemberId] | None = None) -> None:
        """Take, sync and deliver until nothing is left to do, among all members or *only* some."""
        chosen = [self.members[member] for member in sorted(self.members if only is None else only)]
        ids = {member.id for member in chosen}
        for _ in range(10_000):
            busy = False
            for member in chosen:
                while member.up and (member.take() or member.sync()):
                    busy = True
            for source, target in self.network.under_way():
                if target in ids or target not in self.members:
                    while self.network.queues[source, target]:
                        self.deliver(source, target)
                        busy = True
            if not busy:
                return
        raise AssertionError("the cluster does not come to rest")

    def leaders(self) -> Mapping[MemberId, Term]:
        """Return who believes to lead, and in which term."""
        return {
            member.id: member.node.term
            for member in self.members.values()
            if member.up and member.node.leader_id == member.id
        }
