"""Tokens of the simple kind: which are good, for whom, and for how long.

Each member keeps the tokens that the log hands out, in memory only, so they end with the process.  A token is a random
word that was drawn before it was proposed, a dot, and the index of the entry that made it valid.
Time is handed in as monotonic seconds.  Behaviour: section Auth of the etcd v3 API.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Mapping

WORD_LENGTH = 16
LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
DEFAULT_TTL_S = 300
_INDEX_DIGITS_MAX = 20


class TokenAssigned(NamedTuple):
    """The log has made *token* good for *user*."""

    token: str
    user: str


class TokensDropped(NamedTuple):
    """The log has ended the tokens of *user*; of everybody if it is None."""

    user: str | None


TokenEvent = TokenAssigned | TokensDropped


def token_of(word: str, index: int) -> str:
    """Return the token that the entry at *index* makes of the *word* in it."""
    return f"{word}.{index}"


def index_of(token: str) -> int | None:
    """Return the index from which on *token* may be good; None if it has not the form of one."""
    word, dot, digits = token.partition(".")
    if not word or not dot or not digits.isascii() or not digits.isdigit() or len(digits) > _INDEX_DIGITS_MAX:
        return None
    return int(digits)


class SimpleTokens:
    """The good tokens, and who holds them.  Belongs to one listener."""

    def __init__(self, ttl_s: float) -> None:
        """Let each token end *ttl_s* seconds after its last use."""
        self._ttl_s = ttl_s
        self._users: dict[str, str] = {}
        self._ends_s: dict[str, float] = {}
        self._used_s: dict[str, float] = {}

    def __len__(self) -> int:
        return len(self._users)

    def take(self, event: TokenEvent, now_s: float) -> None:
        """Follow what the log did."""
        match event:
            case TokenAssigned(token, user):
                self._users[token] = user
                self._ends_s[token] = now_s + self._ttl_s
            case TokensDropped(None):
                self._users.clear()
                self._ends_s.clear()
            case TokensDropped(user):
                for token in [token for token, holder in self._users.items() if holder == user]:
                    self._forget(token)

    def user_of(self, token: str, now_s: float) -> str | None:
        """Return who holds *token* and prolong it; None if it is not good."""
        user = self._users.get(token)
        if user is None:
            return None
        if self._ends_s[token] <= now_s:
            self._forget(token)
            return None
        self._ends_s[token] = now_s + self._ttl_s
        self._used_s[token] = now_s
        return user

    def take_used(self) -> Mapping[str, float]:
        """Return when each token was used that was used since the last call, so that other listeners prolong it too."""
        used_s, self._used_s = self._used_s, {}
        return used_s

    def prolong(self, used_s: Mapping[str, float]) -> None:
        """Note when tokens were used elsewhere; those not good here stay so."""
        for token, at_s in used_s.items():
            if token in self._users:
                self._ends_s[token] = max(self._ends_s[token], at_s + self._ttl_s)

    def expire(self, now_s: float) -> None:
        """Forget the tokens that nobody used for too long."""
        for token in [token for token, end_s in self._ends_s.items() if end_s <= now_s]:
            self._forget(token)

    def _forget(self, token: str) -> None:
        del self._users[token]
        del self._ends_s[token]
