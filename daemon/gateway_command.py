"""The command `actcd gateway start`: flags and checks of etcd's gateway, then proxy/gateway.py until a signal.

Refuses endpoints that are the gateway itself; what turns out so only later is found by the gateway.
"""

from __future__ import annotations

import asyncio
import signal
import socket
import sys
from random import SystemRandom
from typing import TYPE_CHECKING, NoReturn

from config.gateway import ENDPOINTS_DEFAULT, help_text, read_flags
from config.schema import Logging
from config.start_flags import FlagsRefused, HelpWanted
from daemon.logs import make_logger
from daemon.notify import notify_ready
from net.srv import LookupFailed, Srv, find_clients, lookup_srv
from proxy.gateway import Gateway
from proxy.remotes import Remotes
from proxy.secure import check_endpoints

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    import structlog

    from config.gateway import GatewayFlags
    from net.srv import Lookup

EXIT_FAILED = 1
RETRY_DELAY_0_S = 300.0
"""What a retry-delay of 0 stands for."""

LISTEN_BACKLOG = 1024
PORT_MAX = 65535


class GatewayRefused(Exception):  # noqa: N818 - named for what happened
    """The gateway cannot start; the text is for the operator."""


def run(arguments: Sequence[str]) -> int:
    """Do what the *arguments* behind the word `gateway` ask for, and return the exit code."""
    try:
        flags = read_flags(arguments)
        logger = make_logger(Logging())
        endpoints = chosen_endpoints(flags, logger)
        refuse_itself(flags.listen_addr, endpoints)
        listener = _listen(flags.listen_addr)
    except HelpWanted:
        print(help_text(), end="")  # noqa: T201 - asked for
        return 0
    except (FlagsRefused, GatewayRefused) as refused:
        print(refused, file=sys.stderr)  # noqa: T201 - as etcd does, whose log begins later
        return EXIT_FAILED
    # Nothing is to be finished: connections end as they would if the machine did.
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    notify_ready(logger)
    gateway = Gateway(Remotes(endpoints, SystemRandom()), flags.retry_delay or RETRY_DELAY_0_S, logger)
    try:
        asyncio.run(gateway.run(listener))
    except OSError as error:
        logger.critical("the gateway's listener failed", error=str(error))
    return EXIT_FAILED


def chosen_endpoints(
    flags: GatewayFlags, logger: structlog.stdlib.BoundLogger, lookup: Lookup = lookup_srv
) -> tuple[Srv, ...]:
    """Return where to pass connections on to: what DNS tells, as far as it is trusted, or else the endpoints given."""
    if flags.trusted_ca_file and not flags.discovery_srv:
        logger.warning("trusted-ca-file has no effect without discovery-srv: clients check the members themselves")
    if flags.discovery_srv:
        discovered = _discovered(flags, logger, lookup)
        if discovered:
            return discovered
    given = "" if flags.discovery_srv and flags.endpoints == ENDPOINTS_DEFAULT else flags.endpoints
    endpoints = tuple(_parsed_endpoint(endpoint) for endpoint in given.split(",") if endpoint)
    if not endpoints:
        raise GatewayRefused("no endpoints found")
    return endpoints


def refuse_itself(listen_addr: str, endpoints: Iterable[Srv], resolve: Callable[[str], set[str]] | None = None) -> None:
    """Raise GatewayRefused where the gateway would be its own endpoint: a connection would go round for ever."""
    resolve = resolve or _addresses
    host, port = _parsed(listen_addr) or _refuse(f"failed to validate listen address: {listen_addr}")
    listening = _resolved(resolve, host, "failed to resolve listen host")
    everywhere = not listening.isdisjoint({"0.0.0.0", "::"})  # noqa: S104 - asked for by the operator
    for endpoint in endpoints:
        addresses = _resolved(resolve, endpoint.target, "failed to resolve endpoint host")
        for address in addresses if endpoint.port == port else ():
            if address in listening or (everywhere and _is_local(address)):
                raise GatewayRefused(
                    f"SRV or endpoint ({endpoint.address}->{address}:{endpoint.port}) should not resolve to the "
                    f"gateway listen addr ({listen_addr})"
                )


def _discovered(flags: GatewayFlags, logger: structlog.stdlib.BoundLogger, lookup: Lookup) -> tuple[Srv, ...]:
    domain = flags.discovery_srv
    try:
        found = find_clients(domain, flags.discovery_srv_name, lookup)
    except LookupFailed as failure:
        raise GatewayRefused(str(failure)) from failure
    urls = [each.url for each in found]
    logger.info("discovered cluster from SRV", srv_server=domain, endpoints=urls)
    if not flags.insecure_discovery:
        try:
            found, faults = check_endpoints(found, domain, flags.trusted_ca_file)
        except OSError as error:
            raise GatewayRefused(f"cannot read the authority {flags.trusted_ca_file}: {error}") from error
        good = [each.url for each in found]
        if faults:
            logger.warning(
                "failed to validate discovered endpoints", srv_server=domain, endpoints=good, error=",".join(faults)
            )
        else:
            logger.info("using validated discovered SRV endpoints", srv_server=domain, endpoints=good)
    return tuple(each.srv for each in found)


def _parsed_endpoint(endpoint: str) -> Srv:
    host, port = _parsed(endpoint.partition("://")[2] or endpoint) or _refuse(f'error parsing endpoint "{endpoint}"')
    return Srv(host, port)


def _parsed(address: str) -> tuple[str, int] | None:
    host, colon, port = address.rpartition(":")
    if host.startswith("[") and host.endswith("]"):
        host = host[1:-1]
    elif ":" in host:
        return None
    if not colon or not (port.isascii() and port.isdigit()) or int(port) > PORT_MAX:
        return None
    return host, int(port)


def _refuse(text: str) -> NoReturn:
    raise GatewayRefused(text)


def _resolved(resolve: Callable[[str], set[str]], host: str, failure: str) -> set[str]:
    try:
        return resolve(host)
    except OSError as error:
        raise GatewayRefused(f"{failure}: {host}") from error


def _addresses(host: str) -> set[str]:
    if not host:
        raise OSError("there is no host without a name")
    return {str(found[4][0]) for found in socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)}


def _is_local(address: str) -> bool:
    """Whether *address* is one of this machine's."""
    with socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET) as probe:
        try:
            probe.bind((address, 0))
        except OSError:
            return False
    return True


def _listen(address: str) -> socket.socket:
    host, port = _parsed(address) or _refuse(f"failed to validate listen address: {address}")
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        return socket.create_server((host, port), family=family, backlog=LISTEN_BACKLOG)
    except OSError as error:
        raise GatewayRefused(f"listen tcp {address}: {(error.strerror or str(error)).lower()}") from error
