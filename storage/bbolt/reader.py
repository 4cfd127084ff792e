"""Reading a bbolt file that anybody made, and believing nothing that it says before it was checked.

Every length and page number is held against the file before it is followed, and no page is visited twice, so that
reading ends, and in memory for one page, whatever the bytes are.  bbolt has no checksum on anything but its meta pages:
what a damaged value looks like cannot be told here, only that the tree is whole and its keys ascend.
Format: docs/internals/bbolt-format.md.
"""

from __future__ import annotations

import os
import struct
from typing import TYPE_CHECKING, NamedTuple, Self

from storage.bbolt.pages import (
    BRANCH_PAGE,
    BUCKET_ELEMENT,
    BUCKET_VALUE,
    ELEMENT_SIZE_BYTES,
    LEAF_PAGE,
    META_SIZE_BYTES,
    PAGE_HEADER,
    PAGE_HEADER_SIZE_BYTES,
    PAGE_SIZES_BYTES,
    TRAILER_SIZE_BYTES,
    BoltError,
    MalformedMeta,
    Meta,
    has_trailer,
)

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path
    from types import TracebackType


class BoltCorrupt(BoltError):  # noqa: N818 - named for what was found
    """The file is damaged or no bbolt file; the text names the file, the offset, and what is wrong there."""


class _Bucket(NamedTuple):
    root: int
    inline: bytes
    at: int
    """Where the inline page lies in the file."""


class _Page(NamedTuple):
    content: bytes
    flags: int
    element_count: int
    at: int
    """Offset in the file."""


class BoltFile:
    """An open bbolt file that nobody changes meanwhile.  Used by one thread at a time; a context manager."""

    def __init__(self, path: Path) -> None:
        """Open *path* and read what buckets it has; raises BoltCorrupt, OSError."""
        self._path = path
        self._descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            size_bytes = os.fstat(self._descriptor).st_size
            self.trailer_size_bytes = TRAILER_SIZE_BYTES if has_trailer(size_bytes) else 0
            """Bytes behind the database that do not belong to it."""
            self._size_bytes = size_bytes - self.trailer_size_bytes
            self.meta = self._read_meta()
            self._visited = bytearray(self.meta.page_count)
            self._gone_through: set[bytes] = set()
            self._buckets = self._read_buckets()
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, _type: type[BaseException] | None, _error: BaseException | None, _at: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Let go of the file; harmless when repeated."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1

    @property
    def size_bytes(self) -> int:
        """What the database takes, the free space at the file's end left out: bbolt's own idea of its size."""
        return self.meta.page_count * self.meta.page_size

    @property
    def buckets(self) -> tuple[bytes, ...]:
        """The names of the buckets, ascending."""
        return tuple(self._buckets)

    def items(self, bucket: bytes) -> Iterator[tuple[bytes, bytes]]:
        """Return the keys and values of *bucket* in order, none if there is no such bucket.

        The iterator raises BoltCorrupt where the file is damaged; each bucket can be gone through once.
        """
        return ((key, value) for key, value, _ in self.located_items(bucket))

    def located_items(self, bucket: bytes) -> Iterator[tuple[bytes, bytes, int]]:
        """Return what items() does, each with its offset in the file."""
        found = self._buckets.get(bucket)
        if found is None:
            return
        assert bucket not in self._gone_through, bucket
        self._gone_through.add(bucket)
        for key, value, flags, at in self._elements(found):
            if flags:
                raise self._corrupt(at, f"an element of bucket {bucket!r} has the flags {flags:#x}")
            yield key, value, at

    # -- the meta pages ----------------------------------------------------------------------------------------------

    def _read_meta(self) -> Meta:
        """Return the newest valid meta page: one of the two may have been torn by a crash."""
        first, fault = self._try_meta(0)
        sizes = PAGE_SIZES_BYTES if first is None else (first.page_size,)
        seconds = (self._try_meta(size_bytes)[0] for size_bytes in sizes if size_bytes < self._size_bytes)
        metas = [meta for meta in (first, *seconds) if meta is not None]
        if not metas:
            raise self._corrupt(0, f"there is no valid meta page, so this is no bbolt file or a damaged one: {fault}")
        newest = max(metas, key=lambda meta: meta.transaction_id)
        if newest.page_count * newest.page_size > self._size_bytes:
            raise self._corrupt(
                self._size_bytes,
                f"the file is cut off: expected {newest.page_count} pages of {newest.page_size} bytes, "
                f"found {self._size_bytes} bytes",
            )
        return newest

    def _try_meta(self, at: int) -> tuple[Meta | None, str]:
        content = os.pread(self._descriptor, PAGE_HEADER_SIZE_BYTES + META_SIZE_BYTES, at)
        try:
            meta = Meta.decode(content[PAGE_HEADER_SIZE_BYTES:])
        except MalformedMeta as error:
            return None, str(error)
        if meta.page_size not in PAGE_SIZES_BYTES:
            return None, f"it tells of pages of {meta.page_size} bytes"
        return meta, ""

    def _read_buckets(self) -> dict[bytes, _Bucket]:
        buckets: dict[bytes, _Bucket] = {}
        for name, value, flags, at in self._elements(_Bucket(self.meta.root, b"", 0)):
            if flags != BUCKET_ELEMENT:
                raise self._corrupt(at, f"an element of the root has the flags {flags:#x}, so it is no bucket")
            if len(value) < BUCKET_VALUE.size:
                raise self._corrupt(at, f"the bucket {name!r} has {len(value)} bytes, too few for its header")
            root, _ = BUCKET_VALUE.unpack_from(value)
            buckets[name] = _Bucket(root, value[BUCKET_VALUE.size :], at + len(name) + BUCKET_VALUE.size)
        return buckets

    # -- pages -------------------------------------------------------------------------------------------------------

    def _elements(self, bucket: _Bucket) -> Iterator[tuple[bytes, bytes, int, int]]:
        """Return key, value, flags and offset of each element of a bucket, whose keys are seen to ascend."""
        previous = b""
        pages = iter((self._inline_page(bucket),)) if bucket.root == 0 else self._leaves(bucket.root)
        for page in pages:
            content, _, count, page_at = page
            size_bytes = len(content)
            table_end = PAGE_HEADER_SIZE_BYTES + ELEMENT_SIZE_BYTES * count
            numbers = iter(struct.unpack_from(f"<{4 * count}I", content, PAGE_HEADER_SIZE_BYTES))
            element = PAGE_HEADER_SIZE_BYTES
            for flags, position, key_size, value_size in zip(numbers, numbers, numbers, numbers, strict=True):
                start = element + position
                middle = start + key_size
                end = middle + value_size
                if start < table_end or end > size_bytes:
                    raise self._corrupt(page_at + element, f"an element lies at {start} to {end} of {size_bytes} bytes")
                key = content[start:middle]
                if key <= previous:
                    raise self._corrupt(page_at + element, f"the key {key!r} follows {previous!r}")
                yield key, content[middle:end], flags, page_at + start
                previous = key
                element += ELEMENT_SIZE_BYTES

    def _inline_page(self, bucket: _Bucket) -> _Page:
        content, at = bucket.inline, bucket.at
        if len(content) < PAGE_HEADER_SIZE_BYTES:
            raise self._corrupt(at, f"an inline bucket of {len(content)} bytes has no page")
        _, flags, count, _ = PAGE_HEADER.unpack_from(content)
        if flags != LEAF_PAGE:
            raise self._corrupt(at, f"expected an inline leaf, found the flags {flags:#x}")
        if PAGE_HEADER_SIZE_BYTES + ELEMENT_SIZE_BYTES * count > len(content):
            raise self._corrupt(at, f"an inline page of {len(content)} bytes cannot hold {count} elements")
        return _Page(content, flags, count, at)

    def _leaves(self, root: int) -> Iterator[_Page]:
        """Return the leaves under the page *root*, from left to right."""
        waiting = [(root, -1)]
        while waiting:
            number, named_at = waiting.pop()
            page = self._page(number, named_at)
            if page.flags == LEAF_PAGE:
                yield page
            else:
                waiting.extend(reversed(self._children(page)))

    def _children(self, page: _Page) -> list[tuple[int, int]]:
        """Return the pages that a branch names, each with the offset where it does."""
        numbers = iter(struct.unpack_from("<" + "IIQ" * page.element_count, page.content, PAGE_HEADER_SIZE_BYTES))
        if page.element_count == 0:
            raise self._corrupt(page.at, "a branch page has no children")
        first = page.at + PAGE_HEADER_SIZE_BYTES
        return [
            (number, first + ELEMENT_SIZE_BYTES * position)
            for position, (_, _, number) in enumerate(zip(numbers, numbers, numbers, strict=True))
        ]

    def _page(self, number: int, named_at: int) -> _Page:
        """Read one leaf or branch page, which *named_at* in the file (-1: the meta page or a bucket) points to."""
        page_size, page_count = self.meta.page_size, self.meta.page_count
        at = number * page_size
        if not 2 <= number < page_count:
            raise self._corrupt(max(named_at, 0), f"page {number} is named, of pages 2 to {page_count - 1}")
        content = os.pread(self._descriptor, page_size, at)
        if len(content) < page_size:
            raise self._corrupt(at, f"page {number} is cut off after {len(content)} bytes")
        found, flags, count, overflow = PAGE_HEADER.unpack_from(content)
        if found != number:
            raise self._corrupt(at, f"expected page {number}, found page {found}")
        if flags not in {LEAF_PAGE, BRANCH_PAGE}:
            raise self._corrupt(at, f"expected a leaf or a branch page, found the flags {flags:#x}")
        if overflow >= page_count - number:
            raise self._corrupt(at, f"page {number} extends over {overflow} more pages, beyond the file's end")
        if any(self._visited[number : number + overflow + 1]):
            raise self._corrupt(at, f"page {number} belongs to two places of the tree")
        self._visited[number : number + overflow + 1] = b"\1" * (overflow + 1)
        if overflow:
            content = self._long_page(number, flags, count, overflow)
        if PAGE_HEADER_SIZE_BYTES + ELEMENT_SIZE_BYTES * count > len(content):
            raise self._corrupt(at, f"page {number} of {len(content)} bytes cannot hold {count} elements")
        return _Page(content, flags, count, at)

    def _long_page(self, number: int, flags: int, count: int, overflow: int) -> bytes:
        """Read a page that extends over others, once its elements say that they need the room."""
        page_size = self.meta.page_size
        at = number * page_size
        table = os.pread(self._descriptor, ELEMENT_SIZE_BYTES * count, at + PAGE_HEADER_SIZE_BYTES)
        size_bytes = PAGE_HEADER_SIZE_BYTES + len(table)
        for element in struct.iter_unpack("<4I" if flags == LEAF_PAGE else "<2IQ", table[: len(table) // 16 * 16]):
            size_bytes += sum(element[2:]) if flags == LEAF_PAGE else element[1]
        if size_bytes < overflow * page_size:
            raise self._corrupt(
                at, f"page {number} extends over {overflow} more pages, but its elements come to {size_bytes} bytes"
            )
        content = os.pread(self._descriptor, (overflow + 1) * page_size, at)
        if len(content) < (overflow + 1) * page_size:
            raise self._corrupt(at, f"page {number} is cut off after {len(content)} bytes")
        return content

    def _corrupt(self, at: int, reason: str) -> BoltCorrupt:
        return BoltCorrupt(f"{self._path} is damaged at offset {at}: {reason}")
