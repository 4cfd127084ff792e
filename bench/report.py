"""Turn figures into a table for people and a file for comparison over time."""

import json
import os
import platform
import statistics
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

RESULTS_DIRECTORY: Final = Path("bench-results")
"""Ignored by git; the servers' data are there too while they are measured."""

Figures = Mapping[str, Mapping[str, Sequence[float]]]
"""Per program, per figure: one number a round."""


def _summary(values: Sequence[float]) -> str:
    """Median, with the smallest and largest of several rounds."""
    if not values:
        return "-"
    median = f"{_number(statistics.median(values))}"
    return median if len(values) == 1 else f"{median} ({_number(min(values))}-{_number(max(values))})"


def _number(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def advantage(unit: str, subject: Sequence[float], reference: Sequence[float]) -> float:
    """How many times better the subject's median is; below 1 it is worse.  Only rates are better when larger."""
    ratio = statistics.median(subject) / statistics.median(reference)
    return ratio if unit == "/s" else 1 / ratio


def table(units: Mapping[str, str], figures: Figures) -> str:
    """One line a figure: median and spread of each program, and actcd's advantage when both were measured."""
    programs = list(figures)
    lines = [["figure", "unit", *programs, "actcd better by"] if len(programs) > 1 else ["figure", "unit", *programs]]
    for name, unit in units.items():
        measured = [figures[program].get(name, ()) for program in programs]
        if not any(measured):
            continue
        line = [name, unit, *map(_summary, measured)]
        if len(programs) > 1 and all(measured):
            subject, reference = figures["actcd"][name], figures["etcd"][name]
            line.append(f"{advantage(unit, subject, reference):.2f}x")
        lines.append(line)
    widths = [max(len(line[column]) for line in lines if column < len(line)) for column in range(len(lines[0]))]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=False)).rstrip() for line in lines
    )


def write(units: Mapping[str, str], figures: Figures, rounds: int, seconds: float) -> Path:
    """Write everything measured, with the machine it was measured on; the file's path."""
    path = RESULTS_DIRECTORY / time.strftime("%Y%m%dT%H%M%SZ.json", time.gmtime())
    content = {
        "machine": {
            "cpus": os.cpu_count(),
            "system": platform.platform(),
            "python": platform.python_version(),
            "load_average": os.getloadavg(),
        },
        "rounds": rounds,
        "seconds": seconds,
        "units": units,
        "figures": figures,
    }
    path.write_text(json.dumps(content, indent=1))
    return path
