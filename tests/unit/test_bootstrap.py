"""What a member starts with, from its configuration and its data."""

from __future__ import annotations

from dataclasses import replace
from random import Random
from typing import TYPE_CHECKING

import pytest
import structlog

from config.schema import Config
from config.urls import parse_initial_cluster, parse_urls
from core.apply.conf_state import encode_conf_state
from core.membership.change import adding
from core.membership.member import Member
from core.mvcc.keyspace import Bucket
from core.raft.messages import ConfState, Entry, EntryType, HardState
from core.types import Index, MemberId, Term
from daemon.bootstrap import Booted, BootstrapRefused, Ground, boot
from daemon.data_directory import DataDirectory, take
from daemon.joining import FoundCluster
from storage.leveldb import open_leveldb
from wal.codec import encode_conf_change
from wal.filesystem import PosixFileSystem

if TYPE_CHECKING:
    from pathlib import Path

TOKEN = "etcd-cluster"


def configured(*, force: bool = False, learners_max: int = 1) -> Config:
    """Member a of the cluster of a, b and c."""
    config = Config()
    cluster = parse_initial_cluster("a=http://m1:1,b=http://m2:1,c=http://m3:1")
    clustering = replace(
        config.clustering, initial_cluster=cluster, initial_advertise_peer_urls=parse_urls("http://m1:1")
    )
    return replace(
        config,
        member=replace(config.member, name="a"),
        clustering=clustering,
        features=replace(config.features, max_learners=learners_max),
        unsafe=replace(config.unsafe, force_new_cluster=force),
    )


def booted(root: Path, config: Config, found: FoundCluster | None = None) -> tuple[Booted, DataDirectory]:
    logger = structlog.get_logger()
    directory = take(root, root / "member" / "wal", logger)
    try:
        return boot(
            config, directory, Ground(PosixFileSystem(), open_leveldb, Random(1), found=found), logger
        ), directory
    except BaseException:
        directory.close()
        raise


def stopped(start: tuple[Booted, DataDirectory]) -> None:
    node, directory = start
    node.wal.close()
    node.applier.store.backend.close()
    directory.close()


def id_of(name: str, url: str) -> MemberId:
    return Member.new(name, [url], TOKEN).id


def test_a_forced_member_starts_alone_and_its_log_says_so(tmp_path: Path) -> None:
    """Also at the next start, with the setting or without it: what was decided is on the disk."""
    start = booted(tmp_path, configured())
    start[0].wal.append([Entry(Term(1), Index(4), EntryType.NORMAL, b"")], HardState(Term(1), MemberId(0), Index(3)))
    stopped(start)
    for force in (True, True, False):
        start = booted(tmp_path, configured(force=force))
        raft, applier = start[0].raft, start[0].applier
        assert (raft.commit, raft.log.last) == (5, 5)  # three members, and two of them removed
        applier.apply(raft.log.entries(1, 6), Term(1))
        assert applier.conf_state == ConfState((id_of("a", "http://m1:1"),))
        assert [member.name for member in applier.cluster.members] == ["a"]
        stopped(start)


def test_without_data_nothing_is_forced(tmp_path: Path) -> None:
    """An empty directory begins a new cluster, with the setting as without it (etcd's rule)."""
    start = booted(tmp_path, configured(force=True))
    assert (start[0].raft.commit, start[0].raft.log.last) == (3, 3)
    stopped(start)


def test_a_removed_member_cannot_be_forced(tmp_path: Path) -> None:
    """The refusal says what to do instead."""
    own, other = id_of("a", "http://m1:1"), id_of("b", "http://m2:1")
    start = booted(tmp_path, configured())
    store = start[0].applier.store
    store.bucket_put(Bucket.MEMBERS_REMOVED, f"{own:x}".encode(), b"removed")
    store.bucket_put(Bucket.META, b"confState", encode_conf_state(ConfState((other,))))
    for entry in start[0].raft.log.entries(1, 4):
        store.advance(entry.index, entry.term)
    store.flush(sync=True)
    stopped(start)
    with pytest.raises(BootstrapRefused, match=f"cannot force a new cluster: member {own:x} was removed"):
        booted(tmp_path, configured(force=True))


def test_more_learners_than_are_allowed(tmp_path: Path) -> None:
    """Whether a learner may be added is decided by each member when it applies the change, so all must agree."""
    learners = [adding(Member(MemberId(number), (f"http://m{number}:1",), is_learner=True)) for number in (4, 5)]
    start = booted(tmp_path, configured(learners_max=2))
    applier = start[0].applier
    applier.apply(start[0].raft.log.entries(1, 4), Term(1))
    changes = [
        Entry(Term(1), Index(index), EntryType.CONF_CHANGE, encode_conf_change(change))
        for index, change in enumerate(learners, 4)
    ]
    applier.apply(changes, Term(1))
    assert len(applier.cluster.members) == 5
    applier.store.flush(sync=True)
    start[0].wal.append(changes, HardState(Term(1), MemberId(0), Index(5)))
    stopped(start)
    with pytest.raises(BootstrapRefused, match="membership: too many learner members in cluster"):
        booted(tmp_path, configured())
    stopped(booted(tmp_path, configured(learners_max=2)))


def test_joining_a_cluster_with_more_learners_than_are_allowed(tmp_path: Path) -> None:
    """Found before anything is written."""
    own = Member(MemberId(7), ("http://m1:1",))
    others = [Member(MemberId(number), (f"http://m{number}:1",), is_learner=True, name="n") for number in (2, 3)]
    config = configured()
    config = replace(config, clustering=replace(config.clustering, initial_cluster_state="existing"))
    found = FoundCluster(9, (own, *others))
    with pytest.raises(BootstrapRefused, match="too many learner members"):
        booted(tmp_path, config, found)


@pytest.mark.parametrize(
    ("bucket", "key", "value", "text"),
    [
        (Bucket.CLUSTER, b"clusterVersion", b"99.0.0", "invalid downgrade; server version is lower than determined"),
        (Bucket.CLUSTER, b"clusterVersion", b"new", "the store tells a version of the cluster that is none: new"),
        (Bucket.MEMBERS, b"1", b"{", "does not make sense: .*Restore it from a backup"),
        (Bucket.LEASE, b"lease", b"\xff", "does not make sense"),
        (Bucket.META, b"confState", b"{}}", "does not make sense"),
    ],
)
def test_data_that_cannot_be_used_is_refused_in_words(
    tmp_path: Path, bucket: Bucket, key: bytes, value: bytes, text: str
) -> None:
    """A member that a newer version has written, or a disk has damaged; nothing stays open, so it can be repaired."""
    start = booted(tmp_path, configured())
    start[0].applier.store.bucket_put(bucket, key, value)
    start[0].applier.store.flush(sync=True)
    stopped(start)
    for _ in range(2):
        with pytest.raises(BootstrapRefused, match=text):
            booted(tmp_path, configured())
