"""The applied state depends on the log alone: not on how it was cut into batches, and not on restarts in between."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING, Any

from hypothesis import given, settings
from hypothesis import strategies as st

from core.mvcc.backend import MemoryBackend
from core.types import Term
from proto.rpc_pb2 import (
    AlarmRequest,
    CompactionRequest,
    Compare,
    DeleteRangeRequest,
    LeaseCheckpoint,
    LeaseCheckpointRequest,
    LeaseGrantRequest,
    LeaseRevokeRequest,
    PutRequest,
    RangeRequest,
    RequestOp,
    TxnRequest,
)
from tests.entries import Log, contents, make_applier

if TYPE_CHECKING:
    from core.apply.applier import Applier
    from core.errors import EtcdError
    from core.mvcc.event import Revised
    from core.raft.messages import Entry
    from core.types import RequestId

KEYS = st.sampled_from([b"a", b"b", b"c", b"d"])
LEASES = st.sampled_from([1, 2, -3])

PUTS = st.builds(PutRequest, key=KEYS, value=st.sampled_from([b"", b"v", b"w"]), lease=st.just(0) | LEASES)
DELETES = st.builds(DeleteRangeRequest, key=KEYS, range_end=st.sampled_from([b"", b"c", b"\0"]))
OPS = st.one_of(
    st.builds(RequestOp, request_put=PUTS),
    st.builds(RequestOp, request_delete_range=DELETES),
    st.builds(RequestOp, request_range=st.builds(RangeRequest, key=KEYS)),
)
# One put a branch: two of the same key are refused before they are proposed.
TXNS = st.builds(
    TxnRequest,
    compare=st.lists(st.builds(Compare, key=KEYS, target=st.just(Compare.VERSION), version=st.integers(0, 2))),
    success=st.lists(OPS, max_size=1),
    failure=st.lists(OPS, max_size=1),
)
CHECKPOINTS = st.builds(LeaseCheckpoint, ID=LEASES, remaining_TTL=st.integers(0, 9))
REQUESTS = st.one_of(
    st.fixed_dictionaries({"put": PUTS}),
    st.fixed_dictionaries({"put": PUTS}),
    st.fixed_dictionaries({"delete_range": DELETES}),
    st.fixed_dictionaries({"txn": TXNS}),
    st.fixed_dictionaries({"compaction": st.builds(CompactionRequest, revision=st.integers(0, 12))}),
    st.fixed_dictionaries({"lease_grant": st.builds(LeaseGrantRequest, ID=LEASES, TTL=st.integers(0, 9))}),
    st.fixed_dictionaries({"lease_revoke": st.builds(LeaseRevokeRequest, ID=LEASES)}),
    st.fixed_dictionaries(
        {"lease_checkpoint": st.builds(LeaseCheckpointRequest, checkpoints=st.lists(CHECKPOINTS, max_size=2))}
    ),
    st.fixed_dictionaries(
        {
            "alarm": st.builds(
                AlarmRequest, action=st.integers(0, 2), memberID=st.integers(0, 2), alarm=st.integers(0, 3)
            )
        }
    ),
)


class Outcome:
    """What one way of applying a log came to."""

    def __init__(self) -> None:
        self.outcomes: list[tuple[RequestId, bytes | str]] = []
        self.changes: list[Revised] = []
        self.leases: list[object] = []

    def take(self, applier: Applier) -> None:
        """Collect what the last batch told the world."""
        effects = applier.take_effects()
        self.outcomes += [(request_id, said(outcome)) for request_id, outcome in effects.outcomes]
        self.changes += applier.take_changes()
        self.leases += [*effects.granted, *effects.revoked, *effects.checkpointed]


def said(outcome: bytes | EtcdError) -> bytes | str:
    return outcome if isinstance(outcome, bytes) else str(outcome)


def apply_in_batches(entries: list[Entry], cuts: list[int], restarts: set[int]) -> tuple[MemoryBackend, Outcome]:
    """Apply *entries* cut at *cuts*, with a new applier over the store after the batches named in *restarts*."""
    backend, outcome = MemoryBackend(), Outcome()
    applier = make_applier(backend)
    edges = sorted({0, *[cut for cut in cuts if cut < len(entries)], len(entries)})
    for number, (start, stop) in enumerate(itertools.pairwise(edges)):
        applier.apply(entries[start:stop], Term(1))
        applier.store.flush()
        outcome.take(applier)
        if number in restarts:
            applier = make_applier(backend)
    while not applier.store.compaction_step(100):
        pass
    return backend, outcome


@settings(max_examples=150, deadline=None)
@given(
    requests=st.lists(REQUESTS, max_size=25),
    cuts=st.lists(st.integers(1, 24), max_size=6),
    restarts=st.sets(st.integers(0, 6), max_size=3),
)
def test_batches_and_restarts_leave_no_trace(
    requests: list[dict[str, Any]], cuts: list[int], restarts: set[int]
) -> None:
    """Members receive the same entries in other batches and restart when they will, and must stay byte for byte equal.

    Answers and events are compared too: a client may ask any member.
    """
    log = Log()
    entries = [log.request(**request)[0] for request in requests]
    whole_store, whole = apply_in_batches(entries, [], set())
    cut_store, cut = apply_in_batches(entries, cuts, restarts)
    assert contents(whole_store) == contents(cut_store)
    assert whole.outcomes == cut.outcomes
    assert whole.changes == cut.changes
    assert sorted(map(str, whole.leases)) == sorted(map(str, cut.leases))
