"""The leases that exist and the keys attached to each: replicated state, equal on every member.

Held by ApplyActor and changed only by applied entries.  It knows nothing of time: when a lease ends is the primary's
business (core/lease/lessor.py), and the end arrives here as a revoke from the log.

Which key belongs to which lease is not stored on disk apart from the keys' own lease field, so after a restart the
attachments are found again from the live keys, step by step beside the traffic; see `LeaseBook.rebuild`.
Behaviour: LeaseGrant and LeaseRevoke of the etcd v3 API.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from core.errors import LeaseExists, LeaseNotFound, LeaseTtlTooLarge

if TYPE_CHECKING:
    from collections.abc import Iterable

    from core.types import LeaseId

TTL_S_MAX: Final = 9_000_000_000
"""A larger TTL is refused; etcd's limit, which keeps its nanosecond arithmetic inside 64 bits."""

_LIST_KEYS_MAX: Final = 16
"""Up to here a list is searched: a set of as many keys takes four times the memory."""


def minimum_ttl_s(*, election_ticks: int, tick_ms: int) -> int:
    """Return the shortest TTL in seconds that may be granted: one and a half election timeouts, rounded up.

    A lease shorter than an election would end before a new leader could keep it alive.
    """
    return -(-(election_ticks * 3 // 2) * tick_ms // 1000)


class LeaseBook:
    """The leases and their keys.  Belongs to ApplyActor.

    `revoke` and `keys` need the book to be *complete*: every key attached.  A book that starts without leases is
    complete at once, so a store that uses none pays nothing.  One that starts with leases becomes complete when its
    owner has handed every live key that has a lease to `rebuild` and then called `rebuilt`.  All other calls are right
    at any time.
    """

    def __init__(self, leases: Iterable[tuple[LeaseId, int]] = ()) -> None:
        """*leases* are the stored (id, TTL in seconds) pairs."""
        self._ttl_s: dict[LeaseId, int] = dict(leases)
        # Most leases hold one key or a few: a lone key stands for itself, a few are a list, only many are a set.
        self._keys: dict[int, bytes | list[bytes] | set[bytes]] = {}
        self._detached: set[tuple[int, bytes]] = set()
        self._complete = not self._ttl_s

    @property
    def complete(self) -> bool:
        """Whether every attached key is known, as `revoke` and `keys` require."""
        return self._complete

    @property
    def ids(self) -> Iterable[LeaseId]:
        """Every lease, in the order granted."""
        return self._ttl_s.keys()

    def __len__(self) -> int:
        return len(self._ttl_s)

    def exists(self, lease_id: int) -> bool:
        """Return whether the lease was granted and not yet revoked."""
        return lease_id in self._ttl_s

    def ttl_s(self, lease_id: LeaseId) -> int:
        """Return the granted TTL; LeaseNotFound if there is no such lease."""
        try:
            return self._ttl_s[lease_id]
        except KeyError:
            raise LeaseNotFound from None

    def grant(self, lease_id: LeaseId, ttl_s: int) -> None:
        """Add a lease whose TTL was already raised to `minimum_ttl_s`.

        Raises LeaseNotFound for id 0 (it means no lease), LeaseTtlTooLarge, LeaseExists.
        """
        if lease_id == 0:
            raise LeaseNotFound
        if ttl_s > TTL_S_MAX:
            raise LeaseTtlTooLarge
        if lease_id in self._ttl_s:
            raise LeaseExists
        self._ttl_s[lease_id] = ttl_s

    def revoke(self, lease_id: LeaseId) -> list[bytes]:
        """Forget the lease and return the keys that go with it, ascending; LeaseNotFound.  Needs completeness."""
        keys = self.keys(lease_id)
        del self._ttl_s[lease_id]
        self._keys.pop(lease_id, None)
        return keys

    def keys(self, lease_id: LeaseId) -> list[bytes]:
        """Return the attached keys, ascending; LeaseNotFound.  Needs completeness."""
        assert self._complete, lease_id
        if lease_id not in self._ttl_s:
            raise LeaseNotFound
        attached = self._keys.get(lease_id, ())
        return [attached] if isinstance(attached, bytes) else sorted(attached)

    def attach(self, lease_id: int, key: bytes) -> None:
        """Note that *key* now has this lease; LeaseNotFound.  Attaching again changes nothing."""
        if lease_id not in self._ttl_s:
            raise LeaseNotFound
        attached = self._keys.get(lease_id)
        if attached is None:
            self._keys[lease_id] = key
        elif isinstance(attached, bytes):
            if attached != key:
                self._keys[lease_id] = [attached, key]
        elif isinstance(attached, set):
            attached.add(key)
        elif key not in attached:
            attached.append(key)
            if len(attached) > _LIST_KEYS_MAX:
                self._keys[lease_id] = set(attached)

    def detach(self, lease_id: int, key: bytes) -> None:
        """Note that *key* was deleted or has another lease now.  An unknown lease or key changes nothing."""
        if not self._complete:
            self._detached.add((lease_id, key))
        attached = self._keys.get(lease_id)
        if attached is None:
            return
        if isinstance(attached, bytes):
            if attached == key:
                del self._keys[lease_id]
        elif key in attached:
            attached.remove(key)
            if not attached:
                del self._keys[lease_id]

    def rebuild(self, pairs: Iterable[tuple[int, bytes]]) -> None:
        """Attach the keys found by one step of the walk over the live keys.

        The walk may read the state as it was when the book was made, however long it takes: what was detached since
        then stays detached.  A lease that was never granted is passed over.  A complete book looks at no pair, so a
        lazy walk over a store without leases costs nothing.
        """
        if self._complete:
            return
        for lease_id, key in pairs:
            if lease_id in self._ttl_s and (lease_id, key) not in self._detached:
                self.attach(lease_id, key)

    def rebuilt(self) -> None:
        """Note that the walk has seen every live key: the book is complete."""
        self._complete = True
        self._detached.clear()
