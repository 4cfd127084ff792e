"""Clients of a cluster of real servers: each asks one thing after the other of whichever member it likes.

They judge nothing: what was asked and answered goes into the history.  All of them share one event loop.
"""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass, field
from random import Random
from typing import TYPE_CHECKING, Any, Final

import grpc
import grpc.aio

from proto.rpc_pb2 import PutRequest, PutResponse, RangeResponse, TxnResponse
from sim import operations
from sim.history import Asked
from sim.truth import Truth
from tests.e2e.client import aio_channel

if TYPE_CHECKING:
    from collections.abc import Mapping

    from sim.operations import Operation
    from tests.e2e.cluster import Member

KEYS: Final = (b"a", b"b", b"c/1", b"c/2", b"c/3", b"d")
RANGES: Final = ((b"a", b"b"), (b"c/", b"c0"), (b"a", b"e"))
WRITER: Final[Mapping[str, float]] = {
    "put": 40,
    "txn": 20,
    "delete": 10,
    "read": 15,
    "stale": 5,
    "old": 3,
    "compact": 1,
}
READER: Final[Mapping[str, float]] = {"read": 60, "stale": 25, "old": 5, "txn": 5, "put": 5}
PATIENCE_S: Final = (0.2, 0.5, 2.0)
AFTER_ERROR_S: Final = 0.1
MOVES: Final = 0.2
"""How often a client goes to another member by itself."""

COMPACT_BEHIND: Final = 100
"""Revisions that every recorder must be ahead of a compaction."""

REFUSALS: Final = frozenset(
    {
        grpc.StatusCode.RESOURCE_EXHAUSTED,
        grpc.StatusCode.NOT_FOUND,
        grpc.StatusCode.OUT_OF_RANGE,
        grpc.StatusCode.INVALID_ARGUMENT,
    }
)
"""Codes that say that nothing has happened."""


@dataclass
class Workload:
    """What all clients and watchers of a run share."""

    seed: int
    members: list[Member]
    think_s: float
    truth: Truth = field(default_factory=Truth)
    history: list[Asked] = field(default_factory=list)
    lives: dict[str, int] = field(default_factory=dict)
    """How often each member's process has been ended."""
    recorded: dict[str, int] = field(default_factory=dict)
    """Up to which revision each recorder is."""
    ended: bool = False

    def life_of(self, member: Member) -> str:
        """Name the life that *member* is in."""
        return f"{member.name} in life {self.lives.get(member.name, 0)}"


class Client:
    """One client."""

    def __init__(self, number: int, workload: Workload) -> None:
        self.name = f"c{number}"
        self._workload = workload
        self._random = Random(f"client {number} {workload.seed}")
        self._kinds = READER if number % 2 else WRITER
        self._member = self._random.choice(workload.members)
        self._count = 0
        self._seen: dict[bytes, int] = {}
        """When each key was changed last, as far as this client knows."""

    async def run(self) -> None:
        """Ask until the workload ends."""
        channels = {member.name: aio_channel(member.endpoint) for member in self._workload.members}
        try:
            while not self._workload.ended:
                if self._random.random() < MOVES:
                    self._member = self._random.choice(self._workload.members)
                await self._ask(channels[self._member.name], self._choose())
                await asyncio.sleep(self._random.expovariate(1.0 / self._workload.think_s))
        finally:
            for channel in channels.values():
                await channel.close()

    def _choose(self) -> Operation:
        random, truth = self._random, self._workload.truth
        self._count += 1
        value = b"%b-%d" % (self.name.encode(), self._count)
        key = random.choice(KEYS)
        some_range = random.choice(RANGES) if random.random() < 0.3 else (key, b"")
        [kind] = random.choices(list(self._kinds), list(self._kinds.values()))
        match kind:
            case "put":
                return operations.put(truth, key, value)
            case "txn":
                others = [other for other in KEYS if other != key and random.random() < 0.3]
                return operations.compare_and_put(truth, key, self._seen.get(key, 0), others, value)
            case "delete":
                return operations.delete(truth, *some_range)
            case "stale":
                return operations.read(truth, *some_range, serializable=True)
            case "old":
                revision = random.randint(max(1, truth.revision - 2 * COMPACT_BEHIND), truth.revision)
                return operations.read(truth, *some_range, serializable=False, revision=revision)
            case "compact" if min(self._workload.recorded.values()) > COMPACT_BEHIND:
                return operations.compact(min(self._workload.recorded.values()) - COMPACT_BEHIND)
            case _:
                return operations.read(truth, *some_range, serializable=False)

    async def _ask(self, channel: grpc.aio.Channel, operation: Operation) -> None:
        workload, member = self._workload, self._member
        at, began_s = workload.life_of(member), time.monotonic()
        answer: bytes | None = None
        refused = False
        try:
            call: Any = channel.unary_unary(operation.method)
            answer = await call(operation.payload, timeout=self._random.choice(PATIENCE_S))
        except grpc.aio.AioRpcError as error:
            refused = error.code() in REFUSALS
            if not refused:
                self._member = self._random.choice(workload.members)
                await asyncio.sleep(AFTER_ERROR_S)
        ended_s = time.monotonic()
        if workload.life_of(member) != at:
            at = f"{at} or the next"
        workload.history.append(Asked(self.name, at, operation, began_s, ended_s, answer, refused))
        if answer is not None:
            self._learn(operation, answer)

    def _learn(self, operation: Operation, answer: bytes) -> None:
        """Remember when keys were changed, so that transactions can be about what is there."""
        if operation.method.endswith("/Range"):
            for kv in RangeResponse.FromString(answer).kvs:
                self._seen[kv.key] = max(self._seen.get(kv.key, 0), kv.mod_revision)
        elif operation.method.endswith("/Txn"):
            got = TxnResponse.FromString(answer)
            for kv in got.responses[0].response_range.kvs if not got.succeeded else ():
                self._seen[kv.key] = max(self._seen.get(kv.key, 0), kv.mod_revision)
        elif operation.method.endswith("/Put"):
            revision = PutResponse.FromString(answer).header.revision
            key = PutRequest.FromString(operation.payload).key
            self._seen[key] = max(self._seen.get(key, 0), revision)
