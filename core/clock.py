"""The port through which actors read the time."""

from __future__ import annotations

from typing import Protocol


class Clock(Protocol):
    """Where time comes from."""

    def monotonic_s(self) -> float:
        """Return seconds since some moment; never goes back.  For durations."""

    def wall_s(self) -> float:
        """Return seconds since 1970.  For what is shown to people, and for ids."""
