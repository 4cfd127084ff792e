"""Proxies that own keys: whatever is delayed, lost, repeated late or paused, a read is never older than it may be.

One member applies every request at one moment of virtual time, so what a key held when is known exactly: a read is
right if its answer was true at some moment between its question and its answer.
"""

from __future__ import annotations

import heapq
from functools import partial
from itertools import count
from random import Random
from typing import TYPE_CHECKING, Any

import pytest
import structlog

from core.errors import EtcdError
from core.mvcc.event import EventType
from core.types import Term
from grpcproxy import leasing as leasing_module
from grpcproxy.leasing import Leasing
from grpcproxy.leasing_session import REVOKE_LEASE
from grpcproxy.leasing_values import Owned
from grpcproxy.methods import DELETE_RANGE, PUT, RANGE, TXN, WATCH
from net.rpc import Code, Status
from proto.kv_pb2 import Event, KeyValue
from proto.rpc_pb2 import (
    DeleteRangeRequest,
    LeaseGrantRequest,
    LeaseKeepAliveRequest,
    LeaseKeepAliveResponse,
    LeaseRevokeRequest,
    PutRequest,
    RangeRequest,
    RangeResponse,
    RequestOp,
    TxnRequest,
    TxnResponse,
    WatchRequest,
    WatchResponse,
)
from services.errors import status_of
from tests.entries import Log, make_applier
from tests.fakes import FakeCall

if TYPE_CHECKING:
    from collections.abc import Callable

    from grpcproxy.leasing_session import Receiver

PREFIX = b"lk/"
KEYS = (b"a", b"b", b"c")
LOST = Status(Code.UNAVAILABLE, "connection lost")
RUN_S = 200.0


class World:
    """Virtual time, and what happens in it."""

    def __init__(self, seed: int) -> None:
        self.random = Random(seed)
        self.now_s = 0.0
        self._order = count()
        self._due: list[tuple[float, int, Callable[[], None]]] = []

    def later(self, delay_s: float, then: Callable[[], None]) -> None:
        """Have *then* called in so many seconds."""
        heapq.heappush(self._due, (self.now_s + delay_s, next(self._order), then))

    def run(self, until_s: float) -> None:
        """Let time pass."""
        while self._due and self._due[0][0] <= until_s:
            self.now_s, _, then = heapq.heappop(self._due)
            then()
        self.now_s = until_s


class Member:
    """A cluster of one, which applies at once and forgets nothing."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.applier = make_applier()
        self.log = Log()
        self.history: dict[bytes, list[tuple[float, bytes | None]]] = {key: [(0.0, None)] for key in KEYS}
        self.watches: list[tuple[Carrier, int, WatchRequest]] = []
        self.events: list[tuple[int, Event]] = []
        self.ends_s: dict[int, float] = {}
        self._lease_ids = count(1)

    def answer(self, path: str, body: bytes) -> bytes | Status:
        """Carry out one request."""
        match path:
            case "/etcdserverpb.KV/Txn":
                return self.apply(txn=TxnRequest.FromString(body))
            case "/etcdserverpb.KV/Range":
                return self.apply(txn=TxnRequest(success=[RequestOp(request_range=RangeRequest.FromString(body))]))
            case "/etcdserverpb.Lease/LeaseGrant":
                request = LeaseGrantRequest.FromString(body)
                request.ID = next(self._lease_ids)
                self.ends_s[request.ID] = self.world.now_s + request.TTL
                return self.apply(lease_grant=request)
            case "/etcdserverpb.Lease/LeaseRevoke":
                revoke = LeaseRevokeRequest.FromString(body)
                self.ends_s.pop(revoke.ID, None)
                return self.apply(lease_revoke=revoke)
        raise AssertionError(path)

    def apply(self, **fields: Any) -> bytes | Status:
        """Apply one entry, and tell of what it changed."""
        entry, _ = self.log.request(**fields)
        self.applier.apply([entry], Term(1))
        self.applier.store.flush()
        [(_, outcome)] = self.applier.take_effects().outcomes
        for revision, changes in self.applier.take_changes():
            for change in changes:
                kv = KeyValue.FromString(change.kv)
                deleted = change.type is not EventType.PUT
                if kv.key in self.history:
                    self.history[kv.key].append((self.world.now_s, None if deleted else kv.value))
                event = Event(type=Event.DELETE if deleted else Event.PUT, kv=kv)
                self.events.append((revision, event))
                for carrier, number, request in self.watches:
                    carrier.tell_of(number, request, [event])
        return status_of(outcome) if isinstance(outcome, EtcdError) else outcome

    def expire(self) -> None:
        """End the leases whose time has come, once a second."""
        for lease in [lease for lease, end_s in self.ends_s.items() if end_s <= self.world.now_s]:
            self.answer(REVOKE_LEASE, LeaseRevokeRequest(ID=lease).SerializeToString())
        self.world.later(1.0, self.expire)

    def held(self, key: bytes, from_s: float, to_s: float) -> set[bytes | None]:
        """Return what *key* held at any moment of that time."""
        values = self.history[key]
        last_before = max(place for place, (at_s, _) in enumerate(values) if at_s <= from_s)
        return {value for at_s, value in values[last_before:] if at_s <= to_s}


class Carrier:
    """The way of one proxy to the member: slow, and now and then lost."""

    endpoint_count = 1

    def __init__(self, world: World, member: Member, faults: float) -> None:
        self.world = world
        self.member = member
        self.faults = faults
        self.paused_until_s = 0.0
        self._numbers = count(1)
        self._streams: dict[int, Receiver] = {}
        self._arrives_s: dict[int, float] = {}

    def now_s(self) -> float:
        """See Carrier."""
        return self.world.now_s

    def pass_on(self, call: Any, body: bytes, then: Callable[[bytes | Status], None]) -> None:
        """See Carrier."""
        path = call.method
        if path == PUT:
            operation = RequestOp(request_put=PutRequest.FromString(body))
            path, body = TXN, TxnRequest(success=[operation]).SerializeToString()
        elif path == DELETE_RANGE:
            operation = RequestOp(request_delete_range=DeleteRangeRequest.FromString(body))
            path, body = TXN, TxnRequest(success=[operation]).SerializeToString()
        self.ask(path, body, (), None, then)

    def ask(
        self, path: str, body: bytes, _metadata: Any, timeout_s: float | None, then: Callable[[bytes | Status], None]
    ) -> None:
        """See Carrier."""
        random = self.world.random
        unsettled = [then]

        def end(outcome: bytes | Status) -> None:
            if unsettled:
                self.deliver(lambda: unsettled.pop()(outcome) if unsettled else None)

        def arrive() -> None:
            outcome = self.member.answer(path, body)
            if path == RANGE and isinstance(outcome, bytes):
                outcome = range_in(outcome)
            if random.random() >= self.faults:
                self.world.later(random.uniform(0.001, 0.05), lambda: end(outcome))

        delay_s = random.uniform(0.001, 0.05)
        if random.random() < self.faults:
            delay_s = random.choice([3.0, 8.0, 20.0])  # it may be carried out long after it was given up
        self.world.later(delay_s, arrive)
        self.world.later(min(timeout_s or 5.0, 5.0), lambda: end(LOST))

    def deliver(self, then: Callable[[], None]) -> None:
        """Let the proxy hear of something, when it is not paused."""
        if self.paused_until_s > self.world.now_s:
            self.world.later(self.paused_until_s - self.world.now_s, then)
        else:
            then()

    def open(self, path: str, receiver: Receiver) -> int:
        """See Carrier."""
        number = next(self._numbers)
        self._streams[number] = receiver
        self._arrives_s[number] = 0.0
        self.in_order(number, receiver.opened)
        if path == WATCH and self.faults:
            self.world.later(self.world.random.uniform(5.0, 120.0), lambda: self.break_off(number))
        return number

    def in_order(self, number: int, then: Callable[[], None]) -> None:
        """Deliver something of a stream behind what came before it."""
        at_s = max(self._arrives_s[number], self.world.now_s + self.world.random.uniform(0.001, 0.3))
        self._arrives_s[number] = at_s
        self.world.later(at_s - self.world.now_s, lambda: self.deliver(then) if number in self._streams else None)

    def break_off(self, number: int) -> None:
        """Lose a stream."""
        self.member.watches = [each for each in self.member.watches if each[:2] != (self, number)]
        receiver = self._streams.pop(number, None)
        if receiver is not None:
            self.deliver(lambda: receiver.finish(LOST))

    def send_on(self, number: int, body: bytes) -> None:
        """See Carrier."""
        if number not in self._streams:
            return
        request = WatchRequest.FromString(body)
        if request.HasField("create_request") and request.create_request.key:
            self.member.watches.append((self, number, request))
            start = request.create_request.start_revision
            self.tell_of(number, request, [event for revision, event in self.member.events if revision >= start])
            return
        lease = LeaseKeepAliveRequest.FromString(body).ID
        self.world.later(self.world.random.uniform(0.001, 0.3), lambda: self._renew(number, lease))

    def _renew(self, number: int, lease: int) -> None:
        ttl_s = 60 if lease in self.member.ends_s else 0
        if ttl_s:
            self.member.ends_s[lease] = self.world.now_s + ttl_s
        answer = LeaseKeepAliveResponse(ID=lease, TTL=ttl_s).SerializeToString()
        if self.world.random.random() >= self.faults and number in self._streams:
            receiver = self._streams[number]
            self.in_order(number, lambda: receiver.send(answer))

    def close(self, number: int) -> None:
        """See Carrier."""
        self._streams.pop(number, None)
        self.member.watches = [each for each in self.member.watches if each[:2] != (self, number)]

    def tell_of(self, number: int, request: WatchRequest, events: list[Event]) -> None:
        """Send the events that a watch is of."""
        create = request.create_request
        seen = [event for event in events if create.key <= event.kv.key < create.range_end]
        if seen and number in self._streams:
            receiver = self._streams[number]
            message = WatchResponse(events=seen).SerializeToString()
            self.in_order(number, lambda: receiver.send(message))


def range_in(answer: bytes) -> bytes:
    """Return the range in the answer of a transaction."""
    outer = TxnResponse.FromString(answer)
    found = outer.responses[0].response_range
    found.header.CopyFrom(outer.header)
    return found.SerializeToString()


class AskedCall(FakeCall):
    """A call of a method, with an end."""

    deadline_s: float | None = None

    def __init__(self, method: str) -> None:
        super().__init__()
        self.method = method


class Run:
    """Clients of several proxies, and what they saw."""

    def __init__(self, seed: int, faults: float, proxies: int = 3) -> None:
        self.world = World(seed)
        self.member = Member(self.world)
        self.carriers = [Carrier(self.world, self.member, faults) for _ in range(proxies)]
        self.proxies = [
            Leasing(carrier, PREFIX, b"", structlog.stdlib.BoundLogger(None, [structlog.testing.LogCapture()], {}))
            for carrier in self.carriers
        ]
        self.reads = self.answered = self.written = 0
        self.stale: list[str] = []
        self._values = count(1)
        self.world.later(1.0, self.member.expire)
        for number in range(proxies):
            self._tick(number)
            for _ in range(3):
                self.world.later(self.world.random.uniform(0.0, 1.0), partial(self._act, number))
        if faults:
            self.world.later(60.0, self._pause)

    def _tick(self, number: int) -> None:
        self.carriers[number].deliver(self.proxies[number].tick)
        self.world.later(0.1, lambda: self._tick(number))

    def _pause(self) -> None:
        """Stop a proxy for longer than its lease lasts, or a little."""
        carrier = self.world.random.choice(self.carriers)
        carrier.paused_until_s = self.world.now_s + self.world.random.choice([2.0, 30.0, 80.0])
        self.world.later(90.0, self._pause)

    def _act(self, number: int) -> None:
        """Let one client do something, and the next thing when it has heard of it."""
        random = self.world.random
        carrier = self.carriers[number]

        def again() -> None:
            self.world.later(random.uniform(0.01, 1.0), lambda: self._act(number))

        if carrier.paused_until_s > self.world.now_s:
            again()
            return
        key, began_s, kind = random.choice(KEYS), self.world.now_s, random.random()
        if kind < 0.7:
            call = AskedCall(RANGE)
            body = RangeRequest(key=key).SerializeToString()

            def take(outcome: bytes | Status) -> None:
                self.reads += 1
                if isinstance(outcome, bytes):
                    self.answered += 1
                    kvs = RangeResponse.FromString(outcome).kvs
                    value = kvs[0].value if kvs else None
                    possible = self.member.held(key, began_s, self.world.now_s)
                    if value not in possible:
                        self.stale.append(
                            f"{key!r} at {began_s:.3f}..{self.world.now_s:.3f}: {value!r}, not {possible}"
                        )
                again()

            self.proxies[number].pass_on(call, body, take)
            return
        value = b"%d" % next(self._values)
        if kind < 0.9:
            call, body = AskedCall(PUT), PutRequest(key=key, value=value).SerializeToString()
        elif kind < 0.95:
            call, body = AskedCall(DELETE_RANGE), DeleteRangeRequest(key=b"a", range_end=b"c").SerializeToString()
        else:
            inner = [RequestOp(request_put=PutRequest(key=each, value=value)) for each in KEYS[:2]]
            nested = TxnRequest(failure=[RequestOp(request_txn=TxnRequest(success=inner))], success=inner)
            call, body = AskedCall(TXN), nested.SerializeToString()

        def end(outcome: bytes | Status) -> None:
            if isinstance(outcome, bytes):
                self.written += 1
                put = call.method == PUT
                if put and value not in self.member.held(key, began_s, self.world.now_s):
                    self.stale.append(f"a put of {value!r} was answered and not carried out")
            again()

        self.proxies[number].pass_on(call, body, end)


@pytest.mark.parametrize("seed", range(6))
def test_no_read_is_older_than_it_may_be(seed: int) -> None:
    """Linearizable reads stay so, though most of them are answered by proxies; and writers get their turn."""
    run = Run(seed, faults=0.03 if seed % 3 else 0.0)
    run.world.run(RUN_S)
    assert run.stale == []
    hits = sum(proxy.hits for proxy in run.proxies)
    assert hits > run.reads / 20, (hits, run.reads)
    assert run.answered > run.reads * 0.8
    assert run.written > 50


def test_owners_that_did_not_yield_to_their_own_writes_would_be_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    """A test that finds no fault that is there would prove nothing."""
    monkeypatch.setattr(Owned, "begin_write", lambda owned: setattr(owned, "writes", owned.writes + 1))
    assert found_stale()


def test_writes_without_their_condition_would_be_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    """The same, of writes past the owner."""

    def write(leasing: Leasing, write: Any, body: bytes) -> None:
        leasing._carrier.pass_on(write.call, body, write.then)

    monkeypatch.setattr(Leasing, "_write", write)
    assert found_stale()


def test_a_lease_that_counted_on_after_a_loss_would_be_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    """The same, of a write that may still be carried out after it was given up."""
    monkeypatch.setattr(leasing_module, "SURE", frozenset(Code))
    assert found_stale(faults=0.1)


def found_stale(faults: float = 0.03) -> bool:
    """Return whether any of some runs finds a read that is too old."""
    for seed in range(100, 112):
        run = Run(seed, faults)
        run.world.run(RUN_S)
        if run.stale:
            return True
    return False
