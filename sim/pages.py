"""The questions that members ask each other at their peer URLs: the real pages, without HTTP in between."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

from actors.messages.apply import Inspect, ObserveCluster
from actors.messages.common import ClusterIs
from actors.messages.lease import Renew, TimeToLive
from actors.messages.peer_transport import CarryQuestions, MemberAnswer
from actors.messages.serve import Answered, Renewed
from actors.messages.worker import Work
from actors.peer_transport import hashed
from core.errors import NotLeader
from net.rpc import HttpRequest
from services.peer_pages import PeerPages

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from actors.address import Address
    from actors.messages.apply import ApplyMessage
    from actors.messages.lease import LeaseMessage
    from actors.messages.peer_transport import AskMember
    from core.apply.applier import Applier
    from core.errors import EtcdError
    from core.mvcc.hashing import HashKv
    from core.mvcc.view import View
    from core.types import LeaseId, MemberId
    from services.node import LeaseTimes


class Responder:
    """Takes one whole answer."""

    unsent_bytes = 0

    def __init__(self, answered: Callable[[MemberAnswer], None]) -> None:
        self.done = False
        self._answered = answered

    def reply(self, status: int, _headers: Sequence[tuple[str, str]], body: bytes) -> None:
        """See HttpResponder."""
        self.done = True
        self._answered(MemberAnswer(status, body))

    def follow(self, on_drained: Callable[[], None], on_closed: Callable[[], None]) -> None:
        """See HttpResponder: nothing is ever unsent, and who asks stays."""

    def start(self, status: int, headers: Sequence[tuple[str, str]]) -> None:
        """See HttpResponder."""
        raise AssertionError(f"a page between members answers in one piece: {status} {headers}")

    def write(self, chunk: bytes) -> None:
        """See HttpResponder."""
        raise AssertionError(chunk)

    def upgrade(self, *_anything: object) -> None:
        """See HttpResponder: it cannot."""

    def end(self) -> None:
        """See HttpResponder."""


class SimPages:
    """One member's pages, and what they ask it.  An address of the answers."""

    def __init__(
        self,
        cluster_id: int,
        apply: Address[ApplyMessage],
        lease: Address[LeaseMessage],
        carrier: Address[AskMember],
        checker: Address[Work],
        timeout_s: float,
    ) -> None:
        self.cluster_id = cluster_id
        self.cluster_version = ""
        self._apply = apply
        self._lease = lease
        self._checker = checker
        self._answers: dict[int, Callable[..., None]] = {}
        self._last_token = 0
        self._pages = PeerPages(self)
        lease.tell(CarryQuestions(carrier, timeout_s))
        apply.tell(ObserveCluster(self))

    def handle(self, asked: AskMember, answered: Callable[[MemberAnswer], None]) -> None:
        """Answer another member's question, now or later."""
        request = HttpRequest(asked.method, asked.path, "", {}, asked.body, "peer", secure=False, common_name=None)
        self._pages.handle(request, Responder(answered))

    def tell(self, message: Any) -> None:  # noqa: ANN401 - answers of several kinds
        """Take an answer to a question of a page."""
        match message:
            case Answered():
                self._answers.pop(message.token)(message.outcome)
            case Renewed():
                for token, ttl_s in message.answers:
                    self._answers.pop(token)(ttl_s)
            case ClusterIs():
                self.cluster_version = message.version
            case _:
                raise AssertionError(message)

    @property
    def is_downgrading(self) -> bool:
        """See PeerNode: no simulated client asks for it."""
        return False

    def members_json(self, then: Callable[[bytes], None]) -> None:
        """See PeerNode."""
        self._inspect(then, lambda applier: applier.cluster.to_json())

    def promote(self, member: MemberId, then: Callable[[EtcdError | None], None]) -> None:
        """See PeerNode: the simulation has no learners."""
        del member
        then(NotLeader())

    def renew(self, lease: LeaseId, then: Callable[[int | EtcdError], None]) -> None:
        """See PeerNode."""
        self._lease.tell(Renew(((self._token(then), lease),), self, may_forward=False))

    def lease_times(self, lease: LeaseId, then: Callable[[LeaseTimes | EtcdError], None]) -> None:
        """See PeerNode."""
        self._lease.tell(TimeToLive(self._token(then), lease, self, may_forward=False))

    def lease_keys(self, lease: LeaseId, then: Callable[[list[bytes]], None]) -> None:
        """See PeerNode."""
        self._inspect(then, lambda applier: applier.lease_keys(lease))

    def hash_kv(self, revision: int, then: Callable[[tuple[HashKv, int] | EtcdError], None]) -> None:
        """See PeerNode."""

        def with_view(found: tuple[View, HashKv | None]) -> None:
            view, made = found
            if made is not None:
                then((made, view.revision))
            else:
                self._checker.tell(Work(self._token(then), partial(hashed, view, revision), self))

        self._inspect(with_view, lambda applier: applier.hash_question(revision))

    def _inspect(self, then: Callable[..., None], question: Callable[[Applier], object]) -> None:
        token = self._token(then)
        self._apply.tell(Inspect(lambda applier: self.tell(Answered(token, question(applier)))))

    def _token(self, then: Callable[..., None]) -> int:
        self._last_token += 1
        self._answers[self._last_token] = then
        return self._last_token
