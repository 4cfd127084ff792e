"""What a power loss may leave of LevelDB's write-ahead log, made a clean prefix again.

The log is written unsynced, so its end may be cut, zero or garbage; LevelDB with paranoid checks then refuses to open,
and without them drops records from the middle.  We cut it at the first bad record instead, and empty the logs begun
after it: what is left is the state after some earlier entry, and the raft log brings back the rest.

Format (LevelDB's doc/log_format.md): blocks of 32 KiB; a record is crc (4 bytes, masked CRC-32C of type and data),
length (2), type (1: full, 2: first, 3: middle, 4: last), data; little-endian.  A block's end too short for a header is
zero.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, NamedTuple

import google_crc32c

if TYPE_CHECKING:
    from pathlib import Path

_BLOCK_SIZE_BYTES = 32768
_HEADER_SIZE_BYTES = 7
_FULL, _FIRST, _MIDDLE, _LAST = 1, 2, 3, 4
_MASK_DELTA = 0xA282EAD8


class Cut(NamedTuple):
    """What was taken off a log."""

    path: Path
    kept_bytes: int
    dropped_bytes: int


def cut_torn_logs(directory: Path) -> list[Cut]:
    """Cut the logs in *directory* so that they hold a prefix of whole records; return what was cut, oldest first."""
    cuts: list[Cut] = []
    for path in sorted(directory.glob("*.log"), key=lambda log: int(log.stem) if log.stem.isdigit() else 0):
        size = path.stat().st_size
        kept = 0 if cuts else sound_length(path.read_bytes())
        if kept < size:
            _truncate(path, kept)
            cuts.append(Cut(path, kept, size - kept))
    return cuts


def sound_length(log: bytes) -> int:
    """Return where the last whole record ends before which every record is sound."""
    at = sound = 0
    inside = False
    while True:
        left = _BLOCK_SIZE_BYTES - at % _BLOCK_SIZE_BYTES
        if left < _HEADER_SIZE_BYTES:
            at += left
        if at + _HEADER_SIZE_BYTES > len(log):
            return sound
        length = int.from_bytes(log[at + 4 : at + 6], "little")
        kind = log[at + 6]
        end = at + _HEADER_SIZE_BYTES + length
        if end > len(log) or end > at - at % _BLOCK_SIZE_BYTES + _BLOCK_SIZE_BYTES:
            return sound
        starts = kind in {_FULL, _FIRST}
        if starts == inside or kind not in {_FULL, _FIRST, _MIDDLE, _LAST}:
            return sound
        if _masked(google_crc32c.value(log[at + 6 : end])) != int.from_bytes(log[at : at + 4], "little"):
            return sound
        inside = kind in {_FIRST, _MIDDLE}
        at = end
        if not inside:
            sound = at


def _masked(crc: int) -> int:
    """Return *crc* as LevelDB stores it: rotated and moved, because a CRC of data that holds CRCs is a poor one."""
    return ((crc >> 15 | crc << 17) + _MASK_DELTA) & 0xFFFFFFFF


def _truncate(path: Path, size: int) -> None:
    descriptor = os.open(path, os.O_WRONLY)
    try:
        os.ftruncate(descriptor, size)
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
