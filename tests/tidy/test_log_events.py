"""What is logged and what docs/log-events.md says of it are the same."""

from __future__ import annotations

import ast
import re
from typing import TYPE_CHECKING

from config.schema import DECLARED
from tests.tidy.test_layers import MAY_IMPORT, ROOT, modules, parsed

if TYPE_CHECKING:
    from collections.abc import Iterator

DOCUMENT = ROOT / "docs" / "log-events.md"
LEVELS = {
    "debug": "debug",
    "info": "info",
    "warning": "warn",
    "error": "error",
    "exception": "error",
    "critical": "fatal",
}
LOGGERS = {"log", "_log", "logger", "_logger"}
PASSED_ON = {"setting.note"}
"""Expressions that stand for texts which are looked up elsewhere: notes of settings."""

Event = tuple[str, str]
"""Message and level."""


def logged() -> set[Event]:
    """Return every message in the code with its level."""
    events = {(each.setting.note, "warn") for each in DECLARED if each.setting.note is not None}
    for layer in MAY_IMPORT:
        for path in modules(layer):
            tree = parsed(path)
            for call in (node for node in ast.walk(tree) if isinstance(node, ast.Call)):
                level, message = _logging(call)
                if message is not None and ast.unparse(message) not in PASSED_ON:
                    events |= {(text, level) for text in _texts(message, tree, f"{path}:{call.lineno}")}
    return events


def _logging(call: ast.Call) -> tuple[str, ast.expr | None]:
    """Return level and message if *call* logs something, or makes a note for the log."""
    called = call.func
    if isinstance(called, ast.Name) and called.id == "Note" and isinstance(call.args[0], ast.Constant):
        return LEVELS[str(call.args[0].value)], call.args[1]
    if isinstance(called, ast.Attribute) and called.attr in LEVELS:
        owner = called.value
        name = owner.attr if isinstance(owner, ast.Attribute) else owner.id if isinstance(owner, ast.Name) else ""
        if name in LOGGERS:
            return LEVELS[called.attr], call.args[0]
    return "", None


def _texts(message: ast.expr, tree: ast.Module, place: str) -> Iterator[str]:
    """Yield what *message* may be: literals, one of two, or a name that is given one."""
    match message:
        case ast.Constant(value=str(text)):
            yield text
        case ast.IfExp():
            yield from _texts(message.body, tree, place)
            yield from _texts(message.orelse, tree, place)
        case ast.Name():
            assigned = [
                node.value
                for node in ast.walk(tree)
                if isinstance(node, ast.Assign)
                and any(isinstance(target, ast.Name) and target.id == message.id for target in node.targets)
                and isinstance(node.value, ast.Constant)
            ]
            assert assigned, f"{place}: {message.id} is no literal"
            for value in assigned:
                yield from _texts(value, tree, place)
        case _:
            raise AssertionError(f"{place}: a message is a literal, so that it can be searched for")


def documented() -> list[Event]:
    """Return message and level of every row of the document."""
    rows = re.findall(r"^\| (.+?) \| (debug|info|warn|error|fatal) \|", DOCUMENT.read_text(), re.MULTILINE)
    return [(message, level) for message, level in rows if message not in LEVELS.values()]


def test_every_event_is_documented_and_every_documented_one_is_logged() -> None:
    """An operator who greps for a line finds what it means, and no line is promised that never comes."""
    events, rows = logged(), set(documented())
    assert sorted(events - rows) == [], "logged, but not in the document"
    assert sorted(rows - events) == [], "in the document, but not logged"


def test_no_event_is_documented_twice() -> None:
    """One place says what a line means."""
    rows = documented()
    assert sorted(row for row in set(rows) if rows.count(row) > 1) == []
