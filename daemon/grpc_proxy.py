"""The command `actcd grpc-proxy start`: flags to actors, and the life of the process.

Also where a member with the old setting ``proxy: on`` is led to.
"""

from __future__ import annotations

import os
import random
import socket
import sys
import traceback
from concurrent.futures import TimeoutError as FutureTimeoutError
from contextlib import ExitStack
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from actors.address import Delivery
from actors.messages.metrics import Join
from actors.messages.serve import Drain, Open
from actors.metrics import MetricsActor
from actors.worker import WorkerActor
from config.grpc_proxy import ProxyFlags, help_text, read_flags
from config.schema import Logging
from config.start_flags import FlagsRefused, HelpWanted
from config.tls import CIPHER_SUITES, TLS_13_SUITES
from core.metrics import Sample
from core.version import SERVER_VERSION
from daemon.clock import SystemClock
from daemon.engines import NativeEngine
from daemon.host import ThreadHost
from daemon.logs import make_logger, route_standard_library
from daemon.notify import notify_ready, notify_stopping
from daemon.process import SWITCH_INTERVAL_S, StopSignal, tame_garbage_collector
from daemon.profiles import PROFILES
from daemon.self_signed import SelfSignedRefused, self_signed
from daemon.server import Resolve, unresolved
from daemon.sockets import LISTEN_BACKLOG
from daemon.ticker import Ticker
from grpcproxy.channels import channels
from grpcproxy.front import FrontActor
from grpcproxy.leases import LeasesActor
from grpcproxy.namespace import Namespace
from grpcproxy.pages import fetch_page
from grpcproxy.registry import RegistryActor
from grpcproxy.settings import Front, Upstream, UpstreamTls
from grpcproxy.upstream import UpstreamActor, address_of
from grpcproxy.watches import WatchesActor
from net.door import Security
from net.listener import NativeListener
from net.rpc import Limits, Routes
from net.srv import LookupFailed, find_clients
from net.tls import ServerTls, TlsConfigurationError, TlsFiles
from proxy.secure import check_endpoints

if TYPE_CHECKING:
    import ssl
    from collections.abc import Callable, Sequence

    import structlog

    from actors.address import Address
    from actors.messages.common import Tick
    from actors.messages.metrics import Measure
    from grpcproxy.messages import FrontMessage
    from net.rpc import HttpHandler

EXIT_FAILED = 1
TICK_S = 0.1
DRAIN_TIMEOUT_S = 5.0
RECEIVE_BYTES_MAX = 4 * 1024 * 1024
"""Largest message of a client (the default of grpc-go, which etcd's proxy leaves as it is)."""

PORT_MAX = 65535


class ProxyRefused(Exception):  # noqa: N818 - named for what happened
    """The proxy cannot start; the text is for the operator."""


@dataclass(frozen=True, slots=True)
class Plan:
    """Everything that a start needs to know."""

    upstream: Upstream
    front: Front
    limits: Limits
    sockets: tuple[socket.socket, ...]
    metrics_sockets: tuple[socket.socket, ...]
    pages_secure: bool
    """Whether the pages' listener speaks TLS, too."""
    server_tls: ServerTls | None
    """For clients; None without TLS."""
    fetching: ssl.SSLContext | None
    """For the members' pages; None without TLS."""


def run(arguments: Sequence[str]) -> int:
    """Do what the *arguments* behind the word `grpc-proxy` ask for, and return the exit code."""
    try:
        flags = read_flags(arguments)
    except HelpWanted:
        print(help_text(), end="")  # noqa: T201 - asked for
        return 0
    except FlagsRefused as refused:
        print(refused, file=sys.stderr)  # noqa: T201 - there is no logger yet
        return EXIT_FAILED
    logging = Logging(log_level="debug" if flags.debug else "info")
    logger = make_logger(logging)
    route_standard_library(logger, logging)
    return run_plan(lambda _stopped: plan(flags, logger), logger)


def run_plan(make_plan: Callable[[Callable[[], bool]], Plan | None], logger: structlog.stdlib.BoundLogger) -> int:
    """Run a proxy until it is stopped.  Ends the process itself after a signal or crash."""
    stop = StopSignal()
    sys.setswitchinterval(SWITCH_INTERVAL_S)
    try:
        made = make_plan(stop.came)
        if made is not None:
            serve(made, logger, stop)
    except (ProxyRefused, TlsConfigurationError, SelfSignedRefused) as refused:
        logger.critical("cannot start", error=str(refused))
        return EXIT_FAILED
    except Exception as error:  # noqa: BLE001 - threads that run already would keep a half-started process alive
        logger.critical("crashed", error=repr(error), stacktrace=traceback.format_exc())
        os._exit(EXIT_FAILED)
    stop.raise_again()
    return 0


def serve(plan: Plan, logger: structlog.stdlib.BoundLogger, stop: StopSignal) -> None:
    """Start, serve until *stop*, and stop."""
    logger.info(
        "starting the grpc proxy",
        version=SERVER_VERSION,
        endpoints=plan.upstream.endpoints,
        namespace=plan.front.namespace,
    )
    host = ThreadHost(logger)
    clock = SystemClock()
    ticker = Ticker(clock, TICK_S)
    try:
        fronts = assemble(plan, host, ticker, clock, logger)
    except BaseException:
        host.abandon()
        raise
    ticker.start()
    stop.wakes(host)
    tame_garbage_collector()
    try:
        for front in fronts:
            front.tell(Open())
        host.wait()
    finally:
        host.exit_if_crashed()
        notify_stopping(logger)
        logger.info("stopping", signal=stop.name)
        drain(fronts)
        ticker.stop()
        host.stop()
        logger.info("stopped")


def assemble(
    plan: Plan, host: ThreadHost, ticker: Ticker, clock: SystemClock, logger: structlog.stdlib.BoundLogger
) -> list[Address[FrontMessage]]:
    """Spawn the proxy's actors; return those that serve."""
    shared, own = host.loop("Core"), host.own_thread()
    settings = plan.front
    namespace = Namespace(settings.namespace) if settings.namespace else None
    upstream = host.spawn(
        shared,
        UpstreamActor,
        settings=plan.upstream,
        make_channel=channels(plan.upstream),
        logger=logger.bind(actor="upstream"),
    )
    watches = host.spawn(shared, WatchesActor, upstream=upstream, namespace=namespace)
    leases = host.spawn(shared, LeasesActor, upstream=upstream)
    worker = host.spawn(own, WorkerActor)
    metrics = host.spawn(shared, MetricsActor, own=partial(process_numbers, host), clock=clock)
    endpoints = list(plan.upstream.endpoints)
    random.SystemRandom().shuffle(endpoints)

    def tell_ready() -> None:
        logger.info("ready to serve client requests")
        notify_ready(logger)

    def front(sockets: Sequence[socket.socket], *, for_pages: bool) -> Address[FrontMessage]:
        secure = plan.server_tls is not None and (plan.pages_secure or not for_pages)

        def make_engine(routes: Routes, http: HttpHandler) -> NativeEngine:
            listener = NativeListener(
                Routes({}, {}) if for_pages else routes,
                http,
                plan.limits,
                logger.bind(actor="front"),
                fatal=lambda error: host.crashed("FrontActor", error),
                security=Security(plan.server_tls) if secure and plan.server_tls is not None else None,
            )
            return NativeEngine([(listener, each) for each in sockets])

        return host.spawn(
            shared,
            FrontActor,
            settings=replace(
                settings,
                ordered=settings.ordered and not for_pages,
                leasing_prefix=b"" if for_pages else settings.leasing_prefix,
            ),
            namespace=namespace,
            endpoints=endpoints,
            upstream=upstream,
            watches=watches,
            leases=leases,
            worker=worker,
            metrics=metrics,
            fetch_metrics=partial(fetch_page, endpoints, "/metrics", plan.fetching),
            make_engine=make_engine,
            clock=clock,
            opened=(lambda: None) if for_pages else tell_ready,
            logger=logger.bind(actor="front"),
        )

    main = front(plan.sockets, for_pages=False)
    fronts = [main]
    if plan.metrics_sockets:
        fronts.append(front(plan.metrics_sockets, for_pages=True))
    ticking: list[Address[Tick]] = [upstream, watches, leases, metrics, *fronts]
    if settings.resolver_prefix:
        registry = host.spawn(
            shared,
            RegistryActor,
            settings=settings,
            upstream=upstream,
            front=main,
            logger=logger.bind(actor="registry"),
        )
        ticking.append(registry)
    sources: list[Address[Measure]] = [upstream, watches, main]
    for source in sources:
        metrics.tell(Join(source))
    for each in ticking:
        ticker.listen(each)
    return fronts


def process_numbers(host: ThreadHost) -> list[Sample]:
    """Return the numbers that are no actor's own."""
    return [Sample("etcd_server_version", 1, (SERVER_VERSION,)), *host.samples()]


def drain(fronts: Sequence[Address[FrontMessage]]) -> None:
    """Stop accepting, and give calls in flight some time to end."""
    waits = []
    for front in fronts:
        done = unresolved()
        front.tell(Drain(DRAIN_TIMEOUT_S, Delivery(Resolve(done), None)))
        waits.append(done)
    for done in waits:
        try:
            done.result(timeout=DRAIN_TIMEOUT_S + 1.0)
        except FutureTimeoutError:
            return


# -- from flags to a plan --------------------------------------------------------------------------------------------


def plan(flags: ProxyFlags, logger: structlog.stdlib.BoundLogger) -> Plan:
    """Read files, look names up and bind.  Raises ProxyRefused."""
    urls = discovered(flags, logger) or [text.strip() for text in flags.endpoints.split(",") if text.strip()]
    tls = upstream_tls(flags, urls)
    if tls is not None and not tls.verify:
        logger.warning(
            "--insecure-skip-tls-verify was given, this grpc proxy process skips authentication of etcd server TLS "
            "certificates. This option should be enabled only for testing purposes."
        )
    upstream = Upstream(
        endpoints=tuple(address_of(url) for url in urls),
        tls=tls,
        sync_interval_s=flags.endpoints_auto_sync_interval,
        keepalive_time_s=flags.dial_keepalive_time,
        keepalive_timeout_s=flags.dial_keepalive_timeout,
        keepalive_when_idle=flags.permit_without_stream,
        send_bytes_max=flags.max_send_bytes,
        receive_bytes_max=flags.max_recv_bytes,
    )
    front = Front(
        profiles=PROFILES if flags.enable_pprof else {},
        namespace=flags.namespace.encode("utf-8", "surrogateescape"),
        leasing_prefix=flags.experimental_leasing_prefix.encode("utf-8", "surrogateescape"),
        advertise_client_url=flags.advertise_client_url,
        resolver_prefix=flags.resolver_prefix,
        resolver_ttl_s=flags.resolver_ttl,
        ordered=flags.experimental_serializable_ordering,
        log_calls=flags.experimental_enable_grpc_logging,
        host_name=socket.gethostname(),
    )
    limits = Limits(
        receive_message_bytes_max=RECEIVE_BYTES_MAX,
        concurrent_streams_max=flags.max_concurrent_streams,
        keepalive_min_time_s=max(flags.grpc_keepalive_min_time, 0.0),
        keepalive_interval_s=max(flags.grpc_keepalive_interval, 0.0),
        keepalive_timeout_s=max(flags.grpc_keepalive_timeout, 0.0),
    )
    fetching = None if tls is None else fetching_context(flags)
    tls_of_listener = server_tls(flags, logger)
    pages_secure = flags.metrics_addr.startswith("https://")
    if pages_secure and tls_of_listener is None:
        raise ProxyRefused("metrics-addr wants TLS, for which there is no certificate: give cert-file or auto-tls")
    with ExitStack() as opened:
        sockets = (opened.enter_context(listen(flags.listen_addr)),)
        logger.info("listening for client requests on", address=flags.listen_addr)
        metrics_sockets: tuple[socket.socket, ...] = ()
        if flags.metrics_addr:
            metrics_sockets = (opened.enter_context(listen(metrics_address(flags.metrics_addr))),)
            logger.info("serving metrics and health", address=flags.metrics_addr)
        opened.pop_all()
    return Plan(upstream, front, limits, sockets, metrics_sockets, pages_secure, tls_of_listener, fetching)


def server_tls(flags: ProxyFlags, logger: structlog.stdlib.BoundLogger) -> ServerTls | None:
    """Return the TLS of the own listener, if there is any.  Raises TlsConfigurationError or SelfSignedRefused."""
    if not (flags.cert_file or flags.auto_tls):
        return None
    suites = [name.strip() for name in flags.listen_cipher_suites.split(",") if name.strip()]
    for name in suites:
        if name not in CIPHER_SUITES and name not in TLS_13_SUITES:
            raise ProxyRefused(f'unexpected TLS cipher suite "{name}"')
    if flags.cert_file:
        certificate, key = Path(flags.cert_file), Path(flags.key_file)
    else:
        folder = Path(flags.data_dir).absolute()
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        host = flags.listen_addr.rpartition(":")[0].strip("[]")
        hosts = [host] if host else []
        certificate, key = self_signed(folder / "fixtures" / "proxy", hosts, flags.self_signed_cert_validity, logger)
    files = TlsFiles(
        certificate=certificate,
        key=key,
        trusted_ca=Path(flags.trusted_ca_file) if flags.trusted_ca_file else None,
        revoked=Path(flags.client_crl_file) if flags.client_crl_file else None,
        version_min=flags.tls_min_version or "TLS1.2",
        version_max=flags.tls_max_version,
        cipher_suites=tuple(CIPHER_SUITES[name] for name in suites if name in CIPHER_SUITES) if suites else None,
    )
    return ServerTls(files, logger.bind(tls="client"))


def discovered(flags: ProxyFlags, logger: structlog.stdlib.BoundLogger) -> list[str]:
    """Return what DNS says where the members are, as far as it is trusted; nothing if it is not asked."""
    domain = flags.discovery_srv
    if not domain:
        return []
    try:
        found = find_clients(domain, flags.discovery_srv_name)
    except LookupFailed as failure:
        raise ProxyRefused(str(failure)) from failure
    logger.info("discovered cluster from SRV", srv_server=domain, endpoints=[each.url for each in found])
    if not flags.insecure_discovery:
        try:
            found, faults = check_endpoints(found, domain, flags.cacert)
        except OSError as error:
            raise ProxyRefused(f"cannot read the authority {flags.cacert}: {error}") from error
        if faults:
            logger.warning("failed to validate discovered endpoints", srv_server=domain, error=",".join(faults))
    return [each.url for each in found]


def upstream_tls(flags: ProxyFlags, urls: Sequence[str]) -> UpstreamTls | None:
    """Return how to talk TLS to the members; None for plain connections."""
    secure = [url for url in urls if url.startswith(("https://", "unixs://"))]
    if not (flags.cert or flags.cacert or flags.insecure_skip_tls_verify or secure):
        return None
    try:
        return UpstreamTls(
            authority=read(flags.cacert),
            certificate=read(flags.cert),
            key=read(flags.key),
            verify=not flags.insecure_skip_tls_verify,
        )
    except OSError as error:
        raise ProxyRefused(f"open {error.filename}: {(error.strerror or str(error)).lower()}") from error


def read(path: str) -> bytes | None:
    """Return a file's content, None if there is no path; raises OSError."""
    if not path:
        return None
    with open(path, "rb") as file:  # noqa: PTH123 - a path as it was given
        return file.read()


def fetching_context(flags: ProxyFlags) -> ssl.SSLContext:
    """Return with what the members' pages are fetched."""
    import ssl  # noqa: PLC0415 - only with TLS

    try:
        context = ssl.create_default_context(cafile=flags.cacert or None)
        if flags.cert:
            context.load_cert_chain(flags.cert, flags.key)
    except OSError as error:
        raise ProxyRefused(f"the certificates for the members cannot be used: {error}") from error
    if flags.insecure_skip_tls_verify:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    return context


def metrics_address(url: str) -> str:
    """Return host and port of --metrics-addr."""
    scheme, found, rest = url.partition("://")
    if not found or scheme not in {"http", "https"}:
        raise ProxyRefused(f'cannot parse "{url}": it must be an http or https URL')
    return rest.partition("/")[0]


def listen(address: str) -> socket.socket:
    """Return a socket that listens on *address*.  Raises ProxyRefused."""
    host, colon, port = address.rpartition(":")
    host = host.removeprefix("[").removesuffix("]")
    if not colon or not (port.isascii() and port.isdigit()):
        raise ProxyRefused(f"listen tcp: address {address}: missing port in address")
    if int(port) > PORT_MAX:
        raise ProxyRefused(f"listen tcp: address {port}: invalid port")
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listening = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listening.bind((host, int(port)))
        listening.listen(LISTEN_BACKLOG)
    except OSError as error:
        listening.close()
        raise ProxyRefused(f"listen tcp {address}: {(error.strerror or str(error)).lower()}") from error
    listening.setblocking(False)
    return listening
