"""Second names for LevelDB's files, so that deleting one costs LevelDB nothing.

LevelDB deletes the files that a compaction has replaced while every read and write waits for it, and the last name of a
large file takes its blocks along.  So each file gets a second name in a folder beside it; the blocks go with that, in
pieces, on a thread for which nobody waits.  Where there cannot be second names, deleting takes as long as it takes.
"""

from __future__ import annotations

import errno
import os
import shutil
from contextlib import suppress
from typing import TYPE_CHECKING

from wal.removal import remove_in_pieces

if TYPE_CHECKING:
    from pathlib import Path

FOLDER_NAME = "second-names"
_LARGE = (".ldb", ".sst", ".log")
_REFUSED = frozenset({errno.EPERM, errno.ENOTSUP, errno.EMLINK, errno.EXDEV, errno.ENOSYS, errno.EACCES})


class SecondNames:
    """The second names of the files in *directory*.  Not for two threads at once."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._folder = directory / FOLDER_NAME
        self._names: set[str] = set()
        self._usable = True

    def update(self) -> None:
        """Give a second name to each large file that has none, and take those whose first name is gone."""
        if not self._usable:
            return
        names = {entry.name for entry in os.scandir(self._directory) if entry.name.endswith(_LARGE)}
        for name in names - self._names:
            self._add(name)
        for name in self._names - names:
            self._names.remove(name)
            # LevelDB maps tables into memory; it takes a name away only when no version, so no reader, has the file.
            with suppress(OSError):  # the next start clears what is left
                remove_in_pieces(self._folder / name)

    def clear(self) -> None:
        """Take all second names away, also those of an earlier process, and their folder."""
        self._names.clear()
        shutil.rmtree(self._folder, ignore_errors=True)

    def _add(self, name: str) -> None:
        try:
            if not self._names:
                self._folder.mkdir(mode=0o700, exist_ok=True)
            os.link(self._directory / name, self._folder / name)
        except FileNotFoundError:  # deleted meanwhile
            return
        except OSError as error:
            self._usable = error.errno not in _REFUSED
            return  # a full disk, for one, may have room for it later
        self._names.add(name)
