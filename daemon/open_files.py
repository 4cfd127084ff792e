"""How many files the process may have open, and how many of them connections may take.

A member that runs out of them can open no segment of its log, and stops: clients must not bring that about.
"""

from __future__ import annotations

import resource
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import structlog

RESERVED_MIN = 150
"""Kept for the log, the store and connections of our own (etcd's number)."""

CONNECTIONS_MAX = 100_000
"""Of one listener, however many files there may be."""


def raise_limit(logger: structlog.stdlib.BoundLogger) -> None:
    """Take as many as the system grants, as programs in Go do at their start."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    except (OSError, ValueError):
        hard = soft  # the kernel's own bound may be lower still
    if hard != resource.RLIM_INFINITY and hard <= 2 * RESERVED_MIN:
        logger.warning("few files may be open at once, so few clients can be connected", limit=hard)


def connections_max(listeners: int) -> int:
    """Return how many connections each of so many *listeners* may hold."""
    limit = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    if limit == resource.RLIM_INFINITY:
        return CONNECTIONS_MAX
    # LevelDB keeps a fifth of the limit open where it cannot map its tables.
    free = limit - max(RESERVED_MIN, limit // 4)
    return max(1, min(CONNECTIONS_MAX, free // max(1, listeners)))
