"""The kinds of value that a setting can have: how each is read from a flag or variable, read from the file, and shown.

Owns syntax only; whether a value makes sense is a check of the setting (checks.py).  Readers raise BadValue with the
rule in Go's words, as etcd's users know them.  Spec: Go's ``flag`` and ``strconv``, etcd's ``pkg/flags``.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Generic, TypeVar

from config.booleans import parse_bool
from config.durations import format_duration, parse_duration_s, to_nanoseconds, to_seconds
from config.extensions import ExtensionEntry, read_extensions, write_extensions
from config.faults import BadValue
from config.gates import GateSwitch, format_gates, parse_gates
from config.urls import InitialMember, Url, parse_initial_cluster, parse_urls

if TYPE_CHECKING:
    from collections.abc import Callable

T = TypeVar("T")

_NUMBER = re.compile(r"[+-]?(0[xX](_?[0-9a-fA-F])+|0[bB](_?[01])+|0[oO](_?[0-7])+|0(_?[0-7])*|[1-9](_?[0-9])*)")


@dataclass(frozen=True, slots=True)
class Kind(Generic[T]):
    """How values of one kind are read and shown."""

    name: str
    from_text: Callable[[str], T]
    from_file: Callable[[object], T]
    to_text: Callable[[T], str]
    """As a flag's value."""
    to_file: Callable[[T], object]
    """As plain YAML data."""
    is_switch: bool = False
    """Whether the bare flag means true, as for Go's boolean flags."""
    empty_is_unset: bool = False
    """Whether an empty text in the file leaves the default."""


def _describe(value: object) -> str:
    match value:
        case bool():
            return f"the boolean {str(value).lower()}"
        case int() | float():
            return f"the number {value}"
        case str():
            return f'the text "{value}"'
        case list():
            return "a list"
        case dict():
            return "an object"
        case _:
            return f"{value}"


def _text_of(value: object) -> str:
    if not isinstance(value, str):
        raise BadValue(f"expected a text (put it into quotes), found {_describe(value)}")
    return value


def _texts_of(value: object) -> tuple[str, ...]:
    if not isinstance(value, list):
        raise BadValue(f"expected a list of texts, found {_describe(value)}")
    return tuple(sorted({_text_of(item) for item in value}))


def _bool_of(value: object) -> bool:
    if not isinstance(value, bool):
        raise BadValue(f"expected true or false, found {_describe(value)}")
    return value


def _split(text: str) -> tuple[str, ...]:
    return tuple(sorted({part.strip() for part in text.split(",") if part.strip()}))


def _duration_of(value: object) -> float:
    """Nanoseconds as in etcd's files; text such as ``5s`` is taken too, since numbers of that size are hard to read."""
    if isinstance(value, str):
        return parse_duration_s(value)
    if isinstance(value, bool) or not isinstance(value, int):
        raise BadValue(f"expected whole nanoseconds or a duration such as 5s, found {_describe(value)}")
    return to_seconds(value)


def _number(name: str, least: int, most: int) -> Kind[int]:
    def within(number: int) -> int:
        if number < 0 <= least:
            raise BadValue("parse error")  # Go reads an unsigned number without knowing a sign
        if not least <= number <= most:
            raise BadValue("value out of range")
        return number

    def from_text(text: str) -> int:
        if not _NUMBER.fullmatch(text):
            raise BadValue("parse error")
        octal = re.fullmatch(r"[+-]?0[0-7_]+", text)
        return within(int(text, 8 if octal else 0))

    def from_file(value: object) -> int:
        if isinstance(value, float) and value.is_integer():
            value = int(value)
        if isinstance(value, bool) or not isinstance(value, int):
            raise BadValue(f"expected a whole number, found {_describe(value)}")
        return within(value)

    return Kind(name, from_text, from_file, str, lambda number: number)


def choice(*options: str, rule: str = 'must be one of {options}, not "{value}"') -> Kind[str]:
    """Return the kind of a text that must be one of *options*; *rule* is what to say of another one."""

    def from_text(text: str) -> str:
        if text not in options:
            raise BadValue(rule.format(options=", ".join(options), value=text))
        return text

    return Kind("|".join(options), from_text, lambda value: from_text(_text_of(value)), str, str, empty_is_unset=True)


def _join_members(members: tuple[InitialMember, ...]) -> str:
    return ",".join(f"{member.name}={url}" for member in members for url in member.peer_urls)


def _join_urls(urls: tuple[Url, ...]) -> str:
    return ",".join(str(url) for url in urls)


def _proxy_of(value: object) -> str:
    """Read a word that YAML takes for a boolean."""
    if isinstance(value, bool):
        return "on" if value else "off"
    return _PROXY_WORDS.from_text(_text_of(value))


_PROXY_WORDS = choice("off", "readonly", "on")
PROXY: Kind[str] = Kind("off|readonly|on", _PROXY_WORDS.from_text, _proxy_of, str, str, empty_is_unset=True)
TEXT: Kind[str] = Kind("text", str, _text_of, str, str)
SWITCH: Kind[bool] = Kind("boolean", parse_bool, _bool_of, lambda on: str(on).lower(), bool, is_switch=True)
SIGNED: Kind[int] = _number("integer", -(2**63), 2**63 - 1)
UNSIGNED: Kind[int] = _number("unsigned integer", 0, 2**64 - 1)
UNSIGNED_32: Kind[int] = _number("unsigned integer", 0, 2**32 - 1)
DURATION_S: Kind[float] = Kind("duration", parse_duration_s, _duration_of, format_duration, to_nanoseconds)
URLS: Kind[tuple[Url, ...]] = Kind(
    "URLs", parse_urls, lambda value: parse_urls(_text_of(value)), _join_urls, _join_urls, empty_is_unset=True
)
OPTIONAL_URLS: Kind[tuple[Url, ...]] = Kind(
    "URLs",
    lambda text: parse_urls(text) if text else (),
    lambda value: parse_urls(text) if (text := _text_of(value)) else (),
    _join_urls,
    _join_urls,
)
INITIAL_CLUSTER: Kind[tuple[InitialMember, ...]] = Kind(
    "name=URL pairs",
    parse_initial_cluster,
    lambda value: parse_initial_cluster(_text_of(value)),
    _join_members,
    _join_members,
)
ALLOWED: Kind[tuple[str, ...]] = Kind(
    "list",
    lambda text: _split(text) or ("*",),
    lambda value: _split(_text_of(value)) or ("*",),
    ",".join,
    ",".join,
)
"""Comma-separated wherever it is written, the file included; empty means everything."""
LIST: Kind[tuple[str, ...]] = Kind("list", _split, _texts_of, ",".join, list)
"""Comma-separated in a flag, a true list in the file."""
GATES: Kind[tuple[GateSwitch, ...]] = Kind(
    "feature gates", parse_gates, lambda value: parse_gates(_text_of(value)), format_gates, format_gates
)


def _no_flag(text: str) -> tuple[ExtensionEntry, ...]:
    raise BadValue(f'can be set in the configuration file only, not as "{text}"')


EXTENSIONS: Kind[tuple[ExtensionEntry, ...]] = Kind(
    "list of {actor, options}", _no_flag, read_extensions, str, write_extensions
)
