"""URLs as etcd's flags take them: lists for listening and advertising, and the map of the initial cluster.

Owns the rules for one URL's form, in etcd's words, and nothing of what a URL is used for.  Raises BadValue with the
rule that was broken; who gave the value is the caller's business.  Spec: the URL forms of etcd's ``--listen-*-urls``.
"""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass

from config.faults import BadValue

SCHEMES = ("http", "https", "unix", "unixs")
PORT_MAX = 65535


@dataclass(frozen=True, slots=True, order=True)
class Url:
    """One address.  Ordered by its text, as etcd orders the URLs of a member."""

    text: str
    scheme: str
    host: str
    """Without port and brackets; for unix sockets the whole ``host:port`` part."""
    port: int
    """0 for unix sockets."""
    path: str
    """Only unix sockets have one: their file name is host and path put together."""

    def __str__(self) -> str:
        """Return it as it was written."""
        return self.text

    @property
    def secure(self) -> bool:
        """Whether TLS is spoken there."""
        return self.scheme in {"https", "unixs"}

    @property
    def is_unix(self) -> bool:
        """Whether it names a unix socket."""
        return self.scheme in {"unix", "unixs"}

    @property
    def address(self) -> tuple[str, int]:
        """Where it leads, whatever is spoken there: host and port, or the file of a unix socket."""
        return self.host + self.path, self.port

    @property
    def is_loopback(self) -> bool:
        """Whether only this machine reaches it."""
        if self.is_unix or self.host == "localhost":
            return True
        try:
            return ipaddress.ip_address(self.host).is_loopback
        except ValueError:
            return False


@dataclass(frozen=True, slots=True)
class InitialMember:
    """One member of the initial cluster; etcd's ``name=url,name=url`` with the URLs of one name gathered."""

    name: str
    peer_urls: tuple[Url, ...]


def parse_url(text: str) -> Url:
    """Return the URL in *text*, or raise BadValue with etcd's rule."""
    text = text.strip()
    scheme, separator, rest = text.partition("://")
    scheme = scheme.lower()
    if not separator or scheme not in SCHEMES:
        raise BadValue(f"URL scheme must be http, https, unix, or unixs: {text}")
    authority, slash, path = rest.partition("/")
    if scheme in {"unix", "unixs"}:
        return Url(text=text, scheme=scheme, host=authority, port=0, path=slash + path)
    host, port = _split_host_port(authority, text)
    if slash:
        raise BadValue(f"URL must not contain a path: {text}")
    return Url(text=text, scheme=scheme, host=host, port=port, path="")


def parse_urls(text: str) -> tuple[Url, ...]:
    """Return the URLs of a comma-separated list: each once, sorted as etcd sorts them."""
    return tuple(sorted({parse_url(part) for part in text.split(",")}))


def parse_initial_cluster(text: str) -> tuple[InitialMember, ...]:
    """Return the members in ``name=url,name=url``, sorted by name; a name repeated adds a URL."""
    urls_by_name: dict[str, list[Url]] = {}
    for part in text.split(","):
        if part:
            name, _, url = part.partition("=")
            urls_by_name.setdefault(name, []).append(parse_url(url))
    return tuple(InitialMember(name, tuple(sorted(urls))) for name, urls in sorted(urls_by_name.items()))


def _split_host_port(authority: str, text: str) -> tuple[str, int]:
    host, colon, port = authority.rpartition(":")
    if host.startswith("[") and host.endswith("]"):
        host = host[1:-1]
    elif ":" in host or "[" in host or "]" in host:
        colon = ""
    if not colon or not (port.isascii() and port.isdigit()) or int(port) > PORT_MAX:
        raise BadValue(f'URL address does not have the form "host:port": {text}')
    return host, int(port)
