"""The data directory: what is in it, whether we may use it, and that nobody else does meanwhile.

Owns the layout (``member/wal``, ``member/snap``, ``member/db``, ``member/lock``), permissions and the lock; knows
nothing of what the files hold.  Each refusal is a sentence that says what to do.  Spec: etcd's data directory, except
that member/db is a LevelDB where etcd keeps a bbolt file in member/snap/db.
"""

from __future__ import annotations

import fcntl
import json
import os
import stat
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import Protocol
from urllib.parse import urlsplit

DIRECTORY_MODE = 0o700
FILE_MODE = 0o600


class Log(Protocol):
    """The part of a logger that is used here."""

    def warning(self, event: str, **fields: object) -> object:
        """Write a warning."""


class DataDirectoryRefused(Exception):  # noqa: N818 - named for what happened
    """A data directory that actcd will not use; its text is for the operator."""


class Content(Enum):
    """What a data directory holds."""

    EMPTY = "empty"
    """Nothing, or it does not exist yet."""
    MEMBER = "member"
    PROXY = "proxy"
    OTHER = "other"
    """Only files that are not ours, which stay as they are."""


@dataclass(frozen=True, slots=True)
class Identified:
    """What was found, with the names that do not belong there."""

    content: Content
    unknown: tuple[str, ...] = ()


@dataclass(slots=True)
class DataDirectory:
    """A data directory that is ours until close."""

    path: Path
    wal: Path
    content: Content
    """What it held before it was taken."""
    _lock_descriptor: int

    @property
    def member(self) -> Path:
        """Where everything of the member lies."""
        return self.path / "member"

    @property
    def snap(self) -> Path:
        """Raft's snapshot files."""
        return self.member / "snap"

    @property
    def db(self) -> Path:
        """The LevelDB; whoever opens it creates it."""
        return self.member / "db"

    def close(self) -> None:
        """Give up the lock; harmless when repeated."""
        if self._lock_descriptor >= 0:
            os.close(self._lock_descriptor)
            self._lock_descriptor = -1


def identify(path: str | Path) -> Identified:
    """Say what *path* holds, without changing it; raises DataDirectoryRefused where it can be no data directory."""
    root = Path(path)
    try:
        names = sorted(entry.name for entry in root.iterdir())
    except FileNotFoundError:
        return Identified(Content.EMPTY)
    except OSError as error:
        raise DataDirectoryRefused(f"cannot read the data directory {root}: {error.strerror}") from error
    unknown = tuple(name for name in names if name not in {"member", "proxy", "fixtures"})
    if "member" in names and "proxy" in names:
        raise DataDirectoryRefused(f"invalid datadir; both member and proxy directories exist: {root}")
    if "member" in names:
        _refuse_bbolt(root)
        return Identified(Content.MEMBER, unknown)
    if "proxy" in names:
        return Identified(Content.PROXY, unknown)
    return Identified(Content.OTHER if unknown else Content.EMPTY, unknown)


def take(path: str | Path, wal_dir: str | Path, log: Log) -> DataDirectory:
    """Create what is missing and lock the directory; raises DataDirectoryRefused where it cannot be ours.

    The lock ends with close or with the process, however it ends.
    """
    root, wal = Path(path), Path(wal_dir)
    found = identify(root)
    if found.content is Content.PROXY:
        raise DataDirectoryRefused(
            f"the data directory {root} is a proxy's: v2 http proxy has already been deprecated in 3.6. Start `actcd "
            f"grpc-proxy start --endpoints={_members_known_to(root / 'proxy')}` in its place, which needs no data "
            "directory, or choose another --data-dir for a member"
        )
    for name in found.unknown:
        log.warning("found invalid file under data directory", filename=name, data_dir=str(root))
    for directory in (root, root / "member", root / "member" / "snap", wal):
        _create(directory, log)
    return DataDirectory(root, wal, found.content, _lock(root))


def _refuse_bbolt(root: Path) -> None:
    if (root / "member" / "snap" / "db").is_file():
        raise DataDirectoryRefused(
            f"the data directory {root} was written by etcd (its store is the bbolt file member/snap/db); "
            "migration is not supported yet, so choose another --data-dir"
        )


def _members_known_to(proxy: Path) -> str:
    """Return the members' hosts that an old proxy has noted, with the port at which they most likely serve clients."""
    try:
        urls = json.loads((proxy / "cluster").read_bytes())["PeerURLs"]
        hosts = dict.fromkeys(urlsplit(url).hostname for url in urls)
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
        hosts = {}
    return ",".join(f"[{host}]:2379" if ":" in host else f"{host}:2379" for host in hosts if host) or "HOST:2379"


def _create(directory: Path, log: Log) -> None:
    try:
        directory.mkdir(mode=DIRECTORY_MODE, parents=True)
    except FileExistsError:
        pass
    except OSError as error:
        raise DataDirectoryRefused(f"cannot create the directory {directory}: {error.strerror}") from error
    else:
        return
    if not directory.is_dir():
        raise DataDirectoryRefused(f"{directory} is needed as a directory, but it is a file")
    mode = stat.S_IMODE(directory.stat().st_mode)
    if mode != DIRECTORY_MODE:
        log.warning("directory has another mode than recommended", path=str(directory), mode=f"{mode:o}")


def _lock(root: Path) -> int:
    path = root / "member" / "lock"
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, FILE_MODE)
    except OSError as error:
        raise DataDirectoryRefused(f"cannot open the lock file {path}: {error.strerror}") from error
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        os.close(descriptor)
        raise DataDirectoryRefused(
            f"the data directory {root} is in use by another process; stop it or choose another --data-dir"
        ) from error
    return descriptor
