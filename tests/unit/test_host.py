"""The host: actors start one after the other, stop in reverse, and a crash of any ends the process with its cause."""

from __future__ import annotations

import signal
import threading
from typing import TYPE_CHECKING, Any

import pykka
import pytest
import structlog

from actors.base import NodeActor, Probe
from actors.messages.serve import Answered
from actors.messages.worker import Work
from actors.worker import WorkerActor
from core.errors import Compacted
from daemon.host import EXIT_CRASHED, ThreadHost
from daemon.process import StopSignal
from tests.fakes import Told

if TYPE_CHECKING:
    from collections.abc import Iterator

    from actors.base import Home

WAIT_S = 10.0


class Left(BaseException):
    """The process would have ended."""


def leave(code: int) -> None:
    raise Left(code)


class Named(NodeActor[Any]):
    """Notes its beginning and its end under its name."""

    def __init__(self, home: Home, name: str, journal: list[str], fail_on: str = "") -> None:
        super().__init__(home)
        self._name = name
        self._journal = journal
        self._fail_on = fail_on

    def setup(self) -> None:
        self._note("setup")

    def handle(self, message: Any) -> None:
        self._note(str(message))

    def teardown(self) -> None:
        self._note("teardown")

    def _note(self, what: str) -> None:
        if what == self._fail_on:
            raise RuntimeError(f"{self._name} failed on {what}")
        self._journal.append(f"{self._name} {what}")


class House:
    """A host whose process cannot end."""

    def __init__(self) -> None:
        self.log = structlog.testing.LogCapture()
        self.host = ThreadHost(structlog.stdlib.BoundLogger(None, [self.log], {}), leave)
        self.journal: list[str] = []

    def spawn(self, name: str, *, own_thread: bool = False, fail_on: str = "") -> Any:
        home = self.host.own_thread() if own_thread else self.host.loop("Under test")
        return self.host.spawn(home, Named, name, self.journal, fail_on)

    def cause(self) -> dict[str, Any]:
        """Return the last line of the log."""
        return dict(self.log.entries[-1])


@pytest.fixture
def house() -> Iterator[House]:
    made = House()
    yield made
    pykka.ActorRegistry.stop_all(timeout=WAIT_S)
    for loop in made.host._loops.values():
        loop.close()
    for thread in threading.enumerate():
        if thread.name in {Named.__name__, WorkerActor.__name__}:
            thread.join(WAIT_S)


def test_setup_has_run_when_spawn_returns(house: House) -> None:
    """Who is spawned next may rely on it."""
    house.spawn("a")
    assert house.journal == ["a setup"]
    house.spawn("b", own_thread=True)
    assert house.journal == ["a setup", "b setup"]


def test_actors_stop_in_reverse(house: House) -> None:
    """Each knows only those that were there before it, so these outlive it."""
    for name in ("a", "b", "c"):
        house.spawn(name, own_thread=name == "b")
    house.journal.clear()
    house.host.stop()
    assert house.journal == ["c teardown", "b teardown", "a teardown"]
    house.host._loops.clear()


def test_actors_of_one_loop_share_its_thread(house: House) -> None:
    """That is what a shared loop is for."""
    threads: list[str] = []
    for name in ("a", "b"):
        ref = house.host.spawn(house.host.loop("Core"), WorkerActor)
        answer = Told()
        ref.tell(Work(1, lambda: threads.append(threading.current_thread().name), answer))
        house.spawn(name)
        ref.ask(Probe(), timeout=WAIT_S)  # type: ignore[attr-defined]  # a Pykka reference
    assert threads == ["Core", "Core"]


@pytest.mark.parametrize("own_thread", [True, False])
def test_a_crash_wakes_the_main_thread_which_leaves_with_the_cause(house: House, *, own_thread: bool) -> None:
    """Exit code 1, and the cause as the last line, are all that an operator finds."""
    house.spawn("a", own_thread=own_thread, fail_on="bad").tell("bad")
    with pytest.raises(Left) as left:
        house.host.wait()
    assert left.value.args == (EXIT_CRASHED,)
    cause = house.cause()
    assert (cause["log_level"], cause["actor"], cause["error"]) == (
        "critical",
        "Named",
        "RuntimeError('a failed on bad')",
    )
    assert "in handle" in cause["stacktrace"]


@pytest.mark.parametrize("own_thread", [True, False])
def test_a_crash_in_setup_leaves_at_once(house: House, *, own_thread: bool) -> None:
    """Other threads run already: an exception in the main one alone would leave a process that does nothing."""
    with pytest.raises(Left):
        house.spawn("a", own_thread=own_thread, fail_on="setup")
    assert house.cause()["error"] == "RuntimeError('a failed on setup')"


def test_a_crash_in_teardown_counts(house: House) -> None:
    """A stop that could not finish its writes is no clean stop."""
    house.spawn("a", fail_on="teardown")
    with pytest.raises(Left):
        house.host.stop()
    assert house.cause()["error"] == "RuntimeError('a failed on teardown')"


def test_the_first_crash_is_the_cause(house: House) -> None:
    """What fails after it fails because of it."""
    house.host.crashed("First", RuntimeError("the cause"))
    house.host.crashed("Second", RuntimeError("a consequence"))
    with pytest.raises(Left):
        house.host.exit_if_crashed()
    assert house.cause()["actor"] == "First"


def test_a_wake_before_the_wait_is_not_lost(house: House) -> None:
    """A signal may come while the actors are being started."""
    house.host.wake()
    house.host.wait()
    assert house.log.entries == []


def test_a_worker_answers_with_what_its_job_returns_or_refuses(house: House) -> None:
    """A refusal is an answer; anything else that a job raises is a crash."""
    answers = Told()
    ref: Any = house.host.spawn(house.host.own_thread(), WorkerActor)

    def refuse() -> object:
        raise Compacted

    ref.tell(Work(1, lambda: "done", answers))
    ref.tell(Work(2, refuse, answers))
    ref.ask(Probe(), timeout=WAIT_S)
    done, refused = answers.of(Answered)
    assert done == Answered(1, "done")
    assert (refused.token, type(refused.outcome)) == (2, Compacted)
    ref.tell(Work(3, lambda: 1 // 0, answers))
    with pytest.raises(Left):
        house.host.wait()
    assert "ZeroDivisionError" in house.cause()["error"]


def test_a_signal_that_came_before_the_host_still_stops_it(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    """Reading a long log takes a while, and whoever stops a member meanwhile must not have to ask twice."""
    handlers: dict[int, Any] = {}
    monkeypatch.setattr(signal, "signal", handlers.__setitem__)
    stop = StopSignal()
    handlers[signal.SIGTERM](signal.SIGTERM, None)
    stop.wakes(house.host)
    house.host.wait()
    assert stop.number == signal.SIGTERM
