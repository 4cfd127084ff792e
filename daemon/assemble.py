"""The wiring: the one place that names every actor.

Spawning order is start order; the host stops them in reverse.  Actors of the hot path share one loop with the sockets
(measured: a second busy Python thread adds hand-overs, not speed); what blocks outside the interpreter has a thread of
its own.
"""

from __future__ import annotations

import os
from concurrent.futures import Future
from dataclasses import dataclass
from functools import partial
from math import inf
from random import Random
from typing import TYPE_CHECKING

from actors.address import Delivery
from actors.apply import ApplyActor, CompactionPace, SnapshotPolicy
from actors.boot import BootActor
from actors.compactor import CompactorActor
from actors.corruption import Checks, CorruptionActor
from actors.extension import Place
from actors.extension_calls import InsideScheme
from actors.extension_gate import ExtensionGateActor, GateCarrier, Kind
from actors.extension_home import ExtensionHome
from actors.lease import LeaseActor
from actors.membership import MembershipActor
from actors.messages.metrics import Join
from actors.metrics import MetricsActor
from actors.peer_transport import PeerTransportActor
from actors.raft import RaftActor
from actors.serve import ServeActor
from actors.wal import WalActor
from actors.watch import WatchActor
from actors.worker import WorkerActor
from config.auth import BCRYPT_COST_DEFAULT, is_bcrypt_cost
from config.compaction import parse_auto_compaction
from config.gates import is_on
from core.alarms.quota import Quota
from core.apply.conf_state import encode_conf_state
from core.apply.header import ResponseHeaders
from core.lease.lessor import Lessor
from core.membership import v2store
from core.mvcc.auto_compaction import PeriodicSchedule, RevisionSchedule
from core.request_id import OWNERS_MAX, RequestIds
from core.types import MemberId
from core.version import MIN_CLUSTER_VERSION, SERVER_VERSION
from daemon.dialling import peer_client
from daemon.engines import (
    GRPC_OVERHEAD_BYTES,
    ClientListener,
    InsideEngine,
    http_options,
    make_client_engine,
    make_peer_engine,
)
from daemon.tokens import make_token_scheme
from net.rafthttp.headers import Identity
from services.access import Serves
from services.additions import NO_ADDITIONS, Additions
from services.node import ApiLimits
from services.passwords import Passwords
from services.timeouts import Leadership
from storage.incoming import replace_store, snapshot_path

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    import structlog

    from actors.address import Address
    from actors.messages.apply import ApplyMessage
    from actors.messages.common import Tick
    from actors.messages.extension import GateMessage, StartExtensions, StopExtensions
    from actors.messages.lease import LeaseMessage
    from actors.messages.membership import MembershipMessage
    from actors.messages.metrics import Gather, Measure
    from actors.messages.peer_transport import PeerTransportMessage
    from actors.messages.raft import RaftMessage
    from actors.messages.serve import ServeMessage
    from actors.messages.wal import WalMessage
    from actors.messages.watch import WatchMessage
    from actors.messages.worker import Work
    from actors.serve import Engine
    from config.schema import Config
    from core.clock import Clock
    from core.metrics import Sample
    from core.mvcc.auto_compaction import Schedule
    from core.mvcc.view import View
    from core.raft.messages import Snapshot
    from daemon.bootstrap import Booted
    from daemon.engines import PeerListener
    from daemon.extensions import Extension
    from daemon.host import Host
    from daemon.ticker import Ticks
    from net.tls import ClientTls
    from services.node import Export
    from services.tracing import StartSpan
    from wal.background_sync import BackgroundSync

CORE = "Core"
"""The loop that the actors of the hot path share."""

REVOKES_IN_FLIGHT_MAX = 500
HASHERS_MAX = 4
"""Threads for passwords: each hash keeps a processor for tens of milliseconds, and others need them too."""

FIRST_LISTENER_OWNER = 5
"""Of request ids: the actors that propose come before the listeners."""

LEASE_CHECKPOINT_S = 300.0
"""How often all members are told what is left of each longer lease (etcd's interval)."""

READS_PER_MS_BITS = 20

RETIRE_AFTER_S = 1.0
"""A removed member goes on for this long, so that the others get its last answers (etcd's delay)."""


class Retire:
    """An address that ends the process in order."""

    def __init__(self, host: Host) -> None:
        self._host = host

    def tell(self, _message: object) -> None:
        """End it."""
        self._host.retire()


@dataclass(frozen=True, slots=True)
class Doors:
    """Where the world comes in: bound, and listening."""

    clients: Sequence[ClientListener]
    peers: Sequence[PeerListener]
    peer_tls: ClientTls | None = None
    """The way out to peers whose URL wants TLS."""


@dataclass(frozen=True, slots=True)
class Disk:
    """What actors ask of the machine's disk."""

    free_bytes: Callable[[], int]
    """What is left where the log or the store lies."""
    make_export: Callable[[View], Export]
    background_sync: BackgroundSync | None = None
    """Syncs the log in the kernel, where that can be."""


@dataclass(frozen=True, slots=True)
class Outside:
    """What a node's actors have around them: the machine's, or a simulated one's."""

    host: Host
    ticker: Ticks
    clock: Clock
    doors: Doors
    disk: Disk
    log: structlog.stdlib.BoundLogger
    samples: Callable[[], Sequence[Sample]] = tuple
    """Gives the numbers that belong to no actor, from any thread."""
    lease_checkpoint_s: float = LEASE_CHECKPOINT_S
    trace: StartSpan | None = None
    """Begins the spans of calls; None where nothing is traced."""

    def log_of(self, actor: str) -> structlog.stdlib.BoundLogger:
        """Return the logger of one actor."""
        return self.log.bind(actor=actor)


@dataclass(frozen=True, slots=True)
class Base:
    """What others stand on: the log, the store, and threads for what takes long."""

    wal: Address[WalMessage]
    apply: Address[ApplyMessage]
    worker: Address[Work]
    checker: Address[Work]
    """Hashes what members compare."""
    exporter: Address[Work]


@dataclass(frozen=True, slots=True)
class Consensus:
    """Those who agree with other members on what happens."""

    raft: Address[RaftMessage]
    watch: Address[WatchMessage]
    lease: Address[LeaseMessage]
    peers: Address[PeerTransportMessage]
    membership: Address[MembershipMessage]


@dataclass(frozen=True, slots=True)
class Ids:
    """Which member this is, and what makes numbers that it has never used before."""

    cluster: int
    member: MemberId
    now_ms: int

    def requests_of(self, owner: int) -> RequestIds:
        """Return the request ids of one who waits for answers; each has a number of its own."""
        assert owner < OWNERS_MAX, owner
        return RequestIds(self.member, owner, self.now_ms)

    def headers(self) -> ResponseHeaders:
        """Return what makes response headers."""
        return ResponseHeaders(self.cluster, self.member)


@dataclass(frozen=True, slots=True)
class Assembled:
    """A node whose actors run, and do not serve clients yet."""

    clients: Sequence[Address[ServeMessage]]
    inside: Sequence[Address[ServeMessage]]
    """The listener that extensions call, if there are any."""
    peers: Address[PeerTransportMessage]
    membership: Address[MembershipMessage]
    published: Future[None]
    """Resolved once this member's attributes are applied: it may serve clients, unless the next one says otherwise."""
    may_serve: Future[None]
    """Resolved once its data was compared with the others'; raises FoundCorrupt where it differs."""
    extensions: Address[StartExtensions | StopExtensions] | None
    """Looks after them; None without any."""


def request_timeout_s(config: Config) -> float:
    """Return how long the server waits for a request of its own (etcd: five seconds and two election timeouts)."""
    return 5.0 + 2.0 * config.member.election_timeout_ms / 1000.0


def make_schedule(config: Config, clock: Clock) -> Schedule | None:
    """Return when to compact without being asked; None if never."""
    clustering = config.clustering
    kept = parse_auto_compaction(clustering.auto_compaction_mode, clustering.auto_compaction_retention)
    if kept.revisions:
        return RevisionSchedule(kept.revisions)
    return PeriodicSchedule(kept.period_s, clock.monotonic_s()) if kept.period_s else None


def make_checks(config: Config, booted: Booted) -> Checks:
    """Return which comparisons with other members are made; a member without data of its own has nothing to compare."""
    gates, features = config.member.feature_gates, config.features
    return Checks(
        initial=booted.restarted and is_on(gates, "InitialCorruptCheck"),
        periodic_s=features.corrupt_check_time_s,
        compaction_s=features.compact_hash_check_time_s if is_on(gates, "CompactHashCheck") else 0.0,
    )


def take_snapshot(booted: Booted, snapshot: Snapshot) -> None:
    """Replace the store by *snapshot*, whose file has been received."""
    metadata = snapshot.metadata
    received = snapshot_path(booted.snap_folder, metadata.index)
    conf_state = encode_conf_state(metadata.conf_state)
    replace_store(received, booted.applier.store.backend, conf_state, v2store.members_in(snapshot.data))


def assemble(config: Config, booted: Booted, outside: Outside, extensions: Sequence[Extension] = ()) -> Assembled:
    """Spawn the node's actors; *extensions* are started when their gate is told."""
    host, ticker = outside.host, outside.ticker
    ids = Ids(booted.metadata.cluster_id, MemberId(booted.metadata.node_id), now_ms=int(outside.clock.wall_s() * 1000))
    base = _spawn_base(config, booted, outside)
    consensus = _spawn_consensus(config, booted, outside, ids, base)
    published: Future[None] = Future()
    published.set_running_or_notify_cancel()
    keepers = _spawn_keepers(config, booted, outside, ids, base, consensus, published)
    may_serve: Future[None] = Future()
    may_serve.set_running_or_notify_cancel()
    corruption = _spawn_corruption(config, booted, outside, ids, base, consensus, may_serve)
    metrics = host.spawn(host.loop(CORE), MetricsActor, own=outside.samples, clock=outside.clock)
    gate = _spawn_gate(config, outside, ids, consensus, extensions) if extensions else None
    clients = _spawn_clients(config, booted, outside, ids, base, consensus, metrics, gate, extensions)
    sources: list[Address[Measure]] = [
        base.wal,
        base.apply,
        consensus.raft,
        consensus.watch,
        consensus.lease,
        consensus.peers,
        consensus.membership,
        corruption,
        *clients,
    ]
    for source in sources:
        metrics.tell(Join(source))
    ticking: list[Address[Tick]] = [
        base.wal,
        base.apply,
        consensus.raft,
        consensus.watch,
        consensus.lease,
        consensus.membership,
        corruption,
        *keepers,
        metrics,
        *clients,
    ]
    for listener in ticking:
        ticker.listen(listener)
    if gate is not None:
        metrics.tell(Join(gate))
    listener_count = len(outside.doors.clients)
    return Assembled(
        clients[:listener_count],
        clients[listener_count:],
        consensus.peers,
        consensus.membership,
        published,
        may_serve,
        gate,
    )


def _spawn_base(config: Config, booted: Booted, outside: Outside) -> Base:
    host, clock = outside.host, outside.clock
    own, shared = host.own_thread(), host.loop(CORE)
    janitor = host.spawn(own, WorkerActor)
    wal = host.spawn(
        shared,
        WalActor,
        log=booted.wal,
        snapshots=booted.snapshots,
        syncer=host.spawn(own, WorkerActor),
        janitor=janitor,
        background=outside.disk.background_sync,
        free_bytes=outside.disk.free_bytes,
        stall_s=config.member.election_timeout_ms / 1000.0,
        clock=clock,
        logger=outside.log_of("wal"),
    )
    worker = host.spawn(own, WorkerActor)
    checker = host.spawn(own, WorkerActor)
    exporter = host.spawn(own, WorkerActor)
    features = config.features
    apply = host.spawn(
        shared,
        ApplyActor,
        applier=booted.applier,
        wal=wal,
        worker=worker,
        checker=checker,
        defragmenter=host.spawn(own, WorkerActor),
        janitor=janitor,
        later=outside.ticker.after,
        clock=clock,
        replace_store=partial(take_snapshot, booted),
        snapshot=SnapshotPolicy(config.member.snapshot_count, booted.snapshot_index),
        slow_apply_s=features.warning_apply_duration_s,
        compaction=CompactionPace(features.compaction_batch_limit, features.compaction_sleep_interval_s),
        logger=outside.log_of("apply"),
    )
    return Base(wal, apply, worker, checker, exporter)


def _spawn_consensus(config: Config, booted: Booted, outside: Outside, ids: Ids, base: Base) -> Consensus:
    host, clock = outside.host, outside.clock
    shared, timeout_s, gates = host.loop(CORE), request_timeout_s(config), config.member.feature_gates
    # Numbers of reads rise over restarts, so that an answer from before one is no answer after it.
    raft = host.spawn(
        shared,
        RaftActor,
        booted.raft,
        base.wal,
        base.apply,
        config.member.snapshot_catchup_entries,
        ids.now_ms << READS_PER_MS_BITS,
        outside.log_of("raft"),
        tick_s=config.member.heartbeat_interval_ms / 1000.0,
    )
    watch = host.spawn(
        shared,
        WatchActor,
        headers=ids.headers(),
        fragment_size_bytes=config.member.max_request_bytes + GRPC_OVERHEAD_BYTES,
        progress_interval_s=max(config.features.watch_progress_notify_interval_s, 0.1),
        random=Random(),
        clock=clock,
        apply=base.apply,
    )
    lease = host.spawn(
        shared,
        LeaseActor,
        lessor=Lessor(
            retry_s=timeout_s,
            in_flight_max=REVOKES_IN_FLIGHT_MAX,
            checkpoint_interval_s=outside.lease_checkpoint_s if is_on(gates, "LeaseCheckpoint") else inf,
        ),
        clock=clock,
        extend_s=config.member.election_timeout_ms / 1000.0,
        apply=base.apply,
        raft=raft,
        request_ids=ids.requests_of(0),
        logger=outside.log_of("lease"),
        fast_renewals=is_on(gates, "FastLeaseKeepAlive"),
    )
    peers = host.spawn(
        shared,
        PeerTransportActor,
        identity=Identity(
            ids.cluster,
            ids.member,
            tuple(str(url) for url in config.clustering.initial_advertise_peer_urls),
            SERVER_VERSION,
            MIN_CLUSTER_VERSION,
        ),
        known=booted.known,
        make_client=lambda: peer_client(config, outside.doors.peer_tls, outside.log_of("peer")),
        make_engine=lambda http, take_over: make_peer_engine(
            config, http, take_over, outside.doors.peers, host.crashed, outside.log_of("peer")
        ),
        apply=base.apply,
        raft=raft,
        lease=lease,
        worker=base.exporter,
        checker=base.checker,
        make_export=outside.disk.make_export,
        snap_folder=booted.snap_folder,
        timeout_s=timeout_s,
        clock=clock,
        removed=lambda: outside.ticker.after(RETIRE_AFTER_S, Delivery(Retire(host), None)),
        logger=outside.log_of("peer"),
    )
    membership = host.spawn(
        shared,
        MembershipActor,
        local=ids.member,
        strict=config.clustering.strict_reconfig_check,
        request_ids=ids.requests_of(2),
        timeout_s=timeout_s,
        # Two are left, so that a leader that is there already has the time to be heard.
        downgrade_check_s=config.features.downgrade_check_time_s,
        ticks_ahead=booted.raft.config.election_ticks - 2 if config.member.initial_election_tick_advance else 0,
        clock=clock,
        apply=base.apply,
        raft=raft,
        peers=peers,
        logger=outside.log_of("membership"),
    )
    return Consensus(raft, watch, lease, peers, membership)


def _spawn_keepers(
    config: Config,
    booted: Booted,
    outside: Outside,
    ids: Ids,
    base: Base,
    consensus: Consensus,
    published: Future[None],
) -> list[Address[Tick]]:
    """Spawn those who propose by themselves what has to be done."""
    host, clock = outside.host, outside.clock
    shared, timeout_s = host.loop(CORE), request_timeout_s(config)
    boot = host.spawn(
        shared,
        BootActor,
        member=ids.member,
        name=config.member.name,
        client_urls=tuple(str(url) for url in config.clustering.advertise_client_urls),
        # Whose members are several agrees on a version once all of them are up; see MembershipActor.
        cluster_version=booted.applier.cluster.version or (MIN_CLUSTER_VERSION if len(booted.known) > 1 else ""),
        request_ids=ids.requests_of(1),
        retry_s=timeout_s,
        apply=base.apply,
        raft=consensus.raft,
        published=published,
        logger=outside.log_of("boot"),
    )
    keepers: list[Address[Tick]] = [boot]
    schedule = make_schedule(config, clock)
    if schedule is not None:
        compactor = host.spawn(
            shared,
            CompactorActor,
            schedule=schedule,
            request_ids=ids.requests_of(3),
            timeout_s=timeout_s,
            clock=clock,
            apply=base.apply,
            raft=consensus.raft,
            logger=outside.log_of("compactor"),
        )
        keepers.append(compactor)
    return keepers


def _spawn_corruption(
    config: Config,
    booted: Booted,
    outside: Outside,
    ids: Ids,
    base: Base,
    consensus: Consensus,
    may_serve: Future[None],
) -> Address[Measure | Tick]:
    host = outside.host
    return host.spawn(
        host.loop(CORE),
        CorruptionActor,
        local=ids.member,
        checks=make_checks(config, booted),
        first_timeout_s=request_timeout_s(config),
        may_serve=may_serve,
        clock=outside.clock,
        apply=base.apply,
        raft=consensus.raft,
        peers=consensus.peers,
        checker=base.checker,
        logger=outside.log_of("corruption"),
    )


def _spawn_gate(
    config: Config, outside: Outside, ids: Ids, consensus: Consensus, extensions: Sequence[Extension]
) -> Address[GateMessage]:
    host = outside.host
    kinds = [
        Kind(
            Place(
                name=each.name,
                options=each.options,
                member_id=ids.member,
                member_name=config.member.name,
                logger=outside.log.bind(extension=each.name),
                clock=outside.clock,
                later=outside.ticker.after,
            ),
            make=each.make,
            actor=each.actor,
            observes=each.make.observes_calls,
        )
        for each in extensions
    ]
    return host.spawn(
        host.loop(CORE),
        ExtensionGateActor,
        kinds=kinds,
        raft=consensus.raft,
        clock=outside.clock,
        later=outside.ticker.after,
        launch=ExtensionHome.launch,
        logger=outside.log_of("extensions"),
    )


def _additions(outside: Outside, gate: Address[GateMessage] | None, extensions: Sequence[Extension]) -> Additions:
    """Return what *extensions* add to each listener."""
    if gate is None:
        return NO_ADDITIONS
    return Additions(
        carrier=GateCarrier(gate),
        clock=outside.clock,
        methods={path: number for number, each in enumerate(extensions) for path in each.make.methods},
        streams={path: number for number, each in enumerate(extensions) for path in each.make.streams},
        pages={path: number for number, each in enumerate(extensions) for path in each.make.pages},
        observes=any(each.make.observes_calls for each in extensions),
    )


def _spawn_clients(
    config: Config,
    booted: Booted,
    outside: Outside,
    ids: Ids,
    base: Base,
    consensus: Consensus,
    metrics: Address[Gather],
    gate: Address[GateMessage] | None,
    extensions: Sequence[Extension],
) -> list[Address[ServeMessage]]:
    host, member = outside.host, config.member
    own, shared, logger = host.own_thread(), host.loop(CORE), outside.log_of("serve")
    hashers = [host.spawn(own, WorkerActor) for _ in range(min(os.cpu_count() or 1, HASHERS_MAX))]
    profiler = host.spawn(own, WorkerActor)
    cost = config.auth.bcrypt_cost
    passwords = Passwords(
        cost if is_bcrypt_cost(cost) else BCRYPT_COST_DEFAULT, config.own.auth_password_characters_min, os.urandom
    )
    additions = _additions(outside, gate, extensions)

    def make_engine_of(listening: ClientListener | None) -> Callable[..., Engine]:
        if listening is None:
            assert gate is not None, "nobody to serve"
            return lambda routes, _http, _on_batch_end: InsideEngine(gate, routes)
        return partial(make_client_engine, config, listening, fatal=host.crashed, logger=logger)

    def spawn(owner: int, listening: ClientListener | None) -> Address[ServeMessage]:
        """Spawn one that listens to clients; without *listening*, to extensions."""
        inside = listening is None
        return host.spawn(
            shared,
            ServeActor,
            headers=ids.headers(),
            limits=ApiLimits(member.max_request_bytes, member.max_txn_ops),
            request_ids=ids.requests_of(owner),
            request_timeout_s=request_timeout_s(config),
            quota=Quota(member.quota_backend_bytes),
            # It may be asked on another actor's thread because that is the same thread: both live on one loop.
            counter=booted.applier.counter_for,
            slow_request_s=config.logging.warning_unary_request_duration_s,
            make_engine=make_engine_of(listening),
            wal=base.wal,
            raft=consensus.raft,
            apply=base.apply,
            watch=consensus.watch,
            lease=consensus.lease,
            membership=consensus.membership,
            peers=consensus.peers,
            leadership=Leadership(ids.member, member.election_timeout_ms / 1000.0),
            clock=outside.clock,
            metrics=metrics,
            worker=base.worker,
            checker=base.checker,
            exporter=base.exporter,
            make_export=outside.disk.make_export,
            hashers=hashers,
            passwords=passwords,
            tokens=InsideScheme() if inside else make_token_scheme(config.auth, outside.clock, logger),
            client_cert_auth=config.security.client_cert_auth,
            logger=logger,
            http=http_options(config, Serves.GRPC if listening is None else listening.serves, logger),
            profiler=profiler,
            revokes_first=is_on(member.feature_gates, "PriorityRequest"),
            stops_on_defragment=is_on(member.feature_gates, "StopGRPCServiceOnDefrag"),
            additions=NO_ADDITIONS if inside else additions,
            trace=None if inside else outside.trace,
        )

    listeners: list[ClientListener | None] = [*outside.doors.clients, *(() if gate is None else (None,))]
    return [spawn(owner, listening) for owner, listening in enumerate(listeners, FIRST_LISTENER_OWNER)]
