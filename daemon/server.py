"""One member, from its configuration to its last breath.

Order of the start: data directory, listeners bound, log and store opened, actors, this member published through raft,
clients served, ready; a stop goes through it in reverse.  Nothing here belongs to the process as a whole: see
daemon/process.py for the daemon's, and daemon/embed.py for a member inside another program.
"""

from __future__ import annotations

import os
from concurrent.futures import Future
from concurrent.futures import TimeoutError as FutureTimeoutError
from contextlib import ExitStack, suppress
from functools import partial
from pathlib import Path
from random import Random
from typing import TYPE_CHECKING

from actors.address import Delivery
from actors.corruption import FoundCorrupt
from actors.extension_gate import STOP_TIMEOUT_S
from actors.messages.extension import StartExtensions, StopExtensions
from actors.messages.membership import StepDown
from actors.messages.serve import Drain, Open
from config.refusals import bootstrap_refusals
from core.types import MemberId
from core.version import SERVER_VERSION
from daemon.assemble import Disk, Doors, Outside, assemble
from daemon.bootstrap import BootstrapRefused, Ground, boot
from daemon.clock import SystemClock
from daemon.compiled import compiled_modules
from daemon.data_directory import DataDirectoryRefused, take
from daemon.dialling import local_address
from daemon.engines import ClientListener, PeerListener, client_places, client_security, peer_security
from daemon.extensions import ExtensionsRefused, find_extensions
from daemon.founding import FoundingRefused, discovers, in_dns, met
from daemon.joining import JoinRefused, find_cluster
from daemon.machine import resolve
from daemon.process_metrics import process_samples
from daemon.security import secure
from daemon.self_signed import SelfSignedRefused
from daemon.sockets import ListenRefused, listen
from daemon.ticker import Ticker
from daemon.tokens import make_token_scheme
from daemon.tracing import NoTracing, start_tracing
from discovery.patience import UntilStopped
from net.tls import TlsConfigurationError
from services.access import Serves
from services.tokens import JwtKeysRefused
from storage.bbolt.export import Export
from storage.leveldb import open_leveldb
from storage.schema import StorageError
from wal.background_sync import usable_in
from wal.errors import WalError
from wal.filesystem import PosixFileSystem
from wal.log import exists

if TYPE_CHECKING:
    import socket
    from collections.abc import Callable, Sequence

    import structlog

    from actors.address import Address
    from config.schema import Config
    from config.urls import Url
    from daemon.assemble import Assembled
    from daemon.bootstrap import Booted
    from daemon.data_directory import DataDirectory
    from daemon.host import ThreadHost
    from daemon.joining import FoundCluster
    from daemon.security import Transport
    from services.tracing import StartSpan

DRAIN_TIMEOUT_S = 5.0
"""How long calls in flight may take to end after a stop was asked for."""


TRAFFIC = {Serves.ALL: "grpc+http", Serves.GRPC: "grpc", Serves.HTTP: "http"}


class StartRefused(Exception):  # noqa: N818 - named for what happened
    """The member cannot start; the text is for the operator."""


REFUSALS = (
    StartRefused,
    DataDirectoryRefused,
    BootstrapRefused,
    FoundingRefused,
    FoundCorrupt,
    JoinRefused,
    JwtKeysRefused,
    ExtensionsRefused,
    ListenRefused,
    SelfSignedRefused,
    TlsConfigurationError,
    WalError,
    StorageError,
)
"""What keeps a member from starting, each with a text for the operator."""


class Running:
    """A member whose actors run.  Its methods belong to one thread, which also waits on the host."""

    def __init__(
        self,
        config: Config,
        logger: structlog.stdlib.BoundLogger,
        host: ThreadHost,
        ticker: Ticker,
        node: Assembled,
        ground: ExitStack,
    ) -> None:
        """*ground* lets go of what the actors stand on: listeners, store, data directory."""
        self._config = config
        self._logger = logger
        self._host = host
        self._ticker = ticker
        self._node = node
        self._ground = ground

    def open(self, given_up: Callable[[], bool]) -> bool:
        """Let the world in: peers at once, clients when this member is published.

        False if *given_up* said so before that.  Raises FoundCorrupt, and then only stop() is left to do.
        """
        config, logger = self._config, self._logger
        self._node.peers.tell(Open())
        for peer_url in config.member.listen_peer_urls:
            logger.info("serving peer traffic", address=str(peer_url))
        for awaited in (self._node.published, self._node.may_serve):
            while not given_up() and not self._host.retired:
                self._host.exit_if_crashed()
                try:
                    awaited.result(timeout=0.1)
                except FutureTimeoutError:
                    continue
                break
            else:
                return False
        for client in self._node.clients:
            client.tell(Open())
        if self._node.extensions is not None:
            self._node.extensions.tell(StartExtensions())
        logger.info("ready to serve client requests")
        self._tell_where_clients_are_served()
        return True

    def _tell_where_clients_are_served(self) -> None:
        logger = self._logger
        for url, serves in ((url, serves) for urls, serves in client_places(self._config) for url in urls):
            if serves is Serves.METRICS:
                logger.info("serving metrics and health", address=str(url))
                continue
            traffic = TRAFFIC[serves]
            if url.secure:
                logger.info("serving client traffic securely", traffic=traffic, address=str(url))
            else:
                logger.info(
                    "serving client traffic insecurely; this is strongly discouraged!",
                    traffic=traffic,
                    address=str(url),
                )
            logger.info("listening for client requests on", address=str(url))

    def stop(self, signal: str = "") -> None:
        """Let what is in flight end, then stop everything in order."""
        self._logger.info("stopping", signal=signal)
        node = self._node
        hand_over(node)
        # Extensions see the last call of the last client, and find their node still there when they stop.
        close_listeners(node.clients, DRAIN_TIMEOUT_S)
        stop_extensions(node, STOP_TIMEOUT_S)
        close_listeners([*node.inside, node.peers], DRAIN_TIMEOUT_S)
        with self._ground:
            self._ticker.stop()
            self._host.stop()
        self._logger.info("stopped")

    def abandon(self) -> None:
        """Let go of everything after a crash, as the end of a process does: nothing is flushed."""
        node = self._node
        close_listeners(node.clients, 0.0)
        stop_extensions(node, 0.0)
        close_listeners([*node.inside, node.peers], 0.0)
        with self._ground:
            self._ticker.stop()
            self._host.abandon()


def launch(
    config: Config,
    logger: structlog.stdlib.BoundLogger,
    host: ThreadHost,
    given_up: Callable[[], bool] = lambda: False,
) -> Running:
    """Start a member's actors on *host*.  Raises one of REFUSALS, and holds nothing then.

    A member that is to find others by discovery waits for them, until *given_up* says so: Stopped.
    """
    compiled = compiled_modules(Path(__file__).parent.parent)
    logger.info(
        "starting actcd",
        version=SERVER_VERSION,
        name=config.member.name,
        data_dir=config.member.data_dir,
        compiled_modules=len(compiled.modules),
    )
    if compiled.stale:
        logger.warning("compiled modules are older than their sources", modules=compiled.stale)
    clock = SystemClock()
    extensions = find_extensions(config.own.extensions)
    with ExitStack() as ground:
        directory = take(config.member.data_dir, config.member.wal_dir, logger)
        ground.callback(directory.close)
        is_new = not exists(directory.wal, PosixFileSystem())
        if is_new:
            config = in_dns(config, logger)
            faults = bootstrap_refusals(config, resolve)
            if faults:
                raise StartRefused("; ".join(str(fault) for fault in faults))
        elif discovers(config.clustering):
            logger.warning("discovery token is ignored since cluster already initialized; valid logs are found")
        trace = tracing_of(config, ground)
        make_token_scheme(config.auth, clock, logger)  # keys that cannot be used end the start before it begins
        transport = secure(config, logger)
        # Asked before this member listens: two that start at once must not wait for each other.
        found = ask_others(config, transport, logger) if is_new else None
        doors = bind_doors(config, transport, ground)
        if is_new:
            config = met(config, UntilStopped(given_up), logger)
        booted = boot(config, directory, Ground(PosixFileSystem(), open_leveldb, Random(), found=found), logger)
        ground.callback(booted.applier.store.backend.close)
        tell_what_was_found(booted, logger)
        ticker = Ticker(clock, config.member.heartbeat_interval_ms / 1000.0)
        outside = Outside(
            host,
            ticker,
            clock,
            doors,
            disk_of(directory, config, logger),
            logger,
            partial(process_samples, config, MemberId(booted.metadata.node_id), host),
            trace=trace,
        )
        try:
            node = assemble(config, booted, outside, extensions)
        except BaseException:
            host.abandon()  # those that have been started run already
            raise
        ticker.start()
        return Running(config, logger, host, ticker, node, ground.pop_all())


def tracing_of(config: Config, ground: ExitStack) -> StartSpan | None:
    """Return what begins the spans of calls, if that is asked for; *ground* sends the last of them."""
    if not config.tracing.enable_distributed_tracing:
        return None
    try:
        trace, end = start_tracing(config.tracing)
    except NoTracing as error:
        raise StartRefused(str(error)) from None
    ground.callback(end)
    return trace


def ask_others(config: Config, transport: Transport, logger: structlog.stdlib.BoundLogger) -> FoundCluster | None:
    """Return what other members tell of the cluster; who founds one need not find any, and hears of no trouble."""
    joins = config.clustering.initial_cluster_state == "existing"

    def complain(url: str, reason: str) -> None:
        if joins:
            logger.warning("failed to get cluster response", address=url, reason=reason)

    return find_cluster(
        others_urls(config),
        transport.dialling,
        with_versions=joins,
        local_address=local_address(config),
        complain=complain,
    )


def others_urls(config: Config) -> list[str]:
    """Return the peer URLs of the other members of the initial cluster."""
    name = config.member.name
    return [str(url) for member in config.clustering.initial_cluster if member.name != name for url in member.peer_urls]


def bind_doors(config: Config, transport: Transport, ground: ExitStack) -> Doors:
    """Listen everywhere; *ground* closes what nobody else has closed by then."""

    def opened(url: Url) -> socket.socket:
        return ground.enter_context(listen(url, reuse_port=config.member.socket_reuse_port))

    native = config.own.engine == "native"
    peers = [PeerListener(opened(url), peer_security(config, url, transport)) for url in config.member.listen_peer_urls]
    clients = [
        ClientListener(
            urls,
            # grpcio cannot take a socket over, and serves nothing but gRPC.
            opened(urls[0]) if native or serves in {Serves.HTTP, Serves.METRICS} else None,
            serves,
            client_security(config, urls, serves, transport),
        )
        for urls, serves in client_places(config)
    ]
    return Doors(clients, peers, transport.dialling)


def stop_extensions(node: Assembled, timeout_s: float) -> None:
    """Stop the extensions while all that they may need is still there."""
    if node.extensions is not None:
        stopped = unresolved()
        node.extensions.tell(StopExtensions(Delivery(Resolve(stopped), None)))
        with suppress(FutureTimeoutError):
            stopped.result(timeout=timeout_s + 1.0)


def hand_over(node: Assembled) -> None:
    """Let another member lead, if this one does and there is one."""
    handed_over = unresolved()
    node.membership.tell(StepDown(DRAIN_TIMEOUT_S, Delivery(Resolve(handed_over), None)))
    with suppress(FutureTimeoutError):
        handed_over.result(timeout=DRAIN_TIMEOUT_S + 1.0)


def close_listeners(listeners: Sequence[Address[Drain]], timeout_s: float) -> None:
    """Stop accepting, and give calls *timeout_s* to end."""
    waits: list[Future[None]] = []
    for listener in listeners:
        done = unresolved()
        listener.tell(Drain(timeout_s, Delivery(Resolve(done), None)))
        waits.append(done)
    for done in waits:
        try:
            done.result(timeout=timeout_s + 1.0)
        except FutureTimeoutError:
            return


def unresolved() -> Future[None]:
    """Return a future that nobody can cancel, so that its resolver never finds it cancelled."""
    future: Future[None] = Future()
    future.set_running_or_notify_cancel()
    return future


class Resolve:
    """An address that resolves a future, for a thread that waits outside the actors."""

    def __init__(self, future: Future[None]) -> None:
        self._future = future

    def tell(self, _message: object) -> None:
        """Resolve it."""
        self._future.set_result(None)


def disk_of(directory: DataDirectory, config: Config, logger: structlog.stdlib.BoundLogger) -> Disk:
    """Return what actors ask of the disk that the data lies on."""
    background_sync = usable_in(directory.wal) if config.own.log_sync == "kernel" else None
    logger.info("syncs of the log", made_by="a thread" if background_sync is None else background_sync.name)
    return Disk(partial(free_bytes, directory), lambda view: Export(view, directory.snap), background_sync)


def free_bytes(directory: DataDirectory) -> int:
    """Return the bytes that are free where the log or the store lies, whichever has less."""
    places = [os.statvfs(path) for path in (directory.path, directory.wal)]
    return min(place.f_bavail * place.f_frsize for place in places)


def tell_what_was_found(booted: Booted, logger: structlog.stdlib.BoundLogger) -> None:
    """Log whose data this is."""
    store = booted.applier.store
    logger.info(
        "restarting local member" if booted.restarted else "starting local member",
        local_member_id=f"{booted.metadata.node_id:x}",
        cluster_id=f"{booted.metadata.cluster_id:x}",
        revision=store.revision,
        applied_index=store.applied_index,
        commit_index=booted.raft.commit,
    )
