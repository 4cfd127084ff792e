"""HashKV against etcd's rule written out over generations of each key, for any history and any compactions."""

from __future__ import annotations

from dataclasses import dataclass

import google_crc32c
from hypothesis import example, given, settings
from hypothesis import strategies as st

from core.mvcc.backend import MemoryBackend
from core.mvcc.hashing import finish_hash, hash_compaction_steps, hash_kv
from core.mvcc.store import Store
from tests.naive_history import NaiveHistory

KEYS = st.sampled_from([b"a", b"b", b"c"])


@dataclass(frozen=True)
class Step:
    """One transaction: first a delete of everything or of *key*, if wanted, then a put of *key*, if wanted."""

    key: bytes
    deletes_all: bool
    deletes: bool
    puts: bool


STEPS = st.lists(st.builds(Step, KEYS, st.booleans(), st.booleans(), st.booleans()), min_size=1, max_size=8)


CAME_BACK_AT_ONCE = [
    Step(b"b", deletes_all=False, deletes=False, puts=True),
    Step(b"a", deletes_all=False, deletes=False, puts=True),
    Step(b"a", deletes_all=False, deletes=True, puts=True),
]


def _run(steps: list[Step]) -> tuple[Store, NaiveHistory]:
    store, model = Store.open(MemoryBackend()), NaiveHistory()
    for step in steps:
        transaction = store.transaction()
        if step.deletes_all or step.deletes:
            key, range_end = (b"\x00", b"\x00") if step.deletes_all else (step.key, b"")
            transaction.delete_range(key, range_end)
            model.delete(key, range_end)
        if step.puts:
            transaction.put(step.key, b"v")
            model.put(step.key, b"v")
        transaction.end()
        model.end()
    store.flush()
    return store, model


def _expected(model: NaiveHistory, revision: int) -> int:
    compacted = model.compacted() if model.compact_revision > 0 else model.changes
    crc: int = google_crc32c.value(model.hashed_bytes(revision, stored=compacted))
    return crc


@settings(max_examples=200, deadline=None)
@given(steps=STEPS, compact_back=st.integers(0, 8), back=st.integers(0, 8), removed=st.sampled_from([0, 1, 2, 3, 100]))
@example(steps=CAME_BACK_AT_ONCE, compact_back=0, back=0, removed=0)
def test_hash_kv_follows_the_rule(steps: list[Step], compact_back: int, back: int, removed: int) -> None:
    """Two members with one state and any progress of removal must agree, and so must etcd."""
    store, model = _run(steps)
    compact_revision = store.revision - compact_back
    if compact_revision > 0:
        store.begin_compaction(compact_revision)
        model.compact_revision = compact_revision
    store.flush()
    for _ in range(removed):
        store.compaction_step(1)
    revision = max(store.revision - back, model.compact_revision, 1)
    made = hash_kv(store.view(), revision, google_crc32c.extend)
    assert made == (_expected(model, revision), revision, model.compact_revision)


@settings(max_examples=100, deadline=None)
@given(steps=STEPS, previous=st.integers(1, 9), compacted=st.integers(1, 9))
def test_a_compaction_hash_follows_the_rule(steps: list[Step], previous: int, compacted: int) -> None:
    """It has the revision of the compaction and, as compact revision, the one before."""
    store, model = _run(steps)
    previous, compacted = min(previous, store.revision), min(compacted, store.revision)
    if compacted <= previous:
        return
    store.begin_compaction(previous)
    store.flush()
    while not store.compaction_step(1):
        pass
    model.compact_revision = previous
    store.begin_compaction(compacted)
    store.flush()
    made = finish_hash(hash_compaction_steps(store.view(), compacted, previous, google_crc32c.extend))
    hashed = model.hashed_bytes(compacted, stored=model.compacted(), kept_too=_tombstones_at(model, compacted))
    assert made == (google_crc32c.value(hashed), compacted, previous)


def _tombstones_at(model: NaiveHistory, revision: int) -> set[tuple[int, int]]:
    """Return what a compaction keeps besides: it looks at more than a hash at the same revision does."""
    return {(change.main, change.sub) for change in model.changes if change.main == revision and change.kv is None}
