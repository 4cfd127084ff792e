"""Rules for one setting's value alone, in etcd's words where etcd has the rule.

Each function returns the rule that the value breaks, or None.  Rules that need two settings are in refusals.py.
"""

from __future__ import annotations

import ipaddress
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from config.auth import parse_token_options
from config.durations import format_duration
from config.faults import BadValue
from config.tls import CIPHER_SUITES, TLS_13_SUITES, WEAK_SUITES

if TYPE_CHECKING:
    from collections.abc import Callable

    from config.urls import Url

LOG_LEVELS = ("debug", "info", "warn", "error", "dpanic", "panic", "fatal")
_JOURNAL = "systemd/journal"
_TRACING_RATE_MAX = 1_000_000


def bindable(urls: tuple[Url, ...]) -> str | None:
    """Demand an IP address or localhost, or a unix socket."""
    for url in urls:
        if not url.is_unix and url.host != "localhost" and not _is_ip(url.host):
            return f"expected IP in URL for binding ({url})"
    return None


def advertisable_to_peers(urls: tuple[Url, ...]) -> str | None:
    """Demand a host that peers can dial."""
    return _reachable(urls, '--initial-advertise-peer-urls "{urls}" must be "host:port" ({reason})')


def advertisable_to_clients(urls: tuple[Url, ...]) -> str | None:
    """Demand a host that clients can dial."""
    form = '"host:port", "unix:/path/to/socket" or "unixs:/path/to/socket"'
    return _reachable(urls, f'--advertise-client-urls "{{urls}}" must be in the format {form} ({{reason}})')


def known_token_options(text: str) -> str | None:
    """Demand a type of token, and for signed ones a method."""
    try:
        parse_token_options(text)
    except BadValue as error:
        return str(error)
    return None


def above_zero_ms(name: str) -> Callable[[int], str | None]:
    """Return the check that a number of milliseconds is not zero."""
    return lambda value: None if value > 0 else f"--{name} must be >0 (set to {value}ms)"


def above_zero_s(name: str) -> Callable[[float], str | None]:
    """Return the check that a duration is longer than nothing."""
    return lambda value: None if value > 0 else f"--{name} must be >0 (set to {format_duration(value)})"


def not_negative_s(name: str) -> Callable[[float], str | None]:
    """Return the check that a duration is not negative."""
    return lambda value: None if value >= 0 else f"--{name} must not be negative (set to {format_duration(value)})"


def not_negative(name: str) -> Callable[[int], str | None]:
    """Return the check that a signed number is not negative."""
    return lambda value: None if value >= 0 else f"--{name} must not be negative (set to {value})"


def known_logger(value: str) -> str | None:
    """Allow the one logger that has survived in etcd."""
    if value == "capnslog":
        return "--logger=capnslog is removed in v3.5"
    return None if value in {"zap", ""} else f'unknown logger option "{value}"'


def usable_outputs(values: tuple[str, ...]) -> str | None:
    """Demand that ``default`` and the journal stand alone."""
    if "default" in values and len(values) > 1:
        return 'multi logoutput for "default" is not supported yet'
    if _JOURNAL in values and len(values) > 1:
        found = ",".join(values)
        return (
            f"running with systemd/journal but other '--log-outputs' values ({found}) are configured with 'default'; "
            "override 'default' value with something else"
        )
    return None


def sampling_rate(value: int) -> str | None:
    """Demand a share of a million."""
    reason = (
        "tracing sampling rate must be positive"
        if value < 0
        else "tracing sampling rate must be less than 1000000"
        if value > _TRACING_RATE_MAX
        else None
    )
    return reason and f"distributed tracing configurition is not valid: ({reason})"  # sic: etcd spells it so


def known_compaction_mode(value: str) -> str | None:
    """Allow etcd's two ways to compact."""
    if value == "":
        return "undefined auto-compaction-mode"
    return None if value in {"periodic", "revision"} else f'unknown auto-compaction-mode "{value}"'


def known_tls_version(value: str) -> str | None:
    """Allow the TLS versions that etcd offers."""
    if value in {"", "TLS1.2", "TLS1.3"}:
        return None
    return f'unexpected TLS version "{value}" (must be one of: TLS1.2, TLS1.3)'


def known_cipher_suites(values: tuple[str, ...]) -> str | None:
    """Allow what Go knows and OpenSSL has."""
    for value in values:
        if value in WEAK_SUITES:
            return f'the TLS cipher suite "{value}" is too weak to be offered; leave it out'
        if value not in CIPHER_SUITES and value not in TLS_13_SUITES:
            return f'unexpected TLS cipher suite "{value}"'
    return None


def exit_on_fallback(value: str) -> str | None:
    """Refuse the v2 proxy, which is gone."""
    if value == "proxy":
        return 'v2 proxy is deprecated, and --discovery-fallback can\'t be configured as "proxy"'
    return None


def discovery_url(text: str) -> str | None:
    """Demand a URL with a host, and the token as its path."""
    if text == "":
        return None
    try:
        parts = urlsplit(text)
        usable = parts.scheme in {"http", "https"} and bool(parts.hostname) and parts.path.strip("/") != ""
        usable = usable and (parts.port is None or parts.port > 0)
    except ValueError:
        usable = False
    return None if usable else f"the discovery URL must be http://HOST/TOKEN or https://HOST/TOKEN: {text}"


def proxy_url(text: str) -> str | None:
    """Demand the address of an HTTP proxy, with its scheme or without."""
    if text == "":
        return None
    try:
        parts = urlsplit(text if "://" in text else f"http://{text}")
        usable = parts.scheme == "http" and bool(parts.hostname) and (parts.port is None or parts.port > 0)
    except ValueError:
        usable = False
    return None if usable else f'invalid proxy address "{text}": it must be HOST:PORT or http://HOST:PORT'


def no_empty_endpoint(values: tuple[str, ...]) -> str | None:
    """Demand an address in each endpoint."""
    return None if all(map(str.strip, values)) else "--discovery-endpoints must not contain empty endpoints"


def _is_ip(host: str) -> bool:
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return False
    return getattr(address, "scope_id", None) is None  # etcd takes no zone here


def _reachable(urls: tuple[Url, ...], rule: str) -> str | None:
    for url in urls:
        if not url.is_unix and url.host == "":
            return rule.format(urls=",".join(map(str, urls)), reason=f"unexpected empty host ({url})")
    return None
