"""LevelDB's own log after a power loss: whatever is cut or overwritten, the store opens at some earlier entry."""

from __future__ import annotations

import shutil
from pathlib import Path
from tempfile import TemporaryDirectory

import google_crc32c
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from core.mvcc.store import Store
from storage.leveldb import open_leveldb
from storage.leveldb_repair import Cut, cut_torn_logs, sound_length

ENTRY_COUNT = 60
KEYS_PER_ENTRY = 3


def _value(index: int) -> bytes:
    """Return a value whose entry is smaller than, larger than or far larger than a block of the log."""
    return b"%d" % index + bytes((index,)) * (200, 3000, 40_000)[index % 3]


def _apply(store: Store, index: int) -> None:
    transaction = store.transaction()
    for number in range(KEYS_PER_ENTRY):
        transaction.put(b"key%d" % number, _value(index))
    transaction.end()
    store.advance(index, 1)
    store.flush()


@pytest.fixture(scope="module")
def crashed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory as a killed process leaves it: everything in the log, nothing in a table."""
    live, copy = tmp_path_factory.mktemp("live") / "db", tmp_path_factory.mktemp("crashed") / "db"
    backend = open_leveldb(live)
    store = Store.open(backend)
    for index in range(1, ENTRY_COUNT + 1):
        _apply(store, index)
    shutil.copytree(live, copy)
    backend.close()
    return copy


def _check_whole(directory: Path) -> int:
    """Open the store, check that it is the state after its applied index, go on from there; return the index."""
    backend = open_leveldb(directory)
    store = Store.open(backend)
    index = store.applied_index
    assert store.revision == index + 1
    view = store.view()
    records = view.range(b"\x00", b"\x00")
    assert len(records) == (KEYS_PER_ENTRY if index else 0)
    assert all(_value(index) in record for record in records)
    assert len(list(view.revisions())) == KEYS_PER_ENTRY * index
    _apply(store, index + 1)
    backend.close()
    return index


def _log(directory: Path) -> Path:
    (log,) = directory.glob("*.log")
    return log


def test_an_undamaged_log_is_kept_whole(crashed: Path, tmp_path: Path) -> None:
    """A mere kill loses nothing: the cutting must not touch what is sound."""
    directory = shutil.copytree(crashed, tmp_path / "db")
    assert cut_torn_logs(directory) == []
    assert _check_whole(directory) == ENTRY_COUNT


@settings(max_examples=25, deadline=None)
@given(share=st.floats(0, 1), damage=st.sampled_from(["cut", "zeros", "garbage", "flip", "zero page", "longer"]))
def test_a_damaged_log_leaves_a_prefix_of_whole_entries(crashed: Path, share: float, damage: str) -> None:
    """Nothing of an entry without all of it, nothing after a lost one: the raft log is applied again from there."""
    with TemporaryDirectory() as temporary:
        directory = shutil.copytree(crashed, Path(temporary) / "db")
        log = _log(directory)
        content = bytearray(log.read_bytes())
        at = int(share * (len(content) - 1))
        match damage:
            case "cut":
                del content[at:]
            case "zeros":
                content[at:] = bytes(len(content) - at)
            case "garbage":
                content[at:] = (b"\x01\x07garbage" * (len(content) // 9 + 1))[: len(content) - at]
            case "flip":
                content[at] ^= 0x10
            case "zero page":
                content[at // 4096 * 4096 : (at // 4096 + 1) * 4096] = bytes(4096)
            case _:
                content += bytes(10_000)
        log.write_bytes(content)
        index = _check_whole(directory)
        assert index <= ENTRY_COUNT
        if damage == "longer":
            assert index == ENTRY_COUNT
        assert _check_whole(directory) == index + 1


def test_a_log_begun_after_a_torn_one_is_emptied(crashed: Path, tmp_path: Path) -> None:
    """The later log holds entries that follow the lost ones: with it the state would have a gap."""
    first, second = tmp_path / "000007.log", tmp_path / "000012.log"
    content = _log(crashed).read_bytes()
    first.write_bytes(content[:-1])
    second.write_bytes(content)
    sound = sound_length(content[:-1])
    assert cut_torn_logs(tmp_path) == [
        Cut(first, sound, len(content) - 1 - sound),
        Cut(second, 0, len(content)),
    ]
    assert (first.stat().st_size, second.stat().st_size) == (sound, 0)
    assert cut_torn_logs(tmp_path) == []


def _record(kind: int, data: bytes) -> bytes:
    crc: int = google_crc32c.value(bytes((kind,)) + data)
    masked = ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF
    return masked.to_bytes(4, "little") + len(data).to_bytes(2, "little") + bytes((kind,)) + data


@pytest.mark.parametrize(
    ("tail", "why"),
    [
        (_record(3, b"middle"), "a middle part without a first"),
        (_record(4, b"last"), "a last part without a first"),
        (_record(2, b"first") + _record(1, b"full"), "a first part that is not continued"),
        (_record(2, b"first") + _record(3, b"middle"), "parts without a last"),
        (_record(9, b"what"), "an unknown type"),
        (_record(1, b"data")[:-1], "fewer bytes than the length says"),
    ],
)
def test_parts_that_do_not_fit_end_the_log(tail: bytes, why: str) -> None:
    """Sound checksums are not enough: pieces of one batch without the others must not count."""
    head = _record(1, b"one") + _record(2, b"two") + _record(4, b"two")
    assert sound_length(head) == len(head), why
    assert sound_length(head + tail) == len(head), why
