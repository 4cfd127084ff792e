"""How busy actors are: counted by their homes, for every actor alike."""

from __future__ import annotations

from typing import Any

import pytest

from actors.base import NodeActor, Probe
from actors.load import Load
from actors.loop_home import LoopHome
from actors.thread_home import ThreadHome


class Counter(NodeActor[Any]):
    """Takes anything."""

    def handle(self, message: object) -> None:
        """Drop it."""


def crashed(actor: str, error: BaseException) -> None:
    """Fail the test."""
    raise AssertionError((actor, error))


@pytest.mark.parametrize("kind", ["loop", "thread"])
def test_messages_are_counted_and_mailboxes_measured(kind: str) -> None:
    """Every message counts once, however many are drained together; what was taken waits no more."""
    home = LoopHome(crashed, "Test") if kind == "loop" else ThreadHome(crashed)
    actor = Counter.start(home)
    try:
        for number in range(10):
            actor.tell(number)
        actor.ask(Probe(), timeout=10.0)
        actor.ask(Probe(), timeout=10.0)  # the first was counted by now: its answer may come before it is
        ((load, depth),) = home.loads()
    finally:
        actor.stop(timeout=10.0)
        if isinstance(home, LoopHome):
            home.close()
    assert isinstance(load, Load)
    assert (load.name, depth) == ("Counter", 0)
    assert load.message_count >= 11
    assert 1 <= load.batch_count <= load.message_count
    assert load.busy_s >= 0.0
