"""Keys that this proxy owns, so that it may answer linearizable reads of them itself.

The protocol is that of etcd's client package ``leasing``, so proxies of etcd and these may be mixed.  Who owns a key
has, below the prefix, a *leasing key* of the same name on a lease.  Whoever wants to write the key without owning it
puts REVOKE there and waits until the owner has deleted it.  Every write carries, in its transaction, the condition that
nobody else owns what it writes; that alone keeps reads linearizable, and the watch only makes owners quick to yield.
It holds among those who go through such proxies: a write that goes past them is not noticed, as in etcd.

Unlike etcd's: a key that is being written is read at the members; a write whose outcome is unknown gives up the lease,
since it may still be carried out; keys on a lease of their own, which may vanish by themselves, are never owned.
Belongs to FrontActor.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any, Final

from google.protobuf.message import DecodeError

from core.metrics import Sample
from grpcproxy.cache import overlap
from grpcproxy.kv import writes
from grpcproxy.leasing_session import CALL_TIMEOUT_S, RETRY_S, Session
from grpcproxy.leasing_values import SURE, Owned, Write, created_at, may_be_owned, unwrapped
from grpcproxy.methods import DELETE_RANGE, PUT, RANGE, TXN
from grpcproxy.namespace import FROM_KEY, prefix_end
from grpcproxy.passed import NotPassedOn, metadata_of
from grpcproxy.statuses import malformed
from net.rpc import Code, Status
from proto.kv_pb2 import Event
from proto.rpc_pb2 import (
    Compare,
    DeleteRangeRequest,
    PutRequest,
    RangeRequest,
    RangeResponse,
    RequestOp,
    ResponseHeader,
    TxnRequest,
    TxnResponse,
)
from services.identity import token_in

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from grpcproxy.leasing_session import Carrier, Outcome
    from grpcproxy.leasing_values import Interval
    from net.rpc import Call
    from proto.kv_pb2 import KeyValue

REVOKE: Final = b"REVOKE"
YIELDED_S: Final = 2.0
"""A key that others want to write is not acquired again so soon (etcd's value)."""

OWNED_MAX: Final = 100_000
"""Keys that are owned at once; others are read at the members."""


class Leasing:
    """Handles the unary calls of etcdserverpb.KV that may be answered here, or must not disturb other owners."""

    def __init__(self, carrier: Carrier, prefix: bytes, namespace: bytes, log: Any) -> None:  # noqa: ANN401 - structlog's
        self._carrier = carrier
        self._prefix = prefix
        self._session = Session(carrier, prefix, namespace, self._seen, log)
        self._owned: dict[bytes, Owned] = {}
        self._acquiring: dict[bytes, bool] = {}
        """Keys, and whether somebody wanted them back before it was known that they are owned."""
        self._yielded: dict[bytes, float] = {}
        """When keys were given up, or could not be had."""
        self._yielding: dict[bytes, int] = {}
        """Own leasing keys that are to be deleted, with the revision at which they were created."""
        self._writing: set[Write] = set()
        """Those that are at a member."""
        self._waiting: list[Write] = []
        """Those that wait for owners."""
        self._header = ResponseHeader()
        self.hits = 0

    @property
    def endpoint_count(self) -> int:
        """See Passing."""
        return self._carrier.endpoint_count

    def pass_on(self, call: Call, body: bytes, then: Callable[[Outcome], None]) -> None:
        """See Passing."""
        handlers = {RANGE: self._range, PUT: self._put, DELETE_RANGE: self._delete_range, TXN: self._txn}
        handlers.get(call.method, self._carrier.pass_on)(call, body, then)

    def samples(self) -> list[Sample]:
        """Return how much is owned, and what that was good for."""
        return [
            Sample("actcd_proxy_leased_keys", len(self._owned)),
            Sample("actcd_proxy_leased_reads_total", self.hits),
        ]

    def tick(self) -> None:
        """Go on with what has waited long enough."""
        if self._session.tick():
            self._owned.clear()
        now_s = self._carrier.now_s()
        for key in [key for key, at_s in self._yielded.items() if now_s - at_s > YIELDED_S]:
            del self._yielded[key]
        self._wake(lambda write: now_s >= write.again_s)

    def stop(self) -> None:
        """Give everything back, so that nobody has to wait until the lease ends."""
        self._owned.clear()
        self._session.stop()

    # -- reads -------------------------------------------------------------------------------------------------------

    def _range(self, call: Call, body: bytes, then: Callable[[Outcome], None]) -> None:
        request = RangeRequest.FromString(body)
        key = request.key
        if not self._session.good or not may_be_owned(request) or token_in(call.metadata) is not None:
            self._carrier.pass_on(call, body, then)
            return
        owned = self._owned.get(key)
        if owned is not None and owned.known:
            self.hits += 1
            then(self._answer(request, owned.kv))
        elif owned is not None and not owned.writes:
            self._fill(call, request, owned, then)
        elif owned is not None or request.serializable or not self._may_acquire(key):
            self._carrier.pass_on(call, body, then)
        else:
            self._acquire(call, request, then)

    def _answer(self, request: RangeRequest, kv: KeyValue | None) -> bytes:
        """Return the answer to a range of one key that holds *kv*.

        Nobody has changed it since, so it is the answer at the newest revision that this proxy has heard of.
        """
        answer = RangeResponse(header=self._header, count=0 if kv is None else 1)
        if kv is not None and not request.count_only:
            answer.kvs.append(kv)
            if request.keys_only:
                answer.kvs[0].value = b""
        return answer.SerializeToString()

    def _fill(self, call: Call, request: RangeRequest, owned: Owned, then: Callable[[Outcome], None]) -> None:
        """Read at a member what a key that is owned holds."""
        key, generation = request.key, owned.generation

        def end(outcome: Outcome) -> None:
            if isinstance(outcome, Status):
                then(outcome)
                return
            try:
                answer = RangeResponse.FromString(outcome)
            except DecodeError as error:
                then(malformed(error))
                return
            self._learn(answer.header)
            kv = answer.kvs[0] if answer.kvs else None
            if self._owned.get(key) is owned and owned.generation == generation:
                self._know(key, owned, kv)
            then(self._answer(request, kv))

        self._ask(call, RANGE, RangeRequest(key=key).SerializeToString(), end)

    def _know(self, key: bytes, owned: Owned, kv: KeyValue | None) -> None:
        if kv is not None and kv.lease:
            del self._owned[key]  # it may vanish without a word
            self._yielded[key] = self._carrier.now_s()
            self._yield(self._prefix + key, owned.created)
        else:
            owned.known, owned.kv = True, kv

    def _may_acquire(self, key: bytes) -> bool:
        # A write under way may find the key owned, be carried out, and not be known to have touched what is owned.
        return (
            key not in self._yielded
            and key not in self._acquiring
            and len(self._owned) < OWNED_MAX
            and not any(write.touches(key) for write in self._writing)
        )

    def _acquire(self, call: Call, request: RangeRequest, then: Callable[[Outcome], None]) -> None:
        """Read a key, and own it from then on if nobody else does."""
        key, session = request.key, self._session.lease
        leasing_key = self._prefix + key
        reading = RequestOp(request_range=RangeRequest(key=key))
        owning = RequestOp(request_put=PutRequest(key=leasing_key, lease=session))
        free = Compare(target=Compare.CREATE, result=Compare.EQUAL, key=leasing_key, create_revision=0)
        unleased = Compare(target=Compare.LEASE, result=Compare.EQUAL, key=key, lease=0)
        txn = TxnRequest(compare=[free, unleased], success=[reading, owning], failure=[reading])
        self._acquiring[key] = False

        def end(outcome: Outcome) -> None:
            spoiled = self._acquiring.pop(key)
            answer = self._txn_answer(outcome, then)
            if answer is None:
                return
            found = answer.responses[0].response_range
            kv = found.kvs[0] if found.kvs else None
            if not answer.succeeded:
                self._yielded[key] = self._carrier.now_s()
            elif spoiled:
                self._yield(leasing_key, answer.header.revision)
            elif session == self._session.lease:
                owned = self._owned[key] = Owned(answer.header.revision)
                self._know(key, owned, kv)
            then(self._answer(request, kv))

        self._ask(call, TXN, txn.SerializeToString(), end)

    # -- writes ------------------------------------------------------------------------------------------------------

    def _put(self, call: Call, body: bytes, then: Callable[[Outcome], None]) -> None:
        put = PutRequest.FromString(body)
        self._write(Write(call, RequestOp(request_put=put), [(put.key, b"")], then), body)

    def _delete_range(self, call: Call, body: bytes, then: Callable[[Outcome], None]) -> None:
        delete = DeleteRangeRequest.FromString(body)
        self._write(Write(call, RequestOp(request_delete_range=delete), [(delete.key, delete.range_end)], then), body)

    def _txn(self, call: Call, body: bytes, then: Callable[[Outcome], None]) -> None:
        txn = TxnRequest.FromString(body)
        self._write(Write(call, RequestOp(request_txn=txn), list(dict.fromkeys(writes(txn))), then), body)

    def _write(self, write: Write, body: bytes) -> None:
        """Write, once nobody else owns any of it."""
        if not write.intervals or not all(key for key, _ in write.intervals):
            self._carrier.pass_on(write.call, body, write.then)  # it changes nothing, or is refused
            return
        try:
            write.metadata = metadata_of(write.call)
        except NotPassedOn as error:
            write.then(Status(Code.INVALID_ARGUMENT, str(error)))
            return
        self._attempt(write)

    def _attempt(self, write: Write) -> None:
        if write.call.done:
            return
        lease = self._session.lease
        touched: list[Owned] = []
        guards, looks = [], []
        for place, interval in enumerate(write.intervals):
            within = self._owned_in(interval)
            touched += within
            start, end = self._leasing_interval(interval)
            if lease and (within or place in write.mine):
                guard = Compare(target=Compare.LEASE, result=Compare.EQUAL, key=start, range_end=end, lease=lease)
            else:
                guard = Compare(target=Compare.CREATE, result=Compare.EQUAL, key=start, range_end=end)
            guards.append(guard)
            looks.append(RequestOp(request_range=RangeRequest(key=start, range_end=end)))
        write.tries += 1
        self._writing.add(write)
        for key in self._acquiring:
            if write.touches(key):
                self._acquiring[key] = True
        for owned in touched:
            owned.begin_write()
        txn = TxnRequest(compare=guards, success=[write.operation], failure=looks).SerializeToString()
        self._ask(write.call, TXN, txn, partial(self._end_attempt, write, lease, touched))

    def _end_attempt(self, write: Write, lease: int, touched: Sequence[Owned], outcome: Outcome) -> None:
        self._writing.discard(write)
        for owned in touched:
            owned.writes -= 1
        owning = bool(touched or write.mine) and lease == self._session.lease
        if owning and isinstance(outcome, Status) and outcome.code not in SURE:
            # It may be carried out yet.  Under another lease its condition does not hold any more.
            self._give_up_all()
        answer = self._txn_answer(outcome, write.then)
        if answer is None:
            return
        if answer.succeeded:
            if any(overlap(self._prefix, prefix_end(self._prefix), *interval) for interval in write.intervals):
                self._give_up_all()  # leasing keys themselves were written
            write.then(unwrapped(answer))
            return
        self._find_owners(write, lease, answer)
        if not write.awaits and write.tries == 1:
            self._attempt(write)  # this proxy has come to own it, or has ceased to, meanwhile
            return
        write.again_s = self._carrier.now_s() + (RETRY_S if write.awaits else 0.0)
        self._waiting.append(write)

    def _find_owners(self, write: Write, lease: int, answer: TxnResponse) -> None:
        """Take note who owns what is to be written, and ask others for it."""
        write.mine.clear()
        write.awaits.clear()
        own: set[bytes] = set()
        for place, found in enumerate(answer.responses):
            for kv in found.response_range.kvs:
                if lease and kv.lease == lease:
                    write.mine.add(place)
                    own.add(kv.key[len(self._prefix) :])
                else:
                    write.awaits.add(kv.key)
                    self._want_back(write, kv)
        for key, end in write.intervals:
            for each in [each for each in self._owned if overlap(each, b"", key, end) and each not in own]:
                del self._owned[each]  # somebody has deleted its leasing key

    def _want_back(self, write: Write, kv: KeyValue) -> None:
        """Ask the owner of a key for it."""
        if kv.value == REVOKE:
            return  # somebody has asked already
        there = created_at(kv.key, kv.create_revision)
        asking = RequestOp(request_put=PutRequest(key=kv.key, value=REVOKE, ignore_lease=True))
        txn = TxnRequest(compare=[there], success=[asking]).SerializeToString()
        self._carrier.ask(TXN, txn, write.metadata, CALL_TIMEOUT_S, lambda _outcome: None)

    def _wake(self, due: Callable[[Write], bool]) -> None:
        waiting, self._waiting = self._waiting, []
        for write in waiting:
            if due(write):
                self._attempt(write)
            elif not write.call.done:
                self._waiting.append(write)

    # -- what others do ----------------------------------------------------------------------------------------------

    def _seen(self, event: Event) -> None:
        """Take note of a change of a leasing key."""
        leasing_key = event.kv.key
        key = leasing_key[len(self._prefix) :]
        if event.type == Event.DELETE:
            self._owned.pop(key, None)
            for write in self._waiting:
                write.awaits.discard(leasing_key)
            self._wake(lambda write: not write.awaits)
        elif event.kv.value == REVOKE and event.kv.lease in {self._session.lease, *self._session.past}:
            self._owned.pop(key, None)
            self._yielded[key] = self._carrier.now_s()
            if key in self._acquiring:
                self._acquiring[key] = True
            self._yield(leasing_key, event.kv.create_revision)

    def _yield(self, leasing_key: bytes, create_revision: int) -> None:
        """Delete an own leasing key, whose key is not answered from here any more."""
        if self._yielding.get(leasing_key) == create_revision:
            return
        self._yielding[leasing_key] = create_revision
        deleting = RequestOp(request_delete_range=DeleteRangeRequest(key=leasing_key))
        txn = TxnRequest(compare=[created_at(leasing_key, create_revision)], success=[deleting]).SerializeToString()

        def end(outcome: Outcome) -> None:
            if isinstance(outcome, Status) and outcome.code not in SURE and self._session.lease:
                self._carrier.ask(TXN, txn, (), CALL_TIMEOUT_S, end)
            elif self._yielding.get(leasing_key) == create_revision:
                del self._yielding[leasing_key]

        self._carrier.ask(TXN, txn, (), CALL_TIMEOUT_S, end)

    def _give_up_all(self) -> None:
        self._owned.clear()
        self._session.drop()

    # -- parts -------------------------------------------------------------------------------------------------------

    def _ask(self, call: Call, path: str, body: bytes, then: Callable[[Outcome], None]) -> None:
        """Ask in the name of a client, and hear of the end even if that client does not."""
        try:
            metadata = metadata_of(call)
        except NotPassedOn as error:
            then(Status(Code.INVALID_ARGUMENT, str(error)))
            return
        deadline_s = call.deadline_s
        timeout_s = None if deadline_s is None else max(deadline_s - self._carrier.now_s(), 0.0)
        self._carrier.ask(path, body, metadata, timeout_s, then)

    def _txn_answer(self, outcome: Outcome, then: Callable[[Outcome], None]) -> TxnResponse | None:
        """Return the answer to a transaction; None if there is none, which *then* has been told."""
        if isinstance(outcome, Status):
            then(outcome)
            return None
        try:
            answer = TxnResponse.FromString(outcome)
        except DecodeError as error:
            then(malformed(error))
            return None
        self._learn(answer.header)
        return answer

    def _learn(self, header: ResponseHeader) -> None:
        if header.revision >= self._header.revision:
            self._header = header

    def _owned_in(self, interval: Interval) -> list[Owned]:
        key, end = interval
        if not end:
            owned = self._owned.get(key)
            return [] if owned is None else [owned]
        return [owned for each, owned in self._owned.items() if overlap(each, b"", key, end)]

    def _leasing_interval(self, interval: Interval) -> Interval:
        key, end = interval
        if not end:
            return self._prefix + key, b""
        return self._prefix + key, prefix_end(self._prefix) if end == FROM_KEY else self._prefix + end
