"""auto-compaction-mode and auto-compaction-retention, read together: how much history a member keeps by itself.

Spec: etcd's flags.  In mode periodic a plain number is hours, in mode revision it is revisions.
"""

from __future__ import annotations

from typing import NamedTuple

from config.durations import parse_duration_s
from config.faults import BadValue

S_PER_HOUR = 3600.0


class AutoCompaction(NamedTuple):
    """What is kept; one of the two is 0, and both are where nothing is compacted by itself."""

    period_s: float
    revisions: int


def parse_auto_compaction(mode: str, retention: str) -> AutoCompaction:
    """Return what the two settings say; BadValue where *retention* does not fit *mode*."""
    try:
        number = int(retention) if retention.isascii() else None
    except ValueError:
        number = None
    if number is None:
        period_s = parse_duration_s(retention)
        if mode == "revision" and period_s:
            raise BadValue("a number of revisions is needed")
        number = 0
    else:
        period_s = 0.0 if mode == "revision" else number * S_PER_HOUR
    if number < 0 or period_s < 0:
        raise BadValue("it must not be negative")
    return AutoCompaction(period_s, number if mode == "revision" else 0)
