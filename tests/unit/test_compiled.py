"""The modules that can be compiled: that the list is true, and that old machine code does not go unnoticed."""

from __future__ import annotations

import os
import sys
from importlib.machinery import EXTENSION_SUFFIXES
from types import ModuleType
from typing import TYPE_CHECKING

import pytest

from daemon.compiled import compiled_modules
from tools import compiled

if TYPE_CHECKING:
    from pathlib import Path


def test_the_list_names_modules_that_are_there() -> None:
    """A module that was renamed would end the build, which few people run."""
    assert [source for source in compiled.sources() if not (compiled.ROOT / source).exists()] == []


def test_what_was_compiled_is_removed_though_it_is_not_listed_any_more(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Old machine code of a module that has left the list would be run for good, whatever its source says."""
    monkeypatch.setattr(compiled, "ROOT", tmp_path)
    for name in (f"core/left{compiled.SUFFIX}", f"core/raft/left__mypyc{compiled.SUFFIX}", "core/left.py"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    compiled.remove()
    assert [path.name for path in tmp_path.rglob("*.*")] == ["left.py"]


@pytest.mark.parametrize(("age_s", "stale"), [(0.0, []), (60.0, ["loaded"])])
def test_a_source_changed_after_it_was_compiled_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, age_s: float, stale: list[str]
) -> None:
    """Python runs the old machine code without a word, so a start says so in the log."""
    extension = tmp_path / f"loaded{EXTENSION_SUFFIXES[0]}"
    source = tmp_path / "loaded.py"
    for path, written_s in ((source, 1000.0), (extension, 1000.0 - age_s)):
        path.touch()
        os.utime(path, (written_s, written_s))
    module = ModuleType("loaded")
    module.__file__ = str(extension)
    monkeypatch.setitem(sys.modules, "loaded", module)
    assert compiled_modules(tmp_path) == (["loaded"], stale)


def test_interpreted_modules_are_not_taken_for_compiled(tmp_path: Path) -> None:
    """What lies elsewhere, as installed packages do, does not count either."""
    assert compiled_modules(tmp_path) == ([], [])
