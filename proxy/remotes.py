"""Which member the next connection goes to: round robin over those that answer, weighted where DNS says so.

Pure: told what answers and what does not, asked for the next one.  Behaviour: etcd's TCP gateway.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable
    from random import Random

    from net.srv import Srv

UNWEIGHTED_SHARE = 0.01
"""How often one of weight 0 is taken where others have weights: seldom, as RFC 2782 asks."""


@dataclass(slots=True, eq=False)
class Remote:
    """One endpoint."""

    srv: Srv
    is_active: bool = True

    @property
    def address(self) -> str:
        """``host:port``."""
        return self.srv.address


class Remotes:
    """All endpoints of a gateway."""

    def __init__(self, endpoints: Iterable[Srv], random: Random) -> None:
        self.all = tuple(Remote(srv) for srv in endpoints)
        self._random = random
        self._picked = 0

    @property
    def inactive(self) -> list[Remote]:
        """Those that did not answer last."""
        return [remote for remote in self.all if not remote.is_active]

    def pick(self) -> Remote | None:
        """Return the next one to connect to, of the best priority that has any that answers; None if nobody does."""
        active = [remote for remote in self.all if remote.is_active]
        if not active:
            return None
        best = min(remote.srv.priority for remote in active)
        active = [remote for remote in active if remote.srv.priority == best]
        weighted = [remote for remote in active if remote.srv.weight]
        unweighted = [remote for remote in active if not remote.srv.weight]
        if weighted and not (unweighted and self._random.random() < UNWEIGHTED_SHARE):
            return self._random.choices(weighted, [remote.srv.weight for remote in weighted])[0]
        picked = unweighted[self._picked % len(unweighted)]
        self._picked += 1
        return picked
