"""Messages that many actors receive."""

from __future__ import annotations

from typing import NamedTuple


class Tick(NamedTuple):
    """Time has passed: one raft tick.  Told to those who asked the ticker, never more than one unhandled."""

    now_s: float
    """Monotonic seconds."""
