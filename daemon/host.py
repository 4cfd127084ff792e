"""The host: spawns actors on homes, stops them in reverse, and ends the process when one crashes.

The thread that started the member waits here.  A crash of any actor wakes it; it logs the cause and leaves at once,
without teardown (fail-stop, architecture decision 5).  A member inside another program leaves by an exception.
"""

from __future__ import annotations

import os
import time
import traceback
from contextlib import suppress
from queue import SimpleQueue
from typing import TYPE_CHECKING, Any, Concatenate, ParamSpec, Protocol, TypeVar

import pykka

from actors.base import NodeActor, Probe
from actors.loop_home import LoopHome
from actors.thread_home import ThreadHome
from core.metrics import Sample

if TYPE_CHECKING:
    from collections.abc import Callable

    import structlog

    from actors.address import Address
    from actors.base import Home

P = ParamSpec("P")
M = TypeVar("M")

EXIT_CRASHED = 1
PROBE_TIMEOUT_S = 60.0
STOP_TIMEOUT_S = 30.0
ABANDON_TIMEOUT_S = 2.0


class Host(Protocol):
    """Has the homes of one member's actors, and spawns them: on threads, or in the simulation."""

    def own_thread(self) -> Home:
        """Return the home that gives each actor a thread of its own."""

    def loop(self, name: str) -> Home:
        """Return the shared loop called *name*."""

    def spawn(
        self, home: Home, make: Callable[Concatenate[Home, P], NodeActor[M]], *args: P.args, **kwargs: P.kwargs
    ) -> Address[M]:
        """Start an actor on *home*; its setup has run on return.  Spawning order is start order."""

    def crashed(self, actor: str, error: BaseException) -> None:
        """Take note that *actor* crashed (a FatalHook)."""

    def retire(self) -> None:
        """Take note that this member was removed from its cluster."""


class ThreadHost:
    """Runs actors on real threads."""

    def __init__(self, logger: structlog.stdlib.BoundLogger, leave: Callable[[int], None] = os._exit) -> None:
        """*leave* does not return: it ends the process with an exit code, whatever its threads are doing."""
        self._logger = logger
        self._leave = leave
        # Unlike an event, this may be filled by a signal handler that interrupts the very thread that waits on it.
        self._woken: SimpleQueue[None] = SimpleQueue()
        self._crash: tuple[str, BaseException] | None = None
        self.retired = False
        """Whether this member has no place in its cluster any more."""
        self._refs: list[pykka.ActorRef[Any]] = []
        self._own = ThreadHome(self.crashed)
        self._loops: dict[str, LoopHome] = {}

    def own_thread(self) -> ThreadHome:
        """Return the home that gives each actor a thread of its own."""
        return self._own

    def loop(self, name: str) -> LoopHome:
        """Return the shared loop called *name*, started at its first mention."""
        if name not in self._loops:
            self._loops[name] = LoopHome(self.crashed, name, time.monotonic)
        return self._loops[name]

    def spawn(
        self, home: Home, make: Callable[Concatenate[Home, P], NodeActor[M]], *args: P.args, **kwargs: P.kwargs
    ) -> Address[M]:
        """Start an actor on *home* and wait until its setup has run.  Spawning order is start order."""
        started: pykka.ActorRef[Any] = make.start(home, *args, **kwargs)  # type: ignore[attr-defined]  # a NodeActor class, which Pykka starts
        self._refs.append(started)
        self._probe(started)
        return started

    def samples(self) -> list[Sample]:
        """Return how busy the actors are, from any thread."""
        found: list[Sample] = []
        homes: list[ThreadHome | LoopHome] = [self._own, *self._loops.values()]
        for home in homes:
            for load, depth in home.loads():
                found += [
                    Sample("actcd_actor_mailbox_depth", depth, (load.name,)),
                    Sample("actcd_actor_messages_total", load.message_count, (load.name,)),
                    Sample("actcd_actor_batches_total", load.batch_count, (load.name,)),
                    Sample("actcd_actor_busy_seconds_total", load.busy_s, (load.name,)),
                ]
        return found

    def wait(self) -> None:
        """Block the calling thread until wake or a crash."""
        self._woken.get()
        self.exit_if_crashed()

    def wake(self) -> None:
        """End wait."""
        self._woken.put(None)

    def retire(self) -> None:
        """End wait for good: this member was removed from its cluster.  From any thread."""
        if not self.retired:
            self.retired = True
            self._logger.warning(
                "this member was removed from the cluster for ever and stops; to take part again, remove its data "
                "directory and add it as a new member"
            )
            self.wake()

    def stop(self) -> None:
        """Stop all actors, last started first, then their loops."""
        for ref in reversed(self._refs):
            ref.stop(timeout=STOP_TIMEOUT_S)
            self.exit_if_crashed()
        for loop in self._loops.values():
            loop.close()

    def abandon(self) -> None:
        """End all threads after a crash without letting actors finish, as far as they can be ended from outside."""
        loops = self._loops.values()
        for ref in reversed(self._refs):
            if not any(ref.actor_inbox in home for home in loops):
                with suppress(pykka.Timeout):
                    ref.stop(timeout=ABANDON_TIMEOUT_S)
        for loop in loops:
            loop.close()

    @property
    def crash(self) -> tuple[str, BaseException] | None:
        """The first actor that crashed, and why."""
        return self._crash

    def exit_if_crashed(self) -> None:
        """Leave if an actor has crashed."""
        if self._crash is None:
            return
        actor, error = self._crash
        self._logger.critical(
            "an actor crashed; the process ends, and recovers from disk when it is started again",
            actor=actor,
            error=repr(error),
            stacktrace="".join(traceback.format_exception(error)),
        )
        self._leave(EXIT_CRASHED)

    def _probe(self, ref: pykka.ActorRef[Any]) -> None:
        try:
            ref.ask(Probe(), timeout=PROBE_TIMEOUT_S)
        except (pykka.ActorDeadError, pykka.Timeout) as error:
            # Its setup failed, of which the home has told, or it hangs.  Threads run already, so there is no way back.
            self.crashed(ref.actor_class.__name__, error)
        self.exit_if_crashed()

    def crashed(self, actor: str, error: BaseException) -> None:
        """Take note that *actor* crashed (a FatalHook)."""
        if self._crash is None:
            self._crash = (actor, error)
        self._woken.put(None)
