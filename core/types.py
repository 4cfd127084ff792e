"""The numbers of a replicated store, each with a name of its own.

They are plain ints at run time; the names keep mypy from letting a term pass for an index.
"""

from __future__ import annotations

from typing import NewType

Term = NewType("Term", int)
"""A raft term: 0 before the first election, then rising."""

Index = NewType("Index", int)
"""A position in the raft log; the first entry has index 1."""

Revision = NewType("Revision", int)
"""A main revision of the store; an empty store is at 1, the first write makes 2."""

MemberId = NewType("MemberId", int)
"""An unsigned 64-bit member id; 0 means nobody."""

LeaseId = NewType("LeaseId", int)
"""A signed 64-bit lease id; 0 means no lease."""

RequestId = NewType("RequestId", int)
"""An unsigned 64-bit id of one proposal; see core/request_id.py for how it names its owner."""

WatchId = NewType("WatchId", int)
"""A watcher's id, unique on its stream only; -1 where the answer concerns no watcher."""
