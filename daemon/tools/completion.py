"""The command `actcd completion bash|zsh|fish`: a script that completes actcd's words, flags and their values.

Made from the same declarations as the help, so it knows every command.  The scripts run nothing but the shell.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from config.flags import OTHER_FLAGS
from config.gateway import GatewayFlags
from config.grpc_proxy import ProxyFlags
from config.schema import DECLARED
from config.start_flags import fields_of
from daemon.tools.commands import Command, Word
from daemon.tools.output import put_line

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from daemon.tools.commands import Given, Option

_FILE_SUFFIXES = ("-file", "ca-file")
_DIR_SUFFIX = "-dir"


class Flag(NamedTuple):
    """A flag as completion sees it."""

    names: tuple[str, ...]
    """With their dashes."""
    meaning: str
    takes_value: bool
    choices: tuple[str, ...] = ()
    is_dir: bool = False


_HELP_FLAG = Flag(("--help",), "Show help", takes_value=False)


class Place(NamedTuple):
    """What may follow the words *path*."""

    path: str
    words: tuple[tuple[str, str], ...]
    """Name and meaning of each."""
    flags: tuple[Flag, ...]
    takes_files: bool = False


def places(tools: Sequence[Command], programs: Sequence[tuple[str, str]]) -> list[Place]:
    """Return every place of a command line; *programs* are first words that are no tools."""
    words = (*((tool.name, tool.summary) for tool in tools), *programs)
    found = [Place("", words, tuple(_server_flags()))]
    for tool in tools:
        found.extend(_places(tool, tool.name))
    found.append(Place("check-config", (), (), takes_files=True))
    found.append(Place("help", words, ()))
    for program, flags in (("gateway", GatewayFlags), ("grpc-proxy", ProxyFlags)):
        found.append(Place(program, (("start", "Start it"),), (_HELP_FLAG,)))
        found.append(Place(f"{program} start", (), tuple(_start_flags(flags))))
    return found


def _places(command: Command, path: str) -> Iterator[Place]:
    words = tuple((each.name, each.summary) for each in command.commands)
    choices = tuple((name, "") for word in command.words for name in word.choices)
    takes_files = any(not word.choices for word in command.words)
    flags = (*map(_flag, command.options), _HELP_FLAG)
    yield Place(path, words + choices, flags, takes_files)
    for each in command.commands:
        yield from _places(each, f"{path} {each.name}")


def _flag(option: Option[object]) -> Flag:
    names = (f"--{option.name}", f"-{option.short}") if option.short else (f"--{option.name}",)
    return Flag(names, option.meaning, not option.is_switch, option.choices, option.placeholder == "DIR")


def _server_flags() -> Iterator[Flag]:
    for declared in DECLARED:
        setting = declared.setting
        if setting.flag:
            choices = tuple(setting.kind.name.split("|")) if "|" in setting.kind.name else ()
            is_dir = setting.name.endswith(_DIR_SUFFIX)
            yield Flag((f"--{setting.name}",), setting.meaning, not setting.kind.is_switch, choices, is_dir)
    for name, default, meaning in OTHER_FLAGS:
        yield Flag((f"--{name}",), meaning, default != "false")
    yield _HELP_FLAG


def _start_flags(flags: type[GatewayFlags | ProxyFlags]) -> Iterator[Flag]:
    for name, field in fields_of(flags).items():
        kind = field.metadata["kind"]
        choices = tuple(each for each in kind.name.split("|") if each) if "|" in kind.name else ()
        is_dir = name.endswith(_DIR_SUFFIX)
        yield Flag((f"--{name}",), field.metadata["meaning"], not kind.is_switch, choices, is_dir)
    yield _HELP_FLAG


def script(shell: str, found: Sequence[Place]) -> str:
    """Return the script for *shell*."""
    return "\n".join({"bash": _bash, "zsh": _zsh, "fish": _fish}[shell](found)) + "\n"


def _bash(found: Sequence[Place]) -> Iterator[str]:
    yield "# bash completion for actcd; put it into /etc/bash_completion.d/ or: source <(actcd completion bash)"
    yield "_actcd() {"
    yield '  local current="${COMP_WORDS[COMP_CWORD]}" before="${COMP_WORDS[COMP_CWORD-1]}" path="" word'
    yield '  [[ $before == "=" ]] && before="${COMP_WORDS[COMP_CWORD-2]}"'
    yield '  [[ $current == "=" ]] && { before="${COMP_WORDS[COMP_CWORD-1]}"; current=""; }'
    yield '  for word in "${COMP_WORDS[@]:1:COMP_CWORD-1}"; do'
    yield from _path_cases(found, "    ")
    yield "  done"
    yield "  COMPREPLY=()"
    yield '  case "$path:$before" in'
    for place in found:
        for names, choices, is_dir in _valued(place):
            patterns = "|".join(f'"{place.path}:{name}"' for name in names)
            if choices:
                yield f'    {patterns}) COMPREPLY=($(compgen -W "{" ".join(choices)}" -- "$current")); return ;;'
            else:
                yield f'    {patterns}) COMPREPLY=($(compgen -{"d" if is_dir else "f"} -- "$current")); return ;;'
    yield "  esac"
    yield '  case "$path" in'
    for place in found:
        every = " ".join((*(name for name, _ in place.words), *(flag.names[0] for flag in place.flags)))
        yield f'    "{place.path}") COMPREPLY=($(compgen -W "{every}" -- "$current")) ;;'
    yield "  esac"
    yield "  [[ $current == -* ]] && return"
    yield '  case "$path" in'
    yield f'    {_with_files(found)}) COMPREPLY+=($(compgen -f -- "$current")) ;;'
    yield "  esac"
    yield "}"
    yield "complete -o filenames -F _actcd actcd"


def _zsh(found: Sequence[Place]) -> Iterator[str]:
    yield "#compdef actcd"
    yield "# zsh completion for actcd; put it into a folder of $fpath as _actcd, or: source <(actcd completion zsh)"
    yield "_actcd() {"
    yield '  local current="${words[CURRENT]}" before="${words[CURRENT-1]}" path_="" word'
    yield "  local -a found"
    yield '  for word in "${(@)words[2,CURRENT-1]}"; do'
    yield from _path_cases(found, "    ", "path_")
    yield "  done"
    yield '  case "$path_:$before" in'
    for place in found:
        for names, choices, is_dir in _valued(place):
            patterns = "|".join(f'"{place.path}:{name}"' for name in names)
            action = f"compadd -- {' '.join(choices)}" if choices else "_files -/" if is_dir else "_files"
            yield f"    {patterns}) {action}; return ;;"
    yield "  esac"
    yield '  case "$path_" in'
    for place in found:
        entries = [*place.words, *((flag.names[0], flag.meaning) for flag in place.flags)]
        described = " ".join(_zsh_quoted(name, meaning) for name, meaning in entries)
        yield f'    "{place.path}") found=({described}) ;;'
    yield "  esac"
    yield "  _describe -o 'actcd' found"
    yield "  [[ $current == -* ]] && return"
    yield '  case "$path_" in'
    yield f"    {_with_files(found)}) _files ;;"
    yield "  esac"
    yield "}"
    yield 'if [ "$funcstack[1]" = "_actcd" ]; then _actcd "$@"; else compdef _actcd actcd; fi'


def _fish(found: Sequence[Place]) -> Iterator[str]:
    yield "# fish completion for actcd; put it into ~/.config/fish/completions/actcd.fish"
    yield "function __actcd_at"
    yield "  set -l path"
    yield "  for word in (commandline -opc)[2..-1]"
    yield '    switch "$path $word"'
    for place in found:
        if place.path:
            before, _, name = place.path.rpartition(" ")
            yield f'      case "{before} {name}"'
            yield f'        set path "{place.path}"'
    yield "    end"
    yield "  end"
    yield '  test "$path" = "$argv"'
    yield "end"
    for place in found:
        condition = f"-n '__actcd_at {_fish_quoted(place.path)}'" if place.path else "-n '__actcd_at \"\"'"
        if not place.takes_files:
            yield f"complete -c actcd {condition} -f"
        for name, meaning in place.words:
            yield f"complete -c actcd {condition} -a {name} -d {_quoted(meaning)}"
        for flag in place.flags:
            short = "".join(f" -s {name[1:]}" for name in flag.names[1:])
            value = " -x -a " + _quoted(" ".join(flag.choices)) if flag.choices else " -r" if flag.takes_value else ""
            yield f"complete -c actcd {condition} -l {flag.names[0][2:]}{short}{value} -d {_quoted(flag.meaning)}"


def _path_cases(found: Sequence[Place], indent: str, variable: str = "path") -> Iterator[str]:
    yield f'{indent}case "${variable} $word" in'
    for place in found:
        if place.path:
            before, _, name = place.path.rpartition(" ")
            yield f'{indent}  "{before} {name}") {variable}="{place.path}" ;;'
    yield f"{indent}esac"


def _with_files(found: Sequence[Place]) -> str:
    return "|".join(f'"{place.path}"' for place in found if place.takes_files)


def _valued(place: Place) -> Iterator[tuple[tuple[str, ...], tuple[str, ...], bool]]:
    for flag in place.flags:
        if flag.takes_value:
            yield flag.names, flag.choices, flag.is_dir


def _quoted(text: str) -> str:
    return "'" + text.replace("\\", "\\\\").replace("'", "\\'") + "'"


def _fish_quoted(text: str) -> str:
    return f'"{text}"'


def _zsh_quoted(name: str, meaning: str) -> str:
    text = f"{name}:{meaning}" if meaning else name
    return "'" + text.replace("'", "'\\''") + "'"


def completion_command(tools: Sequence[Command], programs: Sequence[tuple[str, str]]) -> Command:
    """Return the command; *tools* are all others."""

    def run(given: Given) -> None:
        put_line(script(given.words[0], places([*tools, command], programs)).rstrip("\n"))

    command = Command(
        "completion",
        "Print a script that completes actcd's commands, flags and their values in your shell.",
        run,
        (Word("SHELL", "bash, zsh or fish", choices=("bash", "zsh", "fish")),),
        examples=(
            "source <(actcd completion bash)",
            "actcd completion zsh > ~/.zfunc/_actcd",
            "actcd completion fish > ~/.config/fish/completions/actcd.fish",
        ),
    )
    return command
