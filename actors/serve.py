"""ServeActor: one client listener.

It owns the sockets' engine and everything that waits for an answer here: calls by request id, reads by the index they
need, watch streams by number.  Services see it as their Node.  Requests that arrive together are proposed together.
"""

from __future__ import annotations

import asyncio
import heapq
from functools import partial
from typing import TYPE_CHECKING, Any, Protocol, final

from actors.base import Home, NodeActor
from actors.messages.apply import Defragment, Inspect, Observe, ObserveAuth, ObserveCluster, ObserveOutcomes
from actors.messages.common import NO_DOWNGRADE, ActivityIs, ClusterIs, Tick
from actors.messages.lease import ListLeases, Renew, TimeToLive
from actors.messages.membership import ChangeMembers, MoveLeader, PromoteMember
from actors.messages.metrics import Gather, Measure, Measured
from actors.messages.peer_transport import ObserveActivity
from actors.messages.raft import InspectRaft, ObserveRole, Propose, ReadIndex, RoleIs
from actors.messages.serve import (
    Accepted,
    Answered,
    AuthIs,
    Completed,
    Drain,
    Open,
    Published,
    ReadIndexed,
    Refused,
    Renewed,
    ServeMessage,
    TokensUsed,
    WatchFrames,
    WritesRefused,
)
from actors.messages.wal import ObserveSpace
from actors.messages.watch import StreamBlocked, StreamClosed, StreamDrained, WatchRequested
from actors.messages.worker import Work
from core.apply.cost import surely_fits_bytes
from core.auth.rules import NO_RULES, NOBODY, Identity
from core.errors import (
    EtcdError,
    InvalidAuthToken,
    LeaderChanged,
    NoLeader,
    NoSpace,
    RequestTimeout,
    RequestTooLarge,
    Stopped,
    TooManyRequests,
    UserEmpty,
)
from core.metrics import Sample
from core.mvcc.varint import field
from core.mvcc.watch_streams import StreamId
from core.raft.status import status
from core.request_id import OWNERS_MAX
from core.tuples import make_tuple
from core.types import Index, LeaseId, MemberId, RequestId, Term
from net.rpc import Routes
from proto.raft_internal_pb2 import InternalRaftRequest
from proto.rpc_pb2 import AlarmRequest, AlarmType
from services.access import HttpOptions, Serves
from services.additions import NO_ADDITIONS, Additions
from services.auth import AUTH_STATUS_TAG
from services.client_http import ClientHttp
from services.endless import EndlessStreams
from services.errors import status_of
from services.grpc_metrics import samples as grpc_samples
from services.health import Health
from services.identity import certified_name, refuse, token_in
from services.lease import REVOKE_TAG
from services.reflection import reflected
from services.request_times import RequestTimes
from services.routes import client_routes
from services.slow_requests import SlowRequests
from services.standing import needs_leader
from services.timing import LongTimes, Times
from services.trace_pages import InFlight, Waiting
from services.tracing import traced

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Sequence

    import structlog

    from actors.address import Address
    from actors.messages.apply import ApplyMessage
    from actors.messages.lease import LeaseMessage
    from actors.messages.membership import MembershipMessage
    from actors.messages.raft import RaftMessage
    from actors.messages.watch import WatchMessage
    from core.alarms.quota import Quota
    from core.apply.applier import Applier
    from core.apply.header import ResponseHeaders
    from core.clock import Clock
    from core.mvcc.view import View
    from core.raft.messages import ConfChange
    from core.request_id import RequestIds
    from net.rpc import Call, Context, HttpHandler, Stream
    from services.node import Answerable, ApiLimits, Asker, Count, Export
    from services.passwords import Passwords
    from services.request_times import Waited
    from services.slow_requests import SlowRequest
    from services.timeouts import Leadership
    from services.tokens import TokenScheme
    from services.tracing import StartSpan

    Read = tuple[Asker, Callable[[View], None], float]
    """Who asks, what goes on with the answer, and since when it is waited for."""

COMMIT_APPLY_GAP_MAX = 5000
"""Committed entries not yet applied beyond which proposals are refused (etcd's bound)."""

COMMIT_APPLY_GAP_MAX_OF_REVOKES = 10_000
"""The same for revocations of leases where the gate PriorityRequest is on."""

WAITING_CALLS_MAX = 50_000
"""Proposals of this listener that may wait for their answer at once."""

WATCH_UNSENT_BYTES_MAX = 1 << 20
"""A watch stream with more than this unsent leaves the live set and catches up from the store."""

EXPORTS_MAX = 4
"""Snapshots that clients of this listener may be fetching at once: each takes the store's size on the disk."""

JOBS_WAITING_MAX = 1000
"""Jobs of this listener's clients that may wait for another thread at once."""

HASHES_WAITING_MAX = 1000
"""Passwords that may wait for their hash at once: a minute's work at the default cost."""

TOKENS_WAITING_MAX = 1000
"""Calls that may wait at once for the entry that made their token."""

TOKENS_TICK_S = 1.0
"""How often tokens that have ended are forgotten, and other listeners told of those in use (etcd's interval)."""

ELECTIONS_WITHOUT_LEADER = 3
"""Election timeouts without a leader after which streams end whose clients want one (etcd's bound)."""

READ_RETRY_S = 0.5
"""A read-index round without an answer is asked again after this (etcd's interval)."""


HTTP_DEFAULT = HttpOptions()


class Engine(Protocol):
    """Accepts connections and carries calls; lives on this actor's loop."""

    @property
    def delivering(self) -> bool:
        """Whether calls come in right now, of whose end it will tell."""

    async def start(self) -> None:
        """Accept connections from now on."""

    def flush(self) -> None:
        """Send what has been answered to a lone client now, instead of at the end of this turn of the loop."""

    async def drain(self, timeout_s: float) -> None:
        """Stop accepting, and let calls in flight end for a while."""

    async def close(self) -> None:
        """Send what has been answered, and close all connections."""


@final
class ServeActor(NodeActor[ServeMessage]):
    """Serves one client listener.

    Owns: the engine; calls, reads and streams that wait.  Tells: RaftActor (proposals, reads), ApplyActor (questions),
    WatchActor, LeaseActor, WorkerActor.  Fails when: a service raises what is no EtcdError.
    """

    def __init__(
        self,
        home: Home,
        *,
        headers: ResponseHeaders,
        limits: ApiLimits,
        request_ids: RequestIds,
        request_timeout_s: float,
        slow_request_s: float,
        quota: Quota,
        counter: Callable[[View], Count | None],
        make_engine: Callable[[Routes, HttpHandler, Callable[[], None]], Engine],
        wal: Address[ObserveSpace],
        raft: Address[RaftMessage],
        apply: Address[ApplyMessage],
        watch: Address[WatchMessage],
        lease: Address[LeaseMessage],
        membership: Address[MembershipMessage],
        peers: Address[ObserveActivity],
        leadership: Leadership,
        clock: Clock,
        metrics: Address[Gather],
        worker: Address[Work],
        checker: Address[Work],
        exporter: Address[Work],
        make_export: Callable[[View], Export],
        hashers: Sequence[Address[Work]],
        passwords: Passwords,
        tokens: TokenScheme,
        client_cert_auth: bool,
        logger: structlog.stdlib.BoundLogger,
        http: HttpOptions = HTTP_DEFAULT,
        profiler: Address[Work] | None = None,
        additions: Additions = NO_ADDITIONS,
        revokes_first: bool = False,
        stops_on_defragment: bool = False,
        trace: StartSpan | None = None,
    ) -> None:
        super().__init__(home)
        self.headers = headers
        self.limits = limits
        self.member_id = headers.member_id
        self.term = Term(0)
        self.leader = MemberId(0)
        self.commit_index = Index(0)
        self.view: View  # published before the listener opens
        self.auth = NO_RULES  # told before the listener opens
        self.passwords = passwords
        self.tokens = tokens
        self._ids = request_ids
        self._timeout_s = request_timeout_s
        self._slow_s = slow_request_s
        self._make_engine = make_engine
        self._wal = wal
        self._raft = raft
        self._apply = apply
        self._watch = watch
        self._lease = lease
        self._membership = membership
        self._peers = peers
        self._leadership = leadership
        self._clock = clock
        self.is_learner = False
        self.cluster_version = ""
        self.downgrade = NO_DOWNGRADE
        self._metrics = metrics
        self._worker = worker
        self._checker = checker
        self._jobs_waiting = 0
        self._exporter = exporter
        self._hashers = hashers
        self._hashes_waiting = 0
        self._client_cert_auth = client_cert_auth
        self._http = http
        self._profiler = profiler
        self._additions = additions
        self._revokes_first = revokes_first
        self._health = Health(stops_on_defragment=stops_on_defragment, log=logger)
        self._trace = trace
        self._times: Times | None = None
        self._long_times: LongTimes
        self._failed_count = self._slow_rounds = self._failed_rounds = 0
        self._tokens_waiting: list[tuple[float, Context, Callable[[Identity], None], Callable[[EtcdError], None]]] = []
        self._tokens_tick_s = 0.0
        self._make_export = make_export
        self._exports: dict[Export, float] = {}
        self._logger = logger
        self._counter = counter
        self._quota = quota
        self._allocated_bytes = 0
        self.fits_bytes = surely_fits_bytes(quota.room_bytes(0))
        self._alarm_proposed = False
        self._refusal: EtcdError | None = None
        self._proposals: list[tuple[RequestId, bytes]] = []
        self._waiting: dict[RequestId, Waited] = {}
        self._accepted: dict[RequestId, Waited] = {}
        """Applied, and waited for as long as their clients do."""
        self._flush_scheduled = False
        self._turn_s = 0.0
        """When this turn of the loop was first asked for something that waits for its end."""
        self._slow = SlowRequests(logger, clock.wall_s)
        self._reads_next: list[Read] = []
        self._round: list[Read] = []
        self._round_number = 0
        self._round_started_s = 0.0
        self._round_asked_s = 0.0
        self._reads_at: list[tuple[Index, int, list[Read]]] = []
        self._renewals: list[tuple[int, LeaseId]] = []
        self._streams: dict[StreamId, Stream] = {}
        self._endless = EndlessStreams()
        self._blocked: set[StreamId] = set()
        self._last_token = 0
        self._answers: dict[int, Callable[..., None]] = {}
        self._tasks: set[asyncio.Task[None]] = set()

    # -- the actor ---------------------------------------------------------------------------------------------------

    def setup(self) -> None:
        """Make the engine, and ask to be told what may be read and who leads."""
        self._loop = asyncio.get_running_loop()
        self.times = RequestTimes(self._loop.time, self._note_long)
        routes = self._additions.routes(self, client_routes(self, self._health))
        if self._http.reflection:
            routes = reflected(routes)
        self._long_times = LongTimes(self._loop.time)
        routes = self._long_times.timed(routes)
        if self._trace is not None:
            routes = traced(routes, self._trace)
        if self._http.timed:
            self._times = Times(self._loop.time)
            routes = self._times.timed(routes)
        routes = self._additions.seeing_refusals(self, self._endless.followed(routes))
        self._pages = ClientHttp(self, routes, self._http, self._additions)
        self._routes = routes
        grpc = routes if self._http.serves in {Serves.ALL, Serves.GRPC} else Routes({}, {})
        self._engine = self._make_engine(grpc, self._pages.handle, self._end_batch)
        self._apply.tell(ObserveOutcomes(self._ids.owner, self.actor_ref))
        self._apply.tell(Observe(self.actor_ref))
        self._apply.tell(ObserveAuth(self.actor_ref))
        self._apply.tell(ObserveCluster(self.actor_ref))
        self._raft.tell(ObserveRole(self.actor_ref))
        self._peers.tell(ObserveActivity(self.actor_ref))
        self._wal.tell(ObserveSpace(self.actor_ref))

    def handle(self, message: ServeMessage) -> None:
        """Take one message."""
        match message:
            case Completed():
                self._complete(message)
            case Published():
                self.view, self.term, self.commit_index, allocated_bytes = message
                if allocated_bytes != self._allocated_bytes:
                    self._allocated_bytes = allocated_bytes
                    self.fits_bytes = surely_fits_bytes(self._quota.room_bytes(allocated_bytes))
                if self._reads_at:
                    self._run_reads()
                if self._tokens_waiting:
                    self._retry_tokens()
            case ReadIndexed():
                self._end_round(message)
            case WatchFrames():
                self._send_frames(message)
            case Renewed():
                for token, ttl_s in message.answers:
                    self._answer(token, ttl_s)
            case Answered():
                self._answer(message.token, message.outcome)
            case Accepted():
                for request_id in message.request_ids:
                    if request_id in self._waiting:
                        self._accepted[request_id] = self._waiting.pop(request_id)
            case Refused():
                self._failed_count += len(message.request_ids)
                self._complete(Completed([(request_id, message.error) for request_id in message.request_ids]))
            case AuthIs():
                self._follow_auth(message)
            case TokensUsed():
                self.tokens.prolong(message.used_s)
            case Measure():
                message.answer_to.tell(Measured(message.round, self._samples()))
            case WritesRefused():
                self._refusal = message.error
            case RoleIs():
                self._notice_role(message)
            case ClusterIs():
                self._follow_cluster(message)
            case ActivityIs():
                self._leadership.connected_since_s = message.since_s
            case Tick():
                self._sweep(message.now_s)
            case Open():
                self._run_task(self._engine.start())
            case Drain():
                self._run_task(self._drain(message))

    def teardown(self) -> None:
        """Fail what still waits."""
        self._fail_all(Stopped())

    # -- the node that services see: writes --------------------------------------------------------------------------

    def header(self) -> bytes:
        """See Node."""
        return self.headers.encode(self.view.revision, self.term)

    def may_grow(self, call: Call, cost: int) -> bool:
        """See Node."""
        if self._quota.has_room(store_size_bytes=self._allocated_bytes, cost_bytes=cost):
            return True
        if self.auth.enabled:
            # Nobody may stop the writes of all others without saying who it is.
            self.identify(call, partial(self._refuse_growth, call), partial(refuse, call))
        else:
            self._refuse_growth(call, NOBODY)
        return False

    def _refuse_growth(self, call: Call, identity: Identity) -> None:
        try:
            self.auth.check_known(identity)
        except UserEmpty as error:
            call.fail(status_of(error))
        else:
            call.fail(status_of(NoSpace()))
            self._raise_alarm()

    def _raise_alarm(self) -> None:
        # etcd proposes it with every refused write; once a tick tells as much.
        if not self._alarm_proposed:
            self._alarm_proposed = True
            alarm = AlarmRequest(action=AlarmRequest.ACTIVATE, memberID=self.member_id, alarm=AlarmType.NOSPACE)
            _, header = self._ids.make_with_header()
            data = InternalRaftRequest(alarm=alarm).SerializeToString() + header
            self._raft.tell(Propose([(RequestId(0), data)], self.actor_ref))

    def propose(self, call: Call, tag: bytes, body: bytes, *, as_caller: bool = True) -> None:
        """See Node."""
        refusal = self._refusal
        if refusal is not None:
            call.fail(status_of(refusal))
            return
        gap = self.commit_index - self.view.applied_index
        if (gap > COMMIT_APPLY_GAP_MAX and gap > self._gap_max(tag)) or len(self._waiting) >= WAITING_CALLS_MAX:
            call.fail(status_of(TooManyRequests()))
            return
        if as_caller and self.auth.enabled:
            self.identify(call, partial(self._propose_as, call, tag, body), partial(refuse, call))
            return
        request_id, header = self._ids.make_with_header()
        self._enqueue(call, tag, request_id, field(tag, body) + header)

    def _gap_max(self, tag: bytes) -> int:
        # What gives room is let in for longer, so that a server that is behind can be helped.
        return COMMIT_APPLY_GAP_MAX_OF_REVOKES if self._revokes_first and tag == REVOKE_TAG else COMMIT_APPLY_GAP_MAX

    def _propose_as(self, call: Call, tag: bytes, body: bytes, identity: Identity) -> None:
        if identity == NOBODY and tag != AUTH_STATUS_TAG:
            # It would be refused where it is applied; but nobody may fill the log with what is refused.
            self.read(call, lambda _view: self._refuse_nobody(call, tag, body))
            return
        request_id, header = self._ids.make_with_identity(identity.user, identity.revision)
        self._enqueue(call, tag, request_id, field(tag, body) + header)

    def _refuse_nobody(self, call: Call, tag: bytes, body: bytes) -> None:
        if self.auth.enabled:
            call.fail(status_of(UserEmpty()))
        else:
            self.propose(call, tag, body)  # auth was switched off at another member, and this one has heard of it now

    def _enqueue(self, call: Call, tag: bytes, request_id: RequestId, data: bytes) -> None:
        if len(data) > self.limits.request_bytes_max:
            call.fail(status_of(RequestTooLarge()))
            return
        if not self._flush_scheduled:
            self._schedule_flush()
        self._waiting[request_id] = (call, self._turn_s, tag)
        self._proposals.append((request_id, data))

    def _schedule_flush(self) -> None:
        # What other sockets have ready in this round of the loop joins the batch.
        self._flush_scheduled = True
        self._turn_s = self._loop.time()
        if not self._engine.delivering:  # else the end of the batch is near
            self._loop.call_soon(self._flush)

    def _end_batch(self) -> None:
        # The engine writes answers when this returns: what the node can answer at once leaves in the same write.
        self._home.settle(self._flush)
        if self.times.alike_s:
            self.times.answering(None)

    def _flush(self) -> None:
        self._flush_scheduled = False
        if self._proposals and self.leader:
            proposals, self._proposals = self._proposals, []
            self._raft.tell(make_tuple(Propose, (proposals, self.actor_ref, None)))
        if self._reads_next and not self._round:
            self._begin_round()
        if self._renewals:
            renewals, self._renewals = self._renewals, []
            self._lease.tell(Renew(renewals, self.actor_ref))

    def _complete(self, message: Completed) -> None:
        waiting, well = self._waiting, []
        now_s = self._loop.time()
        slow_before_s = now_s - self._slow_s
        for request_id, outcome in message.outcomes:
            entry = waiting.pop(request_id, None)
            if entry is None:
                entry = self._accepted.pop(request_id, None)
                if entry is None:
                    continue
            call, since_s, _ = entry
            if isinstance(outcome, bytes):
                call.reply(outcome)
                well.append(entry)
            else:
                call.fail(status_of(outcome))
                self.times.failed(entry, now_s)
            if since_s < slow_before_s:
                self._slow.note(call.method, call.peer, now_s - since_s, now_s)
        self.times.written(well, now_s)
        # A lone client need not wait for what other actors make of the same entries.
        self._engine.flush()

    def _note_long(self, call: Call, took_s: float, now_s: float) -> None:
        if took_s > self._slow_s:
            self._slow.note(call.method, call.peer, took_s, now_s)

    # -- reads -------------------------------------------------------------------------------------------------------

    def read(self, asker: Asker, then: Callable[[View], None]) -> None:
        """See Node."""
        if not self._flush_scheduled:
            self._schedule_flush()
        self._reads_next.append((asker, then, self._turn_s))

    def _begin_round(self) -> None:
        # A read may only be answered by a round that began after it came (raft thesis 6.4), so those that come while
        # a round is under way share the next one.
        self._round, self._reads_next = self._reads_next, []
        self._round_number += 1
        self._round_started_s = self._round_asked_s = self._loop.time()
        self._raft.tell(ReadIndex(self._round_number, self.actor_ref))

    def _end_round(self, message: ReadIndexed) -> None:
        if message.context != self._round_number or not self._round:
            return  # asked again and answered twice
        reads, self._round = self._round, []
        if message.error is not None:
            self._failed_rounds += 1
            for call, _, _ in reads:
                call.fail(status_of(message.error))
        elif message.index <= self.view.applied_index:
            self._run(reads)
        else:
            heapq.heappush(self._reads_at, (message.index, self._round_number, reads))
        if self._reads_next:
            self._begin_round()

    def _run_reads(self) -> None:
        while self._reads_at and self._reads_at[0][0] <= self.view.applied_index:
            self._run(heapq.heappop(self._reads_at)[2])

    def _run(self, reads: Sequence[Read]) -> None:
        view, times, group_s = self.view, self.times, None
        for call, then, since_s in reads:
            if since_s != group_s:
                group_s = since_s
                times.answering(since_s)
            if not call.done:
                then(view)
        times.answering(None)

    def _reads_waiting(self) -> list[Read]:
        return [*self._round, *self._reads_next, *(read for _, _, at in self._reads_at for read in at)]

    def counter(self, view: View) -> Count | None:
        """See Node."""
        return self._counter(view)

    # -- who calls ---------------------------------------------------------------------------------------------------

    def identify(self, context: Context, then: Callable[[Identity], None], refuse: Callable[[EtcdError], None]) -> None:
        """See Node."""
        token = token_in(context.metadata)
        if token is None:
            name = certified_name(context) if self._client_cert_auth else None
            then(NOBODY if name is None else Identity(name, self.auth.revision))
            return
        now_s = self._loop.time()
        if self.tokens.ready_at(token) > self.view.applied_index and len(self._tokens_waiting) < TOKENS_WAITING_MAX:
            self._tokens_waiting.append((now_s + self._timeout_s, context, then, refuse))
            return
        identity = self.tokens.identify(token, self.auth, now_s)
        if identity is None:
            refuse(InvalidAuthToken())
        else:
            then(identity)

    def _retry_tokens(self) -> None:
        # Those still too early wait on, until the same time as before.
        waiting, self._tokens_waiting = self._tokens_waiting, []
        for end_s, context, then, refused in waiting:
            token = token_in(context.metadata)
            if token is not None and self.tokens.ready_at(token) > self.view.applied_index:
                self._tokens_waiting.append((end_s, context, then, refused))
            else:
                self.identify(context, then, refused)

    def _sweep_tokens(self, now_s: float) -> None:
        if self._tokens_waiting and self._tokens_waiting[0][0] <= now_s:
            overdue = [each for each in self._tokens_waiting if each[0] <= now_s]
            self._tokens_waiting = [each for each in self._tokens_waiting if each[0] > now_s]
            for _, _, _, refused in overdue:
                refused(InvalidAuthToken())
        if now_s >= self._tokens_tick_s:
            self._tokens_tick_s = now_s + TOKENS_TICK_S
            self.tokens.tick(now_s)
            used = self.tokens.take_used()
            if used:
                self._apply.tell(TokensUsed(used))

    def _follow_auth(self, message: AuthIs) -> None:
        self.auth = message.rules
        now_s = self._loop.time()
        for event in message.tokens:
            self.tokens.take(event, now_s)

    def hash_password(self, call: Call, job: Callable[[], object], then: Callable[[object], None]) -> None:
        """See Node."""
        if self._hashes_waiting >= HASHES_WAITING_MAX:
            call.fail(status_of(TooManyRequests()))
            return
        self._hashes_waiting += 1

        def answer(outcome: object) -> None:
            self._hashes_waiting -= 1
            then(outcome)

        token = self._token(answer)
        self._hashers[token % len(self._hashers)].tell(Work(token, job, self.actor_ref))

    # -- questions to others -----------------------------------------------------------------------------------------

    def work(self, call: Answerable, job: Callable[[], bytes], *, slow: bool = False) -> None:
        """See Node."""
        if self._jobs_waiting >= JOBS_WAITING_MAX:
            call.fail(status_of(TooManyRequests()))
            return
        self._jobs_waiting += 1

        def answer(outcome: object) -> None:
            self._jobs_waiting -= 1
            if isinstance(outcome, EtcdError):
                call.fail(status_of(outcome))
            elif not call.done:
                assert isinstance(outcome, bytes), type(outcome)
                call.reply(outcome)

        worker = self._checker if slow else self._worker
        worker.tell(Work(self._token(answer), lambda: None if call.done else job(), self.actor_ref))

    def hash_question(self, revision: int, then: Callable[..., None]) -> None:
        """See Node."""
        self._inspect(then, lambda applier: applier.hash_question(revision))

    def make_lease_id(self) -> LeaseId:
        """See Node."""
        return LeaseId(self._ids.make() & 0x7FFF_FFFF_FFFF_FFFF)

    def renew_lease(self, lease: LeaseId, then: Callable[[int], None]) -> None:
        """See Node."""
        self._renewals.append((self._token(then), lease))
        if not self._flush_scheduled:
            self._schedule_flush()

    def lease_times(self, lease: LeaseId, then: Callable[..., None]) -> None:
        """See Node."""
        self._lease.tell(TimeToLive(self._token(then), lease, self.actor_ref))

    def lease_keys(self, lease: LeaseId, then: Callable[..., None]) -> None:
        """See Node."""
        self._inspect(then, lambda applier: applier.lease_keys(lease))

    def leased_keys(self, then: Callable[..., None]) -> None:
        """See Node."""
        self._inspect(then, lambda applier: applier.leased_keys())

    def list_leases(self, then: Callable[..., None]) -> None:
        """See Node."""
        self._lease.tell(ListLeases(self._token(then), self.actor_ref))

    def members(self, then: Callable[..., None]) -> None:
        """See Node."""
        self._inspect(then, lambda applier: applier.encoded_members())

    def wall_s(self) -> int:
        """See Node."""
        return int(self._clock.wall_s())

    def change_members(self, change: ConfChange, then: Callable[..., None]) -> None:
        """See Node."""
        self._membership.tell(ChangeMembers(self._token(then), change, self.actor_ref))

    def promote_member(self, member: MemberId, then: Callable[..., None]) -> None:
        """See Node."""
        self._membership.tell(PromoteMember(self._token(then), member, self.actor_ref))

    def move_leader(self, to: MemberId, then: Callable[..., None]) -> None:
        """See Node."""
        self._membership.tell(MoveLeader(self._token(then), to, self.actor_ref))

    def alarms(self, then: Callable[..., None]) -> None:
        """See Node."""
        self._inspect(then, lambda applier: applier.active_alarms())

    def _samples(self) -> list[Sample]:
        return [
            *grpc_samples(self._routes),
            *(() if self._times is None else self._times.samples()),
            *self._pages.samples(),
            *self._long_times.samples(),
            *self.times.samples(),
            Sample("etcd_mvcc_db_open_read_transactions", len(self._exports) + self._jobs_waiting),
            Sample("etcd_server_proposals_pending", len(self._waiting)),
            Sample("etcd_server_proposals_failed_total", self._failed_count),
            Sample("etcd_server_slow_read_indexes_total", self._slow_rounds),
            Sample("etcd_server_read_indexes_failed_total", self._failed_rounds),
        ]

    def in_flight(self) -> InFlight:
        """See Node."""
        now_s = self._loop.time()
        writes = [Waiting(call.method, call.peer, now_s - since_s) for call, since_s, _ in self._waiting.values()]
        reads = self._reads_waiting()
        oldest_s = max((now_s - since_s for _, _, since_s in reads), default=0.0)
        return InFlight(writes, len(reads), oldest_s, self._endless.open_streams())

    def slow_requests(self) -> Sequence[SlowRequest]:
        """See Node."""
        return tuple(self._slow.newest)

    def raft_status(self, then: Callable[..., None]) -> None:
        """See Node."""
        token, answer_to = self._token(then), self.actor_ref
        self._raft.tell(InspectRaft(lambda node: answer_to.tell(Answered(token, status(node)))))

    def profile(self, answer: Answerable, job: Callable[[], bytes]) -> None:
        """See Node."""
        profiler = self._profiler
        assert profiler is not None, "pages of profiles without a thread for them"
        profiler.tell(Work(self._token(answer.reply), job, self.actor_ref))

    def at_deadline(self, timeout_s: float, then: Callable[[], None]) -> tuple[float, Callable[[], None]]:
        """See Node."""
        timer = self._loop.call_later(timeout_s, then)
        return timer.when(), timer.cancel

    def describe_extensions(self, then: Callable[..., None]) -> None:
        """See Node."""
        self._additions.describe(then)

    def gather(self, then: Callable[..., None]) -> None:
        """See Node."""
        self._metrics.tell(Gather(self._token(then), self.actor_ref))

    def sizes(self, then: Callable[..., None]) -> None:
        """See Node."""
        self._inspect(then, lambda applier: applier.sizes())

    def defragment(self, then: Callable[..., None]) -> None:
        """See Node."""
        token = self._token(then)
        self._apply.tell(Defragment(token, self.actor_ref))

    def open_export(self) -> Export | EtcdError:
        """See Node."""
        if len(self._exports) >= EXPORTS_MAX:
            return TooManyRequests()
        export = self._make_export(self.view)
        self._exports[export] = self._loop.time()
        self._logger.info("sending database snapshot to client", revision=self.view.revision)
        return export

    def work_on_export(self, job: Callable[[], object], then: Callable[[object], None]) -> None:
        """See Node."""
        self._exporter.tell(Work(self._token(then), job, self.actor_ref))

    def close_export(self, export: Export, error: str) -> None:
        """See Node."""
        taken_s = self._loop.time() - self._exports.pop(export)
        took_s = round(taken_s, 3)
        self.work_on_export(export.close, lambda _: None)
        if error:
            self._logger.warning("failed to send database snapshot to client", error=error, took_s=took_s)
        else:
            self._long_times.export.observe(taken_s)
            self._logger.info(
                "successfully sent database snapshot to client", size_bytes=export.size_bytes, took_s=took_s
            )

    def _inspect(self, then: Callable[..., None], question: Callable[[Applier], object]) -> None:
        token, answer_to = self._token(then), self.actor_ref
        self._apply.tell(Inspect(lambda applier: answer_to.tell(Answered(token, question(applier)))))

    def _token(self, then: Callable[..., None]) -> int:
        self._last_token += 1
        self._answers[self._last_token] = then
        return self._last_token

    def _answer(self, token: int, outcome: object) -> None:
        self._answers.pop(token)(outcome)

    # -- watch streams -----------------------------------------------------------------------------------------------

    def open_watch(self, stream: Stream) -> StreamId:
        """See Node."""
        self._last_token += 1
        number = StreamId(self._last_token * OWNERS_MAX + self._ids.owner)
        self._streams[number] = stream
        return number

    def watch(self, number: StreamId, request: bytes, user: str | None = None, refusal: str = "") -> None:
        """See Node."""
        self._watch.tell(WatchRequested(self.actor_ref, number, request, user, refusal))

    def watch_drained(self, number: StreamId) -> None:
        """See Node."""
        if number in self._blocked:
            self._blocked.discard(number)
            self._streams[number].resume_reading()
            self._watch.tell(StreamDrained(self.actor_ref, number))

    def close_watch(self, number: StreamId) -> None:
        """See Node."""
        del self._streams[number]
        self._blocked.discard(number)
        self._watch.tell(StreamClosed(self.actor_ref, number))

    def _send_frames(self, message: WatchFrames) -> None:
        streams = self._streams
        for number, frame in message.frames:
            stream = streams.get(number)
            if stream is None:
                continue  # closed while the frame was on its way
            stream.send(frame)
            if stream.unsent_bytes > WATCH_UNSENT_BYTES_MAX and number not in self._blocked:
                self._blocked.add(number)
                stream.pause_reading()  # answers to further requests would pile up too
                self._watch.tell(StreamBlocked(self.actor_ref, number))

    # -- time and ends -----------------------------------------------------------------------------------------------

    def _sweep(self, now_s: float) -> None:
        self._sweep_tokens(now_s)
        if not self.leader and self._streams:
            self._turn_away(now_s)
        self._alarm_proposed = False
        overdue = []
        for request_id, (_, since_s, _) in self._waiting.items():  # oldest first
            if since_s >= now_s - self._timeout_s:
                break
            overdue.append(request_id)
        self._failed_count += len(overdue)
        for request_id in overdue:
            entry = self._waiting.pop(request_id)
            call, since_s, _ = entry
            call.fail(status_of(self._leadership.timeout_of(since_s)))
            self.times.failed(entry, now_s)
            self._slow.note(call.method, call.peer, now_s - since_s, now_s)
        self._slow.tick(now_s)
        if self._round and now_s - self._round_started_s > self._timeout_s:
            self._slow_rounds += 1
            self._end_round(ReadIndexed(self._round_number, Index(0), RequestTimeout()))
        elif self._round and now_s - self._round_asked_s > READ_RETRY_S:
            self._round_asked_s = now_s
            self._raft.tell(ReadIndex(self._round_number, self.actor_ref))

    def _notice_role(self, message: RoleIs) -> None:
        lost_leader = self.leader and message.leader != self.leader
        self.term, self.leader = message.term, message.leader
        self._leadership.notice(message.leader, self._loop.time())
        if lost_leader and self._round:
            self._end_round(ReadIndexed(self._round_number, Index(0), LeaderChanged()))
        if self.leader and self._proposals and not self._flush_scheduled:
            self._forget_abandoned()
            self._schedule_flush()

    def _forget_abandoned(self) -> None:
        """Drop proposals that waited for a leader until their clients gave up, and were told that they failed."""
        waiting = self._waiting
        self._proposals = [
            (request_id, data)
            for request_id, data in self._proposals
            if not request_id or (request_id in waiting and not waiting[request_id][0].done)
        ]

    def _follow_cluster(self, message: ClusterIs) -> None:
        self.cluster_version, self.downgrade = message.version, message.downgrade
        self.is_learner = any(member.id == self.member_id and member.is_learner for member in message.members)
        self._leadership.voters = [member.id for member in message.members if not member.is_learner]

    def _turn_away(self, now_s: float) -> None:
        """End the streams of clients that want a leader, when none was known for so long that none is near."""
        leadership = self._leadership
        if self.leader or now_s - leadership.lost_s < ELECTIONS_WITHOUT_LEADER * leadership.election_timeout_s:
            return
        for stream in [stream for stream in self._streams.values() if needs_leader(stream)]:
            stream.finish(status_of(NoLeader()))

    def _run_task(self, work: Coroutine[Any, Any, None]) -> None:
        # The loop keeps only weak references to tasks.
        task = self._loop.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._end_task)

    def _end_task(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        error = None if task.cancelled() else task.exception()
        if error is not None:
            self._home.fatal(type(self).__name__, error)

    async def _drain(self, message: Drain) -> None:
        self._endless.finish(status_of(Stopped()))
        await self._engine.drain(message.timeout_s)
        self._fail_all(Stopped())
        await self._engine.close()
        message.after.send()

    def _fail_all(self, error: EtcdError) -> None:
        status = status_of(error)
        for waiting in (self._waiting, self._accepted):
            for call, _, _ in waiting.values():
                call.fail(status)
            waiting.clear()
        reads = self._reads_waiting()
        self._round, self._reads_next, self._reads_at = [], [], []
        for asker, _, _ in reads:
            if not asker.done:
                asker.fail(status)
        for stream in list(self._streams.values()):
            stream.finish(status)
