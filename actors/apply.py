"""ApplyActor: the state machine.

Committed entries come in batches; each batch becomes one write to the store, then its answers, events and leases go
out to whoever waits for them.  Compaction and the count index are worked on in small steps between batches.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, NamedTuple, Protocol, final

import google_crc32c

from actors.address import Delivery
from actors.base import Home, NodeActor
from actors.messages.apply import (
    ApplyEntries,
    ApplyMessage,
    Defragment,
    Inspect,
    InstallSnapshot,
    Observe,
    ObserveAuth,
    ObserveChanges,
    ObserveCluster,
    ObserveLeases,
    ObserveOutcomes,
)
from actors.messages.common import ClusterIs, Tick
from actors.messages.lease import Checkpointed, Granted, Promote, Revoked
from actors.messages.metrics import Measure, Measured
from actors.messages.raft import Applied, ConfChangeApplied, Propose, SnapshotInstalled
from actors.messages.serve import Accepted, Answered, AuthIs, Completed, Published, TokensUsed
from actors.messages.wal import SaveSnapshot
from actors.messages.watch import Changed, Restored
from actors.messages.worker import Work
from core.apply.numbers import ApplyNumbers
from core.auth.tokens import TokensDropped
from core.metrics import Sample
from core.mvcc.hashing import CompactionHashes, HashKv, finish_hash, hash_compaction_steps
from core.raft.messages import Snapshot
from core.request_id import owner_of
from core.tuples import make_tuple
from core.types import Index, LeaseId, RequestId, Term

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    import structlog

    from actors.address import Address, AnyDelivery
    from actors.messages.lease import LeaseEvent
    from actors.messages.raft import RaftMessage
    from actors.messages.serve import AuthEvent
    from actors.messages.wal import WalMessage
    from core.apply.applier import Applier, Begun, Effects
    from core.auth.tokens import TokenEvent
    from core.clock import Clock
    from core.errors import EtcdError
    from core.mvcc.backend import Backend
    from core.mvcc.view import View

STEP_S = 0.0015
"""After so long a step of the background work ends, however little it has done: requests wait for it."""

REST_S = 0.003
"""Between two steps: background work takes a third of the time at most."""

RANK_KEYS_AT_ONCE = 250
"""Keys read into the count index between two looks at the time."""


MEASURE_S = 1.0
"""How often the size of the store's files is looked at."""

HOUSE_S = 0.2
"""How often the store's house is kept: sooner than it deletes a file that it has just made."""


UNSAVED_BYTES_MAX = 32 << 20
"""Of entries applied since the last snapshot: beyond it the next is due, however few they are, since a start reads all
of them."""


class SnapshotPolicy(NamedTuple):
    """When to save a raft snapshot."""

    entries_max: int
    """Entries applied between two."""
    last_index: Index
    """Where the newest stands."""


class CompactionPace(NamedTuple):
    """How fast old revisions are removed: in batches, which take as many steps as they take time."""

    revisions_per_batch: int
    pause_s: float
    """After a batch."""


class Later(Protocol):
    """Sends a delivery after a while; the ticker's ``after``."""

    def __call__(self, delay_s: float, delivery: AnyDelivery, /) -> None:
        """Send *delivery* in *delay_s* seconds."""


ALARM_NAMES = {1: "NOSPACE", 2: "CORRUPT"}


class CompactionHashed(NamedTuple):
    """From the checker: the hash of a compaction, and where it belongs."""

    kept_in: CompactionHashes
    made: HashKv


class HouseKept(NamedTuple):
    """From the janitor."""

    size_bytes: int | None
    """Of the store's files, where that was asked for."""


class _Step:
    """A note to self: do a little of the background work."""


@final
class ApplyActor(NodeActor[ApplyMessage | _Step]):
    """Owns the applied state.

    Owns: the store and all that the applier holds; who wants to know of what.  Tells: RaftActor, ServeActors,
    WatchActor, LeaseActor, WalActor (snapshots), WorkerActor.  Fails when: an entry cannot be applied, or the store
    cannot be written.
    """

    def __init__(
        self,
        home: Home,
        *,
        applier: Applier,
        wal: Address[WalMessage],
        worker: Address[Work],
        checker: Address[Work],
        defragmenter: Address[Work],
        janitor: Address[Work],
        later: Later,
        clock: Clock,
        replace_store: Callable[[Snapshot], None],
        snapshot: SnapshotPolicy,
        slow_apply_s: float,
        compaction: CompactionPace,
        logger: structlog.stdlib.BoundLogger,
    ) -> None:
        """*replace_store* puts a snapshot that has come into the store's place, on the worker's thread.

        *checker* hashes what members compare, and *defragmenter* gives space back, which may both take a while.
        *janitor* looks after the store's files.
        """
        super().__init__(home)
        self._applier = applier
        self._store = applier.store
        self._wal = wal
        self._worker = worker
        self._checker = checker
        self._defragmenter = defragmenter
        self._janitor = janitor
        self._house_is_kept = False
        self._next_house_s = 0.0
        self._wanting_space: list[Defragment] = []
        self._defragmenting: list[Defragment] = []
        self._later = later
        self._clock = clock
        self._replace_store = replace_store
        self._installing = False
        self._held: list[ApplyMessage | _Step] = []
        self._snapshot = snapshot
        self._slow_s = slow_apply_s
        self._compaction = compaction
        self._batch_left = compaction.revisions_per_batch
        self._logger = logger
        self._raft: Address[RaftMessage]
        self._term = Term(self._store.applied_term)
        self._commit = Index(self._store.applied_index)
        self._snapshot_index = snapshot.last_index
        self._unsaved_bytes = 0
        self._snapshotting = False
        self._waiters: dict[int, Address[Completed | Accepted]] = {}
        self._near: set[int] = set()
        """Owners whose waiters are told on this very thread."""
        self._observers: list[Address[Published]] = []
        self._watch: list[Address[Changed | Restored]] = []
        self._lease: list[Address[LeaseEvent]] = []
        self._auth: list[Address[AuthEvent]] = []
        self._rules = applier.auth.book.rules
        self._cluster: list[Address[ClusterIs]] = []
        self._physical: list[RequestId] = []
        self._stepping = False
        self._next_measure_s = 0.0
        self._led_term = Term(0)
        self._numbers = ApplyNumbers()

    def setup(self) -> None:
        """Take up what was left to do in the background."""
        self._step_later(self._compaction.pause_s)

    def handle(self, message: ApplyMessage | _Step) -> None:
        """Take one message."""
        if self._installing and not isinstance(message, Answered | Tick):
            self._held.append(message)
            return
        match message:
            case ApplyEntries():
                self._apply(message)
            case _Step():
                self._stepping = False
                self._step()
            case Inspect():
                message.question(self._applier)
            case Observe():
                self._observers.append(self._home.near(message.observer) or message.observer)
                message.observer.tell(
                    Published(self._store.view(), self._term, self._commit, self._applier.allocated_bytes)
                )
            case ObserveOutcomes():
                near = self._home.near(message.waiter)
                self._waiters[message.owner] = near or message.waiter
                if near is not None:
                    self._near.add(message.owner)
            case ObserveChanges():
                self._watch.append(message.observer)
                message.observer.tell(Changed((), self._store.view(), self._term))
            case ObserveCluster():
                self._cluster.append(message.observer)
                message.observer.tell(self._cluster_now())
            case ObserveLeases():
                self._lease.append(message.observer)
                self._introduce_leases(message.observer)
            case ObserveAuth():
                self._auth.append(message.observer)
                message.observer.tell(AuthIs(self._rules, ()))
            case TokensUsed():
                for listener in self._auth:
                    listener.tell(message)
            case Defragment():
                self._wanting_space.append(message)
                self._defragment()
            case InstallSnapshot():
                self._begin_install(message)
            case Answered():
                if isinstance(message.outcome, InstallSnapshot):
                    self._end_install(message.outcome)
                elif isinstance(message.outcome, CompactionHashed):
                    self._keep_hash(message.outcome)
                elif isinstance(message.outcome, HouseKept):
                    self._note_house(message.outcome)
                elif message.outcome is None:
                    self._end_defragment()
                else:
                    self._save_snapshot(message)
            case Tick():
                self._keep_house(message.now_s)
            case Measure():
                message.answer_to.tell(Measured(message.round, self._samples()))

    def _apply(self, message: ApplyEntries) -> None:
        started_s = self._clock.monotonic_s()
        applier, store = self._applier, self._store
        self._raft, self._term, self._commit = message.raft, message.term, message.commit
        applier.apply(message.entries, message.term)
        applied_s = self._clock.monotonic_s()
        effects = applier.take_effects()
        self._tell_of_auth()
        completed = self._completed(effects.outcomes) if effects.outcomes else []
        # The log has it all, so whoever is told on this very thread is told before the store is written: what its
        # client asks next is not looked at before that is done and published.
        early = set() if effects.cluster_changed else self._near  # who hears of members must have heard first
        for owner, outcomes in completed:
            if owner in early:
                self._waiters[owner].tell(outcomes)
        written_s = self._clock.monotonic_s()
        store.flush()
        self._numbers.commit_times.observe(self._clock.monotonic_s() - written_s)
        self._numbers.applied(message.entries, effects.outcomes, applied_s - started_s)
        changes = applier.take_changes()
        # Anybody else hears of it when it may be read: a client that reads after its answer finds it.
        view = store.view()
        published = make_tuple(Published, (view, self._term, self._commit, applier.allocated_bytes))
        for observer in self._observers:
            observer.tell(published)
        for owner, outcomes in completed:
            if owner not in early:
                self._waiters[owner].tell(outcomes)
        if changes:
            self._numbers.count(changes)
        if changes or effects.compactions:
            for watcher in self._watch:
                watcher.tell(make_tuple(Changed, (changes, view, self._term)))
        self._tell_of_leases(effects)
        self._tell_of_cluster(effects)
        if effects.over_quota:
            message.raft.tell(Propose([(RequestId(0), self._applier.nospace_alarm())], Nobody()))
        # A store that came as a snapshot may be ahead of the entries that raft has handed out.
        message.raft.tell(make_tuple(Applied, (message.entries[-1].index,)))
        took_s = self._clock.monotonic_s() - started_s
        if took_s > self._slow_s:
            self._numbers.slow_count += 1
            self._logger.warning(
                "apply took too long", took_s=round(took_s, 3), count=len(message.entries), index=store.applied_index
            )
        self._unsaved_bytes += sum([len(entry.data) for entry in message.entries])
        if not self._snapshotting and self._snapshot_is_due():
            self._begin_snapshot()

    def _snapshot_is_due(self) -> bool:
        entries = self._store.applied_index - self._snapshot_index
        return entries >= self._snapshot.entries_max or self._unsaved_bytes >= UNSAVED_BYTES_MAX

    def _keep_house(self, now_s: float) -> None:
        # Looking at every file of a large store takes milliseconds, and files are better deleted where nobody waits.
        if self._house_is_kept or now_s < self._next_house_s:
            return
        self._house_is_kept = True
        self._next_house_s = now_s + HOUSE_S
        measures = now_s >= self._next_measure_s
        if measures:
            self._next_measure_s = now_s + MEASURE_S
        job = partial(house_kept, self._store.backend, measures=measures)
        self._janitor.tell(Work(0, job, self.actor_ref))

    def _note_house(self, kept: HouseKept) -> None:
        self._house_is_kept = False
        if kept.size_bytes is not None:
            self._applier.allocated_bytes = kept.size_bytes

    def _samples(self) -> list[Sample]:
        applier, store = self._applier, self._store
        allocated, in_use = applier.sizes()
        counter = applier.counter_for(store.view())
        keys = [] if counter is None else [Sample("etcd_debugging_mvcc_keys_total", counter(b"\x00", b"\x00"))]
        return [
            *self._numbers.samples(),
            *keys,
            Sample("etcd_server_proposals_applied_total", store.applied_index),
            Sample("etcd_debugging_mvcc_current_revision", store.revision),
            Sample("etcd_debugging_mvcc_compact_revision", store.compact_revision),
            Sample("etcd_debugging_mvcc_db_compaction_keys_total", store.compaction.removed_count),
            Sample("etcd_mvcc_db_total_size_in_bytes", allocated),
            Sample("etcd_mvcc_db_total_size_in_use_in_bytes", in_use),
            Sample("etcd_debugging_auth_revision", applier.auth.book.rules.revision),
            Sample("etcd_server_snapshot_apply_in_progress_total", int(self._installing)),
            Sample("etcd_cluster_version", 1, (applier.cluster.version.rpartition(".")[0] or "unknown",)),
            *(
                Sample("etcd_debugging_server_alarms", 1, (f"{member:x}", ALARM_NAMES.get(alarm, str(alarm))))
                for member, alarm in applier.active_alarms()
            ),
        ]

    def _completed(self, outcomes: Sequence[tuple[RequestId, bytes | EtcdError]]) -> list[tuple[int, Completed]]:
        """Return what each waiter is to be told of *outcomes*, by owner."""
        waiters = self._waiters
        member = self._applier.headers.member_id
        by_owner: dict[int, list[tuple[RequestId, bytes | EtcdError]]] = {}
        for outcome in outcomes:
            owner = owner_of(outcome[0], member)
            if owner in waiters:
                by_owner.setdefault(owner, []).append(outcome)
        return [(owner, make_tuple(Completed, (owned,))) for owner, owned in by_owner.items()]

    def _tell_of_auth(self, *more: TokenEvent) -> None:
        # Before anything else: a token is good at once for whoever got it, and what was taken away is gone.
        auth = self._applier.auth
        rules, tokens = auth.book.rules, [*auth.take_token_events(), *more]
        if rules is self._rules and not tokens:
            return
        if rules.enabled != self._rules.enabled:
            self._logger.info("authentication is on" if rules.enabled else "authentication is off")
        self._rules = rules
        for observer in self._auth:
            observer.tell(AuthIs(rules, tokens))

    def _introduce_leases(self, observer: Address[LeaseEvent]) -> None:
        stored = self._applier.stored_leases()
        observer.tell(Granted([(lease, ttl_s) for lease, ttl_s, _ in stored]))
        observer.tell(Checkpointed([(lease, remaining_s) for lease, _, remaining_s in stored if remaining_s]))
        observer.tell(Promote(self._led_term))

    def _tell_of_leases(self, effects: Effects) -> None:
        self._led_term = effects.first_of_term or self._led_term
        for observer in self._lease:
            if effects.granted:
                observer.tell(Granted(effects.granted))
            if effects.checkpointed:
                observer.tell(Checkpointed(effects.checkpointed))
            if effects.revoked:
                observer.tell(Revoked(effects.revoked))
            if effects.first_of_term is not None:
                observer.tell(Promote(effects.first_of_term))

    def _cluster_now(self) -> ClusterIs:
        cluster = self._applier.cluster
        return ClusterIs(tuple(cluster.members), tuple(cluster.removed), cluster.version, cluster.downgrade)

    def _tell_of_cluster(self, effects: Effects) -> None:
        if effects.cluster_changed:
            now = self._cluster_now()
            for observer in self._cluster:
                observer.tell(now)
        for change in effects.conf_changes:
            self._raft.tell(ConfChangeApplied(change))
        for begun in effects.compactions:
            self._logger.info("compaction began", revision=begun.revision)
            self._numbers.compaction_began_s = self._clock.monotonic_s()
            if begun.asked is not None:
                self._physical.append(begun.asked)
                owner = owner_of(begun.asked, self._applier.headers.member_id)
                if owner in self._waiters:
                    self._waiters[owner].tell(Accepted([begun.asked]))
            # Members compare it; what it is made from must be taken before the first step.
            job = partial(hashed, self._applier.compaction_hashes, self._store.view(), begun)
            self._checker.tell(Work(begun.revision, job, self.actor_ref))
            self._step_later(self._compaction.pause_s)

    # -- background work ---------------------------------------------------------------------------------------------

    def _step_later(self, pause_s: float) -> None:
        if not self._stepping:
            self._stepping = True
            self._later(pause_s, Delivery(self.actor_ref, _Step()))

    def _step(self) -> None:
        store, now = self._store, self._clock.monotonic_s
        until_s = now() + STEP_S
        ranked = store.build_ranks_step(RANK_KEYS_AT_ONCE)
        while not ranked and now() < until_s:
            ranked = store.build_ranks_step(RANK_KEYS_AT_ONCE)
        started_s = now()
        before_count = store.compaction.removed_count
        compacted = store.compaction_step(self._batch_left, lambda: now() >= until_s)
        self._batch_left -= store.compaction.removed_count - before_count
        if self._numbers.compaction_began_s is not None:
            now_s = self._clock.monotonic_s()
            self._numbers.compaction_step(now_s - started_s, now_s, self._clock.wall_s(), finished=compacted)
        if compacted and self._physical:
            answer = self._applier.headers.encode(store.revision, self._term)
            for owner, completed in self._completed([(request_id, answer) for request_id in self._physical]):
                self._waiters[owner].tell(completed)
            self._physical = []
        batch_ended = compacted or self._batch_left <= 0
        if batch_ended:
            self._batch_left = self._compaction.revisions_per_batch
        if not (ranked and compacted):
            self._step_later(self._compaction.pause_s if ranked and batch_ended else REST_S)

    def _keep_hash(self, hashed: CompactionHashed) -> None:
        # Of a store that has been replaced meanwhile it is kept where nobody looks any more.
        hashed.kept_in.add(hashed.made)
        self._logger.info(
            "hashed what a compaction leaves",
            revision=hashed.made.revision,
            compact_revision=hashed.made.compact_revision,
            hash=hashed.made.hash,
        )

    def _defragment(self) -> None:
        # One at a time; who asks meanwhile shares the next one, which finds what was removed until then.
        if self._wanting_space and not self._defragmenting:
            self._defragmenting, self._wanting_space = self._wanting_space, []
            self._defragmenter.tell(Work(0, self._store.backend.compact, self.actor_ref))

    def _end_defragment(self) -> None:
        ended, self._defragmenting = self._defragmenting, []
        for asked in ended:
            asked.answer_to.tell(Answered(asked.token, None))
        self._defragment()

    # -- snapshots ---------------------------------------------------------------------------------------------------

    def _begin_snapshot(self) -> None:
        # The log may only be cut below what the store holds durably; the sync takes long, so it runs beside us.
        self._snapshotting = True
        self._unsaved_bytes = 0
        sync = self._store.backend.sync
        snapshot = self._applier.raft_snapshot()
        self._worker.tell(Work(self._store.applied_index, partial(synced, sync, snapshot), self.actor_ref))

    def _save_snapshot(self, message: Answered) -> None:
        assert isinstance(message.outcome, Snapshot), message
        self._snapshotting = False
        index = message.outcome.metadata.index
        self._snapshot_index = index
        self._wal.tell(SaveSnapshot(message.outcome))

    def _begin_install(self, message: InstallSnapshot) -> None:
        metadata = message.snapshot.metadata
        self._logger.info("applying a snapshot from the leader", index=metadata.index, term=metadata.term)
        self._installing = True
        self._worker.tell(Work(metadata.index, partial(installed, self._replace_store, message), self.actor_ref))

    def _end_install(self, message: InstallSnapshot) -> None:
        applier, index = self._applier, message.snapshot.metadata.index
        before = set(applier.leases.ids)
        applier.restart()
        store = self._store = applier.store
        assert store.applied_index >= index, (store.applied_index, index)
        self._installing = False
        self._snapshot_index = index
        self._commit = max(self._commit, Index(store.applied_index))
        self._logger.info("applied a snapshot from the leader", index=index, revision=store.revision)
        # What the snapshot skipped may have ended any token, so its holder must show again who it is.
        self._tell_of_auth(TokensDropped(None))
        view = store.view()
        for observer in self._observers:
            observer.tell(Published(view, self._term, self._commit, applier.allocated_bytes))
        for watcher in self._watch:
            watcher.tell(Restored(view, self._term))
        self._tell_of_restored_leases(before)
        now = self._cluster_now()
        for cluster_observer in self._cluster:
            cluster_observer.tell(now)
        message.raft.tell(SnapshotInstalled(index))
        self._step_later(self._compaction.pause_s)
        held, self._held = self._held, []
        for each in held:
            self.handle(each)

    def _tell_of_restored_leases(self, before: set[LeaseId]) -> None:
        now = {lease for lease, _, _ in self._applier.stored_leases()}
        for observer in self._lease:
            observer.tell(Revoked(sorted(before - now)))
            self._introduce_leases(observer)


class Nobody:
    """An address for answers that nobody waits for."""

    def tell(self, _message: object) -> None:
        """Drop it."""


def installed(replace_store: Callable[[Snapshot], None], message: InstallSnapshot) -> InstallSnapshot:
    """Put the snapshot into the store's place, then return *message*."""
    replace_store(message.snapshot)
    return message


def house_kept(backend: Backend, *, measures: bool) -> HouseKept:
    """Look after the store's files, and measure them if asked to."""
    backend.keep_house()
    return HouseKept(backend.size_bytes() if measures else None)


def hashed(kept_in: CompactionHashes, view: View, begun: Begun) -> CompactionHashed:
    """Hash what the compaction leaves."""
    steps = hash_compaction_steps(view, begun.revision, begun.previous, google_crc32c.extend)
    return CompactionHashed(kept_in, finish_hash(steps))


def synced(sync: Callable[[], None], snapshot: Snapshot) -> Snapshot:
    """Make durable what *snapshot* stands for, then return it."""
    sync()
    return snapshot
