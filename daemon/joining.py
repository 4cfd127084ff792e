"""Asking the members of a cluster who belongs to it, before this member has anything of its own.

Who joins takes over the ids that the cluster has given; who founds makes sure that it has not been there before.
Runs once, in the main thread, before any actor does.  Behaviour: etcd's bootstrap of a new or an existing cluster.
"""

from __future__ import annotations

import asyncio
import json
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, NamedTuple

from core.membership.member import MalformedMember, Member, member_from_fields
from net.rafthttp.client import PeerClient, PeerUnreachable

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

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


def find_cluster(
    urls: Iterable[str], tls: ClientTls | None = None, timeout_s: float = ASK_TIMEOUT_S
) -> FoundCluster | None:
    """Return the cluster that the first of *urls* to answer tells of; None if none does."""
    # On a thread of its own, since the one that starts a member may be running a loop already.
    with ThreadPoolExecutor(1) as thread:
        return thread.submit(asyncio.run, _find(urls, PeerClient(tls, timeout_s), timeout_s)).result()


async def _find(urls: Iterable[str], client: PeerClient, timeout_s: float) -> FoundCluster | None:
    try:
        for url in urls:
            found = await _ask(url, client, timeout_s)
            if found is not None:
                return found
        return None
    finally:
        client.close()


def join(configured: Sequence[InitialMember], name: str, found: FoundCluster | None) -> MemberId:
    """Return the id that the *found* cluster has for the member called *name*; JoinRefused.

    The configuration must list exactly the members of the cluster, this one included.
    """
    asked = ",".join(str(url) for member in configured if member.name != name for url in member.peer_urls)
    if found is None:
        raise JoinRefused(
            f"cannot fetch cluster info from peer urls ({asked}): is a member of the cluster running there, and can it "
            "be reached?"
        )
    by_urls = {frozenset(member.peer_urls): member for member in found.members}
    wanted = {frozenset(str(url) for url in member.peer_urls): member.name for member in configured}
    if len(by_urls) != len(wanted):
        raise JoinRefused(
            f"error validating peerURLs: member count is unequal; the cluster has {_shown(found.members)}. "
            "Add this member with `etcdctl member add` first, and take over the --initial-cluster that it prints"
        )
    if by_urls.keys() != wanted.keys():
        raise JoinRefused(
            "error validating peerURLs: unmatched member while checking PeerURLs; the cluster has "
            f"{_shown(found.members)}. Correct --initial-cluster or --initial-advertise-peer-urls"
        )
    own = next(by_urls[urls] for urls, named in wanted.items() if named == name)
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


def _shown(members: Iterable[Member]) -> str:
    return ", ".join(f"{member.name or member.hex_id}={','.join(member.peer_urls)}" for member in members)


async def _ask(url: str, client: PeerClient, timeout_s: float) -> FoundCluster | None:
    try:
        answer = await client.ask(url, "GET", "/members", (), b"", timeout_s)
        cluster_id = int(answer.headers.get("x-etcd-cluster-id", ""), 16)
        members = tuple(member_from_fields(fields) for fields in json.loads(answer.body))
    except (PeerUnreachable, ValueError, TypeError, AttributeError, MalformedMember, RecursionError):
        return None  # whatever it is, it is no member that could tell; the next one may be
    return FoundCluster(cluster_id, members)
