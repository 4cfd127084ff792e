"""What a majority has agreed on: of one set of voters, or of both sets while a configuration is joint.

Raft paper section 5.3 (commit by counting) and 6 (joint consensus); raft thesis section 4.3.
"""

from __future__ import annotations

from enum import Enum
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

    from core.raft.messages import ConfState
    from core.types import MemberId


class VoteResult(Enum):
    """Where an election stands."""

    PENDING = "pending"
    WON = "won"
    LOST = "lost"


def agreed(conf_state: ConfState, reached: Mapping[MemberId, int]) -> int:
    """Return the highest number that a quorum of voters has reached; who is not in *reached* stands at 0."""
    outgoing = conf_state.voters_outgoing
    number = _agreed(conf_state.voters, reached)
    return min(number, _agreed(outgoing, reached)) if outgoing else number


def vote_result(conf_state: ConfState, votes: Mapping[MemberId, bool]) -> VoteResult:
    """Return where an election with these *votes* stands; a joint one needs both majorities."""
    results = [_vote_result(conf_state.voters, votes)]
    if conf_state.voters_outgoing:
        results.append(_vote_result(conf_state.voters_outgoing, votes))
    for decisive in (VoteResult.LOST, VoteResult.PENDING):
        if decisive in results:
            return decisive
    return VoteResult.WON


def _agreed(voters: tuple[MemberId, ...], reached: Mapping[MemberId, int]) -> int:
    if not voters:
        return 0
    if len(voters) == 1:
        return reached.get(voters[0], 0)
    return sorted(reached.get(voter, 0) for voter in voters)[(len(voters) - 1) // 2]


def _vote_result(voters: tuple[MemberId, ...], votes: Mapping[MemberId, bool]) -> VoteResult:
    needed = len(voters) // 2 + 1
    if sum(votes.get(voter, False) for voter in voters) >= needed:
        return VoteResult.WON
    if sum(votes.get(voter, True) for voter in voters) < needed:
        return VoteResult.LOST
    return VoteResult.PENDING
