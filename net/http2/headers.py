"""Header blocks (HPACK, RFC 7541), decoded so that the common case costs one dictionary lookup.

The server announces a dynamic table of size zero.  From then on a block means the same wherever it stands, so a
connection finds blocks that it has seen by their bytes.  Blocks that differ in `grpc-timeout` alone are found by the
bytes before and after that value.  Until the client has taken the setting (its first blocks may race it) blocks
that change the table are decoded, field by field, and those that refer to it are remembered until it changes.

Owns the dynamic table of one connection and the limits on blocks.  Does not know what the fields mean.
"""

from __future__ import annotations

from collections import deque
from typing import Final, Generic, NamedTuple, TypeVar

from hpack.exceptions import HPACKError
from hpack.huffman import HuffmanEncoder
from hpack.huffman_constants import REQUEST_CODES, REQUEST_CODES_LENGTH
from hpack.huffman_table import decode_huffman
from hpack.table import HeaderTable

from net.http2.frames import ConnectionFaultError, ErrorCode

Field = tuple[bytes, bytes]
"""Name and value of one header field, as sent."""

TABLE_BYTES_DEFAULT: Final = 4096
ENTRY_OVERHEAD_BYTES: Final = 32
"""Added to each field's size by RFC 7541, section 4.1 and RFC 9113, section 6.5.2."""

REMEMBERED_BLOCKS_MAX: Final = 128
REMEMBERED_BLOCK_BYTES_MAX: Final = 2048
REMEMBERED_FIELDS_MAX: Final = 256
REMEMBERED_FIELD_BYTES_MAX: Final = 512
"""Per connection; a table that is full starts anew, which costs a client that cycles through more one decoding each."""

_STATIC: Final[tuple[Field, ...]] = HeaderTable.STATIC_TABLE
_STATIC_COUNT: Final = len(_STATIC)
_TIMEOUT_NAME: Final = b"grpc-timeout"
_HUFFMAN: Final = HuffmanEncoder(REQUEST_CODES, REQUEST_CODES_LENGTH)
_TIMEOUT_PLAIN: Final = bytes([len(_TIMEOUT_NAME)]) + _TIMEOUT_NAME
_TIMEOUT_HUFFMAN: Final = bytes([0x80 | len(_HUFFMAN.encode(_TIMEOUT_NAME))]) + _HUFFMAN.encode(_TIMEOUT_NAME)

T = TypeVar("T")


class Decoded(NamedTuple):
    """A block's fields and what may be concluded from its bytes."""

    fields: list[Field]
    size_bytes: int
    """By RFC 9113's counting; fields beyond the limit are counted but not kept."""
    changed_table: bool
    """Whether blocks that refer to the dynamic table mean something else from now on."""
    relative: bool
    """Whether the block itself refers to the dynamic table."""
    timeout_at: int
    """Offset of the length byte of a literal `grpc-timeout` value; -1 if there is none."""


class HeaderDecoder:
    """HPACK decoding for one connection.

    Raises ConnectionFaultError (COMPRESSION_ERROR) on anything malformed: the table would be out of step.
    """

    def __init__(self, list_bytes_max: int) -> None:
        self._list_bytes_max = list_bytes_max
        self._table: deque[Field] = deque()
        self._table_bytes = 0
        self._table_bytes_max = TABLE_BYTES_DEFAULT
        self._update_bytes_max = TABLE_BYTES_DEFAULT
        self._update_due = False
        self._fields: dict[bytes, Field] = {}

    def announced_zero(self) -> None:
        """Note that the client has acknowledged SETTINGS_HEADER_TABLE_SIZE 0."""
        self._update_bytes_max = 0
        # A client that never filled its table need not say that it has shrunk it (.NET and Dart do not).
        self._update_due = bool(self._table)

    def decode(self, block: bytes) -> Decoded:
        """Decode one whole block, in order of arrival."""
        fields: list[Field] = []
        size_bytes = 0
        position = self._size_updates(block)
        changed_table = position > 0
        relative = False
        timeout_at = -1
        end = len(block)
        while position < end:
            first = block[position]
            start = position
            if first & 0x80:
                index, position = _integer(block, position, 0x7F)
                field = self._lookup(index)
                relative |= index > _STATIC_COUNT
            else:
                index, position = _integer(block, position, 0x3F if first & 0x40 else 0x0F)
                name_at = position
                if index == 0:
                    position = _skip_string(block, position)
                value_at = position
                position = _skip_string(block, position)
                field = self._literal(block, start, name_at, value_at, position, index)
                relative |= index > _STATIC_COUNT
                if first & 0x40 and self._table_bytes_max:
                    changed_table = True
                    self._insert(field)
                if field[0] == _TIMEOUT_NAME:
                    timeout_at = value_at
            size_bytes += ENTRY_OVERHEAD_BYTES + len(field[0]) + len(field[1])
            if size_bytes <= self._list_bytes_max:
                fields.append(field)
        return Decoded(fields, size_bytes, changed_table, relative, timeout_at)

    def _size_updates(self, block: bytes) -> int:
        """Apply the table size updates that a block may begin with; return where its fields begin."""
        position = 0
        while position < len(block) and block[position] & 0xE0 == 0x20:
            size, position = _integer(block, position, 0x1F)
            if size > self._update_bytes_max:
                raise _compression_error("table size above the announced one")
            self._update_due = False
            self._table_bytes_max = size
            self._evict(size)
        if self._update_due:
            raise _compression_error("table not shrunk to the announced size")
        return position

    def _lookup(self, index: int) -> Field:
        if 0 < index <= _STATIC_COUNT:
            return _STATIC[index - 1]
        if 0 <= index - _STATIC_COUNT - 1 < len(self._table):
            return self._table[index - _STATIC_COUNT - 1]
        raise _compression_error("index outside the tables")

    def _literal(self, block: bytes, start: int, name_at: int, value_at: int, end: int, index: int) -> Field:
        if block[start] & 0x70 == 0x20:
            raise _compression_error("table size update after a field")
        raw = block[start:end]
        if index <= _STATIC_COUNT:
            known = self._fields.get(raw)
            if known is not None:
                return known
        name = _string(block, name_at, value_at) if index == 0 else self._lookup(index)[0]
        field = (name, _string(block, value_at, end))
        if index <= _STATIC_COUNT and len(raw) <= REMEMBERED_FIELD_BYTES_MAX:
            if len(self._fields) >= REMEMBERED_FIELDS_MAX:
                self._fields.clear()
            self._fields[raw] = field
        return field

    def _insert(self, field: Field) -> None:
        size = ENTRY_OVERHEAD_BYTES + len(field[0]) + len(field[1])
        self._evict(self._table_bytes_max - size)
        if size <= self._table_bytes_max:
            self._table.appendleft(field)
            self._table_bytes += size

    def _evict(self, bytes_max: int) -> None:
        while self._table and self._table_bytes > bytes_max:
            name, value = self._table.pop()
            self._table_bytes -= ENTRY_OVERHEAD_BYTES + len(name) + len(value)


class BlockMemory(Generic[T]):
    """What one connection's blocks meant before, by their bytes."""

    def __init__(self) -> None:
        self.whole: dict[bytes, T] = {}
        """By the whole block.  The connection reads it directly: this is the hot path."""
        self._around: dict[bytes, tuple[int, T]] = {}
        self._timeout_name = _TIMEOUT_HUFFMAN
        self._any_relative = False

    def find_timed(self, block: bytes) -> tuple[T, bytes] | None:
        """Find a block that was seen with another `grpc-timeout`; return its meaning and this timeout's raw string."""
        name = self._timeout_name
        at = block.find(name) + len(name)
        if at < len(name) or at >= len(block):
            return None
        # A value of 127 bytes or more would have a longer length; it then finds nothing and is decoded.
        end = at + 1 + (block[at] & 0x7F)
        found = self._around.get(block[:at] + block[end:])
        # The bytes before `at` and after `end` were cut into whole fields once; the split has to be the same.
        if found is None or found[0] != at or block[at] & 0x7F == 0x7F:
            return None
        return found[1], block[at:end]

    def table_changed(self) -> None:
        """Forget what depended on the dynamic table."""
        if self._any_relative:
            self._any_relative = False
            self.whole.clear()
            self._around.clear()

    def remember(self, block: bytes, decoded: Decoded, meaning: T) -> None:
        """Keep what a block means, apart from its `grpc-timeout` value if it has one; it left the table as it was."""
        timeout_at = decoded.timeout_at
        self._any_relative |= decoded.relative
        if len(block) > REMEMBERED_BLOCK_BYTES_MAX or (timeout_at >= 0 and block[timeout_at] & 0x7F == 0x7F):
            return
        if timeout_at < 0:
            if len(self.whole) >= REMEMBERED_BLOCKS_MAX:
                self.whole.clear()
            self.whole[block] = meaning
            return
        end = timeout_at + 1 + (block[timeout_at] & 0x7F)
        for name in (_TIMEOUT_HUFFMAN, _TIMEOUT_PLAIN):
            if block[:timeout_at].endswith(name) and block.find(name) + len(name) == timeout_at:
                if len(self._around) >= REMEMBERED_BLOCKS_MAX:
                    self._around.clear()
                self._timeout_name = name
                self._around[block[:timeout_at] + block[end:]] = (timeout_at, meaning)


def decode_string(raw: bytes) -> bytes:
    """Decode one whole HPACK string, such as the raw timeout of BlockMemory.find_timed."""
    if _skip_string(raw, 0) != len(raw):
        raise _compression_error("string of a wrong length")
    return _string(raw, 0, len(raw))


def encode_literal(name: bytes, value: bytes) -> bytes:
    """Encode a field so that no table is used or changed."""
    return b"\x00" + _length(len(name)) + name + _length(len(value)) + value


def _length(number: int) -> bytes:
    if number < 0x7F:
        return bytes([number])
    encoded = bytearray([0x7F])
    number -= 0x7F
    while number >= 0x80:
        encoded.append(number & 0x7F | 0x80)
        number >>= 7
    encoded.append(number)
    return bytes(encoded)


def _compression_error(reason: str) -> ConnectionFaultError:
    return ConnectionFaultError(ErrorCode.COMPRESSION_ERROR, reason)


def _integer(block: bytes, position: int, mask: int) -> tuple[int, int]:
    """Decode an integer whose first byte carries *mask*'s bits; return it and the offset behind it."""
    try:
        number = block[position] & mask
        position += 1
        if number < mask:
            return number, position
        for shift in (0, 7, 14, 21):
            byte = block[position]
            position += 1
            number += (byte & 0x7F) << shift
            if byte < 0x80:
                return number, position
    except IndexError:
        raise _compression_error("block ends within an integer") from None
    raise _compression_error("integer too long")


def _skip_string(block: bytes, position: int) -> int:
    length, position = _integer(block, position, 0x7F)
    if position + length > len(block):
        raise _compression_error("block ends within a string")
    return position + length


def _string(block: bytes, position: int, end: int) -> bytes:
    huffman = block[position] & 0x80
    _, position = _integer(block, position, 0x7F)
    if not huffman:
        return block[position:end]
    try:
        return bytes(decode_huffman(block[position:end]))
    except HPACKError as error:
        raise _compression_error("bad Huffman code") from error
