"""What clients ask, and how an answer is judged.

Every value is written once, so it names its write.  An answer tells its revision: what it says must be what the keys
held there, and the revision must not lie before anything that was answered before the question was asked.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from proto.kv_pb2 import KeyValue
from proto.rpc_pb2 import (
    CompactionRequest,
    CompactionResponse,
    Compare,
    DeleteRangeRequest,
    DeleteRangeResponse,
    LeaseGrantRequest,
    LeaseGrantResponse,
    LeaseRevokeRequest,
    LeaseRevokeResponse,
    PutRequest,
    PutResponse,
    RangeRequest,
    RangeResponse,
    RequestOp,
    TxnRequest,
    TxnResponse,
)
from sim.schedule import Failure

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from sim.leases import Leases
    from sim.truth import Truth


class Operation(NamedTuple):
    """One question, and who judges the answer (which returns the revision in it)."""

    method: str
    payload: bytes
    judge: Callable[[bytes], int]
    text: str
    linearizable: bool = True
    value: bytes = b""
    """What it writes, if it does."""


def put(truth: Truth, key: bytes, value: bytes, *, lease: int = 0) -> Operation:
    """Write one key."""

    def judge(answer: bytes) -> int:
        got = PutResponse.FromString(answer)
        revision: int = got.header.revision
        written(truth, key, value, revision)
        before = truth.get(key, revision - 1)
        same(
            "the previous value of a put", [got.prev_kv] if got.HasField("prev_kv") else [], [before] if before else []
        )
        return revision

    request = PutRequest(key=key, value=value, lease=lease, prev_kv=True)
    return Operation(
        "/etcdserverpb.KV/Put",
        request.SerializeToString(),
        judge,
        f"put {key!r} {value!r} lease={lease:x}",
        value=value,
    )


def delete(truth: Truth, key: bytes, range_end: bytes) -> Operation:
    """Delete a key or a range."""

    def judge(answer: bytes) -> int:
        got = DeleteRangeResponse.FromString(answer)
        revision: int = got.header.revision
        if got.deleted:
            before = truth.range(key, range_end, revision - 1)
            same("what a delete removed", got.prev_kvs, before)
            gone = [change.key for change in truth.changes(revision) if change.tombstone]
            if gone != [KeyValue.FromString(kv).key for kv in before]:
                raise Failure(f"a delete at revision {revision} was answered with {got}, but removed {gone}")
        elif truth.range(key, range_end, revision):
            raise Failure(f"a delete of {key!r} found nothing at revision {revision}, where there is something")
        return revision

    request = DeleteRangeRequest(key=key, range_end=range_end, prev_kv=True)
    return Operation(
        "/etcdserverpb.KV/DeleteRange", request.SerializeToString(), judge, f"delete {key!r} {range_end!r}"
    )


def read(truth: Truth, key: bytes, range_end: bytes, *, serializable: bool, revision: int = 0) -> Operation:
    """Read a key or a range, now or as of *revision*."""

    def judge(answer: bytes) -> int:
        got = RangeResponse.FromString(answer)
        current: int = got.header.revision
        same(f"a read at revision {revision or current}", got.kvs, truth.range(key, range_end, revision or current))
        if got.count != len(got.kvs):
            raise Failure(f"a read of {len(got.kvs)} keys counts {got.count}")
        return current

    request = RangeRequest(key=key, range_end=range_end, serializable=serializable, revision=revision)
    kind = "serializable" if serializable else "linearizable"
    return Operation(
        "/etcdserverpb.KV/Range",
        request.SerializeToString(),
        judge,
        f"{kind} read {key!r} {range_end!r} at {revision}",
        linearizable=not serializable,
    )


def compare_and_put(truth: Truth, key: bytes, revision: int, others: Sequence[bytes], value: bytes) -> Operation:
    """Write *key* and *others* in one go if nobody has changed *key* since *revision*; else read it."""

    def judge(answer: bytes) -> int:
        got = TxnResponse.FromString(answer)
        current: int = got.header.revision
        before = truth.get(key, current - 1 if got.succeeded else current)
        held = (KeyValue.FromString(before).mod_revision if before else 0) == revision
        if held is not got.succeeded:
            raise Failure(f"a transaction at revision {current} says {got.succeeded}, but the comparison is {held}")
        if got.succeeded:
            for number, each in enumerate([key, *others]):
                written(truth, each, b"%b/%d" % (value, number), current)
        else:
            same("the other branch of a transaction", got.responses[0].response_range.kvs, [before] if before else [])
        return current

    puts = [
        RequestOp(request_put=PutRequest(key=each, value=b"%b/%d" % (value, number)))
        for number, each in enumerate([key, *others])
    ]
    request = TxnRequest(
        compare=[Compare(key=key, target=Compare.MOD, result=Compare.EQUAL, mod_revision=revision)],
        success=puts,
        failure=[RequestOp(request_range=RangeRequest(key=key))],
    )
    return Operation(
        "/etcdserverpb.KV/Txn",
        request.SerializeToString(),
        judge,
        f"txn {key!r} unchanged since {revision}: put {value!r} to it and {others!r}",
        value=value + b"/0",
    )


def compact(revision: int) -> Operation:
    """Drop the history before *revision*."""

    def judge(answer: bytes) -> int:
        current: int = CompactionResponse.FromString(answer).header.revision
        return current

    request = CompactionRequest(revision=revision)
    return Operation("/etcdserverpb.KV/Compact", request.SerializeToString(), judge, f"compact {revision}")


def grant(leases: Leases, lease: int, ttl_s: int, asked_s: float) -> Operation:
    """Grant a lease."""

    def judge(answer: bytes) -> int:
        got = LeaseGrantResponse.FromString(answer)
        if (got.ID, max(got.TTL, ttl_s)) != (lease, got.TTL):
            raise Failure(f"lease {lease:x} for {ttl_s} s was granted as {got}")
        leases.promised(lease, got.TTL, asked_s)
        revision: int = got.header.revision
        return revision

    request = LeaseGrantRequest(ID=lease, TTL=ttl_s)
    return Operation(
        "/etcdserverpb.Lease/LeaseGrant", request.SerializeToString(), judge, f"grant {lease:x} for {ttl_s} s"
    )


def revoke(lease: int) -> Operation:
    """Revoke a lease."""

    def judge(answer: bytes) -> int:
        revision: int = LeaseRevokeResponse.FromString(answer).header.revision
        return revision

    request = LeaseRevokeRequest(ID=lease)
    return Operation("/etcdserverpb.Lease/LeaseRevoke", request.SerializeToString(), judge, f"revoke {lease:x}")


def written(truth: Truth, key: bytes, value: bytes, revision: int) -> None:
    """Check that *revision* wrote *value* to *key*."""
    for change in truth.changes(revision):
        if change.key == key and not change.tombstone and KeyValue.FromString(change.kv).value == value:
            return
    raise Failure(f"the write of {value!r} to {key!r} was acknowledged at revision {revision}, which does not hold it")


def same(what: str, got: Sequence[KeyValue], expected: Sequence[bytes]) -> None:
    """Check that both are the same KeyValues."""
    if [kv.SerializeToString(deterministic=True) for kv in got] != list(expected):
        shown = [KeyValue.FromString(kv) for kv in expected]
        raise Failure(f"{what} is {list(got)}, expected {shown}")
