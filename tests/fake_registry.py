"""A place for members to meet, in memory, that fails when it is told to; and patience that only counts."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeVar

from discovery.registry import Listing, Registration, Unavailable

if TYPE_CHECKING:
    from collections.abc import Callable

T = TypeVar("T")


class FakeRegistry:
    """Each call takes the next of *failures*; *arrivals* come, one a call, to whoever waits."""

    name = "fake"

    def __init__(self, size: str | None = "3") -> None:
        self.wanted = size
        self.found: list[Registration] = []
        self.arrivals: list[Registration] = []
        self.failures: list[Exception | None] = []
        self.revision = 10

    def put(self, key: str, contents: str) -> Registration:
        """Register somebody."""
        self.revision += 1
        registration = Registration(key, contents, self.revision)
        self.found.append(registration)
        return registration

    def size(self) -> str | None:
        """Return what was set."""
        self._may_fail()
        return self.wanted

    def members(self) -> Listing:
        """Return all, the latest first: an order that means nothing."""
        self._may_fail()
        return Listing(tuple(reversed(self.found)), self.revision)

    def register(self, own: str, contents: str) -> None:
        """Register *own*."""
        self._may_fail()
        self.put(own, contents)

    def later(self, position: int) -> Listing:
        """Let the next one arrive."""
        self._may_fail()
        assert position == self.revision, (position, self.revision)
        assert self.arrivals, "nobody comes any more"
        arrival = self.arrivals.pop(0)
        return Listing((self.put(arrival.key, arrival.contents),), self.revision)

    def _may_fail(self) -> None:
        failure = self.failures.pop(0) if self.failures else None
        if failure is not None:
            raise failure


class Eager:
    """Waits for nothing, and remembers how long it should have."""

    def __init__(self) -> None:
        self.slept_s: list[float] = []

    def sleep(self, seconds: float) -> None:
        """Remember."""
        self.slept_s.append(seconds)

    def wait_for(self, work: Callable[[], T]) -> T:
        """Work here and now."""
        return work()


UNAVAILABLE = Unavailable("nobody there")
