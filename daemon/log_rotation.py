"""A log file that is set aside when it is full, with the rules and names of the library that etcd uses.

``etcd.log`` becomes ``etcd-2026-01-02T15-04-05.000.log`` (``.gz`` behind it where old files are compressed), and a new
``etcd.log`` begins.  Written by one thread at a time; old files are compressed and removed by a thread of its own, so
that no line waits for that.
"""

from __future__ import annotations

import contextlib
import gzip
import os
import re
import shutil
from datetime import UTC, datetime, timedelta
from threading import Thread
from typing import TYPE_CHECKING, BinaryIO

from wal.removal import remove_in_pieces

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from config.rotation import Rotation

_MODE = 0o600
_TIME_FORM = "%Y-%m-%dT%H-%M-%S"
_TIME = r"(\d{4}-\d\d-\d\dT\d\d-\d\d-\d\d)\.\d{3}"
_BYTES_PER_MB = 1 << 20


class RotatingFile:
    """A LogStream; raises OSError where its first file cannot be opened."""

    def __init__(self, path: Path, rotation: Rotation, clock: Callable[[], datetime]) -> None:
        """*clock* tells the time with its zone."""
        self._path = path
        self._rotation = rotation
        self._clock = clock
        self._size_bytes_max = rotation.size_mb_max * _BYTES_PER_MB
        self._cleaner: Thread | None = None
        path.parent.mkdir(parents=True, exist_ok=True)
        self._file, self._size_bytes = _open(path, _MODE)
        self._clean_up()

    def write(self, line: bytes, /) -> object:
        """Write *line*, to a new file if it does not fit into this one."""
        if self._size_bytes and self._size_bytes + len(line) > self._size_bytes_max:
            self._rotate()
        self._size_bytes += len(line)
        return self._file.write(line)

    def flush(self) -> object:
        """See LogStream."""
        return self._file.flush()

    def isatty(self) -> bool:
        """See LogStream."""
        return False

    def close(self) -> None:
        """Let go of the file, and see the clean-up that may be under way to its end."""
        self._file.close()
        if self._cleaner is not None:
            self._cleaner.join()

    def _rotate(self) -> None:
        mode = os.fstat(self._file.fileno()).st_mode & 0o777
        self._file.close()
        now = self._clock() if self._rotation.local_time else self._clock().astimezone(UTC)
        stamp = f"{now.strftime(_TIME_FORM)}.{now.microsecond // 1000:03d}"
        # Where this fails the old file grows on: a log that is too long is better than none.
        with contextlib.suppress(OSError):
            self._path.rename(self._path.with_name(f"{self._path.stem}-{stamp}{self._path.suffix}"))
        self._file, self._size_bytes = _open(self._path, mode)
        self._clean_up()

    def _clean_up(self) -> None:
        rotation = self._rotation
        if not (rotation.age_days_max or rotation.backups_max or rotation.compress):
            return
        if self._cleaner is not None:
            self._cleaner.join()
        self._cleaner = Thread(target=clean_up, args=(self._path, rotation, self._clock()), name="log-cleaner")
        self._cleaner.start()


def clean_up(path: Path, rotation: Rotation, now: datetime) -> None:
    """Remove the old files of *path* that are too many or too old at *now*, and compress the others; never raises."""
    with contextlib.suppress(OSError):
        old = _old_files(path)
        kept: list[tuple[str, Path]] = []
        for stamp, file in old:
            known = {each for each, _ in kept}
            too_many = rotation.backups_max and stamp not in known and len(known) >= rotation.backups_max
            if too_many or _is_too_old(stamp, rotation, now):
                remove_in_pieces(file, missing_ok=True)
            else:
                kept.append((stamp, file))
        if rotation.compress:
            for _, file in kept:
                if file.suffix != ".gz":
                    _compress(file)


def _is_too_old(stamp: str, rotation: Rotation, now: datetime) -> bool:
    if not rotation.age_days_max:
        return False
    zone = now.tzinfo if rotation.local_time else UTC
    made = datetime.strptime(stamp.partition(".")[0], _TIME_FORM).replace(tzinfo=zone)
    return made < now - timedelta(days=rotation.age_days_max)


def _old_files(path: Path) -> list[tuple[str, Path]]:
    """Return the files that *path* became, each with the time in its name, the newest first."""
    form = re.compile(rf"{re.escape(path.stem)}-({_TIME}){re.escape(path.suffix)}(\.gz)?", re.ASCII)
    matches = ((form.fullmatch(file.name), file) for file in path.parent.iterdir())
    return sorted(((match[1], file) for match, file in matches if match), reverse=True)


def _compress(file: Path) -> None:
    target = file.with_name(f"{file.name}.gz")
    mode = file.stat().st_mode & 0o777
    try:
        with file.open("rb") as source, _create(target, mode) as raw, gzip.GzipFile(fileobj=raw, mode="wb") as packed:
            shutil.copyfileobj(source, packed)
    except OSError:
        target.unlink(missing_ok=True)
        raise
    remove_in_pieces(file)


def _create(path: Path, mode: int) -> BinaryIO:
    return os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, mode), "wb")


def _open(path: Path, mode: int) -> tuple[BinaryIO, int]:
    file = os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, mode), "ab")
    return file, os.fstat(file.fileno()).st_size
