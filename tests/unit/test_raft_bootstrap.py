"""The log a new cluster starts from (raft thesis 4.4; etcd's bootstrap)."""

from __future__ import annotations

from random import Random

import pytest

from core.raft.bootstrap import bootstrap
from core.raft.log import RaftLog
from core.raft.messages import ConfState, EntryType
from core.raft.node import RaftConfig, RaftNode
from core.types import Index, MemberId


def test_each_member_is_one_committed_change_in_ascending_order() -> None:
    """All first members must write the same bytes, or their logs would differ from the start."""
    start = bootstrap({MemberId(30): b"c", MemberId(4): b"a", MemberId(5): b"b"})
    assert [(entry.term, entry.index, entry.type, entry.data) for entry in start.entries] == [
        (1, 1, EntryType.CONF_CHANGE, b"a"),
        (1, 2, EntryType.CONF_CHANGE, b"b"),
        (1, 3, EntryType.CONF_CHANGE, b"c"),
    ]
    assert start.hard_state == (1, 0, 3)
    assert start.conf_state == ConfState(voters=(MemberId(4), MemberId(5), MemberId(30)))


def test_a_node_starts_from_it_and_hands_the_changes_out() -> None:
    """The store learns who is who from the same entries as it does of later members."""
    start = bootstrap({MemberId(1): b"a", MemberId(2): b"b"})
    node = RaftNode(
        RaftConfig(MemberId(1)), RaftLog(start.entries), start.hard_state, start.conf_state, Index(0), Random(1)
    )
    assert node.take_ready().committed == start.entries
    assert not node.has_ready()


def test_a_cluster_of_nobody_is_refused() -> None:
    """Without a voter nothing could ever be agreed on."""
    with pytest.raises(ValueError, match="at least one member"):
        bootstrap({})
