"""Requests that took too long: the first of a while as lines of the log, the others as one line that counts them.

etcd writes one for each, so that a server that is overloaded spends what it has left on its log, and the reason drowns
in it.  The newest are kept for the page that shows them, too.
"""

from __future__ import annotations

from collections import Counter, deque
from typing import TYPE_CHECKING, Any, Final, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Callable

LINES_MAX: Final = 10
"""So many are logged one by one, and the rest of PERIOD_S counted."""

PERIOD_S: Final = 10.0
KEPT_MAX: Final = 100
"""Newest ones that are shown."""


class SlowRequest(NamedTuple):
    """One request that took too long."""

    ended_s: float
    """Seconds since 1970."""
    method: str
    peer: str
    took_s: float


class SlowRequests:
    """Those of one listener, on its loop's thread.  *wall_s* gives seconds since 1970."""

    def __init__(self, log: Any, wall_s: Callable[[], float]) -> None:  # noqa: ANN401 - structlog's have no common type
        self._log = log
        self._wall_s = wall_s
        self.newest: deque[SlowRequest] = deque(maxlen=KEPT_MAX)
        self._period_end_s = 0.0
        self._lines = 0
        self._left_out: Counter[str] = Counter()
        self._longest_s = 0.0

    def note(self, method: str, peer: str, took_s: float, now_s: float) -> None:
        """Take note of one that ended at *now_s*, on the clock of tick."""
        took_s = round(took_s, 3)
        self.newest.append(SlowRequest(self._wall_s(), method, peer, took_s))
        self.tick(now_s)
        if not self._lines:
            self._period_end_s = now_s + PERIOD_S
        if self._lines < LINES_MAX:
            self._lines += 1
            self._log.warning("slow request", method=method, peer=peer, took_s=took_s)
        else:
            self._left_out[method] += 1
            self._longest_s = max(self._longest_s, took_s)

    def tick(self, now_s: float) -> None:
        """Tell what was left out, when its time is over."""
        if not self._lines or now_s < self._period_end_s:
            return
        if self._left_out:
            self._log.warning(
                "more slow requests",
                count=self._left_out.total(),
                methods=dict(self._left_out.most_common()),
                longest_s=self._longest_s,
                period_s=PERIOD_S,
            )
        self._lines, self._longest_s = 0, 0.0
        self._left_out.clear()
