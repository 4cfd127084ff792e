"""Second names for LevelDB's files: deletions are cheap for LevelDB, and nothing stays longer than it has to."""

from __future__ import annotations

import errno
import os
from typing import TYPE_CHECKING

from storage.leveldb import open_leveldb
from storage.second_names import FOLDER_NAME, SecondNames

if TYPE_CHECKING:
    from pathlib import Path

    import pytest


def _names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


def test_a_file_goes_in_two_steps(tmp_path: Path) -> None:
    """Its owner takes the first name away without waiting for the blocks, which go with the second."""
    (tmp_path / "000001.ldb").write_bytes(b"table")
    (tmp_path / "000002.log").write_bytes(b"log")
    (tmp_path / "MANIFEST-000003").write_bytes(b"small")
    second = SecondNames(tmp_path)
    second.update()
    assert _names(tmp_path / FOLDER_NAME) == {"000001.ldb", "000002.log"}
    (tmp_path / "000001.ldb").unlink()
    assert (tmp_path / FOLDER_NAME / "000001.ldb").read_bytes() == b"table"
    second.update()
    assert _names(tmp_path / FOLDER_NAME) == {"000002.log"}


def test_what_an_earlier_process_left_is_cleared(tmp_path: Path) -> None:
    """After a kill, space must not stay taken by files that nobody has a first name for."""
    (tmp_path / "000001.ldb").write_bytes(b"table")
    SecondNames(tmp_path).update()
    (tmp_path / "000001.ldb").unlink()
    SecondNames(tmp_path).clear()
    assert _names(tmp_path) == set()


def test_without_second_names_all_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Some file systems have none: deletions are as slow as before, and it is not tried for each file again."""
    asked = []

    def refuse(source: Path, _target: Path) -> None:
        asked.append(source)
        raise OSError(errno.EPERM, "no links here")

    monkeypatch.setattr(os, "link", refuse)
    (tmp_path / "000001.ldb").write_bytes(b"table")
    second = SecondNames(tmp_path)
    second.update()
    second.update()
    assert len(asked) == 1


def test_the_files_of_a_store_have_second_names_while_it_is_open(tmp_path: Path) -> None:
    """LevelDB must find nothing strange in its folder, and its size is that of its own files."""
    backend = open_leveldb(tmp_path)
    for number in range(3):
        backend.write([(b"r%d" % number, bytes(1000))])
        backend.keep_house()
        backend.compact()
    files = [path for path in tmp_path.iterdir() if path.is_file()]
    backend.keep_house()
    assert _names(tmp_path / FOLDER_NAME) == {path.name for path in files if path.suffix in {".ldb", ".log"}}
    assert backend.size_bytes() == sum(path.stat().st_size for path in files)
    backend.close()
    assert not (tmp_path / FOLDER_NAME).exists()
    again = open_leveldb(tmp_path)
    assert again.get(b"r2") == bytes(1000)
    again.close()
