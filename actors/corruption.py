"""CorruptionActor: do the members hold the same?

Three checks, as etcd makes them: once before this member serves clients; by the leader from time to time; by the leader
of what each compaction left.  Verdicts are core/alarms/corruption.py's; this collects the hashes and raises the alarm.

A member that could not be compared has not passed: it is logged, counted, and asked again.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, final

import google_crc32c

from actors.base import Home, NodeActor
from actors.caught_up import CaughtUp
from actors.messages.apply import Inspect, ObserveCluster
from actors.messages.common import ClusterIs, Tick
from actors.messages.corruption import CorruptionMessage
from actors.messages.lease import AppliedIs
from actors.messages.metrics import Measure, Measured
from actors.messages.peer_transport import AskMember, MemberAnswer
from actors.messages.raft import ObserveRole, Propose, RoleIs
from actors.messages.serve import Answered, ReadIndexed, Refused
from actors.messages.worker import Work
from core.alarms.corruption import NotTold, Verdict, compaction_verdict, compare, periodic_verdict
from core.metrics import Sample
from core.mvcc.hashing import HashKv, hash_kv
from core.types import MemberId, RequestId, Term
from proto.raft_internal_pb2 import InternalRaftRequest
from proto.rpc_pb2 import AlarmRequest, AlarmType
from services.member_pages import HASH_PATH, hash_outcome, hash_question

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence
    from concurrent.futures import Future

    import structlog

    from actors.address import Address
    from actors.messages.apply import ApplyMessage
    from actors.messages.peer_transport import PeerTransportMessage
    from actors.messages.raft import RaftMessage
    from core.alarms.corruption import Answer
    from core.apply.applier import Applier
    from core.clock import Clock
    from core.mvcc.view import View

HASH_TIMEOUT_S = 300.0
"""For one member's answer: a large store takes a while to hash."""

RETRY_S_MIN = 5.0
RETRY_S_MAX = 300.0
"""After which a member that could not be compared is asked again, twice as late each time; the periodic check comes
back to its own interval instead."""

INITIAL, PERIODIC, COMPACTION = "initial", "periodic", "compaction"
PASSED, FAILED, INCOMPLETE = "passed", "failed", "incomplete"


class FoundCorrupt(Exception):  # noqa: N818 - named for what happened
    """This member's data is not what others have; the text is for the operator."""


@dataclass(frozen=True, slots=True)
class Checks:
    """Which checks are made, and when."""

    initial: bool
    periodic_s: float
    """Between two; 0 for none."""
    compaction_s: float
    """Between two; 0 for none."""


@dataclass(slots=True)
class _Initial:
    """The check before serving, until all others have been compared."""

    left: set[MemberId]
    own: HashKv | None = None
    next_s: float = 0.0
    retry_s: float = RETRY_S_MIN
    rounds: int = 0
    under_way: bool = False
    vain_revision: int = 0
    """Where a comparison can never succeed."""


@final
class CorruptionActor(NodeActor[CorruptionMessage]):
    """Compares the members' hashes.

    Owns: checks under way.  Tells: ApplyActor (questions), WorkerActor (hashes), PeerTransportActor (questions to other
    members), RaftActor (reads, alarms).  Resolves *may_serve* once.  Fails when: never by itself.
    """

    def __init__(
        self,
        home: Home,
        *,
        local: MemberId,
        checks: Checks,
        first_timeout_s: float,
        may_serve: Future[None],
        clock: Clock,
        apply: Address[ApplyMessage],
        raft: Address[RaftMessage],
        peers: Address[PeerTransportMessage],
        checker: Address[Work],
        logger: structlog.stdlib.BoundLogger,
    ) -> None:
        """*first_timeout_s* is how long clients wait, at most, for a member that does not answer the first question."""
        super().__init__(home)
        self._local = local
        self._checks = checks
        self._first_timeout_s = first_timeout_s
        self._may_serve = may_serve
        self._clock = clock
        self._apply = apply
        self._raft = raft
        self._peers = peers
        self._checker = checker
        self._logger = logger
        self._cluster: ClusterIs | None = None
        self._role = RoleIs(Term(0), MemberId(0), is_leader=False)
        self._initial: _Initial | None = None
        self._due_s: dict[str, float] = {}
        self._busy: dict[str, Term] = {}
        self._retry_s = RETRY_S_MIN
        self._checked_revision = 0
        """Compactions up to here need no further look."""
        self._vain: set[int] = set()
        """Compactions that cannot be compared any more: somebody has forgotten them."""
        self._reads: CaughtUp[Callable[[], None]] = CaughtUp(raft, apply, self.actor_ref)
        self._answers: dict[int, Callable[..., None]] = {}
        self._last_token = 0
        self._counts: dict[tuple[str, str], int] = {}

    def setup(self) -> None:
        """Ask to be told who belongs to the cluster and who leads it."""
        if not self._checks.initial:
            self._may_serve.set_result(None)
        self._apply.tell(ObserveCluster(self.actor_ref))
        self._raft.tell(ObserveRole(self.actor_ref))

    def handle(self, message: CorruptionMessage) -> None:
        """Take one message."""
        match message:
            case Tick():
                self._tick(message.now_s)
            case Answered():
                self._answers.pop(message.token)(message.outcome)
            case ReadIndexed():
                self._reads.take_index(message)
            case AppliedIs():
                for then in self._reads.take_applied(message, self._clock.monotonic_s()):
                    then()
            case ClusterIs():
                first, self._cluster = self._cluster is None, message
                if first and self._checks.initial:
                    self._initial = _Initial(set(self._others()))
                    self._check_initially()
            case RoleIs():
                self._take_role(message)
            case Refused():
                pass  # an alarm that was not raised comes again with the next check
            case Measure():
                message.answer_to.tell(Measured(message.round, self._samples()))

    def _tick(self, now_s: float) -> None:
        self._reads.tick(now_s)
        initial = self._initial
        if initial is not None and not initial.under_way and now_s >= initial.next_s:
            self._check_initially()
        if not self._role.is_leader:
            return
        if self._is_due(PERIODIC, self._checks.periodic_s, now_s):
            self._check_periodically()
        if self._is_due(COMPACTION, self._checks.compaction_s, now_s):
            self._check_compactions()

    def _take_role(self, role: RoleIs) -> None:
        if role.is_leader and not self._role.is_leader:
            now_s = self._clock.monotonic_s()
            self._due_s = {
                PERIODIC: now_s + self._checks.periodic_s,
                COMPACTION: now_s + self._checks.compaction_s,
            }
            self._retry_s = RETRY_S_MIN
        if not role.is_leader:
            self._reads.give_up()
            self._busy.clear()
        self._role = role

    def _is_due(self, check: str, every_s: float, now_s: float) -> bool:
        if not every_s or self._busy.get(check) == self._role.term or now_s < self._due_s[check]:
            return False
        self._due_s[check] = now_s + every_s
        self._busy[check] = self._role.term
        return True

    # -- before serving ----------------------------------------------------------------------------------------------

    def _check_initially(self) -> None:
        initial = self._initial
        assert initial is not None
        initial.left &= set(self._others())
        if not initial.left:
            self._end_initially()
            return
        if not initial.rounds:
            self._logger.info("starting initial corruption check")
        initial.under_way = True
        initial.rounds += 1
        timeout_s = HASH_TIMEOUT_S if initial.rounds > 1 else self._first_timeout_s

        def with_own(own: HashKv) -> None:
            initial.own = own
            self._ask(sorted(initial.left), own.revision, timeout_s, partial(self._judge_initially, own))

        def with_revision(revision: object) -> None:
            if revision == initial.vain_revision:
                initial.under_way = False
                self._initially_later(initial)
            else:
                self._hash(with_own)

        if initial.own is None:
            self._inspect(lambda applier: applier.store.revision, with_revision)
        else:
            with_own(initial.own)

    def _judge_initially(self, own: HashKv, answers: dict[MemberId, Answer]) -> None:
        initial = self._initial
        assert initial is not None
        initial.under_way = False
        found = compare(own, answers)
        self._tell(INITIAL, own, found)
        if found.alarms and not self._may_serve.done():
            told = "; ".join(f"{member:x}: {reason}" for member, reason in found.alarms)
            self._may_serve.set_exception(
                FoundCorrupt(
                    f"{self._local:x} found data inconsistency with peers ({told}). If this member is the wrong one, "
                    "remove it from the cluster, and add it anew with an empty data directory"
                )
            )
            self._initial = None
            return
        for member, _ in found.alarms:
            # Clients are served already, so all have to know; which of the two is wrong, two hashes cannot tell.
            del member
            self._raise_alarm(self._local)
        initial.left = set(found.left)
        if any(answer.for_good for answer in found.left.values()):
            initial.own, initial.vain_revision = None, own.revision  # another revision is worth a try
        if not self._may_serve.done():
            self._may_serve.set_result(None)
        if not initial.left:
            self._end_initially()
            return
        self._initially_later(initial)

    def _initially_later(self, initial: _Initial) -> None:
        initial.next_s = self._clock.monotonic_s() + initial.retry_s
        initial.retry_s = min(2 * initial.retry_s, RETRY_S_MAX)

    def _end_initially(self) -> None:
        self._initial = None
        if not self._may_serve.done():
            self._may_serve.set_result(None)

    # -- while leading -----------------------------------------------------------------------------------------------

    def _check_periodically(self) -> None:
        term = self._role.term

        def with_before(before: HashKv) -> None:
            self._ask(self._others(), before.revision, HASH_TIMEOUT_S, partial(with_answers, before))

        def with_answers(before: HashKv, answers: dict[MemberId, Answer]) -> None:
            if self._leads(term):
                then = partial(self._hash, partial(with_after, before, answers))
                self._reads.wait(then, self._clock.monotonic_s())

        def with_after(before: HashKv, answers: dict[MemberId, Answer], after: HashKv) -> None:
            if self._leads(term):
                found = periodic_verdict(self._local, before, answers, after, after.revision)
                self._end_periodic(before, found)

        self._hash(with_before)

    def _end_periodic(self, own: HashKv, found: Verdict) -> None:
        self._busy.pop(PERIODIC)
        self._tell(PERIODIC, own, found)
        for member, _ in found.alarms:
            self._raise_alarm(member)
        if found.left:
            again_s = self._clock.monotonic_s() + self._retry_s
            self._due_s[PERIODIC] = min(self._due_s[PERIODIC], again_s)
            self._retry_s = min(2 * self._retry_s, self._checks.periodic_s)
        else:
            self._retry_s = RETRY_S_MIN

    def _check_compactions(self) -> None:
        term = self._role.term

        def with_hashes(hashes: list[HashKv]) -> None:
            self._vain &= {made.revision for made in hashes}
            wanted = [
                made for made in hashes if made.revision > self._checked_revision and made.revision not in self._vain
            ]
            self._check_next_compaction(term, wanted)

        self._inspect(lambda applier: applier.compaction_hashes.newest_first(), with_hashes)

    def _check_next_compaction(self, term: Term, hashes: Sequence[HashKv]) -> None:
        if not self._leads(term):
            return
        if not hashes or not self._others():
            self._busy.pop(COMPACTION)
            return
        own, *older = hashes

        def with_answers(answers: dict[MemberId, Answer]) -> None:
            if not self._leads(term):
                return
            found = compaction_verdict(self._local, own, answers)
            self._tell(COMPACTION, own, found)
            for member, _ in found.alarms:
                self._raise_alarm(member)
            if found.passed:
                self._checked_revision = max(self._checked_revision, own.revision)
            if found.passed or found.alarms:
                self._busy.pop(COMPACTION)
                return
            # Somebody was not compared: an older compaction may be one that all remember.
            if all(answer.for_good for answer in found.left.values()):
                self._vain.add(own.revision)
            self._check_next_compaction(term, older)

        self._ask(self._others(), own.revision, HASH_TIMEOUT_S, with_answers)

    def _leads(self, term: Term) -> bool:
        return self._role.is_leader and self._role.term == term

    # -- hashes and alarms -------------------------------------------------------------------------------------------

    def _others(self) -> list[MemberId]:
        members = () if self._cluster is None else self._cluster.members
        return [member.id for member in members if member.id != self._local]

    def _hash(self, then: Callable[[HashKv], None]) -> None:
        """Hash this member's keys as they are now."""

        def with_view(view: View) -> None:
            job = partial(hash_kv, view, 0, google_crc32c.extend)
            self._checker.tell(Work(self._token(then), job, self.actor_ref))

        self._inspect(lambda applier: applier.store.view(), with_view)

    def _ask(
        self,
        members: Iterable[MemberId],
        revision: int,
        timeout_s: float,
        then: Callable[[dict[MemberId, Answer]], None],
    ) -> None:
        """Ask *members* for their hashes at *revision*; *then* gets what each told, once all have."""
        asked = list(members)
        answers: dict[MemberId, Answer] = {}
        if not asked:
            then(answers)

        def with_answer(member: MemberId, answer: object) -> None:
            answers[member] = (
                hash_outcome(answer.status, answer.body, revision)
                if isinstance(answer, MemberAnswer)
                else NotTold("it does not answer", for_good=False)
            )
            if len(answers) == len(asked):
                then(answers)

        for member in asked:
            token = self._token(partial(with_answer, member))
            question = hash_question(revision)
            self._peers.tell(
                AskMember(
                    token,
                    member,
                    "GET",
                    HASH_PATH,
                    question,
                    self.actor_ref,
                    timeout_s,
                    content_type="application/json",
                )
            )

    def _tell(self, check: str, own: HashKv, found: Verdict) -> None:
        about = {"check": check, "revision": own.revision, "compact_revision": own.compact_revision}
        outcome = FAILED if found.alarms else INCOMPLETE if found.left else PASSED
        self._counts[check, outcome] = self._counts.get((check, outcome), 0) + 1
        for member, reason in found.alarms:
            self._logger.error("corruption was found", corrupt_id=f"{member:x}", reason=reason, **about)
        for member, answer in found.left.items():
            self._logger.warning(
                "could not compare this member with another; that is no pass, and is tried again",
                peer_id=f"{member:x}",
                reason=answer.reason,
                **about,
            )
        if outcome is PASSED:
            self._logger.info("corruption check passed", **about)

    def _raise_alarm(self, member: MemberId) -> None:
        alarm = AlarmRequest(action=AlarmRequest.ACTIVATE, memberID=member, alarm=AlarmType.CORRUPT)
        request = InternalRaftRequest(alarm=alarm).SerializeToString()
        self._raft.tell(Propose([(RequestId(0), request)], self.actor_ref))

    def _samples(self) -> list[Sample]:
        return [Sample("actcd_corruption_checks_total", count, key) for key, count in sorted(self._counts.items())]

    def _inspect(self, question: Callable[[Applier], Any], then: Callable[..., None]) -> None:
        token, answer_to = self._token(then), self.actor_ref
        self._apply.tell(Inspect(lambda applier: answer_to.tell(Answered(token, question(applier)))))

    def _token(self, then: Callable[..., None]) -> int:
        self._last_token += 1
        self._answers[self._last_token] = then
        return self._last_token
