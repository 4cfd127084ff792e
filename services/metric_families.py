"""Every family of /metrics: name, type, labels, text and, of histograms, bounds.

Names, types and labels are etcd's, so that its dashboards and alerts work; those that begin with ``actcd_`` are our
own.  A family without samples is left out of the page; one that has no labels and whose actor is silent too.
"""

from __future__ import annotations

from typing import NamedTuple


class Family(NamedTuple):
    """One family."""

    kind: str
    """gauge, counter or histogram."""
    text: str
    labels: tuple[str, ...] = ()


FAMILIES: dict[str, Family] = {
    "etcd_debugging_mvcc_slow_watcher_total": Family("gauge", "Watchers that have not caught up yet."),
    "etcd_debugging_mvcc_watch_stream_total": Family("gauge", "Watch streams that are open."),
    "etcd_debugging_mvcc_watcher_total": Family("gauge", "Watchers."),
}
