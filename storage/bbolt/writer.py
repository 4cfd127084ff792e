"""Writing a bbolt file in one pass over sorted items, bucket by bucket, in memory for a few pages.

A tree is built from the left: a page is written when it is full, and its first key goes to the level above.  So leaves
lie in the file in key order, and the only pages written out of order are the two meta pages, at the end.  Small buckets
are stored inline as bbolt does.  Format: docs/internals/bbolt-format.md.
"""

from __future__ import annotations

import struct
from itertools import accumulate, chain, repeat
from operator import add
from typing import TYPE_CHECKING, BinaryIO

from storage.bbolt.pages import (
    BRANCH_PAGE,
    BUCKET_ELEMENT,
    BUCKET_VALUE,
    ELEMENT_SIZE_BYTES,
    FREELIST_PAGE,
    KEY_SIZE_BYTES_MAX,
    LEAF_PAGE,
    META_PAGE,
    PAGE_HEADER,
    PAGE_HEADER_SIZE_BYTES,
    PAGE_SIZE_BYTES,
    VALUE_SIZE_BYTES_MAX,
    BoltError,
    Meta,
)

if TYPE_CHECKING:
    from collections.abc import Generator, Iterable, Iterator

_FREELIST_AT = 2
_FIRST_FREE_PAGE = 3
_TRANSACTION_ID = 2
"""Even, since the meta page of a transaction is its number modulo two; the other page gets the one before."""
_STEP_SIZE_BYTES = 256 << 10
"""Written between two stops of the generators."""
_ITEMS_PER_PAGE_MIN = 2
_BRANCHES_PER_PAGE_MIN = 2


class Unwritable(BoltError):  # noqa: N818 - named for what cannot be done
    """An item that bbolt's format has no room for."""


class BoltWriter:
    """Makes one file.  Call bucket() for each bucket, then finish(); used by one thread at a time.

    Both are generators that stop now and then, so that the caller can give up or do other work.
    """

    def __init__(self, file: BinaryIO, page_size_bytes: int = PAGE_SIZE_BYTES) -> None:
        """Begin an empty *file*, which must be seekable; OSError comes through from all methods."""
        self._file = file
        self.page_size_bytes = page_size_bytes
        self._next_page = _FIRST_FREE_PAGE
        self._pieces: list[bytes] = []
        self._held_bytes = 0
        self._buckets: dict[bytes, bytes] = {}
        # bbolt would rebuild a missing freelist by walking the whole file whenever it opens it; an empty one is free.
        head = bytes(2 * page_size_bytes) + PAGE_HEADER.pack(_FREELIST_AT, FREELIST_PAGE, 0, 0)
        file.write(head.ljust(_FIRST_FREE_PAGE * page_size_bytes, b"\0"))

    @property
    def size_bytes(self) -> int:
        """The file's size so far."""
        return self._next_page * self.page_size_bytes

    def bucket(self, name: bytes, items: Iterable[tuple[bytes, bytes]]) -> Iterator[None]:
        """Write a bucket with *items*, whose keys must ascend; raises Unwritable."""
        assert name not in self._buckets, name
        tree = _Tree(self, inline_size_bytes_max=self.page_size_bytes // 4, flags=0)
        yield from tree.extend(items)
        yield from tree.finish()
        self._buckets[name] = BUCKET_VALUE.pack(tree.root, 0) + tree.inline

    def finish(self) -> Generator[None, None, int]:
        """Write the bucket of buckets and the meta pages; the generator returns the file's size in bytes."""
        tree = _Tree(self, inline_size_bytes_max=0, flags=BUCKET_ELEMENT)
        yield from tree.extend(sorted(self._buckets.items()))
        yield from tree.finish()
        self._flush()
        for page in (0, 1):
            transaction_id = _TRANSACTION_ID - page
            meta = Meta(self.page_size_bytes, tree.root, _FREELIST_AT, self._next_page, transaction_id)
            self._file.seek(page * self.page_size_bytes)
            self._file.write(PAGE_HEADER.pack(page, META_PAGE, 0, 0) + meta.encode())
        self._file.flush()
        return self.size_bytes

    def add_page(self, flags: int, count: int, content: Iterable[bytes], content_size_bytes: int) -> int:
        """Write a page, as long as it needs to be, and return its id."""
        page = self._next_page
        size_bytes = PAGE_HEADER_SIZE_BYTES + content_size_bytes
        pages = -(-size_bytes // self.page_size_bytes)
        self._next_page += pages
        self._pieces.append(PAGE_HEADER.pack(page, flags, count, pages - 1))
        self._pieces.extend(content)
        self._pieces.append(bytes(pages * self.page_size_bytes - size_bytes))
        self._held_bytes += pages * self.page_size_bytes
        return page

    def flush_if_due(self) -> bool:
        """Hand what piles up to the file; tell whether there was enough of it."""
        if self._held_bytes < _STEP_SIZE_BYTES:
            return False
        self._flush()
        return True

    def _flush(self) -> None:
        self._file.write(b"".join(self._pieces))
        self._pieces.clear()
        self._held_bytes = 0


class _Tree:
    """One bucket's tree, growing to the right."""

    def __init__(self, writer: BoltWriter, *, inline_size_bytes_max: int, flags: int) -> None:
        self.root = 0
        self.inline = b""
        """The whole bucket where it is small enough; root is 0 then."""
        self._writer = writer
        self._inline_size_bytes_max = inline_size_bytes_max
        self._flags = flags
        self._keys: list[bytes] = []
        self._values: list[bytes] = []
        self._levels: list[_Level] = [_Level()]

    def extend(self, items: Iterable[tuple[bytes, bytes]]) -> Iterator[None]:
        page_size_bytes = self._writer.page_size_bytes
        keys, values = self._keys, self._values
        used = PAGE_HEADER_SIZE_BYTES
        room = page_size_bytes
        for key, value in items:
            key_size, value_size = len(key), len(value)
            if not 0 < key_size <= KEY_SIZE_BYTES_MAX or value_size > VALUE_SIZE_BYTES_MAX:
                raise Unwritable(
                    f"a key of {key_size} and a value of {value_size} bytes cannot be stored in a bbolt file"
                )
            used += ELEMENT_SIZE_BYTES + key_size + value_size
            if used > room:
                if len(keys) >= _ITEMS_PER_PAGE_MIN:
                    self._end_leaf()
                    if self._writer.flush_if_due():
                        yield
                    used = PAGE_HEADER_SIZE_BYTES + ELEMENT_SIZE_BYTES + key_size + value_size
                room = -(-used // page_size_bytes) * page_size_bytes
            keys.append(key)
            values.append(value)

    def finish(self) -> Iterator[None]:
        if not self._levels[0].children:
            content, size_bytes = _leaf(self._keys, self._values, self._flags)
            if PAGE_HEADER_SIZE_BYTES + size_bytes <= self._inline_size_bytes_max:
                self.inline = b"".join((PAGE_HEADER.pack(0, LEAF_PAGE, len(self._keys), 0), *content))
                return
        self._end_leaf()
        level = 0
        while level < len(self._levels) - 1 or len(self._levels[level].children) > 1:
            self._end_branch(level, len(self._levels[level].children))
            level += 1
            if self._writer.flush_if_due():
                yield
        self.root = self._levels[level].children[0][1]

    def _end_leaf(self) -> None:
        keys = self._keys
        content, size_bytes = _leaf(keys, self._values, self._flags)
        page = self._writer.add_page(LEAF_PAGE, len(keys), content, size_bytes)
        self._add_child(0, keys[0] if keys else b"", page)
        keys.clear()
        self._values.clear()

    def _add_child(self, number: int, key: bytes, page: int) -> None:
        level = self._levels[number]
        level.children.append((key, page))
        level.size_bytes += ELEMENT_SIZE_BYTES + len(key)
        # A branch with one child is of no use, so the last two always stay for the page after this one.
        full = level.size_bytes > self._writer.page_size_bytes - PAGE_HEADER_SIZE_BYTES
        if full and len(level.children) >= 2 * _BRANCHES_PER_PAGE_MIN:
            self._end_branch(number, len(level.children) - _BRANCHES_PER_PAGE_MIN)

    def _end_branch(self, number: int, count: int) -> None:
        level = self._levels[number]
        children = level.children[:count]
        del level.children[:count]
        content, size_bytes = _branch(children)
        level.size_bytes -= size_bytes
        page = self._writer.add_page(BRANCH_PAGE, count, content, size_bytes)
        if number + 1 == len(self._levels):
            self._levels.append(_Level())
        self._add_child(number + 1, children[0][0], page)


class _Level:
    """The pages of one level that have no parent yet: first key and id."""

    __slots__ = ("children", "size_bytes")

    def __init__(self) -> None:
        self.children: list[tuple[bytes, int]] = []
        self.size_bytes = 0


def _leaf(keys: list[bytes], values: list[bytes], flags: int) -> tuple[list[bytes], int]:
    """Return the pieces of a leaf's content and their size: its element table, then each key with its value."""
    count = len(keys)
    key_sizes = list(map(len, keys))
    value_sizes = list(map(len, values))
    ends = list(accumulate(map(add, key_sizes, value_sizes), initial=0))
    # A position counts from its own element, so of two neighbours the second is nearer to the data by one element.
    positions = map(add, range(ELEMENT_SIZE_BYTES * count, 0, -ELEMENT_SIZE_BYTES), ends)
    table = chain.from_iterable(zip(repeat(flags), positions, key_sizes, value_sizes, strict=False))
    packed = struct.pack(f"<{4 * count}I", *table)
    return [packed, *chain.from_iterable(zip(keys, values, strict=True))], len(packed) + ends[-1]


def _branch(children: list[tuple[bytes, int]]) -> tuple[list[bytes], int]:
    """Return the pieces of a branch's content and their size."""
    table: list[int] = []
    position = ELEMENT_SIZE_BYTES * len(children)
    for key, page in children:
        table += (position, len(key), page)
        position += len(key) - ELEMENT_SIZE_BYTES
    packed = struct.pack("<" + "IIQ" * len(children), *table)
    keys = [key for key, _ in children]
    return [packed, *keys], len(packed) + sum(map(len, keys))
