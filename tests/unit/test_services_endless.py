"""Streams without an end of their own: known while they are open, and ended all at once."""

from __future__ import annotations

from typing import Any

from net.rpc import Code, Routes, Status
from services.endless import ENDLESS, EndlessStreams
from services.routes import client_routes
from tests.fake_node import FakeNode


class FakeStream:
    """A stream that remembers how it was ended."""

    def __init__(self) -> None:
        self.ended: list[Status] = []

    def finish(self, status: Status) -> None:
        self.ended.append(status)


def test_only_endless_streams_are_ended() -> None:
    """A snapshot is given the time to end; a watch would never."""
    endless = EndlessStreams()
    opened: list[Any] = []
    methods = dict.fromkeys([*ENDLESS, "/etcdserverpb.Maintenance/Snapshot"], opened.append)
    routes = endless.followed(Routes({}, methods))  # type: ignore[arg-type]  # the handlers are not needed
    streams = {path: FakeStream() for path in methods}
    for path, stream in streams.items():
        routes.streams[path](stream)  # type: ignore[arg-type]  # what a stream has beyond this is not needed
    gone = FakeStream()
    routes.streams["/etcdserverpb.Watch/Watch"](gone)  # type: ignore[arg-type]
    opened.clear()
    del gone
    status = Status(Code.UNAVAILABLE, "stopped")
    endless.finish(status)
    assert {path for path, stream in streams.items() if stream.ended == [status]} == ENDLESS


def test_they_are_methods_that_there_are() -> None:
    """A method that is renamed must not fall out of the list."""
    assert set(client_routes(FakeNode()).streams) >= ENDLESS
