"""Booleans as Go's strconv reads them, wherever a setting's text holds one."""

from __future__ import annotations

from config.faults import BadValue

TRUE = frozenset({"1", "t", "T", "TRUE", "true", "True"})
_FALSE = frozenset({"0", "f", "F", "FALSE", "false", "False"})


def parse_bool(text: str) -> bool:
    """Return the boolean in *text*; raise BadValue in the words of Go's flag package."""
    if text not in TRUE | _FALSE:
        raise BadValue("parse error")
    return text in TRUE
