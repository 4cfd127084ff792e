"""The files of a backup folder: their names, which of them are complete, and which may go."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

_TIME = "%Y%m%dT%H%M%SZ"
PART = ".part"


class Backup(NamedTuple):
    """One complete snapshot."""

    taken_s: float
    """Seconds since 1970."""
    path: Path


def file_name(prefix: str, member: str, taken_s: float, revision: int) -> str:
    """Return the name of a snapshot; names sort by time."""
    time = datetime.fromtimestamp(taken_s, UTC).strftime(_TIME)
    return f"{prefix}-{safe(member)}-{time}-rev{revision}.db"


def backups_in(folder: Path, prefix: str, member: str) -> list[Backup]:
    """Return the complete snapshots that this member has put into *folder*, oldest first."""
    pattern = re.compile(rf"{re.escape(prefix)}-{re.escape(safe(member))}-(\d{{8}}T\d{{6}}Z)-rev\d+\.db")
    found = []
    for path in folder.iterdir():
        named = pattern.fullmatch(path.name)
        if named:
            taken = datetime.strptime(named[1], _TIME).replace(tzinfo=UTC)
            found.append(Backup(taken.timestamp(), path))
    return sorted(found)


def expendable(backups: Sequence[Backup], now_s: float, keep_count: int, keep_days: float) -> list[Backup]:
    """Return those beyond the newest *keep_count* or older than *keep_days* (0: no bound); never the newest one."""
    older = sorted(backups)[:-1]
    too_many = set(older[: max(0, len(backups) - keep_count)]) if keep_count else set()
    too_old = {each for each in older if keep_days and each.taken_s < now_s - keep_days * 86_400}
    return sorted(too_many | too_old)


def safe(member: str) -> str:
    """Return *member* with what a file name must not hold replaced."""
    return re.sub(r"[^A-Za-z0-9_.]", "_", member).lstrip(".") or "_"
