"""Which endpoint the next call goes to: those that are connected, in turn.  Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable


class Rotation:
    """The endpoints of a cluster, and which of them can be used now."""

    def __init__(self, endpoints: Iterable[str]) -> None:
        self.endpoints = tuple(dict.fromkeys(endpoints))
        self._ready: set[str] = set()
        self._next = 0

    def replace(self, endpoints: Iterable[str]) -> None:
        """Use *endpoints* from now on."""
        self.endpoints = tuple(dict.fromkeys(endpoints))
        self._ready.intersection_update(self.endpoints)

    def ready(self, endpoint: str, *, yes: bool) -> None:
        """Take note whether *endpoint* is connected."""
        if yes and endpoint in self.endpoints:
            self._ready.add(endpoint)
        else:
            self._ready.discard(endpoint)

    @property
    def ready_count(self) -> int:
        """How many can be used."""
        return len(self._ready)

    def take(self, without: Collection[str] = ()) -> str | None:
        """Return the next one in turn that is connected and not in *without*; None if there is none."""
        count = len(self.endpoints)
        for step in range(count):
            endpoint = self.endpoints[(self._next + step) % count]
            if endpoint in self._ready and endpoint not in without:
                self._next = (self._next + step + 1) % count
                return endpoint
        return None
