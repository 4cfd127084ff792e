"""The flags of the programs beside the member, ``actcd gateway start`` and ``actcd grpc-proxy start``.

A program's flags are the fields of a dataclass, from which reading, help and completion come.  Read by the rules of
pflag, as etcd reads them: a value follows its flag or an equals sign, a switch takes one only behind an equals sign,
words that belong to no flag are left out.
"""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any, TypeVar

from config.faults import BadValue
from config.kinds import SWITCH, Kind

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

T = TypeVar("T")


class FlagsRefused(Exception):  # noqa: N818 - named for what happened
    """The command line cannot be used; the text is for the operator."""


class HelpWanted(Exception):  # noqa: N818 - named for what happened
    """The usage was asked for."""


def flag(meaning: str, kind: Kind[T], default: T, *, adds_up: bool = False) -> T:
    """Return a field that is a flag of the same name, with dashes; one that *adds_up* is a list with commas."""
    metadata = {"kind": kind, "meaning": meaning, "adds_up": adds_up}
    field: T = dataclasses.field(default=default, metadata=metadata)
    return field


def read_start(flags: Callable[..., T], program: str, arguments: Sequence[str]) -> T:
    """Read the command line behind the word *program* into *flags*.  Raises FlagsRefused and HelpWanted."""
    word = arguments[0] if arguments else ""
    if word in {"", "-h", "--help"}:
        raise HelpWanted
    if word != "start":
        raise FlagsRefused(f'unknown command "{word}" for "actcd {program}"; see \'actcd {program} --help\'')
    fields = fields_of(flags)
    texts: dict[str, str] = {}
    for name, text in _pairs(fields, program, arguments[1:]):
        adds_up = name in texts and fields[name].metadata["adds_up"]
        texts[name] = f"{texts[name]},{text}" if adds_up else text
    values: dict[str, Any] = {}
    for name, text in texts.items():
        kind: Kind[Any] = fields[name].metadata["kind"]
        try:
            values[fields[name].name] = kind.from_text(text)
        except BadValue as error:
            raise FlagsRefused(f'invalid argument "{text}" for "--{name}" flag: {error}') from error
    return flags(**values)


def usage(flags: Callable[..., Any], program: str, meaning: str) -> str:
    """Return the text of ``--help``."""
    lines = [f"Usage: actcd {program} start [flags]\n\n{meaning}\n\nFlags:\n"]
    for name, field in fields_of(flags).items():
        kind: Kind[Any] = field.metadata["kind"]
        lines.append(f"  --{name} '{kind.to_text(field.default)}'\n      {field.metadata['meaning']}\n")
    return "".join(lines) + "  -h | --help\n      Print this text and exit.\n"


def fields_of(flags: Any) -> dict[str, dataclasses.Field[Any]]:  # noqa: ANN401 - a dataclass
    """Return the fields of *flags* by the names of their flags."""
    return {field.name.replace("_", "-"): field for field in dataclasses.fields(flags)}


def _pairs(
    fields: dict[str, dataclasses.Field[Any]], program: str, arguments: Sequence[str]
) -> Iterator[tuple[str, str]]:
    """Yield names and texts."""
    rest = list(arguments)
    while rest:
        argument = rest.pop(0)
        if argument == "--":
            return
        if argument in {"-h", "--help"}:
            raise HelpWanted
        if not argument.startswith("-") or argument == "-":
            continue
        if not argument.startswith("--"):
            raise FlagsRefused(f"unknown shorthand flag: '{argument[1]}' in {argument}")
        name, has_value, text = argument[2:].partition("=")
        if name not in fields:
            raise FlagsRefused(f"unknown flag: --{name}; see 'actcd {program} --help'")
        if has_value:
            yield name, text
        elif fields[name].metadata["kind"] is SWITCH:
            yield name, "true"
        elif rest:
            yield name, rest.pop(0)
        else:
            raise FlagsRefused(f"flag needs an argument: --{name}")
