"""How much a peer may annoy a connection: frames that cost us and bring nothing, and pings.

Patience is a bucket of tokens that fills with time, so that a flood of any kind (resets, settings, priorities, empty
frames, continuations) ends in one place.  Pings are counted as grpc-go's servers count them.  Pure: the time is
handed in.
"""

from __future__ import annotations

from typing import Final

PATIENCE_MAX: Final = 5000
PATIENCE_PER_SECOND: Final = 500
"""A client that cancels thousands of calls at once is in order; one that goes on doing so is not."""

SETTINGS_COST: Final = 20
STREAMS_PER_SETTINGS_COST: Final = 20
"""A change of INITIAL_WINDOW_SIZE concerns every open stream, so it costs more the more there are."""

RESET_COST: Final = 1
USELESS_COST: Final = 1
"""Of PRIORITY, CONTINUATION, unknown frames, DATA without bytes, and frames for streams that are gone."""

STRIKES_MAX: Final = 2
IDLE_PING_INTERVAL_S: Final = 2 * 3600.0
"""Pings closer than this, on a connection without streams, are strikes."""


class Patience:
    """A token bucket."""

    def __init__(self, now_s: float) -> None:
        self._tokens = float(PATIENCE_MAX)
        self._filled_at_s = now_s

    def spend(self, cost: int, now_s: float) -> bool:
        """Take *cost* tokens; False if they were not there."""
        self._tokens -= cost
        if self._tokens >= 0:
            return True
        # Time is only looked at when the bucket is empty.
        elapsed_s, self._filled_at_s = now_s - self._filled_at_s, now_s
        self._tokens = min(self._tokens + elapsed_s * PATIENCE_PER_SECOND, PATIENCE_MAX)
        return self._tokens >= 0


class PingStrikes:
    """Counts pings that came too soon."""

    def __init__(self, min_time_s: float) -> None:
        self._min_time_s = min_time_s
        self._strikes = 0
        self._last_at_s: float | None = None

    def pinged(self, now_s: float, *, pardoned: bool, streams_open: bool) -> bool:
        """Count a ping; False if it was one too many.  *pardoned*: we sent HEADERS or DATA since the last one."""
        last_at_s, self._last_at_s = self._last_at_s, now_s
        if pardoned:
            self._strikes = 0
            return True
        interval_s = self._min_time_s if streams_open else IDLE_PING_INTERVAL_S
        if last_at_s is not None and now_s - last_at_s < interval_s:
            self._strikes += 1
        return self._strikes <= STRIKES_MAX
