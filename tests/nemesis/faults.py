"""The nemesis: what goes wrong in a cluster of real servers, one thing after the other, each mended after a while."""

from __future__ import annotations

import os
import signal
import threading
import time
from contextlib import suppress
from random import Random
from typing import TYPE_CHECKING, Final

import grpc

from proto.rpc_pb2 import MoveLeaderRequest
from tests.e2e.client import connect

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.e2e.cluster import Cluster, Member
    from tests.nemesis.clients import Workload

LASTS_S: Final = (0.3, 3.0)
CALM_S: Final = (0.2, 1.5)
"""Between two faults, with all members there: a cluster that never gets to work shows nothing."""

DELAY_S: Final = (0.01, 0.2)


class Nemesis:
    """Belongs to a thread of its own."""

    def __init__(self, cluster: Cluster, workload: Workload, say: Callable[[str], None]) -> None:
        self.faults_count = 0
        self._cluster = cluster
        self._workload = workload
        self._say = say
        self._random = Random(f"nemesis {workload.seed}")
        self._stop = threading.Event()
        self._kinds: tuple[Callable[[], None], ...] = (
            self._kill_some,
            self._kill_leader,
            self._kill_all,
            self._pause_one,
            self._pause_leader,
            self._cut_leader_off,
            self._cut_in_two,
            self._silence_one,
            self._deafen_one,
            self._delay,
            self._move_leader,
        )

    def run(self, seconds: float) -> None:
        """Let things go wrong for so long, each kind as often as the others; at the end all is mended."""
        end_s = time.monotonic() + seconds
        kinds: list[Callable[[], None]] = []
        while time.monotonic() < end_s and not self._stop.is_set():
            if not kinds:
                kinds = self._random.sample(self._kinds, len(self._kinds))
            self._wait(CALM_S)
            kinds.pop()()
            self.faults_count += 1
        self._cluster.heal()

    def stop(self) -> None:
        """Let no more go wrong."""
        self._stop.set()

    def _wait(self, bounds_s: tuple[float, float]) -> None:
        self._stop.wait(self._random.uniform(*bounds_s))

    def _any(self) -> Member:
        return self._random.choice(self._cluster.members)

    def _leader(self) -> Member:
        leaders = self._cluster.leaders()
        return self._random.choice(leaders) if leaders else self._any()

    def _others(self, member: Member) -> list[Member]:
        return [other for other in self._cluster.members if other is not member]

    def _minority(self) -> list[Member]:
        members = self._cluster.members
        return self._random.sample(members, self._random.randint(1, max(1, (len(members) - 1) // 2)))

    # -- the faults --------------------------------------------------------------------------------------------------

    def _kill_some(self) -> None:
        self._kill(self._minority())

    def _kill_leader(self) -> None:
        self._kill([self._leader()])

    def _kill_all(self) -> None:
        self._kill(self._cluster.members)

    def _kill(self, victims: list[Member]) -> None:
        self._say(f"kill -9 {names(victims)}")
        for victim in victims:
            self._workload.lives[victim.name] = self._workload.lives.get(victim.name, 0) + 1
            victim.kill()
        self._wait(LASTS_S)
        for victim in victims:
            victim.launch()
        for victim in victims:
            self._cluster.wait_until_serving(victim, timeout_s=60.0)

    def _pause_one(self) -> None:
        self._pause(self._any())

    def _pause_leader(self) -> None:
        self._pause(self._leader())

    def _pause(self, victim: Member) -> None:
        self._say(f"stop {victim.name}")
        os.kill(victim.pid, signal.SIGSTOP)
        try:
            self._wait(LASTS_S)
        finally:
            os.kill(victim.pid, signal.SIGCONT)

    def _cut_leader_off(self) -> None:
        leader = self._leader()
        self._cut([leader], self._others(leader))

    def _cut_in_two(self) -> None:
        part = self._minority()
        self._cut(part, [member for member in self._cluster.members if member not in part])

    def _cut(self, one: list[Member], other: list[Member]) -> None:
        self._say(f"cut {names(one)} off from {names(other)}")
        self._cluster.cut(one, other)
        self._wait(LASTS_S)
        self._cluster.heal()

    def _silence_one(self) -> None:
        member = self._leader() if self._random.random() < 0.5 else self._any()
        self._say(f"nobody hears {member.name}")
        self._cluster.silence(member, self._others(member))
        self._wait(LASTS_S)
        self._cluster.heal()

    def _deafen_one(self) -> None:
        sender, receiver = self._random.sample(self._cluster.members, 2)
        self._say(f"{receiver.name} does not hear {sender.name}")
        self._cluster.silence(sender, [receiver])
        self._wait(LASTS_S)
        self._cluster.heal()

    def _delay(self) -> None:
        delay_s = self._random.uniform(*DELAY_S)
        self._say(f"delay all by {delay_s:.3f} s")
        self._cluster.delay(delay_s)
        self._wait(LASTS_S)
        self._cluster.heal()

    def _move_leader(self) -> None:
        leader = self._leader()
        target = self._random.choice(self._others(leader))
        self._say(f"let {target.name} lead after {leader.name}")
        request = MoveLeaderRequest(targetID=self._cluster.member_id(target))
        with suppress(grpc.RpcError), connect(leader.endpoint) as client:
            client.maintenance.MoveLeader(request, timeout=LASTS_S[1])


def names(members: list[Member]) -> str:
    """Name all of *members*."""
    return ", ".join(member.name for member in members)
