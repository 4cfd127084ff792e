"""Bugs planted on purpose, to show that the checks would find them.  They exist nowhere but here."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

from actors.messages.raft import ReadIndex
from actors.messages.serve import ReadIndexed
from actors.messages.wal import Append
from actors.raft import RaftActor
from actors.wal import WalActor
from core.raft.role import Role

if TYPE_CHECKING:
    from collections.abc import Callable

    from actors.address import Address
    from actors.base import NodeActor


class AcknowledgeBeforeSync:
    """A WalActor that sends what should wait for the sync before it has even seen what to write."""

    def __init__(self, actor: NodeActor[Any]) -> None:
        self._wal = actor.actor_ref

    def tell(self, message: Any) -> None:  # noqa: ANN401 - whatever a WalActor takes
        """Send what waits, then pass on the rest."""
        if isinstance(message, Append):
            for delivery in message.after:
                delivery.send()
            message = message._replace(after=())
        self._wal.tell(message)


class ReadWithoutQuorum:
    """A RaftActor whose leader answers for the index of a read by itself."""

    def __init__(self, actor: NodeActor[Any]) -> None:
        assert isinstance(actor, RaftActor), actor
        self._raft = actor.actor_ref
        self._node = actor._node  # noqa: SLF001 - the bug is inside the actor

    def tell(self, message: Any) -> None:  # noqa: ANN401 - whatever a RaftActor takes
        """Answer a read at once if this member believes that it leads."""
        node = self._node
        if isinstance(message, ReadIndex) and node.role is Role.LEADER and node.log.matches(node.commit, node.term):
            message.answer_to.tell(ReadIndexed(message.context, node.commit))
        else:
            self._raft.tell(message)


class Plant(NamedTuple):
    """A bug: whom it replaces and by what, and the circumstances in which it can show at all."""

    kind: type[NodeActor[Any]]
    make: Callable[[NodeActor[Any]], Address[Any]]
    faults: tuple[tuple[str, float], ...]
    changes: dict[str, Any]
    """Of the seed's settings."""


PLANTS = {
    "acknowledge-before-sync": Plant(WalActor, AcknowledgeBeforeSync, (("power", 0.3), ("all_down", 0.2)), {}),
    "read-without-quorum": Plant(
        RaftActor, ReadWithoutQuorum, (("isolate_leader", 0.3),), {"members": 3, "clients": 6, "think_s": 0.02}
    ),
}
