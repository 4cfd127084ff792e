"""Majorities, single and joint (raft paper 5.3 and 6; raft thesis 4.3)."""

from __future__ import annotations

import pytest

from core.raft.messages import ConfState
from core.raft.quorum import VoteResult, agreed, vote_result
from core.types import MemberId


def conf(voters: str, outgoing: str = "") -> ConfState:
    """Return a configuration of one-digit ids."""
    return ConfState(tuple(MemberId(int(v)) for v in voters), voters_outgoing=tuple(MemberId(int(v)) for v in outgoing))


@pytest.mark.parametrize(
    ("voters", "outgoing", "reached", "number"),
    [
        ("1", "", {1: 5}, 5),
        ("12", "", {1: 5, 2: 3}, 3),
        ("123", "", {1: 5, 2: 3}, 3),
        ("123", "", {1: 5, 2: 3, 3: 9}, 5),
        ("1234", "", {1: 5, 2: 5, 3: 2, 4: 1}, 2),
        ("12345", "", {1: 5, 2: 5, 3: 5}, 5),
        ("123", "345", {1: 5, 2: 5, 3: 5}, 0),
        ("123", "345", {1: 5, 2: 5, 4: 3, 5: 4}, 3),
        ("123", "", {9: 7}, 0),
        ("", "", {1: 5}, 0),
    ],
)
def test_agreed_is_what_a_majority_has_reached(
    voters: str, outgoing: str, reached: dict[int, int], number: int
) -> None:
    """Who is behind never holds a majority up, who is ahead never decides; joint, both sets must agree."""
    assert agreed(conf(voters, outgoing), {MemberId(member): index for member, index in reached.items()}) == number


@pytest.mark.parametrize(
    ("voters", "outgoing", "yes", "no", "result"),
    [
        ("1", "", "", "", VoteResult.PENDING),
        ("1", "", "1", "", VoteResult.WON),
        ("123", "", "12", "", VoteResult.WON),
        ("123", "", "1", "2", VoteResult.PENDING),
        ("123", "", "1", "23", VoteResult.LOST),
        ("1234", "", "12", "3", VoteResult.PENDING),
        ("1234", "", "12", "34", VoteResult.LOST),
        ("123", "", "145", "", VoteResult.PENDING),
        ("123", "345", "123", "", VoteResult.PENDING),
        ("123", "345", "1235", "", VoteResult.WON),
        ("123", "345", "123", "45", VoteResult.LOST),
    ],
)
def test_an_election_needs_a_majority_of_each_set(
    voters: str, outgoing: str, yes: str, no: str, result: VoteResult
) -> None:
    """An even split of an even number is lost, votes of strangers do not count, and a joint election needs both."""
    votes = {MemberId(int(v)): True for v in yes} | {MemberId(int(v)): False for v in no}
    assert vote_result(conf(voters, outgoing), votes) is result
