"""Entries of the setting `extensions`: which actor, with which options.  What they name is looked up elsewhere."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from config.faults import BadValue

if TYPE_CHECKING:
    from collections.abc import Mapping

_ACTOR = re.compile(r"[A-Za-z_][\w.]*:[A-Za-z_]\w*")


@dataclass(frozen=True, slots=True)
class ExtensionEntry:
    """One extension."""

    actor: str
    """``package.module:Class``."""
    options: Mapping[str, object] = field(default_factory=dict)


def read_extensions(value: object) -> tuple[ExtensionEntry, ...]:
    """Return the entries in *value*, as the file's parser gave it; raises BadValue with every fault."""
    if not isinstance(value, list):
        raise BadValue("expected a list of {actor, options}")
    entries: list[ExtensionEntry] = []
    faults: list[str] = []
    for number, each in enumerate(value, 1):
        fault = _fault(each)
        if fault:
            faults.append(f"entry {number}: {fault}")
        else:
            entries.append(ExtensionEntry(each["actor"], {str(key): of for key, of in _options(each).items()}))
    if faults:
        raise BadValue("; ".join(faults))
    return tuple(entries)


def _fault(each: object) -> str:
    if not isinstance(each, dict):
        return f"expected an object with actor and options, found {each!r}"
    unknown = sorted(str(key) for key in each.keys() - {"actor", "options"})
    if unknown:
        return f"unknown key {unknown[0]}: there are actor and options"
    actor = each.get("actor")
    if not isinstance(actor, str) or not _ACTOR.fullmatch(actor):
        return f"actor must look like package.module:Class, not {actor!r}"
    if not isinstance(each.get("options"), dict | None):
        return f"options must hold keys and values, not {each['options']!r}"
    return ""


def _options(each: dict[str, dict[object, object] | None]) -> dict[object, object]:
    return each.get("options") or {}


def write_extensions(entries: tuple[ExtensionEntry, ...]) -> list[dict[str, object]]:
    """Return *entries* as plain YAML data."""
    return [{"actor": entry.actor, "options": dict(entry.options)} for entry in entries]
