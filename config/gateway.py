"""The flags of ``actcd gateway start``; what they lead to is daemon/gateway_command.py's."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from config.kinds import DURATION_S, SWITCH, TEXT
from config.start_flags import FlagsRefused, flag, read_start, usage

if TYPE_CHECKING:
    from collections.abc import Sequence

PROGRAM: Final = "gateway"
MEANING: Final = (
    "Passes TCP connections on to the members of a cluster, whatever they carry: clients need to know one address only."
)
ENDPOINTS_DEFAULT: Final = "127.0.0.1:2379"


@dataclass(frozen=True, slots=True)
class GatewayFlags:
    """What the command line says."""

    listen_addr: str = flag("Address to listen on.", TEXT, "127.0.0.1:23790")
    endpoints: str = flag(
        "Client addresses of the members, separated by commas; a scheme is left off.",
        TEXT,
        ENDPOINTS_DEFAULT,
        adds_up=True,
    )
    retry_delay: float = flag("Time before a member that did not answer is tried again.", DURATION_S, 60.0)
    discovery_srv: str = flag("Domain whose SRV records name the members, in place of --endpoints.", TEXT, "")
    discovery_srv_name: str = flag("Suffix of the service's name in those records.", TEXT, "")
    insecure_discovery: bool = flag(
        "Whether to use members that DNS names without checking their certificates.", SWITCH, False
    )
    trusted_ca_file: str = flag(
        "Authority by which the members that DNS names are checked; if empty, those that this machine trusts.", TEXT, ""
    )


def read_flags(arguments: Sequence[str]) -> GatewayFlags:
    """Read the command line behind the word `gateway`.  Raises FlagsRefused and HelpWanted."""
    flags = read_start(GatewayFlags, PROGRAM, arguments)
    if flags.retry_delay < 0:
        raise FlagsRefused("--retry-delay must not be negative")
    return flags


def help_text() -> str:
    """Return the text of ``--help``."""
    return usage(GatewayFlags, PROGRAM, MEANING)
