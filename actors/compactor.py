"""CompactorActor: compacts history by itself while this member leads, as configured.

When and how far is decided by a schedule (core/mvcc/auto_compaction.py); this carries the store's revision to it and
its decisions into the log.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple, final

from actors.base import Home, NodeActor
from actors.messages.apply import Inspect, ObserveOutcomes
from actors.messages.common import Tick
from actors.messages.compactor import CompactorMessage
from actors.messages.raft import ObserveRole, Propose, RoleIs
from actors.messages.serve import Answered, Completed, Refused
from core.errors import Compacted, EtcdError, RequestTimeout
from core.types import MemberId, Term
from proto.raft_internal_pb2 import InternalRaftRequest, RequestHeader
from proto.rpc_pb2 import CompactionRequest

if TYPE_CHECKING:
    import structlog

    from actors.address import Address
    from actors.messages.apply import ApplyMessage
    from actors.messages.raft import RaftMessage
    from core.apply.applier import Applier
    from core.clock import Clock
    from core.mvcc.auto_compaction import Schedule
    from core.request_id import RequestIds
    from core.types import RequestId


class _Attempt(NamedTuple):
    """A compaction that was proposed."""

    request_id: RequestId
    revision: int
    deadline_s: float


@final
class CompactorActor(NodeActor[CompactorMessage]):
    """Compacts by a schedule.

    Owns: the schedule, the one compaction under way.  Tells: ApplyActor (questions), RaftActor.  Fails when: never by
    itself.
    """

    def __init__(
        self,
        home: Home,
        *,
        schedule: Schedule,
        request_ids: RequestIds,
        timeout_s: float,
        clock: Clock,
        apply: Address[ApplyMessage],
        raft: Address[RaftMessage],
        logger: structlog.stdlib.BoundLogger,
    ) -> None:
        super().__init__(home)
        self._schedule = schedule
        self._ids = request_ids
        self._timeout_s = timeout_s
        self._clock = clock
        self._apply = apply
        self._raft = raft
        self._logger = logger
        self._role = RoleIs(Term(0), MemberId(0), is_leader=False)
        self._next_s = 0.0
        self._attempt: _Attempt | None = None

    def setup(self) -> None:
        """Ask to be told of outcomes and of who leads."""
        self._apply.tell(ObserveOutcomes(self._ids.owner, self.actor_ref))
        self._raft.tell(ObserveRole(self.actor_ref))

    def handle(self, message: CompactorMessage) -> None:
        """Take one message."""
        match message:
            case Tick():
                if self._attempt is not None and message.now_s >= self._attempt.deadline_s:
                    self._end(RequestTimeout())
                if message.now_s >= self._next_s:
                    self._next_s = message.now_s + self._schedule.interval_s
                    self._ask_revision()
            case Answered():
                assert isinstance(message.outcome, int), message
                self._look(message.outcome)
            case Completed():
                for request_id, outcome in message.outcomes:
                    if self._attempt is not None and request_id == self._attempt.request_id:
                        self._end(outcome if isinstance(outcome, EtcdError) else None)
            case Refused():
                if self._attempt is not None and self._attempt.request_id in message.request_ids:
                    self._end(message.error)
            case RoleIs():
                self._role = message

    def _ask_revision(self) -> None:
        answer_to = self.actor_ref

        def answer(applier: Applier) -> None:
            answer_to.tell(Answered(0, applier.store.revision))

        self._apply.tell(Inspect(answer))

    def _look(self, revision: int) -> None:
        now_s = self._clock.monotonic_s()
        leads = self._role.is_leader and self._attempt is None
        due = self._schedule.due(now_s, revision, leads=leads)
        if due is None:
            return
        self._logger.info("starting auto compaction", revision=due)
        request_id = self._ids.make()
        self._attempt = _Attempt(request_id, due, now_s + self._timeout_s)
        request = InternalRaftRequest(
            header=RequestHeader(ID=request_id), compaction=CompactionRequest(revision=due)
        ).SerializeToString()
        # The next leader has a schedule of its own.
        self._raft.tell(Propose([(request_id, request)], self.actor_ref, self._role.term))

    def _end(self, error: EtcdError | None) -> None:
        attempt, self._attempt = self._attempt, None
        assert attempt is not None
        if error is None or isinstance(error, Compacted):  # a client may have compacted further meanwhile
            self._logger.info("completed auto compaction", revision=attempt.revision)
            self._schedule.compacted(self._clock.monotonic_s(), attempt.revision)
        else:
            self._logger.warning(
                "failed auto compaction; it is tried again at the next interval",
                revision=attempt.revision,
                error=error.text,
            )
