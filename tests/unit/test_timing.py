"""How long calls take, where that is asked for: until the answer, or the end of the stream."""

from __future__ import annotations

from typing import TYPE_CHECKING

from net.rpc import OK, Code, Routes, Status
from services.timing import Times
from tests.fakes import FakeCall, FakeClock, FakeStream

if TYPE_CHECKING:
    from net.rpc import Call, Stream


class Kept:
    """A service that keeps its calls."""

    def __init__(self) -> None:
        self.calls: list[Call] = []
        self.heard: list[object] = []

    def unary(self, call: Call, _payload: bytes) -> None:
        """Take a call."""
        self.calls.append(call)

    def stream(self, _stream: Stream) -> Kept:
        """Take a stream."""
        return self

    def on_message(self, message: bytes) -> None:
        """See StreamHandler."""
        self.heard.append(message)

    def on_half_close(self) -> None:
        """See StreamHandler."""
        self.heard.append("half closed")

    def on_drained(self) -> None:
        """See StreamHandler."""
        self.heard.append("drained")

    def on_closed(self, status: Status) -> None:
        """See StreamHandler."""
        self.heard.append(status)


def test_calls_and_streams_are_timed() -> None:
    """Each into the histogram of its method; services and engines notice nothing of it."""
    clock, kept = FakeClock(), Kept()
    times = Times(clock.monotonic_s)
    routes = times.timed(Routes({"/a.B/C": kept.unary}, {"/etcdserverpb.Maintenance/Snapshot": kept.stream}))
    calls = [FakeCall(), FakeCall(), FakeCall()]
    for call in calls:
        routes.unary["/a.B/C"](call, b"")
    handler = routes.streams["/etcdserverpb.Maintenance/Snapshot"](FakeStream())
    clock.now_s += 0.25
    kept.calls[0].reply(b"answer")
    clock.now_s += 0.5
    kept.calls[1].fail(Status(Code.NOT_FOUND, ""))
    calls[2].leave()
    kept.calls[2].reply(b"too late for anybody")
    handler.on_message(b"x")
    handler.on_drained()
    handler.on_half_close()
    handler.on_closed(OK)
    by_method = {sample.labels: sample.value for sample in times.samples()}
    unary, stream = by_method["unary", "a.B", "C"], by_method["server_stream", "etcdserverpb.Maintenance", "Snapshot"]
    assert not isinstance(unary, float)
    assert not isinstance(stream, float)
    assert (sum(unary.counts), unary.total) == (2, 1.0)
    assert (sum(stream.counts), stream.total) == (1, 0.75)
    assert (calls[0].answer, kept.calls[0].done, kept.calls[0].method) == (b"answer", True, FakeCall.method)
    assert (kept.calls[0].peer, kept.calls[0].common_name, kept.calls[0].deadline_s) == (FakeCall.peer, None, None)
    assert kept.heard == [b"x", "drained", "half closed", OK]
