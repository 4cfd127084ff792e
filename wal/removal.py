"""Large files are removed little by little, so that the log's syncs wait behind none of it.

Where the disk is told of freed blocks (ext4 mounted with ``discard``), the file system's journal does that while it
commits, and every sync of any file waits for the commit: behind 64 MiB that go at once for 45 to 100 ms, behind
the same in pieces for less than 10.
"""

from __future__ import annotations

import os
from contextlib import suppress
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

PIECE_BYTES = 1 << 20
"""What is given back with one commit of the journal."""


def remove_in_pieces(path: Path, *, missing_ok: bool = False) -> None:
    """Remove the file at *path*, which nobody may be reading, and give its blocks back in pieces of PIECE_BYTES.

    Its name goes first: a crash in the middle leaves nothing.  A file that has another name keeps its content.  Takes
    about two milliseconds for each MiB, so it is nothing for a loop.  Raises OSError where the name cannot be removed,
    unless that is for want of a file and *missing_ok*.
    """
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
    except OSError:  # not there, or not ours to write to but perhaps to remove
        path.unlink(missing_ok=missing_ok)
        return
    try:
        path.unlink(missing_ok=missing_ok)
        # What remains is as free as it can be for us, whatever goes wrong with giving it back gently.
        with suppress(OSError):
            _give_back(descriptor)
    finally:
        os.close(descriptor)


def _give_back(descriptor: int) -> None:
    state = os.fstat(descriptor)
    if state.st_nlink:
        return
    for size_bytes in range(state.st_size - PIECE_BYTES, 0, -PIECE_BYTES):
        os.ftruncate(descriptor, size_bytes)
        os.fdatasync(descriptor)  # commits: without it the pieces would only gather
