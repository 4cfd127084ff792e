"""Which endpoint the next connection goes to."""

from __future__ import annotations

from collections import Counter
from random import Random

from net.srv import Srv
from proxy.remotes import Remotes


def picked(remotes: Remotes, count: int) -> list[str]:
    found = [remotes.pick() for _ in range(count)]
    return [remote.srv.target for remote in found if remote is not None]


def test_round_robin_over_those_that_answer() -> None:
    """Each gets the same share; one that does not answer gets nothing until it does."""
    remotes = Remotes([Srv("a", 1), Srv("b", 1), Srv("c", 1)], Random(1))
    assert picked(remotes, 6) == ["a", "b", "c", "a", "b", "c"]
    remotes.all[1].is_active = False
    assert remotes.inactive == [remotes.all[1]]
    assert Counter(picked(remotes, 10)) == {"a": 5, "c": 5}
    remotes.all[1].is_active = True
    assert Counter(picked(remotes, 9)) == {"a": 3, "b": 3, "c": 3}


def test_nobody_answers() -> None:
    """Then there is none, and the connection can only be closed."""
    remotes = Remotes([Srv("a", 1)], Random(1))
    remotes.all[0].is_active = False
    assert remotes.pick() is None


def test_the_best_priority_that_answers_is_taken() -> None:
    """Others are for when all of it are gone."""
    remotes = Remotes([Srv("spare", 1, 10), Srv("a", 1, 0), Srv("b", 1, 0)], Random(1))
    assert set(picked(remotes, 10)) == {"a", "b"}
    remotes.all[1].is_active = remotes.all[2].is_active = False
    assert set(picked(remotes, 10)) == {"spare"}


def test_weights_are_shares_by_chance() -> None:
    """As DNS asks for; what has no weight beside others that have is taken once in a hundred times."""
    remotes = Remotes([Srv("three", 1, 0, 30), Srv("one", 1, 0, 10), Srv("none", 1, 0, 0)], Random(5))
    shares = Counter(picked(remotes, 4000))
    assert 2800 < shares["three"] < 3200
    assert 10 < shares["none"] < 90
