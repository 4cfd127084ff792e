"""What a proxy is told at its start."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Mapping

    from services.access import Profile

INT32_MAX: Final = 0x7FFFFFFF


@dataclass(frozen=True, slots=True)
class UpstreamTls:
    """How the members are known, and how this proxy shows itself to them; PEM, read at the start."""

    authority: bytes | None = None
    """None: those that this machine trusts."""
    certificate: bytes | None = None
    key: bytes | None = None
    verify: bool = True


@dataclass(frozen=True, slots=True)
class Upstream:
    """The members and how to talk to them."""

    endpoints: tuple[str, ...]
    """``host:port`` each, or the path of a unix socket behind ``unix:``."""
    tls: UpstreamTls | None = None
    sync_interval_s: float = 0.0
    """How often the members are asked for their addresses; 0: never."""
    keepalive_time_s: float = 0.0
    """0: never ping."""
    keepalive_timeout_s: float = 20.0
    keepalive_when_idle: bool = False
    send_bytes_max: int = 1_572_864
    receive_bytes_max: int = INT32_MAX


@dataclass(frozen=True, slots=True)
class Front:
    """What clients of the proxy see."""

    profiles: Mapping[str, Profile]
    """Empty: there are no such pages."""
    namespace: bytes = b""
    leasing_prefix: bytes = b""
    """Below it stand the keys by which proxies own others; empty: none does."""
    advertise_client_url: str = ""
    resolver_prefix: str = ""
    resolver_ttl_s: int = 0
    ordered: bool = False
    """Whether serializable reads never go back in time."""
    log_calls: bool = False
    read_only: bool = False
    """Whether whatever would change the cluster is refused."""
    host_name: str = ""
    """Of this machine, as others are told it."""
