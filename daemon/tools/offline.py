"""A member's data looked at, or worked on, while the member does not run.

Finds what lies at a path (an actcd data directory or its store, an etcd data directory or its bbolt file, a snapshot),
keeps others out of it meanwhile, and opens it.  Whoever only reads leaves every byte as it was: LevelDB writes when it
is opened, so it is given a folder of its own, with links to the tables and copies of the rest.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import time
from contextlib import closing, contextmanager
from enum import Enum
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, NamedTuple

import plyvel

from core.mvcc.store import Store
from daemon.tools.commands import duration_option
from storage.bbolt.load import import_into
from storage.leveldb import open_leveldb
from storage.schema import StorageError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from daemon.tools.output import Progress

LOCK_TIMEOUT = duration_option("timeout", "How long to wait for whoever uses the data; 0 waits for ever", 2.0)
_POLL_S = 0.05
_NEVER_CHANGED = (".ldb", ".sst")
"""LevelDB's tables: written once, then only read or removed."""
_ITS_OWN = frozenset({"LOCK", "LOG", "LOG.old"})


class NotUsable(Exception):  # noqa: N818 - named for what was found
    """What lies at a path cannot be used for this; the text is for the operator."""


class Kind(Enum):
    """What holds the keys."""

    LEVELDB = "LevelDB store"
    BBOLT = "bbolt file"


class Place(NamedTuple):
    """Where keys are stored."""

    kind: Kind
    store: Path
    data_dir: Path | None
    """The data directory that it belongs to; None for a file or a store of its own."""


def find(path: Path) -> Place:
    """Return what lies at *path*; raises NotUsable, OSError."""
    if path.is_file():
        return Place(Kind.BBOLT, path, None)
    if not path.is_dir():
        raise NotUsable(f"there is nothing at {path}")
    if (path / "member" / "db" / "CURRENT").exists():
        return Place(Kind.LEVELDB, path / "member" / "db", path)
    if (path / "member" / "snap" / "db").is_file():
        return Place(Kind.BBOLT, path / "member" / "snap" / "db", path)
    if (path / "CURRENT").exists():
        data_dir = path.parent.parent if path.resolve().match("member/db") else None
        return Place(Kind.LEVELDB, path, data_dir)
    raise NotUsable(f"{path} is neither a data directory of actcd or etcd nor a store of one")


def find_member(data_dir: str, kind: Kind, advice: str = "") -> Place:
    """Return the store of the data directory *data_dir*, which must be of that *kind*; raises NotUsable, OSError.

    *advice* is what to do with one of the other kind.
    """
    place = find(Path(data_dir))
    if place.data_dir is None:
        raise NotUsable(f"{data_dir} is no data directory: that has a folder 'member'")
    if place.kind is not kind:
        whose = "actcd" if place.kind is Kind.LEVELDB else "etcd"
        raise NotUsable(f"{data_dir} is {whose}'s: its store is the {place.kind.value} {place.store}{advice}")
    return place


@contextmanager
def kept(place: Place, timeout_s: float, *, change: bool = False) -> Iterator[None]:
    """Keep members, and tools that change things, away from *place* meanwhile.

    Waits up to *timeout_s* (0: for ever) for one who has it, then raises NotUsable.  Writes nothing, unless *change*.
    """
    path = place.store
    if place.kind is Kind.LEVELDB:
        path = (place.data_dir or place.store) / ("member/lock" if place.data_dir else "LOCK")
    try:
        descriptor = os.open(path, (os.O_RDWR | os.O_CREAT if change else os.O_RDONLY) | os.O_CLOEXEC, 0o600)
    except FileNotFoundError:  # nobody has ever had it
        yield
        return
    try:
        _lock(descriptor, place, timeout_s, fcntl.LOCK_EX if change else fcntl.LOCK_SH)
        yield
    finally:
        os.close(descriptor)


def _lock(descriptor: int, place: Place, timeout_s: float, how: int) -> None:
    deadline_s = time.monotonic() + timeout_s
    while True:
        try:
            fcntl.flock(descriptor, how | fcntl.LOCK_NB)
        except BlockingIOError as error:
            if timeout_s and time.monotonic() >= deadline_s:
                raise NotUsable(
                    f"{place.data_dir or place.store} is in use by another process: stop that first, or wait longer "
                    "with --timeout"
                ) from error
            time.sleep(_POLL_S)
        else:
            return


@contextmanager
def opened(place: Place, progress: Progress) -> Iterator[Store]:
    """Open what *place* holds without changing a byte of it; raises StorageError, BoltError, OSError.

    A bbolt file is first read into a store in the folder for temporary files.
    """
    with TemporaryDirectory(prefix="actcd-") as folder:
        directory = Path(folder) / "db"
        if place.kind is Kind.LEVELDB:
            _shadow(place.store, directory)
        try:
            with closing(open_leveldb(directory)) as backend:
                if place.kind is Kind.BBOLT:
                    import_into(place.store, backend, progress)
                yield Store.open(backend)
        except StorageError as error:
            raise StorageError(str(error).replace(str(directory), str(place.store))) from error
        except plyvel.Error as error:
            raise StorageError(f"the store in {place.store} is damaged: {error}; restore it from a snapshot") from error


def _shadow(source: Path, target: Path) -> None:
    target.mkdir()
    for entry in os.scandir(source):
        if entry.name.endswith(_NEVER_CHANGED):
            (target / entry.name).symlink_to(Path(entry.path).resolve())
        elif entry.name not in _ITS_OWN and entry.is_file():
            shutil.copyfile(entry.path, target / entry.name)
