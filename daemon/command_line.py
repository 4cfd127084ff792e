"""From a command line to what the program shall do, as a value.

Owns which word starts which program, and what a refused configuration prints.  Starts nothing and prints nothing:
__main__.py does both.  Spec: etcd's command line (exit 2 for flags that cannot be read, 1 for all other refusals).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from config.faults import EXIT_REFUSED, EXIT_SYNTAX, ConfigRefused
from config.flags import VERSION_FLAG, read_flags
from config.help import USAGE, help_text
from config.kinds import SWITCH
from config.load import Machine, load, load_file
from config.refusals import bootstrap_refusals
from daemon.data_directory import Content, DataDirectoryRefused, identify
from daemon.machine import THIS_MACHINE, resolve
from daemon.tools.names import CHECK_CONFIG, TOOL_NAMES

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from config.notes import Note
    from config.schema import Config

GATEWAY = "gateway"
GRPC_PROXY = "grpc-proxy"
HELP = "help"


@dataclass(frozen=True, slots=True)
class RunServer:
    """Start a member; *notes* are for the log, once there is one."""

    config: Config
    notes: tuple[Note, ...]


@dataclass(frozen=True, slots=True)
class ShowHelp:
    """Print *text* and exit 0."""

    text: str


@dataclass(frozen=True, slots=True)
class ShowVersion:
    """Print the version and exit 0."""


@dataclass(frozen=True, slots=True)
class CheckConfig:
    """Read the file at *path*, say what is wrong with it, and exit."""

    path: str


@dataclass(frozen=True, slots=True)
class RunTool:
    """Run the tool *name* with the *arguments* behind its name."""

    name: str
    arguments: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class RunGateway:
    """Do what the *arguments* behind the word `gateway` ask for."""

    arguments: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class RunGrpcProxy:
    """Do what the *arguments* behind the word `grpc-proxy` ask for."""

    arguments: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class RunOldProxy:
    """Start a gRPC proxy as a member's configuration with ``proxy: on`` or ``proxy: readonly`` wants one."""

    config: Config
    notes: tuple[Note, ...]


@dataclass(frozen=True, slots=True)
class Refused:
    """Print *lines* on stderr and exit with *exit_code*."""

    exit_code: int
    lines: tuple[str, ...]


Command = RunServer | ShowHelp | ShowVersion | CheckConfig | RunTool | RunGateway | RunGrpcProxy | RunOldProxy | Refused


@dataclass(frozen=True, slots=True)
class Report:
    """What check-config found: print *lines* on stdout and exit with *exit_code*."""

    exit_code: int
    lines: tuple[str, ...]


def parse(arguments: Sequence[str], environ: Mapping[str, str], machine: Machine = THIS_MACHINE) -> Command:
    """Return what *arguments* (without the program's name) and *environ* ask for; never raises on what they hold."""
    if arguments and arguments[0] == HELP:
        about = [each for each in arguments if each != HELP]
        arguments = [*about, "--help"] if about else ["--help"]
    word = arguments[0] if arguments else ""
    if word == VERSION_FLAG and len(arguments) == 1:
        return ShowVersion()
    if word == CHECK_CONFIG:
        return _check_config_command(arguments[1:])
    if word == GATEWAY:
        return RunGateway(tuple(arguments[1:]))
    if word == GRPC_PROXY:
        return RunGrpcProxy(tuple(arguments[1:]))
    if word in TOOL_NAMES:
        return RunTool(word, tuple(arguments[1:]))
    flags = read_flags(arguments)
    if flags.help_wanted:
        return ShowHelp(help_text())
    if not flags.faults and SWITCH.from_text(flags.by_name.get(VERSION_FLAG, "false")):
        return ShowVersion()
    try:
        loaded = load(flags, environ, machine)
    except ConfigRefused as refused:
        lines = tuple(str(fault) for fault in refused.faults)
        if refused.exit_code == EXIT_SYNTAX:
            lines += tuple(USAGE.splitlines())
        elif word and not word.startswith("-"):
            lines += ("'actcd --help' names the commands and flags",)
        return Refused(refused.exit_code, lines)
    if loaded.config.own.proxy != "off":
        return RunOldProxy(loaded.config, loaded.notes)
    return RunServer(loaded.config, loaded.notes)


def check_config(command: CheckConfig, machine: Machine = THIS_MACHINE) -> Report:
    """Read the file as a start would, and report every fault and note; touches the data directory only to look."""
    from daemon.extensions import ExtensionsRefused, find_extensions  # noqa: PLC0415 - other commands need none of it
    from daemon.security import check_files  # noqa: PLC0415 - see above
    from net.tls import TlsConfigurationError  # noqa: PLC0415 - see above

    try:
        loaded = load_file(command.path, machine)
        founds = identify(loaded.config.member.data_dir).content in {Content.EMPTY, Content.OTHER}
        is_member = loaded.config.own.proxy == "off"  # else a proxy is started, which is in no cluster
        if founds and is_member and (faults := bootstrap_refusals(loaded.config, resolve)):
            raise ConfigRefused(faults)  # noqa: TRY301 - reported like the others
        find_extensions(loaded.config.own.extensions)
        check_files(loaded.config)
    except ConfigRefused as refused:
        return Report(EXIT_REFUSED, tuple(f"error: {fault}" for fault in refused.faults))
    except (ExtensionsRefused, DataDirectoryRefused, TlsConfigurationError) as refused:
        return Report(EXIT_REFUSED, (f"error: {refused}",))
    notes = tuple(f"{note.level}: {note}" for note in loaded.notes)
    return Report(0, (*notes, f"{command.path}: the configuration can be used"))


def _check_config_command(rest: Sequence[str]) -> Command:
    usage = "usage: actcd check-config FILE"
    if tuple(rest) in {("--help",), ("-h",)}:
        return ShowHelp(f"{usage}\n\nReads the file as a start would, and names every fault and doubt in it.")
    if len(rest) != 1 or rest[0].startswith("-"):
        return Refused(EXIT_SYNTAX, (usage,))
    return CheckConfig(rest[0])
