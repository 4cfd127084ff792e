"""One run: a cluster of processes, its clients and its faults, and the verdict."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from sim.history import check_history
from sim.schedule import Failure
from tests.e2e.cluster import Cluster
from tests.nemesis.clients import Client, Workload
from tests.nemesis.faults import Nemesis
from tests.nemesis.watchers import Watcher

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from tests.e2e.harness import Program

SETTINGS: Final = {"snapshot-count": 100, "experimental-snapshot-catchup-entries": 50}
"""So that who was away for a while needs a snapshot."""

CLIENTS: Final = 6
WATCHERS: Final = 3
SETTLE_S: Final = 60.0
THINK_S: Final = 0.03


@dataclass(frozen=True, slots=True)
class Verdict:
    """What a run has shown; one that ends without Failure has kept every promise."""

    asked: int
    answered: int
    revision: int
    events: int
    faults: int


def run(
    directory: Path,
    *,
    programs: Sequence[Program],
    seed: int,
    seconds: float,
    say: Callable[[str], None],
) -> Verdict:
    """Run a cluster of *programs* under faults for so long, then check everything; Failure."""
    cluster = Cluster(directory, programs=programs, settings=SETTINGS)
    try:
        cluster.found(len(programs))
        for member in cluster.members:
            assert cluster.member_id(member), f"{member.name} does not tell its id"
        return asyncio.run(_run(cluster, seed, seconds, say))
    finally:
        cluster.close()


async def _run(cluster: Cluster, seed: int, seconds: float, say: Callable[[str], None]) -> Verdict:
    workload = Workload(seed, cluster.members, THINK_S)
    recorders = [Watcher(number, workload, recorded=member) for number, member in enumerate(cluster.members)]
    watchers = [Watcher(number, workload) for number in range(WATCHERS)]
    clients = [Client(number, workload) for number in range(CLIENTS)]
    nemesis = Nemesis(cluster, workload, say)
    async with asyncio.TaskGroup() as group:
        following = [group.create_task(watcher.run()) for watcher in (*recorders, *watchers)]
        asking = [group.create_task(client.run()) for client in clients]
        try:
            await asyncio.to_thread(nemesis.run, seconds)
            workload.ended = True
            await asyncio.wait(asking)
            await asyncio.to_thread(cluster.wait_until_equal, SETTLE_S)
            revision = await asyncio.to_thread(cluster.revision)
            await _recorded(recorders, revision)
        finally:
            nemesis.stop()
            workload.ended = True
            for task in following:
                task.cancel()
    check_history(workload.truth, workload.history)
    events = sum(watcher.check() for watcher in (*recorders, *watchers))
    answered = sum(asked.answer is not None for asked in workload.history)
    return Verdict(len(workload.history), answered, revision, events, nemesis.faults_count)


async def _recorded(recorders: Sequence[Watcher], revision: int) -> None:
    """Wait until each member has told all that happened up to *revision*."""
    try:
        async with asyncio.timeout(SETTLE_S):
            while any(recorder.last < revision for recorder in recorders):  # noqa: ASYNC110 - told by another process
                await asyncio.sleep(0.05)
    except TimeoutError:
        behind = {recorder.name: recorder.last for recorder in recorders if recorder.last < revision}
        raise Failure(f"watches lack events up to revision {revision}: {behind}") from None
