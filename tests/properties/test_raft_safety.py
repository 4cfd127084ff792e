"""Raft's promises under any schedule of delivery, loss, duplication, partition, slow disks and crashes.

Raft paper figure 3 (election safety, leader append-only, log matching, leader completeness, state machine safety) and
raft thesis 6.4 (linearizable reads).  After the faults the cluster must come together again: safety alone is also kept
by a node that does nothing.
"""

from __future__ import annotations

from dataclasses import replace
from random import Random
from typing import TYPE_CHECKING

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from core.raft.confchange import members
from core.raft.events import BecameLeader, MessageRefused, RaftEvent
from core.raft.log import RaftLog
from core.raft.messages import (
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
from core.raft.role import Role
from core.types import Index, MemberId, Term
from tests.scenarios.cluster import Cluster, Member, encode_change

if TYPE_CHECKING:
    from core.raft.ready import ReadState

WORK = {"deliver": 24, "take": 16, "tick": 2, "propose": 3, "read": 3}
REPAIRS = ["start"] * 2 + ["heal"] * 2
FAULTS = ["duplicate", "lose", "reorder", "cut", "crash", "reboot", "compact", "transfer", "unreachable"]


class Checker:
    """Watches a cluster and fails at once when a promise is broken."""

    def __init__(self) -> None:
        self.leader_of: dict[Term, MemberId] = {}
        self.committed: dict[int, Entry] = {}
        self.reads: dict[int, int] = {}
        self.reads_served = 0
        self._noted: dict[MemberId, Index] = {}

    def note_commits(self, member: Member) -> None:
        """Check that nobody takes another entry for committed than the others, from the moment on that it does."""
        node = member.node
        noted = max(self._noted.get(member.id, 0), node.log.first - 1)
        if node.commit > noted:
            for entry in node.log.entries(noted + 1, node.commit + 1):
                assert self.committed.setdefault(entry.index, entry) == entry, "two members committed different entries"
            self._noted[member.id] = node.commit

    def on_event(self, member: Member, event: RaftEvent) -> None:
        """Check election safety and leader completeness."""
        assert not isinstance(event, MessageRefused), event
        if isinstance(event, BecameLeader):
            assert self.leader_of.setdefault(event.term, member.id) == member.id, "two leaders in one term"
            for index, entry in self.committed.items():
                if index >= member.node.log.first:
                    assert member.node.log.matches(entry.index, entry.term), "a leader lacks a committed entry"

    def on_applied(self, member: Member, entry: Entry) -> None:
        """Check state machine safety."""
        assert self.committed.setdefault(entry.index, entry) == entry, "two members applied different entries"

    def on_restored(self, member: Member, index: Index) -> None:
        """Check that a snapshot holds what the others applied."""
        for held_index, data in member.store.entries:
            assert self.committed[held_index].data.decode() == data
        assert member.store.applied == index

    def on_read(self, member: Member, state: ReadState) -> None:
        """Check that a read sees all that was committed anywhere before it was asked."""
        assert state.index >= self.reads[state.context], "a stale read"
        self.reads_served += 1

    def on_sent(self, message: Message) -> None:
        """Nothing to check: what matters is what messages bring about."""


class Schedule:
    """A cluster under random faults; the same numbers give the same run."""

    def __init__(self, size: int, config: RaftConfig) -> None:
        self.checker = Checker()
        self.cluster = Cluster(self.checker)
        self.config = config
        self.cluster.bootstrap([self._config(member) for member in range(1, size + 1)])
        self.proposed = 0

    def _config(self, member: int) -> RaftConfig:
        return replace(self.config, member_id=MemberId(member))

    def act(self, action: str, a: int, b: int) -> None:
        """Do one thing; *a* and *b* choose to whom."""
        everyone = list(self.cluster.members.values())
        member = everyone[a % len(everyone)]
        if action in {"deliver", "duplicate", "lose", "reorder"}:
            self._network(action, a, b)
        elif action in {"cut", "heal"}:
            self._link(action, member, everyone[b % len(everyone)])
        elif action == "start":
            if not member.up:
                member.start()
        elif member.up:
            self._member(action, member, b)
        for one in everyone:
            self.checker.note_commits(one)

    def _network(self, action: str, a: int, b: int) -> None:
        links = self.cluster.network.under_way()
        if not links:
            return
        link = links[a % len(links)]
        queue = self.cluster.network.queues[link]
        if action == "deliver":
            for _ in range(1 + b % 3):
                self.cluster.deliver(*link)
        elif action == "duplicate":
            queue.append(queue[b % len(queue)])
        elif action == "lose":
            self.cluster.lose(*link, b % len(queue))
        else:
            queue.rotate(b)

    def _link(self, action: str, one: Member, other: Member) -> None:
        if action == "heal":
            self.cluster.network.cuts.clear()
        else:
            # To cut somebody off from himself is to cut him off from everybody.
            others = self.cluster.members if one is other else [other.id]
            self.cluster.network.cuts |= {frozenset({one.id, member}) for member in others}

    def _member(self, action: str, member: Member, b: int) -> None:
        node = member.node
        match action:
            case "take":
                member.take()
            case "sync":
                member.sync()
            case "tick":
                for _ in range(1 + b % 3):
                    node.tick()
            case "propose":
                self.proposed += 1
                node.propose([f"{self.proposed}.{part}".encode() for part in range(1 + b % 3)])
            case "read":
                context = len(self.checker.reads)
                self.checker.reads[context] = max(other.node.commit for other in self.cluster.members.values())
                node.read_index(context)
            case "crash":
                member.crash(written=b % 4)
            case "reboot":
                member.crash(written=b % 4)
                member.start()
            case "campaign":
                node.campaign()
            case "compact":
                if node.log.first - 1 <= member.store.applied:
                    member.compact(Index(max(member.store.applied - b % 3, node.log.first - 1)))
            case "transfer":
                node.transfer_leader(MemberId(1 + b % len(self.cluster.members)))
            case "unreachable":
                node.report_unreachable(MemberId(1 + b % len(self.cluster.members)))
            case "change":
                self._change(member, b)

    def _change(self, member: Member, b: int) -> None:
        kinds = (ConfChangeType.ADD_NODE, ConfChangeType.REMOVE_NODE, ConfChangeType.ADD_LEARNER_NODE)
        target, other = MemberId(1 + b % 7), MemberId(1 + (b // 7) % 7)
        for joined in (target, other):
            if joined not in self.cluster.members:
                self.cluster.add(self._config(joined))
        if b % 3:
            data = encode_change(ConfChange(kinds[b % 5 % 3], target))
            member.node.propose_conf_change(data)
            return
        singles = (ConfChangeSingle(kinds[b % 5 % 3], target), ConfChangeSingle(kinds[b % 11 % 3], other))
        change = ConfChangeV2(ConfChangeTransition(b % 13 % 3), singles if b % 4 else ())
        member.node.propose_conf_change(encode_change(change), EntryType.CONF_CHANGE_V2)

    def check_logs(self) -> None:
        """Check log matching: logs that agree on one entry agree on all before it."""
        everyone = list(self.cluster.members.values())
        for position, one in enumerate(everyone):
            for other in everyone[:position]:
                first = max(one.node.log.first, other.node.log.first)
                last = min(one.node.log.last, other.node.log.last)
                if first > last:
                    continue
                pairs = zip(one.node.log.entries(first, last + 1), other.node.log.entries(first, last + 1), strict=True)
                same = [mine == theirs for mine, theirs in pairs]
                terms = [
                    one.node.log.term(Index(index)) == other.node.log.term(Index(index))
                    for index in range(first, last + 1)
                ]
                assert same == sorted(same, reverse=True)
                assert same == terms

    def converge(self) -> None:
        """Mend everything; demand a leader, a commit and equal stores among those who take part."""
        self.cluster.network.cuts.clear()
        self._ticks(60)
        everyone = self.cluster.members.values()
        leader = next((member for member in everyone if member.up and member.node.role is Role.LEADER), None)
        if leader is None:
            assert self._waits_for_the_removed(), "nobody leads"
            return
        assert leader.node.propose([b"at last"]).accepted
        self.cluster.settle()
        self._ticks(12)
        assert (leader.store.applied, leader.store.entries[-1][1]) == (leader.node.log.last, "at last")
        for member_id in leader.node.progress:
            store = self.cluster.members[member_id].store
            assert (store.entries, store.conf_state) == (leader.store.entries, leader.store.conf_state)

    def _waits_for_the_removed(self) -> bool:
        """Whether a voter has not heard that others were removed, who alone could tell and do not lead any more.

        A change takes effect where it is applied.  A leader that removes itself, and dies before it has told those who
        are left, leaves them with a configuration in which they may need its vote; etcd's lives on for a second.
        """
        latest = max((member.store for member in self.cluster.members.values()), key=lambda store: store.applied)
        voters = [self.cluster.members[voter].store for voter in latest.conf_state.voters]
        return any(store.conf_state != latest.conf_state for store in voters)

    def _ticks(self, count: int) -> None:
        """Let time pass in step; who has been removed for good stops, as etcd's members do."""
        for _ in range(count):
            for member in self.cluster.members.values():
                if member.up:
                    member.node.tick()
            self.cluster.settle()
            latest = max((member.store for member in self.cluster.members.values()), key=lambda store: store.applied)
            for member in self.cluster.members.values():
                if member.id not in members(latest.conf_state):
                    member.crash()
                elif not member.up:
                    member.start()


def run(seed: int, steps: int, *, changes: bool) -> Schedule:
    """Run one schedule drawn from *seed*; the same seed gives the same run."""
    random = Random(seed)
    config = RaftConfig(
        MemberId(1),
        election_ticks=4,
        pre_vote=random.random() < 0.6,
        check_quorum=random.random() < 0.6,
        message_bytes_max=random.choice([1, 40, 1 << 20]),
        inflight_messages_max=random.choice([1, 2, 512]),
        committed_bytes_per_ready_max=random.choice([1, 60, 1 << 20]),
    )
    schedule = Schedule(random.choice([1, 2, 3, 3, 4, 5]), config)
    # Some kinds of fault hide others, and a slow disk hides a fast one's: each run has a part of them.
    kinds = REPAIRS + random.choices(FAULTS, k=random.randint(1, len(FAULTS)))
    work = [action for action, weight in WORK.items() for _ in range(weight)]
    work += ["sync"] * random.choice([2, 6, 16]) + ["campaign"] * random.choice([0, 0, 0, 1, 3])
    faults, change_rate = random.choice([0.002, 0.02, 0.1, 0.2]), random.choice([0.001, 0.01]) * changes
    for step in range(steps):
        chance = random.random()
        action = random.choice(kinds if chance < faults else work)
        if faults < chance < faults + change_rate:
            action = "change"
        schedule.act(action, random.randrange(1 << 16), random.randrange(1 << 16))
        if step % 200 == 0:
            schedule.check_logs()
    schedule.check_logs()
    return schedule


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 1 << 32))
def test_a_fixed_configuration_keeps_raft_s_promises(seed: int) -> None:
    """Whatever fails, no two members differ on what is committed, and mended they come together again (raft 5.4)."""
    run(seed, 3000, changes=False).converge()


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 1 << 32))
def test_a_changing_configuration_keeps_raft_s_promises(seed: int) -> None:
    """The same while members come, go and learn, one by one or through joint configurations (raft thesis 4)."""
    run(seed, 3000, changes=True).converge()


def test_a_schedule_can_be_replayed() -> None:
    """The same seed gives the same run to the last message: a failure found by chance can be looked at again."""
    traces = []
    for _ in range(2):
        schedule = run(7, 1500, changes=True)
        traces.append(
            [
                (member.id, member.node.term, member.node.log.entries(member.node.log.first, member.node.log.last + 1))
                for member in schedule.cluster.members.values()
            ]
        )
    assert traces[0] == traces[1]
    assert any(entries for _, _, entries in traces[0])


MEMBERS = st.integers(0, 4).map(MemberId)
SMALL = st.integers(0, 6)
ENTRIES = st.lists(
    st.builds(Entry, SMALL.map(Term), SMALL.map(Index), st.sampled_from(EntryType), st.binary(max_size=12)), max_size=4
).map(tuple)
CONF_STATES = st.builds(
    ConfState,
    voters=st.lists(MEMBERS, max_size=4).map(tuple),
    learners=st.lists(MEMBERS, max_size=2).map(tuple),
    voters_outgoing=st.lists(MEMBERS, max_size=2).map(tuple),
    learners_next=st.lists(MEMBERS, max_size=1).map(tuple),
    auto_leave=st.booleans(),
)
SNAPSHOTS = st.builds(
    Snapshot, st.builds(SnapshotMetadata, CONF_STATES, SMALL.map(Index), SMALL.map(Term)), st.binary(max_size=2)
)
MESSAGES = st.builds(
    Message,
    type=st.sampled_from(MessageType),
    to=st.just(MemberId(1)) | MEMBERS,
    sender=MEMBERS,
    term=SMALL.map(Term),
    log_term=SMALL.map(Term),
    index=SMALL.map(Index),
    entries=ENTRIES,
    commit=SMALL.map(Index),
    reject=st.booleans(),
    reject_hint=SMALL.map(Index),
    context=st.binary(max_size=9) | st.just((1).to_bytes(8, "big")),
    snapshot=st.none() | SNAPSHOTS,
)


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(messages=st.lists(MESSAGES | st.none(), max_size=40), start=st.sampled_from(["follower", "leader"]))
def test_no_message_brings_a_member_down(messages: list[Message | None], start: str) -> None:
    """Whatever a peer sends, step does not raise and what was committed stays (a None lets time pass)."""
    conf_state = ConfState(voters=(MemberId(1), MemberId(2), MemberId(3)))
    log = RaftLog([Entry(Term(1), Index(index), EntryType.NORMAL, b"x") for index in (1, 2, 3)])
    config = RaftConfig(MemberId(1), election_ticks=2)
    node = RaftNode(config, log, HardState(Term(1), MemberId(0), Index(2)), conf_state, Index(2), Random(1))
    if start == "leader":
        node.campaign(transferred=True)
        node.stable(*node.take_ready().stable or (Term(0), Index(0)))
        node.step(Message(MessageType.VOTE_RESPONSE, MemberId(1), MemberId(2), term=Term(2)))
        assert node.role is Role.LEADER
    committed = [Entry(Term(1), Index(index), EntryType.NORMAL, b"x") for index in (1, 2)]
    for message in messages:
        before = (node.term, node.commit)
        if message is None:
            node.tick()
        else:
            node.step(message)
        ready = node.take_ready()
        if ready.stable is not None:
            node.stable(*ready.stable)
        if ready.snapshot is not None:
            node.stable_snapshot(ready.snapshot.metadata.index)
            committed = []
        committed += ready.committed
        assert (node.term, node.commit) >= before
        for entry in committed:
            assert node.log.term(entry.index) in {entry.term, None}
