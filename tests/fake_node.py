"""A Node for tests of services: answers from a real view, and keeps whatever services ask of it."""

from __future__ import annotations

import sys
from random import Random
from typing import TYPE_CHECKING, Any, NamedTuple

from core.apply.header import ResponseHeaders
from core.auth.rules import NO_RULES, NOBODY, Identity
from core.auth.tokens import SimpleTokens
from core.errors import EtcdError, NoSpace
from core.membership.downgrade import Downgrade
from core.mvcc.backend import MemoryBackend
from core.mvcc.store import Store
from core.mvcc.watch_streams import StreamId
from core.types import LeaseId, MemberId, Term
from services.errors import status_of
from services.node import ApiLimits
from services.passwords import Passwords
from services.request_times import RequestTimes
from services.tokens import SimpleScheme, TokenScheme
from services.trace_pages import InFlight

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from core.mvcc.view import View
    from core.raft.messages import ConfChange
    from net.rpc import Call, Context, Stream
    from services.node import Answerable, Asker, Count, Export
    from services.slow_requests import SlowRequest

MEMBER = MemberId(0xA1)
CLUSTER = 0xC1


class Proposed(NamedTuple):
    """One proposal: for whom, as which field, with which bytes."""

    call: Call
    tag: bytes
    body: bytes
    as_caller: bool = True


class FakeNode:
    """The node.  Reads wait in *reads* until run_reads; questions wait in *asked* until answered by the test."""

    def __init__(self, **limits: int) -> None:
        self.headers = ResponseHeaders(CLUSTER, MEMBER)
        self.limits = ApiLimits(**limits)
        self.store = Store.open(MemoryBackend())
        self.store.build_ranks_step(1000)
        self.store.flush()
        self.view = self.store.view()
        self.term = Term(3)
        self.leader = MEMBER
        self.member_id = MEMBER
        self.commit_index = 9
        self.is_learner = False
        self.cluster_version = "3.6.0"
        self.is_roomy = True
        self.counts = True
        self.costs: list[int] = []
        self.proposed: list[Proposed] = []
        self.reads: list[tuple[Asker, Callable[[View], None]]] = []
        self.jobs: list[tuple[Any, Callable[[], bytes]]] = []
        self.asked: list[tuple[Any, ...]] = []
        self.deadlines: list[tuple[float, Callable[[], None]]] = []
        self.watched: list[tuple[Any, ...]] = []
        self.export: Export | EtcdError | None = None
        self.auth = NO_RULES
        self.downgrade = Downgrade()
        self.identity: Identity | EtcdError | None = NOBODY
        """Who calls; None while that cannot be told yet (see tell_identity)."""
        self.unidentified: list[tuple[Callable[[Identity], None], Callable[[EtcdError], None]]] = []
        self.passwords = Passwords(4, 1, bytes)
        self.flight = InFlight((), 0, 0.0, ())
        self.slow: list[SlowRequest] = []
        self.times = RequestTimes(lambda: 0.0, lambda *_anything: None)
        self.tokens: TokenScheme = SimpleScheme(SimpleTokens(300), Random(1))
        self.hashes: list[tuple[Callable[[], object], Callable[[object], None]]] = []

    def put(self, *keys: bytes) -> None:
        """Write these keys, each with the value ``v``, in one revision each, and publish."""
        for key in keys:
            transaction = self.store.transaction()
            transaction.put(key, b"v", 0)
            transaction.end()
        self.publish()

    def publish(self) -> None:
        """Make the store's present state the view."""
        self.store.flush()
        self.view = self.store.view()

    def run_reads(self) -> None:
        """Let the reads that wait go on, with the newest view."""
        reads, self.reads = self.reads, []
        for asker, then in reads:
            if not asker.done:
                then(self.view)

    def run_jobs(self) -> None:
        """Do the work that was handed over."""
        jobs, self.jobs = self.jobs, []
        for call, job in jobs:
            if call.done:
                continue
            try:
                call.reply(job())
            except EtcdError as error:
                call.fail(status_of(error))

    def in_flight(self) -> InFlight:
        """See Node."""
        return self.flight

    def slow_requests(self) -> Sequence[SlowRequest]:
        """See Node."""
        return self.slow

    def header(self) -> bytes:
        """See Node."""
        return self.headers.encode(self.view.revision, self.term)

    def propose(self, call: Call, tag: bytes, body: bytes, *, as_caller: bool = True) -> None:
        """See Node."""
        self.proposed.append(Proposed(call, tag, body, as_caller))

    def identify(self, context: Context, then: Callable[[Identity], None], refuse: Callable[[EtcdError], None]) -> None:
        """See Node."""
        if self.identity is None:
            self.unidentified.append((then, refuse))
        elif isinstance(self.identity, EtcdError):
            refuse(self.identity)
        else:
            then(self.identity)

    def tell_identity(self, identity: Identity) -> None:
        """Answer those who wait to know who calls."""
        self.identity = identity
        waiting, self.unidentified = self.unidentified, []
        for then, _ in waiting:
            then(identity)

    def hash_password(self, call: Call, job: Callable[[], object], then: Callable[[object], None]) -> None:
        """See Node."""
        self.hashes.append((job, then))

    def run_hashes(self) -> None:
        """Do what hash_password was handed, as a worker would."""
        hashes, self.hashes = self.hashes, []
        for job, then in hashes:
            try:
                outcome = job()
            except EtcdError as error:
                outcome = error
            then(outcome)

    def read(self, asker: Asker, then: Callable[[View], None]) -> None:
        """See Node."""
        self.reads.append((asker, then))

    def work(self, call: Any, job: Callable[[], bytes], *, slow: bool = False) -> None:
        """See Node."""
        del slow
        self.jobs.append((call, job))

    def hash_question(self, revision: int, then: Callable[..., None]) -> None:
        """See Node: no compaction has left a hash."""
        del revision
        then((self.view, None))

    def counter(self, view: View) -> Count | None:
        """See Node."""
        return self.store.counter_for(view) if self.counts else None

    @property
    def fits_bytes(self) -> int:
        """See Node."""
        return sys.maxsize if self.is_roomy else -1

    def may_grow(self, call: Call, cost: int) -> bool:
        """See Node."""
        self.costs.append(cost)
        if not self.is_roomy and cost:
            call.fail(status_of(NoSpace()))
            return False
        return True

    def make_lease_id(self) -> LeaseId:
        """See Node."""
        return LeaseId(77)

    def renew_lease(self, lease: LeaseId, then: Callable[[int | EtcdError], None]) -> None:
        """See Node."""
        self.asked.append(("renew", lease, then))

    def lease_times(self, lease: LeaseId, then: Callable[..., None]) -> None:
        """See Node."""
        self.asked.append(("times", lease, then))

    def lease_keys(self, lease: LeaseId, then: Callable[[Sequence[bytes]], None]) -> None:
        """See Node."""
        self.asked.append(("keys", lease, then))

    def leased_keys(self, then: Callable[[Sequence[bytes]], None]) -> None:
        """See Node."""
        self.asked.append(("leased keys", then))

    def list_leases(self, then: Callable[[Sequence[tuple[float, LeaseId]]], None]) -> None:
        """See Node."""
        self.asked.append(("leases", then))

    def members(self, then: Callable[[Sequence[bytes]], None]) -> None:
        """See Node."""
        self.asked.append(("members", then))

    def alarms(self, then: Callable[[Sequence[tuple[MemberId, int]]], None]) -> None:
        """See Node."""
        self.asked.append(("alarms", then))

    def wall_s(self) -> int:
        """See Node."""
        return 1_700_000_000

    def change_members(self, change: ConfChange, then: Callable[[Sequence[bytes] | EtcdError], None]) -> None:
        """See Node."""
        self.asked.append(("change", change, then))

    def promote_member(self, member: MemberId, then: Callable[[Sequence[bytes] | EtcdError], None]) -> None:
        """See Node."""
        self.asked.append(("promote", member, then))

    def move_leader(self, to: MemberId, then: Callable[[EtcdError | None], None]) -> None:
        """See Node."""
        self.asked.append(("move", to, then))

    def raft_status(self, then: Callable[[Mapping[str, object]], None]) -> None:
        """See Node."""
        self.asked.append(("raft", then))

    def profile(self, answer: Answerable, job: Callable[[], bytes]) -> None:
        """See Node."""
        self.jobs.append((answer, job))

    def at_deadline(self, timeout_s: float, then: Callable[[], None]) -> tuple[float, Callable[[], None]]:
        """See Node."""
        deadline = (timeout_s, then)
        self.deadlines.append(deadline)
        return timeout_s, lambda: self.deadlines.remove(deadline)

    def describe_extensions(self, then: Callable[[Any], None]) -> None:
        """See Node."""
        self.asked.append(("extensions", then))

    def gather(self, then: Callable[[Any], None]) -> None:
        """See Node."""
        self.asked.append(("gather", then))

    def defragment(self, then: Callable[[object], None]) -> None:
        """See Node."""
        self.asked.append(("defragment", then))

    def open_export(self) -> Export | EtcdError:
        """See Node."""
        assert self.export is not None, "the test has no export to give"
        return self.export

    def work_on_export(self, job: Callable[[], object], then: Callable[[object], None]) -> None:
        """See Node."""
        then(job())

    def close_export(self, export: Export, error: str) -> None:
        """See Node."""
        self.asked.append(("export closed", export, error))

    def sizes(self, then: Callable[[tuple[int, int]], None]) -> None:
        """See Node."""
        self.asked.append(("sizes", then))

    def answer(self, *values: object) -> None:
        """Answer the oldest question."""
        self.asked.pop(0)[-1](*values)

    def open_watch(self, stream: Stream) -> StreamId:
        """See Node."""
        self.watched.append(("open", stream))
        return StreamId(5)

    def watch(self, number: StreamId, request: bytes, user: str | None = None, refusal: str = "") -> None:
        """See Node."""
        asked = () if user is None else (user, refusal)
        self.watched.append(("request", number, request, *asked))

    def watch_drained(self, number: StreamId) -> None:
        """See Node."""
        self.watched.append(("drained", number))

    def close_watch(self, number: StreamId) -> None:
        """See Node."""
        self.watched.append(("closed", number))
