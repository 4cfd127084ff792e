"""One member through all its lives: what it is started from, a crash, another start.

A start is the daemon's own: boot and assemble, on a simulated disk and host.  Sockets are all that is missing.
"""

from __future__ import annotations

import sys
from pathlib import Path
from random import Random
from typing import TYPE_CHECKING, Any, cast

import structlog

from actors.messages.serve import Open
from actors.raft import RaftActor
from config.schema import Clustering, Config, Features
from config.schema import Member as MemberSection
from config.urls import InitialMember, parse_urls
from core.membership.member import Member as StoredMember
from daemon.assemble import Assembled, Disk, Doors, Outside, assemble
from daemon.bootstrap import Booted, BootstrapRefused, Ground, boot
from daemon.data_directory import Content, DataDirectory
from daemon.engines import ClientListener
from sim.disk import SimBackend, SimBackgroundSync, SimFileSystem
from sim.host import SimClock, SimHost, SimTicker
from sim.network import SimPeers
from sim.schedule import Failure
from storage.schema import StorageError
from wal.errors import DiskFull, WalError

if TYPE_CHECKING:
    from collections.abc import Callable

    from actors.address import Address
    from actors.base import NodeActor
    from core.raft.node import RaftNode
    from net.rpc import Routes
    from sim.cluster import Cluster
    from sim.connections import Call, Stream
    from wal.background_sync import BackgroundSync

PLENTY_BYTES = 1 << 40
LEASE_CHECKPOINT_S = 1.0
"""Often enough for what is left of leases to matter to a new leader within a run."""

TICK_S = 0.1


class Engine:
    """What stands for a listener's engine: clients call its routes."""

    delivering = False

    def __init__(self, routes: Routes) -> None:
        self.routes = routes
        self.open = False

    async def start(self) -> None:
        """Let clients in."""
        self.open = True

    def flush(self) -> None:
        """Do nothing: answers arrive as they are given."""

    async def drain(self, _timeout_s: float) -> None:
        """Let nobody in any more."""
        self.open = False

    async def close(self) -> None:
        """Do nothing further: connections end with the process."""


def quiet_logger() -> structlog.stdlib.BoundLogger:
    """Return a logger that writes nothing."""
    logger: structlog.stdlib.BoundLogger = structlog.wrap_logger(
        structlog.PrintLogger(sys.stderr), processors=[drop], wrapper_class=structlog.stdlib.BoundLogger
    )
    return logger


def drop(_logger: Any, _method: str, _event: Any) -> Any:  # noqa: ANN401 - a structlog processor
    """Drop a log entry."""
    raise structlog.DropEvent


class Member:
    """One member of the cluster."""

    def __init__(self, number: int, cluster: Cluster) -> None:
        settings = cluster.settings
        self.name = f"m{number}"
        self.life = 0
        self.connections: list[Call | Stream] = []
        """Those that end with the process."""
        self.crashes_expected = False
        """Whether the disk has been made to fail, so that the process ends."""
        self.restarting = False
        self.rate = settings.clock_rates[number - 1]
        self._cluster = cluster
        self._schedule = cluster.schedule
        self._random = Random(f"member {number} {cluster.seed}")
        self.sync_s = settings.sync_s
        self.stall_s = 0.0
        """How much longer the next sync takes."""
        self.fs = SimFileSystem(self._spend_sync)
        self.backend = SimBackend()
        self.backend.watcher = cluster.checks.store_of(self.name)
        root = Path("/data")
        self._directory = DataDirectory(root, root / "member" / "wal", Content.EMPTY, -1)
        self.fs.make_folder(self._directory.snap)
        self._clock = SimClock(self._schedule, self.rate, self._random.uniform(0.0, 100.0))
        self._config = self._configure(number)
        clustering = self._config.clustering
        urls = [str(url) for url in clustering.initial_advertise_peer_urls]
        self.id = StoredMember.new(self.name, urls, clustering.initial_cluster_token).id
        self.host: SimHost | None = None
        self.booted: Booted
        self.engine: Engine | None = None
        self._node: Assembled
        self._peers: SimPeers | None = None

    def _configure(self, number: int) -> Config:
        settings = self._cluster.settings
        members = tuple(
            InitialMember(f"m{each}", parse_urls(f"http://m{each}:2380")) for each in range(1, settings.members + 1)
        )
        return Config(
            member=MemberSection(
                name=self.name,
                data_dir="/data",
                wal_dir="/data/member/wal",
                snapshot_count=settings.snapshot_count,
                heartbeat_interval_ms=int(TICK_S * 1000),
            ),
            clustering=Clustering(
                initial_cluster=members,
                initial_advertise_peer_urls=members[number - 1].peer_urls,
                advertise_client_urls=parse_urls(f"http://{self.name}:2379"),
            ),
            features=Features(compaction_batch_limit=10),
        )

    @property
    def running(self) -> bool:
        """Whether the process is there."""
        return self.host is not None and self.host.alive

    @property
    def raft(self) -> RaftNode:
        """Its consensus core, for the checks."""
        return self.booted.raft

    @property
    def clock(self) -> SimClock:
        """Its clock."""
        return self._clock

    def start(self) -> bool:
        """Start the process; False if the disk failed meanwhile."""
        self.life += 1
        self.engine = None
        ground = Ground(self.fs, lambda _path: self.backend, self._random, self._cluster.settings.segment_size_bytes)
        logger = quiet_logger()
        try:
            self.booted = boot(self._config, self._directory, ground, logger)
        except (BootstrapRefused, StorageError, ValueError, WalError, OSError) as error:
            full = isinstance(error, DiskFull) and self.fs.capacity_bytes is not None
            if not full and not (self.crashes_expected and isinstance(error, WalError | OSError)):
                raise Failure(f"{self.name} cannot start: {error!r}") from error
            self._schedule.note(self.name, f"cannot start: {error}")
            return False
        self.host = SimHost(
            self.name, self._schedule, self._clock, self._random, self._cluster.settings.hop_s, around=self
        )
        ticker = SimTicker(self.host, self.rate, TICK_S)
        self._schedule.note(self.name, f"starts, applied {self.raft.applied}, log to {self.raft.log.last}")
        self._cluster.checks.restarted(self)
        outside = Outside(
            self.host,
            ticker,
            self._clock,
            Doors([ClientListener(parse_urls(f"http://{self.name}:2379"), None)], ()),
            Disk(self._free_bytes, no_export, self._background_sync(self.host)),
            logger,
            lease_checkpoint_s=LEASE_CHECKPOINT_S,
        )
        self._node = assemble(self._config, self.booted, outside)
        ticker.start()
        self._schedule.after(TICK_S, self._open_when_published)
        return True

    def _open_when_published(self) -> None:
        host = self.host
        if host is None or not host.alive:
            return
        if self._node.published.done():
            for client in self._node.clients:
                client.tell(Open())
        else:
            host.schedule.after(TICK_S, self._open_when_published)

    def end(self, *, power: bool) -> None:
        """End the process at once; with *power* the machine loses power too."""
        self._schedule.note(self.name, "power fails" if power else "killed")
        if self.host is not None:
            self.host.end()
        connections, self.connections = self.connections, []
        for connection in connections:
            connection.break_off()
        if self._peers is not None:
            self._cluster.network.disconnect(self.id)
            self._peers = None
        if power:
            self.fs.crash(self._random)
            self.backend.fail_power(self._random)
        else:
            self.fs.end_process()
        self.crashes_expected = False

    # -- what its host asks ------------------------------------------------------------------------------------------

    def delivered(self, actor: NodeActor[Any]) -> None:
        """See Surroundings."""
        if type(actor) is RaftActor:
            self._cluster.checks.look(self)

    def crashed(self, actor: str, error: BaseException) -> None:
        """See Surroundings: a failing disk ends the process, anything else is a bug."""
        if not self.crashes_expected:
            raise Failure(f"{actor} of {self.name} crashed: {error!r}") from error
        self._schedule.note(self.name, f"{actor} stops the process: {error}")
        if self.host is not None:
            self.host.end()
        self._cluster.faults.fell(self)

    def attach(self, **kwargs: Any) -> Address[Any]:  # noqa: ANN401 - see Surroundings
        """See Surroundings."""
        self._peers = SimPeers(self.name, self.id, self._cluster.network, kwargs)
        self._cluster.network.connect(self.id, self._peers)
        return self._peers

    def make_engine(self, routes: Routes, *_: object) -> Engine:
        """See Surroundings."""
        self.engine = Engine(routes)
        return self.engine

    def address_of(self, actor: NodeActor[Any]) -> Address[Any]:
        """See Surroundings."""
        return self._cluster.plant(actor)

    # -- its disk ----------------------------------------------------------------------------------------------------

    def _next_sync_s(self) -> float:
        stall_s, self.stall_s = self.stall_s, 0.0
        return stall_s + self._random.expovariate(1.0 / self.sync_s)

    def _spend_sync(self) -> None:
        self._schedule.spent_s += self._next_sync_s()

    def _background_sync(self, host: SimHost) -> BackgroundSync | None:
        if not self._cluster.settings.background_sync:
            return None

        def later(end: Callable[[], None]) -> None:
            self._schedule.after(self._next_sync_s(), lambda: end() if host.alive else None)

        return cast("BackgroundSync", SimBackgroundSync(self.fs, later))

    def _free_bytes(self) -> int:
        capacity = self.fs.capacity_bytes
        return PLENTY_BYTES if capacity is None else max(0, capacity - self.fs.used_bytes())


def no_export(_view: object) -> Any:  # noqa: ANN401 - never called
    """Stand for snapshots, which no simulated client asks for."""
    raise AssertionError("nobody asks for a snapshot")
