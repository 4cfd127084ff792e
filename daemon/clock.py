"""The machine's clocks."""

from __future__ import annotations

import time


class SystemClock:
    """The clock of a real node; see core.clock.Clock."""

    def monotonic_s(self) -> float:
        """See Clock."""
        return time.monotonic()

    def wall_s(self) -> float:
        """See Clock."""
        return time.time()
