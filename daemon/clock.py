"""The machine's clocks."""

from __future__ import annotations

import time


class SystemClock:
    """The clock of a real node; see core.clock.Clock."""

    monotonic_s = staticmethod(time.monotonic)
    wall_s = staticmethod(time.time)
