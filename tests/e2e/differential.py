"""Send one request to two servers and compare what they answer, field by field.

Owns what counts as equal: ids of the cluster and its members, the raft term and ids that a server picks may differ,
and lists that etcd leaves unsorted may come in any order.  EXCEPTIONS lists where the contract (etcd 3.7) wins over
etcd 3.5.1; nothing else is forgiven.
"""

import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import groupby
from typing import Final, NamedTuple

import grpc
from google.protobuf.message import Message

from proto import kv_pb2, rpc_pb2
from tests.e2e.client import CALL_TIMEOUT_S, Stubs

EXCEPTIONS: Final[dict[str, str]] = {
    "sort enums out of range": "3.6 answers 'invalid sort option', 3.5.1 panics or ignores them: never sent",
    "lease of a keys_only answer": "3.7 answers from the index, which has no lease: left out of the comparison",
    "hash_revision": "new in 3.6: left out of the comparison",
    "HashKV at or below the compact revision": "3.6 allows the compact revision and remembers the hashes of the last "
    "compactions, 3.5.1 refuses: only sent for revisions that were never compacted at, which both refuse",
    "tombstone at the compact revision": "3.5.16 and later keep it: no watcher starts there when it is one",
    "txn of a from-key delete and a put with ignore_value or ignore_lease": "3.5.1 panics when the delete took the "
    "put's key: ignore_* is cleared in such a txn; a test of its own asks actcd",
    "txn with several faults": "3.5.1 checks the puts of a txn before its ranges and a put's key before its lease, 3.7 "
    "goes by order, and lease first: either fault is accepted where a txn can have more than one",
    "negative start_revision": "3.7 refuses it at once, 3.5.1 takes it for now: never sent",
    "progress request": "3.5.1 answers also while a watcher is behind or there is none: sent when all have caught up",
    "negative lease ids, and the largest": "3.5.1 forgets them at a restart: not used in the tests that restart",
}
"""What is kept away from the comparison, with the reason."""

TTL_TOLERANCE_S: Final = 2
"""The two servers granted a lease at slightly different moments."""


def seeds(defaults: Sequence[int]) -> Sequence[int]:
    """Seeds to run: ACTCD_SEEDS=7,8 names them, ACTCD_FUZZ_ROUNDS=n with ACTCD_FUZZ_BASE=b means b, b+1, ... b+n-1."""
    named = os.environ.get("ACTCD_SEEDS")
    if named:
        return [int(seed) for seed in named.split(",")]
    rounds, base = os.environ.get("ACTCD_FUZZ_ROUNDS"), os.environ.get("ACTCD_FUZZ_BASE", "1000")
    return range(int(base), int(base) + int(rounds)) if rounds else defaults


class Failure(NamedTuple):
    """A call that ended with a status other than OK."""

    code: str
    text: str | None


Outcome = Message | Failure


def outcome(call: Callable[[], Message]) -> Outcome:
    """The answer of *call* or how it failed."""
    try:
        return call()
    except grpc.RpcError as error:
        # What grpcio raises is a Call too, which its stubs do not say.
        return Failure(error.code().name, error.details())


def without_ids(message: Message) -> None:
    """Clear, in place, the identities and the term in every header of *message*."""
    for field, value in message.ListFields():
        if isinstance(value, rpc_pb2.ResponseHeader):
            value.ClearField("cluster_id")
            value.ClearField("member_id")
            value.ClearField("raft_term")
        elif field.message_type is not None:
            for nested in value if isinstance(value, Iterable) else [value]:
                without_ids(nested)


_SORT_FIELDS: Final = {
    rpc_pb2.RangeRequest.VERSION: "version",
    rpc_pb2.RangeRequest.CREATE: "create_revision",
    rpc_pb2.RangeRequest.MOD: "mod_revision",
    rpc_pb2.RangeRequest.VALUE: "value",
}


def normalise_range(request: rpc_pb2.RangeRequest, response: rpc_pb2.RangeResponse) -> None:
    """Drop what a Range answer may choose: the lease of keys_only, the order of keys that sort equal."""
    if request.keys_only:
        for kv in response.kvs:
            kv.lease = 0
    field = _SORT_FIELDS.get(request.sort_target)
    if field is None:
        return
    ordered: list[kv_pb2.KeyValue] = []
    for _, group in groupby(response.kvs, key=lambda kv: getattr(kv, field)):
        ordered += sorted(group, key=lambda kv: kv.key)
    if response.more and ordered:
        # Which of the keys that sort equal were cut off is the server's choice.
        last = getattr(ordered[-1], field)
        ordered = [kv if getattr(kv, field) != last else kv_pb2.KeyValue(**{field: last}) for kv in ordered]
    del response.kvs[:]
    response.kvs.extend(ordered)


def normalise_txn(request: rpc_pb2.TxnRequest, response: rpc_pb2.TxnResponse) -> None:
    """Normalise the ranges of the branch that was taken, nested ones too."""
    branch = request.success if response.succeeded else request.failure
    for operation, answer in zip(branch, response.responses, strict=False):
        if operation.HasField("request_range") and answer.HasField("response_range"):
            normalise_range(operation.request_range, answer.response_range)
        elif operation.HasField("request_txn") and answer.HasField("response_txn"):
            normalise_txn(operation.request_txn, answer.response_txn)


def normalised(request: Message, answer: Outcome) -> Outcome:
    """A copy of *answer* with everything a server may choose taken out."""
    if isinstance(answer, Failure):
        return answer
    response = type(answer)()
    response.CopyFrom(answer)
    without_ids(response)
    match response:
        case rpc_pb2.RangeResponse():
            assert isinstance(request, rpc_pb2.RangeRequest)
            normalise_range(request, response)
        case rpc_pb2.TxnResponse():
            assert isinstance(request, rpc_pb2.TxnRequest)
            normalise_txn(request, response)
        case rpc_pb2.HashKVResponse():
            response.hash_revision = 0
        case rpc_pb2.LeaseTimeToLiveResponse():
            response.keys[:] = sorted(response.keys)
        case rpc_pb2.LeaseLeasesResponse():
            leases = sorted(response.leases, key=lambda lease: lease.ID)
            del response.leases[:]
            response.leases.extend(leases)
        case _:
            pass
    return response


_FAULTS_FOUND_IN_TURN: Final = frozenset({
    Failure("INVALID_ARGUMENT", "etcdserver: key not found"),
    Failure("NOT_FOUND", "etcdserver: requested lease not found"),
    Failure("OUT_OF_RANGE", "etcdserver: mvcc: required revision has been compacted"),
    Failure("OUT_OF_RANGE", "etcdserver: mvcc: required revision is a future revision"),
})  # fmt: skip


def operations(request: rpc_pb2.TxnRequest) -> Iterator[rpc_pb2.RequestOp]:
    """Every operation of both branches, nested ones too."""
    for operation in (*request.success, *request.failure):
        yield operation
        if operation.HasField("request_txn"):
            yield from operations(operation.request_txn)


def _may_have_two_faults(request: Message) -> bool:
    """Whether a put and a range, or two things about one put, may each be refused."""
    if not isinstance(request, rpc_pb2.TxnRequest):
        return False
    flawed = [
        flaw
        for operation in operations(request)
        for flaw in (
            operation.request_range.revision,
            operation.request_put.lease,
            operation.request_put.ignore_value or operation.request_put.ignore_lease,
        )
        if flaw
    ]
    return len(flawed) > 1


def found_in_turn(request: Message, one: Failure, other: Failure) -> bool:
    """Whether both may be right about *request*, which has several faults."""
    both_are = one in _FAULTS_FOUND_IN_TURN and other in _FAULTS_FOUND_IN_TURN
    return both_are and _may_have_two_faults(request)


def equal(request: Message, one: Outcome, other: Outcome) -> bool:
    """Whether two answers to *request* say the same."""
    one, other = normalised(request, one), normalised(request, other)
    if isinstance(one, Failure) and isinstance(other, Failure):
        return one == other or found_in_turn(request, one, other)
    if isinstance(one, rpc_pb2.LeaseTimeToLiveResponse) and isinstance(other, rpc_pb2.LeaseTimeToLiveResponse):
        if abs(one.TTL - other.TTL) > TTL_TOLERANCE_S:
            return False
        one.TTL = other.TTL
    return one == other


def shown(value: Outcome, characters_max: int = 2000) -> str:
    """A message or failure for people, cut when it is long."""
    text = repr(value) if isinstance(value, Failure) else f"{type(value).__name__}:\n{value}"
    return text if len(text) <= characters_max else f"{text[:characters_max]}... ({len(text)} characters)"


class Twins:
    """Two servers that get the same requests; the first difference ends the test."""

    def __init__(self, subject: Stubs, reference: Stubs, label: str) -> None:
        self._subject = subject
        self._reference = reference
        self._label = label
        self.sent_count = 0

    def call(self, method: str, request: Message) -> Outcome:
        """Send *request* (method as in ``kv.Put``) to both; the reference's answer, once they agree."""
        service, _, name = method.partition(".")

        def send(stubs: Stubs) -> Outcome:
            stub = getattr(getattr(stubs, service), name)
            return outcome(lambda: stub(request, timeout=CALL_TIMEOUT_S))

        expected, got = send(self._reference), send(self._subject)
        self.check(method, request, got=got, expected=expected)
        return expected

    def keep_alive(self, request: rpc_pb2.LeaseKeepAliveRequest) -> Outcome:
        """One keep-alive on a stream of its own, to both."""

        def send(stubs: Stubs) -> Outcome:
            return outcome(lambda: next(stubs.lease.LeaseKeepAlive(iter([request]), timeout=CALL_TIMEOUT_S)))

        expected, got = send(self._reference), send(self._subject)
        self.check("lease.LeaseKeepAlive", request, got=got, expected=expected)
        return expected

    def grant_unnamed(self, request: rpc_pb2.LeaseGrantRequest) -> tuple[int, int]:
        """Grant a lease whose id each server picks; both ids, which stand for each other from now on."""
        assert request.ID == 0
        expected = self._reference.lease.LeaseGrant(request, timeout=CALL_TIMEOUT_S)
        got = self._subject.lease.LeaseGrant(request, timeout=CALL_TIMEOUT_S)
        identities = got.ID, expected.ID
        assert min(identities) > 0, identities
        got.ID = expected.ID = 0
        self.check("lease.LeaseGrant", request, got=got, expected=expected)
        return identities

    def revoke_unnamed(self, subject_id: int, reference_id: int) -> None:
        """Revoke a lease of grant_unnamed on both."""
        request = rpc_pb2.LeaseRevokeRequest(ID=subject_id)
        got = self._subject.lease.LeaseRevoke(request, timeout=CALL_TIMEOUT_S)
        expected = self._reference.lease.LeaseRevoke(
            rpc_pb2.LeaseRevokeRequest(ID=reference_id), timeout=CALL_TIMEOUT_S
        )
        self.check("lease.LeaseRevoke", request, got=got, expected=expected)

    def check(self, method: str, request: Message, *, got: Outcome, expected: Outcome) -> None:
        """AssertionError that shows request and answers unless they are equal."""
        self.sent_count += 1
        assert equal(request, got, expected), (
            f"{self._label}, request {self.sent_count}, {method}: answers differ\n"
            f"--- request {shown(request)}\n--- subject {shown(normalised(request, got))}\n"
            f"--- etcd 3.5.1 {shown(normalised(request, expected))}"
        )
