"""Messages that many actors receive."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from core.membership.downgrade import Downgrade

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from core.membership.member import Member
    from core.types import MemberId


NO_DOWNGRADE = Downgrade()


class Tick(NamedTuple):
    """Time has passed: one raft tick.  Told to those who asked the ticker, never more than one unhandled."""

    now_s: float
    """Monotonic seconds."""
    taken: Callable[[], None] | None = None
    """Called when it is about to be handled: the next one may come."""


class ClusterIs(NamedTuple):
    """From ApplyActor: who belongs to the cluster, as of what is applied."""

    members: tuple[Member, ...]
    removed: tuple[MemberId, ...]
    version: str
    """Empty until the members have agreed on one."""
    downgrade: Downgrade = NO_DOWNGRADE


class ActivityIs(NamedTuple):
    """From PeerTransportActor: which members are connected."""

    since_s: Mapping[MemberId, float]
    """By member, since when without a break, monotonic seconds."""
