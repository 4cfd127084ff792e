"""What a tool can be told: commands, their flags and words, how both are read, and the help that says so.

A command is declared once; reading, help and shell completion all come from that.  Flags are read as etcdctl and
etcdutl read them: ``--name value``, ``--name=value``, ``-name value``, switches without a value, flags and words in any
order, ``--`` before words that begin with a dash.
"""

from __future__ import annotations

import textwrap
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from config.booleans import parse_bool
from config.durations import parse_duration_s
from config.faults import BadValue

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

T = TypeVar("T")
HELP_WIDTH = 100
_HELP = frozenset({"-h", "-help", "--help"})


class BadArguments(Exception):  # noqa: N818 - named for what was given
    """The command line makes no sense; the text says why."""


@dataclass(frozen=True, eq=False)
class Option(Generic[T]):
    """A flag; ``given[option]`` is its value."""

    name: str
    read: Callable[[str], T]
    """Raises BadValue."""
    default: T
    meaning: str
    placeholder: str = "TEXT"
    """What stands for the value in the help; FILE and DIR are completed as such."""
    choices: tuple[str, ...] = ()
    short: str = ""
    is_switch: bool = False
    is_needed: bool = False

    def spelled(self) -> str:
        """Return the flag as the help shows it."""
        value = "" if self.is_switch else f" {'|'.join(self.choices) or self.placeholder}"
        return f"{f'-{self.short}, ' if self.short else ''}--{self.name}{value}"


@dataclass(frozen=True)
class Word:
    """A word that a command needs."""

    name: str
    meaning: str
    optional: bool = False
    choices: tuple[str, ...] = ()


@dataclass(frozen=True)
class Command:
    """One thing to do; or, with *commands*, a name for several."""

    name: str
    meaning: str
    """A sentence; what follows a blank line is shown only in the command's own help."""
    run: Callable[[Given], None] | None = None
    words: tuple[Word, ...] = ()
    options: tuple[Option[Any], ...] = ()
    commands: tuple[Command, ...] = ()
    examples: tuple[str, ...] = ()

    @property
    def summary(self) -> str:
        """Return the first sentence of the meaning."""
        return self.meaning.split("\n\n", 1)[0]

    def command(self, name: str) -> Command:
        """Return the sub-command *name*; BadArguments if there is none."""
        for command in self.commands:
            if command.name == name:
                return command
        names = ", ".join(command.name for command in self.commands)
        raise BadArguments(f'unknown command "{name}" for "actcd {self.name}": expected one of {names}')


class Given:
    """What a command line says: the words in their order, and each option's value."""

    def __init__(self, words: Sequence[str], values: dict[str, Any]) -> None:
        self.words = tuple(words)
        self._values = values

    def __getitem__(self, option: Option[T]) -> T:
        """Return the value of *option*, its default if it was not given."""
        value: T = self._values.get(option.name, option.default)
        return value

    def word(self, position: int) -> str:
        """Return a word that may be missing, or an empty text."""
        return self.words[position] if position < len(self.words) else ""


@dataclass(frozen=True)
class HelpWanted:
    """Somebody asked for help instead."""

    text: str


def read(root: Command, arguments: Sequence[str]) -> tuple[Command, Given] | HelpWanted:
    """Return which command *arguments* ask for and with what; raises BadArguments."""
    command, path, rest = root, f"actcd {root.name}", list(arguments)
    while command.commands:
        if not rest or rest[0] in _HELP:
            if rest:
                return HelpWanted(help_of(command, path))
            names = " and ".join(", ".join(each.name for each in command.commands).rsplit(", ", 1))
            raise BadArguments(f"one of {names} is needed; see '{path} --help'")
        command = command.command(rest.pop(0))
        path += f" {command.name}"
    words: list[str] = []
    values: dict[str, Any] = {}
    while rest:
        argument = rest.pop(0)
        if argument in _HELP:
            return HelpWanted(help_of(command, path))
        if argument == "--":
            words += rest
            break
        if argument.startswith("-") and argument != "-":
            option, text = _option(command, argument, rest)
            try:
                values[option.name] = option.read(text)
            except BadValue as error:
                raise BadArguments(f'invalid argument "{text}" for "--{option.name}" flag: {error}') from error
        else:
            words.append(argument)
    missing = [f'"{option.name}"' for option in command.options if option.is_needed and option.name not in values]
    if missing:
        raise BadArguments(f"required flag(s) {', '.join(missing)} not set; see '{path} --help'")
    needed = [word.name for word in command.words if not word.optional]
    if not len(needed) <= len(words) <= len(command.words):
        usage = " ".join(_shown_word(word) for word in command.words)
        raise BadArguments(f"'{path}' needs {usage or 'no words'}, {len(words)} given; see '{path} --help'")
    for word, text in zip(command.words, words, strict=False):
        if word.choices and text not in word.choices:
            raise BadArguments(f'invalid argument "{text}" for {word.name}: expected one of {", ".join(word.choices)}')
    return command, Given(words, values)


def _option(command: Command, argument: str, rest: list[str]) -> tuple[Option[Any], str]:
    name, has_value, text = argument.removeprefix("-").removeprefix("-").partition("=")
    option = next((each for each in command.options if name in {each.name, each.short} and name), None)
    if option is None:
        raise BadArguments(f"unknown flag: {argument.partition('=')[0]}; see 'actcd {command.name} --help'")
    if has_value:
        return option, text
    if option.is_switch:
        return option, "true"
    if not rest:
        raise BadArguments(f"flag needs an argument: --{option.name}")
    return option, rest.pop(0)


def help_of(command: Command, path: str) -> str:
    """Return the help of *command*, which was reached by the words *path*."""
    return "\n".join(_help_lines(command, path))


def _help_lines(command: Command, path: str) -> Iterator[str]:
    words = "".join(f" {_shown_word(word)}" for word in command.words)
    tail = " COMMAND" if command.commands else words
    yield f"Usage: {path}{tail}{' [flags]' if command.options or command.commands else ''}"
    for paragraph in command.meaning.split("\n\n"):
        yield ""
        yield from textwrap.wrap(paragraph, HELP_WIDTH)
    if command.commands:
        yield "\nCommands:"
        for each in command.commands:
            yield from _entry(each.name, each.summary)
        yield f"\nMore about one: {path} COMMAND --help"
    if command.words:
        yield ""
        for word in command.words:
            yield from _entry(word.name, word.meaning)
    if command.options:
        yield "\nFlags:"
        for option in command.options:
            needed = " (needed)" if option.is_needed else ""
            shown = needed if option.is_switch or option.default in {"", None, 0} else f" (default {_default(option)})"
            yield from _entry(option.spelled(), option.meaning + shown)
    if command.examples:
        yield "\nExamples:"
        yield from (f"  {example}" for example in command.examples)


def _default(option: Option[Any]) -> str:
    return f"{option.default:g}s" if option.placeholder == "DURATION" else str(option.default)


def _entry(name: str, meaning: str) -> Iterator[str]:
    yield f"  {name}"
    yield from textwrap.wrap(meaning, HELP_WIDTH, initial_indent="      ", subsequent_indent="      ")


def _shown_word(word: Word) -> str:
    return f"[{word.name}]" if word.optional else word.name


def text_option(
    name: str, meaning: str, default: str = "", placeholder: str = "TEXT", *, is_needed: bool = False
) -> Option[str]:
    """Return an option whose value is any text."""
    return Option(name, str, default, meaning, placeholder, is_needed=is_needed)


def switch(name: str, meaning: str, default: bool = False) -> Option[bool]:
    """Return an option that is on or off."""

    def read_switch(text: str) -> bool:
        try:
            return parse_bool(text)
        except BadValue as error:
            raise BadValue("true or false is needed") from error

    return Option(name, read_switch, default, meaning, is_switch=True)


def number_option(name: str, meaning: str, default: int = 0) -> Option[int]:
    """Return an option whose value is a whole number from 0."""

    def read_number(text: str) -> int:
        if not text.isascii() or not text.isdigit():
            raise BadValue("a whole number is needed")
        return int(text)

    return Option(name, read_number, default, meaning, "NUMBER")


def duration_option(name: str, meaning: str, default: T) -> Option[float | T]:
    """Return an option whose value is a duration such as 5s, in seconds."""
    return Option(name, parse_duration_s, default, meaning, "DURATION")


def choice_option(
    name: str, meaning: str, choices: tuple[str, ...], default: str | None = None, short: str = ""
) -> Option[str]:
    """Return an option whose value is one of *choices*; the first is the default unless another is named."""

    def read_choice(text: str) -> str:
        if text not in choices:
            raise BadValue(f"expected one of {', '.join(choices)}")
        return text

    return Option(name, read_choice, choices[0] if default is None else default, meaning, "", choices, short)


def write_out(*formats: str) -> Option[str]:
    """Return the option ``-w``, which says how to print."""
    return choice_option("write-out", "How to print what was found", formats, short="w")
