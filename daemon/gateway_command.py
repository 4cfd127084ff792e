"""The command `actcd gateway start`: flags and checks of etcd's gateway, then proxy/gateway.py until a signal.

Refuses endpoints that are the gateway itself; what turns out so only later is found by the gateway.
"""

from __future__ import annotations

import argparse
import asyncio
import signal
import socket
import sys
from random import SystemRandom
from typing import TYPE_CHECKING, NamedTuple, NoReturn, TypeVar

from config.booleans import parse_bool
from config.durations import parse_duration_s
from config.faults import BadValue
from config.schema import Logging
from daemon.logs import make_logger
from daemon.notify import notify_ready
from net.srv import LookupFailed, Srv, find_clients, lookup_srv
from proxy.gateway import Gateway
from proxy.remotes import Remotes
from proxy.secure import check_endpoints

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    import structlog

    from net.srv import Lookup

T = TypeVar("T")

EXIT_FAILED = 1
DEFAULT_ENDPOINTS = ("127.0.0.1:2379",)
RETRY_DELAY_0_S = 300.0
"""What a retry-delay of 0 stands for."""

LISTEN_BACKLOG = 1024
PORT_MAX = 65535

USAGE = """\
Usage: actcd gateway start [flags]

Passes TCP connections on to the members of a cluster, whatever they carry: clients need to know one address only.

Flags:
  --listen-addr 127.0.0.1:23790
      Address to listen on.
  --endpoints 127.0.0.1:2379
      Client addresses of the members, separated by commas; a scheme is left off.
  --retry-delay 1m0s
      Time before a member that did not answer is tried again.
  --discovery-srv ''
      Domain whose SRV records name the members, in place of --endpoints.
  --discovery-srv-name ''
      Suffix of the service's name in those records.
  --insecure-discovery false
      Whether to use members that DNS names without checking their certificates.
  --trusted-ca-file ''
      Authority by which the members that DNS names are checked; if empty, those that this machine trusts.
  -h | --help
      Print this text and exit.
"""


class GatewayRefused(Exception):  # noqa: N818 - named for what happened
    """The gateway cannot start; the text is for the operator."""


class Options(NamedTuple):
    """What the flags say."""

    listen_addr: str
    endpoints: tuple[str, ...] | None
    """None if they are not given."""
    retry_delay_s: float
    discovery_srv: str
    discovery_srv_name: str
    insecure_discovery: bool
    trusted_ca_file: str


class HelpWanted(Exception):  # noqa: N818 - named for what happened
    """The usage was asked for."""


def run(arguments: Sequence[str]) -> int:
    """Do what the *arguments* behind the word `gateway` ask for, and return the exit code."""
    try:
        options = read_options(arguments)
        logger = make_logger(Logging())
        endpoints = chosen_endpoints(options, logger)
        refuse_itself(options.listen_addr, endpoints)
        listener = _listen(options.listen_addr)
    except HelpWanted:
        print(USAGE, end="")  # noqa: T201 - asked for
        return 0
    except GatewayRefused as refused:
        print(refused, file=sys.stderr)  # noqa: T201 - as etcd does, whose log begins later
        return EXIT_FAILED
    # Nothing is to be finished: connections end as they would if the machine did.
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    notify_ready(logger)
    gateway = Gateway(Remotes(endpoints, SystemRandom()), options.retry_delay_s or RETRY_DELAY_0_S, logger)
    try:
        asyncio.run(gateway.run(listener))
    except OSError as error:
        logger.critical("the gateway's listener failed", error=str(error))
    return EXIT_FAILED


def read_options(arguments: Sequence[str]) -> Options:
    """Read the command line behind the word `gateway`; raises GatewayRefused and HelpWanted."""
    word = arguments[0] if arguments else ""
    if word in {"", "-h", "--help"}:
        raise HelpWanted
    if word != "start":
        raise GatewayRefused(f'unknown command "{word}" for "actcd gateway"; see \'actcd gateway --help\'')
    parser = _Parser(add_help=False, allow_abbrev=False)
    parser.add_argument("-h", "--help", action="store_true")
    parser.add_argument("--listen-addr", default="127.0.0.1:23790")
    parser.add_argument("--endpoints", action="append")
    parser.add_argument("--retry-delay", default="1m0s")
    parser.add_argument("--discovery-srv", default="")
    parser.add_argument("--discovery-srv-name", default="")
    parser.add_argument("--insecure-discovery", default="false")
    parser.add_argument("--trusted-ca-file", default="")
    # A switch takes a value only behind an equals sign.
    rest = [f"{each}=true" if each == "--insecure-discovery" else each for each in arguments[1:]]
    given, unknown = parser.parse_known_args(rest)
    if given.help:
        raise HelpWanted
    flags = [each for each in unknown if each.startswith("-")]
    if flags:
        raise GatewayRefused(f"unknown flag: {flags[0]}; see 'actcd gateway --help'")
    retry_delay_s = _read("retry-delay", given.retry_delay, parse_duration_s)
    if retry_delay_s < 0:
        raise GatewayRefused(f'invalid argument "{given.retry_delay}" for "--retry-delay" flag: must not be negative')
    return Options(
        given.listen_addr,
        tuple(each for text in given.endpoints for each in text.split(",") if each) if given.endpoints else None,
        retry_delay_s,
        given.discovery_srv,
        given.discovery_srv_name,
        _read("insecure-discovery", given.insecure_discovery, parse_bool),
        given.trusted_ca_file,
    )


def chosen_endpoints(
    options: Options, logger: structlog.stdlib.BoundLogger, lookup: Lookup = lookup_srv
) -> tuple[Srv, ...]:
    """Return where to pass connections on to: what DNS tells, as far as it is trusted, or else the endpoints given."""
    if options.trusted_ca_file and not options.discovery_srv:
        logger.warning("trusted-ca-file has no effect without discovery-srv: clients check the members themselves")
    if options.discovery_srv:
        discovered = _discovered(options, logger, lookup)
        if discovered:
            return discovered
    default = () if options.discovery_srv else DEFAULT_ENDPOINTS
    given = default if options.endpoints is None else options.endpoints
    endpoints = tuple(_parsed_endpoint(endpoint) for endpoint in given)
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


def _discovered(options: Options, logger: structlog.stdlib.BoundLogger, lookup: Lookup) -> tuple[Srv, ...]:
    domain = options.discovery_srv
    try:
        found = find_clients(domain, options.discovery_srv_name, lookup)
    except LookupFailed as failure:
        raise GatewayRefused(str(failure)) from failure
    urls = [each.url for each in found]
    logger.info("discovered cluster from SRV", srv_server=domain, endpoints=urls)
    if not options.insecure_discovery:
        try:
            found, faults = check_endpoints(found, domain, options.trusted_ca_file)
        except OSError as error:
            raise GatewayRefused(f"cannot read the authority {options.trusted_ca_file}: {error}") from error
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


def _read(name: str, text: str, kind: Callable[[str], T]) -> T:
    try:
        return kind(text)
    except BadValue as error:
        raise GatewayRefused(f'invalid argument "{text}" for "--{name}" flag: {error}') from error


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise GatewayRefused(message)
