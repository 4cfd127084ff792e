"""One member, from its configuration to its last breath.

Order of the start: data directory, listeners bound, log and store opened, actors, this member published through raft,
clients served, ready.  SIGTERM and SIGINT stop it in reverse; then the signal is raised again with its default action,
as etcd does, so that whoever sent it sees what happened.
"""

from __future__ import annotations

import gc
import os
import signal
import socket
import sys
import traceback
from concurrent.futures import Future
from concurrent.futures import TimeoutError as FutureTimeoutError
from contextlib import suppress
from functools import partial
from random import Random
from typing import TYPE_CHECKING

from actors.address import Delivery
from actors.messages.membership import StepDown
from actors.messages.serve import Drain, Open
from config.refusals import bootstrap_refusals
from core.types import MemberId
from core.version import SERVER_VERSION
from daemon.assemble import assemble
from daemon.bootstrap import BootstrapRefused, Ground, boot
from daemon.clock import SystemClock
from daemon.data_directory import Content, DataDirectoryRefused, take
from daemon.engines import ClientListener, bind_host, client_places
from daemon.host import ThreadHost
from daemon.joining import JoinRefused, find_cluster
from daemon.logs import make_logger, route_standard_library, write_notes
from daemon.machine import resolve
from daemon.notify import notify_systemd
from daemon.process_metrics import process_samples
from daemon.ticker import Ticker
from daemon.tokens import make_token_scheme
from services.access import Serves
from services.jwt_tokens import JwtKeysRefused
from storage.bbolt.export import Export
from storage.leveldb import open_leveldb
from storage.schema import StorageError
from wal.errors import WalError
from wal.filesystem import PosixFileSystem
from wal.log import exists

if TYPE_CHECKING:
    from collections.abc import Sequence

    import structlog

    from actors.address import Address
    from config.notes import Note
    from config.schema import Config
    from config.urls import Url
    from daemon.assemble import Assembled
    from daemon.bootstrap import Booted
    from daemon.data_directory import DataDirectory

EXIT_REFUSED = 1
LISTEN_BACKLOG = 1024
DRAIN_TIMEOUT_S = 5.0
"""How long calls in flight may take to end after a stop was asked for."""

SWITCH_INTERVAL_S = 0.0005
"""How long a thread may keep the interpreter while another wants it: the core loop shares it with few others, and one
that waits for the log must not wait five milliseconds (CPython's default) for its turn."""


class StartRefused(Exception):  # noqa: N818 - named for what happened
    """The member cannot start; the text is for the operator."""


REFUSALS = (
    StartRefused,
    DataDirectoryRefused,
    BootstrapRefused,
    JoinRefused,
    JwtKeysRefused,
    WalError,
    StorageError,
)
"""What keeps a member from starting, each with a text for the operator."""


def run(config: Config, notes: Sequence[Note]) -> int:
    """Run a member until it is stopped, and return the exit code.  Ends the process itself after a signal or crash."""
    logger = make_logger(config.logging)
    route_standard_library(logger, config.logging)
    write_notes(logger, notes)
    stop = StopSignal()
    try:
        serve(config, logger, stop)
    except REFUSALS as refused:
        logger.critical("cannot start", error=str(refused))
        return EXIT_REFUSED
    except Exception as error:  # noqa: BLE001 - threads that run already would keep a half-started process alive
        logger.critical("crashed", error=repr(error), stacktrace=traceback.format_exc())
        os._exit(EXIT_REFUSED)
    stop.raise_again()
    return 0


class StopSignal:
    """SIGTERM or SIGINT, caught once."""

    def __init__(self) -> None:
        self.number: int | None = None
        self.host: ThreadHost | None = None
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._catch)

    def wakes(self, host: ThreadHost) -> None:
        """Have *host* woken by the signal, even if it has come already."""
        self.host = host
        if self.number is not None:
            host.wake()

    def raise_again(self) -> None:
        """End the process by the signal that was caught; as process 1, which signals do not end, just return."""
        if self.number is not None and os.getpid() != 1:
            signal.signal(self.number, signal.SIG_DFL)
            sys.stdout.flush()
            os.kill(os.getpid(), self.number)

    def _catch(self, number: int, _frame: object) -> None:
        self.number = number
        if self.host is not None:
            self.host.wake()


def serve(config: Config, logger: structlog.stdlib.BoundLogger, stop: StopSignal) -> None:
    """Start, serve until *stop*, and stop.  Raises what keeps it from starting."""
    logger.info("starting actcd", version=SERVER_VERSION, name=config.member.name, data_dir=config.member.data_dir)
    sys.setswitchinterval(SWITCH_INTERVAL_S)
    directory = take(config.member.data_dir, config.member.wal_dir, logger)
    if directory.content in {Content.EMPTY, Content.OTHER}:
        faults = bootstrap_refusals(config, resolve)
        if faults:
            raise StartRefused("; ".join(str(fault) for fault in faults))
    make_token_scheme(config.auth, SystemClock(), logger)  # keys that cannot be used end the start before it begins
    # Asked before this member listens: two that start at once must not wait for each other.
    found = None if exists(directory.wal, PosixFileSystem()) else find_cluster(others_urls(config))
    peer_sockets = [listen(url) for url in config.member.listen_peer_urls]
    native = config.own.engine == "native"
    client_listeners = [
        # grpcio cannot take a socket over, and serves nothing but gRPC.
        ClientListener(url, listen(url) if native or serves in {Serves.HTTP, Serves.METRICS} else None, serves)
        for url, serves in client_places(config)
    ]
    booted = boot(config, directory, Ground(PosixFileSystem(), open_leveldb, Random(), found=found), logger)
    tell_what_was_found(booted, logger)
    host = ThreadHost(logger)
    stop.wakes(host)
    clock = SystemClock()
    ticker = Ticker(clock, config.member.heartbeat_interval_ms / 1000.0)
    node = assemble(
        config,
        booted,
        host,
        ticker,
        clock,
        client_listeners,
        peer_sockets,
        partial(free_bytes, directory),
        lambda view: Export(view, directory.snap),
        logger,
        partial(process_samples, config, MemberId(booted.metadata.node_id), host),
    )
    ticker.start()
    tame_garbage_collector()
    try:
        open_listeners(config, node, host, logger, stop)
        host.wait()
    finally:
        host.exit_if_crashed()
        logger.info("stopping", signal=signal.Signals(stop.number).name if stop.number else "")
        drain(node)
        ticker.stop()
        host.stop()
        booted.applier.store.backend.close()
        directory.close()
        logger.info("stopped")


def others_urls(config: Config) -> list[str]:
    """Return the peer URLs of the other members of the initial cluster."""
    name = config.member.name
    return [str(url) for member in config.clustering.initial_cluster if member.name != name for url in member.peer_urls]


def open_listeners(
    config: Config, node: Assembled, host: ThreadHost, logger: structlog.stdlib.BoundLogger, stop: StopSignal
) -> None:
    """Let the world in: peers at once, clients when this member is published."""
    node.peers.tell(Open())
    for peer_url in config.member.listen_peer_urls:
        logger.info("serving peer traffic", address=str(peer_url))
    while stop.number is None and not host.retired:
        host.exit_if_crashed()
        try:
            node.published.result(timeout=0.1)
        except FutureTimeoutError:
            continue
        break
    else:
        return
    for client in node.clients:
        client.tell(Open())
    logger.info("ready to serve client requests")
    for url in config.member.listen_client_urls:
        logger.info("serving client traffic insecurely; this is strongly discouraged!", address=str(url))
        logger.info("listening for client requests on", address=str(url))
    for metrics_url in config.metrics.listen_metrics_urls:
        logger.info("serving metrics and health", address=str(metrics_url))
    notify_systemd(logger)


def drain(node: Assembled) -> None:
    """Hand over leadership, stop accepting, and give what is in flight some time to end."""
    handed_over = unresolved()
    node.membership.tell(StepDown(DRAIN_TIMEOUT_S, Delivery(Resolve(handed_over), None)))
    with suppress(FutureTimeoutError):
        handed_over.result(timeout=DRAIN_TIMEOUT_S + 1.0)
    waits: list[Future[None]] = []
    listeners: list[Address[Drain]] = [*node.clients, node.peers]
    for listener in listeners:
        done = unresolved()
        listener.tell(Drain(DRAIN_TIMEOUT_S, Delivery(Resolve(done), None)))
        waits.append(done)
    for done in waits:
        try:
            done.result(timeout=DRAIN_TIMEOUT_S + 1.0)
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


def listen(url: Url) -> socket.socket:
    """Return a bound, listening socket for *url*; clients that connect early wait until they are served."""
    host = bind_host(url)
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    # asyncio switches Nagle's algorithm off only on connections whose socket names its protocol; with it, messages that
    # follow each other quickly wait forty milliseconds for the other end's delayed acknowledgement.
    listening = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listening.bind((host, url.port))
        listening.listen(LISTEN_BACKLOG)
    except OSError as error:
        listening.close()
        raise StartRefused(
            f"cannot listen on {url}: {error.strerror}. Is another server running there? Choose another address"
        ) from error
    listening.setblocking(False)
    return listening


def free_bytes(directory: DataDirectory) -> int:
    """Return the bytes that are free where the log or the store lies, whichever has less."""
    places = [os.statvfs(path) for path in (directory.path, directory.wal)]
    return min(place.f_bavail * place.f_frsize for place in places)


def tame_garbage_collector() -> None:
    """Keep what the start has made out of every later collection, and collect seldom.

    Hardly anything here is in cycles: a collection in the middle of a batch costs time and finds nothing.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(50_000, 20, 50)


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
