"""From a data directory to the state that a member starts with: new, or as it was left.

Decides between the two by whether there is a log (etcd's rule), derives the ids of a new cluster, and puts together
the raft core and the applied state.  Nothing here runs after the start.
"""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, NamedTuple

from google.protobuf.message import DecodeError

from config.gates import is_on
from core.alarms.quota import Quota
from core.apply.applier import Applier
from core.apply.conf_state import encode_conf_state
from core.apply.header import ResponseHeaders
from core.lease.book import minimum_ttl_s
from core.membership import v2store
from core.membership.cluster import Cluster, cluster_id_of
from core.membership.forced import Applied, ForceRefused, entries_of, forced
from core.membership.member import MalformedMember, Member
from core.membership.version import MalformedVersion, Version
from core.mvcc.store import Store
from core.raft.bootstrap import bootstrap
from core.raft.log import RaftLog
from core.raft.messages import NOBODY, ConfChange, ConfChangeType, ConfState, HardState
from core.raft.node import RaftConfig, RaftNode
from core.types import Index, MemberId, Term
from core.version import SERVER_VERSION
from daemon.joining import expect_new, join
from daemon.machine import resolve
from storage.bbolt.pages import BoltError
from storage.incoming import replace_store, snapshot_path
from wal.codec import Metadata, decode_change, encode_conf_change
from wal.log import WriteAheadLog, exists, valid_snapshots
from wal.segment import SEGMENT_SIZE_BYTES
from wal.snapshots import Snapshots

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path
    from random import Random

    import structlog

    from config.schema import Config
    from core.mvcc.backend import Backend
    from core.raft.messages import Entry
    from daemon.data_directory import DataDirectory
    from daemon.joining import FoundCluster
    from wal.filesystem import FileSystem


NO_CONF_STATE = ConfState()


TOO_MANY_LEARNERS = (
    "membership: too many learner members in cluster: raise --max-learners, which must be the same for all members, to "
    "what the cluster has"
)


class BootstrapRefused(Exception):  # noqa: N818 - named for what happened
    """The data cannot be started from; the text is for the operator."""


class Ground(NamedTuple):
    """What a member stands on: the machine's, or a simulated one's."""

    fs: FileSystem
    open_backend: Callable[[Path], Backend]
    random: Random
    segment_size_bytes: int = SEGMENT_SIZE_BYTES
    found: FoundCluster | None = None
    """What other members told about the cluster; None if none was asked or none answered."""


@dataclass(frozen=True, slots=True)
class Booted:
    """All that a member starts with."""

    metadata: Metadata
    wal: WriteAheadLog
    snapshots: Snapshots
    snapshot_index: Index
    raft: RaftNode
    applier: Applier
    restarted: bool
    known: Mapping[MemberId, Sequence[str]]
    """Peer URLs of the members of a new cluster, which its store does not know yet."""
    snap_folder: Path
    """Where snapshots of other members are received."""


@dataclass(frozen=True, slots=True)
class _Recovered:
    metadata: Metadata
    wal: WriteAheadLog
    hard_state: HardState
    entries: Sequence[Entry]
    snapshot: tuple[Index, Term]
    known: Mapping[MemberId, Sequence[str]]
    conf_state: ConfState = NO_CONF_STATE
    """Of the snapshot."""
    v2_tree: bytes = b""
    """What the snapshot's file tells of the members."""


def boot(config: Config, directory: DataDirectory, ground: Ground, logger: structlog.stdlib.BoundLogger) -> Booted:
    """Open or make everything under *directory*.

    Raises BootstrapRefused, WalError or StorageError where the data is not to be used.
    """
    for unfinished in directory.snap.glob("tmp-incoming-*"):
        unfinished.unlink()  # its sender begins anew
    snapshots = Snapshots(directory.snap, ground.fs, config.member.max_snapshots)
    restarted = exists(directory.wal, ground.fs)
    if restarted:
        recovered = _recover(directory.wal, ground, snapshots, config.member.max_wals, logger)
    else:
        if ground.fs.exists(directory.db):
            raise BootstrapRefused(
                f"{directory.db} holds a store but {directory.wal} no write-ahead log: the log was lost or moved. "
                "Put it back, or start with an empty data directory"
            )
        recovered = _begin(config, directory.wal, ground)
    with ExitStack() as opened:
        opened.callback(recovered.wal.close)
        backend = ground.open_backend(directory.db)
        opened.callback(backend.close)
        defragment(backend, config.features.bootstrap_defrag_threshold_megabytes, logger)
        try:
            booted = _stand_up(config, directory, ground, logger, recovered, backend, snapshots, restarted=restarted)
        except (DecodeError, MalformedMember, ValueError) as error:
            raise BootstrapRefused(
                f"the data in {directory.member} does not make sense: {error}. Restore it from a backup, or remove "
                "this member from the cluster and add it anew"
            ) from error
        opened.pop_all()
    return booted


def _stand_up(
    config: Config,
    directory: DataDirectory,
    ground: Ground,
    logger: structlog.stdlib.BoundLogger,
    recovered: _Recovered,
    backend: Backend,
    snapshots: Snapshots,
    *,
    restarted: bool,
) -> Booted:
    store = _taken_over(Store.open(backend), recovered, directory.snap, logger)
    _check_continuity(store, recovered, directory)
    metadata = recovered.metadata
    ticks = config.member.election_timeout_ms // config.member.heartbeat_interval_ms
    applier = Applier(
        store,
        ResponseHeaders(metadata.cluster_id, metadata.node_id),
        minimum_ttl_s(election_ticks=ticks, tick_ms=config.member.heartbeat_interval_ms),
        decode_change,
        Quota(config.member.quota_backend_bytes),
        persist_checkpoints=is_on(config.member.feature_gates, "LeaseCheckpointPersist"),
        learners_max=config.features.max_learners,
    )
    _check_cluster(applier.cluster)
    if restarted and config.unsafe.force_new_cluster:
        recovered = _forced(config, recovered, applier, logger)
    raft = RaftNode(
        RaftConfig(member_id=MemberId(metadata.node_id), election_ticks=ticks, pre_vote=config.clustering.pre_vote),
        RaftLog(recovered.entries, recovered.snapshot),
        recovered.hard_state,
        applier.conf_state,
        Index(store.applied_index),
        ground.random,
    )
    return Booted(
        metadata,
        recovered.wal,
        snapshots,
        recovered.snapshot[0],
        raft,
        applier,
        restarted,
        recovered.known,
        directory.snap,
    )


def defragment(backend: Backend, threshold_megabytes: int, logger: structlog.stdlib.BoundLogger) -> None:
    """Give unused space back before anybody waits for the store, if there are so many megabytes of it (0: never)."""
    if not threshold_megabytes:
        return
    before_bytes = backend.size_bytes()
    unused_bytes = before_bytes - backend.size_in_use_bytes()
    if unused_bytes < threshold_megabytes << 20:
        logger.info("skipping defragmentation", unused_bytes=unused_bytes, threshold_megabytes=threshold_megabytes)
        return
    backend.compact()
    logger.info("finished defragmenting", before_bytes=before_bytes, after_bytes=backend.size_bytes())


def _begin(config: Config, folder: Path, ground: Ground) -> _Recovered:
    if config.clustering.initial_cluster_state == "existing":
        return _join(config, folder, ground)
    token = config.clustering.initial_cluster_token
    members = [
        Member.new(each.name, [str(url) for url in each.peer_urls], token) for each in config.clustering.initial_cluster
    ]
    local = next(member for member in members if member.name == config.member.name)
    expect_new(local, ground.found)
    metadata = Metadata(local.id, cluster_id_of([member.id for member in members]))
    start = bootstrap(
        {
            member.id: encode_conf_change(ConfChange(ConfChangeType.ADD_NODE, member.id, context=member.to_json()))
            for member in members
        }
    )
    # In one piece: a log without its first entries would be one of a member that nobody will ever tell anything.
    wal = _new_log(config, folder, ground, metadata, start.entries, start.hard_state)
    known = {member.id: member.peer_urls for member in members}
    return _Recovered(metadata, wal, start.hard_state, start.entries, (Index(0), Term(0)), known)


def _join(config: Config, folder: Path, ground: Ground) -> _Recovered:
    """Begin with nothing but the ids: all else comes from the leader."""
    found = ground.found
    local = join(config.clustering.initial_cluster, config.member.name, found, resolve)
    assert found is not None, "refused otherwise"
    if Cluster(found.members, learners_max=config.features.max_learners).has_too_many_learners:
        raise BootstrapRefused(TOO_MANY_LEARNERS)
    nothing = HardState(Term(0), NOBODY, Index(0))
    wal = _new_log(config, folder, ground, Metadata(local, found.id), (), nothing)
    known = {member.id: member.peer_urls for member in found.members}
    return _Recovered(Metadata(local, found.id), wal, nothing, (), (Index(0), Term(0)), known)


def _new_log(
    config: Config, folder: Path, ground: Ground, metadata: Metadata, entries: Sequence[Entry], hard_state: HardState
) -> WriteAheadLog:
    return WriteAheadLog.create(
        folder,
        ground.fs,
        metadata,
        entries=entries,
        hard_state=hard_state,
        segment_size_bytes=ground.segment_size_bytes,
        max_wals=config.member.max_wals,
    )


def _recover(
    folder: Path, ground: Ground, snapshots: Snapshots, max_wals: int, logger: structlog.stdlib.BoundLogger
) -> _Recovered:
    newest = snapshots.newest(valid_snapshots(folder, ground.fs))
    start = (Index(0), Term(0)) if newest is None else (newest.metadata.index, newest.metadata.term)
    wal, replay = WriteAheadLog.open(
        folder, ground.fs, start, segment_size_bytes=ground.segment_size_bytes, max_wals=max_wals
    )
    if replay.cut is not None:
        logger.warning(
            "repaired the write-ahead log: cut off a torn tail",
            file=str(replay.cut.file),
            offset=replay.cut.offset,
            size_bytes=replay.cut.byte_count,
        )
    conf_state = NO_CONF_STATE if newest is None else newest.metadata.conf_state
    tree = b"" if newest is None else newest.data
    return _Recovered(replay.metadata, wal, replay.hard_state, replay.entries, start, {}, conf_state, tree)


def _forced(
    config: Config, recovered: _Recovered, applier: Applier, logger: structlog.stdlib.BoundLogger
) -> _Recovered:
    """Return what a cluster of this member alone starts from, with its log changed to match."""
    before = recovered.hard_state
    try:
        alone = forced(
            recovered.metadata.node_id,
            tuple(str(url) for url in config.clustering.initial_advertise_peer_urls),
            Applied(Index(applier.store.applied_index), applier.conf_state, applier.cluster),
            recovered.entries,
            before.commit,
            decode_change,
        )
    except ForceRefused as refused:
        raise BootstrapRefused(f"cannot force a new cluster: {refused}") from refused
    kept = [entry for entry in recovered.entries if entry.index <= alone.last]
    if dropped := len(recovered.entries) - len(kept):
        logger.warning(
            "discarding uncommitted WAL entries",
            entry_index=alone.last + 1,
            commit_index_from_wal=before.commit,
            number_of_discarded_entries=dropped,
        )
    changes, hard_state = entries_of(alone, before, encode_conf_change)
    recovered.wal.append(changes, hard_state)
    recovered.wal.sync()
    logger.warning(
        "forcing restart member",
        cluster_id=f"{recovered.metadata.cluster_id:x}",
        local_member_id=f"{recovered.metadata.node_id:x}",
        wal_commit_index=before.commit,
        commit_index=hard_state.commit,
        removed=[f"{change.node_id:x}" for change in alone.changes if change.type is ConfChangeType.REMOVE_NODE],
    )
    return replace(recovered, hard_state=hard_state, entries=(*kept, *changes))


def _taken_over(store: Store, recovered: _Recovered, folder: Path, logger: structlog.stdlib.BoundLogger) -> Store:
    """Return the store, with a snapshot from the leader taken over that a crash kept from being so."""
    index, _ = recovered.snapshot
    received = snapshot_path(folder, index)
    if store.applied_index >= index or not received.exists():
        return store
    logger.info("taking over a snapshot that was received before the last stop", index=index)
    try:
        members = v2store.members_in(recovered.v2_tree)
        replace_store(received, store.backend, encode_conf_state(recovered.conf_state), members)
    except (BoltError, MalformedMember, OSError) as error:
        raise BootstrapRefused(
            f"the snapshot {received}, which this member needs, cannot be read: {error}. Restore the data directory, "
            "or remove the member from the cluster and add it anew"
        ) from error
    return Store.open(store.backend)


def _check_cluster(cluster: Cluster) -> None:
    if cluster.has_too_many_learners:
        raise BootstrapRefused(TOO_MANY_LEARNERS)
    try:
        determined = Version.parse(cluster.version) if cluster.version else None
    except MalformedVersion as error:
        raise BootstrapRefused(f"the store tells a version of the cluster that is none: {error}") from error
    if determined is not None and determined.release > Version.parse(SERVER_VERSION).release:
        raise BootstrapRefused(
            f"invalid downgrade; server version is lower than determined cluster version: the members have agreed on "
            f"{determined}, and this is {SERVER_VERSION}. Run a newer version, or downgrade the cluster first with "
            "`etcdctl downgrade`"
        )


def _check_continuity(store: Store, recovered: _Recovered, directory: DataDirectory) -> None:
    first, _ = recovered.snapshot
    last = recovered.entries[-1].index if recovered.entries else first
    if not first <= store.applied_index <= last:
        raise BootstrapRefused(
            f"the store {directory.db} has applied entries up to {store.applied_index}, but the write-ahead log "
            f"{directory.wal} holds {first + 1} to {last}: they do not belong together, or a part of one was lost. "
            "Restore both from one backup"
        )
