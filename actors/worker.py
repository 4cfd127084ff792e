"""WorkerActor: long reads beside the traffic."""

from __future__ import annotations

from typing import final

from actors.base import NodeActor
from actors.messages.serve import Answered
from actors.messages.worker import Work
from core.errors import EtcdError


@final
class WorkerActor(NodeActor[Work]):
    """Runs what would hold up a loop: large ranges, hashes of the whole store.

    Owns: nothing.  Tells: whoever asked.  Fails when: a job raises anything but an EtcdError.
    """

    def handle(self, message: Work) -> None:
        """Run one job."""
        try:
            outcome = message.job()
        except EtcdError as error:
            outcome = error
        message.answer_to.tell(Answered(message.token, outcome))
