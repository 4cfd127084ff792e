"""Clients: each asks one thing after the other, of whichever member it likes, and judges every answer.

An answer that never comes leaves open whether the request took effect; one that says that it was refused does not.
"""

from __future__ import annotations

from random import Random
from typing import TYPE_CHECKING

from net.rpc import OK, Code, Status
from proto.kv_pb2 import KeyValue
from proto.rpc_pb2 import LeaseKeepAliveRequest, LeaseKeepAliveResponse
from sim import operations
from sim.connections import REFUSED, Call, Stream
from sim.schedule import Failure

if TYPE_CHECKING:
    from sim.cluster import Cluster
    from sim.member import Member
    from sim.operations import Operation

KEYS = [b"a", b"b", b"c/1", b"c/2", b"c/3", b"d"]
RANGES = [(b"a", b"b"), (b"c/", b"c0"), (b"a", b"e")]
KINDS = ("put", "read", "stale", "old", "txn", "delete", "grant", "revoke", "compact")
WRITER = (30.0, 15.0, 5.0, 4.0, 15.0, 8.0, 3.0, 1.0, 1.5)
READER = (0.0, 60.0, 20.0, 4.0, 0.5, 0.0, 0.5, 0.0, 0.0)
"""How often each kind is asked."""
READER_MOVES = 0.5
WRITER_MOVES = 0.1
"""How often a client goes to another member.  Readers look everywhere: stale answers are found where few ask."""
LEASE_TTLS_S = (1, 2, 4)
PATIENCE_S = (0.3, 1.0, 5.0)
REFUSALS = {Code.RESOURCE_EXHAUSTED, Code.NOT_FOUND, Code.OUT_OF_RANGE, Code.INVALID_ARGUMENT}
"""Codes that say that nothing has happened (and that the request, as sent, was in order)."""


class Client:
    """One client."""

    def __init__(self, number: int, cluster: Cluster) -> None:
        self.name = f"c{number}"
        self.answered_ok = 0
        self._number = number
        self._cluster = cluster
        self._random = Random(f"client {number} {cluster.seed}")
        self._reads = number % 2 == 0
        self._member: Member = self._random.choice(cluster.members)
        self._count = 0
        self._asked = 0
        self._leases: list[int] = []
        self._seen: dict[tuple[str, int], int] = {}
        self._stopped = False
        self._think()

    def stop(self) -> None:
        """Ask nothing more."""
        self._stopped = True

    def _patience_s(self) -> float:
        return PATIENCE_S[0] if self._reads else self._random.choice(PATIENCE_S)

    def _think(self) -> None:
        if self._stopped:
            return
        self._cluster.schedule.after(self._random.expovariate(1.0 / self._cluster.settings.think_s), self._next)

    def _next(self) -> None:
        if self._random.random() < (READER_MOVES if self._reads else WRITER_MOVES):
            self._member = self._random.choice(self._cluster.members)
        if self._leases and self._random.random() < 0.15:
            self._keep_alive(self._random.choice(self._leases))
        else:
            self._ask(self._choose())

    def _choose(self) -> Operation:
        random, truth = self._random, self._cluster.truth
        self._count += 1
        value = b"%b-%d" % (self.name.encode(), self._count)
        key = random.choice(KEYS)
        match random.choices(KINDS, READER if self._reads else WRITER)[0]:
            case "put":
                lease = random.choice(self._leases) if self._leases and random.random() < 0.3 else 0
                return operations.put(truth, key, value, lease=lease)
            case "read":
                return operations.read(truth, *self._some_range(key), serializable=False)
            case "stale":
                return operations.read(truth, *self._some_range(key), serializable=True)
            case "old":
                revision = random.randint(1, truth.revision)
                return operations.read(truth, *self._some_range(key), serializable=False, revision=revision)
            case "txn":
                others = [other for other in KEYS if other != key and random.random() < 0.2]
                return operations.compare_and_put(truth, key, self._known_revision(key), others, value)
            case "delete":
                return operations.delete(truth, *self._some_range(key))
            case "grant":
                lease = (self._number << 32) + self._count
                return operations.grant(
                    self._cluster.leases, lease, random.choice(LEASE_TTLS_S), self._cluster.schedule.now_s
                )
            case "revoke" if self._leases:
                lease = self._leases.pop(random.randrange(len(self._leases)))
                self._cluster.leases.revoking(lease)
                return operations.revoke(lease)
            case _:
                return operations.compact(max(1, truth.revision - random.randrange(50)))

    def _some_range(self, key: bytes) -> tuple[bytes, bytes]:
        return self._random.choice(RANGES) if self._random.random() < 0.3 else (key, b"")

    def _known_revision(self, key: bytes) -> int:
        """Return when *key* was changed last, as this client may know it: mostly right."""
        behind = self._random.choice((0, 0, 0, 1, 5))
        kv = self._cluster.truth.get(key, self._cluster.truth.revision - behind)
        return KeyValue.FromString(kv).mod_revision if kv else 0

    def _ask(self, operation: Operation) -> None:
        self._asked += 1
        number, floor = self._asked, self._cluster.floor
        member, life = self._member, self._member.life
        self._cluster.schedule.note(self.name, f"{member.name}? {operation.text}")

        def answered(status: Status, message: bytes) -> None:
            if self._asked != number:
                return
            self._asked += 1
            self._judge(operation, floor, (member.name, life), status, message)
            if status is not OK and status.code is Code.UNAVAILABLE:
                self._member = self._random.choice(self._cluster.members)
            self._think()

        call = Call(self._cluster, member, operation.method, self.name, operation.payload, answered)

        def give_up() -> None:
            if self._asked == number:
                self._cluster.schedule.note(self.name, "gives up")
                self._asked += 1
                call.leave()
                self._member = self._random.choice(self._cluster.members)
                self._think()

        self._cluster.schedule.after(self._patience_s(), give_up)

    def _judge(self, operation: Operation, floor: int, at: tuple[str, int], status: Status, message: bytes) -> None:
        cluster = self._cluster
        if status is not OK:
            cluster.schedule.note(self.name, f"{status.code.name} {status.message}")
            if operation.value and (status is REFUSED or status.code in REFUSALS):
                cluster.refused.append(operation.value)
            return
        revision = operation.judge(message)
        cluster.schedule.note(self.name, f"ok at {revision}")
        self.answered_ok += 1
        if operation.linearizable:
            if revision < floor:
                raise Failure(
                    f"{self.name} was answered as of revision {revision} ({operation.text}), although revision {floor} "
                    "had been answered before it asked"
                )
            cluster.floor = max(cluster.floor, revision)
        else:
            if revision < self._seen.get(at, 0):
                raise Failure(f"{at[0]} went back from revision {self._seen[at]} to {revision} for {self.name}")
            self._seen[at] = revision
        if operation.text.startswith("grant"):
            self._leases.append((self._number << 32) + self._count)

    def _keep_alive(self, lease: int) -> None:
        asked_s = self._cluster.schedule.now_s
        self._cluster.schedule.note(self.name, f"{self._member.name}? keep {lease:x} alive")
        finished = False

        def end() -> None:
            nonlocal finished
            if not finished:
                finished = True
                stream.leave()
                self._think()

        def received(message: bytes) -> None:
            answer = LeaseKeepAliveResponse.FromString(message)
            if finished:
                return
            self._cluster.schedule.note(self.name, f"lease {lease:x} has {answer.TTL} s")
            if answer.TTL:
                self._cluster.leases.promised(lease, answer.TTL, asked_s)
            elif lease in self._leases:
                self._leases.remove(lease)
                self._cluster.leases.told_gone(lease)
            end()

        stream = Stream(
            self._cluster,
            self._member,
            "/etcdserverpb.Lease/LeaseKeepAlive",
            self.name,
            received,
            lambda _status: end(),
        )
        stream.write(LeaseKeepAliveRequest(ID=lease).SerializeToString())
        self._cluster.schedule.after(self._patience_s(), end)
