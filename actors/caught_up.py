"""Questions that may be answered "no" only by a member that has applied all that was committed when they were asked.

A leader commits with the disks of others and may apply later than they do, so what is unknown here may have been
acknowledged there already.  Owns the questions that wait, one read-index round at a time; the actor that has it passes
on what it is told.  Rule: raft thesis 6.4, as for linearizable reads.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Generic, TypeVar

from actors.messages.apply import Inspect
from actors.messages.lease import AppliedIs
from actors.messages.raft import ReadIndex
from core.types import Index

if TYPE_CHECKING:
    from actors.address import Address
    from actors.messages.serve import ReadIndexed
    from core.apply.applier import Applier

Q = TypeVar("Q")

ASK_AGAIN_S = 0.5
"""A round without an answer is asked again after this (etcd's interval for reads)."""


class CaughtUp(Generic[Q]):
    """The questions of one actor.  Belongs to its thread."""

    def __init__(
        self, raft: Address[ReadIndex], apply: Address[Inspect], answer_to: Address[ReadIndexed | AppliedIs]
    ) -> None:
        self._raft = raft
        self._apply = apply
        self._answer_to = answer_to
        self._next: list[Q] = []
        self._round: list[Q] = []
        self._number = 0
        self._index: int | None = None
        self._asked_s = 0.0

    def wait(self, question: Q, now_s: float) -> None:
        """Keep *question* for a round that begins after now."""
        self._next.append(question)
        if not self._round:
            self._begin(now_s)

    def take_index(self, message: ReadIndexed) -> None:
        """Take note of what must be applied for this round."""
        if self._round and message.context == self._number and message.error is None:
            self._index = message.index
            self._ask_applied()

    def take_applied(self, message: AppliedIs, now_s: float) -> list[Q]:
        """Return the questions that may be answered now: all that this actor is told of has been told before."""
        if self._index is None or message.index < self._index:
            return []
        answerable, self._round, self._index = self._round, [], None
        if self._next:
            self._begin(now_s)
        return answerable

    def tick(self, now_s: float) -> None:
        """Ask again for what is missing."""
        if self._index is not None:
            self._ask_applied()
        elif self._round and now_s - self._asked_s > ASK_AGAIN_S:
            self._ask_index(now_s)

    def give_up(self) -> list[Q]:
        """Return and forget all questions."""
        questions = self._round + self._next
        self._round, self._next, self._index = [], [], None
        return questions

    def _begin(self, now_s: float) -> None:
        self._round, self._next = self._next, []
        self._number += 1
        self._ask_index(now_s)

    def _ask_index(self, now_s: float) -> None:
        self._asked_s = now_s
        self._raft.tell(ReadIndex(self._number, self._answer_to))

    def _ask_applied(self) -> None:
        answer_to = self._answer_to

        def answer(applier: Applier) -> None:
            answer_to.tell(AppliedIs(Index(applier.store.applied_index)))

        self._apply.tell(Inspect(answer))
