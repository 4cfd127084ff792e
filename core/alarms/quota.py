"""How large the store may grow.

What a request costs is reckoned in core/apply/cost.py; here it is a number.  The size held against the quota is what
the store's files take on disk, free space in them included.  Behaviour: Quota in the Maintenance section of the etcd v3
API.
"""

from __future__ import annotations

import sys

DEFAULT_QUOTA_BYTES = 2 << 30
"""What a configured 0 means."""


class Quota:
    """The limit of one member.

    It is asked twice.  Before a proposal a request without room is refused and the NOSPACE alarm raised.  When an entry
    is applied it is too late to refuse: the write takes place, but is answered with NoSpace and raises the alarm.
    """

    def __init__(self, configured_bytes: int) -> None:
        """Take the value as configured: 0 is the default, below 0 there is no limit."""
        self._limit_bytes = (configured_bytes or DEFAULT_QUOTA_BYTES) if configured_bytes >= 0 else None

    @property
    def limit_bytes(self) -> int | None:
        """The limit in force; None if there is none."""
        return self._limit_bytes

    def has_room(self, *, store_size_bytes: int, cost_bytes: int) -> bool:
        """Return whether a request of this cost fits; one that costs nothing always does."""
        if cost_bytes == 0 or self._limit_bytes is None:
            return True
        return store_size_bytes + cost_bytes < self._limit_bytes

    def room_bytes(self, store_size_bytes: int) -> int:
        """Return which cost does not fit any more: costs below it do."""
        return sys.maxsize if self._limit_bytes is None else self._limit_bytes - store_size_bytes


NO_QUOTA = Quota(-1)
