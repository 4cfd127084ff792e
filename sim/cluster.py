"""One run: a cluster, its clients and its faults, from a seed to a verdict.

First comes safety: faults happen, and whatever happens is checked on every step.  Then liveness: faults end, and
everything must come right within a while.
"""

from __future__ import annotations

from dataclasses import replace
from random import Random
from typing import TYPE_CHECKING, Any, NamedTuple

from core.raft.role import Role
from sim.checker import Checks
from sim.clients import Client
from sim.faults import Faults
from sim.leases import Leases
from sim.member import Member
from sim.network import Network
from sim.plants import PLANTS
from sim.schedule import Failure, Schedule, Trace
from sim.settings import LIVENESS_S, SAFETY_S, Settings, from_seed
from sim.truth import Truth
from sim.watchers import Watcher

if TYPE_CHECKING:
    from actors.address import Address
    from actors.base import NodeActor

ANSWERS_AFTER_FAULTS = 3
"""That each client must get once faults have ended."""

LEASES_OVERDUE_S = 5.0
"""How long after its time a lease may still be there: a new leader gives each an election timeout more."""


class Result(NamedTuple):
    """How a run ended."""

    seed: int
    failure: str
    trace: Trace
    virtual_s: float
    deliveries: int
    answers: int
    events: int
    revision: int
    terms: int
    settings: Settings


class Cluster:
    """Everything of one run."""

    def __init__(self, seed: int, trace: Trace, plant: str = "") -> None:
        self.seed = seed
        self.settings = settings_of(seed, plant)
        self._plant = PLANTS[plant] if plant else None
        self.schedule = Schedule(Random(f"schedule {seed}"), trace)
        self.network = Network(self.schedule, Random(f"network {seed}"), self.settings)
        self.truth = Truth()
        self.leases = Leases(self.schedule, max(self.settings.clock_rates))
        self.checks = Checks(self.truth, self.leases)
        self.floor = 0
        """The highest revision that any client has been answered from, serializable reads apart."""
        self.refused: list[bytes] = []
        """Values whose writes were refused, and so must never appear."""
        self.members = [Member(number, self) for number in range(1, self.settings.members + 1)]
        self.faults = Faults(self)
        for member in self.members:
            self.faults.start(member)
        self.clients = [Client(number, self) for number in range(1, self.settings.clients + 1)]
        self.watchers = [Watcher(number, self) for number in range(1, self.settings.watchers + 1)]

    def plant(self, actor: NodeActor[Any]) -> Address[Any]:
        """Return what others shall tell instead of *actor*: itself, unless there is a bug to plant."""
        if self._plant is not None and type(actor) is self._plant.kind:
            return self._plant.make(actor)
        return actor.actor_ref

    def run(self) -> None:
        """Run both phases; Failure says what went wrong."""
        self.schedule.run_until(SAFETY_S)
        self.schedule.note("", "faults end")
        self.faults.end()
        answers = [client.answered_ok for client in self.clients]

        def served() -> bool:
            pairs = zip(self.clients, answers, strict=True)
            return all(client.answered_ok >= before + ANSWERS_AFTER_FAULTS for client, before in pairs)

        if not self.schedule.run_until(SAFETY_S + LIVENESS_S, served):
            raise Failure(f"clients are not served: {[client.answered_ok for client in self.clients]} since {answers}")
        for client in self.clients:
            client.stop()
        if not self.schedule.run_until(SAFETY_S + 2 * LIVENESS_S, lambda: not self._unsettled()):
            raise Failure(f"not settled {LIVENESS_S} s after the last request: {self._unsettled()}")
        self._check_refused()

    def _unsettled(self) -> str:
        """Return what keeps the cluster from being whole; empty if nothing does."""
        down = [member.name for member in self.members if not member.running]
        if down:
            return f"{down} are down"
        leaders = [member.name for member in self.members if member.raft.role is Role.LEADER]
        if len(leaders) != 1:
            return f"{leaders} lead"
        applied = {member.name: member.booted.applier.store.applied_index for member in self.members}
        commits = {member.raft.commit for member in self.members}
        if len({*applied.values(), *commits}) != 1:
            return f"applied {applied}, committed {sorted(commits)}"
        if len({member.backend.digest_now() for member in self.members}) != 1:
            raise Failure(f"stores differ at index {applied}")
        behind = [watcher.name for watcher in self.watchers if not watcher.complete]
        if behind:
            return f"{behind} lack events"
        overdue = self.leases.overdue(LEASES_OVERDUE_S)
        if overdue:
            return f"leases {[f'{lease:x}' for lease in overdue]} do not end"
        return ""

    def _check_refused(self) -> None:
        for value in self.refused:
            revision = self.truth.revision_of(value)
            if revision is not None:
                raise Failure(f"the write of {value!r} was refused, but took effect at revision {revision}")
        if self.floor > self.truth.revision:
            raise Failure(f"revision {self.floor} was acknowledged, but the store is at {self.truth.revision}")


def settings_of(seed: int, plant: str) -> Settings:
    """Return the settings of *seed*, in which *plant* can show."""
    settings = from_seed(seed)
    if not plant:
        return settings
    changed = replace(settings, faults=PLANTS[plant].faults, **PLANTS[plant].changes)
    rates = [changed.clock_rates[number % settings.members] for number in range(changed.members)]
    return replace(changed, clock_rates=tuple(rates))


def run(seed: int, *, lines_max: int | None = 200, plant: str = "") -> Result:
    """Run *seed* and return what came of it."""
    trace = Trace(lines_max)
    failure = ""
    cluster = Cluster(seed, trace, plant)
    try:
        cluster.run()
    except Failure as failed:
        failure = str(failed)
        cluster.schedule.note("!", failure)
    return Result(
        seed,
        failure,
        trace,
        cluster.schedule.now_s,
        cluster.schedule.deliveries,
        sum(client.answered_ok for client in cluster.clients),
        sum(watcher.events for watcher in cluster.watchers),
        cluster.truth.revision,
        len(cluster.checks.raft.leaders),
        cluster.settings,
    )
