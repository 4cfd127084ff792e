"""What tools print: tables, sizes, and how far they have come.

Results go to standard output.  Progress goes to standard error, and only where that is a terminal.
"""

from __future__ import annotations

import sys
import time
from typing import TYPE_CHECKING, Protocol, Self

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

SIZE_UNITS = ("B", "kB", "MB", "GB", "TB", "PB", "EB")
QUIET_S = 0.5
"""What takes no longer than this shows no progress."""
_REDRAW_S = 0.1
_BAR_WIDTH = 30


class Terminal(Protocol):
    """Where progress is shown."""

    def write(self, text: str, /) -> object:
        """Write *text*."""

    def flush(self) -> object:
        """Pass it on."""

    def isatty(self) -> bool:
        """Whether a person reads along."""


class Progress:
    """A line on a terminal that says how far a long command has come, and is gone at its end; a context manager."""

    def __init__(self, terminal: Terminal | None = None, clock_s: Callable[[], float] = time.monotonic) -> None:
        self._terminal = sys.stderr if terminal is None else terminal
        self._clock_s = clock_s
        self._on = self._terminal.isatty()
        self._began_s = clock_s()
        self._drawn_s: float | None = None
        self._what = ""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self._drawn_s is not None:
            self._show("")

    def __call__(self, what: str, count: int, total: int = 0) -> None:
        """Take note that *count* of *what* are done, of *total* if that is known."""
        if not self._on:
            return
        now_s = self._clock_s()
        if what != self._what:
            self._what, self._began_s = what, now_s if self._what else self._began_s
        due_s = self._began_s + QUIET_S if self._drawn_s is None else self._drawn_s + _REDRAW_S
        if now_s >= due_s:
            self._drawn_s = now_s
            self._show(progress_line(what, count, total, now_s - self._began_s))

    def _show(self, line: str) -> None:
        self._terminal.write(f"\r\x1b[K{line}")
        self._terminal.flush()


def progress_line(what: str, count: int, total: int, elapsed_s: float) -> str:
    """Return one line: a bar and the time that is left where *total* is known, else how many and how fast."""
    rate = count / elapsed_s if elapsed_s > 0 else 0.0
    in_bytes = what == "bytes"
    done = human_size(count) if in_bytes else f"{count:,} {what}"
    speed = f"{human_size(int(rate))}/s" if in_bytes else f"{rate:,.0f}/s"
    if not total:
        return f"{done}, {speed}"
    part = min(count / total, 1.0)
    filled = int(part * _BAR_WIDTH)
    left_s = (total - count) / rate if rate > 0 else 0.0
    return f"[{'#' * filled}{'.' * (_BAR_WIDTH - filled)}] {part:4.0%}  {done}, {speed}, {max(left_s, 0.0):.0f} s left"


def human_size(size_bytes: int) -> str:
    """Return a size as people read it, in steps of 1000 and two digits where there is one before the point."""
    size = float(size_bytes)
    unit = 0
    while size >= 1000 and unit < len(SIZE_UNITS) - 1:
        size /= 1000
        unit += 1
    digits = f"{size:.1f}" if unit and size < 9.95 else f"{size:.0f}"
    return f"{digits} {SIZE_UNITS[unit]}"


def table(names: Sequence[str], rows: Sequence[Sequence[str]], left: Sequence[int] = ()) -> str:
    """Return a table as etcdctl draws them; columns are aligned to the right but for the numbers in *left*."""
    widths = [max([len(name), *(len(row[at]) for row in rows)]) for at, name in enumerate(names)]
    line = "+" + "+".join("-" * (width + 2) for width in widths) + "+"
    head = "|" + "|".join(f" {name:^{width}} " for name, width in zip(names, widths, strict=True)) + "|"
    body = [
        "|"
        + "|".join(
            f" {value:{'<' if at in left else '>'}{width}} "
            for at, (value, width) in enumerate(zip(row, widths, strict=True))
        )
        + "|"
        for row in rows
    ]
    return "\n".join((line, head, line, *body, line))


def put_line(text: str) -> None:
    """Print *text*."""
    sys.stdout.write(f"{text}\n")
