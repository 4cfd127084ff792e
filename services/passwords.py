"""Hashing passwords, and checking them against their hashes.

Both take tens of milliseconds on purpose, so they belong on a worker's thread, and never behind raft: what is proposed
is the hash.  Hashes are bcrypt's text form, as etcd stores them.  A password that was found right is remembered by a
keyed digest, so that a client which logs in for every request does not pay each time; a changed password has another
hash, under which nothing is remembered.
"""

from __future__ import annotations

import base64
import hmac
from typing import TYPE_CHECKING

import bcrypt

from core.errors import PasswordTooLong, PasswordTooShort

if TYPE_CHECKING:
    from collections.abc import Callable

BYTES_MAX = 72
"""bcrypt looks at no more of a password."""

REMEMBERED_MAX = 1024
"""Passwords remembered as right; the one found right first goes first."""

_KEY_BYTES = 32


class Passwords:
    """What a listener does with passwords.  Its methods may be called by any thread."""

    def __init__(self, cost: int, characters_min: int, random_bytes: Callable[[int], bytes]) -> None:
        """Hash in 2 to the *cost* rounds; refuse new passwords of fewer than *characters_min* characters."""
        self._cost = cost
        self._characters_min = characters_min
        self._key = random_bytes(_KEY_BYTES)
        self._right: dict[bytes, bytes] = {}

    def check_new(self, password: str) -> None:
        """Raise PasswordTooShort or PasswordTooLong."""
        if len(password) < self._characters_min:
            raise PasswordTooShort
        if len(password.encode()) > BYTES_MAX:
            raise PasswordTooLong

    def hash(self, password: str) -> str:
        """Return the base64 of a fresh hash of a password that has passed check_new.  Slow."""
        salt = bcrypt.gensalt(self._cost, prefix=b"2a")  # the kind that Go writes
        return base64.b64encode(bcrypt.hashpw(password.encode(), salt)).decode()

    def is_right(self, password: str, hashed: bytes) -> bool:
        """Whether *hashed* is of this password.  Slow.  What is no hash at all is of none."""
        try:
            # Old etcd cut long passwords when it hashed them.
            right = bcrypt.checkpw(password.encode()[:BYTES_MAX], hashed)
        except ValueError:
            return False
        if right:
            while len(self._right) >= REMEMBERED_MAX:
                self._right.pop(next(iter(self._right)), None)
            self._right[hashed] = self._digest(password)
        return right

    def is_known_right(self, password: str, hashed: bytes) -> bool:
        """Whether is_right has said so before.  Fast; False means only that it has to be asked."""
        remembered = self._right.get(hashed)
        return remembered is not None and hmac.compare_digest(remembered, self._digest(password))

    def _digest(self, password: str) -> bytes:
        return hmac.digest(self._key, password.encode(), "sha256")
