"""bbolt files: what is written is read back, and no damage does more than be named."""

from __future__ import annotations

import io
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

from hypothesis import given, settings
from hypothesis import strategies as st

from storage.bbolt.pages import PAGE_HEADER_SIZE_BYTES, SECTOR_SIZE_BYTES, TRAILER_SIZE_BYTES, Meta
from storage.bbolt.reader import BoltCorrupt, BoltFile
from storage.bbolt.writer import BoltWriter

if TYPE_CHECKING:
    from collections.abc import Generator, Mapping

PAGE_SIZES = st.sampled_from([512, 1024, 4096])
SMALL = st.dictionaries(st.binary(min_size=1, max_size=40), st.binary(max_size=200), max_size=60)
LARGE = st.builds(
    lambda lengths: {b"%08d" % at: bytes([at % 251]) * length for at, length in enumerate(lengths)},
    st.lists(st.sampled_from([0, 1, 30, 400, 3000, 4064, 9000, 20000]), max_size=80),
)
LONG_KEYS = st.builds(
    lambda count, length: {b"%06d" % at + b"k" * length: b"" for at in range(count)},
    st.integers(0, 120),
    st.sampled_from([10, 300, 900, 5000]),
)
BUCKETS = st.dictionaries(st.binary(min_size=1, max_size=20), st.one_of(SMALL, LARGE, LONG_KEYS), max_size=6)


def written(buckets: Mapping[bytes, Mapping[bytes, bytes]], page_size_bytes: int = 4096) -> bytes:
    """The file with these buckets."""
    file = io.BytesIO()
    writer = BoltWriter(file, page_size_bytes)
    for name, items in buckets.items():
        for _ in writer.bucket(name, sorted(items.items())):
            pass
    assert _returned(writer.finish()) == len(file.getvalue())
    return file.getvalue()


def _returned(steps: Generator[None, None, int]) -> int:
    while True:
        try:
            next(steps)
        except StopIteration as stop:
            return int(stop.value)


def read(path: Path) -> dict[bytes, dict[bytes, bytes]]:
    """All buckets of the file at *path*; raises BoltCorrupt."""
    with BoltFile(path) as file:
        return {name: dict(file.items(name)) for name in file.buckets}


def read_bytes(data: bytes) -> dict[bytes, dict[bytes, bytes]]:
    with TemporaryDirectory() as directory:
        path = Path(directory) / "db"
        path.write_bytes(data)
        return read(path)


@given(buckets=BUCKETS, page_size_bytes=PAGE_SIZES)
@settings(max_examples=120, deadline=None)
def test_what_is_written_is_read_back(buckets: dict[bytes, dict[bytes, bytes]], page_size_bytes: int) -> None:
    """Nothing is lost or changed on the way through the format, whatever sizes make pages overflow or branches grow."""
    data = written(buckets, page_size_bytes)
    assert len(data) % SECTOR_SIZE_BYTES == 0
    assert read_bytes(data) == buckets


@given(buckets=BUCKETS, data=st.data())
@settings(max_examples=250, deadline=None)
def test_damage_is_named_or_harmless(buckets: dict[bytes, dict[bytes, bytes]], data: st.DataObject) -> None:
    """A file with some bits turned, or cut short, is read, or refused with the offset; never another error."""
    damaged = bytearray(written(buckets, 512))
    for _ in range(data.draw(st.integers(0, 3))):
        damaged[data.draw(st.integers(0, len(damaged) - 1))] ^= 1 << data.draw(st.integers(0, 7))
    length = data.draw(st.one_of(st.just(len(damaged)), st.integers(0, len(damaged))))
    try:
        read_bytes(bytes(damaged[:length]))
    except BoltCorrupt as error:
        assert "is damaged at offset " in str(error)  # noqa: PT017 - most damage is refused, some cannot be seen


@given(buckets=BUCKETS, garbage=st.binary(min_size=1, max_size=16), data=st.data())
@settings(max_examples=150, deadline=None)
def test_torn_meta_page_is_made_good_by_the_other(
    buckets: dict[bytes, dict[bytes, bytes]], garbage: bytes, data: st.DataObject
) -> None:
    """A database writes its meta pages in turn so that one survives any crash; the reader relies on either alone."""
    sound = written(buckets)
    at = data.draw(st.sampled_from([0, 4096])) + PAGE_HEADER_SIZE_BYTES + data.draw(st.integers(0, 40))
    torn = sound[:at] + garbage + sound[at + len(garbage) :]
    assert read_bytes(torn) == buckets


def test_trailer_is_told_from_the_database(tmp_path: Path) -> None:
    """A snapshot that came over the network has 32 bytes behind the database, which must not be taken for a page."""
    path = tmp_path / "db"
    path.write_bytes(written({b"key": {b"k": b"v"}}) + bytes(TRAILER_SIZE_BYTES))
    with BoltFile(path) as file:
        assert file.trailer_size_bytes == TRAILER_SIZE_BYTES
        assert file.size_bytes == path.stat().st_size - TRAILER_SIZE_BYTES
        assert list(file.items(b"key")) == [(b"k", b"v")]


@given(st.builds(Meta, *[st.integers(0, 2**32 - 1)], *[st.integers(0, 2**64 - 1)] * 4))
def test_meta_round_trip(meta: Meta) -> None:
    """A meta page holds every number that a file can need."""
    assert Meta.decode(meta.encode()) == meta
