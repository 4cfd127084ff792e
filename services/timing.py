"""How long calls take: the rare and long ones always, all of them where detailed metrics are asked for.

A call that is timed goes through an object of its own, which is why that is an option.  A stream takes as long as it
is open.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from core.metrics import DEFRAG_BOUNDS_S, EXPORT_BOUNDS_S, HASH_BOUNDS_S, Histogram, Sample
from net.rpc import Code, Routes
from services.grpc_metrics import kind_of
from services.identity import NotedCall

if TYPE_CHECKING:
    from collections.abc import Callable

    from net.rpc import Call, Status, Stream, StreamHandler, StreamMethod, UnaryMethod

BOUNDS_S: Final = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10)
"""Prometheus' default bounds, which etcd's dashboards expect."""


class LongTimes:
    """How long the calls took that read or move the whole store, on one listener."""

    def __init__(self, now_s: Callable[[], float]) -> None:
        """*now_s* gives monotonic seconds."""
        self._now_s = now_s
        self._hash = Histogram(HASH_BOUNDS_S)
        self._hash_kv = Histogram(HASH_BOUNDS_S)
        self._defragment = Histogram(DEFRAG_BOUNDS_S)
        self._defragmenting = 0
        self.export = Histogram(EXPORT_BOUNDS_S)

    def timed(self, routes: Routes) -> Routes:
        """Return *routes*, of which those calls are timed."""
        timed = {
            "/etcdserverpb.Maintenance/Hash": self._hash,
            "/etcdserverpb.Maintenance/HashKV": self._hash_kv,
            "/etcdserverpb.Maintenance/Defragment": self._defragment,
        }
        unary = {path: self._unary(routes.unary[path], histogram) for path, histogram in timed.items()}
        return Routes({**routes.unary, **unary}, routes.streams, routes.tallies)

    def samples(self) -> list[Sample]:
        """Return what was measured so far."""
        return [
            Sample("etcd_mvcc_hash_duration_seconds", self._hash.distribution()),
            Sample("etcd_mvcc_hash_rev_duration_seconds", self._hash_kv.distribution()),
            Sample("etcd_disk_backend_defrag_duration_seconds", self._defragment.distribution()),
            Sample("etcd_disk_defrag_inflight", self._defragmenting),
            Sample("etcd_disk_backend_snapshot_duration_seconds", self.export.distribution()),
        ]

    def _unary(self, method: UnaryMethod, histogram: Histogram) -> UnaryMethod:
        def timed(call: Call, payload: bytes) -> None:
            method(_LongCall(call, self, histogram), payload)

        return timed

    def began(self, histogram: Histogram) -> float:
        """Note that a call has begun; return when."""
        self._defragmenting += histogram is self._defragment
        return self._now_s()

    def ended(self, histogram: Histogram, since_s: float, *, well: bool) -> None:
        """Note that it has ended; what was refused has taken no time of that kind."""
        self._defragmenting -= histogram is self._defragment
        if well:
            histogram.observe(self._now_s() - since_s)


class _LongCall(NotedCall):
    """A call whose work goes on, and is counted, though its client may have left."""

    def __init__(self, call: Call, times: LongTimes, histogram: Histogram) -> None:
        super().__init__(call)
        self._times = times
        self._histogram = histogram
        self._since_s = times.began(histogram)
        self._counted = False

    def note(self, code: Code) -> None:
        """See NotedCall."""
        if not self._counted:
            self._counted = True
            self._times.ended(self._histogram, self._since_s, well=code is Code.OK)


class Times:
    """The histograms of one listener."""

    def __init__(self, now_s: Callable[[], float]) -> None:
        """*now_s* gives monotonic seconds."""
        self._now_s = now_s
        self._times: dict[tuple[str, str, str], Histogram] = {}

    def timed(self, routes: Routes) -> Routes:
        """Return *routes*, each call of which is timed."""
        return Routes(
            {path: self._unary(path, method) for path, method in routes.unary.items()},
            {path: self._stream(path, method) for path, method in routes.streams.items()},
            routes.tallies,
        )

    def samples(self) -> list[Sample]:
        """Return what was measured so far."""
        return [
            Sample("grpc_server_handling_seconds", histogram.distribution(), labels)
            for labels, histogram in self._times.items()
        ]

    def _histogram(self, path: str, *, unary: bool) -> Histogram:
        return self._times.setdefault(kind_of(path, unary=unary), Histogram(BOUNDS_S))

    def _unary(self, path: str, method: UnaryMethod) -> UnaryMethod:
        histogram, now_s = self._histogram(path, unary=True), self._now_s

        def timed(call: Call, payload: bytes) -> None:
            method(_TimedCall(call, histogram, now_s), payload)

        return timed

    def _stream(self, path: str, method: StreamMethod) -> StreamMethod:
        histogram, now_s = self._histogram(path, unary=False), self._now_s

        def timed(stream: Stream) -> StreamHandler:
            return _TimedHandler(method(stream), histogram, now_s)

        return timed


class _TimedCall(NotedCall):
    """A call that notes when it is answered.  One whose client gives up is not answered, and not counted."""

    def __init__(self, call: Call, histogram: Histogram, now_s: Callable[[], float]) -> None:
        super().__init__(call)
        self._histogram = histogram
        self._now_s = now_s
        self._since_s = now_s()

    def note(self, code: Code) -> None:
        """See NotedCall."""
        del code
        if not self._call.done:
            self._histogram.observe(self._now_s() - self._since_s)


class _TimedHandler:
    """A stream's handler that notes when the stream is over."""

    def __init__(self, handler: StreamHandler, histogram: Histogram, now_s: Callable[[], float]) -> None:
        self._histogram = histogram
        self._now_s = now_s
        self._since_s = now_s()
        self._on_closed = handler.on_closed
        self.on_message = handler.on_message
        self.on_half_close = handler.on_half_close
        self.on_drained = handler.on_drained

    def on_closed(self, status: Status) -> None:
        """See StreamHandler."""
        self._histogram.observe(self._now_s() - self._since_s)
        self._on_closed(status)
