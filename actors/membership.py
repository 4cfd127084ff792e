"""MembershipActor: changes of who belongs to the cluster and who leads it, and the version that its members agree on.

A change is checked against the applied members and the connections there are now, proposed once, and answered when it
is applied here.  What only the leader can judge is asked of the leader.  Behaviour: the Cluster section of the etcd v3
API, and MoveLeader.
"""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, NamedTuple, final

from actors.base import Home, NodeActor
from actors.messages.apply import Inspect, ObserveCluster, ObserveOutcomes
from actors.messages.common import ActivityIs, ClusterIs, Tick
from actors.messages.membership import ChangeMembers, MembershipMessage, MoveLeader, PromoteMember, StepDown
from actors.messages.metrics import Measure, Measured
from actors.messages.peer_transport import AnswerPromotions, AskMember, MemberAnswer, ObserveActivity
from actors.messages.raft import (
    AdvanceElection,
    InspectRaft,
    ObserveRole,
    Propose,
    ProposeConfChange,
    RoleIs,
    TransferLeader,
)
from actors.messages.serve import Answered, Completed, Refused
from core.errors import (
    BadLeaderTransferee,
    EtcdError,
    LearnerNotReady,
    NotLeader,
    RequestTimeout,
    TimeoutLeaderTransfer,
)
from core.membership.agreement import told_version, version_to_settle
from core.membership.change import promoting
from core.membership.downgrade import is_complete, version_to_lower_to
from core.membership.strict import HEALTHY_AFTER_S, check_strictly
from core.metrics import Sample
from core.raft.messages import ConfChange
from core.types import MemberId, Term
from core.version import CLUSTER_VERSION, MIN_CLUSTER_VERSION, SERVER_VERSION
from proto.membership_pb2 import ClusterVersionSetRequest
from proto.raft_internal_pb2 import InternalRaftRequest, RequestHeader
from services.member_pages import PROMOTE_PATH, promote_outcome
from wal.codec import encode_conf_change

if TYPE_CHECKING:
    from collections.abc import Callable

    import structlog

    from actors.address import Address, AnyDelivery
    from actors.messages.apply import ApplyMessage
    from actors.messages.peer_transport import PeerTransportMessage
    from actors.messages.raft import RaftMessage
    from core.apply.applier import Applier
    from core.clock import Clock
    from core.membership.version import Version
    from core.raft.node import RaftNode
    from core.request_id import RequestIds
    from core.types import RequestId

    Then = Callable[[object], None]

READY_SHARE = 0.9
"""How much of the leader's log a learner must have to be promoted (etcd's share)."""

VERSIONS_CHECK_S = 5.0
"""How often the leader asks the members for their versions (etcd's interval)."""

ASK_TIMEOUT_S = 5.0

PEERS_TO_HASTEN = 2
HASTEN_WITHIN_S = 5.0
"""The first election is hastened when so many others are connected so soon after the start (etcd's rule)."""


class Counted:
    """An address that shows what it is told to *count* before it passes it on."""

    def __init__(self, to: Address[Answered], count: Callable[[object], None]) -> None:
        self._to = to
        self._count = count

    def tell(self, message: Answered) -> None:
        """Pass *message* on."""
        self._count(message.outcome)
        self._to.tell(message)


class _Pending(NamedTuple):
    """A change under way."""

    token: int
    change: ConfChange
    answer_to: Address[Answered]
    deadline_s: float


@final
class MembershipActor(NodeActor[MembershipMessage]):
    """Changes members and leadership.

    Owns: changes and transfers under way.  Tells: RaftActor, ApplyActor (questions), PeerTransportActor (questions to
    other members), whoever asked.  Fails when: never by itself.
    """

    def __init__(
        self,
        home: Home,
        *,
        local: MemberId,
        strict: bool,
        request_ids: RequestIds,
        timeout_s: float,
        ticks_ahead: int,
        downgrade_check_s: float,
        clock: Clock,
        apply: Address[ApplyMessage],
        raft: Address[RaftMessage],
        peers: Address[PeerTransportMessage],
        logger: structlog.stdlib.BoundLogger,
    ) -> None:
        """*strict* refuses changes that would endanger the quorum.

        So many *ticks_ahead* of the first election need not be waited for once the others are there.  A downgrade is
        looked after every *downgrade_check_s*.
        """
        super().__init__(home)
        self._local = local
        self._strict = strict
        self._ids = request_ids
        self._timeout_s = timeout_s
        self._ticks_ahead = ticks_ahead
        self._downgrade_check_s = downgrade_check_s
        self._started_s = clock.monotonic_s()
        self._clock = clock
        self._apply = apply
        self._raft = raft
        self._peers = peers
        self._logger = logger
        self._cluster = ClusterIs((), (), "")
        self._activity = ActivityIs({})
        self._role = RoleIs(Term(0), MemberId(0), is_leader=False)
        self._pending: dict[RequestId, _Pending] = {}
        self._retries: list[Callable[[], None]] = []
        self._moves: list[tuple[MoveLeader, float]] = []
        self._leaving: list[tuple[AnyDelivery, float]] = []
        self._answers: dict[int, Then] = {}
        self._last_token = 0
        self._versions_due_s = 0.0
        self._downgrading = False
        self._version_attempt: RequestId | None = None
        self._promoted_count = 0
        self._promotions_refused: Counter[str] = Counter()

    def setup(self) -> None:
        """Ask to be told who belongs to the cluster, who leads it and who is connected."""
        self._apply.tell(ObserveOutcomes(self._ids.owner, self.actor_ref))
        self._apply.tell(ObserveCluster(self.actor_ref))
        self._raft.tell(ObserveRole(self.actor_ref))
        self._peers.tell(ObserveActivity(self.actor_ref))
        self._peers.tell(AnswerPromotions(self.actor_ref))

    def handle(self, message: MembershipMessage) -> None:
        """Take one message."""
        match message:
            case ChangeMembers():
                self._change(message)
            case PromoteMember():
                self._promote(message, self._clock.monotonic_s() + self._timeout_s)
            case MoveLeader():
                self._move(message)
            case StepDown():
                self._step_down(message)
            case ActivityIs():
                self._activity = message
                self._hasten_first_election()
                if self._leaving and not self._connected_voters():
                    self._leave()
            case ClusterIs():
                self._cluster = message
            case RoleIs():
                self._role = message
                self._versions_due_s = 0.0
                self._notice_leader()
            case Completed():
                for request_id, outcome in message.outcomes:
                    self._complete(request_id, outcome)
            case Refused():
                for request_id in message.request_ids:
                    self._refused(request_id, message.error)
            case Answered():
                self._answers.pop(message.token)(message.outcome)
            case Tick():
                self._tick(message.now_s)
            case Measure():
                message.answer_to.tell(Measured(message.round, self._samples()))

    # -- changes -----------------------------------------------------------------------------------------------------

    def _change(self, asked: ChangeMembers) -> None:
        request_id = self._ids.make()
        change = ConfChange(asked.change.type, asked.change.node_id, request_id, asked.change.context)
        deadline_s = self._clock.monotonic_s() + self._timeout_s

        def with_verdict(refusal: object) -> None:
            if isinstance(refusal, EtcdError):
                asked.answer_to.tell(Answered(asked.token, refusal))
                return
            self._pending[request_id] = _Pending(asked.token, change, asked.answer_to, deadline_s)
            self._propose(request_id)

        self._inspect(lambda applier: self._refusal(applier, change), with_verdict)

    def _refusal(self, applier: Applier, change: ConfChange) -> EtcdError | None:
        """Return why *change* is not to be proposed.  Runs on ApplyActor's thread, and changes nothing."""
        now_s, since_s = self._clock.monotonic_s(), self._activity.since_s
        steady = [member for member, since in since_s.items() if now_s - since >= HEALTHY_AFTER_S]
        try:
            applier.cluster.validate(change)
            if self._strict:
                check_strictly(applier.cluster, change, local=self._local, connected=since_s.keys(), steady=steady)
        except EtcdError as error:
            return error
        return None

    def _propose(self, request_id: RequestId) -> None:
        pending = self._pending.get(request_id)
        if pending is not None:
            data = encode_conf_change(pending.change)
            self._raft.tell(ProposeConfChange(request_id, data, self.actor_ref))

    def _propose_again(self, request_id: RequestId) -> None:
        """Propose a change once more if it still fits: the one that was in its way may have made it senseless."""
        pending = self._pending.get(request_id)
        if pending is None:
            return

        def with_verdict(refusal: object) -> None:
            if isinstance(refusal, EtcdError) and self._pending.pop(request_id, None) is not None:
                pending.answer_to.tell(Answered(pending.token, refusal))
            else:
                self._propose(request_id)

        self._inspect(lambda applier: self._refusal(applier, pending.change), with_verdict)

    def _refused(self, request_id: RequestId, error: EtcdError) -> None:
        if request_id == self._version_attempt:
            self._version_attempt = None
        elif request_id in self._pending:
            # Nobody leads, or another change is not applied yet: both pass, and the asker's time is bounded.
            del error
            self._retries.append(lambda: self._propose_again(request_id))

    def _complete(self, request_id: RequestId, outcome: bytes | EtcdError) -> None:
        if request_id == self._version_attempt:
            self._version_attempt = None
            self._logger.info("set cluster version", cluster_version=self._cluster.version)
            return
        pending = self._pending.pop(request_id, None)
        if pending is None:
            return
        if isinstance(outcome, EtcdError):
            pending.answer_to.tell(Answered(pending.token, outcome))
            return
        self._logger.info(
            "changed the members", change=pending.change.type.name.lower(), changed_id=f"{pending.change.node_id:x}"
        )
        self._inspect(
            lambda applier: applier.encoded_members(),
            lambda members: pending.answer_to.tell(Answered(pending.token, members)),
        )

    # -- promotion ---------------------------------------------------------------------------------------------------

    def _promote(self, asked: PromoteMember, deadline_s: float) -> None:
        if self._clock.monotonic_s() >= deadline_s:
            asked.answer_to.tell(Answered(asked.token, RequestTimeout()))
        elif self._role.is_leader:
            self._promote_here(asked)
        elif not asked.may_forward:
            asked.answer_to.tell(Answered(asked.token, NotLeader()))
        elif not self._role.leader:
            self._retries.append(lambda: self._promote(asked, deadline_s))
        else:
            self._promote_there(asked, deadline_s)

    def _promote_here(self, asked: PromoteMember) -> None:
        answer_to = Counted(asked.answer_to, self._count_promotion)
        change = ChangeMembers(asked.token, promoting(asked.member), answer_to)

        def with_readiness(ready: object) -> None:
            if ready is False:
                answer_to.tell(Answered(asked.token, LearnerNotReady()))
            else:
                self._change(change)

        token = self._token(with_readiness)
        own = self.actor_ref
        self._raft.tell(InspectRaft(lambda node: own.tell(Answered(token, is_ready(node, asked.member)))))

    def _count_promotion(self, outcome: object) -> None:
        if isinstance(outcome, EtcdError):
            self._promotions_refused[outcome.text] += 1
        else:
            self._promoted_count += 1

    def _samples(self) -> list[Sample]:
        return [
            Sample("etcd_server_learner_promote_successes", self._promoted_count),
            *(
                Sample("etcd_server_learner_promote_failures", count, (reason,))
                for reason, count in self._promotions_refused.items()
            ),
        ]

    def _promote_there(self, asked: PromoteMember, deadline_s: float) -> None:
        def with_answer(answer: object) -> None:
            assert answer is None or isinstance(answer, MemberAnswer), answer
            outcome = None if answer is None else promote_outcome(answer.status, answer.body)
            if outcome is None:
                self._retries.append(lambda: self._promote(asked, deadline_s))
            else:
                asked.answer_to.tell(Answered(asked.token, outcome))

        self._ask(self._role.leader, "POST", f"{PROMOTE_PATH}{asked.member}", with_answer)

    # -- leadership --------------------------------------------------------------------------------------------------

    def _move(self, asked: MoveLeader) -> None:
        refusal: EtcdError | None = None
        if not self._role.is_leader:
            refusal = NotLeader()
        elif asked.to != self._local and asked.to not in self._voters():
            refusal = BadLeaderTransferee()
        if refusal is not None or asked.to == self._local:
            asked.answer_to.tell(Answered(asked.token, refusal))
            return
        self._logger.info("leadership is handed over", to=f"{asked.to:x}")
        self._moves.append((asked, self._clock.monotonic_s() + self._timeout_s))
        self._raft.tell(TransferLeader(asked.to))

    def _step_down(self, asked: StepDown) -> None:
        connected = self._connected_voters()
        if not self._role.is_leader or not connected:
            asked.after.send()
            return
        to = min(connected, key=lambda member: self._activity.since_s[member])
        self._logger.info("leadership is handed over before the stop", to=f"{to:x}")
        self._leaving.append((asked.after, self._clock.monotonic_s() + asked.timeout_s))
        self._raft.tell(TransferLeader(to))

    def _notice_leader(self) -> None:
        for asked, _ in [move for move in self._moves if move[0].to == self._role.leader]:
            asked.answer_to.tell(Answered(asked.token, None))
        self._moves = [move for move in self._moves if move[0].to != self._role.leader]
        if self._leaving and not self._role.is_leader and self._role.leader:
            self._leave()

    def _leave(self) -> None:
        leaving, self._leaving = self._leaving, []
        for after, _ in leaving:
            after.send()

    def _connected_voters(self) -> list[MemberId]:
        return [member for member in self._voters() if member in self._activity.since_s]

    def _voters(self) -> list[MemberId]:
        return [member.id for member in self._cluster.members if not member.is_learner and member.id != self._local]

    def _hasten_first_election(self) -> None:
        """Spare a cluster that has just started most of the silence that it takes to notice that nobody leads."""
        if not self._ticks_ahead or len(self._activity.since_s) < PEERS_TO_HASTEN:
            return
        if self._clock.monotonic_s() - self._started_s < HASTEN_WITHIN_S:
            self._raft.tell(AdvanceElection(self._ticks_ahead))
        self._ticks_ahead = 0

    # -- versions ----------------------------------------------------------------------------------------------------

    def _check_versions(self, now_s: float) -> None:
        # A member that is alone settles its first version when it publishes itself; it may have come from an older
        # release since, or have called off a downgrade.
        downgrading = self._cluster.downgrade.enabled
        if downgrading is not self._downgrading:
            self._downgrading = downgrading
            if downgrading:
                self._versions_due_s = now_s + self._downgrade_check_s
        settled = len(self._cluster.members) < 2 and self._cluster.version in {"", CLUSTER_VERSION}
        if not self._role.is_leader or (settled and not downgrading) or now_s < self._versions_due_s:
            return
        self._versions_due_s = now_s + (self._downgrade_check_s if downgrading else VERSIONS_CHECK_S)
        told: dict[MemberId, Version | None] = {}
        asked = [member.id for member in self._cluster.members]

        def with_version(member: MemberId, page: bytes | None) -> None:
            told[member] = None if page is None else told_version(page)
            if len(told) == len(asked):
                self._settle_version(list(told.values()))

        for member in asked:
            if member == self._local:
                with_version(member, b'{"etcdserver":"%b"}' % SERVER_VERSION.encode())
            else:
                self._ask_version(member, with_version)

    def _ask_version(self, member: MemberId, then: Callable[[MemberId, bytes | None], None]) -> None:
        def with_answer(answer: object) -> None:
            then(member, answer.body if isinstance(answer, MemberAnswer) else None)

        self._ask(member, "GET", "/version", with_answer)

    def _settle_version(self, told: list[Version | None]) -> None:
        if not self._role.is_leader or self._version_attempt is not None:
            return
        cluster, downgrade = self._cluster, self._cluster.downgrade
        request_id = self._ids.make()
        request = InternalRaftRequest(header=RequestHeader(ID=request_id))
        if downgrade.enabled and is_complete(told, downgrade):
            self._logger.info("the cluster has been downgraded", target_version=downgrade.target)
            request.downgrade_info_set.SetInParent()
        else:
            version = (
                version_to_lower_to(cluster.version, told, downgrade)
                if downgrade.enabled
                else version_to_settle(cluster.version, told, MIN_CLUSTER_VERSION)
            )
            if version is None:
                return
            request.cluster_version_set.CopyFrom(ClusterVersionSetRequest(ver=version))
        self._version_attempt = request_id
        self._raft.tell(Propose([(request_id, request.SerializeToString())], self.actor_ref))

    # -- time and questions ------------------------------------------------------------------------------------------

    def _tick(self, now_s: float) -> None:
        retries, self._retries = self._retries, []
        for retry in retries:
            retry()
        for request_id in [key for key, pending in self._pending.items() if pending.deadline_s <= now_s]:
            pending = self._pending.pop(request_id)
            pending.answer_to.tell(Answered(pending.token, RequestTimeout()))
        for asked, deadline_s in self._moves:
            if deadline_s <= now_s:
                asked.answer_to.tell(Answered(asked.token, TimeoutLeaderTransfer()))
        self._moves = [move for move in self._moves if move[1] > now_s]
        for after, deadline_s in self._leaving:
            if deadline_s <= now_s:
                after.send()
        self._leaving = [leaving for leaving in self._leaving if leaving[1] > now_s]
        self._check_versions(now_s)

    def _inspect(self, question: Callable[[Applier], object], then: Then) -> None:
        token, answer_to = self._token(then), self.actor_ref
        self._apply.tell(Inspect(lambda applier: answer_to.tell(Answered(token, question(applier)))))

    def _ask(self, member: MemberId, method: str, path: str, then: Then) -> None:
        self._peers.tell(AskMember(self._token(then), member, method, path, b"", self.actor_ref, ASK_TIMEOUT_S))

    def _token(self, then: Then) -> int:
        self._last_token += 1
        self._answers[self._last_token] = then
        return self._last_token


def is_ready(node: RaftNode, learner: MemberId) -> bool:
    """Whether *learner*'s log has nearly all that the leader's has; True also for who is no learner, or does not lead.

    Those cases have errors of their own, which the checks of the change itself find.
    """
    progress = node.progress.get(learner)
    if progress is None or learner not in node.conf_state.learners:
        return True
    return progress.match >= node.log.last * READY_SHARE
