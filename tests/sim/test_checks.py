"""The checks of the simulation, each shown the fault that it is there for."""

from __future__ import annotations

from random import Random
from typing import TYPE_CHECKING, Any

import pytest

from core.mvcc.keyspace import Bucket, record_key
from core.types import Index
from proto.kv_pb2 import KeyValue
from proto.rpc_pb2 import PutResponse, RangeResponse, ResponseHeader
from sim import operations
from sim.checker import Checks, RaftChecks
from sim.disk import APPLIED_INDEX, SimBackend, SimFileSystem
from sim.leases import Leases
from sim.schedule import Failure, Schedule, Trace
from sim.truth import Truth
from tests.unit.raft_nodes import make_node

if TYPE_CHECKING:
    from core.raft.node import RaftNode
    from sim.member import Member


class Holder:
    """As much of a member as the raft checks look at."""

    def __init__(self, name: str, node: RaftNode) -> None:
        self.name = name
        self.raft = node


def holder(name: str, terms: list[int], commit: int) -> Any:
    """Return a member whose log holds entries of these terms."""
    return holder_of(name, make_node(terms, commit=commit, applied=0))


def holder_of(name: str, node: RaftNode) -> Any:
    return Holder(name, node)


def kv(key: bytes, value: bytes, revision: int, *, created: int = 0, version: int = 1) -> bytes:
    encoded: bytes = KeyValue(
        key=key, value=value, mod_revision=revision, create_revision=created or revision, version=version
    ).SerializeToString()
    return encoded


def schedule() -> Schedule:
    return Schedule(Random(1), Trace(None))


def test_notices_another_entry_where_one_was_committed() -> None:
    """What is committed stays, on every member."""
    checks = RaftChecks()
    checks.restarted(holder("m1", [1, 1, 2], 3))
    with pytest.raises(Failure, match="committed another entry at index 3"):
        checks.restarted(holder("m2", [1, 1, 3], 3))


def test_notices_logs_that_agree_after_they_differed() -> None:
    """Two logs with the same entry at an index are the same up to there."""
    checks = RaftChecks()
    checks.restarted(holder("m1", [1, 1, 3], 1))
    with pytest.raises(Failure, match="another entry at index 3, term 3"):
        checks.restarted(holder("m2", [1, 2, 3], 1))


def test_notices_a_commit_index_that_goes_back() -> None:
    """Within one life a commit index only rises."""
    checks = RaftChecks()
    member: Member = holder("m1", [1, 1, 1], 3)
    checks.restarted(member)
    member.raft.commit = Index(2)
    with pytest.raises(Failure, match="took its commit index back"):
        checks.look(member)


def test_notices_a_second_leader_in_a_term() -> None:
    """A term has one leader, whoever believes what."""
    checks = RaftChecks()
    for name in ("m1", "m2"):
        node = make_node([1], commit=1, applied=1, voters=(1,))
        node.campaign()
        ready = node.take_ready()
        assert ready.stable is not None
        node.stable(*ready.stable)
        if name == "m1":
            checks.restarted(holder_of(name, node))
            continue
        with pytest.raises(Failure, match="both m1 and m2 lead"):
            checks.restarted(holder_of(name, node))


def test_notices_a_store_that_differs_at_an_index() -> None:
    """Applying is a pure function: members that applied as much hold the same."""
    truth = Truth()
    checks = Checks(truth, Leases(schedule(), 1.0))
    one, other = SimBackend(), SimBackend()
    one.watcher, other.watcher = checks.store_of("m1"), checks.store_of("m2")
    index = (APPLIED_INDEX, (7).to_bytes(8, "big"))
    one.write([(b"ckey", b"x"), index])
    with pytest.raises(Failure, match="m2 holds another state at index 7"):
        other.write([(b"ckey", b"y"), index])


def test_notices_a_record_that_differs() -> None:
    """A revision is the same change everywhere."""
    truth = Truth()
    checks = Checks(truth, Leases(schedule(), 1.0))
    checks.store_of("m1").wrote([(record_key(2, 0), kv(b"k", b"1", 2))], 0)
    with pytest.raises(Failure, match=r"another change at revision 2\.0"):
        checks.store_of("m2").wrote([(record_key(2, 0), kv(b"k", b"2", 2))], 0)


def test_notices_a_write_that_takes_effect_twice() -> None:
    """A request is applied once, however often it was sent on."""
    truth = Truth()
    truth.learn("m1", 2, 0, kv(b"k", b"1", 2), tombstone=False)
    with pytest.raises(Failure, match="took effect at revision 2 and again at 3"):
        truth.learn("m1", 3, 0, kv(b"k", b"1", 3, created=2, version=2), tombstone=False)


def test_notices_an_acknowledged_write_that_is_not_there() -> None:
    """An answer names the revision that its write made."""
    truth = Truth()
    truth.learn("m1", 2, 0, kv(b"k", b"1", 2), tombstone=False)
    asked = operations.put(truth, b"k", b"other")
    with pytest.raises(Failure, match="does not hold it"):
        asked.judge(PutResponse(header=ResponseHeader(revision=2)).SerializeToString())


def test_notices_a_read_that_misses_a_write() -> None:
    """A read as of a revision holds all of it."""
    truth = Truth()
    truth.learn("m1", 2, 0, kv(b"k", b"1", 2), tombstone=False)
    asked = operations.read(truth, b"k", b"", serializable=False)
    with pytest.raises(Failure, match="a read at revision 2"):
        asked.judge(RangeResponse(header=ResponseHeader(revision=2)).SerializeToString())


def test_notices_a_lease_that_ends_early() -> None:
    """A lease lives as long as a client was promised, unless a client revokes it."""
    time = schedule()
    leases = Leases(time, 1.0)
    checks = Checks(Truth(), leases)
    for lease in (1, 2):
        leases.promised(lease, 10, 0.0)
    leases.revoking(2)
    time.now_s = 9.0
    ends = [(Bucket.LEASE.prefix + lease.to_bytes(8, "big"), None) for lease in (2, 1)]
    checks.store_of("m1").wrote([ends[0]], 0)
    with pytest.raises(Failure, match="lease 1 ended"):
        checks.store_of("m1").wrote([ends[1]], 0)


def test_a_power_failure_keeps_a_prefix_of_the_store() -> None:
    """LevelDB writes its log in order: what is lost is lost from some write on, and nothing synced ever is."""
    kept = set()
    for seed in range(50):
        backend = SimBackend()
        backend.write([(b"a", b"1")], sync=True)
        for key in (b"b", b"c", b"d"):
            backend.write([(key, b"1")])
        backend.fail_power(Random(seed))
        kept.add(b"".join(backend.scan_keys(b"a", b"z")))
    assert kept == {b"a", b"ab", b"abc", b"abcd"}


def test_a_killed_process_leaves_what_it_wrote(tmp_path: Any) -> None:
    """The machine's cache outlives a process, whose handles and locks do not."""
    files = SimFileSystem(lambda: None)
    files.make_folder(tmp_path)
    file = files.create(tmp_path / "x")
    file.lock()
    file.write_at(0, b"written")
    files.end_process()
    with pytest.raises(OSError, match="Bad file descriptor"):
        file.read_at(0, 7)
    again = files.open(tmp_path / "x")
    again.lock()
    assert again.read_at(0, 7) == b"written"
