"""Flags, environment and file to one Config, or to every fault at once.

Owns precedence (a file shuts out flags and variables; a flag and its variable exclude each other), the order of
reading, checking and deriving, and etcd's words for values that cannot be read.  What a setting is stands in schema.py,
rules between settings in refusals.py.  Touches files and the network only through the Machine that is handed in.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import Enum
from typing import TYPE_CHECKING, Any, NamedTuple

from config.durations import format_duration
from config.faults import EXIT_SYNTAX, BadValue, ConfigRefused, Fault
from config.file import read_file
from config.flags import CONFIG_FILE_FLAG, VERSION_FLAG, Texts, read_variables, variable_of
from config.notes import Note
from config.refusals import refusals, warnings
from config.retired import RETIRED, RETIRED_FILE_KEYS, RETIRED_FLAGS
from config.schema import BY_NAME, DECLARED, DEFAULT_CLIENT_URLS, DEFAULT_NAME, DEFAULT_PEER_URLS, SECTION_TYPES, Config
from config.urls import InitialMember, Url, parse_url

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from config.setting import Setting

WATCH_PROGRESS_INTERVAL_S_MIN = 0.1
"""Etcd's: progress notices more often than this would only make work."""

PEER_TIMEOUT_S_MIN = 5.0
"""Etcd's, which says that it lives every third of it."""

_ANY_ADDRESS = "0.0.0.0"  # noqa: S104 - compared with, never bound to


@dataclass(frozen=True, slots=True)
class Machine:
    """What loading needs of the machine."""

    read_text: Callable[[str], str]
    """Returns a file's text; raises OSError or UnicodeDecodeError."""
    default_host: Callable[[], str | None]
    """Returns the address that others most likely reach this machine at, if there is one."""


@dataclass(frozen=True, slots=True)
class Loaded:
    """A configuration to run with, and what to tell its reader."""

    config: Config
    notes: tuple[Note, ...]


class Origin(Enum):
    """Where a value was given."""

    FLAG = "flag"
    VARIABLE = "variable"
    FILE = "file"


class Given(NamedTuple):
    """One value as it was given."""

    origin: Origin
    key: str
    value: object


def load(flags: Texts, environ: Mapping[str, str], machine: Machine) -> Loaded:
    """Return the configuration, or raise ConfigRefused with every fault of all its sources."""
    path = flags.by_name.get(CONFIG_FILE_FLAG) or environ.get(variable_of(CONFIG_FILE_FLAG), "")
    if path:
        loaded = _file_loaded(path, machine, flags.faults)
        text = "the configuration file alone counts; flags and environment variables are ignored"
        return replace(loaded, notes=(Note("info", text, {"path": path}), *loaded.notes))
    variables = read_variables(environ, flags.by_name)
    given = {name: Given(Origin.VARIABLE, variable_of(name), text) for name, text in variables.by_name.items()}
    given |= {name: Given(Origin.FLAG, f"--{name}", text) for name, text in flags.by_name.items()}
    given = {name: each for name, each in given.items() if name not in {VERSION_FLAG, CONFIG_FILE_FLAG}}
    return _finish(given, machine, flags.faults + variables.faults, variables.notes)


def load_file(path: str, machine: Machine) -> Loaded:
    """Return the configuration in the file at *path*, or raise ConfigRefused with every fault."""
    return _file_loaded(path, machine, ())


def _file_loaded(path: str, machine: Machine, faults: tuple[Fault, ...]) -> Loaded:
    try:
        text = machine.read_text(path)
    except OSError as error:
        reason = (error.strerror or str(error)).lower()
        raise ConfigRefused((*faults, Fault("--config-file", path, f"open {path}: {reason}"))) from error
    except ValueError as error:
        raise ConfigRefused((*faults, Fault("--config-file", path, f"the file is not UTF-8 text: {error}"))) from error
    values = read_file(text)
    given = {
        name: Given(Origin.FILE, (BY_NAME[name].setting.file_key or name) if name in BY_NAME else name, value)
        for name, value in values.by_name.items()
    }
    return _finish(given, machine, faults + values.faults, values.notes)


def _finish(given: dict[str, Given], machine: Machine, faults: Iterable[Fault], notes: Iterable[Note]) -> Loaded:
    all_faults, all_notes = list(faults), list(notes)
    _lead_to_successors(given, all_faults, all_notes)
    values: dict[str, Any] = {}
    unreadable: set[str] = set()
    for name, each in given.items():
        setting = BY_NAME[name].setting
        if each.origin is Origin.FILE and each.value == "" and setting.kind.empty_is_unset:
            continue
        try:
            values[name] = value = _read(setting, each)
        except BadValue as error:
            all_faults.append(_unreadable(setting, each, str(error)))
            unreadable.add(name)
            continue
        all_faults.extend(_value_faults(setting, each, value))
        if setting.note is not None and value != setting.default:
            all_notes.append(Note("warning", setting.note, {"key": each.key}))
    config = _derive(_build(values), machine, all_notes)
    explicit = [name for name, each in given.items() if each.origin is not Origin.FILE]
    all_faults.extend(refusals(config, explicit, unreadable))
    if all_faults:
        raise ConfigRefused(tuple(all_faults))
    return Loaded(config, (*all_notes, *warnings(config)))


def _lead_to_successors(given: dict[str, Given], faults: list[Fault], notes: list[Note]) -> None:
    """Replace every retired name in *given* by the setting that took its place."""
    for retired in RETIRED:
        known = RETIRED_FILE_KEYS if retired.file_only else RETIRED_FLAGS
        each = given.get(retired.name)
        if each is None or retired.name not in known or (retired.file_only and each.origin is not Origin.FILE):
            continue
        del given[retired.name]
        if retired.refuses(each.value):
            faults.append(Fault(each.key, str(each.value), f"{retired.name} is not supported: {retired.reason}"))
            continue
        fields: Mapping[str, object] = {"key": each.key, "reason": retired.reason}
        notes.append(Note("warning", "a retired name is used", fields))
        value = retired.carry(each.value)
        if retired.successor is None or value is None:
            continue
        newer = given.get(retired.successor)
        if newer is None:
            given[retired.successor] = Given(each.origin, each.key, value)
        elif retired.successor == "feature-gates":
            given[retired.successor] = newer._replace(value=f"{value},{newer.value}")  # the later one counts
        else:
            notes.append(Note("warning", "a retired name is ignored, since its successor is set too", fields))


def _read(setting: Setting, each: Given) -> object:
    if each.origin is Origin.FILE:
        return setting.kind.from_file(each.value)
    assert isinstance(each.value, str), each
    return setting.kind.from_text(each.value)


def _unreadable(setting: Setting, each: Given, rule: str) -> Fault:
    if setting.secret:
        return Fault(each.key, None, f"cannot be read as {setting.kind.name}")
    shown = str(each.value)
    if each.origin is Origin.FILE:
        if setting.kind.name == "URLs":
            rule = f"unexpected error setting up {each.key}: {rule}"
        return Fault(each.key, shown, rule)
    if each.origin is Origin.VARIABLE:
        return Fault(each.key, shown, f'invalid value "{shown}" for {each.key}: {rule}')
    flag = each.key.removeprefix("-")
    if setting.kind.is_switch:
        return Fault(each.key, shown, f'invalid boolean value "{shown}" for {flag}: {rule}', EXIT_SYNTAX)
    return Fault(each.key, shown, f'invalid value "{shown}" for flag {flag}: {rule}', EXIT_SYNTAX)


def _value_faults(setting: Setting, each: Given, value: object) -> Iterable[Fault]:
    shown = None if setting.secret else str(setting.kind.to_text(value))
    rule = setting.check and setting.check(value)
    if rule is not None:
        yield Fault(each.key, shown, rule)


def _build(values: Mapping[str, Any]) -> Config:
    """Return the tree with *values* in their places, and with 0 replaced where 0 stands for something else."""
    sections: dict[str, dict[str, Any]] = {}
    for setting, section, _, attribute in DECLARED:
        value = values.get(setting.name, setting.default)
        if value == 0 and setting.zero_means is not None:
            value = setting.zero_means
        sections.setdefault(section, {})[attribute] = value
    return Config(**{name: SECTION_TYPES[name](**attributes) for name, attributes in sections.items()})


def _derive(config: Config, machine: Machine, notes: list[Note]) -> Config:
    """Fill in what follows from other settings (directories, advertised hosts, the cluster), and keep to limits."""
    member, clustering = config.member, config.clustering
    name = member.name or DEFAULT_NAME
    data_dir = member.data_dir
    if not data_dir:
        data_dir = f"{name}.etcd"
        notes.append(Note("warning", "data-dir was empty, so the default is used", {"data_dir": data_dir}))
    member = replace(member, data_dir=data_dir, wal_dir=member.wal_dir or f"{data_dir}/member/wal")
    peer_urls = _advertised(
        clustering.initial_advertise_peer_urls, DEFAULT_PEER_URLS, member.listen_peer_urls, machine, notes
    )
    client_urls = _advertised(
        clustering.advertise_client_urls, DEFAULT_CLIENT_URLS, member.listen_client_urls, machine, notes
    )
    clustering = replace(clustering, initial_advertise_peer_urls=peer_urls, advertise_client_urls=client_urls)
    discovers = bool(clustering.discovery_srv or clustering.discovery_endpoints or clustering.discovery)
    if not clustering.initial_cluster and not discovers:
        clustering = replace(clustering, initial_cluster=(InitialMember(name, peer_urls),))
    features = config.features
    if features.watch_progress_notify_interval_s < WATCH_PROGRESS_INTERVAL_S_MIN:
        fields = {"key": "watch-progress-notify-interval", "raised_to": format_duration(WATCH_PROGRESS_INTERVAL_S_MIN)}
        notes.append(Note("warning", "the interval is raised to the shortest one that is allowed", fields))
        features = replace(features, watch_progress_notify_interval_s=WATCH_PROGRESS_INTERVAL_S_MIN)
    member = replace(
        member,
        raft_read_timeout_s=_raised("raft-read-timeout", member.raft_read_timeout_s, notes),
        raft_write_timeout_s=_raised("raft-write-timeout", member.raft_write_timeout_s, notes),
    )
    return replace(config, member=member, clustering=clustering, features=features)


def _raised(key: str, timeout_s: float, notes: list[Note]) -> float:
    """Return *timeout_s*, or the shortest timeout between members if that is longer."""
    if timeout_s >= PEER_TIMEOUT_S_MIN:
        return timeout_s
    fields = {"key": key, "raised_to": format_duration(PEER_TIMEOUT_S_MIN)}
    notes.append(Note("info", "the timeout is raised to the shortest one that is allowed", fields))
    return PEER_TIMEOUT_S_MIN


def _advertised(
    advertised: tuple[Url, ...],
    default: tuple[Url, ...],
    listening: tuple[Url, ...],
    machine: Machine,
    notes: list[Note],
) -> tuple[Url, ...]:
    """Return *advertised*, or the machine's address if that is the default while every address is listened on."""
    if advertised != default or listening[0].host != _ANY_ADDRESS:
        return advertised
    host = machine.default_host()
    if host is None:
        return advertised
    notes.append(Note("info", "detected default host for advertise", {"host": host}))
    authority = f"[{host}]" if ":" in host else host
    return (parse_url(f"{advertised[0].scheme}://{authority}:{listening[0].port}"),)
