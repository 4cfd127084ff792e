"""The two halves of the suite are told apart by where a test is, and by its mark."""

from __future__ import annotations

from tests.conftest import E2E, TESTS

MARK = "pytest.mark.e2e"


def test_the_mark_and_the_folder_say_the_same() -> None:
    """What one of them leaves out, the other must not hide from both halves."""
    modules = {path for path in TESTS.rglob("test_*.py") if path.parent != TESTS / "tidy"}
    marked = {path for path in modules if MARK in path.read_text()}
    assert marked == {path for path in modules if E2E in path.parents}
    assert marked
