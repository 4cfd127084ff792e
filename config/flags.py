"""Flags and environment variables as texts by name, read by the rules of Go's flag package.

Owns how a command line is cut into names and values, and which variable goes with which flag.  Knows nothing of what
the values mean.  Every fault is collected, where Go stops at the first.
"""

from __future__ import annotations

import difflib
from dataclasses import dataclass
from typing import TYPE_CHECKING

from config.faults import EXIT_SYNTAX, BadValue, Fault
from config.kinds import SWITCH
from config.notes import Note
from config.retired import RETIRED_FLAGS
from config.schema import BY_NAME

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

HELP_FLAGS = frozenset({"h", "help"})
VERSION_FLAG = "version"
CONFIG_FILE_FLAG = "config-file"
OTHER_FLAGS = (
    (CONFIG_FILE_FLAG, "", "Path to the configuration file. It shuts out all other flags and variables."),
    (VERSION_FLAG, "false", "Print the version and exit."),
)
"""Flags that are not settings: name, default, meaning."""
_SWITCHES = frozenset(
    [VERSION_FLAG]
    + [name for name, declared in BY_NAME.items() if declared.setting.kind.is_switch]
    + [name for name, retired in RETIRED_FLAGS.items() if retired.is_switch]
)
FLAG_NAMES = frozenset(
    [VERSION_FLAG, CONFIG_FILE_FLAG, *RETIRED_FLAGS]
    + [name for name, declared in BY_NAME.items() if declared.setting.flag]
)
_SHADOWED = (
    "conflicting environment variable is shadowed by corresponding command-line flag "
    "(either unset environment variable or disable flag))"  # sic: etcd closes it twice
)
_NOT_SETTINGS = frozenset({"ETCD_UNSUPPORTED_ARCH"})


@dataclass(frozen=True, slots=True)
class Texts:
    """What flags or variables say: the last value given for each name."""

    by_name: Mapping[str, str]
    faults: tuple[Fault, ...] = ()
    notes: tuple[Note, ...] = ()
    help_wanted: bool = False


def variable_of(name: str) -> str:
    """Return the environment variable of the flag *name*."""
    return "ETCD_" + name.upper().replace("-", "_")


_NAME_BY_VARIABLE = {variable_of(name): name for name in FLAG_NAMES}


def read_flags(arguments: Sequence[str]) -> Texts:
    """Read a command line (without the program's name)."""
    by_name: dict[str, str] = {}
    faults: list[Fault] = []
    rest = list(arguments)
    while rest:
        argument = rest.pop(0)
        if argument == "--" or not argument.startswith("-") or argument == "-":
            words = rest if argument == "--" else [argument]
            faults.extend(Fault(word, None, f'"{word}" is not a valid flag') for word in words[:1])
            break
        name, has_value, value = argument.removeprefix("-").removeprefix("-").partition("=")
        if not name or name.startswith("-"):
            faults.append(Fault(argument, None, f"bad flag syntax: {argument}", EXIT_SYNTAX))
        elif name not in FLAG_NAMES:
            if name in HELP_FLAGS and not faults:
                return Texts(by_name, help_wanted=True)
            faults.append(Fault(f"--{name}", None, f"flag provided but not defined: -{name}{_hint(name)}", EXIT_SYNTAX))
            if rest and not has_value and not rest[0].startswith("-"):
                rest.pop(0)  # most likely its value
        elif has_value:
            by_name[name] = value
            if name == VERSION_FLAG:
                faults.extend(_version_faults(value))
        elif name in _SWITCHES:
            by_name[name] = "true"
        elif rest:
            by_name[name] = rest.pop(0)
        else:
            faults.append(Fault(f"--{name}", None, f"flag needs an argument: -{name}", EXIT_SYNTAX))
    return Texts(by_name, tuple(faults))


def read_variables(environ: Mapping[str, str], flags: Mapping[str, str]) -> Texts:
    """Read the ``ETCD_*`` variables; one whose flag is set too is a fault, an empty one is not set."""
    by_name: dict[str, str] = {}
    faults: list[Fault] = []
    notes: list[Note] = []
    for variable in sorted(name for name in environ if name.startswith("ETCD_")):
        name = _NAME_BY_VARIABLE.get(variable)
        if name == VERSION_FLAG:
            notes.append(Note("warning", "cannot set special environment variable", {"key": variable}))
        elif name is None:
            if variable not in _NOT_SETTINGS:
                notes.append(_unrecognized(variable))
        elif name in flags:
            faults.append(Fault(variable, None, _SHADOWED))
        elif environ[variable]:
            by_name[name] = environ[variable]
    return Texts(by_name, tuple(faults), tuple(notes))


def _version_faults(value: str) -> Iterator[Fault]:
    try:
        SWITCH.from_text(value)
    except BadValue as error:
        rule = f'invalid boolean value "{value}" for -{VERSION_FLAG}: {error}'
        yield Fault(f"--{VERSION_FLAG}", value, rule, EXIT_SYNTAX)


def _hint(name: str) -> str:
    near = difflib.get_close_matches(name, sorted(FLAG_NAMES), n=1, cutoff=0.7)
    return f" (did you mean --{near[0]}?)" if near else ""


def _unrecognized(variable: str) -> Note:
    near = difflib.get_close_matches(variable, sorted(_NAME_BY_VARIABLE), n=1, cutoff=0.8)
    fields = {"environment_variable": variable} | ({"nearest": near[0]} if near else {})
    return Note("warning", "unrecognized environment variable", fields)
