"""A data directory of one server made into one of the other: from etcd to actcd and back.

Log and snapshot files have one format, so they are copied as they are; the store is written anew, as LevelDB or as
bbolt file.  The result is checked as a start would check it, and appears under its name only when it is whole.  Ids
stay, so a member can come back to its cluster as the other server.
"""

from __future__ import annotations

import os
import shutil
from contextlib import closing
from typing import TYPE_CHECKING, NamedTuple

from core.membership.version import MalformedVersion, Version
from core.mvcc.keyspace import Bucket
from core.mvcc.store import Store
from core.types import Index, Term
from core.version import CLUSTER_VERSION
from daemon.data_directory import DIRECTORY_MODE
from storage.bbolt.export import STORAGE_VERSION, export
from storage.bbolt.load import import_into
from storage.leveldb import open_leveldb
from wal.filesystem import PosixFileSystem
from wal.log import WriteAheadLog, exists, valid_snapshots
from wal.snapshots import Snapshots

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from wal.codec import Metadata

_CLUSTER_VERSION = b"clusterVersion"
_SNAPSHOT_FILES = ("*.snap", "*.snap.db")


class NotConvertible(Exception):  # noqa: N818 - named for what was found
    """A data directory cannot become one of the other server; the text is for the operator."""


class Converted(NamedTuple):
    """What was made."""

    metadata: Metadata
    revision: int
    applied_index: int
    last_index: int


def to_actcd(
    data_dir: Path, wal_dir: Path, output: Path, progress: Callable[[str, int], None], *, force: bool = False
) -> Converted:
    """Make *output*, a data directory of actcd, from that of an etcd which does not run.

    With *force* also from one of a newer version than ours.  Raises NotConvertible, BoltError, StorageError, WalError,
    OSError, and leaves nothing then.
    """

    def fill(member: Path) -> Store:
        backend = open_leveldb(member / "db")
        with closing(backend):
            import_into(data_dir / "member" / "snap" / "db", backend, progress)
            store = Store.open(backend)
            if not force:
                _refuse_newer(store)
            return store

    return _convert(data_dir, wal_dir, output, fill)


def to_etcd(store: Store, data_dir: Path, wal_dir: Path, output: Path) -> Converted:
    """Make *output*, a data directory of etcd 3.5 or later, from ours, whose *store* is open for reading.

    Raises and leaves nothing as to_actcd() does.
    """

    def fill(member: Path) -> Store:
        export(store.view(), member / "snap" / "db")
        return store

    return _convert(data_dir, wal_dir, output, fill)


def _convert(data_dir: Path, wal_dir: Path, output: Path, fill: Callable[[Path], Store]) -> Converted:
    fs = PosixFileSystem()
    if output.exists():
        raise NotConvertible(f"{output} exists: choose another directory to make")
    if not exists(wal_dir, fs):
        raise NotConvertible(f"{wal_dir} holds no log: where it lies elsewhere, name it with --wal-dir")
    building = output.with_name(f"{output.name}.part")
    if building.exists():
        raise NotConvertible(f"{building} exists, from an attempt that did not end: remove it first")
    try:
        member = building / "member"
        for path in (building, member, member / "snap", member / "wal"):
            path.mkdir(mode=DIRECTORY_MODE, parents=path is building)
        for path in sorted(wal_dir.glob("*.wal")):
            shutil.copy2(path, member / "wal" / path.name)
        for pattern in _SNAPSHOT_FILES:
            for path in sorted((data_dir / "member" / "snap").glob(pattern)):
                shutil.copy2(path, member / "snap" / path.name)
        store = fill(member)
        converted = _checked(member, store)
        _sync_tree(building)
        building.rename(output)
        _sync(output.parent)
    except BaseException:
        shutil.rmtree(building, ignore_errors=True)
        raise
    return converted


def _refuse_newer(store: Store) -> None:
    """Refuse data that a newer release may have written things into which we would not understand."""
    for name, bucket, key in (
        ("storage", Bucket.META, STORAGE_VERSION),
        ("cluster", Bucket.CLUSTER, _CLUSTER_VERSION),
    ):
        text = (store.bucket_get(bucket, key) or b"").decode(errors="replace")
        try:
            newer = bool(text) and Version.parse(text).release > Version.parse(CLUSTER_VERSION).release
        except MalformedVersion:
            newer = True
        if newer:
            ours = Version.parse(CLUSTER_VERSION)
            raise NotConvertible(
                f"its {name} version is {text}, newer than {ours.major}.{ours.minor}, which actcd knows: take its "
                f"cluster down to {ours.major}.{ours.minor} first (etcdctl downgrade, etcdutl migrate), restore a "
                "snapshot instead (actcd snapshot restore), or use --force"
            )


def _checked(member: Path, store: Store) -> Converted:
    """Read log and snapshots as a start does, and see that they belong with the store."""
    fs = PosixFileSystem()
    newest = Snapshots(member / "snap", fs, 0).newest(valid_snapshots(member / "wal", fs))
    start = (newest.metadata.index, newest.metadata.term) if newest else (Index(0), Term(0))
    wal, replay = WriteAheadLog.open(member / "wal", fs, start)
    wal.close()
    last = replay.entries[-1].index if replay.entries else start[0]
    if not start[0] <= store.applied_index <= last:
        raise NotConvertible(
            f"the store has applied entries up to {store.applied_index}, but the log holds {start[0] + 1} to {last}: "
            "they do not belong together, or the store is one that was received and not yet taken over; start the "
            "server once and stop it, then try again"
        )
    return Converted(replay.metadata, store.revision, store.applied_index, last)


def _sync_tree(folder: Path) -> None:
    for path in (folder, *folder.rglob("*")):
        _sync(path)


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
