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
from random import Random
from typing import TYPE_CHECKING

from actors.address import Delivery
from actors.apply import ApplyActor, CompactionPace, SnapshotPolicy
from actors.boot import BootActor
from actors.compactor import CompactorActor
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
from core.apply.conf_state import encode_conf_state
from core.apply.header import ResponseHeaders
from core.lease.lessor import Lessor
from core.mvcc.auto_compaction import PeriodicSchedule, RevisionSchedule
from core.request_id import OWNERS_MAX, RequestIds
from core.types import MemberId
from core.version import MIN_CLUSTER_VERSION, SERVER_VERSION
from daemon.engines import GRPC_OVERHEAD_BYTES, http_options, make_client_engine, make_peer_engine
from daemon.tokens import make_token_scheme
from net.rafthttp.client import PeerClient
from net.rafthttp.headers import Identity
from services.node import ApiLimits
from services.passwords import Passwords
from services.timeouts import Leadership
from storage.incoming import replace_store, snapshot_path

if TYPE_CHECKING:
    import socket
    from collections.abc import Callable, Sequence

    import structlog

    from actors.address import Address
    from actors.messages.common import Tick
    from actors.messages.membership import MembershipMessage
    from actors.messages.metrics import Measure
    from actors.messages.peer_transport import PeerTransportMessage
    from actors.messages.serve import ServeMessage
    from config.schema import Config
    from core.clock import Clock
    from core.metrics import Sample
    from core.mvcc.auto_compaction import Schedule
    from core.mvcc.view import View
    from core.raft.messages import Snapshot
    from daemon.bootstrap import Booted
    from daemon.engines import ClientListener
    from daemon.host import Host
    from daemon.ticker import Ticks
    from services.node import Export

REVOKES_IN_FLIGHT_MAX = 500
HASHERS_MAX = 4
"""Threads for passwords: each hash keeps a processor for tens of milliseconds, and others need them too."""

FIRST_LISTENER_OWNER = 5
"""Of request ids: the actors that propose come before the listeners."""

READS_PER_MS_BITS = 20
DIAL_TIMEOUT_S = 1.0
"""Beside an election timeout (etcd's rule)."""

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
class Assembled:
    """A node whose actors run, and do not serve clients yet."""

    clients: Sequence[Address[ServeMessage]]
    peers: Address[PeerTransportMessage]
    membership: Address[MembershipMessage]
    published: Future[None]
    """Resolved once this member's attributes are applied: it may serve clients."""


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


def take_snapshot(booted: Booted, snapshot: Snapshot) -> None:
    """Replace the store by *snapshot*, whose file has been received."""
    metadata = snapshot.metadata
    received = snapshot_path(booted.snap_folder, metadata.index)
    replace_store(received, booted.applier.store.backend, encode_conf_state(metadata.conf_state))


def assemble(
    config: Config,
    booted: Booted,
    host: Host,
    ticker: Ticks,
    clock: Clock,
    client_listeners: Sequence[ClientListener],
    peer_sockets: Sequence[socket.socket],
    free_bytes: Callable[[], int],
    make_export: Callable[[View], Export],
    logger: structlog.stdlib.BoundLogger,
    samples: Callable[[], Sequence[Sample]] = tuple,
) -> Assembled:
    """Spawn the node's actors.  *samples* gives the numbers that belong to none of them, from any thread."""
    member, cluster = MemberId(booted.metadata.node_id), booted.metadata.cluster_id
    now_ms = int(clock.wall_s() * 1000)
    own, shared = host.own_thread(), host.loop("Core")
    timeout_s = request_timeout_s(config)
    retention = SnapshotPolicy(config.member.snapshot_count, booted.snapshot_index)
    pace = CompactionPace(config.features.compaction_batch_limit, config.features.compaction_sleep_interval_s)

    def headers() -> ResponseHeaders:
        return ResponseHeaders(cluster, member)

    def bind(actor: str) -> structlog.stdlib.BoundLogger:
        return logger.bind(actor=actor)

    wal = host.spawn(
        shared,
        WalActor,
        log=booted.wal,
        snapshots=booted.snapshots,
        syncer=host.spawn(own, WorkerActor),
        free_bytes=free_bytes,
        clock=clock,
        logger=bind("wal"),
    )
    worker = host.spawn(own, WorkerActor)
    exporter = host.spawn(own, WorkerActor)
    hashers = [host.spawn(own, WorkerActor) for _ in range(min(os.cpu_count() or 1, HASHERS_MAX))]
    apply = host.spawn(
        shared,
        ApplyActor,
        applier=booted.applier,
        wal=wal,
        worker=worker,
        later=ticker.after,
        clock=clock,
        replace_store=partial(take_snapshot, booted),
        snapshot=retention,
        slow_apply_s=config.features.warning_apply_duration_s,
        compaction=pace,
        logger=bind("apply"),
    )
    catch_up = config.member.snapshot_catchup_entries
    # Numbers of reads rise over restarts, so that an answer from before one is no answer after it.
    raft = host.spawn(shared, RaftActor, booted.raft, wal, apply, catch_up, now_ms << READS_PER_MS_BITS, bind("raft"))
    watch = host.spawn(
        shared,
        WatchActor,
        headers=headers(),
        fragment_size_bytes=config.member.max_request_bytes + GRPC_OVERHEAD_BYTES,
        progress_interval_s=max(config.features.watch_progress_notify_interval_s, 0.1),
        random=Random(),
        clock=clock,
        apply=apply,
    )
    lease = host.spawn(
        shared,
        LeaseActor,
        lessor=Lessor(retry_s=timeout_s, in_flight_max=REVOKES_IN_FLIGHT_MAX),
        clock=clock,
        extend_s=config.member.election_timeout_ms / 1000.0,
        apply=apply,
        raft=raft,
        request_ids=RequestIds(member, 0, now_ms),
        logger=bind("lease"),
    )
    published: Future[None] = Future()
    published.set_running_or_notify_cancel()
    boot = host.spawn(
        shared,
        BootActor,
        member=member,
        name=config.member.name,
        client_urls=tuple(str(url) for url in config.clustering.advertise_client_urls),
        # Whose members are several agrees on a version once all of them are up; see MembershipActor.
        cluster_version=booted.applier.cluster.version or (MIN_CLUSTER_VERSION if len(booted.known) > 1 else ""),
        request_ids=RequestIds(member, 1, now_ms),
        retry_s=timeout_s,
        apply=apply,
        raft=raft,
        published=published,
        logger=bind("boot"),
    )
    peers = host.spawn(
        shared,
        PeerTransportActor,
        identity=Identity(
            cluster,
            member,
            tuple(str(url) for url in config.clustering.initial_advertise_peer_urls),
            SERVER_VERSION,
            MIN_CLUSTER_VERSION,
        ),
        known=booted.known,
        make_client=lambda: PeerClient(None, DIAL_TIMEOUT_S + config.member.election_timeout_ms / 1000.0),
        make_engine=lambda http, take_over: make_peer_engine(http, take_over, peer_sockets, host.crashed, bind("peer")),
        apply=apply,
        raft=raft,
        lease=lease,
        worker=exporter,
        make_export=make_export,
        snap_folder=booted.snap_folder,
        timeout_s=timeout_s,
        clock=clock,
        removed=lambda: ticker.after(RETIRE_AFTER_S, Delivery(Retire(host), None)),
        logger=bind("peer"),
    )
    membership = host.spawn(
        shared,
        MembershipActor,
        local=member,
        strict=config.clustering.strict_reconfig_check,
        request_ids=RequestIds(member, 2, now_ms),
        timeout_s=timeout_s,
        # Two are left, so that a leader that is there already has the time to be heard.
        ticks_ahead=booted.raft.config.election_ticks - 2 if config.member.initial_election_tick_advance else 0,
        clock=clock,
        apply=apply,
        raft=raft,
        peers=peers,
        logger=bind("membership"),
    )
    schedule = make_schedule(config, clock)
    compactors = (
        []
        if schedule is None
        else [
            host.spawn(
                shared,
                CompactorActor,
                schedule=schedule,
                request_ids=RequestIds(member, 3, now_ms),
                timeout_s=timeout_s,
                clock=clock,
                apply=apply,
                raft=raft,
                logger=bind("compactor"),
            )
        ]
    )
    metrics = host.spawn(shared, MetricsActor, own=samples, clock=clock)
    profiler = host.spawn(own, WorkerActor)
    cost = config.auth.bcrypt_cost
    passwords = Passwords(
        cost if is_bcrypt_cost(cost) else BCRYPT_COST_DEFAULT, config.own.auth_password_characters_min, os.urandom
    )
    assert len(client_listeners) + FIRST_LISTENER_OWNER <= OWNERS_MAX, len(client_listeners)
    clients = [
        host.spawn(
            shared,
            ServeActor,
            headers=headers(),
            limits=ApiLimits(config.member.max_request_bytes, config.member.max_txn_ops),
            request_ids=RequestIds(member, owner, now_ms),
            request_timeout_s=timeout_s,
            quota_bytes=config.member.quota_backend_bytes if config.member.quota_backend_bytes > 0 else None,
            # It may be asked on another actor's thread because that is the same thread: both live on one loop.
            counter=booted.applier.counter_for,
            slow_request_s=config.logging.warning_unary_request_duration_s,
            make_engine=partial(make_client_engine, config, listening, fatal=host.crashed, logger=bind("serve")),
            wal=wal,
            raft=raft,
            apply=apply,
            watch=watch,
            lease=lease,
            membership=membership,
            peers=peers,
            leadership=Leadership(member, config.member.election_timeout_ms / 1000.0),
            clock=clock,
            metrics=metrics,
            worker=worker,
            exporter=exporter,
            make_export=make_export,
            hashers=hashers,
            passwords=passwords,
            tokens=make_token_scheme(config.auth, clock, bind("serve")),
            client_cert_auth=config.security.client_cert_auth,
            logger=bind("serve"),
            http=http_options(config, listening.serves),
            profiler=profiler,
        )
        for owner, listening in enumerate(client_listeners, FIRST_LISTENER_OWNER)
    ]
    sources: list[Address[Measure]] = [wal, apply, raft, watch, lease, peers, *clients]
    for source in sources:
        metrics.tell(Join(source))
    ticking: list[Address[Tick]] = [wal, apply, raft, watch, lease, boot, membership, *compactors, metrics, *clients]
    for listener in ticking:
        ticker.listen(listener)
    return Assembled(clients, peers, membership, published)
