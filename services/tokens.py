"""The kinds of tokens that stand for a login: simple ones, signed ones (services/jwt_tokens.py), or none.

A scheme belongs to one listener.  Which user a token stands for is all it knows; what a user may do is in
core/auth/rules.py.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from core.auth.rules import Identity, Rules
from core.auth.tokens import LETTERS, WORD_LENGTH, SimpleTokens, index_of
from core.errors import AuthFailed

if TYPE_CHECKING:
    from collections.abc import Mapping
    from random import Random

    from core.auth.tokens import TokenEvent

_NO_TOKENS: Mapping[str, float] = {}


class JwtKeysRefused(Exception):  # noqa: N818 - named for what happened
    """The keys of signed tokens cannot be used; the text is for the operator, in etcd's words where it has some."""


class TokenScheme(Protocol):
    """Makes and reads the tokens of one listener.  Times are monotonic seconds."""

    def make_word(self) -> str:
        """Return the random word that a login's entry turns into a token; empty if `sign` makes the token."""

    def sign(self, user: str, revision: int) -> str:
        """Return a token for a login checked at auth *revision*; on a worker's thread.  Raises an EtcdError."""

    def ready_at(self, token: str) -> int:
        """Return the applied index from which on `identify` can judge *token*."""

    def identify(self, token: str, rules: Rules, now_s: float) -> Identity | None:
        """Return whom *token* stands for, or None if it is not good."""

    def take(self, event: TokenEvent, now_s: float) -> None:
        """Follow what the log did to tokens."""

    def take_used(self) -> Mapping[str, float]:
        """Return when each token was used that was used since the last call, if other listeners must know."""

    def prolong(self, used_s: Mapping[str, float]) -> None:
        """Note when tokens were used at another listener."""

    def tick(self, now_s: float) -> None:
        """Do what is due; called about once a second."""


class SimpleScheme:
    """Tokens that every member learns from the log; see core/auth/tokens.py and TokenScheme."""

    def __init__(self, tokens: SimpleTokens, random: Random) -> None:
        """Draw words from *random*, which must be one that nobody can predict."""
        self._tokens = tokens
        self._random = random

    def make_word(self) -> str:
        """See TokenScheme."""
        return "".join(self._random.choices(LETTERS, k=WORD_LENGTH))

    def sign(self, user: str, revision: int) -> str:  # noqa: ARG002 - part of the scheme
        """Never called: the log makes these tokens."""
        raise AssertionError(user)

    def ready_at(self, token: str) -> int:
        """See TokenScheme: a member that is behind must not take a new token for a bad one."""
        return index_of(token) or 0

    def identify(self, token: str, rules: Rules, now_s: float) -> Identity | None:
        """See TokenScheme."""
        user = self._tokens.user_of(token, now_s)
        return None if user is None else Identity(user, rules.revision)

    def take(self, event: TokenEvent, now_s: float) -> None:
        """See TokenScheme."""
        self._tokens.take(event, now_s)

    def take_used(self) -> Mapping[str, float]:
        """See TokenScheme."""
        return self._tokens.take_used()

    def prolong(self, used_s: Mapping[str, float]) -> None:
        """See TokenScheme."""
        self._tokens.prolong(used_s)

    def tick(self, now_s: float) -> None:
        """See TokenScheme."""
        self._tokens.expire(now_s)


class LoglessScheme:
    """What schemes have in common whose tokens the log does not know."""

    def make_word(self) -> str:
        """See TokenScheme."""
        return ""

    def ready_at(self, token: str) -> int:  # noqa: ARG002 - part of the scheme
        """See TokenScheme."""
        return 0

    def take(self, event: TokenEvent, now_s: float) -> None:
        """See TokenScheme."""

    def take_used(self) -> Mapping[str, float]:
        """See TokenScheme."""
        return _NO_TOKENS

    def prolong(self, used_s: Mapping[str, float]) -> None:
        """See TokenScheme."""


class NoScheme(LoglessScheme):
    """No tokens: only a certificate tells who calls.  See TokenScheme."""

    def sign(self, user: str, revision: int) -> str:  # noqa: ARG002 - part of the scheme
        """See TokenScheme; AuthFailed, as in etcd."""
        raise AuthFailed

    def identify(self, token: str, rules: Rules, now_s: float) -> Identity | None:  # noqa: ARG002 - as above
        """See TokenScheme."""
        return None

    def tick(self, now_s: float) -> None:
        """See TokenScheme."""
