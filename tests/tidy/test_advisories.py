"""Every published weakness has a test, and every test that is named for one is there."""

from __future__ import annotations

import ast
import re

from tests.tidy.test_layers import ROOT

DOCUMENT = ROOT / "docs" / "advisories.md"
NAMED = re.compile(r"`((?:\w+/)+test_\w+\.py)::(test_\w+)`")


def rows() -> dict[str, list[tuple[str, str]]]:
    """Return the tests that each row of the table names, by its ids."""
    lines = [line for line in DOCUMENT.read_text().splitlines() if line.startswith("| ")]
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines[2:]]
    assert all(len(row) == 4 for row in cells), "four columns"
    return {row[0]: NAMED.findall(row[3]) for row in cells}


def names_in(path: str) -> set[str]:
    """Return the names of the tests in the module at *path*."""
    tree = ast.parse((ROOT / "tests" / path).read_text())
    return {node.name for node in tree.body if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)}


def test_each_is_shown_by_a_test_that_is_there() -> None:
    """A renamed or deleted test would leave a promise that nobody keeps."""
    table = rows()
    assert [ids for ids, named in table.items() if not named] == []
    tests = {path: names_in(path) for path in {path for named in table.values() for path, _ in named}}
    missing = [
        f"{ids}: {path}::{test}" for ids, named in table.items() for path, test in named if test not in tests[path]
    ]
    assert missing == []


def test_nothing_named_is_passed_over() -> None:
    """A name with a slip in it would look like a test, and be none to the check above."""
    text = DOCUMENT.read_text()
    assert text.count("::") == sum(len(named) for named in rows().values())
