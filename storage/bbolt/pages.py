"""The pieces that a bbolt file is made of: page header, meta page, element tables, trailer.

Only shapes and numbers; what is done with them is in writer.py and reader.py.  Everything is little-endian, as bbolt
writes it on all usual machines.  Format: docs/internals/bbolt-format.md.
"""

from __future__ import annotations

from struct import Struct
from typing import NamedTuple, Self

PAGE_HEADER = Struct("<QHHI")
"""Id, flags, element count, and how many more pages this one extends over."""
PAGE_HEADER_SIZE_BYTES = 16
ELEMENT_SIZE_BYTES = 16
"""Of a table entry, in leaf (flags, position, key size, value size) and branch (position, key size, page id)."""
BUCKET_VALUE = Struct("<QQ")
"""Root page (0: the page follows inline) and sequence, which etcd does not use."""

BRANCH_PAGE = 0x01
LEAF_PAGE = 0x02
META_PAGE = 0x04
FREELIST_PAGE = 0x10
BUCKET_ELEMENT = 0x01
"""Flag of a leaf element whose value is a bucket."""

PAGE_SIZE_BYTES = 4096
"""Of the files that we write."""
PAGE_SIZES_BYTES = tuple(1 << shift for shift in range(9, 25))
"""Of the files that we read: bbolt takes the page size of the machine that made the file, or what it was told."""
KEY_SIZE_BYTES_MAX = 32768
VALUE_SIZE_BYTES_MAX = (1 << 31) - 2
NO_FREELIST = 0xFFFFFFFFFFFFFFFF
"""As the freelist's page: it is not stored, whoever opens the file to write finds the free pages by walking it."""

TRAILER_SIZE_BYTES = 32
"""A snapshot that came over the network has the SHA-256 of the file behind it."""
SECTOR_SIZE_BYTES = 512
"""A database is a multiple of this, which is how a trailer is recognised."""

_MAGIC = 0xED0CDAED
_VERSION = 2
_META = Struct("<IIIIQQQQQ")
_CHECKSUM = Struct("<Q")
META_SIZE_BYTES = _META.size + _CHECKSUM.size


class BoltError(Exception):
    """A bbolt file cannot be read or written; the text is for the operator."""


class MalformedMeta(BoltError):  # noqa: N818 - named for what is wrong
    """A meta page is none; the text says in what."""


class Meta(NamedTuple):
    """What a meta page says: where the tree begins and how long the file is."""

    page_size: int
    root: int
    freelist: int
    page_count: int
    """Also called the high-water mark: every page in use is below it."""
    transaction_id: int

    def encode(self) -> bytes:
        """Return the meta page's content, which goes behind its header."""
        page_size, root, freelist, page_count, transaction_id = self
        body = _META.pack(_MAGIC, _VERSION, page_size, 0, root, 0, freelist, page_count, transaction_id)
        return body + _CHECKSUM.pack(fnv_1a(body))

    @classmethod
    def decode(cls, content: bytes) -> Self:
        """Read what encode() makes; MalformedMeta."""
        if len(content) < META_SIZE_BYTES:
            raise MalformedMeta(f"it ends after {len(content)} of {META_SIZE_BYTES} bytes")
        magic, version, page_size, _, root, _, freelist, page_count, transaction_id = _META.unpack_from(content)
        if magic != _MAGIC:
            raise MalformedMeta(f"expected the magic number {_MAGIC:#x}, found {magic:#x}")
        if version != _VERSION:
            raise MalformedMeta(f"expected version {_VERSION}, found {version}")
        (stored,) = _CHECKSUM.unpack_from(content, _META.size)
        computed = fnv_1a(content[: _META.size])
        if stored != computed:
            raise MalformedMeta(f"expected the checksum {computed:#x}, found {stored:#x}")
        return cls(page_size, root, freelist, page_count, transaction_id)


def fnv_1a(data: bytes) -> int:
    """Return the 64-bit FNV-1a hash of *data*."""
    value = 0xCBF29CE484222325
    for byte in data:
        value = (value ^ byte) * 0x100000001B3 & 0xFFFFFFFFFFFFFFFF
    return value


def has_trailer(size_bytes: int) -> bool:
    """Tell from a file's size whether a SHA-256 stands behind the database."""
    return size_bytes % SECTOR_SIZE_BYTES == TRAILER_SIZE_BYTES
