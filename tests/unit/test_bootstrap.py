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
from core.membership.member import Member
from core.mvcc.keyspace import Bucket
from core.raft.messages import ConfState, Entry, EntryType, HardState
from core.types import Index, MemberId, Term
from daemon.bootstrap import Booted, BootstrapRefused, Ground, boot
from daemon.data_directory import DataDirectory, take
from storage.leveldb import open_leveldb
from wal.filesystem import PosixFileSystem

if TYPE_CHECKING:
    from pathlib import Path

TOKEN = "etcd-cluster"


def configured(*, force: bool = False) -> Config:
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
        unsafe=replace(config.unsafe, force_new_cluster=force),
    )


def booted(root: Path, config: Config) -> tuple[Booted, DataDirectory]:
    logger = structlog.get_logger()
    directory = take(root, root / "member" / "wal", logger)
    try:
        return boot(config, directory, Ground(PosixFileSystem(), open_leveldb, Random(1)), logger), directory
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
