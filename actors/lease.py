"""LeaseActor: when leases end.

Every member is told of each lease as it is applied; only while this member leads does time pass for them.  What has
expired is revoked by a proposal, and is gone when that proposal is applied.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple, final

from actors.base import Home, NodeActor
from actors.caught_up import CaughtUp
from actors.messages.apply import ObserveAuth, ObserveLeases, ObserveOutcomes
from actors.messages.common import Tick
from actors.messages.lease import (
    AppliedIs,
    Checkpointed,
    Granted,
    LeaseMessage,
    ListLeases,
    Promote,
    Renew,
    Revoked,
    TimeToLive,
)
from actors.messages.metrics import Measure, Measured
from actors.messages.peer_transport import AskMember, CarryQuestions, MemberAnswer
from actors.messages.raft import ObserveRole, Propose, RoleIs
from actors.messages.serve import Answered, AuthIs, Completed, ReadIndexed, Refused, Renewed, TokensUsed
from core.auth.rules import NO_RULES, ROOT_USER
from core.errors import NotPrimaryLessor, RequestTimeout
from core.lease.lessor import Checkpoint
from core.metrics import TTL_BOUNDS_S, Histogram, Sample
from core.types import MemberId, Term
from proto.raft_internal_pb2 import InternalRaftRequest, RequestHeader
from proto.rpc_pb2 import LeaseCheckpoint, LeaseCheckpointRequest, LeaseRevokeRequest
from services.member_pages import (
    RENEW_PATH,
    TIMES_PATH,
    renew_outcome,
    renew_question,
    times_outcome,
    times_question,
)
from services.node import LeaseTimes

if TYPE_CHECKING:
    from collections.abc import Iterable

    import structlog

    from actors.address import Address
    from actors.messages.apply import ApplyMessage
    from actors.messages.raft import RaftMessage
    from core.clock import Clock
    from core.errors import EtcdError
    from core.lease.lessor import Lessor
    from core.request_id import RequestIds
    from core.types import LeaseId, RequestId

EXPIRY_CHECK_S = 0.5
"""How often expired leases are looked for (etcd's interval)."""

FORWARD_TIMEOUT_S = 5.0
"""For one question to the primary; without an answer it is asked again."""

REVOKES_PER_CHECK_MAX = 500
"""Leases revoked in one go (etcd's bound)."""

CHECKPOINTS_PER_ENTRY_MAX = 1000
"""Remaining times told in one entry (etcd's bound)."""


class _Forward(NamedTuple):
    """A question for the primary, until it is answered."""

    ask: Renew | TimeToLive
    deadline_s: float

    def question(self) -> tuple[str, bytes]:
        """Return path and body for the leader."""
        if isinstance(self.ask, Renew):
            return RENEW_PATH, renew_question(self.ask.asks[0][1])
        return TIMES_PATH, times_question(self.ask.lease)

    def answer(self, answer: MemberAnswer) -> bool:
        """Answer the asker if the leader has; False if another try may go better."""
        ask = self.ask
        if isinstance(ask, Renew):
            ttl_s = renew_outcome(answer.status, answer.body)
            if ttl_s is not None:
                ask.answer_to.tell(Renewed([(ask.asks[0][0], ttl_s)]))
            return ttl_s is not None
        times = times_outcome(answer.status, answer.body)
        if times is not None:
            ask.answer_to.tell(Answered(ask.token, times))
        return times is not None

    def fail(self, error: EtcdError) -> None:
        """Give up."""
        ask = self.ask
        if isinstance(ask, Renew):
            ask.answer_to.tell(Renewed([(ask.asks[0][0], error)]))
        else:
            ask.answer_to.tell(Answered(ask.token, error))


@final
class LeaseActor(NodeActor[LeaseMessage]):
    """Keeps the clock of the leases.

    Owns: the lessor; renewals of leases that have expired and wait for their revoke, or that were checkpointed and wait
    until that is cleared; questions about leases that it does not know yet.  Tells: RaftActor (revokes, checkpoints,
    reads), ApplyActor (questions), whoever asked.  Fails when: the lessor finds itself broken.
    """

    def __init__(
        self,
        home: Home,
        *,
        lessor: Lessor,
        clock: Clock,
        extend_s: float,
        apply: Address[ApplyMessage],
        raft: Address[RaftMessage],
        request_ids: RequestIds,
        logger: structlog.stdlib.BoundLogger,
        fast_renewals: bool = True,
    ) -> None:
        """Without *fast_renewals* the primary has all applied that is committed before it renews any lease."""
        super().__init__(home)
        self._fast_renewals = fast_renewals
        self._lessor = lessor
        self._clock = clock
        self._extend_s = extend_s
        self._apply = apply
        self._raft = raft
        self._ids = request_ids
        self._logger = logger
        self._rules = NO_RULES
        self._next_check_s = 0.0
        self._role = RoleIs(Term(0), MemberId(0), is_leader=False)
        self._led_term = Term(0)
        self._late: dict[LeaseId, list[tuple[int, Address[Renewed]]]] = {}
        self._clearing: dict[LeaseId, list[tuple[int, Address[Renewed]]]] = {}
        self._clears: dict[RequestId, LeaseId] = {}
        self._carrier: Address[AskMember] | None = None
        self._forward_timeout_s = 0.0
        self._forwarded: dict[int, _Forward] = {}
        self._forward_count = 0
        self._retries: list[_Forward] = []
        self._unknown: CaughtUp[Renew | TimeToLive] = CaughtUp(raft, apply, self.actor_ref)
        self._introduced = False
        self._granted_count = self._renewed_count = self._revoked_count = self._expired_count = 0
        self._ttls = Histogram(TTL_BOUNDS_S)

    def setup(self) -> None:
        """Ask to be told which leases there are, and who leads."""
        self._apply.tell(ObserveOutcomes(self._ids.owner, self.actor_ref))
        self._apply.tell(ObserveLeases(self.actor_ref))
        self._apply.tell(ObserveAuth(self.actor_ref))
        self._raft.tell(ObserveRole(self.actor_ref))

    def handle(self, message: LeaseMessage) -> None:
        """Take one message."""
        match message:
            case Renew():
                self._renew(message)
            case ReadIndexed():
                self._unknown.take_index(message)
            case AppliedIs():
                self._answer_unknown(message)
            case Measure():
                message.answer_to.tell(Measured(message.round, self._samples()))
            case Granted():
                if self._introduced:
                    self._count_granted(message)
                now_s = self._clock.monotonic_s()
                for lease, ttl_s in message.leases:
                    self._lessor.granted(lease, ttl_s, now_s)
            case Revoked():
                self._revoked_count += len(message.leases)
                for lease in message.leases:
                    self._lessor.revoked(lease)
                    self._answer_late(lease)
                    self._end_clearing(lease, 0)
            case Checkpointed():
                for lease, remaining_s in message.leases:
                    self._lessor.checkpoint(lease, remaining_s)
                    if not remaining_s:
                        self._end_clearing(lease, self._lessor.ttl_s(lease) or 0)
            case TimeToLive():
                self._answer_times(message)
            case Answered():
                self._take_forwarded(message)
            case CarryQuestions():
                self._carrier, self._forward_timeout_s = message
            case ListLeases():
                message.answer_to.tell(Answered(message.token, self._lessor.expiries()))
            case Promote():
                self._introduced = True  # who came before were the leases that were there
                self._led_term = message.term
                self._take_on_role()
            case RoleIs():
                self._role = message
                self._take_on_role()
            case Tick():
                if self._retries:
                    self._retry(message.now_s)
                self._unknown.tick(message.now_s)
                if message.now_s >= self._next_check_s:
                    self._next_check_s = message.now_s + EXPIRY_CHECK_S
                    self._revoke_expired(message.now_s)
                    self._checkpoint(message.now_s)
            case AuthIs():
                self._rules = message.rules
            case TokensUsed():
                pass  # for listeners
            case Completed():
                for request_id, _ in message.outcomes:
                    self._clears.pop(request_id, None)
            case Refused():
                # A revoke that failed is tried again after the lessor's retry time.
                for request_id in message.request_ids:
                    if request_id in self._clears:
                        self._end_clearing(self._clears.pop(request_id), NotPrimaryLessor())

    def _count_granted(self, message: Granted) -> None:
        self._granted_count += len(message.leases)
        for _, ttl_s in message.leases:
            self._ttls.observe(ttl_s)

    def _samples(self) -> list[Sample]:
        return [
            Sample("etcd_debugging_lease_granted_total", self._granted_count),
            Sample("etcd_debugging_lease_renewed_total", self._renewed_count),
            Sample("etcd_debugging_lease_revoked_total", self._revoked_count),
            Sample("etcd_debugging_lease_ttl_total", self._ttls.distribution()),
            Sample("etcd_debugging_server_lease_expired_total", self._expired_count),
        ]

    def _take_on_role(self) -> None:
        """Be primary while this member leads and has applied the first entry of its term, whichever is told first."""
        primary = self._role.is_leader and self._role.term == self._led_term
        if primary and not self._lessor.primary:
            self._lessor.promote(self._clock.monotonic_s(), self._extend_s)
        elif not primary and self._lessor.primary:
            self._demote()

    def _renew(self, message: Renew, *, caught_up: bool = False) -> None:
        now_s = self._clock.monotonic_s()
        if not self._fast_renewals and not caught_up and self._lessor.primary:
            self._unknown.wait(message, now_s)
            return
        answers: list[tuple[int, int | EtcdError]] = []
        for token, lease in message.asks:
            try:
                ttl_s = self._lessor.renew(lease, now_s)
            except NotPrimaryLessor as error:
                if self._carrier is None or not message.may_forward:
                    answers.append((token, error))
                else:
                    ask = Renew(((token, lease),), message.answer_to)
                    self._forward(_Forward(ask, now_s + self._forward_timeout_s))
                continue
            if ttl_s is None and lease in self._lessor:
                # Expired but not yet revoked: the answer that it is gone waits until it is.
                self._late.setdefault(lease, []).append((token, message.answer_to))
            elif ttl_s is None and not caught_up:
                self._unknown.wait(message._replace(asks=((token, lease),)), now_s)
            elif ttl_s is not None and self._lessor.checkpointed(lease):
                self._clear(lease, token, message.answer_to)
            else:
                self._renewed_count += ttl_s is not None
                answers.append((token, ttl_s or 0))
        if answers:
            message.answer_to.tell(Renewed(answers))

    def _answer_times(self, message: TimeToLive, *, caught_up: bool = False) -> None:
        if self._lessor.primary and message.lease not in self._lessor and not caught_up:
            self._unknown.wait(message, self._clock.monotonic_s())
            return
        times = self._times(message.lease)
        if isinstance(times, NotPrimaryLessor) and self._carrier is not None and message.may_forward:
            self._forward(_Forward(message, self._clock.monotonic_s() + self._forward_timeout_s))
        else:
            message.answer_to.tell(Answered(message.token, times))

    def _answer_unknown(self, message: AppliedIs) -> None:
        for ask in self._unknown.take_applied(message, self._clock.monotonic_s()):
            if isinstance(ask, Renew):
                self._renew(ask, caught_up=True)
            else:
                self._answer_times(ask, caught_up=True)

    # -- asking the primary ------------------------------------------------------------------------------------------

    def _forward(self, forward: _Forward) -> None:
        leader = self._role.leader
        if self._carrier is None or not leader or self._role.is_leader:
            self._retries.append(forward)  # nobody leads, or this member does and is about to be primary
            return
        self._forward_count += 1
        self._forwarded[self._forward_count] = forward
        path, question = forward.question()
        self._carrier.tell(
            AskMember(self._forward_count, leader, "POST", path, question, self.actor_ref, FORWARD_TIMEOUT_S)
        )

    def _take_forwarded(self, message: Answered) -> None:
        answer = message.outcome
        assert answer is None or isinstance(answer, MemberAnswer), answer
        forward = self._forwarded.pop(message.token)
        if answer is None or not forward.answer(answer):
            self._retries.append(forward)

    def _retry(self, now_s: float) -> None:
        retries, self._retries = self._retries, []
        for forward in retries:
            if now_s >= forward.deadline_s:
                forward.fail(RequestTimeout())
            elif self._lessor.primary:
                self.handle(forward.ask)
            else:
                self._forward(forward)

    def _answer_late(self, lease: LeaseId) -> None:
        for token, answer_to in self._late.pop(lease, ()):
            answer_to.tell(Renewed([(token, 0)]))

    def _demote(self) -> None:
        self._lessor.demote()
        # The next primary may let these leases live on, so nobody may be told that they are gone.
        late, self._late = self._late, {}
        for asks in late.values():
            for token, answer_to in asks:
                answer_to.tell(Renewed([(token, NotPrimaryLessor())]))
        self._clears.clear()
        for lease in list(self._clearing):
            self._end_clearing(lease, NotPrimaryLessor())
        for ask in self._unknown.give_up():
            self.handle(ask)

    def _times(self, lease: LeaseId) -> LeaseTimes | NotPrimaryLessor:
        try:
            remaining_s = self._lessor.remaining_s(lease, self._clock.monotonic_s())
        except NotPrimaryLessor as error:
            return error
        if remaining_s is None:
            return LeaseTimes(None, 0)
        return LeaseTimes(int(remaining_s), self._lessor.ttl_s(lease) or 0)

    # -- what is left of long leases ---------------------------------------------------------------------------------

    def _clear(self, lease: LeaseId, token: int, answer_to: Address[Renewed]) -> None:
        """Answer a renewal once nobody will take up what was left of the lease before it."""
        waiting = self._clearing.setdefault(lease, [])
        waiting.append((token, answer_to))
        if len(waiting) == 1:
            self._clears[self._propose_checkpoints([Checkpoint(lease, 0)])] = lease

    def _end_clearing(self, lease: LeaseId, ttl_s: int | EtcdError) -> None:
        for token, answer_to in self._clearing.pop(lease, ()):
            self._renewed_count += isinstance(ttl_s, int) and ttl_s > 0
            answer_to.tell(Renewed([(token, ttl_s)]))

    def _checkpoint(self, now_s: float) -> None:
        while due := self._lessor.due_checkpoints(now_s, CHECKPOINTS_PER_ENTRY_MAX):
            self._propose_checkpoints(due)

    def _propose_checkpoints(self, checkpoints: Iterable[Checkpoint]) -> RequestId:
        request_id = self._ids.make()
        told = LeaseCheckpointRequest(
            checkpoints=[LeaseCheckpoint(ID=lease, remaining_TTL=remaining_s) for lease, remaining_s in checkpoints]
        )
        request = InternalRaftRequest(header=RequestHeader(ID=request_id), lease_checkpoint=told)
        # Only what this term's leader knows counts: held for another, it would shorten what that one has renewed.
        self._raft.tell(Propose([(request_id, request.SerializeToString())], self.actor_ref, self._role.term))
        return request_id

    def _revoke_expired(self, now_s: float) -> None:
        expired = self._lessor.expired(now_s, REVOKES_PER_CHECK_MAX)
        if not expired:
            return
        self._logger.info("leases expired", count=len(expired))
        self._expired_count += len(expired)
        proposals: list[tuple[RequestId, bytes]] = []
        for lease in expired:
            request_id = self._ids.make()
            header = RequestHeader(ID=request_id)
            if self._rules.enabled:  # what a lease holds may belong to anybody
                header.username, header.auth_revision = ROOT_USER, self._rules.revision
            request = InternalRaftRequest(header=header, lease_revoke=LeaseRevokeRequest(ID=lease))
            proposals.append((request_id, request.SerializeToString()))
        # Held for the next leader, or passed on to it, they would end leases that it has renewed meanwhile.
        self._raft.tell(Propose(proposals, self.actor_ref, self._role.term))
