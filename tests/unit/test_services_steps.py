"""Election and Lock, step by step, without a node: what they ask, and what they do with every outcome."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from net.rpc import Code, Status
from proto.election_pb2 import CampaignRequest, LeaderKey, LeaderRequest, ProclaimRequest, ResignRequest
from proto.kv_pb2 import Event, KeyValue
from proto.lock_pb2 import LockRequest, UnlockRequest
from proto.rpc_pb2 import (
    DeleteRangeResponse,
    LeaseGrantResponse,
    RangeResponse,
    ResponseHeader,
    ResponseOp,
    TxnResponse,
    WatchResponse,
)
from services import election, lock
from services.steps import (
    Abandoned,
    Ask,
    Next,
    Present,
    Send,
    Start,
    StepFailed,
    Unwatch,
    Watch,
    own_key,
    unmapped,
    watch_error,
)

if TYPE_CHECKING:
    from collections.abc import Generator

    from services.steps import Step

TXN, RANGE = "/etcdserverpb.KV/Txn", "/etcdserverpb.KV/Range"
GONE = WatchResponse(events=[Event(type=Event.DELETE)])


def header(revision: int) -> ResponseHeader:
    return ResponseHeader(revision=revision)


def won(revision: int) -> TxnResponse:
    """Return the answer to a transaction whose condition held."""
    return TxnResponse(header=header(revision), succeeded=True)


def present(revision: int, value: bytes = b"v") -> TxnResponse:
    """Return the answer where the key was there already."""
    kvs = [KeyValue(key=b"e/7", create_revision=revision, value=value)]
    return TxnResponse(header=header(9), responses=[ResponseOp(response_range=RangeResponse(kvs=kvs))])


def found(*keys: bytes, revision: int = 9) -> RangeResponse:
    """Return the answer to a range."""
    return RangeResponse(header=header(revision), kvs=[KeyValue(key=key, create_revision=3) for key in keys])


def drive(steps: Generator[Step, Any, Any], *outcomes: object) -> tuple[list[Step], Any]:
    """Send *outcomes*, each to the step before it; return the steps and how it ended: with a value or a status.

    An outcome may be an exception, which is raised at its step.
    """
    seen: list[Step] = []
    try:
        seen.append(next(steps))
        for outcome in outcomes:
            step = steps.throw(outcome) if isinstance(outcome, Exception) else steps.send(outcome)
            seen.append(step)
    except StopIteration as end:
        return seen, end.value
    except StepFailed as failure:
        return seen, failure.status
    except Abandoned:
        return seen, Abandoned
    return seen, None


def asked(step: Step) -> tuple[str, Any]:
    """Return method and request of a question."""
    assert isinstance(step, Ask), step
    return step.method, step.request


CAMPAIGN = CampaignRequest(name=b"e", lease=7, value=b"v")
REFUSED = StepFailed(Status(Code.UNKNOWN, "etcdserver: permission denied"))


def test_who_campaigns_alone_leads_at_once() -> None:
    """A key named by the lease is put if it is not there, and the header is that of the put."""
    steps, answer = drive(election.campaign(CAMPAIGN), None, won(5), found(), None)
    renewal, put, look = steps[0], asked(steps[1]), asked(steps[2])
    assert isinstance(renewal, Start)
    assert (renewal.method, str(renewal.request)) == ("/etcdserverpb.Lease/LeaseKeepAlive", "ID: 7\n")
    method, txn = put
    assert method == TXN
    assert (txn.compare[0].key, txn.compare[0].create_revision) == (b"e/7", 0)
    assert (txn.success[0].request_put.lease, txn.success[0].request_put.value) == (7, b"v")
    assert (look[1].key, look[1].range_end, look[1].max_create_revision) == (b"e/", b"e0", 4)
    assert answer.leader == LeaderKey(name=b"e", key=b"e/7", rev=5, lease=7)
    assert answer.header.revision == 5


def test_who_brings_no_lease_is_given_one_of_a_minute() -> None:
    """It is not renewed afterwards: its holder has to do so."""
    request = CampaignRequest(name=b"e", value=b"v")
    steps, answer = drive(election.campaign(request), LeaseGrantResponse(ID=0xAB), won(5), found(), None)
    method, grant = asked(steps[0])
    assert (method, grant.TTL) == ("/etcdserverpb.Lease/LeaseGrant", 60)
    assert (answer.leader.key, answer.leader.lease) == (b"e/ab", 0xAB)


def test_a_candidate_waits_for_the_one_before_it() -> None:
    """For the newest of those before: so one end wakes one candidate.  Then it looks again."""
    steps, answer = drive(
        election.campaign(CAMPAIGN),
        None,
        won(5),
        found(b"e/1", revision=6),
        None,
        WatchResponse(created=True),
        WatchResponse(events=[Event(type=Event.PUT)]),
        GONE,
        None,
        found(),
        None,
    )
    watch = steps[3]
    assert isinstance(watch, Watch)
    assert (watch.create.key, watch.create.start_revision) == (b"e/1", 6)
    assert [type(step) for step in steps[4:]] == [Next, Next, Next, Unwatch, Ask, Present]
    assert answer.leader.rev == 5


def test_who_gives_up_resigns() -> None:
    """Else the election would wait for a candidate that is not there, until its lease ends."""
    for at in (1, 3):  # while it waits, and at the last moment
        outcomes = [None, won(5), found(b"e/1"), None][: at + 1] if at == 3 else [None, won(5), found()]
        steps, end = drive(election.campaign(CAMPAIGN), *outcomes, Abandoned(), won(6))
        method, txn = asked(steps[-1])
        assert method == TXN
        assert (txn.compare[0].key, txn.compare[0].create_revision) == (b"e/7", 5)
        assert txn.success[0].request_delete_range.key == b"e/7"
        assert end is Abandoned
    _, end = drive(election.campaign(CAMPAIGN), None, won(5), found(), Abandoned(), REFUSED)
    assert end is Abandoned  # there is nobody to tell


def test_a_candidate_that_comes_again_keeps_its_place() -> None:
    """With the same value nothing is written; with another one it is proclaimed."""
    steps, answer = drive(election.campaign(CAMPAIGN), None, present(3), found(), None)
    assert answer.leader.rev == 3
    assert len(steps) == 4
    steps, answer = drive(election.campaign(CAMPAIGN), None, present(3, b"old"), won(9), found(), None)
    _, txn = asked(steps[2])
    assert (txn.compare[0].create_revision, txn.success[0].request_put.value) == (3, b"v")
    assert answer.leader.rev == 3
    steps, status = drive(election.campaign(CAMPAIGN), None, present(3, b"old"), TxnResponse(), won(9))
    assert asked(steps[3])[1].success[0].HasField("request_delete_range")
    assert status.message == "election: not leader"


@pytest.mark.parametrize("step", [0, 1, 2, 3, 4])
def test_a_failure_ends_the_campaign(step: int) -> None:
    """With the words of what has failed."""
    outcomes: list[object] = [None, won(5), found(b"e/1"), None]
    _, end = drive(election.campaign(CAMPAIGN), *outcomes[:step], REFUSED)
    assert end == REFUSED.status


def test_a_watch_that_is_cancelled_ends_the_campaign() -> None:
    """Why, is what the watch says."""
    for response, code, text in (
        (WatchResponse(canceled=True, cancel_reason="why"), Code.FAILED_PRECONDITION, "why"),
        (WatchResponse(canceled=True), Code.UNKNOWN, "etcdserver: mvcc: required revision is a future revision"),
        (
            WatchResponse(canceled=True, compact_revision=3),
            Code.UNKNOWN,
            "etcdserver: mvcc: required revision has been compacted",
        ),
    ):
        _, end = drive(election.campaign(CAMPAIGN), None, won(5), found(b"e/1"), None, response)
        assert end == Status(code, text) == watch_error(response)


def test_only_who_leads_proclaims() -> None:
    """The key has to be the one that was made when leadership was won."""
    request = ProclaimRequest(leader=LeaderKey(name=b"e", key=b"e/7", rev=5, lease=7), value=b"new")
    steps, answer = drive(election.proclaim(request), None, won(8))
    _, txn = asked(steps[1])
    put = txn.success[0].request_put
    assert (txn.compare[0].create_revision, put.key, put.value, put.lease) == (5, b"e/7", b"new", 7)
    assert answer.header.revision == 8
    assert drive(election.proclaim(request), None, TxnResponse())[1].message == "election: not leader"
    assert drive(election.proclaim(ProclaimRequest()))[1].message == '"leader" field must be provided'


def test_the_oldest_key_leads() -> None:
    """Or nobody does."""
    steps, answer = drive(election.leader(LeaderRequest(name=b"e")), found(b"e/1"))
    request = asked(steps[0])[1]
    assert (request.limit, request.sort_target, request.sort_order) == (1, 2, 1)
    assert answer.kv.key == b"e/1"
    _, status = drive(election.leader(LeaderRequest(name=b"e")), found())
    assert status == Status(Code.UNKNOWN, "election: no leader")


def test_who_resigns_deletes_its_key_and_no_other() -> None:
    """Where it has lost leadership before, nothing happens and that is well."""
    request = ResignRequest(leader=LeaderKey(key=b"e/7", rev=5, lease=7))
    steps, answer = drive(election.resign(request), None, TxnResponse(header=header(8)))
    assert asked(steps[1])[1].compare[0].create_revision == 5
    assert answer.header.revision == 8
    assert drive(election.resign(ResignRequest()))[1].code is Code.UNKNOWN


def test_observers_see_each_leader_and_value() -> None:
    """The first that comes, its new values, and the next leader after it has gone."""
    first = KeyValue(key=b"e/1", mod_revision=5)
    steps, _ = drive(
        election.observe(LeaderRequest(name=b"e")),
        found(revision=4),
        None,
        WatchResponse(events=[Event(type=Event.DELETE)]),
        WatchResponse(header=header(6), events=[Event(type=Event.PUT, kv=first)]),
        None,
        None,
        None,
        WatchResponse(header=header(7), events=[Event(kv=KeyValue(key=b"e/1", value=b"2")), GONE.events[0]]),
        None,
        None,
        found(b"e/2"),
    )
    sent = [step.message for step in steps if isinstance(step, Send)]
    assert [(each.kv.key, each.kv.value, each.header.revision) for each in sent] == [  # type: ignore[attr-defined]  # LeaderResponse
        (b"e/1", b"", 5),
        (b"e/1", b"2", 7),
        (b"e/2", b"", 9),
    ]
    watches = [step.create for step in steps if isinstance(step, Watch)]
    assert [(each.key, each.range_end, each.start_revision) for each in watches] == [
        (b"e/", b"e0", 4),
        (b"e/1", b"", 6),
    ]
    assert len(drive(election.observe(LeaderRequest(name=b"e")), REFUSED)[0]) == 1  # a failure is the end


LOCK = LockRequest(name=b"l", lease=7)


def locked(revision: int, owner: int, *, made: bool = True) -> TxnResponse:
    """Return the answer to the first transaction of Lock."""
    first = [KeyValue(create_revision=revision)]
    ops = [RangeResponse(kvs=() if made else first), RangeResponse(kvs=[KeyValue(create_revision=owner)])]
    return TxnResponse(
        header=header(revision if made else 99),
        succeeded=made,
        responses=[ResponseOp(response_range=op) for op in ops],
    )


def test_a_lock_that_is_free_is_taken_at_once() -> None:
    """In one transaction, and by who holds it already too."""
    steps, answer = drive(lock.lock(LOCK), None, locked(5, 5), None)
    assert (answer.key, answer.header.revision) == (b"l/7", 5)
    assert len(steps) == 3
    steps, answer = drive(lock.lock(LOCK), None, locked(5, 5, made=False))
    assert (answer.key, answer.header.revision) == (b"l/7", 99)
    assert len(steps) == 2


def test_a_lock_is_only_given_to_whose_lease_still_runs() -> None:
    """Else two would hold it: the one whose key is gone, and the next."""
    waits = (None, locked(5, 3), found(b"l/1"), None, GONE, None, found())
    _, answer = drive(lock.lock(LOCK), *waits, found(b"l/7", revision=12), None)
    assert (answer.key, answer.header.revision) == (b"l/7", 12)
    steps, status = drive(lock.lock(LOCK), *waits, found())
    assert status == Status(Code.UNKNOWN, "mutex: session is expired")
    assert asked(steps[-1])[0] == RANGE


@pytest.mark.parametrize("why", [Abandoned(), REFUSED], ids=["abandoned", "failed"])
def test_who_waits_no_longer_for_a_lock_leaves_no_key(why: Exception) -> None:
    """Nor who gave up at the moment of getting it."""
    ways = [(None, locked(5, 3), found(b"l/1"), None), (None, locked(5, 3), found(b"l/1"), None, GONE, None, found())]
    if isinstance(why, Abandoned):
        ways += [(None, locked(5, 5)), (*ways[1], found(b"l/7"))]
    for outcomes in ways:
        steps, end = drive(lock.lock(LOCK), *outcomes, why, DeleteRangeResponse())
        method, request = asked(steps[-1])
        assert (method, request.key) == ("/etcdserverpb.KV/DeleteRange", b"l/7")
        assert end in (Abandoned, REFUSED.status)


def test_unlocking_deletes_the_key() -> None:
    """Whoever has the key's name may do so, as in etcd."""
    steps, _ = drive(lock.unlock(UnlockRequest(key=b"l/7")), DeleteRangeResponse())
    assert asked(steps[0])[1].key == b"l/7"


def test_keys_are_named_by_leases_as_go_prints_them() -> None:
    """Clients read the lease out of the key."""
    assert [own_key(b"n", lease) for lease in (0x7F, -1)] == [b"n/7f", b"n/-1"]


def test_errors_of_inner_calls_keep_their_words() -> None:
    """Those of etcd lose their code, as they do in etcd, which calls itself through a client."""
    assert unmapped(Status(Code.NOT_FOUND, "etcdserver: requested lease not found")).code is Code.UNKNOWN
    assert unmapped(Status(Code.DEADLINE_EXCEEDED, "context deadline exceeded")).code is Code.DEADLINE_EXCEEDED
