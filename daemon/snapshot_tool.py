"""The command `actcd snapshot save|status|restore`: flags in, lines and an exit code out.

Flags, formats and exit codes are those of etcdctl and etcdutl.  What a command does is in daemon/snapshot_save.py,
storage/bbolt/status.py and daemon/restore.py; nothing here touches a snapshot.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

from config.durations import parse_duration_s
from config.faults import BadValue
from config.urls import parse_initial_cluster, parse_urls
from daemon.restore import RestoreOptions, RestoreRefused, restore
from daemon.snapshot_save import SaveFailed, SaveOptions, save
from storage.bbolt.pages import BoltError
from storage.bbolt.status import read_status
from storage.schema import StorageError
from wal.errors import WalError
from wal.filesystem import PosixFileSystem

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from storage.bbolt.status import Status

EXIT_FAILED = 1
EXIT_BAD_ARGUMENTS = 128
DEFAULT_NAME = "default"
DEFAULT_PEER_URLS = "http://localhost:2380"
DEFAULT_ENDPOINT = "127.0.0.1:2379"
PROGRESS_INTERVAL_S = 2.0

_SWITCHES = ("skip-hash-check", "mark-compacted")
_SIZE_UNITS = ("B", "kB", "MB", "GB", "TB", "PB", "EB")


class BadArguments(Exception):  # noqa: N818 - named for what was given
    """The command line makes no sense; the text says why."""


def run(arguments: Sequence[str]) -> int:
    """Do what the *arguments* behind the word `snapshot` ask for, and return the exit code."""
    try:
        parsed = _parse(arguments)
        parsed.run(parsed)
    except (BadArguments, BadValue) as error:
        return _failed(error, EXIT_BAD_ARGUMENTS)
    except (BoltError, RestoreRefused, SaveFailed, StorageError, WalError) as error:
        return _failed(error, EXIT_FAILED)
    except OSError as error:
        return _failed(f"{error.filename}: {error.strerror}" if error.filename else error, EXIT_FAILED)
    return 0


class Progress:
    """Says on stderr, every few seconds, how far a long command has come."""

    def __init__(self, clock_s: Callable[[], float], write: Callable[[str], object]) -> None:
        self._clock_s = clock_s
        self._write = write
        self._said_s = clock_s()

    def __call__(self, what: str, count: int) -> None:
        """Take note that *count* of *what* are done."""
        now_s = self._clock_s()
        if now_s - self._said_s >= PROGRESS_INTERVAL_S:
            self._said_s = now_s
            self._write(f"{count} {what} so far\n")


def shown(status: Status, how: str) -> str:
    """Return *status* as etcdutl prints it: simple, json, fields or table."""
    if how == "json":
        named = {
            "hash": status.hash,
            "revision": status.revision,
            "totalKey": status.key_count,
            "totalSize": status.size_bytes,
            "version": status.version,
        }
        return json.dumps(named, separators=(",", ":"))
    if how == "fields":
        names = ("Hash", "Revision", "Keys", "Size", "Version")
        values = (*status[:4], json.dumps(status.version))
        return "\n".join(f'"{name}" : {value}' for name, value in zip(names, values, strict=True))
    row = (
        f"{status.hash:x}",
        str(status.revision),
        str(status.key_count),
        human_size(status.size_bytes),
        status.version,
    )
    if how == "table":
        return _table(("HASH", "REVISION", "TOTAL KEYS", "TOTAL SIZE", "VERSION"), row)
    return ", ".join(row)


def human_size(size_bytes: int) -> str:
    """Return a size as people read it, in steps of 1000 and two digits where there is one before the point."""
    size = float(size_bytes)
    unit = 0
    while size >= 1000 and unit < len(_SIZE_UNITS) - 1:
        size /= 1000
        unit += 1
    digits = f"{size:.1f}" if unit and size < 9.95 else f"{size:.0f}"
    return f"{digits} {_SIZE_UNITS[unit]}"


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise BadArguments(message)


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(prog="actcd snapshot", allow_abbrev=False, description="Save, inspect or restore a snapshot.")
    commands = parser.add_subparsers(parser_class=_Parser, metavar="save|status|restore")
    saving = commands.add_parser("save", allow_abbrev=False, help="fetch a snapshot from a running member")
    saving.add_argument("filename", type=Path)
    saving.add_argument("--endpoints", default=DEFAULT_ENDPOINT, help="the one member to fetch from")
    for name in ("cacert", "cert", "key"):
        saving.add_argument(f"--{name}", default="", help="path of a PEM file, for TLS")
    saving.add_argument("--user", default="", help="name, or name:password")
    saving.add_argument("--password", default="")
    saving.add_argument("--dial-timeout", type=_duration, default=2.0, help="how long to wait for the connection")
    saving.add_argument(
        "--command-timeout", type=_duration, default=None, help="how long it may take; no limit if unset"
    )
    saving.set_defaults(run=_save)
    status = commands.add_parser("status", allow_abbrev=False, help="check a snapshot and say what it holds")
    status.add_argument("filename", type=Path)
    status.add_argument("-w", "--write-out", choices=("simple", "json", "fields", "table"), default="simple")
    status.set_defaults(run=_status)
    restoring = commands.add_parser("restore", allow_abbrev=False, help="make a data directory from a snapshot")
    restoring.add_argument("filename", type=Path)
    restoring.add_argument("--data-dir", default="", help="directory to make; NAME.etcd if not given")
    restoring.add_argument("--wal-dir", default="", help="WAL directory to make; DATA-DIR/member/wal if not given")
    restoring.add_argument("--name", default=DEFAULT_NAME, help="name of this member")
    restoring.add_argument("--initial-cluster", default=f"{DEFAULT_NAME}={DEFAULT_PEER_URLS}")
    restoring.add_argument("--initial-cluster-token", default="etcd-cluster")
    restoring.add_argument("--initial-advertise-peer-urls", default=DEFAULT_PEER_URLS)
    restoring.add_argument("--skip-hash-check", help="take a file without a hash, such as a copied database")
    restoring.add_argument("--bump-revision", type=int, default=0, help="how much to raise the revision")
    restoring.add_argument("--mark-compacted", help="compact all below the raised revision (needed with a bump)")
    restoring.add_argument("--initial-memory-map-size", default="", help="tunes bbolt; has no effect here")
    restoring.set_defaults(run=_restore)
    return parser


def _parse(arguments: Sequence[str]) -> argparse.Namespace:
    parsed = _parser().parse_args(_with_values(arguments))
    if "run" not in parsed:
        raise BadArguments("one of save, status and restore is needed; see 'actcd snapshot --help'")
    return parsed


def _with_values(arguments: Sequence[str]) -> list[str]:
    """Return the arguments with single dashes of long flags doubled and "=true" behind switches, as Go allows both."""
    normal: list[str] = []
    for argument in arguments:
        name = argument.lstrip("-")
        dashed = argument.startswith("-") and len(name) > 1
        text = f"--{name}" if dashed and not argument.startswith(("--", "-w")) else argument
        normal.append(f"{text}=true" if dashed and name in _SWITCHES else text)
    return normal


def _save(parsed: argparse.Namespace) -> None:
    if "," in parsed.endpoints:
        raise BadArguments("snapshot must be requested to one selected node, not multiple ones: give one endpoint")
    user, _, password = parsed.user.partition(":")
    options = SaveOptions(
        path=parsed.filename,
        endpoint=parsed.endpoints,
        cacert=parsed.cacert,
        cert=parsed.cert,
        key=parsed.key,
        user=user,
        password=parsed.password or password,
        dial_timeout_s=parsed.dial_timeout,
        command_timeout_s=parsed.command_timeout,
    )
    version = save(options, Progress(time.monotonic, sys.stderr.write))
    _print(f"Snapshot saved at {parsed.filename}")
    if version:
        _print(f"Server version {version}")


def _status(parsed: argparse.Namespace) -> None:
    _print(shown(read_status(parsed.filename), parsed.write_out))


def _restore(parsed: argparse.Namespace) -> None:
    marked = _switch("mark-compacted", parsed.mark_compacted)
    if parsed.bump_revision < 0 or bool(parsed.bump_revision) != marked:
        raise BadArguments("--mark-compacted required if --bump-revision > 0")
    data_dir = Path(parsed.data_dir or f"{parsed.name}.etcd")
    options = RestoreOptions(
        snapshot=parsed.filename,
        name=parsed.name,
        data_dir=data_dir,
        wal_dir=Path(parsed.wal_dir) if parsed.wal_dir else data_dir / "member" / "wal",
        initial_cluster=parse_initial_cluster(parsed.initial_cluster),
        initial_cluster_token=parsed.initial_cluster_token,
        initial_advertise_peer_urls=parse_urls(parsed.initial_advertise_peer_urls),
        skip_hash_check=_switch("skip-hash-check", parsed.skip_hash_check),
        revision_bump=parsed.bump_revision,
    )
    restored = restore(options, PosixFileSystem(), Progress(time.monotonic, sys.stderr.write))
    _print(
        f"restored {parsed.filename} to {data_dir}: member {restored.member_id:x} of cluster {restored.cluster_id:x}, "
        f"{restored.key_count} keys, {restored.lease_count} leases, revision {restored.revision}"
    )
    for note in restored.notes:
        sys.stderr.write(f"note: {note}\n")


def _switch(name: str, text: str | None) -> bool:
    if text not in {None, "true", "false", "1", "0"}:
        raise BadArguments(f'invalid argument "{text}" for "--{name}" flag: true or false is needed')
    return text in {"true", "1"}


def _duration(text: str) -> float:
    try:
        return parse_duration_s(text)
    except BadValue as error:
        raise argparse.ArgumentTypeError(str(error)) from error


def _table(names: tuple[str, ...], row: tuple[str, ...]) -> str:
    widths = [max(len(name), len(value)) for name, value in zip(names, row, strict=True)]
    line = "+" + "+".join("-" * (width + 2) for width in widths) + "+"
    head = "|" + "|".join(f" {name:^{width}} " for name, width in zip(names, widths, strict=True)) + "|"
    body = "|" + "|".join(f" {value:>{width}} " for value, width in zip(row, widths, strict=True)) + "|"
    return f"{line}\n{head}\n{line}\n{body}\n{line}"


def _print(text: str) -> None:
    sys.stdout.write(f"{text}\n")


def _failed(error: object, exit_code: int) -> int:
    sys.stderr.write(f"Error: {error}\n")
    return exit_code
