"""ApplyActor: what a batch of entries tells to whom and in which order, background work, snapshots."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any, cast

import pytest

from actors import apply as apply_module
from actors.apply import HOUSE_S, MEASURE_S, STEP_S, ApplyActor, CompactionPace, SnapshotPolicy
from actors.messages.apply import (
    ApplyEntries,
    Defragment,
    Inspect,
    InstallSnapshot,
    Observe,
    ObserveAuth,
    ObserveChanges,
    ObserveLeases,
    ObserveOutcomes,
)
from actors.messages.common import Tick
from actors.messages.lease import Checkpointed, Granted, Promote, Revoked
from actors.messages.raft import Applied, ConfChangeApplied, Propose, SnapshotInstalled
from actors.messages.serve import Answered, AuthIs, Completed, Published
from actors.messages.wal import SaveSnapshot
from actors.messages.watch import Changed
from actors.messages.worker import Work
from core.auth.tokens import TokensDropped
from core.errors import UserEmpty
from core.membership.change import adding
from core.membership.member import Member
from core.mvcc.backend import MemoryBackend
from core.raft.messages import ConfChange, ConfChangeType
from core.types import Index, MemberId, Term
from proto.raft_internal_pb2 import InternalRaftRequest
from proto.rpc_pb2 import (
    AlarmRequest,
    AlarmType,
    AuthEnableRequest,
    AuthRoleAddRequest,
    AuthUserAddRequest,
    AuthUserGrantRoleRequest,
    CompactionRequest,
    CompactionResponse,
    DeleteRangeRequest,
    LeaseCheckpoint,
    LeaseCheckpointRequest,
    LeaseGrantRequest,
    LeaseRevokeRequest,
    PutRequest,
    PutResponse,
)
from tests.actors.home import TestHome
from tests.entries import MEMBER, MINIMUM_TTL_S, Log, contents, make_applier
from tests.fakes import FakeClock, Told

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from core.raft.messages import Entry, Snapshot

PAUSE_S = 0.01
SLOW_S = 0.1
OWNER = 2


class PassingClock(FakeClock):
    """Half of a step's time goes by between two looks."""

    def monotonic_s(self) -> float:
        self.pass_s(STEP_S / 2)
        return super().monotonic_s()


class Machine:
    """An ApplyActor on a store in memory, and everybody whom it tells."""

    def __init__(
        self,
        *,
        snapshot_entries: int = 1000,
        quota_bytes: int | None = None,
        last_snapshot: int = 0,
        revisions_per_batch: int = 1,
        clock: FakeClock | None = None,
    ) -> None:
        self.home = TestHome()
        self.backend = MemoryBackend()
        self.coming: Sequence[tuple[bytes, bytes]] = ()
        """What the store holds when a snapshot has been installed."""
        self.applier = make_applier(self.backend, quota_bytes)
        self.log = Log(OWNER)
        self.journal: list[Any] = []
        self.raft, self.wal, self.worker = Told(self.journal), Told(self.journal), Told()
        self.checker, self.defragmenter, self.janitor = Told(), Told(), Told()
        self.listener = Told(self.journal)
        self.actor = self.home.spawn(
            ApplyActor,
            applier=self.applier,
            wal=self.wal,
            worker=self.worker,
            checker=self.checker,
            defragmenter=self.defragmenter,
            janitor=self.janitor,
            later=self.home.later,
            clock=clock or self.home.clock,
            replace_store=self._replace_store,
            snapshot=SnapshotPolicy(snapshot_entries, Index(last_snapshot)),
            slow_apply_s=SLOW_S,
            compaction=CompactionPace(revisions_per_batch, PAUSE_S),
            logger=self.home.logger,
        )

    def _replace_store(self, _snapshot: Snapshot) -> None:
        self.backend.write([(key, None) for key, _ in contents(self.backend)])
        self.backend.write(self.coming)

    def tell(self, *messages: object) -> None:
        self.home.tell(self.actor, *messages)

    def apply(self, *entries: Entry, term: int = 1) -> None:
        commit = entries[-1].index
        self.tell(ApplyEntries(entries, Term(term), commit, self.raft))

    def of(self, kind: type[Any]) -> list[Any]:
        return [message for message in self.journal if type(message) is kind]

    def work(self) -> None:
        """Do what the worker and the janitor were handed, and deliver their answers."""
        for work in cast("list[Work]", [*self.worker.take(), *self.janitor.take()]):
            work.answer_to.tell(Answered(work.token, work.job()))
        self.home.run()


@pytest.fixture
def machine() -> Machine:
    made = Machine()
    made.home.later.advance(PAUSE_S)
    made.home.run()
    return made


def test_what_may_be_read_is_told_before_what_is_done(machine: Machine) -> None:
    """A client that reads after its answer must find its own write, whichever connection it uses."""
    machine.tell(Observe(machine.listener), ObserveOutcomes(OWNER, machine.listener))
    machine.tell(ObserveChanges(machine.listener))
    machine.journal.clear()
    machine.apply(machine.log.put(b"a"))
    assert [type(message) for message in machine.journal] == [Published, Completed, Changed, Applied]
    published, completed, changed, applied = machine.journal
    assert published.view.get(b"a") is not None
    assert (published.view.revision, published.view.applied_index, published.commit) == (2, 1, 1)
    assert PutResponse.FromString(completed.outcomes[0][1]).header.revision == 2
    assert changed.revisions[0].events[0].key == b"a"
    assert applied == Applied(Index(1))


def test_who_shares_the_thread_is_told_before_the_store_is_written(
    machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The log has it; what the client asks next is looked at only after the new view was published."""
    monkeypatch.setattr(machine.home, "near", lambda address: address)
    write = machine.backend.write

    def noted(changes: Iterable[tuple[bytes, bytes | None]], *, sync: bool = False) -> None:
        machine.journal.append("written")
        write(changes, sync=sync)

    monkeypatch.setattr(machine.backend, "write", noted)
    machine.tell(Observe(machine.listener), ObserveOutcomes(OWNER, machine.listener))
    machine.journal.clear()
    machine.apply(machine.log.put(b"a"))
    kinds = [each if isinstance(each, str) else type(each) for each in machine.journal]
    assert kinds == [Completed, "written", Published, Applied]


def test_a_change_of_members_is_published_before_it_is_done(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    """Who asks for the members next asks others than the store, who hear of it in their own time."""
    monkeypatch.setattr(machine.home, "near", lambda address: address)
    machine.tell(Observe(machine.listener), ObserveOutcomes(OWNER, machine.listener))
    machine.journal.clear()
    change = adding(Member.new("m", ["http://127.0.0.1:1"], "t"))
    machine.apply(machine.log.conf_change(replace(change, id=machine.log.ids.make())))
    kinds = [type(each) for each in machine.journal if isinstance(each, Completed | Published)]
    assert kinds == [Published, Completed]


def test_observers_are_told_at_once_what_there_is(machine: Machine) -> None:
    """Who starts later must not wait for the next write."""
    machine.apply(machine.log.put(b"a"))
    machine.journal.clear()
    machine.tell(Observe(machine.listener), ObserveChanges(machine.listener))
    published, changed = machine.journal
    assert (published.view.revision, published.term, published.commit) == (2, 1, 1)
    assert (changed.revisions, changed.view.revision) == ((), 2)


def test_outcomes_go_to_whoever_asked(machine: Machine) -> None:
    """Each listener gets its own, in one message; requests of other members are nobody's here."""
    mine, other = Told(), Told()
    machine.tell(ObserveOutcomes(OWNER, mine), ObserveOutcomes(3, other))
    entry_1, id_1 = machine.log.request(put=PutRequest(key=b"a"))
    entry_2, id_2 = machine.log.request(put=PutRequest(key=b"b"))
    foreign = machine.log.entry(
        InternalRaftRequest(put=PutRequest(key=b"c"), header={"ID": 0xBBBB << 48 | OWNER}).SerializeToString()
    )
    machine.apply(entry_1, entry_2, foreign)
    [completed] = mine.of(Completed)
    assert [request_id for request_id, _ in completed.outcomes] == [id_1, id_2]
    assert other.messages == []


def test_a_batch_is_one_write() -> None:
    """The store holds exactly what was applied, whatever moment it is cut off at."""
    machine = Machine()
    writes: list[int] = []
    write = machine.backend.write

    def counted(changes: Any, *, sync: bool = False) -> None:
        writes.append(1)
        write(changes, sync=sync)

    machine.backend.write = counted  # type: ignore[method-assign]  # counts
    machine.apply(*[machine.log.put(b"%d" % number) for number in range(10)])
    assert len(writes) == 1


def test_a_batch_without_events_leaves_watchers_alone(machine: Machine) -> None:
    """A new leader's empty entry changes nothing that anybody watches."""
    machine.tell(ObserveChanges(machine.listener))
    machine.journal.clear()
    machine.apply(machine.log.entry(b""))
    assert machine.of(Changed) == []


def test_leases_are_introduced_with_what_is_left_of_them(machine: Machine) -> None:
    """After a restart the book of times starts from the store."""
    machine.apply(
        machine.log.request(lease_grant=LeaseGrantRequest(ID=5, TTL=100))[0],
        machine.log.request(
            lease_checkpoint=LeaseCheckpointRequest(checkpoints=[LeaseCheckpoint(ID=5, remaining_TTL=40)])
        )[0],
        machine.log.request(lease_grant=LeaseGrantRequest(ID=6, TTL=1))[0],
    )
    observer = Told()
    machine.tell(ObserveLeases(observer))
    assert observer.last(Granted).leases == [(5, 100), (6, MINIMUM_TTL_S)]
    assert observer.last(Checkpointed).leases == [(5, 40)]


def test_leases_that_come_and_go_are_told(machine: Machine) -> None:
    """Times run elsewhere."""
    machine.tell(ObserveLeases(machine.listener))
    machine.journal.clear()
    machine.apply(machine.log.request(lease_grant=LeaseGrantRequest(ID=5, TTL=100))[0])
    machine.apply(machine.log.request(lease_revoke=LeaseRevokeRequest(ID=5))[0])
    assert [message.leases for message in machine.of(Granted) + machine.of(Revoked)] == [[(5, 100)], [5]]


def test_a_leaders_first_entry_is_told_with_its_term(machine: Machine) -> None:
    """Leases run from then on, on the member that leads this term."""
    machine.tell(ObserveLeases(machine.listener))
    machine.journal.clear()
    machine.apply(machine.log.entry(b"", term=4), term=5)
    assert [message.term for message in machine.of(Promote)] == [4]


def test_a_change_of_members_reaches_raft_before_applied_passes_it(machine: Machine) -> None:
    """Raft must never believe a change to be applied that it has not taken over."""
    change = adding(Member.new("m", ["http://127.0.0.1:1"], "t"))
    machine.apply(machine.log.conf_change(change))
    assert machine.journal == [ConfChangeApplied(change), Applied(Index(1))]


def test_a_change_that_does_not_fit_is_told_as_none(machine: Machine) -> None:
    """Raft waits for it all the same."""
    machine.apply(machine.log.conf_change(ConfChange(ConfChangeType.REMOVE_NODE, MemberId(99))))
    assert machine.of(ConfChangeApplied) == [ConfChangeApplied(None)]


def test_a_write_over_the_quota_raises_the_alarm() -> None:
    """From then on every member refuses what grows the data."""
    machine = Machine(quota_bytes=1000)
    machine.applier.allocated_bytes = 999
    machine.tell(ObserveOutcomes(OWNER, machine.listener))
    machine.apply(machine.log.put(b"a"))
    [propose] = machine.of(Propose)
    [(request_id, data)] = propose.proposals
    alarm = InternalRaftRequest.FromString(data).alarm
    assert (request_id, alarm.action, alarm.memberID, alarm.alarm) == (
        0,
        AlarmRequest.ACTIVATE,
        MEMBER,
        AlarmType.NOSPACE,
    )
    [completed] = machine.of(Completed)
    assert str(completed.outcomes[0][1]) == "etcdserver: mvcc: database space exceeded"


def test_sizes_are_measured_now_and_then() -> None:
    """Looking at files costs; the quota is held against what was seen last."""
    machine = Machine()
    machine.apply(machine.log.put(b"a"))
    machine.tell(Tick(10.0))
    machine.work()
    measured = machine.applier.allocated_bytes
    assert measured == machine.backend.size_bytes() > 0
    machine.apply(machine.log.put(b"b"))
    machine.tell(Tick(10.0 + MEASURE_S - 0.1))
    machine.work()
    assert machine.applier.allocated_bytes == measured
    machine.tell(Tick(10.0 + MEASURE_S + HOUSE_S))
    machine.work()
    assert machine.applier.allocated_bytes > measured


def test_the_stores_house_is_kept_beside_the_traffic() -> None:
    """Deleting a large file takes milliseconds, which no request should wait for; nor do rounds of it queue up."""
    machine = Machine()
    machine.tell(Tick(10.0), Tick(10.0 + HOUSE_S), Tick(10.0 + 2 * HOUSE_S))
    assert len(machine.janitor.of(Work)) == 1
    machine.work()
    machine.tell(Tick(10.0 + 2.5 * HOUSE_S), Tick(10.0 + 2.6 * HOUSE_S))
    assert len(machine.janitor.of(Work)) == 1


def test_compaction_goes_on_in_steps_with_pauses(machine: Machine) -> None:
    """Removing history must not hold up the traffic."""
    machine.apply(*[machine.log.put(b"a") for _ in range(5)])
    records = len(list(machine.applier.store.view().revisions()))
    machine.apply(machine.log.request(compaction=CompactionRequest(revision=6))[0])
    assert len(list(machine.applier.store.view().revisions())) == records
    left = []
    while machine.home.later:
        machine.home.later.advance(PAUSE_S)
        machine.home.run()
        left.append(len(list(machine.applier.store.view().revisions())))
    assert left[0] > left[-1] == 1
    assert len(left) > 2


def test_a_step_of_a_compaction_ends_when_its_time_is_up() -> None:
    """A batch of a thousand revisions may take long; whoever writes meanwhile waits for a few milliseconds only."""
    machine = Machine(revisions_per_batch=1000, clock=PassingClock())
    machine.apply(*[machine.log.put(b"a") for _ in range(200)])
    machine.apply(machine.log.request(compaction=CompactionRequest(revision=201))[0])
    left = []
    while machine.home.later:
        machine.home.later.advance(PAUSE_S)
        machine.home.run()
        left.append(len(list(machine.applier.store.view().revisions())))
    assert 100 < left[0] < 200
    assert left[-1] == 1


def test_what_a_compaction_leaves_is_hashed_and_kept_for_members_to_compare(machine: Machine) -> None:
    """The hash is made of the store as it was before anything is removed, with the compaction before as its own."""
    for revision in (2, 3):
        machine.apply(machine.log.put(b"a"), machine.log.request(compaction=CompactionRequest(revision=revision))[0])
    machine.home.later.advance(1.0)
    machine.home.run()
    for work in cast("list[Work]", machine.checker.take()):
        work.answer_to.tell(Answered(work.token, work.job()))
    machine.home.run()
    newest, older = machine.applier.compaction_hashes.newest_first()
    assert newest[1:] == (3, 2)
    assert older[1:] == (2, -1)
    assert machine.applier.hash_question(2)[1] == older


def test_no_hash_of_a_compaction_is_taken_for_the_newest(machine: Machine) -> None:
    """A compaction at revision 0 is possible, and 0 is also how the newest revision is asked for."""
    machine.apply(machine.log.put(b"a"), machine.log.request(compaction=CompactionRequest(revision=0))[0])
    machine.home.later.advance(1.0)
    machine.home.run()
    for work in cast("list[Work]", machine.checker.take()):
        work.answer_to.tell(Answered(work.token, work.job()))
    machine.home.run()
    assert [made.revision for made in machine.applier.compaction_hashes.newest_first()] == [0]
    assert machine.applier.hash_question(0)[1] is None


def test_a_logical_compaction_is_answered_at_once(machine: Machine) -> None:
    """Reads below it fail from then on; when the space comes back is nobody's question."""
    machine.tell(ObserveOutcomes(OWNER, machine.listener))
    machine.apply(machine.log.put(b"a"), machine.log.request(compaction=CompactionRequest(revision=2))[0])
    [completed] = machine.of(Completed)
    assert len(completed.outcomes) == 2


def test_a_physical_compaction_is_answered_when_it_is_done(machine: Machine) -> None:
    """That is what its asker wants to know."""
    machine.tell(ObserveOutcomes(OWNER, machine.listener))
    machine.apply(*[machine.log.put(b"a") for _ in range(3)])
    machine.journal.clear()
    entry, request_id = machine.log.request(compaction=CompactionRequest(revision=4, physical=True))
    machine.apply(entry)
    assert machine.of(Completed) == []
    while machine.home.later:
        machine.home.later.advance(PAUSE_S)
        machine.home.run()
    [completed] = machine.of(Completed)
    [(answered, answer)] = completed.outcomes
    assert answered == request_id
    assert CompactionResponse.FromString(answer).header.revision == 4


def test_background_work_is_taken_up_after_a_start() -> None:
    """The index of counts is built beside the traffic, and an interrupted compaction goes on."""
    machine = Machine()
    assert machine.applier.store.counter_for(machine.applier.store.view()) is None
    machine.home.later.advance(PAUSE_S)
    machine.home.run()
    assert machine.applier.store.counter_for(machine.applier.store.view()) is not None
    assert len(machine.home.later) == 0


def test_a_snapshot_is_saved_after_so_many_entries_and_a_sync() -> None:
    """The log may be cut only below what the store holds durably."""
    machine = Machine(snapshot_entries=3)
    machine.apply(machine.log.put(b"a"), machine.log.put(b"b"))
    assert machine.worker.messages == []
    machine.apply(machine.log.put(b"c"))
    machine.apply(machine.log.put(b"d"))
    assert len(machine.worker.messages) == 1, "one at a time"
    assert machine.of(SaveSnapshot) == []
    machine.work()
    [saved] = machine.of(SaveSnapshot)
    assert saved.snapshot.metadata.index == 3
    machine.backend.crash()
    assert make_applier(machine.backend).store.applied_index >= 3


def test_a_snapshot_brings_its_rules_and_ends_tokens(machine: Machine) -> None:
    """A member that went on by the rules from before the snapshot would come to another state than the others."""
    ahead, log = make_applier(), Log(OWNER + 1)
    requests: list[dict[str, Any]] = [
        {"auth_user_add": AuthUserAddRequest(name="root", hashedPassword="aGFzaA==")},
        {"auth_role_add": AuthRoleAddRequest(name="root")},
        {"auth_user_grant_role": AuthUserGrantRoleRequest(user="root", role="root")},
        {"auth_enable": AuthEnableRequest()},
    ]
    ahead.apply([log.request(**fields)[0] for fields in requests], Term(1))
    ahead.store.flush()
    machine.coming = contents(ahead.store.backend)
    machine.tell(ObserveAuth(machine.listener), ObserveOutcomes(OWNER, machine.listener))
    machine.journal.clear()
    machine.tell(InstallSnapshot(ahead.raft_snapshot(), machine.raft))
    refused, _ = log.request(put=PutRequest(key=b"a"))
    machine.apply(refused._replace(data=machine.log.request(put=PutRequest(key=b"a"))[0].data))
    assert machine.of(AuthIs) == machine.of(Completed) == [], "nothing is applied while the store is replaced"
    machine.work()
    [told] = machine.of(AuthIs)
    assert (told.rules.enabled, list(told.rules.users), told.tokens) == (True, ["root"], [TokensDropped(None)])
    assert machine.of(SnapshotInstalled) == [SnapshotInstalled(Index(4))]
    [completed] = machine.of(Completed)
    assert isinstance(completed.outcomes[0][1], UserEmpty)


def test_the_next_snapshot_counts_from_the_last() -> None:
    """Not from the start of the process."""
    machine = Machine(snapshot_entries=3, last_snapshot=0)
    for number in range(7):
        machine.apply(machine.log.put(b"%d" % number))
        machine.work()
    assert [saved.snapshot.metadata.index for saved in machine.of(SaveSnapshot)] == [3, 6]


def test_large_entries_make_a_snapshot_due_before_their_number_does(monkeypatch: pytest.MonkeyPatch) -> None:
    """A start reads all that came after the last one: ten thousand entries of a megabyte would be too much."""
    monkeypatch.setattr(apply_module, "UNSAVED_BYTES_MAX", 3000)
    machine = Machine(snapshot_entries=1000)
    for number in range(4):
        machine.apply(machine.log.put(b"%d" % number, b"x" * 1000))
        machine.work()
    assert [saved.snapshot.metadata.index for saved in machine.of(SaveSnapshot)] == [3]


def test_a_slow_batch_is_told(machine: Machine) -> None:
    """The operator of a slow store finds it in the log, under etcd's words."""
    clock = machine.home.clock
    write = machine.backend.write

    def slow(changes: Iterable[tuple[bytes, bytes | None]], *, sync: bool = False) -> None:
        clock.now_s += SLOW_S + 0.05
        write(changes, sync=sync)

    machine.backend.write = slow  # type: ignore[method-assign]  # a slow store
    machine.apply(machine.log.put(b"a"), machine.log.put(b"b"))
    [warning] = machine.home.logged("apply took too long")
    assert (warning["count"], warning["index"], warning["took_s"]) == (2, 2, 0.15)


def test_questions_are_answered_between_batches(machine: Machine) -> None:
    """They see a state between two entries, and no other thread sees it at all."""
    machine.apply(machine.log.put(b"a"))
    machine.tell(Inspect(lambda applier: machine.listener.tell(applier.store.revision)))
    assert machine.journal[-1] == 2


def test_defragmentation_has_a_thread_of_its_own(machine: Machine) -> None:
    """It takes minutes on a large store, and neither traffic nor large ranges nor snapshots wait for it."""
    machine.tell(Defragment(7, machine.listener))
    [work] = machine.defragmenter.take()
    assert machine.worker.messages == []
    machine.tell(Answered(work.token, work.job()))
    assert machine.of(Answered) == [Answered(7, None)]


def test_defragmentations_do_not_pile_up(machine: Machine) -> None:
    """Those asked for while one runs share the next: it finds whatever was removed until then."""
    for token in range(5):
        machine.tell(Defragment(token, machine.listener))
    [first] = machine.defragmenter.take()
    machine.tell(Answered(first.token, first.job()))
    assert [answered.token for answered in machine.of(Answered)] == [0]
    [second] = machine.defragmenter.take()
    machine.tell(Answered(second.token, second.job()))
    assert [answered.token for answered in machine.of(Answered)] == [0, 1, 2, 3, 4]
    assert machine.defragmenter.messages == []


def test_entries_that_were_applied_already_are_passed_over(machine: Machine) -> None:
    """After a restart the log begins before the store's index."""
    entries = [machine.log.put(b"a"), machine.log.put(b"b")]
    machine.apply(*entries)
    machine.tell(ObserveOutcomes(OWNER, machine.listener))
    machine.journal.clear()
    machine.apply(*entries, machine.log.request(delete_range=DeleteRangeRequest(key=b"a"))[0])
    assert len(machine.of(Completed)[0].outcomes) == 1
    assert machine.applier.store.revision == 4
