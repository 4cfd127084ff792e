"""Which revisions a compaction removes, when, and what happens to it in a crash; hashes that depend on it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import google_crc32c
import pytest

from core.errors import Compacted, FutureRevision
from core.mvcc.backend import MemoryBackend
from core.mvcc.hashing import (
    CompactionHashes,
    HashKv,
    finish_hash,
    hash_all,
    hash_compaction_steps,
    hash_kv,
    hash_kv_steps,
)
from core.mvcc.keyspace import Bucket, history_key, record_key
from core.mvcc.record import decode_kv
from core.mvcc.store import Store

if TYPE_CHECKING:
    from core.mvcc.backend import Find


class CountingBackend(MemoryBackend):
    """Counts what is looked up."""

    found_count = 0

    def finder(self) -> Find:
        find = super().finder()

        def counted(start: bytes, stop: bytes) -> tuple[bytes, bytes] | None:
            self.found_count += 1
            return find(start, stop)

        return counted


class Bench:
    """A store on a fake, with one-line writes."""

    def __init__(self, backend: MemoryBackend | None = None) -> None:
        self.backend = backend or MemoryBackend()
        self.store = Store.open(self.backend)

    def put(self, key: bytes, value: bytes = b"v") -> None:
        transaction = self.store.transaction()
        transaction.put(key, value)
        transaction.end()
        self._apply()

    def delete(self, key: bytes, range_end: bytes = b"") -> None:
        transaction = self.store.transaction()
        transaction.delete_range(key, range_end)
        transaction.end()
        self._apply()

    def compact(self, revision: int) -> None:
        self.store.begin_compaction(revision)
        self._apply()

    def finish(self) -> None:
        while not self.store.compaction_step(1):
            pass

    def stored(self) -> list[tuple[int, bool]]:
        """Main revision and whether a tombstone, of all that is stored."""
        return [(int.from_bytes(key[:8], "big"), len(key) > 17) for key, _ in self.store.view().revisions()]

    def _apply(self) -> None:
        self.store.advance(self.store.applied_index + 1, 1)
        self.store.flush()


def test_overwritten_revisions_go_and_newer_ones_stay() -> None:
    """Each key keeps its newest version at or below the compact revision, and everything newer."""
    bench = Bench()
    for _ in range(4):
        bench.put(b"a")  # revisions 2 to 5
    bench.put(b"b")
    bench.compact(4)
    bench.finish()
    assert bench.stored() == [(4, False), (5, False), (6, False)]


def test_a_tombstone_stays_at_the_compact_revision_and_goes_with_the_next() -> None:
    """A watcher that starts at the compact revision must see the deletion; later nobody can ask for it."""
    bench = Bench()
    bench.put(b"a")
    bench.delete(b"a")
    bench.compact(3)
    bench.finish()
    assert bench.stored() == [(3, True)]
    bench.put(b"b")
    bench.compact(4)
    bench.finish()
    assert bench.stored() == [(4, False)]


def test_a_tombstone_at_the_compact_revision_stays_though_the_key_came_back_at_once() -> None:
    """One transaction may delete from a key on and put one of them; the deletion is part of that revision."""
    bench = Bench()
    bench.put(b"a")
    transaction = bench.store.transaction()
    transaction.delete_range(b"a", b"\x00")
    transaction.put(b"a", b"again")
    transaction.end()
    bench.compact(3)
    bench.finish()
    assert bench.stored() == [(3, True), (3, False)]
    bench.put(b"b")
    bench.compact(4)
    bench.finish()
    assert bench.stored() == [(3, False), (4, False)]


def test_history_at_the_compact_revision_has_no_previous_values() -> None:
    """They belong to a revision that is compacted, whether removed yet or not."""
    bench = Bench()
    bench.put(b"a")
    bench.put(b"a")
    bench.put(b"a")
    bench.compact(3)
    history = bench.store.view().history(3, 10, prev_kv=True)
    assert [revised.events[0].prev_kv is None for revised in history] == [True, False]


def test_a_revision_raised_by_a_tool_is_nobodys_change() -> None:
    """A restored store may begin with an empty record far ahead; watchers must not trip over it."""
    bench = Bench()
    bench.put(b"a")
    bench.backend.write([(record_key(1000, 0), b""), (history_key(b"", 1000, 0), b"")])
    raised = Bench(bench.backend)
    assert raised.store.revision == 1000
    raised.put(b"a")
    history = raised.store.view().history(2, 10, prev_kv=True)
    assert [revised.revision for revised in history] == [2, 1001]
    raised.compact(1001)
    raised.finish()
    assert raised.stored()[-1] == (1001, False)


def test_history_is_bounded_by_whole_revisions() -> None:
    """A watcher far behind must not take all history into memory at once."""
    bench = Bench()
    for _ in range(5):
        bench.put(b"a", bytes(100))
    history = bench.store.view().history
    assert [revised.revision for revised in history(3, 2)] == [3, 4]
    assert [revised.revision for revised in history(3, 9, size_bytes_max=150)] == [3, 4]
    assert [revised.revision for revised in history(3, 9, size_bytes_max=0)] == [3]
    assert history(7, 9) == []


def test_reads_below_fail_before_anything_is_removed() -> None:
    """What a read may see must not depend on how far the removal has come."""
    bench = Bench()
    bench.put(b"a")
    bench.put(b"a")
    bench.compact(3)
    with pytest.raises(Compacted):
        bench.store.view().range(b"a", b"", 2)
    with pytest.raises(Compacted):
        bench.store.view().history(2, 10)
    assert len(bench.store.view().range(b"a", b"", 3)) == 1
    assert bench.stored() == [(2, False), (3, False)]


def test_an_older_view_reads_on_while_history_is_removed() -> None:
    """A long read that began before must end with the same answer."""
    bench = Bench()
    bench.put(b"a", b"old")
    bench.put(b"a", b"new")
    view = bench.store.view()
    bench.compact(3)
    bench.finish()
    kv = view.get(b"a", 2)
    assert kv is not None
    assert decode_kv(kv).value == b"old"


def test_refusals_change_nothing() -> None:
    """Compacting twice at one revision, backwards or in the future is the client's error."""
    bench = Bench()
    bench.put(b"a")
    bench.put(b"a")
    bench.compact(2)
    for revision in (2, 1, 0, -5):
        with pytest.raises(Compacted):
            bench.store.begin_compaction(revision)
    with pytest.raises(FutureRevision):
        bench.store.begin_compaction(4)
    assert bench.store.compact_revision == 2
    assert bench.store.staged_count == 0


def test_a_removal_cut_short_is_taken_up_after_a_restart() -> None:
    """Otherwise garbage would stay for ever: the next compaction begins where this one ended."""
    bench = Bench()
    for _ in range(9):
        bench.put(b"a")
    bench.compact(9)
    assert not bench.store.compaction_step(3)
    left = len(bench.stored())
    assert left == 6
    again = Bench(bench.backend)
    assert again.store.compact_revision == 9
    assert again.store.compaction.running
    again.finish()
    assert again.stored() == [(9, False), (10, False)]
    assert not Bench(bench.backend).store.compaction.running


def test_a_second_compaction_while_one_runs_follows_it() -> None:
    """Both must be removed in full, tombstones at the first compact revision included."""
    bench = Bench()
    bench.put(b"a")
    bench.put(b"b")
    bench.delete(b"a", b"c")
    bench.compact(4)
    assert not bench.store.compaction_step(1)
    bench.put(b"c")
    bench.put(b"c")
    bench.compact(6)
    bench.finish()
    assert bench.stored() == [(6, False)]


def test_a_step_is_bounded_even_where_nothing_is_removed() -> None:
    """Many new keys and no garbage: a step must not walk all of them while clients wait."""
    bench = Bench()
    for number in range(100):
        bench.put(b"%d" % number)
    bench.compact(101)
    steps = 1
    while not bench.store.compaction_step(1000, lambda: True):
        steps += 1
    assert steps > 3
    assert len(bench.stored()) == 100


def test_a_step_ends_when_its_time_is_up() -> None:
    """How long a revision takes is the disk's business: requests wait for a step, so time bounds it, too."""
    bench = Bench()
    for _ in range(100):
        bench.put(b"a")  # revisions 2 to 101
    bench.compact(101)
    assert not bench.store.compaction_step(1000, lambda: True)
    assert 0 < bench.store.compaction.removed_count < 50
    while not bench.store.compaction_step(1000, lambda: True):
        pass
    assert bench.stored() == [(101, False)]


def test_one_step_looks_for_a_keys_older_version_at_most_once() -> None:
    """Often a few keys change all the time, and a look-up costs several times what the walk does."""
    bench = Bench(CountingBackend())
    for _ in range(100):
        bench.put(b"a")
        bench.put(b"b")
    for number in range(100):
        bench.put(b"new%d" % number)
    bench.delete(b"b")
    bench.compact(302)
    counting = bench.backend
    assert isinstance(counting, CountingBackend)
    steps = 1
    while not bench.store.compaction_step(60):
        steps += 1
    assert 0 < counting.found_count <= 2 * steps
    assert bench.stored() == [(main, main == 302) for main in (200, *range(202, 303))]


def test_the_revision_is_at_least_the_compact_revision() -> None:
    """Up to 3.5.15, etcd removes the newest tombstone; a store made from its snapshot must not go back."""
    backend = MemoryBackend()
    backend.write([(Bucket.META.prefix + b"finishedCompactRev", (7).to_bytes(8, "big") + b"_" + bytes(8))])
    bench = Bench(backend)
    assert (bench.store.revision, bench.store.compact_revision) == (7, 7)
    assert not bench.store.compaction.running


def test_index_and_term_survive_even_without_a_change() -> None:
    """Entries that change nothing must not be applied again for ever."""
    bench = Bench()
    bench.store.advance(12, 3)
    bench.store.flush()
    again = Bench(bench.backend).store
    assert (again.applied_index, again.applied_term, again.revision) == (12, 3, 1)


def test_ranks_are_exact_while_keys_come_and_go_at_their_frontier() -> None:
    """A key must be noted either by its change or by the step that reaches it, never by both."""
    bench = Bench()
    for key in (b"a", b"b", b"c"):
        bench.put(key)
    store = bench.store
    assert not store.build_ranks_step(1)
    bench.put(b"a\x00")
    assert not store.build_ranks_step(1)
    bench.delete(b"a")
    bench.delete(b"c")
    while not store.build_ranks_step(1):
        pass
    assert store.counter_for(store.view()) is not None
    assert store.count(b"\x00", b"\x00") == 2
    assert store.count(b"a\x00", b"") == 1
    assert store.count(b"b", b"a") == 0


def test_hash_kv_does_not_depend_on_the_progress_of_the_removal() -> None:
    """Members remove at their own pace and are compared all the time."""
    bench = Bench()
    for number in range(12):
        bench.put(b"k%d" % (number % 3), b"%d" % number)
    bench.delete(b"k1")
    bench.put(b"k2")
    bench.compact(10)
    hashes = {hash_kv(bench.store.view(), 12, google_crc32c.extend)}
    while not bench.store.compaction_step(1):
        hashes.add(hash_kv(bench.store.view(), 12, google_crc32c.extend))
    hashes.add(hash_kv(bench.store.view(), 12, google_crc32c.extend))
    assert len(hashes) == 1


def test_a_compaction_hash_is_that_of_its_revision_before_it() -> None:
    """With the previous compact revision, as every member computes it whenever it compacts."""
    bench = Bench()
    for number in range(12):
        bench.put(b"k%d" % (number % 3), b"%d" % number)
    bench.compact(5)
    bench.finish()
    expected = hash_kv(bench.store.view(), 9, google_crc32c.extend)
    bench.compact(9)
    steps = hash_compaction_steps(bench.store.view(), 9, 5, google_crc32c.extend)
    bench.finish()
    assert finish_hash(steps) == expected == HashKv(expected.hash, 9, 5)


def test_hashing_stops_at_short_intervals() -> None:
    """A hash of a large store must not hold up whoever runs it."""
    bench = Bench()
    for number in range(1100):
        bench.put(b"%d" % number)
    assert len(list(hash_kv_steps(bench.store.view(), 0, google_crc32c.extend))) == 2


def test_hash_kv_refuses_revisions_as_reads_do() -> None:
    """The compact revision itself is allowed."""
    bench = Bench()
    bench.put(b"a")
    bench.put(b"a")
    bench.compact(3)
    view = bench.store.view()
    assert hash_kv(view, 3, google_crc32c.extend).compact_revision == 3
    with pytest.raises(Compacted):
        hash_kv(view, 2, google_crc32c.extend)
    with pytest.raises(FutureRevision):
        hash_kv(view, 4, google_crc32c.extend)


def test_ten_compaction_hashes_are_remembered() -> None:
    """Members look for a compaction that both remember, newest first."""
    hashes = CompactionHashes()
    for revision in range(1, 13):
        hashes.add(HashKv(revision * 100, revision, revision - 1))
    assert hashes.find(2) is None
    assert hashes.find(3) == HashKv(300, 3, 2)
    assert [made.revision for made in hashes.newest_first()] == list(range(12, 2, -1))


def test_the_hash_of_everything_covers_buckets_but_not_the_applied_index() -> None:
    """Equal members have the same hash even where one has applied an entry without effect more."""
    bench = Bench()
    bench.put(b"a")
    before = hash_all(bench.store.view(), google_crc32c.extend)
    bench.store.advance(99, 7)
    bench.store.flush()
    assert hash_all(bench.store.view(), google_crc32c.extend) == before
    bench.store.bucket_put(Bucket.AUTH, b"authRevision", b"2")
    bench.store.flush()
    changed = hash_all(bench.store.view(), google_crc32c.extend)
    assert changed != before
    bench.store.bucket_delete(Bucket.AUTH, b"authRevision")
    bench.store.flush()
    assert hash_all(bench.store.view(), google_crc32c.extend) == before


def test_the_hash_of_everything_is_over_names_keys_and_values() -> None:
    """Spelled out once: bucket names in order, each followed by its content."""
    bench = Bench()
    bench.store.bucket_put(Bucket.CLUSTER, b"clusterVersion", b"3.7.0")
    bench.store.flush()
    hashed = b"alarmauthauthRolesauthUsersclusterclusterVersion3.7.0keyleasemembersmembers_removedmeta"
    assert hash_all(bench.store.view(), google_crc32c.extend) == google_crc32c.value(hashed)
