"""Meeting at a registry: who has registered under a token, how many are needed, and whether we are among them.

Rules only; where the registry is and how it is asked is behind Registry.  The first *size* members to register are the
cluster, in the order of their registration.  Behaviour and texts: etcd's discovery, version 3 and the older one.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple, Protocol

from config.faults import BadValue
from config.urls import InitialMember, parse_initial_cluster

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    import structlog

    from discovery.patience import Patience

EXPONENTIAL_RETRIES_MAX = 8
"""After so many retries the waits grow no longer."""

SIZE_MAX = 1_000
"""More members are certainly a mistake."""


class DiscoveryFailed(Exception):  # noqa: N818 - named for what happened
    """The registry was asked, and there is no cluster for this member; the text is for the operator."""


class Unavailable(Exception):  # noqa: N818 - named for what happened
    """The registry could not be asked, which may pass; the text says why."""


FULL = "discovery: cluster is full"
SIZE_NOT_FOUND = "discovery: size key not found"
BAD_SIZE = "discovery: size key is bad"
INVALID_URL = "discovery: invalid peer URL"
DUPLICATE_ID = "discovery: found duplicate id"
DUPLICATE_NAME = "discovery: found duplicate name"
BAD_ENDPOINT = "discovery: bad discovery endpoint"


class Registration(NamedTuple):
    """One member at the registry."""

    key: str
    """Its id, in hexadecimal."""
    contents: str
    """``name=url,name=url``."""
    order: int
    """Rises with every registration."""


class Listing(NamedTuple):
    """Who has registered, as of a position of the registry that later ones can be waited for from."""

    members: tuple[Registration, ...]
    position: int


class Registry(Protocol):
    """A place to meet.  Every call raises Unavailable, or DiscoveryFailed where there is nothing to wait for."""

    name: str
    """Where it is, for the log."""

    def size(self) -> str | None:
        """Return how many members are needed, as it stands there; None if it does not."""

    def members(self) -> Listing:
        """Return who has registered."""

    def register(self, own: str, contents: str) -> None:
        """Register the member *own*."""

    def later(self, position: int) -> Listing:
        """Wait for registrations after *position*, and return those alone; none of them may be new."""


@dataclass(slots=True)
class Meeting:
    """One member's way through a registry.  For one thread, which may wait."""

    registry: Registry
    own: str
    """This member's id, in hexadecimal."""
    patience: Patience
    logger: structlog.stdlib.BoundLogger
    _retries: int = field(default=0, init=False)

    def join(self, contents: str) -> tuple[InitialMember, ...]:
        """Register, wait until all have, and return the cluster; DiscoveryFailed, and Stopped by *patience*."""
        self._checked()
        self._register(contents)
        size, listing = self._checked()
        found = {member.key: member for member in listing.members}
        position = listing.position
        while len(found) < size:
            self.logger.info("waiting for peers from discovery service", cluster_size=size, found_peers=len(found))
            try:
                later = self.registry.later(position)
            except Unavailable as unavailable:
                self._back_off("waiting for other members", unavailable)
                size, later = self._checked()
                found.clear()
            for member in later.members:
                if member.key not in found and is_meant(member):
                    found[member.key] = member
                    self.logger.info(
                        "found peer from discovery service", member_key=member.key, member_info=member.contents
                    )
            position = later.position
        self.logger.info("found all needed peers from discovery service", cluster_size=size)
        return initial_cluster(found.values(), size)

    def _checked(self) -> tuple[int, Listing]:
        """Return the size and who is there; DiscoveryFailed where there is no room for this member."""
        while True:
            try:
                size = parsed_size(self.registry.size())
                listing = self.registry.members()
            except Unavailable as unavailable:
                self._back_off("cluster status check", unavailable)
                continue
            self._retries = 0
            meant = sorted(filter(is_meant, listing.members), key=lambda member: member.order)
            if len(meant) >= size and self.own not in {member.key for member in meant[:size]}:
                raise DiscoveryFailed(FULL)
            return size, Listing(tuple(meant), listing.position)

    def _register(self, contents: str) -> None:
        while True:
            try:
                self.registry.register(self.own, contents)
            except Unavailable as unavailable:
                self._back_off("register member itself", unavailable)
                continue
            self._retries = 0
            self.logger.info("registered with discovery service", member_key=self.own, member_info=contents)
            return

    def _back_off(self, step: str, unavailable: Unavailable) -> None:
        self._retries += 1
        backoff_s = backoff_after_s(self._retries)
        self.logger.warning(
            "retry connecting to discovery service",
            registry=self.registry.name,
            reason=step,
            backoff_s=backoff_s,
            error=str(unavailable),
        )
        self.patience.sleep(backoff_s)


def backoff_after_s(retries: int) -> float:
    """Return how long to wait before trying again: twice as long each time, up to four minutes."""
    return float(1 << min(retries, EXPONENTIAL_RETRIES_MAX))


def parsed_size(text: str | None) -> int:
    """Return the number in *text*; DiscoveryFailed.  Without a size nobody knows when to stop waiting."""
    if text is None:
        raise DiscoveryFailed(SIZE_NOT_FOUND)
    if not text.isascii() or not text.isdigit() or not 0 < int(text[:10]) <= SIZE_MAX:
        raise DiscoveryFailed(BAD_SIZE)
    return int(text)


def is_meant(member: Registration) -> bool:
    """Return whether a registration could be one; anybody may have written it."""
    return bool(member.key) and "=" in member.contents


def initial_cluster(members: Iterable[Registration], size: int) -> tuple[InitialMember, ...]:
    """Return the cluster of the first *size* of *members*; DiscoveryFailed where they do not make one."""
    first = sorted(members, key=lambda member: member.order)[:size]
    text = ",".join(member.contents for member in first)
    try:
        cluster = parse_initial_cluster(text)
    except BadValue as error:
        raise DiscoveryFailed(f"{INVALID_URL}: {error}") from error
    if len(cluster) != len(first):
        raise DiscoveryFailed(f"{DUPLICATE_NAME}: {text}")
    if has_duplicate_url(cluster):
        raise DiscoveryFailed(f"discovery cluster {text} has duplicate url")
    return cluster


def has_duplicate_url(cluster: Sequence[InitialMember]) -> bool:
    """Return whether two members have the same URL."""
    urls = [url for member in cluster for url in member.peer_urls]
    return len(set(urls)) != len(urls)
