"""The frames of a segment: one record each, padded to eight bytes, chained by their CRC-32C.

Owns the bytes of docs/internals/wal-format.md up to a record's kind, and the judgement whether a bad frame was torn by
a crash or has rotted.  Knows nothing of files, and of records' data only how to frame an entry without copying it.
"""

from __future__ import annotations

from struct import Struct
from typing import TYPE_CHECKING, Final, NamedTuple

from google_crc32c import extend

from core.mvcc.varint import INNER, varint
from wal.codec import entry_prefix, read_varint
from wal.errors import WalCorrupt
from wal.filesystem import SECTOR_SIZE_BYTES

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from core.raft.messages import Entry

# On disk: never renumber.
METADATA: Final = 1
ENTRY: Final = 2
STATE: Final = 3
CRC: Final = 4
SNAPSHOT: Final = 5

_FRAME: Final = Struct("<Q")
_LENGTH_MASK: Final = (1 << 56) - 1
_HEAD_SIZE_BYTES_MAX: Final = 20
"""Tag and number of a record's kind (2), checksum (6) and data length (11), and one to spare."""

_ONE_BYTE: Final = tuple(bytes((number,)) for number in range(256))
_PADDING: Final = tuple(bytes(count) for count in range(8))


class TornRecord(WalCorrupt):
    """A record that a crash may have left so: what is missing was never synced."""


class Record(NamedTuple):
    """One record, its checksum found right."""

    kind: int
    data: bytes
    offset: int


def frame_record(kind: int, data: bytes, crc: int) -> tuple[bytes, int]:
    """Return the frame of a record and the chain's value after it, given the value before it."""
    crc = extend(crc, data)
    return _frame(b"\x08%b\x10%b\x1a%b%b" % (varint(kind), varint(crc), varint(len(data)), data)), crc


def frame_crc(crc: int) -> bytes:
    """Return the frame that hands the chain's value on to a new segment."""
    return _frame(b"\x08%b\x10%b" % (varint(CRC), varint(crc)))


def frame_entries(entries: Iterable[Entry], crc: int) -> tuple[list[bytes], int]:
    """Return the frames of *entries*, in pieces to be joined, and the chain's value after them.

    The hottest loop of a put: what neighbours share is made once (term and type, the index above its low seven bits,
    the data's length), and data is neither copied nor looked at twice.
    """
    pieces: list[bytes] = []
    term_before = kind_before = high_before = size_before = -1
    head = high_digits = data_head = b""
    for term, index, kind, data in entries:
        high = index >> 7
        if high != high_before or term != term_before or kind != kind_before:
            term_before, kind_before, high_before = term, kind, high
            head = entry_prefix(term, kind)
            high_digits = varint(high)
        body = head + _ONE_BYTE[index & 0x7F | 0x80] + high_digits if high else head + _ONE_BYTE[index]
        size = len(data)
        if size:
            if size != size_before:
                size_before = size
                data_head = b'"' + varint(size)
            body += data_head
            crc = extend(extend(crc, body), data)
        else:
            crc = extend(crc, body)
        size += len(body)
        high_bits = crc >> 28
        digits = INNER[crc & 0x3FFF] + INNER[crc >> 14 & 0x3FFF] + _ONE_BYTE[high_bits] if high_bits else varint(crc)
        size_digits = varint(size)
        length = 4 + len(digits) + len(size_digits) + size
        pad = -length & 7
        frame = (length | (0x80 | pad) << 56 if pad else length).to_bytes(8, "little")
        pieces += (frame, b"\x08\x02\x10", digits, b"\x1a", size_digits, body, data, _PADDING[pad])
    return pieces, crc


class RecordReader:
    """Reads the records of one segment's bytes in order.

    *crc* is the chain's value at the end of the segment before, None where that was not read.  *offset* is the end of
    the last good record and *crc* the chain's value there, whatever `next` raised.
    """

    def __init__(self, name: str, data: bytes, crc: int | None) -> None:
        self.offset = 0
        self.crc = crc
        self._name = name
        self._data = data

    def next(self) -> Record | None:
        """Return the next record, or None at the end of what was written.

        Raises TornRecord where a crash may have cut the record short, WalCorrupt for anything else.
        """
        data, at = self._data, self.offset
        size = len(data)
        if at == size:
            return None
        if at + 8 > size:
            raise TornRecord(self._name, at, expected="a frame length of 8 bytes", found=f"{size - at} bytes")
        (frame,) = _FRAME.unpack_from(data, at)
        if frame == 0:
            self._expect_nothing_behind(at)
            return None
        length, top = frame & _LENGTH_MASK, frame >> 56
        pad = top & 7
        if (length + pad) & 7 or (top and (top != 0x80 | pad or not pad)):
            raise self._bad(at, "a length padded to 8 bytes", f"{frame:#x}")
        start, end = at + 8, at + 8 + length
        if end + pad > size:
            if self._denies_length(at, end):
                raise self._bad(at, "the length of the record in it", f"a frame length of {length}")
            raise TornRecord(self._name, at, expected=f"{length + pad} bytes", found=f"{size - start} bytes")
        try:
            kind, crc, data_start, data_end = _parse(data, start, end)
        except ValueError as error:
            raise self._judge(at, end, "a record", str(error)) from error
        content = data[data_start:data_end]
        if kind == CRC:
            self._check_hand_over(at, crc, content)
        else:
            if self.crc is None:
                raise self._bad(at, "the checksum record that a segment starts with", f"a record of type {kind}")
            found = extend(self.crc, content)
            if found != crc:
                raise self._judge(at, end, f"checksum {crc:#010x}", f"{found:#010x}")
        if pad and data[end : end + pad] != _PADDING[pad]:
            raise self._bad(end, "zeros as padding", data[end : end + pad].hex())
        self.crc = crc
        self.offset = end + pad
        return Record(kind, content, at)

    def _check_hand_over(self, at: int, crc: int, content: bytes) -> None:
        if content:
            raise self._bad(at, "a checksum record without data", f"{len(content)} bytes")
        if self.crc is not None and crc != self.crc:
            raise self._bad(at, f"checksum {self.crc:#010x} handed on", f"{crc:#010x}")

    def _expect_nothing_behind(self, at: int) -> None:
        """Refuse a zero frame length in a sector that was written on behind it: there was a length once."""
        behind = self._data[at : at + SECTOR_SIZE_BYTES - at % SECTOR_SIZE_BYTES]
        if any(behind):
            raise self._bad(at, "a frame length", "zero, with more behind it in its sector")

    def _judge(self, at: int, end: int, expected: str, found: str) -> WalCorrupt:
        """Return what to raise for a record that cannot be right.

        A crash loses whole sectors and these read as zeros; a record without such a hole has rotted.
        """
        if self._has_zero_sector(at + 8, end) and not self._denies_length(at, end):
            return TornRecord(self._name, at, expected=expected, found=found)
        return self._bad(at, expected, found)

    def _has_zero_sector(self, start: int, end: int) -> bool:
        while start < end:
            sector_end = min(end, start + SECTOR_SIZE_BYTES - start % SECTOR_SIZE_BYTES)
            if not any(self._data[start:sector_end]):
                return True
            start = sector_end
        return False

    def _denies_length(self, at: int, end: int) -> bool:
        """Return whether a head that was surely written tells of another length than its frame does.

        A frame's length is surely written if it is not zero, and so is all else in its sector, and any later sector
        that is not zero.  So a length that a bit has fallen out of is told from one whose record is torn.
        """
        start, next_sector = at + 8, at - at % SECTOR_SIZE_BYTES + SECTOR_SIZE_BYTES
        try:
            data_start, data_end = _parse_head(self._data, start, end)
        except ValueError:
            return start + _HEAD_SIZE_BYTES_MAX <= min(next_sector, len(self._data))
        surely_written = data_start <= next_sector or any(self._data[next_sector:data_start])
        return surely_written and data_end != end

    def _bad(self, offset: int, expected: str, found: str) -> WalCorrupt:
        return WalCorrupt(self._name, offset, expected=expected, found=found)


def peek_records(data: bytes, kinds: frozenset[int]) -> Iterator[tuple[int, bytes]]:
    """Yield kind and data of the records of some *kinds*, up to where frames end or make no sense, checking nothing."""
    at, size = 0, len(data)
    while at + 10 <= size:
        (frame,) = _FRAME.unpack_from(data, at)
        end = at + 8 + (frame & _LENGTH_MASK)
        if frame == 0 or end > size:
            return
        # Every writer puts the kind first, and most records are entries: their bytes need not be looked at.
        if data[at + 8] != 0x08 or data[at + 9] in kinds:
            kind, _, data_start, data_end = _parse(data, at + 8, end)
            if kind in kinds:
                yield kind, data[data_start:data_end]
        at = end + (frame >> 56 & 7)


def _frame(record: bytes) -> bytes:
    pad = -len(record) & 7
    length = len(record) | (0x80 | pad) << 56 if pad else len(record)
    return b"%b%b%b" % (_FRAME.pack(length), record, _PADDING[pad])


def _parse(data: bytes, at: int, end: int) -> tuple[int, int, int, int]:
    """Return a walpb.Record's kind and checksum, and where its data starts and ends; ValueError if it is none."""
    if end - at > 16 and data[at] == 0x08 and data[at + 1] < 0x80 and data[at + 2] == 0x10:
        # Fifteen of sixteen checksums have five digits, and then the data's tag and length are in the same eight bytes.
        (word,) = _FRAME.unpack_from(data, at + 3)
        if word & 0xFF_F0_80_80_80_80 == 0x1A_00_80_80_80_80:
            crc = (
                word & 0x7F | word >> 1 & 0x3F80 | word >> 2 & 0x1FC000 | word >> 3 & 0xFE00000 | word >> 4 & 0xF0000000
            )
            low, high = word >> 48 & 0xFF, word >> 56
            if low < 0x80 and at + 10 + low == end:
                return data[at + 1], crc, at + 10, end
            if high < 0x80 <= low and at + 11 + (low & 0x7F | high << 7) == end:
                return data[at + 1], crc, at + 11, end
    kind = crc = 0
    data_start = data_end = end
    while at < end:
        tag = data[at]
        if tag == 0x08:
            kind, at = read_varint(data, at + 1)
        elif tag == 0x10:
            crc, at = read_varint(data, at + 1)
        elif tag == 0x1A:
            length, data_start = read_varint(data, at + 1)
            at = data_end = data_start + length
        else:
            raise ValueError(f"the unknown field tag {tag}")
    if at != end or crc >> 32:
        raise ValueError("fields that do not fill it")
    return kind, crc, data_start, data_end


def _parse_head(data: bytes, at: int, end: int) -> tuple[int, int]:
    """Return where a record's data starts and ends by its own account, in the order that every writer keeps."""
    while at < end:
        tag = data[at] if at < len(data) else -1
        if tag == 0x1A:
            length, data_start = read_varint(data, at + 1)
            return data_start, data_start + length
        if tag not in {0x08, 0x10}:
            raise ValueError(f"the unknown field tag {tag}")
        _, at = read_varint(data, at + 1)
    return at, at
