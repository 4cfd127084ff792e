"""What goes wrong, and how it is mended.

Each kind of fault comes at random at the rate that the seed gave it, and takes itself back after a while.  A member
whose process has ended is started again later; that start may fail as well.
"""

from __future__ import annotations

import errno
from random import Random
from typing import TYPE_CHECKING

from core.raft.role import Role
from proto.rpc_pb2 import MoveLeaderRequest
from sim.connections import Call

if TYPE_CHECKING:
    from collections.abc import Callable

    from sim.cluster import Cluster
    from sim.member import Member

DOWN_S = (0.05, 4.0)
PARTITION_S = (0.5, 6.0)
PAUSE_S = (0.1, 4.0)
FULL_DISK_S = (0.5, 5.0)
SLOW_SYNC_S = 0.3
STALL_S = (1.0, 6.0)
LEADERS_STALL_SHARE = 0.7
CLOCK_JUMP_S = 10.0
START_FAILS = 0.1
"""How often the power fails again around a start."""
CHANGES_BEFORE_POWER_FAILS = 40


class Faults:
    """The nemesis of one run."""

    def __init__(self, cluster: Cluster) -> None:
        self._cluster = cluster
        self._schedule = cluster.schedule
        self._random = Random(f"faults {cluster.seed}")
        self._kinds: dict[str, Callable[[], None]] = {
            "kill": lambda: self._end(self._any_running(), power=False),
            "power": lambda: self._end(self._any_running(), power=True),
            "torn": self._fail_power_soon,
            "all_down": self._end_all,
            "kill_leader": lambda: self._end(self._leader(), power=self._random.random() < 0.5),
            "pause": self._pause,
            "slow_disk": self._slow_disk,
            "stall_disk": self._stall_disk,
            "full_disk": self._fill_disk,
            "sync_error": self._fail_sync,
            "partition": self._partition,
            "isolate_leader": lambda: self._isolate(self._leader()),
            "one_way": self._cut_one_way,
            "transfer": self._transfer,
            "clock_jump": self._jump_clock,
        }
        self.over = False
        for kind, rate in cluster.settings.faults:
            self._plan(kind, rate)

    def _plan(self, kind: str, rate: float) -> None:
        def happen() -> None:
            if not self.over:
                self._kinds[kind]()
                self._plan(kind, rate)

        self._schedule.after(self._random.expovariate(rate), happen)

    def end(self) -> None:
        """Let no more happen, and mend what is broken."""
        self.over = True
        self._cluster.network.calm = True
        self._cluster.network.heal()
        for member in self._cluster.members:
            member.sync_s = self._cluster.settings.sync_s
            member.fs.capacity_bytes = None
            if member.running:
                member.fs.changes_left = member.fs.next_sync_error = None
                member.crashes_expected = False
            elif not member.restarting:
                self._restart_later(member)

    def fell(self, member: Member) -> None:
        """Take note that a failing disk has ended the process: the machine restarts."""
        self._end(member, power=True)

    def _any_running(self) -> Member | None:
        running = [member for member in self._cluster.members if member.running]
        return self._random.choice(running) if running else None

    def _leader(self) -> Member | None:
        leaders = [member for member in self._cluster.members if member.running and member.raft.role is Role.LEADER]
        return self._random.choice(leaders) if leaders else None

    def _end(self, member: Member | None, *, power: bool) -> None:
        # A machine whose disk has failed has lost what it believes to have written, however its process ends.
        if member is not None and member.host is not None:
            member.end(power=power or member.crashes_expected)
            self._restart_later(member)

    def _end_all(self) -> None:
        for member in self._cluster.members:
            if member.running:
                self._end(member, power=True)

    def _restart_later(self, member: Member) -> None:
        member.restarting = True
        self._schedule.after(self._random.uniform(*DOWN_S), lambda: self.start(member))

    def start(self, member: Member) -> None:
        """Start *member*, whose power may fail while it does; then it is tried again."""
        if not self.over and self._random.random() < START_FAILS:
            member.crashes_expected = True
            member.fs.changes_left = self._random.randrange(CHANGES_BEFORE_POWER_FAILS)
        if member.start():
            member.restarting = False
        else:
            member.end(power=True)
            self._restart_later(member)

    def _fail_power_soon(self) -> None:
        member = self._any_running()
        if member is not None:
            member.crashes_expected = True
            member.fs.changes_left = self._random.randrange(CHANGES_BEFORE_POWER_FAILS)
            self._schedule.note(member.name, f"its power fails after {member.fs.changes_left} more changes")

    def _fail_sync(self) -> None:
        member = self._any_running()
        if member is not None:
            member.crashes_expected = True
            member.fs.next_sync_error = errno.EIO
            self._schedule.note(member.name, "its next sync fails")

    def _pause(self) -> None:
        member = self._any_running()
        if member is not None and member.host is not None:
            length_s = self._random.uniform(*PAUSE_S)
            self._schedule.note(member.name, f"stands still for {length_s:.3f} s")
            member.host.pause(length_s)

    def _slow_disk(self) -> None:
        member = self._any_running()
        if member is not None:
            self._schedule.note(member.name, "its disk is slow")
            member.sync_s = SLOW_SYNC_S
            self._schedule.after(self._random.uniform(*PARTITION_S), lambda: self._speed_up(member))

    def _stall_disk(self) -> None:
        """Let one sync of a member, mostly of the leader, take as long as several elections."""
        member = self._leader() if self._random.random() < LEADERS_STALL_SHARE else self._any_running()
        if member is not None:
            length_s = self._random.uniform(*STALL_S)
            self._schedule.note(member.name, f"its next sync takes {length_s:.3f} s")
            member.stall_s = length_s

    def _speed_up(self, member: Member) -> None:
        member.sync_s = self._cluster.settings.sync_s

    def _fill_disk(self) -> None:
        member = self._any_running()
        if member is not None:
            self._schedule.note(member.name, "its disk is full")
            member.fs.capacity_bytes = member.fs.used_bytes() + self._random.randrange(2000)
            self._schedule.after(self._random.uniform(*FULL_DISK_S), lambda: self._make_room(member))

    def _make_room(self, member: Member) -> None:
        self._schedule.note(member.name, "its disk has room")
        member.fs.capacity_bytes = None

    def _partition(self) -> None:
        ids = [member.id for member in self._cluster.members]
        self._random.shuffle(ids)
        cut = self._random.randrange(1, len(ids))
        one, other = sorted(ids[:cut]), sorted(ids[cut:])
        self._schedule.note("net", f"partition {[f'{each:x}' for each in one]} {[f'{each:x}' for each in other]}")
        for left in one:
            for right in other:
                self._cluster.network.link(left, right).cut = True
                self._cluster.network.link(right, left).cut = True
        self._heal_later()

    def _isolate(self, member: Member | None) -> None:
        if member is None:
            return
        self._schedule.note("net", f"{member.name}, which leads, is cut off")
        for other in self._cluster.members:
            if other is not member:
                self._cluster.network.link(member.id, other.id).cut = True
                self._cluster.network.link(other.id, member.id).cut = True
        self._heal_later()

    def _cut_one_way(self) -> None:
        sender, to = self._random.sample(self._cluster.members, 2)
        self._schedule.note("net", f"nothing gets from {sender.name} to {to.name}")
        self._cluster.network.link(sender.id, to.id).cut = True
        self._heal_later()

    def _transfer(self) -> None:
        leader = self._leader()
        if leader is None:
            return
        target = self._random.choice(self._cluster.members)
        self._schedule.note(leader.name, f"is asked to let {target.name} lead")
        request = MoveLeaderRequest(targetID=target.id)
        Call(
            self._cluster,
            leader,
            "/etcdserverpb.Maintenance/MoveLeader",
            "operator",
            request.SerializeToString(),
            lambda status, _: self._schedule.note("", f"transfer: {status.code.name} {status.message}"),
        )

    def _jump_clock(self) -> None:
        member = self._random.choice(self._cluster.members)
        by_s = self._random.uniform(-CLOCK_JUMP_S, CLOCK_JUMP_S)
        self._schedule.note(member.name, f"its time of day jumps by {by_s:.3f} s")
        member.clock.wall_offset_s += by_s

    def _heal_later(self) -> None:
        self._schedule.after(self._random.uniform(*PARTITION_S), self._heal)

    def _heal(self) -> None:
        self._schedule.note("net", "healed")
        self._cluster.network.heal()
