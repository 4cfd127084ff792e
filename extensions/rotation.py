"""A file of lines that is rotated by size: FILE, FILE.1 (the one before), up to a number of them."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, BinaryIO

if TYPE_CHECKING:
    from pathlib import Path

FILE_MODE = 0o600


class RotatedFile:
    """Appends lines; whole ones only.  For one thread; its methods raise OSError."""

    def __init__(self, path: Path, size_bytes_max: int, count_max: int) -> None:
        """Keep at most *count_max* files, each of about *size_bytes_max*."""
        self._path = path
        self._size_bytes_max = size_bytes_max
        self._count_max = count_max
        self._file: BinaryIO = self._open()

    def write(self, lines: bytes) -> None:
        """Append whole *lines*, and pass them to the system."""
        if self._file.tell() and self._file.tell() + len(lines) > self._size_bytes_max:
            self._rotate()
        self._file.write(lines)
        self._file.flush()

    def close(self) -> None:
        """Make what was written durable, and close the file."""
        self._file.flush()
        os.fsync(self._file.fileno())
        self._file.close()

    def _open(self) -> BinaryIO:
        descriptor = os.open(self._path, os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, FILE_MODE)
        file = os.fdopen(descriptor, "r+b")
        size_bytes = file.seek(0, os.SEEK_END)
        if size_bytes and os.pread(descriptor, 1, size_bytes - 1) != b"\n":
            file.write(b"\n")  # a crash has cut the last line
            file.flush()
        return file

    def _rotate(self) -> None:
        self.close()
        for number in range(self._count_max - 1, 0, -1):
            older = self._numbered(number - 1)
            if older.exists():
                older.replace(self._numbered(number))
        if self._count_max == 1:
            self._path.unlink()
        self._file = self._open()

    def _numbered(self, number: int) -> Path:
        return self._path.with_name(f"{self._path.name}.{number}") if number else self._path
