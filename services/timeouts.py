"""Why a proposal was not answered in time, as far as one member can tell.  Behaviour: etcd's errors for timeouts."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from core.errors import DeadlineExceeded, EtcdError, RequestTimeout, TimeoutDueToConnectionLost, TimeoutDueToLeaderFail
from core.raft.messages import NOBODY

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

    from core.types import MemberId


@dataclass(slots=True)
class Leadership:
    """What a member knows of leaders and connections.  Times are monotonic seconds."""

    local: MemberId
    election_timeout_s: float
    leader: MemberId = NOBODY
    elected_s: float = 0.0
    """When the present leader was heard of."""
    lost_s: float = 0.0
    """When the last one was lost, while there is none."""
    voters: Collection[MemberId] = ()
    connected_since_s: Mapping[MemberId, float] = field(default_factory=dict)

    def notice(self, leader: MemberId, now_s: float) -> None:
        """Note who leads now."""
        if leader == self.leader:
            return
        if leader:
            self.elected_s = now_s
        else:
            self.lost_s = now_s
        self.leader = leader

    def timeout_of(self, since_s: float) -> EtcdError:
        """Return why a request that began at *since_s* has had no answer."""
        if not self.leader:
            # Without a leader it was never proposed, and etcd lets the bare deadline through.
            return DeadlineExceeded() if since_s >= self.lost_s else RequestTimeout()
        if self.elected_s - 2 * self.election_timeout_s <= since_s <= self.elected_s:
            return TimeoutDueToLeaderFail()
        if self.leader == self.local:
            lost = sum(not self._steady(voter, since_s) for voter in self.voters)
            return TimeoutDueToConnectionLost() if 2 * lost >= max(len(self.voters), 1) else RequestTimeout()
        return RequestTimeout() if self._steady(self.leader, since_s) else TimeoutDueToConnectionLost()

    def _steady(self, member: MemberId, since_s: float) -> bool:
        return member == self.local or self.connected_since_s.get(member, float("inf")) <= since_s
