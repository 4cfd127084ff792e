"""Options of an extension: what the configuration gives, as the frozen dataclass that the extension declares.

Fields may be str, int, float, bool, tuple[str, ...] or dict[str, object]; one without a default must be given.  Keys
are the fields' names, with dashes or underscores.
"""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any, Final, get_type_hints

if TYPE_CHECKING:
    from collections.abc import Mapping

KINDS: Final[Mapping[object, str]] = {
    str: "a text",
    int: "a whole number",
    float: "a number",
    bool: "true or false",
    tuple[str, ...]: "a list of texts",
    dict[str, object]: "an object",
}


class OptionsRefused(Exception):  # noqa: N818 - named for what happened
    """The options cannot be used; the text says which and why."""


@dataclasses.dataclass(frozen=True)
class NoOptions:
    """For an extension that has none."""


def read_options(kind: type[Any], given: Mapping[str, object]) -> Any:  # noqa: ANN401 - of the kind that was asked for
    """Return *given* as a *kind*; raises OptionsRefused with every fault."""
    fields = {each.name: each for each in dataclasses.fields(kind)}
    hints = get_type_hints(kind)
    faults: list[str] = []
    values: dict[str, object] = {}
    for key, value in given.items():
        name = key.replace("-", "_")
        if name not in fields:
            known = ", ".join(each.replace("_", "-") for each in fields) or "none"
            faults.append(f"there is no option {key} (known: {known})")
        elif name in values:
            faults.append(f"the option {key} is given twice")
        else:
            fitting = _fitted(hints[name], value)
            if fitting is None:
                faults.append(f"the option {key} must be {KINDS.get(hints[name], 'something else')}, not {value!r}")
            values[name] = fitting
    for name, each in fields.items():
        if name not in values and each.default is dataclasses.MISSING and each.default_factory is dataclasses.MISSING:
            faults.append(f"the option {name.replace('_', '-')} is missing")
    if faults:
        raise OptionsRefused("; ".join(faults))
    try:
        return kind(**values)
    except ValueError as error:
        raise OptionsRefused(str(error)) from error


def _fitted(kind: object, value: object) -> object | None:
    """Return *value* if it is of *kind*, None if it is not."""
    if kind is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if kind is int and isinstance(value, bool):
        return None
    if kind == tuple[str, ...]:
        return tuple(value) if isinstance(value, list) and all(isinstance(each, str) for each in value) else None
    if kind == dict[str, object]:
        return value if isinstance(value, dict) else None
    return value if isinstance(kind, type) and isinstance(value, kind) else None
