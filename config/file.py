"""The configuration file: YAML or JSON text to values by setting.

Owns the file's shape: which object holds which key, what null means, what an unknown key gets.  Values are left as the
parser gave them; load.py reads them by kind.  Whatever the text holds, it ends in values and faults, never in an error.
"""

from __future__ import annotations

import difflib
import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import yaml

from config.faults import BadValue, Fault
from config.notes import Note
from config.retired import RETIRED_FILE_KEYS
from config.schema import BY_NAME, DECLARED

if TYPE_CHECKING:
    from collections.abc import Hashable, Mapping

_NAME_BY_PATH = {each.setting.file_path: each.setting.name for each in DECLARED if each.setting.file_path}
_OBJECTS = frozenset(path[:depth] for path in _NAME_BY_PATH for depth in range(1, len(path)))
_KNOWN_KEYS = sorted({".".join(path) for path in _NAME_BY_PATH} | RETIRED_FILE_KEYS.keys())


@dataclass(frozen=True, slots=True)
class FileValues:
    """What a file says: settings and retired names, each with the value as parsed."""

    by_name: Mapping[str, object]
    faults: tuple[Fault, ...] = ()
    notes: tuple[Note, ...] = ()


def read_file(text: str) -> FileValues:
    """Read the text of a configuration file."""
    notes: list[Note] = []
    try:
        root = _parse(text, notes)
    except BadValue as error:
        return FileValues({}, (Fault("", None, str(error)),))
    if root is None:
        return FileValues({})
    if not isinstance(root, dict):
        return FileValues({}, (Fault("", None, "the configuration file must hold keys and values at its top"),))
    by_name: dict[str, object] = {}
    faults: list[Fault] = []
    _walk(root, (), by_name, faults, notes)
    return FileValues(by_name, tuple(faults), tuple(notes))


def _parse(text: str, notes: list[Note]) -> object:
    if text.lstrip().startswith("{"):
        try:
            return json.loads(text)  # YAML takes most JSON, but not tabs before a key
        except (ValueError, RecursionError):
            pass  # not JSON after all, so YAML's message is the better one
    try:
        return _load_yaml(text, notes)
    except yaml.MarkedYAMLError as error:
        line = "" if error.problem_mark is None else f"line {error.problem_mark.line + 1}: "
        raise BadValue(f"error converting YAML to JSON: yaml: {line}{error.problem}") from error
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise BadValue(f"error converting YAML to JSON: yaml: {error}") from error


class _Loader(yaml.SafeLoader):
    """Notices keys that are given twice, of which YAML silently takes the last."""

    repeated: list[tuple[str, int]]

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        """Return the mapping of *node* (called by PyYAML)."""
        seen = set()
        for key in (key for key, _ in node.value if isinstance(key, yaml.ScalarNode)):
            if key.value in seen:
                self.repeated.append((key.value, key.start_mark.line + 1))
            seen.add(key.value)
        return super().construct_mapping(node, deep)


def _load_yaml(text: str, notes: list[Note]) -> object:
    loader = _Loader(text)
    loader.repeated = []
    try:
        return loader.get_single_data()
    finally:
        loader.dispose()
        for key, line in loader.repeated:
            notes.append(
                Note("warning", "a key is given twice in the file; the last one counts", {"key": key, "line": line})
            )


def _walk(
    values: Mapping[object, object],
    above: tuple[str, ...],
    by_name: dict[str, object],
    faults: list[Fault],
    notes: list[Note],
) -> None:
    for key, value in values.items():
        path = (*above, str(key))
        dotted = ".".join(path)
        if path in _OBJECTS:
            if isinstance(value, dict):
                _walk(value, path, by_name, faults, notes)
            elif value is not None:
                faults.append(Fault(dotted, None, f"invalid {dotted}: it must hold keys and values"))
        elif path in _NAME_BY_PATH:
            if value is not None:
                by_name[_NAME_BY_PATH[path]] = value
        elif dotted in RETIRED_FILE_KEYS:
            if value is not None:
                by_name[dotted] = value
        else:
            notes.append(_unknown(dotted))


def _unknown(key: str) -> Note:
    declared = BY_NAME.get(key)
    if declared is not None and not declared.setting.file_path:
        return Note("warning", "ignored a key that only flags and environment variables can set", {"key": key})
    if declared is not None:
        return Note("warning", "ignored an unknown key in the file", {"key": key, "nearest": declared.setting.file_key})
    near = difflib.get_close_matches(key, _KNOWN_KEYS, n=1, cutoff=0.6)
    fields = {"key": key} | ({"nearest": near[0]} if near else {})
    return Note("warning", "ignored an unknown key in the file", fields)
