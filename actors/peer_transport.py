"""PeerTransportActor: the way to and from the other members.

A member that is alone has nobody to send to: it listens on its peer addresses, and answers there the pages that
joining members and tools read.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, final

from actors.base import Home, NodeActor
from actors.messages.apply import Inspect
from actors.messages.serve import Answered, Drain, Open
from services.peer_pages import PeerPages

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine
    from typing import Any

    from actors.address import Address
    from actors.messages.apply import ApplyMessage
    from actors.serve import Engine
    from net.rpc import HttpHandler

PeerTransportMessage = Answered | Open | Drain


@final
class PeerTransportActor(NodeActor[PeerTransportMessage]):
    """Serves the peer listeners.

    Owns: their engine; pages that wait for an answer.  Tells: ApplyActor (questions).  Fails when: never by itself.
    """

    def __init__(
        self,
        home: Home,
        *,
        cluster_id: int,
        make_engine: Callable[[HttpHandler], Engine],
        apply: Address[ApplyMessage],
    ) -> None:
        super().__init__(home)
        self._apply = apply
        self._engine = make_engine(PeerPages(cluster_id, self._ask_members).handle)
        self._answers: dict[int, Callable[[bytes], None]] = {}
        self._last_token = 0
        self._tasks: set[asyncio.Task[None]] = set()

    def handle(self, message: PeerTransportMessage) -> None:
        """Take one message."""
        match message:
            case Answered():
                assert isinstance(message.outcome, bytes), type(message.outcome)
                self._answers.pop(message.token)(message.outcome)
            case Open():
                self._run(self._engine.start())
            case Drain():
                self._run(self._drain(message))

    def _ask_members(self, then: Callable[[bytes], None]) -> None:
        self._last_token += 1
        token, answer_to = self._last_token, self.actor_ref
        self._answers[token] = then
        self._apply.tell(Inspect(lambda applier: answer_to.tell(Answered(token, applier.cluster.to_json()))))

    def _run(self, work: Coroutine[Any, Any, None]) -> None:
        # The loop keeps only weak references to tasks.
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _drain(self, message: Drain) -> None:
        await self._engine.drain(message.timeout_s)
        message.after.send()
