"""Watchers of a cluster of real servers: what they are sent is kept, and judged when all is over.

A recorder stays at one member and follows every key from the first revision on: what recorders are sent is what really
happened, and no two members may tell it differently.  Others follow a range, and move about.
"""

from __future__ import annotations

import asyncio
from random import Random
from typing import TYPE_CHECKING, Any, Final

import grpc.aio

from proto.kv_pb2 import Event, KeyValue
from proto.rpc_pb2 import WatchCreateRequest, WatchProgressRequest, WatchRequest, WatchResponse
from sim.schedule import Failure
from sim.watching import Watched
from tests.e2e.client import aio_channel
from tests.nemesis.clients import RANGES

if TYPE_CHECKING:
    from tests.e2e.cluster import Member
    from tests.nemesis.clients import Workload

WATCH: Final = "/etcdserverpb.Watch/Watch"
EVERYTHING: Final = (b"\0", b"\xff")
RETRY_S: Final = 0.05
STAY_S: Final = (1.0, 5.0)


class Watcher:
    """Follows one range, through any member."""

    def __init__(self, number: int, workload: Workload, *, recorded: Member | None = None) -> None:
        """With *recorded* it follows all keys at that member, from the first revision on, and tells what happened."""
        self.name = f"w{number}" if recorded is None else f"recorder at {recorded.name}"
        self.last = 0
        self._workload = workload
        self._random = Random(f"watcher {number} {workload.seed}")
        self._recorded = recorded
        self._prev_kv = recorded is None and self._random.random() < 0.5
        self._responses: list[WatchResponse] = []
        self._key, self._range_end = RANGES[number % len(RANGES)]
        if recorded is not None:
            self.last, self._key, self._range_end = 1, *EVERYTHING
            workload.recorded[self.name] = 1

    async def run(self) -> None:
        """Follow until cancelled."""
        members = self._workload.members if self._recorded is None else [self._recorded]
        channels = {member.name: aio_channel(member.endpoint) for member in members}
        try:
            while True:
                member = self._random.choice(members)
                stay_s = self._random.uniform(*STAY_S) if self._recorded is None else None
                try:
                    async with asyncio.timeout(stay_s):
                        # etcd 3.5.1 tells of progress ahead of the events that it has not sent (its issue 15220).
                        await self._follow(channels[member.name], asks_progress=member.program.name != "etcd")
                except (grpc.aio.AioRpcError, TimeoutError):
                    pass  # its member went away, or it is time for another one
                await asyncio.sleep(RETRY_S)
        finally:
            for channel in channels.values():
                await channel.close()

    async def _follow(self, channel: grpc.aio.Channel, *, asks_progress: bool) -> None:
        call: Any = channel.stream_stream(WATCH)()
        try:
            create = WatchCreateRequest(
                key=self._key,
                range_end=self._range_end,
                start_revision=self.last + 1 if self.last else 0,
                prev_kv=self._prev_kv,
                progress_notify=True,
            )
            await call.write(WatchRequest(create_request=create).SerializeToString())
            if asks_progress and self._random.random() < 0.3:
                progress = WatchRequest(progress_request=WatchProgressRequest())
                await call.write(progress.SerializeToString())
            while (message := await call.read()) is not grpc.aio.EOF:
                response = WatchResponse.FromString(message)
                self._take(response)
                if response.canceled:
                    return
        finally:
            call.cancel()

    def _take(self, response: WatchResponse) -> None:
        self._responses.append(response)
        if response.canceled:
            self.last = max(self.last, response.compact_revision - 1)
        elif response.created:
            self.last = self.last or response.header.revision
        elif response.events:
            if self._recorded is not None:
                self._record(response)
            self.last = max(self.last, response.events[-1].kv.mod_revision)

    def _record(self, response: WatchResponse) -> None:
        before = sub = 0
        for event in response.events:
            main, tombstone = event.kv.mod_revision, event.type == Event.DELETE
            sub = sub + 1 if main == before else 0
            before = main
            kv = KeyValue(key=event.kv.key) if tombstone else event.kv
            encoded = kv.SerializeToString(deterministic=True)
            self._workload.truth.learn(self.name, main, sub, encoded, tombstone=tombstone)
        self._workload.recorded[self.name] = before

    def check(self) -> int:
        """Judge all that came, now that the truth is known; return how many events that were; Failure."""
        watched = Watched(self.name, self._workload.truth, self._key, self._range_end, prev_kv=self._prev_kv)
        if self._recorded is not None:
            watched.last = 1
        for response in self._responses:
            if response.canceled:
                watched.cancelled(response)
            else:
                watched.take(response)
        if self._recorded is not None and not watched.complete:
            raise Failure(f"{self.name} has got nothing after revision {watched.last}")
        return watched.events
