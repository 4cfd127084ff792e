"""A new member's data directory, made from a snapshot: the last resort after a quorum was lost, or a move from etcd.

The keys, revisions, leases, users and roles are the snapshot's; the members are those given, as a new cluster of its
own.  The log is written last, so that a directory whose making was cut short refuses to start.  Spec: `etcdutl snapshot
restore`.
"""

from __future__ import annotations

import shutil
from contextlib import closing
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from google.protobuf.message import DecodeError

from config.refusals import bootstrap_refusals
from config.schema import Config
from core.alarms.quota import NO_QUOTA
from core.apply.applier import Applier
from core.apply.conf_state import encode_conf_state
from core.apply.header import ResponseHeaders
from core.membership.cluster import cluster_id_of
from core.membership.member import MalformedMember, Member
from core.membership.version import MalformedVersion, Version
from core.mvcc.keyspace import CURRENT, Bucket, history_key, record_key
from core.mvcc.record import tagged
from core.mvcc.store import Store
from core.raft.bootstrap import bootstrap
from core.raft.messages import ConfChange, ConfChangeType, Snapshot, SnapshotMetadata
from core.types import Index
from core.version import CLUSTER_VERSION
from daemon.data_directory import DIRECTORY_MODE
from daemon.machine import resolve
from storage.bbolt.export import STORAGE_VERSION
from storage.bbolt.load import import_into
from storage.bbolt.status import check_trailer
from storage.leveldb import open_leveldb
from wal.codec import Metadata, decode_change, encode_conf_change
from wal.log import WriteAheadLog
from wal.snapshots import Snapshots

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from config.urls import InitialMember, Url
    from core.mvcc.backend import Backend
    from core.raft.bootstrap import Bootstrap
    from wal.filesystem import FileSystem

REVISION_MAX = (1 << 63) - 1
_CLUSTER_VERSION = b"clusterVersion"
_DOWNGRADE = b"downgrade"


class RestoreRefused(Exception):  # noqa: N818 - named for what happened
    """The snapshot cannot be restored as asked; the text is for the operator."""


@dataclass(frozen=True, slots=True)
class RestoreOptions:
    """What is to be restored, and as whom."""

    snapshot: Path
    name: str
    data_dir: Path
    wal_dir: Path
    initial_cluster: tuple[InitialMember, ...]
    initial_cluster_token: str
    initial_advertise_peer_urls: tuple[Url, ...]
    skip_hash_check: bool = False
    revision_bump: int = 0
    """How much higher than the snapshot's newest revision the store starts, all below it compacted; 0: not at all."""


@dataclass(frozen=True, slots=True)
class Restored:
    """What was made."""

    member_id: int
    cluster_id: int
    snapshot_revision: int
    revision: int
    key_count: int
    lease_count: int
    notes: tuple[str, ...]
    """What the operator should know, a sentence each."""


def restore(options: RestoreOptions, fs: FileSystem, progress: Callable[[str, int], None]) -> Restored:
    """Make the data directory, or leave nothing; *progress* is told what is being written and how many of it.

    Raises RestoreRefused, BoltError, StorageError, WalError, OSError.
    """
    _check(options)
    if not options.skip_hash_check:
        check_trailer(options.snapshot)
    made = [path for path in (options.data_dir, options.wal_dir) if not path.exists()]
    try:
        return _restore(options, fs, progress)
    except BaseException:
        for path in (*made, options.data_dir / "member"):
            shutil.rmtree(path, ignore_errors=True)
        raise


def _check(options: RestoreOptions) -> None:
    config = Config()
    config = replace(
        config,
        member=replace(config.member, name=options.name),
        clustering=replace(
            config.clustering,
            initial_cluster=options.initial_cluster,
            initial_cluster_token=options.initial_cluster_token,
            initial_advertise_peer_urls=options.initial_advertise_peer_urls,
        ),
    )
    faults = bootstrap_refusals(config, resolve)
    if faults:
        raise RestoreRefused("; ".join(str(fault) for fault in faults))
    if options.data_dir.exists() and (not options.data_dir.is_dir() or any(options.data_dir.iterdir())):
        raise RestoreRefused(f"data-dir {options.data_dir} is not empty: choose another one, or remove it")
    if options.wal_dir.exists():
        raise RestoreRefused(f"wal-dir {options.wal_dir} exists: choose another one, or remove it")


def _restore(options: RestoreOptions, fs: FileSystem, progress: Callable[[str, int], None]) -> Restored:
    token = options.initial_cluster_token
    members = [Member.new(each.name, [str(url) for url in each.peer_urls], token) for each in options.initial_cluster]
    local = next(member for member in members if member.name == options.name)
    metadata = Metadata(local.id, cluster_id_of([member.id for member in members]))
    start = bootstrap(
        {
            member.id: encode_conf_change(ConfChange(ConfChangeType.ADD_NODE, member.id, context=member.to_json()))
            for member in members
        }
    )
    folder = options.data_dir / "member"
    for path in (options.data_dir, folder, folder / "snap", options.wal_dir.parent):
        path.mkdir(mode=DIRECTORY_MODE, parents=True, exist_ok=True)
    with closing(open_leveldb(folder / "db")) as backend:
        imported = import_into(options.snapshot, backend, progress)
        snapshot_revision = Store.open(backend).revision
        backend.write(_membership_changes(backend, members, start))
        newer_version = _newer_version(backend)
        if newer_version:
            keys = (Bucket.CLUSTER.prefix + _CLUSTER_VERSION, Bucket.CLUSTER.prefix + _DOWNGRADE)
            backend.write([(key, None) for key in (*keys, Bucket.META.prefix + STORAGE_VERSION)])
        if options.revision_bump:
            _raise_revision(backend, snapshot_revision + options.revision_bump)
        applier = _opened(backend, metadata, options.snapshot)
        backend.write([], sync=True)
        restored = Restored(
            metadata.node_id,
            metadata.cluster_id,
            snapshot_revision,
            applier.store.revision,
            applier.store.count(b"\x00", b"\x00"),
            len(applier.leases),
            tuple(_notes(options, applier, imported.unknown_buckets, newer_version)),
        )
        snapshot = applier.raft_snapshot()
    _write_log(options, fs, metadata, start, snapshot.data)
    return restored


def _membership_changes(
    backend: Backend, members: list[Member], start: Bootstrap
) -> Iterator[tuple[bytes, bytes | None]]:
    """Return what makes the store that of the new cluster, as of the last of the entries that its log begins with."""
    for bucket in (Bucket.MEMBERS, Bucket.MEMBERS_REMOVED):
        prefix = bucket.prefix
        for key in backend.scan_keys(prefix, bytes((prefix[0] + 1,))):
            yield key, None
    for member in members:
        yield Bucket.MEMBERS.prefix + member.hex_id.encode(), member.to_json()
    last = start.entries[-1]
    yield Bucket.META.prefix + b"confState", encode_conf_state(start.conf_state)
    yield Bucket.META.prefix + b"consistent_index", last.index.to_bytes(8, "big")
    yield Bucket.META.prefix + b"term", last.term.to_bytes(8, "big")


def _newer_version(backend: Backend) -> str:
    """Return the version of the cluster that the snapshot comes from, if it is newer than what runs here."""
    stored = (backend.get(Bucket.CLUSTER.prefix + _CLUSTER_VERSION) or b"").decode(errors="replace")
    try:
        return stored if stored and Version.parse(stored) > Version.parse(CLUSTER_VERSION) else ""
    except MalformedVersion:
        return stored


def _raise_revision(backend: Backend, revision: int) -> None:
    """Start at *revision*, everything below compacted: clients that saw later revisions than the snapshot's notice.

    The mark is etcdutl's, a record without content, so that members restored by either tool have the same hash.
    """
    if revision > REVISION_MAX:
        raise RestoreRefused(f"the revision cannot be raised to {revision}: the highest is {REVISION_MAX}")
    backend.write([(record_key(revision, 0), b""), (history_key(b"", revision, 0), b""), (CURRENT, tagged(b""))])
    store = Store.open(backend)
    store.begin_compaction(revision)
    store.flush(sync=True)


def _opened(backend: Backend, metadata: Metadata, snapshot: Path) -> Applier:
    """Open the store as a member would at its start: what it cannot read is found here."""
    try:
        headers = ResponseHeaders(metadata.cluster_id, metadata.node_id)
        return Applier(Store.open(backend), headers, 0, decode_change, NO_QUOTA)
    except (DecodeError, MalformedMember, ValueError) as error:
        raise RestoreRefused(f"{snapshot} holds a lease, an alarm or a member that cannot be read: {error}") from error


def _write_log(options: RestoreOptions, fs: FileSystem, metadata: Metadata, start: Bootstrap, data: bytes) -> None:
    last = start.entries[-1]
    index = Index(last.index)
    snapshots = Snapshots(options.data_dir / "member" / "snap", fs, 0)
    snapshots.save(Snapshot(SnapshotMetadata(start.conf_state, index, last.term), data))
    wal = WriteAheadLog.create(options.wal_dir, fs, metadata)
    try:
        wal.append(start.entries, start.hard_state)
        wal.save_snapshot(index, last.term, start.conf_state)
    finally:
        wal.close()


def _notes(
    options: RestoreOptions, applier: Applier, unknown_buckets: tuple[str, ...], newer_version: str
) -> Iterator[str]:
    if not options.revision_bump:
        yield (
            f"revisions go on from {applier.store.revision}: clients that saw later ones may miss changes. Where there "
            "are such clients, restore with --bump-revision N --mark-compacted, N beyond what was written since"
        )
    if newer_version:
        yield f"the snapshot is from a cluster of version {newer_version}; the new one begins with {CLUSTER_VERSION}"
    if unknown_buckets:
        yield f"left out what is not known here: the buckets {', '.join(unknown_buckets)}"
    if applier.active_alarms():
        yield "alarms are on, as they were in the snapshot: see 'etcdctl alarm list' and 'etcdctl alarm disarm'"
