"""Asking the members of a cluster who belongs to it, before this member has anything of its own.

Who joins takes over the ids that the cluster has given; who founds makes sure that it has not been there before.
Runs once, in the main thread, before any actor does.  Behaviour: etcd's bootstrap of a new or an existing cluster.
"""

from __future__ import annotations

import asyncio
import http
import json
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, NamedTuple
from urllib.parse import urlsplit

from core.membership.member import MalformedMember, Member, member_from_fields
from core.membership.version import MalformedVersion, Version
from core.version import MIN_CLUSTER_VERSION, SERVER_VERSION
from net.rafthttp.client import PeerClient, PeerUnreachable

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from config.urls import InitialMember
    from core.types import MemberId
    from net.tls import ClientTls

ASK_TIMEOUT_S = 3.0
"""For each peer; etcd allows as much in all."""


class JoinRefused(Exception):  # noqa: N818 - named for what happened
    """This member cannot take part; the text is for the operator."""


class FoundCluster(NamedTuple):
    """A cluster as one of its members sees it."""

    id: int
    members: tuple[Member, ...]
    versions: tuple[str, ...] | None = None
    """The versions of the cluster that its members tell; None if they were not asked."""
    downgrades: bool = False
    """Whether the cluster is on its way to an older version."""


def find_cluster(
    urls: Iterable[str],
    tls: ClientTls | None = None,
    timeout_s: float = ASK_TIMEOUT_S,
    *,
    with_versions: bool = False,
    local_address: str = "",
    complain: Callable[[str, str], object] = lambda _url, _reason: None,
) -> FoundCluster | None:
    """Return the cluster that the first of *urls* to answer tells of; None if none does.

    *with_versions* is for whoever is to join it; they see this member at *local_address*.  *complain* hears of each
    that does not answer, and why, on another thread.
    """
    # On a thread of its own, since the one that starts a member may be running a loop already.
    finding = _find(urls, PeerClient(tls, timeout_s, local_address=local_address), timeout_s, with_versions, complain)
    with ThreadPoolExecutor(1) as thread:
        return thread.submit(asyncio.run, finding).result()


async def _find(
    urls: Iterable[str],
    client: PeerClient,
    timeout_s: float,
    with_versions: bool,
    complain: Callable[[str, str], object],
) -> FoundCluster | None:
    try:
        for url in urls:
            found = await _ask(url, client, timeout_s)
            if isinstance(found, FoundCluster):
                return await _with_versions(found, client, timeout_s) if with_versions else found
            complain(url, found)
        return None
    finally:
        client.close()


async def _with_versions(found: FoundCluster, client: PeerClient, timeout_s: float) -> FoundCluster:
    started = [member for member in found.members if member.started]
    pages = await asyncio.gather(*(_ask_member(member, "/version", client, timeout_s) for member in started))
    downgrades = await asyncio.gather(
        *(_ask_member(member, "/downgrade/enabled", client, timeout_s) for member in started)
    )
    told = [_told(page) for page in pages if page is not None]
    return found._replace(versions=tuple(filter(None, told)), downgrades=b"true" in downgrades)


async def _ask_member(member: Member, path: str, client: PeerClient, timeout_s: float) -> bytes | None:
    for url in member.peer_urls:
        try:
            answer = await client.ask(url, "GET", path, (), b"", timeout_s)
        except PeerUnreachable:
            continue
        if answer.status == http.HTTPStatus.OK:
            return answer.body.strip()
    return None


def _told(page: bytes) -> str:
    try:
        told = json.loads(page)["etcdcluster"]
    except (ValueError, TypeError, KeyError, RecursionError):
        return ""
    return told if isinstance(told, str) else ""


def expect_compatible(found: FoundCluster) -> None:
    """Raise JoinRefused unless this version may take part in the *found* cluster (etcd's rule).

    At least one member must tell a version of the cluster that suits, and none another.
    """
    own = Version.parse(SERVER_VERSION).release
    newest = own._replace(minor=own.minor + 1) if found.downgrades else own
    oldest = newest if found.downgrades else Version.parse(MIN_CLUSTER_VERSION)
    told = [version for version in map(_version, found.versions or ()) if version is not None]
    if not told or not all(oldest <= version <= newest for version in told):
        shown = ", ".join(sorted({str(version) for version in told})) or "none, or none that can be reached"
        raise JoinRefused(
            f"incompatible with current running cluster: its version is {shown}, and {SERVER_VERSION} takes part in "
            f"{oldest} to {newest}"
        )


def _version(text: str) -> Version | None:
    try:
        return Version.parse(text)
    except MalformedVersion:
        return None


def join(
    configured: Sequence[InitialMember],
    name: str,
    found: FoundCluster | None,
    resolve: Callable[[str], str] = lambda host: host,
) -> MemberId:
    """Return the id that the *found* cluster has for the member called *name*; JoinRefused.

    The configuration must list exactly the members of the cluster, this one included.  *resolve* returns a host's
    address, or raises OSError: two names of one host are the same.
    """
    asked = ",".join(str(url) for member in configured if member.name != name for url in member.peer_urls)
    if found is None:
        raise JoinRefused(
            f"cannot fetch cluster info from peer urls ({asked}): is a member of the cluster running there, and can it "
            "be reached?"
        )
    if len(found.members) != len(configured):
        raise JoinRefused(
            f"error validating peerURLs: member count is unequal; the cluster has {_shown(found.members)}. "
            "Add this member with `etcdctl member add` first, and take over the --initial-cluster that it prints"
        )
    spelled = {frozenset(map(str, member.peer_urls)): member.name for member in configured}
    located = {_addresses(map(str, member.peer_urls), resolve): member.name for member in configured}
    named: dict[str, Member] = {}
    for member in found.members:
        by = spelled.get(frozenset(member.peer_urls)) or located.get(_addresses(member.peer_urls, resolve))
        if by is None:
            raise JoinRefused(
                f"error validating peerURLs: PeerURLs: no match found for existing member ({member.hex_id}, "
                f"{','.join(member.peer_urls)}); the cluster has {_shown(found.members)}. Correct --initial-cluster or "
                "--initial-advertise-peer-urls"
            )
        if by in named:
            raise JoinRefused(f"error validating peerURLs: two members are where {by} is: {_shown(found.members)}")
        named[by] = member
    own = named[name]
    if found.versions is not None:
        expect_compatible(found)
    _expect_never_started(own)
    return own.id


def expect_new(own: Member, found: FoundCluster | None) -> None:
    """Raise JoinRefused if the *found* cluster knows *own* as a member that has run before."""
    if found is None:
        return
    for member in found.members:
        if member.id == own.id:
            _expect_never_started(member)


def _expect_never_started(member: Member) -> None:
    if member.client_urls:
        raise JoinRefused(
            f"member {member.hex_id} has already been bootstrapped, but its data is not here: a member that has lost "
            "what it promised must not come back. Restore its data directory, or remove it from the cluster with "
            f"`etcdctl member remove {member.hex_id}`, add it anew and start it with --initial-cluster-state existing"
        )


def _addresses(urls: Iterable[str], resolve: Callable[[str], str]) -> frozenset[tuple[str, str, int]]:
    """Return where *urls* lead to, the same for two spellings of the same place."""
    return frozenset(_address(url, resolve) for url in urls)


def _address(url: str, resolve: Callable[[str], str]) -> tuple[str, str, int]:
    try:
        parts = urlsplit(url)
        host, port = parts.hostname or "", parts.port or 0
    except ValueError:
        return "", url, 0  # a cluster may hold what we would not have taken
    if parts.scheme in {"unix", "unixs"}:
        return parts.scheme, parts.netloc + parts.path, 0
    try:
        return parts.scheme, resolve(host), port
    except OSError:
        return parts.scheme, host, port


def _shown(members: Iterable[Member]) -> str:
    return ", ".join(f"{member.name or member.hex_id}={','.join(member.peer_urls)}" for member in members)


async def _ask(url: str, client: PeerClient, timeout_s: float) -> FoundCluster | str:
    """Return what the member at *url* tells, or why it tells nothing."""
    try:
        answer = await client.ask(url, "GET", "/members", (), b"", timeout_s)
        cluster_id = int(answer.headers.get("x-etcd-cluster-id", ""), 16)
        members = tuple(member_from_fields(fields) for fields in json.loads(answer.body))
    except PeerUnreachable as error:
        return str(error)
    except (ValueError, TypeError, AttributeError, MalformedMember, RecursionError):
        return "its answer is no member's"  # the next one's may be
    return FoundCluster(cluster_id, members)
