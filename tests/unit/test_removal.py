"""Large files go little by little; what others still have of them stays."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

from wal.removal import PIECE_BYTES, remove_in_pieces

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def steps(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, int]]:
    """What is done to descriptors, in its order, each with the file's size afterwards."""
    done: list[tuple[str, int]] = []
    truncate, sync = os.ftruncate, os.fdatasync

    def truncated(descriptor: int, size: int) -> None:
        truncate(descriptor, size)
        done.append(("truncate", size))

    def synced(descriptor: int) -> None:
        sync(descriptor)
        done.append(("sync", os.fstat(descriptor).st_size))

    monkeypatch.setattr(os, "ftruncate", truncated)
    monkeypatch.setattr(os, "fdatasync", synced)
    return done


def test_each_piece_is_committed_before_the_next(tmp_path: Path, steps: list[tuple[str, int]]) -> None:
    """Pieces that gather in one commit would hold up as much as the whole."""
    file = tmp_path / "large"
    file.write_bytes(bytes(2 * PIECE_BYTES + 5))
    remove_in_pieces(file)
    assert steps == [
        ("truncate", PIECE_BYTES + 5),
        ("sync", PIECE_BYTES + 5),
        ("truncate", 5),
        ("sync", 5),
    ]
    assert not file.exists()


def test_a_small_file_just_goes(tmp_path: Path, steps: list[tuple[str, int]]) -> None:
    """One piece needs no sync."""
    file = tmp_path / "small"
    file.write_bytes(bytes(PIECE_BYTES))
    remove_in_pieces(file)
    assert steps == []
    assert not file.exists()


def test_a_crash_in_the_middle_leaves_no_part_of_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A log must never find a segment that is half there: the name is gone before the content is."""
    file = tmp_path / "large"
    file.write_bytes(bytes(3 * PIECE_BYTES))
    there = []
    truncate = os.ftruncate

    def truncated(descriptor: int, size: int) -> None:
        there.append(file.exists())
        truncate(descriptor, size)

    monkeypatch.setattr(os, "ftruncate", truncated)
    remove_in_pieces(file)
    assert there == [False, False]


def test_what_has_another_name_keeps_its_content(tmp_path: Path) -> None:
    """Copies of a data directory made of hard links are worth as much as any other."""
    file, copy = tmp_path / "file", tmp_path / "copy"
    content = os.urandom(2 * PIECE_BYTES)
    file.write_bytes(content)
    copy.hardlink_to(file)
    remove_in_pieces(file)
    assert not file.exists()
    assert copy.read_bytes() == content


def test_a_link_to_elsewhere_takes_nothing_along(tmp_path: Path) -> None:
    """Its own name is all that a symbolic link has to give."""
    file, link = tmp_path / "file", tmp_path / "link"
    file.write_bytes(bytes(2 * PIECE_BYTES))
    link.symlink_to(file)
    remove_in_pieces(link)
    assert not link.is_symlink()
    assert file.stat().st_size == 2 * PIECE_BYTES


def test_a_disk_that_fails_meanwhile_is_no_failure(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The file is gone; how its blocks come back is the file system's matter then."""

    def failing(_descriptor: int) -> None:
        raise OSError(5, "no disk")

    monkeypatch.setattr(os, "fdatasync", failing)
    file = tmp_path / "large"
    file.write_bytes(bytes(2 * PIECE_BYTES))
    remove_in_pieces(file)
    assert not file.exists()


def test_a_file_that_may_only_be_removed_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Removing wants rights to the folder alone."""

    def refuse(*_arguments: object) -> int:
        raise PermissionError

    file = tmp_path / "file"
    file.write_bytes(b"x")
    monkeypatch.setattr(os, "open", refuse)
    remove_in_pieces(file)
    monkeypatch.undo()
    assert not file.exists()


def test_what_is_not_there_cannot_be_removed(tmp_path: Path) -> None:
    """As with any removal."""
    with pytest.raises(FileNotFoundError):
        remove_in_pieces(tmp_path / "none")
    remove_in_pieces(tmp_path / "none", missing_ok=True)
