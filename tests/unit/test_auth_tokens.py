"""Simple tokens: for whom, for how long, and what ends them."""

from __future__ import annotations

import pytest

from core.auth.tokens import SimpleTokens, TokenAssigned, TokensDropped, index_of, token_of

TTL_S = 10.0


def tokens(*held: str) -> SimpleTokens:
    """Return tokens, each assigned at time 0 to the user before its dash."""
    made = SimpleTokens(TTL_S)
    for token in held:
        made.take(TokenAssigned(token, token.split("-")[0]), 0.0)
    return made


def test_a_token_stands_for_its_user() -> None:
    """Nothing but the whole token does."""
    made = tokens("joe-1", "ann-1")
    assert made.user_of("joe-1", 1.0) == "joe"
    assert made.user_of("ann-1", 1.0) == "ann"
    assert made.user_of("joe-", 1.0) is None
    assert made.user_of("", 1.0) is None


def test_use_prolongs() -> None:
    """A busy client need not log in again; one that stops for the whole time must."""
    made = tokens("joe-1")
    for now_s in (9.0, 18.0, 27.0):
        assert made.user_of("joe-1", now_s) == "joe"
    assert made.user_of("joe-1", 37.0) is None
    assert len(made) == 0


def test_expiry_forgets_what_nobody_asks_for() -> None:
    """Tokens that were left behind must not fill the memory."""
    made = tokens("joe-1", "ann-1")
    made.user_of("ann-1", 5.0)
    made.expire(10.0)
    assert len(made) == 1
    assert made.user_of("ann-1", 11.0) == "ann"


def test_dropping() -> None:
    """A changed password ends its user's tokens, switching auth off ends all."""
    made = tokens("joe-1", "joe-2", "ann-1")
    made.take(TokensDropped("joe"), 1.0)
    assert [made.user_of(token, 1.0) for token in ("joe-1", "joe-2", "ann-1")] == [None, None, "ann"]
    made.take(TokensDropped(None), 1.0)
    assert len(made) == 0


def test_use_elsewhere_counts() -> None:
    """A client may change from one address of a member to another."""
    here, there = tokens("joe-1", "ann-1"), tokens("joe-1", "ann-1")
    here.user_of("joe-1", 8.0)
    used_s = here.take_used()
    assert used_s == {"joe-1": 8.0}
    assert here.take_used() == {}
    there.prolong({**used_s, "nobodys": 9.0})
    assert there.user_of("ann-1", 11.0) is None
    assert there.user_of("nobodys", 11.0) is None
    assert there.user_of("joe-1", 17.0) == "joe"
    there.prolong(used_s)
    assert there.user_of("joe-1", 26.0) == "joe"


def test_hearing_of_old_use_is_no_use() -> None:
    """What a listener tells the others comes back to itself a while later; that alone must not keep a token alive."""
    made = tokens("joe-1")
    made.user_of("joe-1", 1.0)
    made.prolong(made.take_used())
    assert made.user_of("joe-1", 11.0) is None


@pytest.mark.parametrize(
    ("token", "index"),
    [
        ("abc.5", 5),
        (token_of("word", 18446744073709551615), 18446744073709551615),
        ("abc", None),
        (".5", None),
        ("abc.", None),
        ("abc.x", None),
        ("abc.-5", None),
        ("abc.5.6", None),
        ("abc.٣", None),
        ("abc." + "9" * 5000, None),
        ("", None),
    ],
)
def test_the_index_in_a_token(token: str, index: int | None) -> None:
    """A member that has not applied so far must wait; what only looks like a number must not stop it."""
    assert index_of(token) == index
