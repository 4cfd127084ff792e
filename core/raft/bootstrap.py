"""The log that every first member of a new cluster starts from, each by itself, all alike.

It is as if a leader of term 1 had added the members one after the other and all had agreed: so no member has to be
first, and the members' addresses come out of the log as any later member's do.  Raft thesis section 4.4.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from core.raft.messages import NOBODY, ConfState, Entry, EntryType, HardState
from core.types import Index, Term

if TYPE_CHECKING:
    from collections.abc import Mapping

    from core.types import MemberId

BOOTSTRAP_TERM = Term(1)


class Bootstrap(NamedTuple):
    """What to write to an empty log, and then to start a RaftNode from with nothing applied."""

    entries: tuple[Entry, ...]
    hard_state: HardState
    conf_state: ConfState


def bootstrap(changes: Mapping[MemberId, bytes]) -> Bootstrap:
    """Return the start of a cluster of these members, each with its encoded raftpb.ConfChange (ADD_NODE).

    The configuration holds from the start; applying the entries changes nothing in it, and tells the store who is who.
    """
    if not changes:
        raise ValueError("a cluster needs at least one member")
    ids = sorted(changes)
    entries = tuple(
        Entry(BOOTSTRAP_TERM, Index(index), EntryType.CONF_CHANGE, changes[member])
        for index, member in enumerate(ids, 1)
    )
    return Bootstrap(entries, HardState(BOOTSTRAP_TERM, NOBODY, Index(len(ids))), ConfState(voters=tuple(ids)))
