"""Durations in Go's notation (``1h30m``, ``100ms``), which every etcd flag and message uses.

Whole nanoseconds inside, so that a value is printed exactly as it was read; Config holds seconds.
"""

from __future__ import annotations

import re
from fractions import Fraction

from config.faults import BadValue

NANOSECONDS_PER_S = 1_000_000_000
_NANOSECONDS_MAX = 2**63 - 1
_UNITS_NS = {
    "ns": 1,
    "us": 1_000,
    "µs": 1_000,  # the micro sign
    "\N{GREEK SMALL LETTER MU}s": 1_000,
    "ms": 1_000_000,
    "s": NANOSECONDS_PER_S,
    "m": 60 * NANOSECONDS_PER_S,
    "h": 3600 * NANOSECONDS_PER_S,
}
_PART = re.compile(r"(\d+\.?\d*|\.\d+)(ns|us|µs|\u03bcs|ms|s|m|h)", re.ASCII)


def parse_duration_s(text: str) -> float:
    """Return the seconds in *text*; raise ValueError in the words of Go's flag package."""
    return to_seconds(_parse_nanoseconds(text))


def to_seconds(nanoseconds: int) -> float:
    """Return *nanoseconds* in seconds; raise ValueError when Go's Duration could not hold them."""
    if abs(nanoseconds) > _NANOSECONDS_MAX:
        raise BadValue("value out of range")
    return nanoseconds / NANOSECONDS_PER_S


def to_nanoseconds(seconds: float) -> int:
    """Return the whole nanoseconds nearest to *seconds*."""
    return round(seconds * NANOSECONDS_PER_S)


def format_duration(seconds: float) -> str:
    """Return *seconds* as Go prints a Duration: ``1h30m0s``, ``100ms``, ``0s``."""
    nanoseconds = to_nanoseconds(seconds)
    sign, nanoseconds = ("-", -nanoseconds) if nanoseconds < 0 else ("", nanoseconds)
    if nanoseconds == 0:
        return "0s"
    if nanoseconds < NANOSECONDS_PER_S:
        unit = next(unit for unit in ("ms", "µs", "ns") if nanoseconds >= _UNITS_NS[unit])
        return f"{sign}{_decimal(nanoseconds, _UNITS_NS[unit])}{unit}"
    minutes, below_ns = divmod(nanoseconds, _UNITS_NS["m"])
    hours, minutes = divmod(minutes, 60)
    head = f"{hours}h{minutes}m" if hours else f"{minutes}m" if minutes else ""
    return f"{sign}{head}{_decimal(below_ns, NANOSECONDS_PER_S)}s"


def _parse_nanoseconds(text: str) -> int:
    body = text.removeprefix("-") if text.startswith("-") else text.removeprefix("+")
    if body == "0":
        return 0
    total, position = Fraction(0), 0
    for part in _PART.finditer(body):
        if part.start() != position:
            break
        total += Fraction(part[1]) * _UNITS_NS[part[2]]
        position = part.end()
    if not body or position != len(body) or total > _NANOSECONDS_MAX:
        raise BadValue("parse error")
    return -int(total) if text.startswith("-") else int(total)


def _decimal(amount: int, unit: int) -> str:
    whole, rest = divmod(amount, unit)
    digits = f"{rest:0{len(str(unit)) - 1}d}".rstrip("0")  # unit is a power of ten
    return f"{whole}.{digits}" if digits else str(whole)
